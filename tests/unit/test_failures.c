/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Disks that fail below every kind of change: writes into new refcount tables and L2 tables,
 * snapshots, growing, layers, data files. What must hold is sweep.h's.
 */
#include "shape.h"
#include "sweep.h"

#include "../../core/bytes.h"

#define GUEST_SECTORS 192u
#define PAGES_FEW     3u

static uint8_t buf[64u * 1024];

static qc_status put(struct rig *rig, uint64_t sector, unsigned count, uint8_t byte)
{
    memset(buf, byte, count * QC_SECTOR_BYTES);
    return qc_write(&rig->image, sector * QC_SECTOR_BYTES, buf, count * QC_SECTOR_BYTES);
}

static void sweep_both(struct rig *rig, const struct sweep_case *work)
{
    struct sweep_case small = *work;
    char name[64];

    sweep_run(rig, work);
    snprintf(name, sizeof(name), "%s, small", work->name);
    small.name = name;
    small.pages_count = PAGES_FEW;
    sweep_run(rig, &small);
}

/* ---- snapshots ------------------------------------------------------------------------------- */

static void build_version(struct rig *rig, uint32_t version)
{
    rig_build(rig, version, 9, GUEST_SECTORS * QC_SECTOR_BYTES, SHAPE_DATA);
    rig_map(rig, SHAPE_DATA);
}

static void build_2(struct rig *rig)
{
    build_version(rig, 2);
    sweep_watch(&rig->disk);
}

static void build_3(struct rig *rig)
{
    build_version(rig, 3);
    sweep_watch(&rig->disk);
}

/* The only refcount block has nothing free, so that a run needs another. */
static void build_full(struct rig *rig)
{
    build_version(rig, 3);
    for (unsigned i = AT_DATA + SHAPE_DATA; i < 256; i++)
        image_set_count(&rig->disk, i * rig->cluster_bytes, 1);
    rig->disk.disk.size_bytes = 256 * rig->cluster_bytes;
    sweep_watch(&rig->disk);
}

static void build_fixed(struct rig *rig)
{
    build_version(rig, 3);
    rig_fix_size(rig, 256 * rig->cluster_bytes);
    sweep_watch(&rig->disk);
}

static qc_status create_some(struct rig *rig)
{
    qc_status status = sweep_open(rig);

    if (status == QC_OK)
        status = put(rig, 1, 3, 0x11);
    sweep_note(rig);
    if (status == QC_OK)
        status = qc_snapshot_create(&rig->image, "one", 1, 2);
    if (status == QC_OK)
        status = put(rig, 2, 100, 0x22);
    sweep_note(rig);
    if (status == QC_OK)
        status = qc_snapshot_create(&rig->image, "two", 1, 2);
    return status;
}

static qc_status work_snapshots(struct rig *rig)
{
    qc_status status = create_some(rig);

    if (status == QC_OK)
        status = put(rig, 5, 3, 0x33);
    sweep_note(rig);
    if (status == QC_OK)
        status = qc_snapshot_apply(&rig->image, "one");
    sweep_note(rig);
    if (status == QC_OK)
        status = qc_snapshot_delete(&rig->image, "one");
    if (status == QC_OK)
        status = qc_snapshot_delete(&rig->image, "two");
    return status == QC_OK ? qc_settle(&rig->image) : status;
}

static void snapshots_survive_failures(void **state)
{
    static const struct sweep_case cases[] = {
        /* Without a mark, flags that were taken off stay off until the next repair. */
        {.name = "snapshots, version 2",
         .build = build_2,
         .work = work_snapshots,
         .is_damaged = true},
        {.name = "snapshots, version 3", .build = build_3, .work = work_snapshots},
        {.name = "snapshots, full", .build = build_full, .work = work_snapshots},
        {.name = "snapshots, fixed size", .build = build_fixed, .work = work_snapshots},
    };

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        sweep_both(*state, &cases[i]);
}

/* ---- a refcount table that grows --------------------------------------------------------------
 */

#define WIDE_ORDER   6u /* counts of 64 bits: a block counts 64 clusters */
#define WIDE_REACH   64u
#define TABLE_BLOCKS 64u /* entries of a refcount table of one cluster */

