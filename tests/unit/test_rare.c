/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Changes that hardly any image brings about: tables that turn into something else, disks that lose
 * their end, counts that take several windows, transfers that end between two parts.
 *
 * Promises: each ends as a plain failure would: nothing lands on what is another's, and a failed
 * disk answers QC_IO.
 */
#include "shape.h"

#include "../../core/blank.h"
#include "../../core/bytes.h"
#include "../../core/cluster.h"
#include "../../core/map.h"
#include "../../core/table.h"
#include "../../core/verify.h"

#define CLUSTER  512u
#define AT_SNAP  (AT_DATA + SHAPE_DATA)
#define READS    60u
#define LONG_L1  600u /* entries: more than a slice has */
#define EXT_BITS 14u

static uint8_t buf[64 * 1024];

/* Counts are believed; with pages for hardly any slice. */
static void open_small(struct rig *rig)
{
    rig_open_ok(rig);
    rig_believe(rig);
    rig_shrink(rig, 3);
}

/* An L1 table of so many entries, of which the first alone names a table. */
static void build_long_l1(struct rig *rig)
{
    unsigned at = 16, clusters = LONG_L1 * 8 / CLUSTER + 1;

    rig_build(rig, 3, 9, (uint64_t)LONG_L1 * 64 * CLUSTER, SHAPE_DATA);
    rig_set_l2(rig, 0, rig_data_off(rig, 0) | SHAPE_COPIED);
    put_be64(rig->disk.bytes + 40, at * CLUSTER);
    rig->disk.disk.size_bytes = (at + clusters) * CLUSTER;
    memset(rig->disk.bytes + at * CLUSTER, 0, clusters * CLUSTER);
    put_be64(rig->disk.bytes + at * CLUSTER, AT_L2 * CLUSTER | SHAPE_COPIED);
    for (unsigned i = 0; i < clusters; i++)
        shape_set_count(rig, at + i, 1);
}

/* ---- tables ---------------------------------------------------------------------------------- */

static void what_is_known_of_a_table_goes_with_it(void **state)
{
    struct rig *rig = *state;
    uint64_t table_off = rig->cluster_bytes;

    shape_build(rig, 3, 9);
    rig_open_ok(rig);
    table_off = rig_data_off(rig, 1);
    qc_blank_add(&rig->image, table_off);
    assert_true(qc_blank_covers(&rig->image, table_off, 8));
    qc_table_forget(&rig->image, table_off);
    assert_false(qc_blank_covers(&rig->image, table_off, 8));
}

/* The disk changes below the open image. */
static void a_block_that_becomes_an_l2_table_is_not_written(void **state)
{
    struct rig *rig = *state;

    rig_build(rig, 3, 9, 3 * 64 * CLUSTER, SHAPE_DATA);
    rig_set_l2(rig, 0, rig_data_off(rig, 0) | SHAPE_COPIED);
    rig_open_ok(rig);
    assert_int_equal(qc_write(&rig->image, 0, buf, 512), QC_OK);
    put_be64(shape_table(rig, AT_L1) + 8, AT_REFBLOCK * CLUSTER | SHAPE_COPIED);
    qc_cache_forget(&rig->cache, AT_L1 * CLUSTER);
    rig_keep(rig);
    rig_expect_damage(rig, qc_write(&rig->image, (64 + 20) * CLUSTER, buf, 512), QC_CORRUPT,
                      "cluster 0x400 is metadata", RIG_MARKED);
}

/* The data cluster is named by the far end of the L1 table, which is read when it is asked. */
static void a_table_that_cannot_be_asked_fails_the_write(void **state)
{
    struct rig *rig = *state;
    unsigned io_count = 0;

    for (unsigned fail_at = 0; fail_at < READS; fail_at++) {
        qc_status status;

        build_long_l1(rig);
        put_be64(rig->disk.bytes + 16 * CLUSTER + (LONG_L1 - 1) * 8, rig_data_off(rig, 0));
        open_small(rig);
        rig->disk.reads_count = 0;
        rig->disk.fail_at = fail_at;
        status = qc_write(&rig->image, 0, buf, 512);
        assert_true(status == QC_CORRUPT || (fail_at != 0 && status == QC_IO));
        io_count += status == QC_IO;
        assert_int_equal(rig->disk.bytes[rig_data_off(rig, 0)], pattern_at(rig_data_off(rig, 0)));
    }
    assert_in_range(io_count, 5, READS - 1);
}

