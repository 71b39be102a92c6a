/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Checks and bulk changes at the ends of what they are for: images that are not to be repaired,
 * counters of every width, tables as long as the format allows, references behind all counts.
 */
#include "shape.h"

#include "../../core/bytes.h"
#include "../../core/snaptable.h"
#include "../../core/tally.h"

#define CLUSTER 512u
#define ZERO    UINT64_C(1)
#define PERIOD  4096u /* bytes of an entry of the endless snapshot table */

static struct mem_disk data;
static struct qc_check_result result;
static uint8_t buf[CLUSTER];

static qc_status check(struct rig *rig, enum qc_check_fix fix)
{
    return qc_check(&rig->image, fix, NULL, NULL, &result);
}

static void some_images_are_only_looked_at(void **state)
{
    struct rig *rig = *state;

    /* A disk that takes no writes. */
    shape_build(rig, 3, 12);
    rig->disk.disk.readonly = true;
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(check(rig, QC_FIX_ALL), QC_READONLY);
    assert_int_equal(check(rig, QC_FIX_NOTHING), QC_OK);
    /* One that failed. */
    shape_build(rig, 3, 12);
    rig_open_ok(rig);
    rig->disk.fail_flush_at = 1;
    assert_int_equal(qc_flush(&rig->image), QC_IO);
    assert_int_equal(check(rig, QC_FIX_ALL), QC_READONLY);
    /* One whose blocks are larger than clusters; the mark would ask for a repair. */
    shape_build(rig, 3, 9);
    rig->disk.disk.size_bytes = 4096 * 2;
    rig->disk.disk.block_bytes = 4096;
    put_be64(rig->disk.bytes + 72, 2);
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(check(rig, QC_FIX_ALL), QC_READONLY);
    assert_int_equal(rig->disk.writes_count, 0);
}

/* Every L1 entry names the one L2 table, whose one entry is then named as often. */
static void counters_grow_to_their_widest(void **state)
{
    struct rig *rig = *state;
    uint32_t entries = 66000;

    /* Counts of 32 bits, as wide as counters are, and of 64. */
    for (unsigned order = 5; order <= 6; order++) {
        unsigned bytes = 1u << order >> 3;

        rig_build(rig, 3, 9, (uint64_t)entries * 64 * CLUSTER, 1);
        put_be32(rig->disk.bytes + 96, order);
        put_be64(rig->disk.bytes + 40, 16 * CLUSTER);
        rig->disk.disk.size_bytes = 16 * CLUSTER + entries * 8u / CLUSTER * CLUSTER + CLUSTER;
        for (uint32_t i = 0; i < entries; i++)
            put_be64(rig->disk.bytes + 16 * CLUSTER + i * 8u, AT_L2 * CLUSTER);
        rig_set_l2(rig, 0, rig_data_off(rig, 0));
        rig->options.readonly = true;
        assert_int_equal(rig_open(rig), QC_OK);
        memset(shape_table(rig, AT_REFBLOCK), 0, CLUSTER);
        put_be32(shape_table(rig, AT_REFBLOCK) + (AT_L2 + 1) * bytes - 4, entries);
        put_be32(shape_table(rig, AT_REFBLOCK) + (AT_DATA + 1) * bytes - 4, entries - 1);
        assert_int_equal(check(rig, QC_FIX_NOTHING), QC_OK);
        /* The header, the refcount table, its block, the L1 table; and the data, by one. */
        assert_int_equal(result.corruptions, 3 + (entries * 8 + CLUSTER - 1) / CLUSTER + 1);
        assert_int_equal(result.leaks, 0);
    }
}

