/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Counts that lie where no single lookup can see it: two entries far apart that name one cluster,
 * a mapped cluster that counts as free, an L1 table of a snapshot that does. A small image is
 * looked through once before its first change; nothing lands on what is another's.
 */
#include "support.h"

#include "../../core/verify.h"

#define COPIED  (UINT64_C(1) << 63)
#define CLUSTER 4096u
#define REACH   (CLUSTER / 8 * CLUSTER) /* guest bytes of an L2 table */
#define GUEST   (4ull * REACH)

static uint8_t buf[CLUSTER], before[MEM_DISK_BYTES];

static struct rig *mapped(void **state)
{
    struct rig *rig = *state;

    rig_build(rig, 3, 12, GUEST, 8);
    rig_map(rig, 4);
    return rig;
}

/* Not image_set_count: what is tested may have written over the header, by which that goes. */
static void set_count(struct rig *rig, uint64_t host_off, uint8_t count)
{
    rig->disk.bytes[CLUSTER * AT_REFBLOCK + host_off / CLUSTER * 2 + 1] = count;
}

/* A second L2 table, in the cluster of data number 4, whose first entry names host_off. */
static void add_l2(struct rig *rig, uint64_t host_off)
{
    uint64_t table_off = rig_data_off(rig, 4);

    memset(rig->disk.bytes + table_off, 0, CLUSTER);
    put_be64(rig->disk.bytes + table_off, host_off | COPIED);
    put_be64(rig->disk.bytes + CLUSTER * AT_L1 + 8, table_off | COPIED);
    set_count(rig, table_off, 1);
}

/* Opens; nothing can be written any more, and nothing lands. */
static void expect_refused(struct rig *rig, uint64_t guest_off, const char *line)
{
    memcpy(before, rig->disk.bytes, sizeof(before));
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(qc_write(&rig->image, guest_off, buf, 512), QC_CORRUPT);
    assert_string_equal(qc_detail(&rig->image), line);
    assert_int_equal(qc_write(&rig->image, 0, buf, 512), QC_READONLY);
    assert_string_equal(qc_detail(&rig->image), line);
    assert_int_equal(qc_settle(&rig->image), QC_OK);
    assert_memory_equal(before, rig->disk.bytes, sizeof(before));
    assert_int_equal(qc_read(&rig->image, 0, buf, 512), QC_OK);
}

static void two_entries_in_different_tables(void **state)
{
    struct rig *rig = mapped(state);

    add_l2(rig, rig_data_off(rig, 2));
    expect_refused(rig, 2 * CLUSTER, "refcount out of range at 0x7000");
    expect_refused(rig, REACH, "refcount out of range at 0x7000");
    expect_refused(rig, 0, "refcount out of range at 0x7000");
    expect_refused(rig, 30 * CLUSTER, "refcount out of range at 0x7000");
    set_count(rig, rig_data_off(rig, 2), 2);
    expect_refused(rig, REACH, "COPIED flag wrong at guest 0x200000");
}

static void two_entries_side_by_side(void **state)
{
    struct rig *rig = mapped(state);

    rig_set_l2(rig, 3, rig_data_off(rig, 2) | COPIED);
    expect_refused(rig, 2 * CLUSTER, "cluster 0x7000 is named twice");
}

static void mapped_cluster_that_counts_as_free(void **state)
{
    struct rig *rig = mapped(state);

    set_count(rig, rig_data_off(rig, 1), 0);
    expect_refused(rig, 30 * CLUSTER, "refcount out of range at 0x6000");
    expect_refused(rig, CLUSTER, "COPIED flag wrong at guest 0x1000");
}

