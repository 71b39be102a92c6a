/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * What a session may believe of counts and tables, and what not: references that the disk still
 * has, damage that only a repair takes away, how much is looked through before the first change,
 * and L1 tables of snapshots, those found and those made.
 */
#include "support.h"

#include "../../core/verify.h"

#define COPIED  (UINT64_C(1) << 63)
#define CLUSTER 4096u
#define REACH   (CLUSTER / 8 * CLUSTER) /* guest bytes of an L2 table */
#define GUEST   (4ull * REACH)
#define ENTRY   56u /* bytes of a snapshot without a name */

static uint8_t buf[CLUSTER], old[CLUSTER];

static struct rig *mapped(void **state)
{
    struct rig *rig = *state;

    rig_build(rig, 3, 12, GUEST, 40);
    rig_map(rig, 4);
    return rig;
}

/* Two guest clusters have one host cluster, which counts two: a kind that nobody makes. */
static void what_lost_a_reference_is_not_written_in_place(void **state)
{
    struct rig *rig = mapped(state);
    uint64_t shared_off = rig_data_off(rig, 0);

    rig_set_l2(rig, 0, shared_off);
    rig_set_l2(rig, 1, shared_off);
    image_set_count(&rig->disk, shared_off, 2);
    image_set_count(&rig->disk, rig_data_off(rig, 1), 0);
    memcpy(old, rig->disk.bytes + shared_off, CLUSTER);
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(qc_write(&rig->image, 0, buf, CLUSTER), QC_OK);
    assert_int_equal(qc_write(&rig->image, CLUSTER, buf, 512), QC_OK);
    /* A cut now shows both as they were. */
    assert_memory_equal(rig->disk.bytes + shared_off, old, CLUSTER);
    assert_int_equal(qc_settle(&rig->image), QC_OK);
    assert_int_equal(image_count(&rig->disk, shared_off), 0);
    assert_int_equal(qc_write(&rig->image, CLUSTER, buf, 512), QC_OK);
}

static void only_a_repair_takes_damage_back(void **state)
{
    static const enum qc_check_fix fixes[] = {QC_FIX_NOTHING, QC_FIX_LEAKS, QC_FIX_ALL};

    for (unsigned i = 0; i < 3; i++) {
        struct rig *rig = mapped(state);
        struct qc_check_result result;

        rig_set_l2(rig, 3, rig_data_off(rig, 3) | COPIED | 2); /* a reserved bit: no mark */
        assert_int_equal(rig_open(rig), QC_OK);
        assert_int_equal(qc_read(&rig->image, 3 * CLUSTER, buf, 512), QC_CORRUPT);
        assert_int_equal(rig->disk.bytes[79], 0);
        assert_int_equal(qc_write(&rig->image, 0, buf, 512), QC_READONLY);
        assert_int_equal(qc_check(&rig->image, fixes[i], NULL, NULL, &result), QC_OK);
        assert_int_equal(qc_write(&rig->image, 0, buf, 512),
                         fixes[i] == QC_FIX_ALL ? QC_OK : QC_READONLY);
    }
}

/* A snapshot table with so many entries of no L1 table; returns the entry of that number. */
static uint8_t *add_snapshots(struct rig *rig, unsigned count, unsigned number)
{
    uint64_t table_off = rig_data_off(rig, 8);
    uint8_t *table = rig->disk.bytes + table_off;

    memset(table, 0, (size_t)count * ENTRY);
    for (unsigned i = 0; i < count; i++)
        put_be32(table + i * ENTRY + 36, ENTRY - 40);
    for (uint64_t off = 0; off < (size_t)count * ENTRY; off += CLUSTER)
        image_set_count(&rig->disk, table_off + off, 1);
    put_be32(rig->disk.bytes + 60, count);
    put_be64(rig->disk.bytes + 64, table_off);
    return table + number * ENTRY;
}

static void set_l1(uint8_t *entry, uint64_t l1_off, uint32_t clusters)
{
    put_be64(entry, l1_off);
    put_be32(entry + 8, clusters * (CLUSTER / 8));
}

/* With the tables of snapshots there are too many: what lies then is not seen. */
static void snapshots_count_among_the_tables(void **state)
{
    for (unsigned clusters = 60; clusters <= 64; clusters += 4) {
        struct rig *rig = mapped(state);

        set_l1(add_snapshots(rig, 1, 0), rig_data_off(rig, 10), clusters);
        image_set_count(&rig->disk, rig_data_off(rig, 1), 0);
        rig_fix_size(rig, MEM_DISK_BYTES);
        memset(rig->disk.bytes + rig_data_off(rig, 10), 0, 64 * CLUSTER);
        assert_int_equal(rig_open(rig), QC_OK);
        assert_int_equal(qc_write(&rig->image, 0, buf, 512), clusters == 60 ? QC_CORRUPT : QC_OK);
    }
}

static void images_with_bitmaps_in_use_are_believed(void **state)
{
    struct rig *rig = mapped(state);

    rig->disk.bytes[95] = 1;
    image_set_count(&rig->disk, rig_data_off(rig, 1), 0);
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(qc_write(&rig->image, 0, buf, 512), QC_OK);
}