static void snapshots_with_huge_l1_tables(void **state)
{
    struct rig *rig = *state;
    uint32_t most = QC_L1_BYTES_MAX / 8;

    for (unsigned count = 1; count <= 17; count += 16) {
        shape_build(rig, 3, 9);
        rig->disk.disk.size_bytes = (AT_SNAP + 2) * CLUSTER;
        memset(rig->disk.bytes + AT_SNAP * CLUSTER, 0, 2 * CLUSTER);
        put_be32(rig->disk.bytes + 60, count);
        put_be64(rig->disk.bytes + 64, AT_SNAP * CLUSTER);
        for (unsigned i = 0; i < count; i++)
            put_be32(rig->disk.bytes + AT_SNAP * CLUSTER + i * 40 + 8, most + (count == 1));
        assert_int_equal(rig_open(rig), QC_OK);
        rig_keep(rig);
        assert_int_not_equal(qc_write(&rig->image, 0, buf, 512), QC_OK);
        assert_string_equal(qc_detail(&rig->image), "L1 tables of snapshots too large");
        assert_string_equal(qc_readonly_reason(&rig->image), "L1 tables of snapshots too large");
    }
}

/* ---- counts ---------------------------------------------------------------------------------- */

static void counts_are_not_told_up_while_changes_wait(void **state)
{
    struct rig *rig = *state;

    shape_build(rig, 3, 9);
    rig_open_ok(rig);
    assert_int_equal(qc_write(&rig->image, 20 * CLUSTER, buf, 512), QC_OK);
    shape_set_count(rig, AT_DATA, 0);
    rig->disk.reads_count = 0;
    assert_int_equal(qc_verify_counts(&rig->image), QC_OK);
    assert_int_equal(rig->disk.reads_count, 0);
    assert_int_equal(qc_settle(&rig->image), QC_OK);
    shape_set_count(rig, AT_DATA, 0);
    assert_int_equal(qc_verify_counts(&rig->image), QC_OK);
    assert_true(rig->image.lying_off == rig_data_off(rig, 0));
}

static void more_counts_lie_than_are_noted(void **state)
{
    struct rig *rig = *state;

    rig_build(rig, 3, 12, 64 * 4096, 20);
    rig_map(rig, 20);
    for (unsigned i = 0; i < 20; i++)
        shape_set_count(rig, AT_DATA + i, 0);
    rig_open_ok(rig);
    rig_keep(rig);
    rig_expect_damage(rig, qc_write(&rig->image, 30 * 4096, buf, 512), QC_CORRUPT,
                      "refcount out of range at 0x5000", RIG_UNMARKED);
}

/* Two clusters in one step, packed into one whose count knows of one. */
static void ranges_of_one_step_are_counted_together(void **state)
{
    struct rig *rig = *state;

    for (unsigned count = 1; count <= 2; count++) {
        rig_build(rig, 3, 12, 64 * 4096, 1);
        for (unsigned i = 0; i < 2; i++)
            rig_set_l2(rig, i, SHAPE_COMPRESSED | (rig_data_off(rig, 0) + 10));
        shape_set_count(rig, AT_DATA, (uint8_t)count);
        rig_open_ok(rig);
        rig_believe(rig);
        assert_int_equal(qc_write(&rig->image, 0, buf, 2 * 4096), count == 1 ? QC_CORRUPT : QC_OK);
        assert_string_equal(qc_detail(&rig->image),
                            count == 1 ? "refcount out of range at 0x5000" : "");
    }
}

/* ---- commits --------------------------------------------------------------------------------- */

static const struct qc_disk_ops *plain_ops;
static size_t longest_write;

