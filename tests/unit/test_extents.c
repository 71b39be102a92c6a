/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * A disk in runs, against a copy of the file that the runs make up: what is read, what is
 * written, and that nothing else of the disk below is touched.
 */
#include "volume.h"

#define BELOW_BYTES    (128u * 1024)
#define FILE_BYTES     20000u /* its last run is cut short */
#define RUNS_COUNT     4u
#define REQUESTS_COUNT 2000u

static const struct qc_run runs[RUNS_COUNT] = {
    {0, 40960}, {4096, 8192}, {12288, 1024}, {16384, 61440}};

static struct volume mem;
static struct qc_extents extents;
static uint8_t model[FILE_BYTES], below[BELOW_BYTES], buf[FILE_BYTES];
static uint32_t seed;

static uint32_t any(uint32_t limit)
{
    seed = seed * 1664525 + 1013904223;
    return (seed >> 8) % limit;
}

/* Where a byte of the file is, told in the plainest way. */
static uint64_t place_of(uint64_t file_off)
{
    unsigned i = RUNS_COUNT - 1;

    while (runs[i].file_off > file_off)
        i--;
    return runs[i].host_off + file_off - runs[i].file_off;
}

static void start(void)
{
    seed = 1;
    volume_init(&mem, BELOW_BYTES);
    for (size_t i = 0; i < BELOW_BYTES; i++)
        mem.bytes[i] = below[i] = (uint8_t)any(256);
    for (size_t i = 0; i < FILE_BYTES; i++)
        model[i] = below[place_of(i)];
    qc_extents_init(&extents, &mem.disk, runs, RUNS_COUNT, FILE_BYTES);
}

static void it_reads_as_the_file(void **state)
{
    (void)state;
    start();
    for (unsigned i = 0; i < REQUESTS_COUNT; i++) {
        uint32_t off = any(FILE_BYTES), len = 1 + any(FILE_BYTES - off);

        assert_int_equal(extents.disk.ops->read(&extents.disk, off, buf, len), QC_OK);
        assert_memory_equal(buf, model + off, len);
    }
}

static void it_writes_its_runs_alone(void **state)
{
    (void)state;
    start();
    for (unsigned i = 0; i < REQUESTS_COUNT; i++) {
        uint32_t off = any(FILE_BYTES), len = 1 + any(FILE_BYTES - off);

        memset(buf, (int)any(256), len);
        assert_int_equal(extents.disk.ops->write(&extents.disk, off, buf, len), QC_OK);
        for (uint32_t j = 0; j < len; j++)
            below[place_of(off + j)] = buf[j];
    }
    assert_memory_equal(mem.bytes, below, BELOW_BYTES);
}

static void a_run_is_one_request(void **state)
{
    (void)state;
    start();
    assert_int_equal(extents.disk.ops->read(&extents.disk, 4096, buf, 8192), QC_OK);
    assert_int_equal(mem.reads_count, 1);
    assert_int_equal(mem.read_off_last, 8192);
    assert_int_equal(extents.disk.ops->read(&extents.disk, 0, buf, FILE_BYTES), QC_OK);
    assert_int_equal(mem.reads_count, 1 + RUNS_COUNT);
    assert_int_equal(mem.read_len_last, FILE_BYTES - 16384);
}

static void a_failure_ends_the_request(void **state)
{
    (void)state;
    start();
    mem.fail_at = 2;
    assert_int_equal(extents.disk.ops->read(&extents.disk, 0, buf, FILE_BYTES), QC_IO);
    assert_int_equal(mem.reads_count, 2);
    mem.fail_at = mem.reads_count + 3;
    assert_int_equal(extents.disk.ops->write(&extents.disk, 0, buf, FILE_BYTES), QC_IO);
    assert_int_equal(mem.writes_count, 3);
}

static void it_is_as_the_disk_below(void **state)
{
    (void)state;
    start();
    assert_int_equal(extents.disk.size_bytes, FILE_BYTES);
    assert_int_equal(extents.disk.block_bytes, mem.disk.block_bytes);
    assert_false(extents.disk.readonly);
    assert_null(extents.disk.ops->grow);
    assert_null(extents.disk.ops->trim);
    assert_int_equal(extents.disk.ops->flush(&extents.disk), QC_OK);
    mem.fail_at = 2;
    assert_int_equal(extents.disk.ops->flush(&extents.disk), QC_IO);
    mem.disk.readonly = true;
    mem.disk.block_bytes = 4096;
    qc_extents_init(&extents, &mem.disk, runs, RUNS_COUNT, FILE_BYTES);
    assert_true(extents.disk.readonly);
    assert_int_equal(extents.disk.block_bytes, 4096);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_reads_as_the_file),    cmocka_unit_test(it_writes_its_runs_alone),
        cmocka_unit_test(a_run_is_one_request),    cmocka_unit_test(a_failure_ends_the_request),
        cmocka_unit_test(it_is_as_the_disk_below),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