static void l1_of_a_snapshot_that_counts_as_free(void **state)
{
    struct rig *rig = mapped(state);
    uint64_t table_off = rig_data_off(rig, 4), l1_off = rig_data_off(rig, 5);
    uint8_t *entry = rig->disk.bytes + table_off;

    memset(entry, 0, 2 * CLUSTER);
    put_be64(entry, l1_off);
    put_be32(entry + 8, 4);
    put_be32(entry + 36, 16);
    put_be32(rig->disk.bytes + 60, 1);
    put_be64(rig->disk.bytes + 64, table_off);
    for (unsigned i = 4; i < 8; i++)
        set_count(rig, rig_data_off(rig, i), 1);
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(qc_write(&rig->image, 30 * CLUSTER, buf, 512), QC_OK);
    set_count(rig, l1_off, 0);
    memcpy(before, rig->disk.bytes, sizeof(before));
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(qc_write(&rig->image, 31 * CLUSTER, buf, 512), QC_CORRUPT);
    assert_string_equal(qc_detail(&rig->image), "free cluster 0xa000 is metadata");
    before[79] = 2; /* QEMU's guard knows these tables too, and marks the image */
    assert_memory_equal(before, rig->disk.bytes, sizeof(before));
}

/* A snapshot that has the disk's L2 table and what it names, and so needs counts of 2. */
static void add_sharing_snapshot(struct rig *rig, uint8_t l2_count, uint8_t data_count)
{
    uint64_t table_off = rig_data_off(rig, 4), l1_off = rig_data_off(rig, 5);
    uint8_t *entry = rig->disk.bytes + table_off;

    memset(entry, 0, 2 * CLUSTER);
    put_be64(entry, l1_off);
    put_be32(entry + 8, 4);
    put_be32(entry + 36, 16);
    put_be64(entry + 48, GUEST);
    put_be64(rig->disk.bytes + l1_off, CLUSTER * AT_L2);
    put_be32(rig->disk.bytes + 60, 1);
    put_be64(rig->disk.bytes + 64, table_off);
    set_count(rig, CLUSTER * AT_L2, l2_count);
    for (unsigned i = 0; i < 4; i++) {
        set_count(rig, rig_data_off(rig, i), data_count);
        rig_set_l2(rig, i, rig_data_off(rig, i) | (data_count == 1 ? COPIED : 0));
    }
}

/* In place, it would change the snapshot's disk too. */
static void l2_table_of_two(void **state)
{
    struct rig *rig = mapped(state);

    add_sharing_snapshot(rig, 1, 2);
    expect_refused(rig, 0, "refcount out of range at 0x4000");
}

/* Deleting would free what the disk has still, applying what the snapshot has. */
static void snapshots_where_counts_lie(void **state)
{
    for (unsigned change = 0; change < 3; change++) {
        struct rig *rig = mapped(state);

        add_sharing_snapshot(rig, 1, 1);
        memcpy(before, rig->disk.bytes, sizeof(before));
        assert_int_equal(rig_open(rig), QC_OK);
        assert_int_equal(change == 0   ? qc_snapshot_create(&rig->image, "new", 1, 2)
                         : change == 1 ? qc_snapshot_apply(&rig->image, "")
                                       : qc_snapshot_delete(&rig->image, ""),
                         QC_CORRUPT);
        assert_memory_equal(before, rig->disk.bytes, sizeof(before));
    }
}

/* A count of one bit holds 1 at most; what two entries name needs more. */
static void two_entries_of_a_one_bit_count(void **state)
{
    struct rig *rig = mapped(state);
    uint64_t table_off = rig_data_off(rig, 4);
    uint8_t *counts = rig->disk.bytes + CLUSTER * AT_REFBLOCK;

    add_l2(rig, rig_data_off(rig, 1));
    put_be32(rig->disk.bytes + 96, 0);
    memset(counts, 0, CLUSTER);
    for (uint64_t cluster = 0; cluster <= table_off / CLUSTER; cluster++)
        counts[cluster / 8] |= (uint8_t)(1u << cluster % 8);
    expect_refused(rig, CLUSTER, "refcount out of range at 0x6000");
}

