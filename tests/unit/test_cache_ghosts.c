/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * What the cache no longer holds it does not show: a slice that left it and is only remembered, one
 * whose read failed, one that never was there; and no guest slice is told to lie in any of them.
 */
#include "support.h"

#define PAGES   16u
#define SLICES  32u /* more than the pool has room for */
#define SLICE_0 (UINT64_C(1) << 20)

static _Alignas(QC_PAGE_BYTES) uint8_t pool[PAGES * QC_PAGE_BYTES];
static struct mem_disk disk;
static struct qc_cache cache;

static qc_status get(unsigned n)
{
    const uint8_t *slice;

    return qc_cache_get(&cache, &disk.disk, 0, SLICE_0 + n * QC_PAGE_BYTES, QC_PAGE_BYTES,
                        QC_HEAT_PASSING, &slice);
}

static void begin(void)
{
    memset(&disk, 0, sizeof(disk));
    image_build(&disk, 3, 12, 4096, 0);
    disk.disk.size_bytes = MEM_DISK_BYTES;
    qc_cache_init(&cache, pool, sizeof(pool));
}

/* Neither shown, nor taken for the one that maps a guest slice. */
static void expect_nothing(unsigned n)
{
    const uint8_t *slice;
    uint32_t len;

    assert_null(qc_cache_peek(&cache, SLICE_0 + n * QC_PAGE_BYTES, &len));
    qc_cache_tag(&cache, SLICE_0 + n * QC_PAGE_BYTES, 7);
    assert_false(qc_cache_tagged(&cache, 7, &slice));
}

static void slices_that_are_here_are_shown(void **state)
{
    const uint8_t *slice;
    uint32_t len;

    (void)state;
    begin();
    expect_nothing(0);
    assert_int_equal(get(0), QC_OK);
    assert_non_null(qc_cache_peek(&cache, SLICE_0, &len));
    assert_int_equal(len, QC_PAGE_BYTES);
    qc_cache_tag(&cache, SLICE_0, 7);
    assert_true(qc_cache_tagged(&cache, 7, &slice));
    qc_cache_forget(&cache, SLICE_0);
    expect_nothing(0);
}

static void ghosts_are_not_shown(void **state)
{
    (void)state;
    begin();
    for (unsigned i = 0; i < SLICES; i++)
        assert_int_equal(get(i), QC_OK);
    assert_true(cache.lists[QC_LIST_GHOST].count > 0);
    for (unsigned i = 0; i < SLICES - PAGES; i++)
        expect_nothing(i);
}

static void slices_that_failed_are_not_shown(void **state)
{
    (void)state;
    begin();
    disk.fail_at = 1;
    assert_int_equal(get(0), QC_IO);
    expect_nothing(0);
    assert_int_equal(get(0), QC_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slices_that_are_here_are_shown),
        cmocka_unit_test(ghosts_are_not_shown),
        cmocka_unit_test(slices_that_failed_are_not_shown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
