/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The allocator and the commit at their limits: tables that are full, counts that lie about the
 * refcount table, an epoch without room, clusters set aside that cannot be had any more. Some of
 * these states no small image reaches by itself, so they are put into the open image.
 */
#include "shape.h"

#include "../../core/alloc.h"
#include "../../core/bytes.h"
#include "../../core/commit.h"
#include "../../core/counts.h"

#define CLUSTER      512u
#define REACH        64u /* clusters that a block with counts of 64 bits has */
#define TABLE_BLOCKS 64u
#define TABLE_REACH  (REACH * TABLE_BLOCKS)
#define TABLES_MAX   (QC_REFTABLE_BYTES_MAX / CLUSTER)
#define L2_REACH     (64u * CLUSTER)

static uint8_t buf[64 * CLUSTER];

/* All that the refcount table of one cluster reaches is in use. */
static void build_full(struct rig *rig)
{
    uint8_t *bytes = rig->disk.bytes;

    rig_build(rig, 3, 9, 3 * L2_REACH, SHAPE_DATA);
    rig_map(rig, SHAPE_DATA);
    put_be32(bytes + 96, 6);
    rig->disk.disk.size_bytes = (uint64_t)TABLE_REACH * CLUSTER;
    for (unsigned block = 0; block < TABLE_BLOCKS; block++) {
        unsigned at = block == 0 ? AT_REFBLOCK : AT_DATA + SHAPE_DATA + block;

        put_be64(shape_table(rig, AT_REFTABLE) + block * 8u, (uint64_t)at * CLUSTER);
        for (unsigned i = 0; i < REACH; i++)
            put_be64(shape_table(rig, at) + i * 8u, 1);
    }
}

static void expect_write(struct rig *rig, uint64_t guest_off, qc_status status, const char *detail)
{
    assert_int_equal(qc_write(&rig->image, guest_off, buf, CLUSTER), status);
    assert_string_equal(qc_detail(&rig->image), detail);
}

static void a_full_disk_of_one_size_has_no_space(void **state)
{
    struct rig *rig = *state;

    build_full(rig);
    rig_fix_size(rig, (TABLE_REACH + 1) * CLUSTER);
    rig_open_ok(rig);
    expect_write(rig, 20 * CLUSTER, QC_NOSPACE, "no space");
    expect_write(rig, 0, QC_OK, "");
}

static void the_largest_refcount_table_does_not_grow(void **state)
{
    struct rig *rig = *state;

    build_full(rig);
    rig_open_ok(rig);
    /* It lies in the disk's last cluster and behind it, where there are zeros. */
    memcpy(shape_table(rig, TABLE_REACH - 1), shape_table(rig, AT_REFTABLE), CLUSTER);
    rig->image.top.header.reftable_off = (TABLE_REACH - 1) * CLUSTER;
    rig->image.top.header.reftable_clusters = TABLES_MAX;
    rig->image.free_hint = (uint64_t)TABLES_MAX * TABLE_REACH;
    assert_int_equal(qc_step_begin(&rig->image, 1, true), QC_NOSPACE);
}

static void a_table_without_a_count_is_not_given_up(void **state)
{
    struct rig *rig = *state;

    build_full(rig);
    put_be64(shape_table(rig, AT_REFBLOCK) + AT_REFTABLE * 8, 0);
    rig_open_ok(rig);
    rig->image.free_hint = TABLE_REACH;
    expect_write(rig, 20 * CLUSTER, QC_CORRUPT, "refcount out of range at 0x200");
}

/* The clusters behind the table's reach, which would hold a new one, are an L2 table by the L1. */
static void a_new_refcount_table_lands_on_no_table(void **state)
{
    struct rig *rig = *state;

    build_full(rig);
    put_be64(shape_table(rig, AT_L1) + 8, TABLE_REACH * CLUSTER | SHAPE_COPIED);
    rig_open_ok(rig);
    expect_write(rig, 20 * CLUSTER, QC_CORRUPT, "free cluster 0x200000 is metadata");
}

