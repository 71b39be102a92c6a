/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The cache of clean slices: hits, misses, failing reads, replacement that resists scans, and that
 * its three lists stay what they claim to be under any mix of calls.
 */
#include "support.h"

/* A disk without end whose bytes are a function of their place. */
struct endless {
    struct qc_disk disk;
    unsigned reads_count;
    bool is_failing;
};

static qc_status endless_read(struct qc_disk *disk, uint64_t host_off, void *buf, size_t len)
{
    struct endless *endless = (struct endless *)disk;
    uint8_t *out = buf;

    endless->reads_count++;
    for (size_t i = 0; i < len; i++)
        out[i] = endless->is_failing ? 0xee : pattern_at(host_off + i);
    return endless->is_failing ? QC_IO : QC_OK;
}

static const struct qc_disk_ops endless_ops = {.read = endless_read};
static _Alignas(QC_PAGE_BYTES) uint8_t pool[256 * QC_PAGE_BYTES];

static void begin(struct endless *endless, struct qc_cache *cache, size_t pool_bytes)
{
    *endless = (struct endless){.disk = {&endless_ops, UINT64_C(1) << 60, 512, true}};
    memset(pool, 0xdd, sizeof(pool));
    qc_cache_init(cache, pool, pool_bytes);
}

static void get(struct qc_cache *cache, struct endless *endless, uint64_t page, enum qc_heat heat)
{
    const uint8_t *slice;

    assert_int_equal(qc_cache_get(cache, &endless->disk, 0, page * 4096, 4096, heat, &slice),
                     QC_OK);
    for (unsigned i = 0; i < 4096; i += 511)
        assert_int_equal(slice[i], pattern_at(page * 4096 + i));
}

/* Each list is whole in both directions, and every page below pages_used has exactly one owner. */
static void check_lists(const struct qc_cache *cache)
{
    bool owned[256] = {false};
    unsigned owned_count = 0, left_count;

    for (unsigned list = 0; list < QC_LISTS_COUNT; list++) {
        uint16_t prev = 0, index = cache->lists[list].head;
        unsigned count = 0;

        for (; index != 0; prev = index, index = cache->slots[index].next, count++) {
            const struct qc_slot *slot = &cache->slots[index];

            assert_int_equal(slot->list, list);
            assert_int_equal(slot->prev, prev);
            if (list == QC_LIST_QUEUE || list == QC_LIST_MAIN) {
                assert_in_range(slot->page, 0, cache->pages_used - 1u);
                assert_true(slot->page < cache->pages_count - cache->pages_lent);
                assert_false(owned[slot->page]);
                owned[slot->page] = true;
                owned_count++;
            }
        }
        assert_int_equal(cache->lists[list].tail, prev);
        assert_int_equal(cache->lists[list].count, count);
    }
    left_count = cache->pages_count - cache->pages_lent;
    if (left_count > cache->pages_used)
        left_count = cache->pages_used;
    assert_int_equal(owned_count + cache->free_pages_count, left_count);
}

static void pool_is_used_and_not_overrun(void **state)
{
    struct endless endless;
    struct qc_cache cache;

    (void)state;
    for (size_t bytes = QC_POOL_BYTES_MIN; bytes < sizeof(pool) - 64; bytes += 12347) {
        begin(&endless, &cache, bytes);
        /* The rest is staging, at most 1/16 and two pages, and indexes, below a tenth. */
        assert_in_range(cache.pages_count, bytes / QC_PAGE_BYTES * 84 / 100 - 3,
                        bytes / QC_PAGE_BYTES);
        for (unsigned i = 0; i < 600; i++)
            get(&cache, &endless, i % 300, i % 7 ? QC_HEAT_PASSING : QC_HEAT_TOP);
        assert_int_equal(pool[bytes], 0xdd);
        check_lists(&cache);
    }
}

