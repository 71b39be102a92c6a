/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Snapshots and repairs that hardly any image needs: counts that take several windows, clusters
 * behind the end, tables that end where a transfer does, figures beyond what the format can hold.
 *
 * Promises: a change that cannot be breaks off with a line; a repair that a disk breaks off can be
 * done again.
 */
#include "shape.h"

#include "../../core/bytes.h"

#define CLUSTER 512u
#define AT_SNAP (AT_DATA + SHAPE_DATA)
#define CALLS   90u
#define WIDE    6u /* counts of 64 bits: a block counts 64 clusters */

static struct qc_check_result result;
static unsigned open_reads; /* of a repair, before it begins */

/* As of an image whose counts are not looked through. */
static void open_ok(struct rig *rig)
{
    rig_open_ok(rig);
    rig_believe(rig);
}

/* With memory for hardly any count. */
static void open_small(struct rig *rig)
{
    open_ok(rig);
    rig_shrink(rig, 3);
}

static qc_status create(struct rig *rig, const char *name)
{
    return qc_snapshot_create(&rig->image, name, 1, 2);
}

/* ---- snapshots ------------------------------------------------------------------------------- */

static void build_snapshot(struct rig *rig, uint64_t guest_bytes)
{
    rig_build(rig, 3, 9, guest_bytes, SHAPE_DATA);
    rig_map(rig, SHAPE_DATA);
    shape_add_snapshot(rig, 16, AT_SNAP);
    put_be64(rig->disk.bytes + AT_SNAP * CLUSTER + 48, guest_bytes);
}

/* The last cluster goes, of which the disk has only a part: nobody is told, its count alone. */
static void a_cluster_that_the_disk_ends_in_is_let_go(void **state)
{
    struct rig *rig = *state;
    uint64_t cluster = 4096, last_off = (AT_SNAP + 2) * cluster;
    struct qc_disk_ops fixed;

    shape_build(rig, 3, 12);
    shape_add_snapshot(rig, 16, AT_SNAP);
    put_be64(rig->disk.bytes + AT_SNAP * cluster + 48, cluster / 8 * cluster);
    put_be64(shape_table(rig, AT_L1), 0);
    rig_set_l2(rig, 9, last_off);
    shape_set_count(rig, AT_L2, 1);
    shape_set_count(rig, AT_SNAP + 2, 1);
    for (unsigned i = 0; i < SHAPE_DATA; i++)
        shape_set_count(rig, AT_DATA + i, 1);
    rig->disk.disk.size_bytes = last_off + 1024;
    fixed = *rig->disk.disk.ops;
    fixed.grow = NULL;
    rig->disk.disk.ops = &fixed;
    open_ok(rig);
    assert_int_equal(qc_snapshot_delete(&rig->image, "s1"), QC_OK);
    assert_int_equal(shape_count(rig, AT_SNAP + 2), 0);
    assert_true(rig->disk.trims_count > 0);
}

static void l2_tables_of_no_count_stay(void **state)
{
    struct rig *rig = *state;

    build_snapshot(rig, 3 * 64 * CLUSTER);
    put_be32(rig->disk.bytes + AT_SNAP * CLUSTER + 8, 2);
    put_be64(rig->disk.bytes + (AT_SNAP + 1) * CLUSTER, (AT_SNAP + 2) * CLUSTER);
    put_be64(rig->disk.bytes + (AT_SNAP + 1) * CLUSTER + 8, AT_L2 * CLUSTER);
    rig->disk.disk.size_bytes = (AT_SNAP + 3) * CLUSTER;
    memset(rig->disk.bytes + (AT_SNAP + 2) * CLUSTER, 0, CLUSTER);
    open_ok(rig);
    assert_int_equal(qc_snapshot_delete(&rig->image, "s1"), QC_CORRUPT);
    assert_string_equal(qc_detail(&rig->image), "refcount out of range at 0x1e00");
    assert_int_equal(shape_count(rig, AT_L2), 2);
}

