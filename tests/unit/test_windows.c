/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Bulk operations that have too little memory for all counts at once, and go over the image window
 * by window: snapshots, checks and repairs do what they do in one.
 *
 * The image is small, so the pages that are lent to them are made few.
 */
#include "shape.h"

#define CLUSTER     512u
#define GUEST       (UINT64_C(1) << 20)
#define PIECE       (64u * 1024)
#define FAR         (UINT64_C(24) << 20) /* behind what a bulk operation holds of an L1 table */
#define LARGE       (UINT64_C(11) << 18)
#define PAGES_FEW   3u
#define MANY_SHARES 40u /* snapshots: counts that are too large for narrow counters */

static uint8_t buf[PIECE];

static void write_pieces(struct rig *rig, uint64_t from, uint64_t to, unsigned salt)
{
    for (uint64_t off = from; off < to; off += PIECE) {
        memset(buf, (int)(off / PIECE * 7 + salt), sizeof(buf));
        assert_int_equal(qc_write(&rig->image, off, buf, sizeof(buf)), QC_OK);
    }
}

static void expect_pieces(struct rig *rig, uint64_t from, uint64_t to, unsigned salt)
{
    for (uint64_t off = from; off < to; off += PIECE) {
        assert_int_equal(qc_read(&rig->image, off, buf, sizeof(buf)), QC_OK);
        for (unsigned i = 0; i < sizeof(buf); i++)
            assert_int_equal(buf[i], (uint8_t)(off / PIECE * 7 + salt));
    }
}

/* A guest disk that is written all over, in some thousand clusters. */
static void build(struct rig *rig)
{
    rig_build(rig, 3, 9, GUEST, 0);
    rig_open_ok(rig);
    write_pieces(rig, 0, GUEST, 1);
    assert_int_equal(qc_settle(&rig->image), QC_OK);
}

static void expect_sound(struct rig *rig)
{
    struct qc_check_result result;

    rig_open_ok(rig);
    assert_int_equal(qc_check(&rig->image, QC_FIX_NOTHING, NULL, NULL, &result), QC_OK);
    shape_expect(&result, 0, 0);
}

/* Checks and repairs with little memory, and then with much. */
static void expect_repair(struct rig *rig, uint64_t corruptions, uint64_t leaks)
{
    struct qc_check_result result;

    for (unsigned fix = QC_FIX_NOTHING; fix <= QC_FIX_ALL; fix += QC_FIX_ALL) {
        rig_open_ok(rig);
        rig_shrink(rig, PAGES_FEW);
        assert_int_equal(qc_check(&rig->image, (enum qc_check_fix)fix, NULL, NULL, &result), QC_OK);
        shape_expect(&result, fix == QC_FIX_ALL ? 0 : corruptions, fix == QC_FIX_ALL ? 0 : leaks);
    }
    expect_sound(rig);
}

static void snapshots_go_window_by_window(void **state)
{
    struct rig *rig = *state;
    char name[16];

    build(rig);
    for (unsigned i = 0; i < MANY_SHARES; i++) {
        snprintf(name, sizeof(name), "s%u", i);
        rig_open_ok(rig);
        rig_shrink(rig, PAGES_FEW);
        assert_int_equal(qc_snapshot_create(&rig->image, name, 1, 2), QC_OK);
    }
    expect_sound(rig);
    write_pieces(rig, 0, GUEST / 2, 2);
    assert_int_equal(qc_settle(&rig->image), QC_OK);
    rig_shrink(rig, PAGES_FEW);
    assert_int_equal(qc_snapshot_apply(&rig->image, "s3"), QC_OK);
    expect_sound(rig);
    expect_pieces(rig, 0, GUEST, 1);
    for (unsigned i = 0; i < MANY_SHARES; i++) {
        snprintf(name, sizeof(name), "s%u", i);
        rig_open_ok(rig);
        rig_shrink(rig, PAGES_FEW);
        assert_int_equal(qc_snapshot_delete(&rig->image, name), QC_OK);
    }
    expect_sound(rig);
    expect_pieces(rig, 0, GUEST, 1);
}

/* An L1 table with more entries than a bulk operation holds. */
static void long_l1_tables_are_copied(void **state)
{
    struct rig *rig = *state;

    build(rig);
    assert_int_equal(qc_resize(&rig->image, 1024 * 64 * CLUSTER), QC_OK);
    write_pieces(rig, FAR, FAR + PIECE, 1);
    assert_int_equal(qc_settle(&rig->image), QC_OK);
    rig_shrink(rig, PAGES_FEW);
    assert_int_equal(qc_snapshot_create(&rig->image, "one", 1, 2), QC_OK);
    expect_sound(rig);
    write_pieces(rig, 0, GUEST, 2);
    write_pieces(rig, FAR, FAR + PIECE, 2);
    assert_int_equal(qc_settle(&rig->image), QC_OK);
    rig_shrink(rig, PAGES_FEW);
    assert_int_equal(qc_snapshot_apply(&rig->image, "one"), QC_OK);
    expect_sound(rig);
    expect_pieces(rig, 0, GUEST, 1);
    expect_pieces(rig, FAR, FAR + PIECE, 1);
}

/* The first block, whose counts are those of the lowest clusters, and one far behind it. */
static uint8_t *count_of(struct rig *rig, uint64_t cluster)
{
    uint64_t block = get_be64(shape_table(rig, AT_REFTABLE) + cluster / 256 * 8);

    return rig->disk.bytes + block + cluster % 256 * 2;
}

static void counts_are_compared_window_by_window(void **state)
{
    struct rig *rig = *state;
    uint64_t last;

    build(rig);
    expect_repair(rig, 0, 0);
    last = get_be64(rig->disk.bytes + (get_be64(shape_table(rig, AT_L1) + 31 * 8) & 0xffffffu) +
                    63 * 8) &
           0xffffff;
    count_of(rig, last / CLUSTER)[1] = 9;
    expect_repair(rig, 1, 1);
    count_of(rig, last / CLUSTER)[1] = 0;
    expect_repair(rig, 2, 0);
}

/* A snapshot's table, L2 tables and blocks that must move, each looked for in every window. */
static void damage_is_repaired_window_by_window(void **state)
{
    struct rig *rig = *state;
    struct qc_check_result result;
    uint64_t l2_off;
    uint8_t *l1;

    build(rig);
    assert_int_equal(qc_resize(&rig->image, LARGE), QC_OK);
    write_pieces(rig, GUEST, LARGE, 1);
    assert_int_equal(qc_settle(&rig->image), QC_OK);
    l1 = rig->disk.bytes + qc_info(&rig->image)->l1_off;
    put_be64(shape_table(rig, AT_REFTABLE) + 8, 8); /* a block that is nowhere */
    l2_off = get_be64(l1) & 0xffffff;
    put_be64(l1 + 8, l2_off | SHAPE_COPIED);
    put_be64(rig->disk.bytes + l2_off, UINT64_C(1) << 40 | SHAPE_COPIED);
    assert_int_equal(rig_open(rig), QC_OK);
    rig_shrink(rig, PAGES_FEW);
    assert_int_equal(qc_check(&rig->image, QC_FIX_ALL, NULL, NULL, &result), QC_OK);
    shape_expect(&result, 0, 0);
    expect_sound(rig);
    expect_pieces(rig, 2 * PIECE, LARGE, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(snapshots_go_window_by_window),
        RIG_TEST(long_l1_tables_are_copied),
        RIG_TEST(counts_are_compared_window_by_window),
        RIG_TEST(damage_is_repaired_window_by_window),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
