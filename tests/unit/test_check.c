/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Checking small images, rule by rule: what counts as a corruption and what as a leak, and that
 * windows of any size tell the same. Each rule's simplest repair is here too.
 *
 * More of repairs, and cuts in them, are in test_repair.c; thousands of damaged images, beside
 * qemu-img, are in tests/host/test_check.py.
 */
#include "../../core/refs.h"
#include "shape.h"

static void clean_image_is_clean(void **state)
{
    struct rig *rig = *state;
    static const uint32_t bits[] = {9, 12, 16};

    for (unsigned i = 0; i < 3; i++) {
        struct qc_check_result result;

        shape_build(rig, 2 + i % 2, bits[i]);
        result = shape_check(rig, QC_FIX_NOTHING);
        shape_expect(&result, 0, 0);
        assert_int_equal(result.total_clusters, rig->cluster_bytes / 8);
        assert_int_equal(result.allocated_clusters, SHAPE_DATA);
        assert_int_equal(result.fragmented_clusters, 0);
        assert_int_equal(result.compressed_clusters, 0);
        assert_int_equal(result.image_end_off, rig->cluster_bytes * (AT_DATA + SHAPE_DATA));
    }
}

static void compressed_counts_in_each_cluster(void **state)
{
    struct rig *rig = *state;
    struct qc_check_result result;
    /* 4 KiB clusters: 58 bits of offset, 4 of sectors. From the middle of 0 into 1. */
    uint64_t entry;

    shape_build(rig, 3, 12);
    entry = SHAPE_COMPRESSED | (rig_data_off(rig, 0) + 3584) | UINT64_C(1) << 58;
    rig_set_l2(rig, 0, entry);
    rig_set_l2(rig, 1, SHAPE_COMPRESSED | (rig_data_off(rig, 1) + 512));
    shape_set_count(rig, AT_DATA + 1, 2);
    result = shape_check(rig, QC_FIX_NOTHING);
    shape_expect(&result, 0, 0);
    assert_int_equal(result.compressed_clusters, 2);
    rig_set_l2(rig, 0, entry | SHAPE_COPIED);
    shape_expect_found(rig, 1, 0);
    shape_expect_repair(rig, 1, 0);
    assert_int_equal(shape_l2_entry(rig, 0), entry);
}

static void snapshots_count(void **state)
{
    struct rig *rig = *state;

    shape_build(rig, 3, 12);
    shape_add_snapshot(rig, 16, AT_DATA + SHAPE_DATA);
    shape_expect_found(rig, 0, 0);
    shape_set_count(rig, AT_L2, 1);
    shape_expect_found(rig, 2, 0); /* and the flag, which is right, is not */
    shape_expect_repair(rig, 2, 0);
    assert_int_equal(shape_count(rig, AT_L2), 2);
}

static void counters_grow_as_needed(void **state)
{
    struct rig *rig = *state;

    shape_build(rig, 3, 12);
    for (unsigned i = 0; i < 300; i++)
        rig_set_l2(rig, SHAPE_DATA + i, rig_data_off(rig, 0));
    rig_set_l2(rig, 0, rig_data_off(rig, 0));
    /* The count, and the flag that it asks for in each entry. */
    shape_expect_found(rig, 302, 0);
    shape_expect_repair(rig, 302, 0);
    assert_int_equal(shape_table(rig, AT_REFBLOCK)[2 * AT_DATA], 301 >> 8);
    assert_int_equal(shape_table(rig, AT_REFBLOCK)[2 * AT_DATA + 1], 301 & 0xff);
}

/* Every cluster's counter, told up in windows of 64 clusters and in one. */
static void windows_add_up(void **state)
{
    struct rig *rig = *state;
    struct qc_scratch scratch, small;
    uint32_t whole[192];

    shape_build(rig, 3, 9);
    rig_set_l2(rig, 9, rig_data_off(rig, 1));
    rig->disk.disk.size_bytes = 192 * rig->cluster_bytes;
    rig_set_l2(rig, 10, 150 * rig->cluster_bytes);
    assert_int_equal(rig_open(rig), QC_OK);
    qc_scratch_borrow(&rig->image, &scratch);
    for (unsigned width = 1; width <= 4; width *= 2) {
        struct qc_tally tally;
        struct qc_refs refs = {.image = &rig->image, .scratch = &scratch, .tally = &tally};

        qc_tally_begin(&tally, &scratch, width, 0, 192);
        assert_int_equal(qc_refs_count(&refs), QC_OK);
        for (unsigned i = 0; i < 192; i++)
            whole[i] = qc_tally_get(&tally, i);
        assert_int_equal(whole[AT_DATA + 1], 2);
        assert_int_equal(whole[150], 1);
        small = scratch;
        small.bytes_count = 64 * width;
        for (unsigned first = 0; first < 192; first += 64) {
            qc_tally_begin(&tally, &small, width, first, 192);
            assert_int_equal(tally.count, 64);
            assert_int_equal(qc_refs_count(&refs), QC_OK);
            for (unsigned i = 0; i < 64; i++)
                assert_int_equal(qc_tally_get(&tally, first + i), whole[first + i]);
        }
    }
    qc_scratch_return(&rig->image);
}