static qc_status noting_write(struct qc_disk *disk, uint64_t host_off, const void *buf_, size_t len)
{
    longest_write = len > longest_write ? len : longest_write;
    return plain_ops->write(disk, host_off, buf_, len);
}

/* One entry after the other in reach of a write's gap, over more bytes than are written at once. */
static void entries_over_all_of_a_large_table(void **state)
{
    struct rig *rig = *state;
    unsigned every = 384, count = 20;
    struct qc_disk_ops ops;

    rig_build(rig, 3, 16, UINT64_C(8192) << 16, 1);
    plain_ops = rig->disk.disk.ops;
    ops = *plain_ops;
    ops.write = noting_write;
    rig->disk.disk.ops = &ops;
    longest_write = 0;
    for (unsigned i = 0; i < count; i++)
        rig_set_l2(rig, i * every, QC_ENTRY_ZERO);
    rig_open_ok(rig);
    assert_true(count * every * 8 > 2 * rig->cache.staging_bytes);
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(qc_discard(&rig->image, (uint64_t)i * every << 16, 1u << 16), QC_OK);
    assert_int_equal(qc_settle(&rig->image), QC_OK);
    assert_in_range(longest_write, 8192, rig->cache.staging_bytes);
    for (unsigned i = 0; i < 8192; i++)
        assert_true(shape_l2_entry(rig, i) == 0);
}

/* A commit breaks off when some tables are durable; the next one brings another. */
static void tables_join_those_of_a_commit_that_broke_off(void **state)
{
    struct rig *rig = *state;

    for (unsigned fails = 1; fails < 12; fails++) {
        qc_status status;

        rig_build(rig, 3, 9, 4 * 64 * CLUSTER, 0);
        rig_open_ok(rig);
        memset(buf, 0x41, 512);
        assert_int_equal(qc_write(&rig->image, 2 * 64 * CLUSTER, buf, 512), QC_OK);
        rig->disk.writes_count = 0;
        rig->disk.fail_write_at = fails;
        status = qc_flush(&rig->image);
        assert_true(status == QC_OK || status == QC_IO);
        rig->disk.fail_write_at = 0;
        memset(buf, 0x42, 512);
        assert_int_equal(qc_write(&rig->image, 64 * CLUSTER, buf, 512), QC_OK);
        assert_int_equal(qc_settle(&rig->image), QC_OK);
        rig_open_ok(rig);
        for (unsigned i = 1; i <= 2; i++) {
            assert_int_equal(qc_read(&rig->image, i * 64 * CLUSTER, buf, 512), QC_OK);
            assert_int_equal(buf[0], 0x43 - i);
        }
        rig->disk.writes_count = 0;
        shape_expect_found(rig, 0, 0);
    }
}

/* ---- subclusters ----------------------------------------------------------------------------- */

static void build_ext(struct rig *rig, unsigned bits, uint64_t guest_bytes, uint32_t allocated)
{
    rig_build(rig, 3, bits, guest_bytes, 1);
    put_be64(rig->disk.bytes + 72, QC_INCOMPATIBLE_EXTENDED_L2);
    put_be64(shape_table(rig, AT_L2), rig_data_off(rig, 0) | SHAPE_COPIED);
    put_be64(shape_table(rig, AT_L2) + 8, allocated);
}

/* What was recorded of a cluster whose bytes are old ones says nothing of what is written. */
static void a_write_beside_zeros_of_this_epoch(void **state)
{
    struct rig *rig = *state;

    build_ext(rig, EXT_BITS, 8u << EXT_BITS, 0xffffffff);
    rig_open_ok(rig);
    assert_int_equal(qc_zero(&rig->image, 3 * 512, 512, false), QC_OK);
    memset(buf, 0x41, 512);
    assert_int_equal(qc_write(&rig->image, 8 * 512, buf, 512), QC_OK);
    assert_int_equal(qc_settle(&rig->image), QC_OK);
    rig_open_ok(rig);
    assert_int_equal(qc_read(&rig->image, 0, buf, 1u << EXT_BITS), QC_OK);
    for (unsigned i = 0; i < 1u << EXT_BITS; i++)
        assert_int_equal(buf[i], i / 512 == 8   ? 0x41
                                 : i / 512 == 3 ? 0
                                                : pattern_at(rig_data_off(rig, 0) + i));
}