/* One count that is large makes counters wide: then they are not all in memory at once. */
static void counts_in_several_windows(void **state)
{
    struct rig *rig = *state;
    unsigned io_count = 0;

    for (unsigned fail_at = 0; fail_at < CALLS; fail_at++) {
        qc_status status;

        shape_build(rig, 3, 9);
        shape_set_count(rig, 100, 9);
        rig->disk.disk.size_bytes = MEM_DISK_BYTES;
        open_small(rig);
        assert_int_equal(create(rig, "one"), QC_OK);
        rig->disk.reads_count = 0;
        rig->disk.fail_at = fail_at;
        status = qc_snapshot_delete(&rig->image, "one");
        assert_int_equal(status, fail_at != 0 && rig->disk.reads_count >= fail_at ? QC_IO : QC_OK);
        io_count += status == QC_IO;
        if (status == QC_OK)
            assert_int_equal(shape_count(rig, AT_DATA), 1);
    }
    assert_in_range(io_count, 20, CALLS - 2);
}

/* What stands in the way of lowering lies in the last of them: nothing is written before it is met.
 */
static void damage_in_the_last_of_several_windows(void **state)
{
    struct rig *rig = *state;

    for (unsigned change = 0; change < 2; change++) {
        unsigned writes_count;

        shape_build(rig, 3, 9);
        shape_set_count(rig, 100, 9);
        rig->disk.disk.size_bytes = MEM_DISK_BYTES;
        open_small(rig);
        assert_int_equal(create(rig, "one"), QC_OK);
        rig_set_l2(rig, SHAPE_DATA, MEM_DISK_BYTES - 4 * CLUSTER);
        writes_count = rig->disk.writes_count;
        assert_int_equal(change == 0 ? qc_snapshot_apply(&rig->image, "one")
                                     : qc_snapshot_delete(&rig->image, "one"),
                         QC_CORRUPT);
        assert_int_equal(rig->disk.writes_count, writes_count);
    }
}

/* More entries name a cluster than its count says, and than narrow counters hold. */
static void more_names_than_counters_hold(void **state)
{
    struct rig *rig = *state;

    shape_build(rig, 3, 9);
    for (unsigned i = 0; i < 16; i++)
        rig_set_l2(rig, i, rig_data_off(rig, 0));
    rig->disk.disk.size_bytes = MEM_DISK_BYTES;
    open_small(rig);
    assert_int_equal(create(rig, "one"), QC_CORRUPT);
    assert_string_equal(qc_detail(&rig->image), "refcount of 3 at 0xa00 cannot grow");
}

/* The first block of several is a place by the counts. */
static void blocks_are_no_place(void **state)
{
    struct rig *rig = *state;

    build_snapshot(rig, 64 * CLUSTER);
    shape_set_count(rig, AT_REFBLOCK, 0);
    rig->disk.disk.size_bytes = 600 * CLUSTER;
    open_ok(rig);
    assert_int_equal(qc_snapshot_apply(&rig->image, "s1"), QC_OK);
    assert_true(qc_info(&rig->image)->l1_off > AT_SNAP * CLUSTER);
}

/* A run for a long L1 table; the first cluster of it is the L1 table of another snapshot. */
static void the_first_of_a_run_is_a_table(void **state)
{
    struct rig *rig = *state;
    uint8_t *entry = rig->disk.bytes + AT_SNAP * CLUSTER;

    build_snapshot(rig, 3 * 64 * CLUSTER);
    memcpy(entry + 64, entry, 64);
    put_be64(entry + 64, (AT_SNAP + 3) * CLUSTER);
    put_be32(shape_table(rig, AT_HEADER) + 60, 2);
    put_be64(entry + 48, 65 * 64 * CLUSTER);
    put_be32(entry + 8, 65);
    rig->disk.disk.size_bytes = (AT_SNAP + 9) * CLUSTER;
    memset(rig->disk.bytes + (AT_SNAP + 2) * CLUSTER, 0, 7 * CLUSTER);
    shape_set_count(rig, AT_SNAP + 2, 1);
    open_ok(rig);
    assert_int_equal(qc_snapshot_apply(&rig->image, "s1"), QC_CORRUPT);
    assert_string_equal(qc_detail(&rig->image), "free cluster 0x2000 is metadata");
}