static bool stop_at_once(void *context, uint64_t done, uint64_t total)
{
    unsigned *calls = context;

    assert_in_range(done, 0, total);
    (*calls)++;
    return false;
}

static void progress_can_stop_it(void **state)
{
    struct rig *rig = *state;
    struct qc_check_result result;
    unsigned calls = 0;

    shape_build(rig, 3, 12);
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(qc_check(&rig->image, QC_FIX_NOTHING, stop_at_once, &calls, &result),
                     QC_RANGE);
    assert_int_equal(calls, 1);
}

static void read_only_is_checked_and_not_repaired(void **state)
{
    struct rig *rig = *state;
    struct qc_check_result result;

    shape_build(rig, 3, 12);
    shape_set_count(rig, AT_DATA, 2);
    rig->options.readonly = true;
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(qc_check(&rig->image, QC_FIX_ALL, NULL, NULL, &result), QC_READONLY);
    assert_int_equal(rig->disk.writes_count, 0);
    assert_int_equal(qc_check(&rig->image, QC_FIX_NOTHING, NULL, NULL, &result), QC_OK);
    shape_expect(&result, 1, 1);
}

static void failed_read_is_told(void **state)
{
    struct rig *rig = *state;
    struct qc_check_result result;

    shape_build(rig, 3, 12);
    for (unsigned fail_at = 1; fail_at < 6; fail_at++) {
        assert_int_equal(rig_open(rig), QC_OK);
        rig->disk.reads_count = 0;
        rig->disk.fail_at = fail_at;
        assert_int_equal(qc_check(&rig->image, QC_FIX_NOTHING, NULL, NULL, &result), QC_IO);
        rig->disk.fail_at = 0;
    }
}

static void high_count_is_a_leak(void **state)
{
    struct rig *rig = *state;

    shape_build(rig, 3, 12);
    shape_set_count(rig, AT_DATA + 20, 1); /* behind the disk's end: nobody asks */
    rig_set_l2(rig, 3, 0);
    shape_expect_found(rig, 0, 1);
    shape_expect_repair(rig, 0, 1);
    assert_int_equal(shape_count(rig, AT_DATA + 3), 0);
    assert_int_equal(shape_count(rig, AT_DATA + 4), 1);
}

static void low_count_is_a_corruption(void **state)
{
    struct rig *rig = *state;

    shape_build(rig, 3, 12);
    shape_set_count(rig, AT_DATA + 2, 0);
    /* The flag says 1, the count does not: that is the second. */
    shape_expect_found(rig, 2, 0);
    shape_expect_repair(rig, 2, 0);
    assert_int_equal(shape_count(rig, AT_DATA + 2), 1);
    assert_int_equal(shape_l2_entry(rig, 2), rig_data_off(rig, 2) | SHAPE_COPIED);
}

static void two_names_are_two_references(void **state)
{
    struct rig *rig = *state;

    shape_build(rig, 3, 12);
    rig_set_l2(rig, SHAPE_DATA, rig_data_off(rig, 1) | SHAPE_COPIED);
    shape_expect_found(rig, 1, 0);
    shape_expect_repair(rig, 1, 0);
    assert_int_equal(shape_count(rig, AT_DATA + 1), 2);
    assert_int_equal(shape_l2_entry(rig, 1), rig_data_off(rig, 1));
    assert_int_equal(shape_l2_entry(rig, SHAPE_DATA), rig_data_off(rig, 1));
}

static void flags_follow_counts(void **state)
{
    struct rig *rig = *state;

    shape_build(rig, 2, 12);
    rig_set_l2(rig, 0, rig_data_off(rig, 0));
    put_be64(shape_table(rig, AT_L1), rig->cluster_bytes * AT_L2);
    shape_expect_found(rig, 2, 0);
    shape_expect_repair(rig, 2, 0);
    assert_int_equal(shape_l2_entry(rig, 0), rig_data_off(rig, 0) | SHAPE_COPIED);
    assert_int_equal(get_be64(shape_table(rig, AT_L1)), rig->cluster_bytes * AT_L2 | SHAPE_COPIED);
}

static void reserved_bits_are_cleared(void **state)
{
    struct rig *rig = *state;

    shape_build(rig, 3, 12);
    rig_set_l2(rig, 0, rig_data_off(rig, 0) | SHAPE_COPIED | 2);
    put_be64(shape_table(rig, AT_L1), rig->cluster_bytes * AT_L2 | SHAPE_COPIED | 1);
    shape_expect_found(rig, 2, 0);
    shape_expect_repair(rig, 2, 0);
    assert_int_equal(shape_l2_entry(rig, 0), rig_data_off(rig, 0) | SHAPE_COPIED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(clean_image_is_clean),
        RIG_TEST(compressed_counts_in_each_cluster),
        RIG_TEST(snapshots_count),
        RIG_TEST(counters_grow_as_needed),
        RIG_TEST(windows_add_up),
        RIG_TEST(progress_can_stop_it),
        RIG_TEST(read_only_is_checked_and_not_repaired),
        RIG_TEST(failed_read_is_told),
        RIG_TEST(high_count_is_a_leak),
        RIG_TEST(low_count_is_a_corruption),
        RIG_TEST(two_names_are_two_references),
        RIG_TEST(flags_follow_counts),
        RIG_TEST(reserved_bits_are_cleared),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
