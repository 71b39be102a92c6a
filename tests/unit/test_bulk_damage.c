/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Changes of snapshots on images that are damaged where only such a change looks: they are refused
 * with a line, and what was refused before anything was announced has changed nothing.
 */
#include "shape.h"

#include "../../core/bytes.h"

#define CLUSTER 4096u
#define AT_SNAP (AT_DATA + SHAPE_DATA)
#define AT_COPY (AT_SNAP + 2) /* an L2 table that only the snapshot has */
#define AT_END  (AT_SNAP + 3)
#define NOWHERE (UINT64_C(1) << 40)

/* A snapshot whose L2 table is its own, with the same data. */
static void build(struct rig *rig, uint32_t version)
{
    uint8_t *bytes = rig->disk.bytes;

    shape_build(rig, version, 12);
    shape_add_snapshot(rig, 16, AT_SNAP);
    put_be64(bytes + AT_SNAP * CLUSTER + 48, qc_be64(bytes + 24));
    rig->disk.disk.size_bytes = AT_END * CLUSTER;
    memcpy(bytes + AT_COPY * CLUSTER, shape_table(rig, AT_L2), CLUSTER);
    put_be64(bytes + (AT_SNAP + 1) * CLUSTER, AT_COPY * CLUSTER);
    put_be64(shape_table(rig, AT_L1), AT_L2 * CLUSTER | SHAPE_COPIED);
    shape_set_count(rig, AT_L2, 1);
    shape_set_count(rig, AT_COPY, 1);
}

static uint8_t *snapshot_l1(struct rig *rig)
{
    return rig->disk.bytes + (AT_SNAP + 1) * CLUSTER;
}

static uint8_t *snapshot_l2(struct rig *rig)
{
    return rig->disk.bytes + AT_COPY * CLUSTER;
}

static void good_image_is_good(void **state)
{
    struct rig *rig = *state;
    struct qc_check_result result;

    build(rig, 3);
    shape_expect_found(rig, 0, 0);
    rig_open_ok(rig);
    assert_int_equal(qc_snapshot_create(&rig->image, "new", 1, 2), QC_OK);
    assert_int_equal(qc_snapshot_apply(&rig->image, "s1"), QC_OK);
    assert_int_equal(qc_snapshot_delete(&rig->image, "s1"), QC_OK);
    result = shape_check(rig, QC_FIX_NOTHING);
    shape_expect(&result, 0, 0);
}

enum part { DISK_L1, DISK_L2, SNAPSHOT_L1, SNAPSHOT_L2, UNCOUNTED, ROOT };

/* One thing that is wrong, and what each change answers. UNCOUNTED: the cluster value counts 0. */
struct damage {
    enum part part;
    uint64_t value;
    qc_status create, apply, delete;
};

static void put_damage(struct rig *rig, const struct damage *damage)
{
    switch (damage->part) {
    case DISK_L1:
        put_be64(shape_table(rig, AT_L1), damage->value);
        break;
    case DISK_L2:
        put_be64(shape_table(rig, AT_L2) + 8, damage->value);
        break;
    case SNAPSHOT_L1:
        put_be64(snapshot_l1(rig), damage->value);
        break;
    case SNAPSHOT_L2:
        put_be64(snapshot_l2(rig) + 8, damage->value);
        break;
    case UNCOUNTED:
        shape_set_count(rig, (unsigned)damage->value, 0);
        break;
    case ROOT:
        put_be64(shape_table(rig, AT_REFTABLE), damage->value);
        break;
    }
}

/* Of an open image. */
static void expect_change(struct rig *rig, const struct damage *damage, unsigned change)
{
    qc_status wanted = change == 0 ? damage->create : change == 1 ? damage->apply : damage->delete;
    qc_status status = change == 0   ? qc_snapshot_create(&rig->image, "new", 1, 2)
                       : change == 1 ? qc_snapshot_apply(&rig->image, "s1")
                                     : qc_snapshot_delete(&rig->image, "s1");

    if (status != wanted)
        fail_msg("part %d, %llx, change %u: %d, not %d: %s", damage->part,
                 (unsigned long long)damage->value, change, status, wanted, qc_detail(&rig->image));
    assert_int_equal(status == QC_OK, qc_detail(&rig->image)[0] == '\0');
}

