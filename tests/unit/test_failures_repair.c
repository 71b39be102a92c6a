/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Disks that fail below a check and a repair, and checks that are stopped: whatever was done until
 * then, the next repair ends well and the guest reads what it could read before. What must hold is
 * sweep.h's.
 */
#include "shape.h"
#include "sweep.h"

#include "../../core/bytes.h"

#define CLUSTER       512u
#define GUEST         (192u * CLUSTER)
#define ANY_CLUSTER   8u /* whose entry names a table */
#define ZERO          UINT64_C(1)
#define FAR           300u /* a data cluster behind the end of the disk */
#define EXT_BITS      14u  /* of clusters: subclusters need that many */
#define BITMAP_MAGIC  UINT32_C(0x23852875)
#define AT_DIRECTORY  (AT_DATA + SHAPE_DATA)
#define AT_BITMAP     (AT_DIRECTORY + 1)
#define AT_BITS       (AT_DIRECTORY + 2)
#define AT_BITMAP_2   (AT_DIRECTORY + 3)
#define DISK_CLUSTERS (AT_DIRECTORY + 8)

static struct mem_disk data;

/* ---- images of each kind, sound but for what is put into them ----------------------------------
 */

static void build_bits(struct rig *rig, uint32_t version, unsigned cluster_bits)
{
    rig_build(rig, version, cluster_bits, UINT64_C(3) << (2 * cluster_bits - 3), SHAPE_DATA);
    rig->options.is_for_check = true;
    rig_map(rig, SHAPE_DATA);
}

static void build(struct rig *rig, uint32_t version)
{
    build_bits(rig, version, 9);
}

static void set_ext(struct rig *rig, unsigned index, uint64_t word, uint64_t bits)
{
    put_be64(shape_table(rig, AT_L2) + 16 * index, word);
    put_be64(shape_table(rig, AT_L2) + 16 * index + 8, bits);
}

static void build_ext(struct rig *rig)
{
    rig_build(rig, 3, EXT_BITS, 8u << EXT_BITS, 3);
    rig->options.is_for_check = true;
    put_be64(rig->disk.bytes + 72, QC_INCOMPATIBLE_EXTENDED_L2);
    for (unsigned i = 0; i < 3; i++)
        set_ext(rig, i, rig_data_off(rig, i) | SHAPE_COPIED, 0xff);
}

static void build_data_file(struct rig *rig)
{
    build(rig, 3);
    rig_set_data_file(rig, &data, GUEST);
    for (unsigned i = 0; i < SHAPE_DATA; i++) {
        rig_set_l2(rig, i, i * CLUSTER | SHAPE_COPIED);
        shape_set_count(rig, AT_DATA + i, 0);
    }
}

/* Two bitmaps, of one cluster and of zeros. */
static void build_bitmap(struct rig *rig)
{
    uint8_t *entry = rig->disk.bytes + AT_DIRECTORY * CLUSTER;

    build(rig, 3);
    put_be64(rig->disk.bytes + 88, QC_AUTOCLEAR_BITMAPS);
    put_be32(rig->disk.bytes + 112, BITMAP_MAGIC);
    put_be32(rig->disk.bytes + 116, 24);
    put_be32(rig->disk.bytes + 120, 2);
    put_be64(rig->disk.bytes + 128, 64);
    put_be64(rig->disk.bytes + 136, AT_DIRECTORY * CLUSTER);
    memset(entry, 0, (DISK_CLUSTERS - AT_DIRECTORY) * CLUSTER);
    put_be64(entry, AT_BITMAP * CLUSTER);
    put_be32(entry + 8, 1);
    entry[16] = 1;
    entry[17] = 16;
    entry[19] = 2;
    memcpy(entry + 24, "b1", 2);
    memcpy(entry + 32, entry, 32);
    put_be64(entry + 32, AT_BITMAP_2 * CLUSTER);
    put_be64(rig->disk.bytes + AT_BITMAP * CLUSTER, AT_BITS * CLUSTER);
    rig->disk.disk.size_bytes = DISK_CLUSTERS * CLUSTER;
    for (unsigned at = AT_DIRECTORY; at <= AT_BITMAP_2; at++)
        shape_set_count(rig, at, 1);
}

