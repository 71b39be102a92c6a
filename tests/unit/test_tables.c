/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * New L2 tables: that they lie side by side and are written together, that what is known to be
 * zeros in them is not read, and that neither knowledge outlives what it is about. The figures are
 * printed. Cuts in between are tests/crash's.
 */
#include "support.h"

#include "../../core/bytes.h"

#define CLUSTER_BITS 12u
#define CLUSTER      (1u << CLUSTER_BITS)
#define REACH        (UINT64_C(1) << (2 * CLUSTER_BITS - 3)) /* of one L2 table */
#define TABLES       32u
#define GUEST        (TABLES * REACH)
#define OFFSET_MASK  UINT64_C(0x00fffffffffffe00)
#define SMALL_DISK   80u                             /* clusters */
#define SECTOR_REACH (QC_SECTOR_BYTES / 8 * CLUSTER) /* guest bytes that a table's sector maps */

static uint8_t buf[CLUSTER];

/* One cluster in each table's reach, filled with its number. */
static void write_each(struct rig *rig, uint64_t in_reach, unsigned salt)
{
    for (unsigned i = 0; i < TABLES; i++) {
        memset(buf, (int)(i + salt), sizeof(buf));
        assert_int_equal(qc_write(&rig->image, i * REACH + in_reach, buf, sizeof(buf)), QC_OK);
    }
}

static void expect_each(struct rig *rig, uint64_t in_reach, unsigned salt)
{
    for (unsigned i = 0; i < TABLES; i++) {
        assert_int_equal(qc_read(&rig->image, i * REACH + in_reach, buf, sizeof(buf)), QC_OK);
        for (unsigned k = 0; k < sizeof(buf); k++)
            assert_int_equal(buf[k], (uint8_t)(i + salt));
    }
}

static struct rig *with_new_tables(void **state)
{
    struct rig *rig = *state;

    rig_build(rig, 3, CLUSTER_BITS, GUEST, 1);
    assert_int_equal(rig_open(rig), QC_OK);
    write_each(rig, 0, 1);
    return rig;
}

/* How many stretches the tables lie in, the first one's apart. */
static unsigned stretches(const struct rig *rig)
{
    uint64_t places[TABLES];
    unsigned count = 0;

    for (unsigned i = 0; i < TABLES; i++)
        places[i] = qc_be64(rig->disk.bytes + AT_L1 * CLUSTER + i * 8) & OFFSET_MASK;
    for (unsigned i = 1; i < TABLES; i++) {
        bool has_before = false;

        for (unsigned k = 1; k < TABLES; k++)
            has_before = has_before || places[k] + CLUSTER == places[i];
        count += !has_before;
    }
    return count;
}

static void new_tables_are_written_together(void **state)
{
    struct rig *rig = with_new_tables(state);
    unsigned before = rig->disk.writes_count;

    assert_int_equal(qc_flush(&rig->image), QC_OK);
    printf("%u tables in %u stretches, %u writes of metadata\n", TABLES - 1, stretches(rig),
           rig->disk.writes_count - before);
    /* 2, 4, 8, 16 and the last one: twice as many each time. */
    assert_int_equal(stretches(rig), 5);
    /* As many stretches, one of them in two pieces for the pool's sake; counts, entries, L1. */
    assert_in_range(rig->disk.writes_count - before, 1, 10);
    expect_each(rig, 0, 1);
    assert_int_equal(rig_open(rig), QC_OK);
    expect_each(rig, 0, 1);
}

static void what_was_set_aside_is_not_lost(void **state)
{
    struct rig *rig = *state;
    unsigned taken = 0;

    /* A disk that does not grow: data finds the clusters that were meant for tables. */
    rig_build(rig, 3, CLUSTER_BITS, GUEST, 0);
    rig_fix_size(rig, SMALL_DISK * CLUSTER);
    assert_int_equal(rig_open(rig), QC_OK);
    write_each(rig, 0, 1);
    while (qc_write(&rig->image, (taken + 1) * CLUSTER, buf, sizeof(buf)) == QC_OK)
        taken++;
    assert_int_equal(AT_DATA + TABLES - 1 + TABLES + taken, SMALL_DISK);
    assert_int_equal(qc_flush(&rig->image), QC_OK);
    expect_each(rig, 0, 1);
}

