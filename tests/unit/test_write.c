/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Writing, erasing and flushing on images small enough to look at: what lands where, what is
 * copied, what one flush costs, and every reason not to write. Cuts and failures are tests/crash's.
 */
#include "content.h"

#include "../../core/bytes.h"

#define COPIED  (UINT64_C(1) << 63)
#define ZERO    UINT64_C(1)
#define CLUSTER 4096u
#define GUEST   (64u * CLUSTER)

static uint8_t buf[GUEST];

/* 4 KiB clusters, the first four mapped in order; expected holds what the guest sees. */
static struct rig *mapped(void **state)
{
    struct rig *rig = *state;

    rig_build(rig, 3, 12, GUEST, 4);
    content_begin(GUEST);
    rig_map(rig, 4);
    memcpy(expected, rig->disk.bytes + rig_data_off(rig, 0), 4 * CLUSTER);
    rig_open_ok(rig);
    return rig;
}

static uint64_t l2_entry(const struct rig *rig, unsigned index)
{
    return qc_be64(rig->disk.bytes + CLUSTER * AT_L2 + index * 8);
}

static unsigned count_of(const struct rig *rig, uint64_t host_off)
{
    return rig->disk.bytes[CLUSTER * AT_REFBLOCK + host_off / CLUSTER * 2 + 1];
}

/* Flushes and requires so many device flushes for it. */
static void expect_flushes(struct rig *rig, unsigned count)
{
    unsigned before = rig->disk.flushes_count;

    assert_int_equal(qc_flush(&rig->image), QC_OK);
    assert_int_equal(rig->disk.flushes_count - before, count);
}

static void flushes_cost_what_they_must(void **state)
{
    struct rig *rig = mapped(state);

    expect_flushes(rig, 1); /* R5: what was there may not be durable */
    expect_flushes(rig, 0);
    write_ok(rig, 512, 1024, 1);
    expect_flushes(rig, 1); /* in place */
    write_ok(rig, 10 * CLUSTER, 512, 2);
    write_ok(rig, 20 * CLUSTER + 512, 2 * CLUSTER, 3);
    expect_flushes(rig, 2);
    assert_int_equal(qc_discard(&rig->image, 0, CLUSTER), QC_OK);
    memset(expected, 0, CLUSTER);
    expect_flushes(rig, 1); /* nothing is added: R9 */
    expect_flushes(rig, 0);
    expect_durable(rig);
}

static void partial_writes_into_new_clusters_are_filled_with_zeros(void **state)
{
    struct rig *rig = mapped(state);

    rig_fix_size(rig, 40 * CLUSTER);
    memset(rig->disk.bytes + 9 * CLUSTER, 0xee, 31 * CLUSTER);
    assert_int_equal(rig_open(rig), QC_OK);
    write_ok(rig, 30 * CLUSTER + 1024, 512, 1);
    write_ok(rig, 31 * CLUSTER, 512, 2);
    write_ok(rig, 31 * CLUSTER + 2048, 512, 3); /* a second hole: filled at once */
    write_ok(rig, 33 * CLUSTER + 2048, 512, 4);
    write_ok(rig, 33 * CLUSTER + 512, 512, 5); /* before the first */
    write_ok(rig, 33 * CLUSTER + 1024, 512, 6);
    expect_durable(rig);
}

static void sequential_writes_need_no_fill(void **state)
{
    struct rig *rig = mapped(state);

    rig_fix_size(rig, 40 * CLUSTER);
    assert_int_equal(rig_open(rig), QC_OK);
    for (unsigned i = 0; i < 8; i++)
        write_ok(rig, 30 * CLUSTER + i * 512, 512, i);
    /* Besides: L2 entries, counts. */
    rig->disk.writes_count = 0;
    assert_int_equal(qc_flush(&rig->image), QC_OK);
    assert_int_equal(rig->disk.writes_count, 2);
    expect_durable(rig);
}