/* ---- damages --------------------------------------------------------------------------------- */

static void many_kinds(struct rig *rig)
{
    shape_set_count(rig, AT_DATA + 1, 0);
    shape_set_count(rig, AT_DATA + 4, 9);
    rig_set_l2(rig, 3, rig_data_off(rig, FAR) | SHAPE_COPIED);
    rig_set_l2(rig, 2, rig_data_off(rig, 2) | SHAPE_COPIED | 4);
    rig_set_l2(rig, 5, (rig_data_off(rig, 5) + 0x100) | SHAPE_COPIED);
    rig_set_l2(rig, 6, rig_data_off(rig, 6));
    rig_set_l2(rig, ANY_CLUSTER, rig->cluster_bytes * AT_L1 | SHAPE_COPIED);
    rig_set_l2(rig, 9, SHAPE_COMPRESSED | SHAPE_COPIED | (rig_data_off(rig, 2) + 9));
    rig_set_l2(rig, 10, SHAPE_COMPRESSED | rig_data_off(rig, FAR));
    rig_set_l2(rig, 11, SHAPE_COMPRESSED | UINT64_C(1) << 61 | rig_data_off(rig, 7));
    put_be64(shape_table(rig, AT_L1) + 8, SHAPE_COPIED);
    put_be64(shape_table(rig, AT_L1) + 16, rig_data_off(rig, FAR) | SHAPE_COPIED);
}

static void build_many_2(struct rig *rig)
{
    build(rig, 2);
    many_kinds(rig);
    rig_set_l2(rig, 12, ZERO);
    sweep_watch(&rig->disk);
}

static void build_many_3(struct rig *rig)
{
    build(rig, 3);
    many_kinds(rig);
    sweep_watch(&rig->disk);
}

/* Large enough for entries that are not aligned. */
static void build_large(struct rig *rig)
{
    build_bits(rig, 3, 12);
    many_kinds(rig);
    put_be64(shape_table(rig, AT_L1) + 8, (rig_data_off(rig, 0) + 512) | SHAPE_COPIED);
    rig_set_l2(rig, 13, SHAPE_COMPRESSED | rig->cluster_bytes * AT_REFTABLE);
    sweep_watch(&rig->disk);
}

static void build_table_on_structure(struct rig *rig)
{
    build_bits(rig, 3, 12);
    put_be64(shape_table(rig, AT_L1) + 8, rig->cluster_bytes * AT_REFTABLE | SHAPE_COPIED);
    sweep_watch(&rig->disk);
}

/* A disk that ends within a cluster, and where something is wrong. */
static void build_odd_end(struct rig *rig)
{
    build_bits(rig, 3, 12);
    shape_set_count(rig, AT_DATA + 1, 0);
    rig->disk.disk.size_bytes -= 1024;
    sweep_watch(&rig->disk);
}

/* No block for what is in use, and only flags and leaks besides. */
static void build_leaks_without_block(struct rig *rig)
{
    build(rig, 3);
    shape_set_count(rig, AT_DATA + 4, 9);
    rig_set_l2(rig, 6, rig_data_off(rig, 600) | SHAPE_COPIED);
    rig->disk.disk.size_bytes = rig_data_off(rig, 610);
    sweep_watch(&rig->disk);
}

static void build_leaks(struct rig *rig)
{
    build(rig, 3);
    shape_set_count(rig, AT_DATA + 4, 9);
    rig_set_l2(rig, 6, rig_data_off(rig, 6));
    sweep_watch(&rig->disk);
}

static void build_no_root(struct rig *rig)
{
    build(rig, 3);
    put_be64(shape_table(rig, AT_REFTABLE), 0);
    sweep_watch(&rig->disk);
}

static void build_bad_root(struct rig *rig)
{
    build(rig, 3);
    put_be64(shape_table(rig, AT_REFTABLE), rig_data_off(rig, 2));
    put_be64(shape_table(rig, AT_REFTABLE) + 8, 1);
    sweep_watch(&rig->disk);
}

/* Blocks that no buffer holds at once are made anew. */
static void build_no_table_wide(struct rig *rig)
{
    build(rig, 3);
    put_be32(rig->disk.bytes + 96, 6);
    put_be64(rig->disk.bytes + 48, 0);
    put_be32(rig->disk.bytes + 56, 0);
    rig_set_l2(rig, 12, UINT64_C(64) * 40 * CLUSTER);
    rig->disk.disk.size_bytes = UINT64_C(64) * 41 * CLUSTER;
    sweep_watch(&rig->disk);
}