/* Where the epoch is full the step of a new subcluster begins with a commit. */
static void new_subclusters_need_a_commit_that_fails(void **state)
{
    struct rig *rig = *state;
    unsigned tables_count = 0, most = QC_RECORDS_PER_PAGE / QC_ENTRY_RECORDS;

    for (unsigned count = 1; count <= most; count++) {
        build_ext(rig, EXT_BITS, 200u << EXT_BITS, 1);
        rig->disk.disk.size_bytes = rig_data_off(rig, most + 1);
        for (unsigned i = 0; i <= most; i++) {
            put_be64(shape_table(rig, AT_L2) + i * 16, rig_data_off(rig, i) | SHAPE_COPIED);
            put_be64(shape_table(rig, AT_L2) + i * 16 + 8, 1);
            shape_set_count(rig, AT_DATA + i, 1);
        }
        open_small(rig);
        for (unsigned i = 0; i < count; i++)
            assert_int_equal(qc_write(&rig->image, (i << EXT_BITS) + 8 * 512, buf, 512), QC_OK);
        rig->disk.writes_count = 0;
        rig->disk.fail_write_at = 1;
        assert_int_equal(qc_write(&rig->image, (count << EXT_BITS) + 8 * 512, buf, 512), QC_IO);
        tables_count += strncmp(qc_detail(&rig->image), "table", 5) == 0;
        rig->disk.fail_write_at = 0;
        assert_int_equal(qc_write(&rig->image, (count << EXT_BITS) + 8 * 512, buf, 512), QC_OK);
        assert_int_equal(qc_settle(&rig->image), QC_OK);
    }
    assert_int_equal(tables_count, 1);
}

/* A cluster that comes along whole, and of which the guest disk has only a part. */
static void a_copy_behind_the_end_of_the_disk_is_zeros(void **state)
{
    struct rig *rig = *state;
    unsigned bits = 18, guest_bytes = 24 * 1024;
    uint64_t new_off;

    build_ext(rig, bits, guest_bytes, 0xffffffff);
    put_be64(shape_table(rig, AT_L2), rig_data_off(rig, 0));
    shape_set_count(rig, AT_DATA, 2);
    rig_open_ok(rig);
    memset(buf, 0x41, 512);
    assert_int_equal(qc_write(&rig->image, 0, buf, 512), QC_OK);
    assert_int_equal(qc_settle(&rig->image), QC_OK);
    new_off = shape_l2_entry(rig, 0) & ~SHAPE_COPIED;
    assert_true(new_off != rig_data_off(rig, 0));
    for (unsigned i = 0; i < 1u << bits; i++)
        assert_int_equal(rig->disk.bytes[new_off + i], i < 512 ? 0x41
                                                       : i < guest_bytes
                                                           ? pattern_at(rig_data_off(rig, 0) + i)
                                                           : 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(what_is_known_of_a_table_goes_with_it),
        RIG_TEST(a_block_that_becomes_an_l2_table_is_not_written),
        RIG_TEST(a_table_that_cannot_be_asked_fails_the_write),
        RIG_TEST(snapshots_with_huge_l1_tables),
        RIG_TEST(counts_are_not_told_up_while_changes_wait),
        RIG_TEST(more_counts_lie_than_are_noted),
        RIG_TEST(ranges_of_one_step_are_counted_together),
        RIG_TEST(entries_over_all_of_a_large_table),
        RIG_TEST(tables_join_those_of_a_commit_that_broke_off),
        RIG_TEST(a_write_beside_zeros_of_this_epoch),
        RIG_TEST(new_subclusters_need_a_commit_that_fails),
        RIG_TEST(a_copy_behind_the_end_of_the_disk_is_zeros),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