static void shared_clusters_are_copied(void **state)
{
    struct rig *rig = mapped(state);

    /* A snapshot: everything but the header's structures counted twice, COPIED clear. */
    for (unsigned i = AT_L2; i < AT_DATA + 4; i++)
        rig->disk.bytes[CLUSTER * AT_REFBLOCK + 2 * i + 1] = 2;
    for (unsigned i = 0; i < 4; i++)
        rig_set_l2(rig, i, rig_data_off(rig, i));
    put_be64(rig->disk.bytes + CLUSTER * AT_L1, CLUSTER * AT_L2);
    assert_int_equal(rig_open(rig), QC_OK);
    fill(buf, CLUSTER, 9);
    memcpy(buf, rig->disk.bytes + CLUSTER * AT_L2, CLUSTER);
    write_ok(rig, CLUSTER + 512, 512, 1);
    write_ok(rig, 2 * CLUSTER + 512, CLUSTER, 2);
    assert_int_equal(qc_zero(&rig->image, 0, CLUSTER, false), QC_OK);
    memset(expected, 0, CLUSTER);
    expect_durable(rig);
    for (unsigned i = 0; i < 4; i++) {
        /* The snapshot's table and clusters are as they were, and it alone has them. */
        assert_true(l2_entry(rig, i) == rig_data_off(rig, i));
        assert_int_equal(count_of(rig, rig_data_off(rig, i)), 1);
        for (unsigned k = 0; k < CLUSTER; k += 100)
            assert_int_equal(rig->disk.bytes[rig_data_off(rig, i) + k],
                             pattern_at(rig_data_off(rig, i) + k));
    }
    assert_int_equal(count_of(rig, CLUSTER * AT_L2), 1);
}

static void erased_clusters_read_as_zeros(void **state)
{
    struct rig *rig = mapped(state);

    assert_int_equal(qc_zero(&rig->image, 0, CLUSTER, false), QC_OK);
    assert_int_equal(qc_zero(&rig->image, CLUSTER, CLUSTER, true), QC_OK);
    assert_int_equal(qc_discard(&rig->image, 2 * CLUSTER, CLUSTER), QC_OK);
    assert_int_equal(qc_discard(&rig->image, 3 * CLUSTER, CLUSTER - 512), QC_OK); /* not whole */
    assert_int_equal(qc_zero(&rig->image, 3 * CLUSTER + 512, 512, true), QC_OK);
    memset(expected, 0, 3 * CLUSTER);
    memset(expected + 3 * CLUSTER + 512, 0, 512);
    expect_durable(rig);
    assert_true(l2_entry(rig, 0) == (rig_data_off(rig, 0) | ZERO | COPIED));
    assert_true(l2_entry(rig, 1) == ZERO);
    assert_true(l2_entry(rig, 2) == 0);
    assert_int_equal(count_of(rig, rig_data_off(rig, 0)), 1);
    assert_int_equal(count_of(rig, rig_data_off(rig, 1)), 0);
    assert_int_equal(count_of(rig, rig_data_off(rig, 2)), 0);
    assert_int_equal(rig->disk.trims_count, 1); /* neighbours together */
    write_ok(rig, 512, 512, 7); /* into the cluster that was kept: its old bytes are gone */
    expect_durable(rig);
    assert_true(l2_entry(rig, 0) == (rig_data_off(rig, 0) | COPIED));
}

/* 64 tables of zero entries, more than the cache holds: each is read once, not once a cluster. */
static void erasing_passes_over_each_table_once(void **state)
{
    struct rig *rig = *state;
    const unsigned tables = 64, entries = 64, cluster = 512;
    uint64_t guest = (uint64_t)tables * entries * cluster;

    rig_build(rig, 3, 9, guest, tables);
    for (unsigned i = 0; i < tables; i++) {
        put_be64(rig->disk.bytes + cluster * AT_L1 + i * 8, rig_data_off(rig, i) | COPIED);
        for (unsigned k = 0; k < entries; k++)
            put_be64(rig->disk.bytes + rig_data_off(rig, i) + k * 8, ZERO);
    }
    assert_int_equal(rig_open(rig), QC_OK);
    rig->disk.reads_count = 0;
    assert_int_equal(qc_zero(&rig->image, 0, guest, true), QC_OK);
    assert_in_range(rig->disk.reads_count, tables, tables + 8);
    assert_int_equal(rig->disk.writes_count, 0);
}

static void freed_clusters_wait_for_the_commit(void **state)
{
    struct rig *rig = mapped(state);

    rig_fix_size(rig, (AT_DATA + 4) * CLUSTER); /* no cluster is free */
    fill(buf, CLUSTER, 1);
    assert_int_equal(qc_write(&rig->image, 10 * CLUSTER, buf, CLUSTER), QC_NOSPACE);
    assert_string_equal(qc_detail(&rig->image), "no space");
    write_ok(rig, 512, 512, 2); /* in place goes on */
    assert_int_equal(qc_discard(&rig->image, CLUSTER, CLUSTER), QC_OK);
    memset(expected + CLUSTER, 0, CLUSTER);
    rig->disk.flushes_count = 0;
    write_ok(rig, 10 * CLUSTER, CLUSTER, 3); /* commits the discard first (invariant 4) */
    assert_true(rig->disk.flushes_count > 0);
    expect_durable(rig);
    assert_true(l2_entry(rig, 10) == (rig_data_off(rig, 1) | COPIED));
}