static void build_no_table(struct rig *rig)
{
    build(rig, 3);
    put_be64(rig->disk.bytes + 48, 0);
    put_be32(rig->disk.bytes + 56, 0);
    sweep_watch(&rig->disk);
}

/* L2 tables that are data, and that two entries name. */
static void build_shared_l2(struct rig *rig)
{
    build(rig, 3);
    put_be64(shape_table(rig, AT_L1) + 8, rig_data_off(rig, 2) | SHAPE_COPIED);
    put_be64(shape_table(rig, AT_L1) + 16, CLUSTER * AT_L2 | SHAPE_COPIED);
    sweep_watch(&rig->disk);
}

/* A table that is data, and that no buffer holds at once; what is wrong in it goes in a copy. */
static void build_shared_large(struct rig *rig)
{
    build_bits(rig, 3, 15);
    memset(rig->disk.bytes + rig_data_off(rig, 2), 0, rig->cluster_bytes);
    put_be64(rig->disk.bytes + rig_data_off(rig, 2) + 8, rig_data_off(rig, FAR) | SHAPE_COPIED);
    put_be64(shape_table(rig, AT_L1) + 16, rig_data_off(rig, 2) | SHAPE_COPIED);
    sweep_watch(&rig->disk);
}

static void build_snapshot_2(struct rig *rig)
{
    build(rig, 2);
    shape_add_snapshot(rig, 0, AT_DATA + SHAPE_DATA);
    put_be64(rig->disk.bytes + (AT_DATA + SHAPE_DATA) * CLUSTER, FAR * CLUSTER);
    sweep_watch(&rig->disk);
}

/* Its L1 table is longer than the disk's, and what it says there is wrong. */
static void build_snapshot_longer(struct rig *rig)
{
    build(rig, 3);
    shape_add_snapshot(rig, 16, AT_DATA + SHAPE_DATA);
    put_be32(rig->disk.bytes + (AT_DATA + SHAPE_DATA) * CLUSTER + 8, 9);
    put_be64(rig->disk.bytes + (AT_DATA + SHAPE_DATA + 1) * CLUSTER + 64, FAR * CLUSTER);
    sweep_watch(&rig->disk);
}

/* A snapshot whose L1 table is a cluster of data, and one that is nowhere. */
static void build_snapshots(struct rig *rig, uint64_t l1_off, uint32_t extra_bytes)
{
    build(rig, 3);
    shape_add_snapshot(rig, extra_bytes, AT_DATA + SHAPE_DATA);
    put_be64(rig->disk.bytes + (AT_DATA + SHAPE_DATA) * CLUSTER, l1_off);
    sweep_watch(&rig->disk);
}

static void build_snapshot_on_data(struct rig *rig)
{
    build_snapshots(rig, (AT_DATA + 3) * CLUSTER, 16);
}

static void build_snapshot_nowhere(struct rig *rig)
{
    build_snapshots(rig, FAR * CLUSTER, 0);
}

static void build_snapshot_unaligned(struct rig *rig)
{
    build_snapshots(rig, AT_DATA * CLUSTER + 8, 8);
}

/* The snapshot table's cluster is data too. */
static void build_snapshot_table_on_data(struct rig *rig)
{
    build(rig, 3);
    shape_add_snapshot(rig, 16, AT_DATA + SHAPE_DATA);
    rig_set_l2(rig, 12, (AT_DATA + SHAPE_DATA) * CLUSTER | SHAPE_COPIED);
    sweep_watch(&rig->disk);
}