static void largest_pool_fits_its_indexes(void **state)
{
    struct qc_cache cache;
    void *memory = aligned_alloc(QC_PAGE_BYTES, QC_POOL_BYTES_MAX);

    (void)state;
    assert_non_null(memory);
    qc_cache_init(&cache, memory, QC_POOL_BYTES_MAX);
    assert_in_range(cache.pages_count, QC_POOL_BYTES_MAX / QC_PAGE_BYTES * 90 / 100,
                    QC_POOL_BYTES_MAX / QC_PAGE_BYTES);
    free(memory);
}

static void hit_costs_no_read(void **state)
{
    struct endless endless;
    struct qc_cache cache;

    (void)state;
    begin(&endless, &cache, QC_POOL_BYTES_MIN);
    get(&cache, &endless, 7, QC_HEAT_PASSING);
    get(&cache, &endless, 7, QC_HEAT_PASSING);
    get(&cache, &endless, 7, QC_HEAT_TOP);
    assert_int_equal(endless.reads_count, 1);
}

static void failed_read_is_not_kept(void **state)
{
    struct endless endless;
    struct qc_cache cache;
    const uint8_t *slice = pool;

    (void)state;
    begin(&endless, &cache, QC_POOL_BYTES_MIN);
    for (unsigned i = 0; i < 100; i++) {
        endless.is_failing = true;
        assert_int_equal(
            qc_cache_get(&cache, &endless.disk, 0, i * 4096, 4096, QC_HEAT_PASSING, &slice), QC_IO);
        assert_ptr_equal(slice, pool); /* set only on success */
        check_lists(&cache);
        endless.is_failing = false;
        if (i % 3 == 0)
            get(&cache, &endless, i, QC_HEAT_PASSING);
    }
    endless.is_failing = true;
    assert_int_equal(qc_cache_get(&cache, &endless.disk, 0, 99 * 4096, 4096, QC_HEAT_TOP, &slice),
                     QC_OK);
}

static void longer_slice_at_the_same_place_is_read_again(void **state)
{
    struct endless endless;
    struct qc_cache cache;
    const uint8_t *slice;

    (void)state;
    begin(&endless, &cache, QC_POOL_BYTES_MIN);
    assert_int_equal(qc_cache_get(&cache, &endless.disk, 0, 4096, 512, QC_HEAT_PASSING, &slice),
                     QC_OK);
    get(&cache, &endless, 1, QC_HEAT_PASSING);
    assert_int_equal(endless.reads_count, 2);
    endless.is_failing = true;
    assert_int_equal(qc_cache_get(&cache, &endless.disk, 0, 4096, 512, QC_HEAT_PASSING, &slice),
                     QC_OK);
}

static void scan_does_not_push_out_what_is_used(void **state)
{
    struct endless endless;
    struct qc_cache cache;
    unsigned before;

    (void)state;
    begin(&endless, &cache, 64 * QC_PAGE_BYTES);
    for (unsigned round = 0; round < 40; round++) {
        for (unsigned hot = 0; hot < 20; hot++)
            get(&cache, &endless, hot, QC_HEAT_PASSING);
        for (unsigned i = 0; i < 10; i++)
            get(&cache, &endless, 1000 + round * 10 + i, QC_HEAT_PASSING);
    }
    before = endless.reads_count;
    for (unsigned i = 0; i < 100000; i++)
        get(&cache, &endless, 5000 + i, QC_HEAT_PASSING);
    assert_int_equal(endless.reads_count - before, 100000);
    before = endless.reads_count;
    for (unsigned hot = 0; hot < 20; hot++)
        get(&cache, &endless, hot, QC_HEAT_PASSING);
    assert_int_equal(endless.reads_count - before, 0);
}

