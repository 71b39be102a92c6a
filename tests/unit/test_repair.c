/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Repairs of small images: tables that cannot stay, entries that lead nowhere, marks, disks that do
 * not grow. Cuts are in test_repair_cuts.c.
 */
#include "shape.h"

#define MARK_DIRTY   1u
#define MARK_CORRUPT 2u

static void leaks_alone_leave_corruptions(void **state)
{
    struct rig *rig = *state;
    struct qc_check_result result;

    shape_build(rig, 3, 12);
    shape_set_count(rig, AT_DATA + 2, 0);
    rig_set_l2(rig, 3, 0);
    result = shape_check(rig, QC_FIX_LEAKS);
    shape_expect(&result, 2, 0);
    assert_int_equal(result.leaks_fixed, 1);
    assert_int_equal(shape_count(rig, AT_DATA + 2), 0);
    assert_int_equal(shape_table(rig, AT_HEADER)[79], 0);
}

static void kept_cluster_that_is_unaligned_is_given_up(void **state)
{
    struct rig *rig = *state;

    shape_build(rig, 3, 12);
    rig_set_l2(rig, 0, (rig_data_off(rig, 0) + 512) | SHAPE_COPIED | 1);
    /* The entry; it reaches into the next cluster; whose flag is wrong then. */
    shape_expect_found(rig, 2, 0);
    shape_expect_repair(rig, 2, 0);
    assert_int_equal(shape_l2_entry(rig, 0), 1);
    assert_int_equal(shape_count(rig, AT_DATA), 0);
}

static void what_is_nowhere_reads_as_zeros(void **state)
{
    struct rig *rig = *state;
    static const uint32_t versions[] = {2, 3};

    for (unsigned i = 0; i < 2; i++) {
        shape_build(rig, versions[i], 12);
        rig_set_l2(rig, 0, rig_data_off(rig, 100) | SHAPE_COPIED);
        shape_expect_found(rig, 2, 1);
        shape_expect_repair(rig, 2, 1);
        assert_int_equal(shape_l2_entry(rig, 0), versions[i] == 3);
    }
}

static void short_extra_data_is_completed(void **state)
{
    struct rig *rig = *state;
    uint8_t *header = shape_table(rig, AT_HEADER);
    const uint8_t *entry;

    shape_build(rig, 3, 12);
    shape_add_snapshot(rig, 0, AT_DATA + SHAPE_DATA);
    shape_expect_found(rig, 1, 0);
    shape_expect_repair(rig, 1, 0);
    header = shape_table(rig, AT_HEADER);
    assert_int_not_equal(get_be64(header + 64), rig->cluster_bytes * (AT_DATA + SHAPE_DATA));
    entry = rig->disk.bytes + get_be64(header + 64);
    assert_int_equal(entry[39], 24);
    assert_int_equal(get_be64(entry + 48), qc_size(&rig->image));
    assert_memory_equal(entry + 64, "1s1", 3);
    assert_int_equal(shape_count(rig, AT_DATA + SHAPE_DATA), 0);
}

static void long_extra_data_is_cut(void **state)
{
    struct rig *rig = *state;
    struct qc_check_result result;
    const uint8_t *entry;

    shape_build(rig, 3, 12);
    shape_add_snapshot(rig, 1032, AT_DATA + SHAPE_DATA);
    result = shape_check(rig, QC_FIX_NOTHING);
    assert_int_equal(result.check_errors, 1);
    result = shape_check(rig, QC_FIX_ALL);
    shape_expect(&result, 0, 0);
    entry = rig->disk.bytes + get_be64(shape_table(rig, AT_HEADER) + 64);
    assert_int_equal(get_be64(entry + 32) & 0xffff, 1024);
    assert_memory_equal(entry + 40 + 1024, "1s1", 3);
}

/* Roots that lead nowhere: all counts are made anew. */
static void broken_roots_are_replaced(void **state)
{
    struct rig *rig = *state;
    static const uint64_t roots[] = {
        0, 512, 4096 * AT_L1, 4096 * AT_L2, 4096 * 200, 4096 * AT_REFBLOCK + 1};

    for (unsigned i = 0; i < sizeof(roots) / sizeof(roots[0]); i++) {
        struct qc_check_result result;

        shape_build(rig, 2 + i % 2, 12);
        put_be64(shape_table(rig, AT_REFTABLE), roots[i]);
        result = shape_check(rig, QC_FIX_NOTHING);
        assert_true(result.corruptions > 0);
        result = shape_check(rig, QC_FIX_ALL);
        shape_expect(&result, 0, 0);
        assert_int_not_equal(get_be64(shape_table(rig, AT_HEADER) + 48),
                             rig->cluster_bytes * AT_REFTABLE);
        result = shape_check(rig, QC_FIX_NOTHING);
        shape_expect(&result, 0, 0);
    }
}