static void long_l1_tables_that_cannot_be_copied(void **state)
{
    struct rig *rig = *state;
    unsigned at = 16, entries = 600, clusters = entries * 8 / CLUSTER + 1, io_count = 0;

    for (unsigned fail_at = 0; fail_at < CALLS; fail_at++) {
        qc_status status;

        rig_build(rig, 3, 9, (uint64_t)entries * 64 * CLUSTER, 0);
        put_be64(rig->disk.bytes + 40, at * CLUSTER);
        rig->disk.disk.size_bytes = (at + clusters) * CLUSTER;
        memset(rig->disk.bytes + AT_DATA * CLUSTER, 0, rig->disk.disk.size_bytes);
        put_be64(rig->disk.bytes + at * CLUSTER, AT_L2 * CLUSTER | SHAPE_COPIED);
        for (unsigned i = 0; i < clusters; i++)
            shape_set_count(rig, at + i, 1);
        open_ok(rig);
        rig->disk.reads_count = 0;
        rig->disk.fail_at = fail_at;
        status = create(rig, "one");
        assert_int_equal(status, fail_at != 0 && rig->disk.reads_count >= fail_at ? QC_IO : QC_OK);
        io_count += status == QC_IO;
    }
    assert_in_range(io_count, 5, CALLS - 2);
}

static const struct qc_disk_ops *plain_ops;

/* The disk ends earlier as soon as the L2 table was read. */
static qc_status shrinking_read(struct qc_disk *disk, uint64_t host_off, void *buf_, size_t len)
{
    qc_status status = plain_ops->read(disk, host_off, buf_, len);

    if (host_off == AT_L2 * CLUSTER)
        disk->size_bytes = 40 * CLUSTER;
    return status;
}

static void a_disk_that_loses_the_place_of_a_run(void **state)
{
    struct rig *rig = *state;
    struct qc_disk_ops ops;

    shape_build(rig, 3, 9);
    rig_fix_size(rig, 64 * CLUSTER);
    for (unsigned i = AT_SNAP; i < 60; i++)
        shape_set_count(rig, i, 1);
    /* So large that the tree is walked before anything is raised. */
    image_set_count(&rig->disk, AT_SNAP * CLUSTER, 65535);
    open_ok(rig);
    plain_ops = rig->disk.disk.ops;
    ops = *plain_ops;
    ops.read = shrinking_read;
    rig->disk.disk.ops = &ops;
    rig_keep(rig);
    assert_int_equal(create(rig, "one"), QC_NOSPACE);
    rig->disk.disk.ops = plain_ops;
    assert_string_equal(qc_detail(&rig->image), "no space");
    assert_int_equal(rig->disk.writes_count, 0);
}

/* ---- repairs --------------------------------------------------------------------------------- */

static qc_status repair(struct rig *rig)
{
    qc_status status;

    rig->options.is_for_check = true;
    status = rig_open(rig);
    open_reads = rig->disk.reads_count;
    return status == QC_OK ? qc_check(&rig->image, QC_FIX_ALL, NULL, NULL, &result) : status;
}