/* The L1 table of a snapshot counts as free. Of those behind the first 1,024 nothing is known. */
static void l1_tables_of_the_first_snapshots_are_known(void **state)
{
    for (unsigned number = 1023; number <= 1024; number++) {
        struct rig *rig = mapped(state);
        uint64_t l1_off = rig_data_off(rig, 6);

        set_l1(add_snapshots(rig, 1025, number), l1_off, 1);
        image_set_count(&rig->disk, l1_off, 0);
        assert_int_equal(rig_open(rig), QC_OK);
        assert_int_equal(qc_write(&rig->image, REACH - CLUSTER, buf, 512),
                         number == 1023 ? QC_CORRUPT : QC_OK);
        assert_string_equal(qc_detail(&rig->image),
                            number == 1023 ? "free cluster 0xb000 is metadata" : "");
    }
}

/* Nor behind those whose L1 tables have 4,096 clusters. */
static void large_l1_tables_of_snapshots_fill_no_filter(void **state)
{
    for (unsigned clusters = 4095; clusters <= 4096; clusters++) {
        struct rig *rig = mapped(state);
        uint64_t l1_off = rig_data_off(rig, 6);
        uint8_t *entry = add_snapshots(rig, 2, 0);

        set_l1(entry, UINT64_C(1) << 40, clusters);
        set_l1(entry + ENTRY, l1_off, 1);
        image_set_count(&rig->disk, l1_off, 0);
        assert_int_equal(rig_open(rig), QC_OK);
        assert_int_equal(qc_write(&rig->image, REACH - CLUSTER, buf, 512),
                         clusters == 4095 ? QC_CORRUPT : QC_OK);
    }
}

static void l1_table_of_a_new_snapshot_is_known(void **state)
{
    struct rig *rig = mapped(state);
    struct qc_snapshot snapshot;
    uint64_t cursor = 0;
    char line[QC_DETAIL_BYTES];

    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(qc_write(&rig->image, 0, buf, 512), QC_OK);
    assert_int_equal(qc_snapshot_create(&rig->image, "a", 0, 0), QC_OK);
    assert_int_equal(qc_snapshot_next(&rig->image, &cursor, &snapshot), QC_OK);
    for (uint64_t off = 0; off < snapshot.l1_off; off += CLUSTER) {
        if (image_count(&rig->disk, off) == 0)
            image_set_count(&rig->disk, off, 1);
    }
    image_set_count(&rig->disk, snapshot.l1_off, 0);
    rig->image.free_hint = 0;
    qc_cache_reset(rig->image.cache);
    assert_int_equal(qc_write(&rig->image, 30 * CLUSTER, buf, 512), QC_CORRUPT);
    snprintf(line, sizeof(line), "free cluster 0x%x is metadata", (unsigned)snapshot.l1_off);
    assert_string_equal(qc_detail(&rig->image), line);
}

/* More tables than the filter tells apart: the search for doubled ones ends, the filling does not.
 */
static void a_full_filter_is_filled_in_one_pass(void **state)
{
    struct rig *rig = *state;
    const uint32_t entries = 100000;
    uint64_t l1_off = 2u << 20;

    rig_build(rig, 3, 12, (uint64_t)entries * REACH, 4);
    rig_fix_size(rig, MEM_DISK_BYTES);
    memset(rig->disk.bytes + l1_off, 0, MEM_DISK_BYTES - l1_off);
    for (uint32_t i = 1; i < entries; i++)
        put_be64(rig->disk.bytes + l1_off + i * 8, (uint64_t)(entries + i) * CLUSTER | COPIED);
    put_be64(rig->disk.bytes + l1_off, CLUSTER * AT_L2 | COPIED);
    put_be64(rig->disk.bytes + 40, l1_off);
    put_be32(rig->disk.bytes + 36, entries);
    for (uint64_t off = 0; off < entries * 8; off += CLUSTER)
        image_set_count(&rig->disk, l1_off + off, 1);
    rig_set_l2(rig, 0, rig_data_off(rig, 0) | COPIED);
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(qc_write(&rig->image, 0, buf, 512), QC_OK);
    assert_int_equal(rig->image.tables_count, entries + 1);
    assert_true(rig->disk.reads_count < 5000);
}

/* A table elsewhere that cannot be read: who needs it is told, nobody else. */
static void an_unreadable_table_elsewhere_stops_nobody(void **state)
{
    unsigned refused_count = 0;

    for (unsigned at = 1; at < 12; at++) {
        struct rig *rig = mapped(state);

        assert_int_equal(rig_open(rig), QC_OK);
        rig->disk.fail_at = rig->disk.reads_count + at;
        refused_count += qc_write(&rig->image, 0, buf, 512) != QC_OK;
        rig->disk.fail_at = 0;
        assert_string_equal(qc_readonly_reason(&rig->image), "");
        assert_int_equal(qc_write(&rig->image, 0, buf, 512), QC_OK);
    }
    assert_in_range(refused_count, 1, 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(what_lost_a_reference_is_not_written_in_place),
        RIG_TEST(only_a_repair_takes_damage_back),
        RIG_TEST(snapshots_count_among_the_tables),
        RIG_TEST(images_with_bitmaps_in_use_are_believed),
        RIG_TEST(l1_tables_of_the_first_snapshots_are_known),
        RIG_TEST(large_l1_tables_of_snapshots_fill_no_filter),
        RIG_TEST(l1_table_of_a_new_snapshot_is_known),
        RIG_TEST(a_full_filter_is_filled_in_one_pass),
        RIG_TEST(an_unreadable_table_elsewhere_stops_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