static void expect_answer(struct rig *rig, const struct damage *damage, unsigned change)
{
    build(rig, 3);
    put_damage(rig, damage);
    if (rig_open(rig) != QC_OK)
        fail_msg("part %d, %llx: not opened", damage->part, (unsigned long long)damage->value);
    expect_change(rig, damage, change);
}

static void damage_is_refused(void **state)
{
    static const struct damage damages[] = {
        {DISK_L1, NOWHERE, QC_CORRUPT, QC_CORRUPT, QC_OK},
        {DISK_L1, AT_L2 * CLUSTER | SHAPE_COPIED | 4, QC_CORRUPT, QC_CORRUPT, QC_OK},
        {DISK_L1, SHAPE_COPIED, QC_OK, QC_OK, QC_OK},
        {DISK_L2, NOWHERE, QC_CORRUPT, QC_CORRUPT, QC_OK},
        {DISK_L2, (AT_DATA * CLUSTER + 512), QC_CORRUPT, QC_CORRUPT, QC_CORRUPT},
        {DISK_L2, SHAPE_COMPRESSED | SHAPE_COPIED | AT_DATA * CLUSTER, QC_CORRUPT, QC_CORRUPT,
         QC_CORRUPT},
        {SNAPSHOT_L1, NOWHERE, QC_OK, QC_CORRUPT, QC_CORRUPT},
        {SNAPSHOT_L1, AT_COPY * CLUSTER | 4, QC_OK, QC_CORRUPT, QC_CORRUPT},
        {SNAPSHOT_L2, NOWHERE, QC_OK, QC_CORRUPT, QC_CORRUPT},
        {SNAPSHOT_L2, AT_L1 * CLUSTER, QC_OK, QC_CORRUPT, QC_CORRUPT},
        {UNCOUNTED, AT_DATA + 2, QC_CORRUPT, QC_CORRUPT, QC_CORRUPT},
        {UNCOUNTED, AT_COPY, QC_CORRUPT, QC_CORRUPT, QC_CORRUPT},
        {ROOT, 1, QC_CORRUPT, QC_CORRUPT, QC_CORRUPT},
        {ROOT, NOWHERE, QC_CORRUPT, QC_CORRUPT, QC_CORRUPT},
        {ROOT, CLUSTER * AT_L1, QC_CORRUPT, QC_CORRUPT, QC_CORRUPT},
        {ROOT, CLUSTER * AT_REFBLOCK | 512, QC_CORRUPT, QC_CORRUPT, QC_CORRUPT},
    };

    for (unsigned i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
        for (unsigned change = 0; change < 3; change++)
            expect_answer(*state, &damages[i], change);
    }
}

/* In an image whose counts are not looked through. Not a byte changes. */
static void expect_nothing_lowered(struct rig *rig, const struct damage *damage, unsigned change)
{
    static uint8_t before[AT_END * CLUSTER];

    memcpy(before, rig->disk.bytes, sizeof(before));
    rig_open_ok(rig);
    rig_believe(rig);
    expect_change(rig, damage, change);
    assert_memory_equal(rig->disk.bytes, before, sizeof(before));
    assert_int_equal(rig->disk.disk.size_bytes, sizeof(before));
    assert_int_equal(rig->disk.writes_count, 0);
}

/* Refused while the way back is open: the disk's tree when it is replaced, a snapshot's when it is
 * deleted, and the tables that go. */