static void too_many_snapshots_are_left_to_a_full_repair(void **state)
{
    struct rig *rig = *state;
    uint32_t over = 8, count = QC_SNAPSHOTS_MAX + over;

    for (unsigned has_over = 0; has_over < 2; has_over++) {
        uint64_t start = (AT_DATA + SHAPE_DATA) * 4096u;
        uint64_t bytes = QC_U(count) * 56u;

        shape_build(rig, 3, 12);
        rig->disk.disk.size_bytes = start + (bytes / 4096 + 1) * 4096;
        memset(rig->disk.bytes + start, 0, rig->disk.disk.size_bytes - start);
        for (uint32_t i = 0; i < count; i++)
            rig->disk.bytes[start + i * 56u + 39] = 16;
        for (uint64_t at = start; at < start + bytes; at += 4096)
            image_set_count(&rig->disk, at, 1);
        put_be32(rig->disk.bytes + 60, QC_SNAPSHOTS_MAX + has_over * over);
        put_be64(rig->disk.bytes + 64, start);
        rig->options.is_for_check = has_over;
        assert_int_equal(rig_open(rig), QC_OK);
        if (!has_over) {
            assert_int_equal(qc_snapshot_create(&rig->image, "new", 1, 2), QC_UNSUPPORTED);
            assert_string_equal(qc_detail(&rig->image),
                                "snapshot table too large: 65536 snapshots");
            continue;
        }
        assert_int_equal(check(rig, QC_FIX_NOTHING), QC_OK);
        assert_int_equal(result.check_errors, 1);
        assert_int_equal(check(rig, QC_FIX_LEAKS), QC_OK);
        assert_string_not_equal(qc_readonly_reason(&rig->image), "");
        assert_int_equal(check(rig, QC_FIX_ALL), QC_OK);
        shape_expect(&result, 0, 0);
    }
}

/* ---- a snapshot table without end ------------------------------------------------------------ */

static const struct qc_disk_ops *plain_ops;

/* Behind the disk in memory there is one entry after the other, each of PERIOD bytes. */
static qc_status endless_read(struct qc_disk *disk, uint64_t host_off, void *buf_, size_t len)
{
    uint8_t *bytes = buf_, head[40] = {0};

    if (host_off + len <= MEM_DISK_BYTES)
        return plain_ops->read(disk, host_off, buf_, len);
    put_be32(head + 12, 2032u << 16 | 1000u); /* bytes of the id and of the name */
    put_be32(head + 36, QC_SNAPSHOT_EXTRA_BYTES_MAX);
    for (size_t i = 0; i < len; i++) {
        uint64_t in_entry = (host_off + i) % PERIOD;

        bytes[i] = in_entry < sizeof(head) ? head[in_entry] : 0;
    }
    return QC_OK;
}

/* Nothing lands there. */
static qc_status endless_write(struct qc_disk *disk, uint64_t host_off, const void *buf_,
                               size_t len)
{
    return host_off + len <= MEM_DISK_BYTES ? plain_ops->write(disk, host_off, buf_, len) : QC_IO;
}

static void build_endless(struct rig *rig, uint32_t count)
{
    static struct qc_disk_ops ops;

    shape_build(rig, 3, 12);
    plain_ops = rig->disk.disk.ops;
    ops = *plain_ops;
    ops.read = endless_read;
    ops.write = endless_write;
    rig->disk.disk.ops = &ops;
    rig->disk.disk.size_bytes = UINT64_C(1) << 30;
    put_be32(rig->disk.bytes + 60, count);
    put_be64(rig->disk.bytes + 64, MEM_DISK_BYTES);
}

static void snapshot_tables_have_a_largest_size(void **state)
{
    static struct qc_snapshot snapshot;
    struct rig *rig = *state;
    uint32_t most = QC_SNAPSHOT_TABLE_BYTES_MAX / PERIOD;

    /* 4,096 bytes each: the largest table that is one, to which nothing can be added. */
    build_endless(rig, most);
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(qc_snapshot_create(&rig->image, "new", 1, 2), QC_UNSUPPORTED);
    build_endless(rig, most + 2);
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(qc_write(&rig->image, 0, buf, 512), QC_UNSUPPORTED);
    assert_int_equal(qc_snapshot_find(&rig->image, "none", &snapshot), QC_UNSUPPORTED);
    build_endless(rig, most + 2);
    rig->options.readonly = true;
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(check(rig, QC_FIX_NOTHING), QC_OK);
    assert_int_equal(result.check_errors, 1);
    /* What is too many is left out; the new table does not fit into this disk. */
    build_endless(rig, most + 2);
    rig->options.is_for_check = true;
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(check(rig, QC_FIX_ALL), QC_IO);
    assert_int_equal(qc_info(&rig->image)->snapshots_count, most + 2);
}