/* The second growth of an epoch waits for the first to be durable; here it finds no room. */
static void the_refcount_table_grows_once_an_epoch(void **state)
{
    struct rig *rig = *state;

    for (unsigned fails = 0; fails < 2; fails++) {
        build_full(rig);
        rig_open_ok(rig);
        expect_write(rig, 20 * CLUSTER, QC_OK, "");
        assert_int_not_equal(rig->image.grown_reftable.clusters, 0);
        rig->image.free_hint = rig->image.grown_reftable.clusters * TABLE_REACH;
        rig->disk.writes_count = 0;
        rig->disk.fail_write_at = fails;
        /* Below there is a place, once the first is there. */
        assert_int_equal(qc_step_begin(&rig->image, 1, true), fails ? QC_IO : QC_OK);
        assert_int_equal(rig->image.grown_reftable.clusters == 0, fails == 0);
        rig->disk.fail_write_at = 0;
    }
}

/* Nothing but memory says that clusters are set aside: where they are gone, others are taken. */
static void what_was_set_aside_may_be_gone(void **state)
{
    struct rig *rig = *state;
    uint64_t places[] = {0, UINT64_C(1) << 30}; /* behind the disk, behind all blocks */

    for (unsigned i = 0; i < 2; i++) {
        uint64_t cluster;

        shape_build(rig, 3, 9);
        rig_set_l2(rig, 5, 0);
        shape_set_count(rig, AT_DATA + 5, 0);
        rig_open_ok(rig);
        rig->disk.is_full = true;
        rig->image.for_tables.next =
            places[i] != 0 ? places[i] : rig->disk.disk.size_bytes / CLUSTER;
        rig->image.for_tables.end = rig->image.for_tables.next + 2;
        assert_int_equal(qc_step_begin(&rig->image, 3, true), QC_OK);
        assert_int_equal(qc_alloc_table(&rig->image, &cluster), QC_OK);
        assert_int_equal(cluster, AT_DATA + 5);
    }
}

static void an_epoch_has_room_or_says_so(void **state)
{
    struct rig *rig = *state;
    struct qc_check_result result;

    shape_build(rig, 3, 9);
    rig_open_ok(rig);
    assert_int_equal(qc_epoch_reserve(&rig->image, rig->image.epoch.records_max + 1), QC_NOSPACE);
    assert_string_equal(qc_detail(&rig->image), "no space: the epoch is too small");
    /* A full epoch is committed first, and may fail to. */
    for (unsigned fails = 0; fails < 2; fails++) {
        shape_build(rig, 3, 9);
        rig_set_l2(rig, 3, rig_data_off(rig, 3) | SHAPE_COPIED | 1);
        rig_open_ok(rig);
        expect_write(rig, 20 * CLUSTER, QC_OK, "");
        rig->image.epoch.records_max = rig->image.epoch.records_count;
        rig->disk.writes_count = 0;
        rig->disk.fail_write_at = fails;
        assert_int_equal(qc_write(&rig->image, 3 * CLUSTER, buf, CLUSTER), fails ? QC_IO : QC_OK);
        rig->disk.fail_write_at = 0;
        assert_int_equal(qc_settle(&rig->image), QC_OK);
        result = shape_check(rig, QC_FIX_NOTHING);
        shape_expect(&result, 0, 0);
    }
}

/* A count alone, without anything that names the cluster, is a change like others. */
static void a_raised_count_is_committed(void **state)
{
    struct rig *rig = *state;
    uint64_t first;

    shape_build(rig, 3, 9);
    rig_open_ok(rig);
    assert_int_equal(qc_alloc_run(&rig->image, 2, &first), QC_OK);
    assert_true(qc_has_changes(&rig->image));
    assert_int_equal(qc_flush(&rig->image), QC_OK);
    assert_int_equal(shape_count(rig, (unsigned)first + 1), 1);
    assert_int_equal(qc_free_run(&rig->image, first, 2), QC_OK);
    assert_int_equal(qc_free_run(&rig->image, first + 2, 1), QC_CORRUPT);
}