static void zeros_of_new_tables_are_not_read(void **state)
{
    struct rig *rig = with_new_tables(state);
    unsigned before;

    assert_int_equal(qc_flush(&rig->image), QC_OK);
    before = rig->disk.reads_count;
    write_each(rig, SECTOR_REACH, 2);
    assert_int_equal(qc_flush(&rig->image), QC_OK);
    printf("%u reads for an entry in another part of each\n", rig->disk.reads_count - before);
    /* The first table was there before. Counts and L1 are looked up as well. */
    assert_in_range(rig->disk.reads_count - before, 0, 4);
    write_each(rig, SECTOR_REACH + CLUSTER, 3); /* beside an entry: now it has to be read */
    assert_int_equal(qc_flush(&rig->image), QC_OK);
    for (unsigned round = 0; round < 2; round++) {
        expect_each(rig, 0, 1);
        expect_each(rig, SECTOR_REACH, 2);
        expect_each(rig, SECTOR_REACH + CLUSTER, 3);
        assert_int_equal(rig_open(rig), QC_OK);
    }
}

static void failed_write_leaves_nothing_known(void **state)
{
    struct rig *rig = with_new_tables(state);

    assert_int_equal(qc_flush(&rig->image), QC_OK);
    for (unsigned i = 1; i < 8; i++) {
        memset(buf, (int)(1 + 2), sizeof(buf));
        assert_int_equal(qc_write(&rig->image, REACH + SECTOR_REACH, buf, sizeof(buf)), QC_OK);
        rig->disk.fail_write_at = rig->disk.writes_count + i;
        if (qc_flush(&rig->image) == QC_OK)
            break;
        rig->disk.fail_write_at = 0;
        assert_int_equal(qc_flush(&rig->image), QC_OK);
        assert_int_equal(qc_discard(&rig->image, REACH + SECTOR_REACH, CLUSTER), QC_OK);
        assert_int_equal(qc_flush(&rig->image), QC_OK);
        expect_each(rig, 0, 1);
    }
}

static void table_of_a_range_changes(void **state)
{
    struct rig *rig = with_new_tables(state);

    assert_int_equal(qc_settle(&rig->image), QC_OK);
    expect_each(rig, 0, 1); /* known by guest range from here on */
    assert_int_equal(qc_snapshot_create(&rig->image, "one", 0, 0), QC_OK);
    expect_each(rig, 0, 1);
    write_each(rig, 0, 4); /* each into a table of its own now */
    assert_int_equal(qc_flush(&rig->image), QC_OK);
    expect_each(rig, 0, 4);
}

/* What is known of a slice says nothing of an entry that waits for the commit. */
static void waiting_entry_is_read(void **state)
{
    struct rig *rig = with_new_tables(state);

    assert_int_equal(qc_settle(&rig->image), QC_OK);
    expect_each(rig, 0, 1);
    assert_int_equal(qc_discard(&rig->image, REACH, CLUSTER), QC_OK);
    assert_int_equal(qc_read(&rig->image, REACH, buf, sizeof(buf)), QC_OK);
    for (unsigned k = 0; k < sizeof(buf); k++)
        assert_int_equal(buf[k], 0);
}

/* Nor of the cluster behind the one that a request begins in, which lies somewhere else. */
static void warm_read_crosses_clusters(void **state)
{
    struct rig *rig = with_new_tables(state);

    write_each(rig, CLUSTER, 101);
    assert_int_equal(qc_settle(&rig->image), QC_OK);
    expect_each(rig, 0, 1);
    for (unsigned i = 0; i < TABLES; i++) {
        assert_int_equal(qc_read(&rig->image, i * REACH + CLUSTER / 2, buf, sizeof(buf)), QC_OK);
        assert_int_equal(buf[CLUSTER / 2 - 1], (uint8_t)(i + 1));
        assert_int_equal(buf[CLUSTER / 2], (uint8_t)(i + 101));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(new_tables_are_written_together),  RIG_TEST(what_was_set_aside_is_not_lost),
        RIG_TEST(zeros_of_new_tables_are_not_read), RIG_TEST(failed_write_leaves_nothing_known),
        RIG_TEST(table_of_a_range_changes),         RIG_TEST(waiting_entry_is_read),
        RIG_TEST(warm_read_crosses_clusters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