/* ---- data files ------------------------------------------------------------------------------ */

static void build_data(struct rig *rig)
{
    shape_build(rig, 3, 9);
    rig_set_data_file(rig, &data, 64 * CLUSTER);
    for (unsigned i = 0; i < SHAPE_DATA; i++) {
        rig_set_l2(rig, i, i * CLUSTER | SHAPE_COPIED);
        shape_set_count(rig, AT_DATA + i, 0);
    }
}

/* One that does not grow. */
static void build_fixed_data(struct rig *rig)
{
    static struct qc_disk_ops fixed;

    build_data(rig);
    fixed = *data.disk.ops;
    fixed.grow = NULL;
    data.disk.ops = &fixed;
}

static void data_files_are_as_long_as_the_disk(void **state)
{
    struct rig *rig = *state;

    build_fixed_data(rig);
    data.disk.size_bytes = 66 * CLUSTER;
    rig_open_ok(rig);
    assert_int_equal(qc_resize(&rig->image, 66 * CLUSTER), QC_OK);
    assert_int_equal(qc_resize(&rig->image, 67 * CLUSTER), QC_NOSPACE);
    assert_string_equal(qc_detail(&rig->image), "no space in the data file");
    assert_int_equal(qc_size(&rig->image), 66 * CLUSTER);
}

static void a_data_file_that_loses_its_end_takes_no_writes(void **state)
{
    struct rig *rig = *state;

    build_fixed_data(rig);
    rig_open_ok(rig);
    data.disk.size_bytes -= CLUSTER;
    assert_int_equal(qc_write(&rig->image, 0, buf, 512), QC_NOSPACE);
    assert_string_equal(qc_detail(&rig->image), "no space");
    data.disk.size_bytes += CLUSTER;
    assert_int_equal(qc_write(&rig->image, 0, buf, 512), QC_OK);
}

static void data_files_have_no_snapshots(void **state)
{
    struct rig *rig = *state;

    build_data(rig);
    rig_set_l2(rig, 0, SHAPE_COPIED | ZERO); /* no cluster: it reads as zeros */
    rig_open_ok(rig);
    assert_int_equal(check(rig, QC_FIX_NOTHING), QC_OK);
    shape_expect(&result, 0, 0);
    assert_int_equal(result.allocated_clusters, SHAPE_DATA - 1);
    shape_add_snapshot(rig, 16, AT_DATA + SHAPE_DATA);
    rig->options.readonly = true;
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(check(rig, QC_FIX_NOTHING), QC_OK);
    assert_true(result.corruptions > 0);
}

/* Offset 0 is a place there, and a cluster's subclusters may lie in it. */
static void data_files_may_have_subclusters(void **state)
{
    struct rig *rig = *state;

    rig_build(rig, 3, 14, 8u << 14, 0);
    rig_set_data_file(rig, &data, 8u << 14);
    put_be64(rig->disk.bytes + 72, QC_INCOMPATIBLE_DATA_FILE | QC_INCOMPATIBLE_EXTENDED_L2);
    put_be64(shape_table(rig, AT_L2), SHAPE_COPIED);
    put_be64(shape_table(rig, AT_L2) + 8, 0xffffffff);
    rig_open_ok(rig);
    assert_int_equal(check(rig, QC_FIX_NOTHING), QC_OK);
    shape_expect(&result, 0, 0);
    assert_int_equal(result.allocated_clusters, 1);
    /* Zeros in a raw one are written, whatever marks subclusters have. */
    put_be64(rig->disk.bytes + 88, QC_AUTOCLEAR_RAW_DATA);
    memset(data.bytes, 0x66, 1u << 14);
    rig_open_ok(rig);
    assert_int_equal(qc_zero(&rig->image, 512, 512, true), QC_OK);
    for (unsigned i = 0; i < 1u << 14; i++)
        assert_int_equal(data.bytes[i], i / 512 == 1 ? 0 : 0x66);
    assert_true(shape_l2_entry(rig, 1) == 0xffffffff);
}