/* Every call of the disk fails once; then the repair is done again. */
static void repair_with_failures(struct rig *rig, void (*build)(struct rig *rig))
{
    unsigned io_count = 0;

    for (unsigned fails = 0; fails < 2 * CALLS; fails++) {
        qc_status status;
        bool has_failed;

        build(rig);
        rig->disk.fail_write_at = fails % 2 == 0 ? fails / 2 : 0;
        rig->disk.fail_at = fails % 2 == 1 ? fails / 2 : 0;
        status = repair(rig);
        has_failed =
            (rig->disk.fail_at != 0 && rig->disk.reads_count >= rig->disk.fail_at) ||
            (rig->disk.fail_write_at != 0 && rig->disk.writes_count >= rig->disk.fail_write_at);
        /* Opening may do without what it could not read of the snapshots. */
        if (rig->disk.fail_at == 0 || rig->disk.fail_at > open_reads)
            assert_int_equal(status, has_failed ? QC_IO : QC_OK);
        io_count += status == QC_IO;
        rig->disk.fail_write_at = rig->disk.fail_at = 0;
        assert_int_equal(repair(rig), QC_OK);
        shape_expect(&result, 0, 0);
    }
    assert_in_range(io_count, 8, 2 * CALLS - 2);
}

static unsigned snapshots_count, name_bytes;

/* Snapshots whose entries are too short: their table is made anew, longer than the buffer. */
static void build_short_entries(struct rig *rig)
{
    uint64_t start = AT_SNAP * 4096u, entry_bytes = (40 + name_bytes + 7) / 8 * 8;

    shape_build(rig, 3, 12);
    rig->disk.disk.size_bytes = start + 4 * 4096;
    memset(rig->disk.bytes + start, 0, 4 * 4096);
    for (unsigned i = 0; i < snapshots_count; i++)
        rig->disk.bytes[start + i * entry_bytes + 15] = (uint8_t)name_bytes;
    for (unsigned i = 0; i < (snapshots_count * entry_bytes + 4095) / 4096; i++)
        shape_set_count(rig, AT_SNAP + i, 1);
    put_be32(rig->disk.bytes + 60, snapshots_count);
    put_be64(rig->disk.bytes + 64, start);
}

/* What gathers is full within a head, with the padding, and at the very end. */
static void snapshot_tables_that_end_where_transfers_do(void **state)
{
    static const unsigned shapes[][2] = {{240, 8}, {130, 57}, {128, 57}};

    for (unsigned i = 0; i < 3; i++) {
        snapshots_count = shapes[i][0];
        name_bytes = shapes[i][1];
        repair_with_failures(*state, build_short_entries);
        assert_int_equal(((struct rig *)*state)->cache.staging_bytes, 128 * (40 + 24 + 64));
    }
}

/* All that the one block counts is in use: a new snapshot table needs another. */
static void build_full_block(struct rig *rig)
{
    rig_build(rig, 3, 9, 64 * CLUSTER, 59);
    put_be32(rig->disk.bytes + 96, WIDE);
    for (unsigned i = 0; i < 64; i++)
        put_be64(shape_table(rig, AT_REFBLOCK) + i * 8u, 1);
    rig_map(rig, 58);
    memset(rig->disk.bytes + rig_data_off(rig, 58), 0, CLUSTER);
    put_be32(rig->disk.bytes + 60, 1);
    put_be64(rig->disk.bytes + 64, rig_data_off(rig, 58));
}

static void a_moved_table_that_no_block_counts(void **state)
{
    repair_with_failures(*state, build_full_block);
}

/* A flag is put right; what has no cluster gets none. */
static void flags_of_no_cluster_stay_away(void **state)
{
    struct rig *rig = *state;

    shape_build(rig, 3, 9);
    rig_set_l2(rig, 6, rig_data_off(rig, 6));
    rig_set_l2(rig, 12, 1); /* reads as zeros */
    assert_int_equal(repair(rig), QC_OK);
    assert_true(shape_l2_entry(rig, 6) == (rig_data_off(rig, 6) | SHAPE_COPIED));
    assert_true(shape_l2_entry(rig, 12) == 1);
}

/* ---- more than there can be ------------------------------------------------------------------ */