static void build_subclusters(struct rig *rig)
{
    build_ext(rig);
    set_ext(rig, 0, rig_data_off(rig, 0) | SHAPE_COPIED, UINT64_C(0xff000000ff));
    set_ext(rig, 1, rig_data_off(rig, 1) | SHAPE_COPIED | ZERO, 0xff);
    set_ext(rig, 2, (rig_data_off(rig, 2) + 512) | SHAPE_COPIED, 0xff);
    set_ext(rig, 3, 0, 0xff);
    set_ext(rig, 4, SHAPE_COMPRESSED | rig_data_off(rig, 2), 0xff);
    set_ext(rig, 5, SHAPE_COMPRESSED | rig_data_off(rig, 100), 0);
    set_ext(rig, 6, rig_data_off(rig, 100) | SHAPE_COPIED, 0xff);
    set_ext(rig, 7, (rig_data_off(rig, 1) + 512) | SHAPE_COPIED, 0);
    sweep_watch(&rig->disk);
}

static void build_data_entries(struct rig *rig)
{
    build_data_file(rig);
    rig_set_l2(rig, 1, CLUSTER);
    rig_set_l2(rig, 2, (2 * CLUSTER + 0x100) | SHAPE_COPIED);
    rig_set_l2(rig, 3, SHAPE_COMPRESSED | rig_data_off(rig, 2));
    rig_set_l2(rig, 4, 4 * CLUSTER | SHAPE_COPIED | 4);
    sweep_watch(&rig->disk);
    sweep_watch(&data);
}

static void build_bitmap_entry(struct rig *rig)
{
    build_bitmap(rig);
    put_be64(rig->disk.bytes + AT_BITMAP * CLUSTER, AT_BITS * CLUSTER | 1);
    sweep_watch(&rig->disk);
}

static void build_bitmap_good(struct rig *rig)
{
    build_bitmap(rig);
    shape_set_count(rig, AT_BITS, 0);
    shape_set_count(rig, AT_DATA, 2);
    sweep_watch(&rig->disk);
}

/* ---- work ------------------------------------------------------------------------------------ */

static bool go_on(void *context, uint64_t done, uint64_t total)
{
    (void)context;
    assert_in_range(done, 0, total);
    return !sweep_strikes();
}

static qc_status check(struct rig *rig, enum qc_check_fix fix)
{
    struct qc_check_result result;
    qc_status status = rig_open(rig);

    return status == QC_OK ? qc_check(&rig->image, fix, go_on, NULL, &result) : status;
}

static qc_status work_all(struct rig *rig)
{
    return check(rig, QC_FIX_ALL);
}

static qc_status work_leaks(struct rig *rig)
{
    return check(rig, QC_FIX_LEAKS);
}

#define BOTH(what, builder)                                                                        \
    {.name = what ", all",                                                                         \
     .build = builder,                                                                             \
     .work = work_all,                                                                             \
     .is_damaged = true,                                                                           \
     .any_cluster = ANY_CLUSTER},                                                                  \
    {                                                                                              \
        .name = what ", leaks", .build = builder, .work = work_leaks, .is_damaged = true,          \
        .any_cluster = ANY_CLUSTER                                                                 \
    }

static const struct sweep_case cases[] = {
    BOTH("many kinds, version 2", build_many_2),
    BOTH("many kinds", build_many_3),
    BOTH("many kinds, large clusters", build_large),
    BOTH("table on a structure", build_table_on_structure),
    BOTH("odd end", build_odd_end),
    BOTH("no block for some", build_leaks_without_block),
    BOTH("leaks and flags", build_leaks),
    BOTH("no block", build_no_root),
    BOTH("blocks in wrong places", build_bad_root),
    BOTH("no refcount table", build_no_table),
    BOTH("shared L2 tables", build_shared_l2),
    BOTH("shared L2 tables, large", build_shared_large),
    BOTH("no refcount table, many blocks", build_no_table_wide),
    BOTH("snapshot's L1 nowhere, version 2", build_snapshot_2),
    BOTH("snapshot's L1 longer", build_snapshot_longer),
    BOTH("snapshot's L1 on data", build_snapshot_on_data),
    BOTH("snapshot's L1 nowhere", build_snapshot_nowhere),
    BOTH("snapshot's L1 unaligned", build_snapshot_unaligned),
    BOTH("snapshot table on data", build_snapshot_table_on_data),
    BOTH("subclusters", build_subclusters),
    BOTH("data file", build_data_entries),
    BOTH("bad bitmap", build_bitmap_entry),
    BOTH("good bitmap", build_bitmap_good),
};

static void repairs_survive_failures(void **state)
{
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        sweep_run(*state, &cases[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(repairs_survive_failures),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