/* A count in a range that no block has: one that is only looked at is none of a commit's. */
static void counts_without_a_block_are_not_written(void **state)
{
    struct rig *rig = *state;
    uint64_t far = 100000, count;

    shape_build(rig, 3, 9);
    rig_open_ok(rig);
    assert_int_equal(qc_count_prepare(&rig->image, far, &count), QC_OK);
    assert_int_equal(count, 0);
    assert_int_equal(qc_commit(&rig->image), QC_OK);
    assert_int_equal(qc_count_prepare(&rig->image, far, &count), QC_OK);
    qc_count_take(&rig->image, far);
    assert_int_equal(qc_commit(&rig->image), QC_CORRUPT);
    assert_string_equal(qc_detail(&rig->image), "bad refcount block");
}

/* Packed bytes by their entry may end in a cluster behind the disk: there is nothing to trim. */
static void what_lies_behind_the_disk_is_not_trimmed(void **state)
{
    struct rig *rig = *state;
    uint64_t last;

    shape_build(rig, 3, 9);
    last = rig_data_off(rig, SHAPE_DATA) - 256;
    rig_set_l2(rig, SHAPE_DATA - 1, SHAPE_COMPRESSED | UINT64_C(1) << 61 | last);
    shape_set_count(rig, AT_DATA + SHAPE_DATA - 1, 2); /* it stays, by its count */
    shape_set_count(rig, AT_DATA + SHAPE_DATA, 1);
    rig->disk.disk.size_bytes = rig_data_off(rig, SHAPE_DATA);
    rig_open_ok(rig);
    assert_int_equal(qc_discard(&rig->image, (SHAPE_DATA - 1) * CLUSTER, CLUSTER), QC_OK);
    assert_int_equal(qc_settle(&rig->image), QC_OK);
    assert_int_equal(rig->disk.trims_count, 0);
    assert_int_equal(shape_count(rig, AT_DATA + SHAPE_DATA), 0);
}

/* Clusters larger than all of the pool: their tables are put together piece by piece. */
static void tables_larger_than_the_pool_are_written(void **state)
{
    struct rig *rig = *state;
    unsigned bits = 18;
    uint64_t reach = UINT64_C(1) << (2 * bits - 3);
    struct qc_check_result result;

    rig_build(rig, 3, bits, 2 * reach, 2);
    rig_set_l2(rig, 0, rig_data_off(rig, 0) | SHAPE_COPIED);
    image_set_count(&rig->disk, (uint64_t)AT_L2 << bits, 2); /* shared, by its count */
    image_set_count(&rig->disk, rig_data_off(rig, 1), 0);
    rig_open_ok(rig);
    memset(buf, 0x5a, CLUSTER);
    expect_write(rig, reach, QC_OK, "");
    expect_write(rig, 7 * CLUSTER, QC_OK, "");
    assert_int_equal(qc_settle(&rig->image), QC_OK);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(qc_read(&rig->image, i == 0 ? reach : 7 * CLUSTER, buf + CLUSTER, CLUSTER),
                         QC_OK);
        assert_memory_equal(buf + CLUSTER, buf, CLUSTER);
    }
    result = shape_check(rig, QC_FIX_NOTHING);
    assert_int_equal(result.corruptions, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(a_full_disk_of_one_size_has_no_space),
        RIG_TEST(the_largest_refcount_table_does_not_grow),
        RIG_TEST(a_table_without_a_count_is_not_given_up),
        RIG_TEST(a_new_refcount_table_lands_on_no_table),
        RIG_TEST(the_refcount_table_grows_once_an_epoch),
        RIG_TEST(what_was_set_aside_may_be_gone),
        RIG_TEST(an_epoch_has_room_or_says_so),
        RIG_TEST(a_raised_count_is_committed),
        RIG_TEST(counts_without_a_block_are_not_written),
        RIG_TEST(tables_larger_than_the_pool_are_written),
        RIG_TEST(what_lies_behind_the_disk_is_not_trimmed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