static void disk_that_does_not_grow_gives_what_is_free(void **state)
{
    struct rig *rig = *state;
    struct qc_check_result result;

    shape_build(rig, 3, 12);
    put_be64(shape_table(rig, AT_REFTABLE), 512);
    rig_fix_size(rig, rig->disk.disk.size_bytes);
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(qc_check(&rig->image, QC_FIX_ALL, NULL, NULL, &result), QC_NOSPACE);
    assert_string_equal(qc_detail(&rig->image), "no space for new tables");
    assert_int_equal(get_be64(shape_table(rig, AT_HEADER) + 48), rig->cluster_bytes * AT_REFTABLE);
    rig_set_l2(rig, 3, 0);
    rig_set_l2(rig, 4, 0);
    shape_table(rig, AT_HEADER)[79] = 0;
    result = shape_check(rig, QC_FIX_ALL);
    shape_expect(&result, 0, 0);
    assert_int_equal(get_be64(shape_table(rig, AT_HEADER) + 48), rig_data_off(rig, 4));
}

/* An L1 entry that names data: both keep what they have, each in clusters of its own. */
static void shared_table_is_copied(void **state)
{
    struct rig *rig = *state;
    struct qc_check_result result;
    uint8_t data[4096];

    rig_build(rig, 3, 12, UINT64_C(4096) * 1024, SHAPE_DATA);
    rig_map(rig, SHAPE_DATA);
    put_be64(shape_table(rig, AT_L1) + 8, rig_data_off(rig, 2) | SHAPE_COPIED);
    memcpy(data, rig->disk.bytes + rig_data_off(rig, 2), sizeof(data));
    result = shape_check(rig, QC_FIX_ALL);
    shape_expect(&result, 0, 0);
    assert_int_equal(shape_l2_entry(rig, 2), rig_data_off(rig, 2) | SHAPE_COPIED);
    assert_memory_equal(data, rig->disk.bytes + rig_data_off(rig, 2), sizeof(data));
    assert_int_not_equal(get_be64(shape_table(rig, AT_L1) + 8) & ~SHAPE_COPIED,
                         rig_data_off(rig, 2));
}

static void corrupt_mark_goes_with_the_damage(void **state)
{
    struct rig *rig = *state;

    shape_build(rig, 3, 12);
    shape_table(rig, AT_HEADER)[79] = MARK_CORRUPT;
    shape_set_count(rig, AT_DATA, 0);
    shape_expect_repair(rig, 2, 0);
    assert_int_equal(shape_table(rig, AT_HEADER)[79], 0);
}

static void dirty_image_is_repaired_at_its_opening(void **state)
{
    struct rig *rig = *state;
    struct qc_check_result result;

    shape_build(rig, 3, 12);
    shape_table(rig, AT_HEADER)[79] = MARK_DIRTY;
    shape_set_count(rig, AT_DATA + 1, 0);
    shape_set_count(rig, AT_DATA + 2, 7);
    rig->options.readonly = true;
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(rig->disk.writes_count, 0);
    rig->options.readonly = false;
    assert_int_equal(rig_open(rig), QC_OK);
    assert_string_equal(qc_readonly_reason(&rig->image), "");
    assert_int_equal(shape_table(rig, AT_HEADER)[79], 0);
    assert_int_equal(qc_check(&rig->image, QC_FIX_NOTHING, NULL, NULL, &result), QC_OK);
    shape_expect(&result, 0, 0);
}

/* Nobody asked for a repair: what would make errors into zeros is not done. */
static void opening_gives_up_nothing(void **state)
{
    struct rig *rig = *state;
    uint64_t entry;

    shape_build(rig, 3, 12);
    entry = rig_data_off(rig, 100) | SHAPE_COPIED;
    shape_table(rig, AT_HEADER)[79] = MARK_DIRTY;
    rig_set_l2(rig, 0, entry);
    assert_int_equal(rig_open(rig), QC_OK);
    assert_string_equal(qc_readonly_reason(&rig->image),
                        "dirty image, repair failed: 2 corruptions, 0 errors left");
    assert_int_equal(shape_l2_entry(rig, 0), entry);
    assert_int_equal(shape_table(rig, AT_HEADER)[79], MARK_DIRTY);
    shape_expect_repair(rig, 2, 0);
    assert_int_equal(shape_l2_entry(rig, 0), 1);
    /* Nor does the disk grow to where it leads. */
    shape_build(rig, 3, 12);
    shape_table(rig, AT_HEADER)[79] = MARK_DIRTY;
    rig_set_l2(rig, 0, rig_data_off(rig, SHAPE_DATA));
    put_be64(shape_table(rig, AT_REFTABLE), 0);
    assert_int_equal(rig_open(rig), QC_OK);
    assert_string_equal(qc_readonly_reason(&rig->image),
                        "dirty image, repair failed: no space for new tables");
}