static void tables_are_never_written_as_data(void **state)
{
    static const unsigned tables[] = {AT_HEADER, AT_REFTABLE, AT_REFBLOCK, AT_L1, AT_L2};

    for (unsigned i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
        struct rig *rig = mapped(state);
        char line[QC_DETAIL_BYTES];

        if (tables[i] == AT_HEADER)
            continue; /* offset 0 is no cluster at all */
        rig_set_l2(rig, 1, tables[i] * (uint64_t)CLUSTER | COPIED);
        assert_int_equal(rig_open(rig), QC_OK);
        memcpy(expected, rig->disk.bytes, 9 * CLUSTER);
        assert_int_equal(qc_write(&rig->image, CLUSTER, buf, 512), QC_CORRUPT);
        snprintf(line, sizeof(line), "cluster 0x%x is metadata", tables[i] * CLUSTER);
        assert_string_equal(qc_detail(&rig->image), line);
        expected[79] = 2; /* the corrupt mark, and nothing else */
        assert_memory_equal(expected, rig->disk.bytes, 9 * CLUSTER);
        assert_int_equal(rig->disk.flushes_count, 1);
        assert_int_equal(qc_write(&rig->image, 0, buf, 512), QC_READONLY);
        assert_string_equal(qc_detail(&rig->image), line);
        assert_int_equal(qc_read(&rig->image, 0, buf, 512), QC_OK);
    }
}

static void tables_are_never_allocated(void **state)
{
    for (unsigned at = AT_HEADER; at <= AT_L2; at++) {
        struct rig *rig = mapped(state);
        char line[QC_DETAIL_BYTES];

        rig->disk.bytes[CLUSTER * AT_REFBLOCK + 2 * at + 1] = 0; /* the count lies */
        assert_int_equal(rig_open(rig), QC_OK);
        assert_int_equal(qc_write(&rig->image, 10 * CLUSTER, buf, 512), QC_CORRUPT);
        if (at == AT_L2) /* that its own count is wrong is noticed before */
            snprintf(line, sizeof(line), "refcount out of range at 0x%x", at * CLUSTER);
        else
            snprintf(line, sizeof(line), "free cluster 0x%x is metadata", at * CLUSTER);
        assert_string_equal(qc_detail(&rig->image), line);
    }
}

static void counts_that_contradict_entries_are_damage(void **state)
{
    for (unsigned count = 0; count <= 2; count += 2) {
        struct rig *rig = mapped(state);

        rig->disk.bytes[CLUSTER * AT_REFBLOCK + 2 * (AT_DATA + 1) + 1] = (uint8_t)count;
        assert_int_equal(rig_open(rig), QC_OK);
        assert_int_equal(qc_write(&rig->image, CLUSTER + 512, buf, 512), QC_CORRUPT);
        assert_string_equal(qc_detail(&rig->image), "COPIED flag wrong at guest 0x1200");
    }
}

static void requests_are_whole_sectors_inside(void **state)
{
    struct rig *rig = mapped(state);

    assert_int_equal(qc_write(&rig->image, 0, buf, 511), QC_RANGE);
    assert_int_equal(qc_write(&rig->image, 1, buf, 512), QC_RANGE);
    assert_int_equal(qc_write(&rig->image, GUEST - 512, buf, 1024), QC_RANGE);
    assert_int_equal(qc_write(&rig->image, UINT64_MAX - 511, buf, 512), QC_RANGE);
    assert_int_equal(qc_zero(&rig->image, GUEST, 512, true), QC_RANGE);
    assert_int_equal(qc_discard(&rig->image, 0, GUEST + 512), QC_RANGE);
    assert_int_equal(qc_write(&rig->image, GUEST, buf, 0), QC_OK);
    assert_int_equal(rig->disk.writes_count, 0);
}

static void images_that_take_no_writes_say_why(void **state)
{
    struct rig *rig = mapped(state);

    rig->options.readonly = true;
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(qc_write(&rig->image, 0, buf, 512), QC_READONLY);
    assert_string_equal(qc_detail(&rig->image), "read-only");
    rig->options.readonly = false;
    put_be64(rig->disk.bytes + 72, QC_INCOMPATIBLE_CORRUPT);
    assert_int_equal(rig_open(rig), QC_OK);
    assert_string_equal(qc_readonly_reason(&rig->image), "image is marked corrupt: read-only");
    put_be64(rig->disk.bytes + 72, 0);
    rig->disk.disk.block_bytes = 8192;
    assert_int_equal(rig_open(rig), QC_OK);
    assert_string_equal(qc_readonly_reason(&rig->image),
                        "clusters of 4096 on 8192-byte blocks: read-only");
    assert_int_equal(qc_flush(&rig->image), QC_OK);
    assert_int_equal(rig->disk.writes_count, 0);
}