/* Tables that the L1 table, or the refcount table, names twice. */
static void tables_that_are_named_twice(void **state)
{
    struct rig *rig = mapped(state);

    put_be64(rig->disk.bytes + CLUSTER * AT_L1 + 16, CLUSTER * AT_L2 | COPIED);
    expect_refused(rig, 0, "table 0x4000 is named twice");
    mapped(state);
    put_be64(rig->disk.bytes + CLUSTER * AT_REFTABLE + 8, CLUSTER * AT_REFBLOCK);
    expect_refused(rig, 0, "table 0x2000 is named twice");
    /* Once or twice, of one that the L1 table names too. */
    for (unsigned names = 1; names <= 2; names++) {
        mapped(state);
        for (unsigned i = 1; i <= names; i++)
            put_be64(rig->disk.bytes + CLUSTER * AT_REFTABLE + 8 * i, CLUSTER * AT_L2);
        assert_int_equal(rig_open(rig), QC_OK);
        assert_int_equal(qc_write(&rig->image, 0, buf, 512), QC_CORRUPT);
        assert_string_equal(qc_detail(&rig->image), "cluster 0x4000 is metadata");
        assert_int_equal(rig->disk.bytes[79], 2);
    }
}

static void what_is_sound_is_looked_at_once(void **state)
{
    struct rig *rig = mapped(state);
    unsigned reads;

    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(qc_write(&rig->image, 0, buf, 512), QC_OK);
    assert_int_equal(rig->image.tables_count, 2);
    reads = rig->disk.reads_count;
    assert_true(reads <= 16);
    assert_int_equal(qc_write(&rig->image, 0, buf, 512), QC_OK);
    assert_int_equal(rig->disk.reads_count, reads);
    assert_true(rig->image.lying_off == 0);
}

/* One table more than is looked through: its counts are believed. */
static void large_images_are_believed(void **state)
{
    struct rig *rig = *state;

    for (unsigned tables = QC_VERIFY_TABLES_MAX - 1; tables <= QC_VERIFY_TABLES_MAX; tables++) {
        rig_build(rig, 3, 12, UINT64_C(80) * REACH, 80);
        for (unsigned i = 1; i < tables; i++) { /* with the block, one more */
            uint64_t table_off = rig_data_off(rig, i);

            memset(rig->disk.bytes + table_off, 0, CLUSTER);
            put_be64(rig->disk.bytes + CLUSTER * AT_L1 + i * 8, table_off | COPIED);
        }
        rig_set_l2(rig, 0, rig_data_off(rig, 0) | COPIED);
        set_count(rig, rig_data_off(rig, 0), 0);
        assert_int_equal(rig_open(rig), QC_OK);
        assert_int_equal(qc_write(&rig->image, 30 * CLUSTER, buf, 512),
                         tables < QC_VERIFY_TABLES_MAX ? QC_CORRUPT : QC_OK);
        assert_int_equal(rig->image.tables_count, tables + 1);
    }
}

/* More clusters than there is memory to count them in. */
static void large_disks_are_believed(void **state)
{
    struct rig *rig = mapped(state);

    set_count(rig, rig_data_off(rig, 1), 0);
    rig_fix_size(rig, UINT64_C(1) << 40);
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(qc_write(&rig->image, 0, buf, 512), QC_OK);
    assert_true(rig->image.lying_off == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(two_entries_in_different_tables),
        RIG_TEST(two_entries_side_by_side),
        RIG_TEST(mapped_cluster_that_counts_as_free),
        RIG_TEST(l1_of_a_snapshot_that_counts_as_free),
        RIG_TEST(l2_table_of_two),
        RIG_TEST(snapshots_where_counts_lie),
        RIG_TEST(two_entries_of_a_one_bit_count),
        RIG_TEST(tables_that_are_named_twice),
        RIG_TEST(what_is_sound_is_looked_at_once),
        RIG_TEST(large_images_are_believed),
        RIG_TEST(large_disks_are_believed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