static void what_is_lowered_is_tried_first(void **state)
{
    static const struct damage damages[] = {
        {DISK_L1, NOWHERE, QC_OK, QC_CORRUPT, QC_OK},
        {DISK_L1, AT_L2 * CLUSTER | 4, QC_OK, QC_CORRUPT, QC_OK},
        {DISK_L2, NOWHERE, QC_OK, QC_CORRUPT, QC_OK},
        {DISK_L2, AT_L1 * CLUSTER, QC_OK, QC_CORRUPT, QC_OK},
        {UNCOUNTED, AT_L2, QC_OK, QC_CORRUPT, QC_OK},
        {UNCOUNTED, AT_L1, QC_OK, QC_CORRUPT, QC_OK},
        {SNAPSHOT_L1, NOWHERE, QC_OK, QC_OK, QC_CORRUPT},
        {SNAPSHOT_L1, AT_COPY * CLUSTER | 4, QC_OK, QC_OK, QC_CORRUPT},
        {SNAPSHOT_L2, NOWHERE, QC_OK, QC_OK, QC_CORRUPT},
        {SNAPSHOT_L2, AT_L1 * CLUSTER, QC_OK, QC_OK, QC_CORRUPT},
        {UNCOUNTED, AT_COPY, QC_OK, QC_OK, QC_CORRUPT},
        {UNCOUNTED, AT_SNAP + 1, QC_OK, QC_OK, QC_CORRUPT},
        {UNCOUNTED, AT_SNAP, QC_OK, QC_OK, QC_CORRUPT},
        {UNCOUNTED, AT_DATA + 2, QC_OK, QC_CORRUPT, QC_CORRUPT},
        {ROOT, AT_L1 * CLUSTER, QC_OK, QC_CORRUPT, QC_CORRUPT},
    };
    struct rig *rig = *state;

    for (unsigned i = 0; i < 2 * sizeof(damages) / sizeof(damages[0]); i++) {
        const struct damage *damage = &damages[i / 2];

        for (unsigned change = 1; change <= 2; change++) {
            if ((change == 1 ? damage->apply : damage->delete) == QC_OK)
                continue;
            build(rig, 2 + i % 2);
            put_damage(rig, damage);
            expect_nothing_lowered(rig, damage, change);
        }
    }
}

/* The disk has a cluster twice that counts 1: what the snapshot's tree adds would make up for it,
 * even where that is tried before because a count is near its limit. */
static void what_another_tree_adds_hides_nothing(void **state)
{
    static const struct damage damage = {DISK_L2, AT_DATA * CLUSTER, QC_OK, QC_CORRUPT, QC_OK};
    struct rig *rig = *state;

    for (unsigned is_near = 0; is_near < 2; is_near++) {
        build(rig, 3);
        put_damage(rig, &damage);
        shape_set_count(rig, AT_DATA, 1);
        shape_table(rig, AT_REFBLOCK)[2 * AT_SNAP] = is_near ? 0x80 : 0;
        expect_nothing_lowered(rig, &damage, 1);
    }
}

static void a_table_goes_without_a_tree(void **state)
{
    static const struct damage damage = {UNCOUNTED, AT_SNAP, QC_OK, QC_OK, QC_CORRUPT};
    struct rig *rig = *state;

    build(rig, 3);
    put_be32(rig->disk.bytes + AT_SNAP * CLUSTER + 8, 0);
    put_damage(rig, &damage);
    expect_nothing_lowered(rig, &damage, 2);
}

/* 64 blocks of 64 counts are for 2 MiB. */
static void what_no_refcount_table_reaches_is_refused(void **state)
{
    struct rig *rig = *state;

    shape_build(rig, 3, 9);
    put_be32(rig->disk.bytes + 96, 6);
    for (unsigned i = 0; i < 64; i++)
        put_be64(shape_table(rig, AT_REFBLOCK) + i * 8u, 1);
    rig_set_l2(rig, 1, 3u << 20 | SHAPE_COPIED);
    rig->disk.disk.size_bytes = MEM_DISK_BYTES;
    rig_open_ok(rig);
    rig_believe(rig);
    assert_int_equal(qc_snapshot_create(&rig->image, "new", 1, 2), QC_CORRUPT);
    assert_string_equal(qc_detail(&rig->image), "refcount out of range at 0x300000");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(good_image_is_good),
        RIG_TEST(damage_is_refused),
        RIG_TEST(what_no_refcount_table_reaches_is_refused),
        RIG_TEST(what_is_lowered_is_tried_first),
        RIG_TEST(what_another_tree_adds_hides_nothing),
        RIG_TEST(a_table_goes_without_a_tree),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