static void top_slices_stay_through_a_scan(void **state)
{
    struct endless endless;
    struct qc_cache cache;
    unsigned before;

    (void)state;
    begin(&endless, &cache, QC_POOL_BYTES_MIN);
    get(&cache, &endless, 1, QC_HEAT_TOP);
    for (unsigned i = 0; i < 1000; i++)
        get(&cache, &endless, 100 + i, QC_HEAT_PASSING);
    before = endless.reads_count;
    get(&cache, &endless, 1, QC_HEAT_TOP);
    assert_int_equal(endless.reads_count, before);
}

static void lists_stay_whole_under_random_calls(void **state)
{
    struct endless endless;
    struct qc_cache cache;
    uint64_t seed = 20260101;
    const uint8_t *slice;

    (void)state;
    begin(&endless, &cache, 24 * QC_PAGE_BYTES);
    for (unsigned i = 0; i < 200000; i++) {
        seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
        endless.is_failing = (seed >> 60) == 0;
        if (qc_cache_get(&cache, &endless.disk, 0, (seed >> 33) % 97 * 4096, 4096,
                         (seed >> 50) % 5 ? QC_HEAT_PASSING : QC_HEAT_TOP, &slice) == QC_OK)
            assert_int_equal(slice[1], pattern_at((seed >> 33) % 97 * 4096 + 1));
        if (i % 64 == 0)
            check_lists(&cache);
    }
}

static void forgotten_slice_is_read_again(void **state)
{
    struct endless endless;
    struct qc_cache cache;
    uint32_t len;

    (void)state;
    begin(&endless, &cache, QC_POOL_BYTES_MIN);
    assert_null(qc_cache_peek(&cache, 7 * 4096, &len));
    get(&cache, &endless, 7, QC_HEAT_PASSING);
    assert_non_null(qc_cache_peek(&cache, 7 * 4096, &len));
    assert_int_equal(len, 4096);
    qc_cache_forget(&cache, 7 * 4096);
    qc_cache_forget(&cache, 8 * 4096); /* is not here */
    assert_null(qc_cache_peek(&cache, 7 * 4096, &len));
    get(&cache, &endless, 7, QC_HEAT_PASSING);
    assert_int_equal(endless.reads_count, 2);
    check_lists(&cache);
}

static void pages_are_lent_and_come_back(void **state)
{
    struct endless endless;
    struct qc_cache cache;
    uint64_t seed = 7;
    unsigned lent_count = 0;

    (void)state;
    begin(&endless, &cache, 64 * QC_PAGE_BYTES);
    assert_in_range(cache.lend_pages_max, cache.pages_count / 2, cache.pages_count - 4u);
    for (unsigned i = 0; i < 100000; i++) {
        seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        if ((seed >> 60) < 3 && lent_count < cache.lend_pages_max) {
            qc_cache_lend_page(&cache);
            memset(qc_cache_lent_page(&cache, lent_count), (int)lent_count, QC_PAGE_BYTES);
            lent_count++;
        } else if ((seed >> 60) < 6 && lent_count > 0) {
            lent_count--;
            for (unsigned k = 0; k < QC_PAGE_BYTES; k++)
                assert_int_equal(qc_cache_lent_page(&cache, lent_count)[k], (uint8_t)lent_count);
            qc_cache_return_page(&cache);
        } else {
            get(&cache, &endless, (seed >> 33) % 200, QC_HEAT_PASSING);
        }
        if (i % 16 == 0)
            check_lists(&cache);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pool_is_used_and_not_overrun),
        cmocka_unit_test(largest_pool_fits_its_indexes),
        cmocka_unit_test(hit_costs_no_read),
        cmocka_unit_test(failed_read_is_not_kept),
        cmocka_unit_test(longer_slice_at_the_same_place_is_read_again),
        cmocka_unit_test(scan_does_not_push_out_what_is_used),
        cmocka_unit_test(top_slices_stay_through_a_scan),
        cmocka_unit_test(lists_stay_whole_under_random_calls),
        cmocka_unit_test(forgotten_slice_is_read_again),
        cmocka_unit_test(pages_are_lent_and_come_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