/* Nothing is repaired that nobody asked for, and a refused image is refused as ever. */
/* Whatever is behind the disk may come back with it: such an entry keeps its length. */
static void opening_keeps_packed_entries_behind_the_disk(void **state)
{
    struct rig *rig = *state;
    uint64_t entry = UINT64_C(1) << 62 | UINT64_C(5) << 58 | UINT64_C(0x100000000);

    shape_build(rig, 3, 12);
    rig_set_l2(rig, 4, entry);
    shape_table(rig, AT_HEADER)[79] = MARK_DIRTY;
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(shape_l2_entry(rig, 4), entry);
}

static void missing_refcount_table_is_made(void **state)
{
    struct rig *rig = *state;
    struct qc_check_result result;
    uint8_t bytes[512] = {1, 2, 3};

    for (uint32_t version = 2; version <= 3; version++) {
        shape_build(rig, version, 12);
        put_be32(shape_table(rig, AT_HEADER) + 56, 0);
        shape_table(rig, AT_HEADER)[79] = version == 3 ? MARK_DIRTY : 0;
        rig_expect(rig, QC_CORRUPT, "no refcount table");
        rig->options.is_for_check = true;
        result = shape_check(rig, QC_FIX_NOTHING);
        /* Header, L1, L2 and data; flags of L2 and data. The old structures are nobody's. */
        shape_expect(&result, 3 + SHAPE_DATA + 1 + SHAPE_DATA, 0);
        assert_int_equal(qc_write(&rig->image, 0, bytes, sizeof(bytes)), QC_READONLY);
        assert_int_equal(rig->disk.writes_count, 0);
        result = shape_check(rig, QC_FIX_ALL);
        shape_expect(&result, 0, 0);
        assert_string_equal(qc_readonly_reason(&rig->image), "");
        assert_int_equal(qc_write(&rig->image, 0, bytes, sizeof(bytes)), QC_OK);
        assert_int_equal(qc_settle(&rig->image), QC_OK);
        rig->options.is_for_check = false;
        result = shape_check(rig, QC_FIX_NOTHING);
        shape_expect(&result, 0, 0);
    }
}

static void image_goes_on_after_a_repair(void **state)
{
    struct rig *rig = *state;
    struct qc_check_result result;
    uint8_t bytes[512] = {1, 2, 3};

    shape_build(rig, 3, 12);
    put_be64(shape_table(rig, AT_REFTABLE), 0);
    result = shape_check(rig, QC_FIX_ALL);
    shape_expect(&result, 0, 0);
    assert_string_equal(qc_readonly_reason(&rig->image), "");
    assert_int_equal(qc_write(&rig->image, 4096 * 20, bytes, sizeof(bytes)), QC_OK);
    assert_int_equal(qc_settle(&rig->image), QC_OK);
    assert_int_equal(qc_check(&rig->image, QC_FIX_NOTHING, NULL, NULL, &result), QC_OK);
    shape_expect(&result, 0, 0);
    assert_int_equal(result.allocated_clusters, SHAPE_DATA + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(leaks_alone_leave_corruptions),
        RIG_TEST(kept_cluster_that_is_unaligned_is_given_up),
        RIG_TEST(what_is_nowhere_reads_as_zeros),
        RIG_TEST(short_extra_data_is_completed),
        RIG_TEST(long_extra_data_is_cut),
        RIG_TEST(broken_roots_are_replaced),
        RIG_TEST(disk_that_does_not_grow_gives_what_is_free),
        RIG_TEST(shared_table_is_copied),
        RIG_TEST(corrupt_mark_goes_with_the_damage),
        RIG_TEST(dirty_image_is_repaired_at_its_opening),
        RIG_TEST(opening_gives_up_nothing),
        RIG_TEST(opening_keeps_packed_entries_behind_the_disk),
        RIG_TEST(missing_refcount_table_is_made),
        RIG_TEST(image_goes_on_after_a_repair),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