/* Behind the disk in memory there are zeros, and nothing can be written. */
static qc_status far_read(struct qc_disk *disk, uint64_t host_off, void *buf_, size_t len)
{
    if (host_off + len <= MEM_DISK_BYTES)
        return plain_ops->read(disk, host_off, buf_, len);
    memset(buf_, 0, len);
    return QC_OK;
}

static void counts_that_no_refcount_table_reaches(void **state)
{
    struct rig *rig = *state;
    struct qc_disk_ops ops;

    shape_build(rig, 3, 9);
    put_be32(rig->disk.bytes + 96, WIDE);
    put_be64(rig->disk.bytes + 48, 0);
    put_be32(rig->disk.bytes + 56, 0);
    rig_set_l2(rig, 9, (UINT64_C(32) << 30 | 1u << 20) | SHAPE_COPIED);
    plain_ops = rig->disk.disk.ops;
    ops = *plain_ops;
    ops.read = far_read;
    rig->disk.disk.ops = &ops;
    rig->disk.disk.size_bytes = (UINT64_C(32) << 30) + (2u << 20);
    assert_int_equal(repair(rig), QC_NOSPACE);
    assert_string_equal(qc_detail(&rig->image), "no space for new tables");
    rig->disk.disk.ops = plain_ops;
}

/* The place of no snapshots may be any; it is made no reference when tables move. */
static void the_place_of_no_snapshots(void **state)
{
    struct rig *rig = *state;

    shape_build(rig, 3, 12);
    put_be64(rig->disk.bytes + 64, UINT64_C(1) << 36);
    put_be64(rig->disk.bytes + 48, 0); /* no refcount table */
    put_be32(rig->disk.bytes + 56, 0);
    assert_int_equal(repair(rig), QC_OK);
    result = shape_check(rig, QC_FIX_NOTHING);
    shape_expect(&result, 0, 0);
}

/* Every L1 entry names the one L2 table: more to look at than a disk of this size is worth. */
static void expect_too_many_tables(struct rig *rig, unsigned cluster_bits, uint32_t reads_max)
{
    uint32_t cluster = 1u << cluster_bits, entries = 66000;

    rig_build(rig, 3, cluster_bits, (uint64_t)entries * (cluster / 8) * cluster, 1);
    put_be64(rig->disk.bytes + 72, QC_INCOMPATIBLE_DIRTY);
    put_be64(rig->disk.bytes + 40, 16 * cluster);
    rig->disk.disk.size_bytes = 16 * cluster + entries * 8u / cluster * cluster + cluster;
    for (uint32_t i = 0; i < entries; i++)
        put_be64(rig->disk.bytes + 16 * cluster + i * 8u, AT_L2 * cluster);
    assert_int_equal(rig_open(rig), QC_OK);
    assert_string_equal(qc_readonly_reason(&rig->image),
                        "dirty image, repair failed: too many tables");
    assert_in_range(rig->disk.reads_count, 1, reads_max);
}

static void dirty_images_with_too_many_tables(void **state)
{
    expect_too_many_tables(*state, 9, 10000);
    expect_too_many_tables(*state, 16, 8000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(a_cluster_that_the_disk_ends_in_is_let_go),
        RIG_TEST(l2_tables_of_no_count_stay),
        RIG_TEST(counts_in_several_windows),
        RIG_TEST(damage_in_the_last_of_several_windows),
        RIG_TEST(more_names_than_counters_hold),
        RIG_TEST(blocks_are_no_place),
        RIG_TEST(the_first_of_a_run_is_a_table),
        RIG_TEST(long_l1_tables_that_cannot_be_copied),
        RIG_TEST(a_disk_that_loses_the_place_of_a_run),
        RIG_TEST(snapshot_tables_that_end_where_transfers_do),
        RIG_TEST(a_moved_table_that_no_block_counts),
        RIG_TEST(flags_of_no_cluster_stay_away),
        RIG_TEST(counts_that_no_refcount_table_reaches),
        RIG_TEST(the_place_of_no_snapshots),
        RIG_TEST(dirty_images_with_too_many_tables),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