/* ---- counts ---------------------------------------------------------------------------------- */

/* An entry behind all that the refcount table reaches has no count to raise. */
static void references_behind_all_counts_are_refused(void **state)
{
    struct rig *rig = *state;
    unsigned reach = 64 * 64;

    shape_build(rig, 3, 9);
    put_be32(rig->disk.bytes + 96, 6);
    memset(shape_table(rig, AT_REFBLOCK), 0, CLUSTER);
    for (unsigned i = 0; i < AT_DATA + SHAPE_DATA; i++)
        put_be64(shape_table(rig, AT_REFBLOCK) + i * 8u, 1);
    rig->disk.disk.size_bytes = (uint64_t)(reach + 64) * CLUSTER;
    rig_set_l2(rig, 9, (uint64_t)(reach + 8) * CLUSTER);
    rig_open_ok(rig);
    rig_believe(rig);
    assert_int_equal(qc_snapshot_create(&rig->image, "new", 1, 2), QC_CORRUPT);
    assert_string_equal(qc_detail(&rig->image), "refcount out of range at 0x201000");
}

/* The second is left when the first is deleted, with a table for which there must be a place. */
static void add_two_snapshots(struct rig *rig, unsigned at)
{
    uint8_t *entry = rig->disk.bytes + at * CLUSTER;

    shape_add_snapshot(rig, 16, at);
    put_be64(entry + 48, 64 * CLUSTER);
    memcpy(entry + 64, entry, 64);
    put_be32(entry + 64 + 8, 0); /* without a tree */
    put_be32(shape_table(rig, AT_HEADER) + 60, 2);
}

/* Clusters that are tables and have no count are no place for a new one. */
static void uncounted_tables_are_no_place(void **state)
{
    struct rig *rig = *state;
    uint64_t table_off;

    shape_build(rig, 3, 9);
    add_two_snapshots(rig, AT_DATA + SHAPE_DATA);
    for (unsigned at = AT_REFTABLE; at <= AT_L1; at++)
        shape_set_count(rig, at, 0);
    put_be64(shape_table(rig, AT_REFTABLE) + 8, (uint64_t)(AT_DATA + 30) * CLUSTER);
    rig->disk.disk.size_bytes = (AT_DATA + 40) * CLUSTER;
    rig_open_ok(rig);
    assert_int_equal(qc_snapshot_delete(&rig->image, "s1"), QC_OK);
    table_off = qc_be64(shape_table(rig, AT_HEADER) + 64);
    assert_true(table_off > (AT_DATA + SHAPE_DATA) * CLUSTER);
    assert_int_not_equal(table_off, (AT_DATA + 30) * CLUSTER);
}

/* By the counts it is free, by the disk's L1 table it is an L2 table: no place for another. */
static void an_uncounted_l2_table_is_no_place(void **state)
{
    struct rig *rig = *state;
    unsigned at = AT_DATA + SHAPE_DATA, io_count = 0;

    for (unsigned fail_at = 0; fail_at < 40; fail_at++) {
        qc_status status;

        rig_build(rig, 3, 9, 3 * 64 * CLUSTER, SHAPE_DATA);
        rig_map(rig, SHAPE_DATA);
        add_two_snapshots(rig, at);
        put_be64(shape_table(rig, AT_L1) + 8, (at + 2) * CLUSTER);
        rig->disk.disk.size_bytes = (at + 10) * CLUSTER;
        memset(rig->disk.bytes + (at + 2) * CLUSTER, 0, 8 * CLUSTER);
        rig_open_ok(rig);
        rig->disk.reads_count = 0;
        rig->disk.fail_at = fail_at;
        status = qc_snapshot_delete(&rig->image, "s1");
        rig->disk.fail_at = 0;
        assert_true(status == QC_CORRUPT || (fail_at != 0 && status == QC_IO));
        io_count += status == QC_IO;
        if (status == QC_CORRUPT && fail_at == 0)
            assert_string_equal(qc_detail(&rig->image), "free cluster 0x1e00 is metadata");
    }
    assert_in_range(io_count, 8, 39);
}