/* All that the refcount table reaches is in use; the blocks lie behind the data. */
static void build_counts(struct rig *rig, unsigned blocks)
{
    uint64_t cluster = 512;
    uint8_t *bytes = rig->disk.bytes;

    put_be32(bytes + 96, WIDE_ORDER);
    rig->disk.disk.size_bytes = (uint64_t)blocks * WIDE_REACH * cluster;
    memset(bytes + AT_REFBLOCK * cluster, 0, cluster);
    for (unsigned block = 0; block < blocks; block++) {
        unsigned at = block == 0 ? AT_REFBLOCK : AT_DATA + SHAPE_DATA + block;

        put_be64(bytes + AT_REFTABLE * cluster + block * 8u, at * cluster);
        for (unsigned i = 0; i < WIDE_REACH; i++)
            put_be64(bytes + at * cluster + i * 8u, 1);
    }
}

static void build_wide(struct rig *rig, unsigned blocks)
{
    build_version(rig, 3);
    build_counts(rig, blocks);
    sweep_watch(&rig->disk);
}

static void build_table_full(struct rig *rig)
{
    build_wide(rig, TABLE_BLOCKS);
}

static void build_block_full(struct rig *rig)
{
    build_wide(rig, 2);
}

static qc_status work_growing_table(struct rig *rig)
{
    qc_status status = sweep_open(rig);

    if (status == QC_OK)
        status = put(rig, 20, 100, 0x44);
    return status == QC_OK ? qc_settle(&rig->image) : status;
}

static qc_status work_growing_run(struct rig *rig)
{
    qc_status status = sweep_open(rig);

    if (status == QC_OK)
        status = qc_snapshot_create(&rig->image, "one", 1, 2);
    if (status == QC_OK)
        status = put(rig, 0, 100, 0x44);
    return status == QC_OK ? qc_settle(&rig->image) : status;
}

/* Some clusters are free before the last that a block counts, or that the table reaches. */
static void build_nearly_full(struct rig *rig, unsigned blocks)
{
    unsigned at = AT_DATA + SHAPE_DATA + blocks - 1;

    build_version(rig, 3);
    build_counts(rig, blocks);
    for (unsigned i = WIDE_REACH - 5; i < WIDE_REACH; i++)
        put_be64(rig->disk.bytes + at * rig->cluster_bytes + i * 8u, 0);
    sweep_watch(&rig->disk);
}

static void build_table_nearly_full(struct rig *rig)
{
    build_nearly_full(rig, TABLE_BLOCKS);
}

static void build_block_nearly_full(struct rig *rig)
{
    build_nearly_full(rig, 2);
}

/* An L1 table that needs more clusters than two blocks count. */
static qc_status work_long_l1(struct rig *rig)
{
    qc_status status = sweep_open(rig);

    if (status == QC_OK)
        status = qc_resize(&rig->image, UINT64_C(200) * 64 * 64 * QC_SECTOR_BYTES);
    return status == QC_OK ? qc_settle(&rig->image) : status;
}

static qc_status work_growing_l1(struct rig *rig)
{
    qc_status status = sweep_open(rig);

    if (status == QC_OK)
        status = qc_resize(&rig->image, 80000 * QC_SECTOR_BYTES);
    if (status == QC_OK)
        status = put(rig, 70000, 10, 0x55);
    return status == QC_OK ? qc_settle(&rig->image) : status;
}

static void growing_tables_survive_failures(void **state)
{
    static const struct sweep_case cases[] = {
        {.name = "table full, write", .build = build_table_full, .work = work_growing_table},
        {.name = "table full, snapshot", .build = build_table_full, .work = work_growing_run},
        {.name = "table full, L1", .build = build_table_full, .work = work_growing_l1},
        {.name = "block full, write", .build = build_block_full, .work = work_growing_table},
        {.name = "block full, snapshot", .build = build_block_full, .work = work_growing_run},
        {.name = "block full, L1", .build = build_block_full, .work = work_growing_l1},
        {.name = "block full, long L1", .build = build_block_full, .work = work_long_l1},
        {.name = "table nearly full, L1", .build = build_table_nearly_full, .work = work_long_l1},
        {.name = "block nearly full, L1", .build = build_block_nearly_full, .work = work_long_l1},
    };

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        /* A full table is a large image. */
        if (strncmp(cases[i].name, "table", 5) == 0)
            sweep_run(*state, &cases[i]);
        else
            sweep_both(*state, &cases[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(snapshots_survive_failures),
        RIG_TEST(growing_tables_survive_failures),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