static void autoclear_bits_go_before_the_first_change(void **state)
{
    struct rig *rig = mapped(state);

    put_be64(rig->disk.bytes + 88, 0xff00 | QC_AUTOCLEAR_BITMAPS);
    put_be64(rig->disk.bytes + 80, UINT64_MAX); /* compatible bits are kept */
    assert_int_equal(rig_open(rig), QC_OK);
    expect_content(rig);
    assert_int_equal(qc_flush(&rig->image), QC_OK);
    assert_int_equal(rig->disk.writes_count, 0);
    rig->disk.flushes_count = 0;
    write_ok(rig, 0, 512, 1);
    assert_int_equal(rig->disk.flushes_count, 1);
    assert_true(qc_be64(rig->disk.bytes + 88) == 0);
    assert_true(qc_be64(rig->disk.bytes + 80) == UINT64_MAX);
    write_ok(rig, 512, 512, 1);
    assert_int_equal(rig->disk.flushes_count, 1);
}

static void write_through_commits_every_write(void **state)
{
    struct rig *rig = mapped(state);

    rig->options.write_through = true;
    assert_int_equal(rig_open(rig), QC_OK);
    write_ok(rig, 20 * CLUSTER, 512, 1);
    assert_int_equal(rig->disk.flushes_count, 2);
    assert_true(l2_entry(rig, 20) != 0);
    expect_flushes(rig, 0);
}

static void failed_flush_of_the_disk_is_the_end_of_writing(void **state)
{
    struct rig *rig = mapped(state);

    write_ok(rig, 20 * CLUSTER, 512, 1);
    rig->disk.fail_flush_at = 1;
    assert_int_equal(qc_flush(&rig->image), QC_IO);
    assert_string_equal(qc_readonly_reason(&rig->image), "the disk failed to flush: read-only");
    assert_int_equal(qc_write(&rig->image, 0, buf, 512), QC_READONLY);
    assert_int_equal(qc_flush(&rig->image), QC_READONLY);
    assert_int_equal(qc_settle(&rig->image), QC_READONLY);
    expect_content(rig);
    assert_true(l2_entry(rig, 20) == 0);
}

static void failed_write_of_a_commit_is_tried_again(void **state)
{
    for (unsigned nth = 1; nth <= 4; nth++) {
        struct rig *rig = mapped(state);
        qc_status status;

        write_ok(rig, 20 * CLUSTER, 512, 1);
        rig->disk.fail_write_at = rig->disk.writes_count + nth;
        status = qc_flush(&rig->image);
        assert_int_equal(status, nth <= 2 ? QC_IO : QC_OK); /* counts and entries are two writes */
        assert_string_equal(qc_readonly_reason(&rig->image), "");
        expect_content(rig);
        assert_int_equal(qc_flush(&rig->image), QC_OK);
        rig->disk.fail_write_at = 0;
        expect_durable(rig);
    }
}

/* What a failed write left behind may not come back once the place was made to read as zeros. */
static void failed_write_does_not_come_back(void **state)
{
    struct rig *rig = *state;

    image_build(&rig->disk, 3, 14, 1 << 20, 0);
    assert_int_equal(rig_open(rig), QC_OK);
    content_begin(GUEST);
    write_ok(rig, 0, 1024, 1);
    fill(buf, 4096, 2);
    rig->disk.fail_write_at = rig->disk.writes_count + 1;
    assert_int_equal(qc_write(&rig->image, 8192, buf, 4096), QC_IO);
    rig->disk.fail_write_at = 0;
    assert_int_equal(qc_zero(&rig->image, 8192, 4096, false), QC_OK);
    expect_content(rig);
    expect_durable(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(flushes_cost_what_they_must),
        RIG_TEST(partial_writes_into_new_clusters_are_filled_with_zeros),
        RIG_TEST(sequential_writes_need_no_fill),
        RIG_TEST(shared_clusters_are_copied),
        RIG_TEST(erased_clusters_read_as_zeros),
        RIG_TEST(erasing_passes_over_each_table_once),
        RIG_TEST(freed_clusters_wait_for_the_commit),
        RIG_TEST(tables_are_never_written_as_data),
        RIG_TEST(tables_are_never_allocated),
        RIG_TEST(counts_that_contradict_entries_are_damage),
        RIG_TEST(requests_are_whole_sectors_inside),
        RIG_TEST(images_that_take_no_writes_say_why),
        RIG_TEST(autoclear_bits_go_before_the_first_change),
        RIG_TEST(write_through_commits_every_write),
        RIG_TEST(failed_flush_of_the_disk_is_the_end_of_writing),
        RIG_TEST(failed_write_of_a_commit_is_tried_again),
        RIG_TEST(failed_write_does_not_come_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