static qc_status refuse_item(void *context, struct qc_stored *item)
{
    (void)context;
    (void)item;
    return QC_RANGE;
}

static qc_status change_item(void *context, struct qc_stored *item)
{
    (void)context;
    item->stored++;
    return QC_OK;
}

static void windows_of_counters_end(void **state)
{
    struct rig *rig = *state;
    struct qc_scratch scratch;
    struct qc_tally tally;

    shape_build(rig, 3, 9);
    put_be64(shape_table(rig, AT_REFTABLE), AT_REFBLOCK * CLUSTER | 2); /* not to be written */
    rig->options.readonly = true;
    assert_int_equal(rig_open(rig), QC_OK);
    qc_scratch_borrow(&rig->image, &scratch);
    qc_tally_begin(&tally, &scratch, 1, 64, 64);
    assert_int_equal(tally.count, 0);
    qc_tally_begin(&tally, &scratch, 1, 0, 64);
    assert_int_equal(tally.count, 64);
    qc_tally_add(&tally, 9, 3 * CLUSTER, 0);
    assert_int_equal(qc_tally_get(&tally, 3), 0);
    assert_int_equal(qc_tally_pass(&rig->image, &scratch, &tally, refuse_item, NULL), QC_RANGE);
    assert_int_equal(qc_tally_pass(&rig->image, &scratch, &tally, change_item, NULL), QC_OK);
    assert_int_equal(rig->disk.writes_count, 0);
    qc_scratch_return(&rig->image);
}

/* As QEMU counts: without entries an L1 table may be anywhere, if only on a cluster's edge. */
static void an_l1_table_of_no_entries_may_be_anywhere(void **state)
{
    static const struct {
        uint64_t l1_off;
        uint32_t entries;
    } cases[] = {{UINT64_C(1) << 60, 0}, {(UINT64_C(1) << 60) + 8, 0}, {UINT64_C(1) << 60, 1}};
    uint64_t counts[3];

    for (unsigned i = 0; i < 3; i++) {
        struct rig *rig = *state;
        uint8_t *entry;

        shape_build(rig, 3, 12);
        shape_add_snapshot(rig, 16, AT_DATA + SHAPE_DATA);
        entry = shape_table(rig, AT_DATA + SHAPE_DATA);
        put_be64(entry, cases[i].l1_off);
        put_be32(entry + 8, cases[i].entries);
        counts[i] = shape_check(rig, QC_FIX_NOTHING).corruptions;
    }
    assert_int_equal(counts[1], counts[0] + 1);
    assert_int_equal(counts[2], counts[0] + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(some_images_are_only_looked_at),
        RIG_TEST(counters_grow_to_their_widest),
        RIG_TEST(too_many_snapshots_are_left_to_a_full_repair),
        RIG_TEST(snapshot_tables_have_a_largest_size),
        RIG_TEST(data_files_are_as_long_as_the_disk),
        RIG_TEST(a_data_file_that_loses_its_end_takes_no_writes),
        RIG_TEST(data_files_have_no_snapshots),
        RIG_TEST(data_files_may_have_subclusters),
        RIG_TEST(references_behind_all_counts_are_refused),
        RIG_TEST(uncounted_tables_are_no_place),
        RIG_TEST(an_uncounted_l2_table_is_no_place),
        RIG_TEST(windows_of_counters_end),
        RIG_TEST(an_l1_table_of_no_entries_may_be_anywhere),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
