/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Disks that fail below writes, zeroing and discards on each kind of image: over layers, with
 * subclusters, compressed clusters, an external data file. Each also with a pool of hardly any
 * pages, where every lookup reads and the epoch is soon full. What must hold is sweep.h's.
 */
#include "shape.h"
#include "sweep.h"

#include "../../core/bytes.h"
#include "../../core/map.h"
#include "../sim/deflate.h"

#define BITS      12u
#define CLUSTER   (1u << BITS)
#define GUEST     (24u * CLUSTER)
#define EXT_BITS  14u
#define PAGES_FEW 2u

static struct mem_disk below, data;
static struct mem_layers layers;
static struct qc_unpacker unpacker;
static uint8_t buf[4u << EXT_BITS];

static qc_status put(struct rig *rig, uint64_t guest_off, unsigned len, uint8_t byte)
{
    memset(buf, byte, len);
    return qc_write(&rig->image, guest_off, buf, len);
}

/* ---- images ---------------------------------------------------------------------------------- */

static void build_plain(struct rig *rig)
{
    rig_build(rig, 3, BITS, GUEST, SHAPE_DATA);
    rig_map(rig, SHAPE_DATA);
    rig_set_l2(rig, 3, rig_data_off(rig, 3) | SHAPE_COPIED | QC_ENTRY_ZERO);
    rig_set_l2(rig, 4, rig_data_off(rig, 4) | SHAPE_COPIED | QC_ENTRY_ZERO);
}

static void build_version_3(struct rig *rig)
{
    build_plain(rig);
    put_be64(rig->disk.bytes + 88, 4); /* an autoclear bit of nobody known */
    sweep_watch(&rig->disk);
}

/* Cut within its last cluster, which nothing names. */
static void build_odd_end(struct rig *rig)
{
    build_plain(rig);
    rig_set_l2(rig, 7, 0);
    shape_set_count(rig, AT_DATA + 7, 0);
    rig->disk.disk.size_bytes -= 512;
    sweep_watch(&rig->disk);
}

/* Tables and data that a snapshot shares. */
static void build_shared(struct rig *rig)
{
    build_plain(rig);
    rig_set_l2(rig, 3, 0);
    rig_set_l2(rig, 4, 0);
    shape_add_snapshot(rig, 16, AT_DATA + SHAPE_DATA);
    put_be64(rig->disk.bytes + (AT_DATA + SHAPE_DATA) * CLUSTER + 48, GUEST);
    sweep_watch(&rig->disk);
}

static void put_below(struct rig *rig, uint64_t bytes)
{
    image_set_below(&rig->disk, "base", "raw");
    layers_init(&layers);
    memset(&below, 0, sizeof(below));
    image_build(&below, 3, BITS, GUEST, 100); /* for a disk; its bytes are the guest's */
    below.disk.readonly = true;
    below.disk.size_bytes = bytes;
    memset(below.bytes, 0x77, bytes);
    layers.disks[1] = &below;
    rig->options.bases = &layers.bases;
}

static void build_overlay_of(struct rig *rig, uint32_t version)
{
    rig_build(rig, version, BITS, GUEST, 2);
    rig_set_l2(rig, 0, rig_data_off(rig, 0) | SHAPE_COPIED);
    rig_set_l2(rig, 6, rig_data_off(rig, 1) | SHAPE_COPIED);
    put_below(rig, GUEST - CLUSTER);
    sweep_watch(&rig->disk);
    sweep_watch(&below);
}

/* Below it another image, whose tables may fail as well. */
static void build_overlay_image(struct rig *rig)
{
    rig_build(rig, 3, BITS, GUEST, 2);
    rig_set_l2(rig, 0, rig_data_off(rig, 0) | SHAPE_COPIED);
    put_below(rig, GUEST);
    image_set_below(&rig->disk, "base", "qcow2");
    image_build(&below, 3, BITS, GUEST, 8);
    for (unsigned i = 0; i < 8; i++)
        image_set_l2(&below, i, (AT_DATA + i) * CLUSTER | (i % 3 == 0 ? QC_ENTRY_ZERO : 0));
    sweep_watch(&rig->disk);
    sweep_watch(&below);
}

static void build_overlay(struct rig *rig)
{
    build_overlay_of(rig, 3);
}

static void build_overlay_2(struct rig *rig)
{
    build_overlay_of(rig, 2);
}

static void set_ext(struct rig *rig, unsigned index, uint64_t word, uint64_t bits)
{
    put_be64(shape_table(rig, AT_L2) + 16 * index, word);
    put_be64(shape_table(rig, AT_L2) + 16 * index + 8, bits);
}

static void build_ext(struct rig *rig)
{
    rig_build(rig, 3, EXT_BITS, 12u << EXT_BITS, 3);
    put_be64(rig->disk.bytes + 72, QC_INCOMPATIBLE_EXTENDED_L2);
    set_ext(rig, 0, rig_data_off(rig, 0) | SHAPE_COPIED, UINT64_C(0xc00000003c));
    set_ext(rig, 1, rig_data_off(rig, 1) | SHAPE_COPIED, 0xffffffff);
    set_ext(rig, 2, rig_data_off(rig, 2) | SHAPE_COPIED, 0);
    set_ext(rig, 3, 0, UINT64_C(0xffffffff00000000));
}

static void build_subclusters(struct rig *rig)
{
    build_ext(rig);
    sweep_watch(&rig->disk);
}

static void build_subclusters_over(struct rig *rig)
{
    build_ext(rig);
    put_below(rig, 12u << EXT_BITS);
    sweep_watch(&rig->disk);
    sweep_watch(&below);
}

/* Guest clusters packed one behind the other. */
static void pack(struct rig *rig, uint64_t cluster_bytes, bool is_ext)
{
    uint64_t at = rig_data_off(rig, 0) + 50;
    unsigned bits = is_ext ? EXT_BITS : BITS;

    image_set_count(&rig->disk, rig_data_off(rig, 0), 0);
    for (unsigned i = 0; i < 4; i++) {
        size_t len =
            deflate_repeat(rig->disk.bytes + at, 0x0101010101010101 * (i + 1), cluster_bytes, true);
        uint64_t more = (at + len - 1) / 512 - at / 512;
        uint64_t word = SHAPE_COMPRESSED | more << (62 - (bits - 8)) | at;

        if (is_ext)
            set_ext(rig, i, word, 0);
        else
            rig_set_l2(rig, i, word);
        for (uint64_t off = at / cluster_bytes; off <= (at + len - 1) / cluster_bytes; off++)
            image_set_count(&rig->disk, off * cluster_bytes,
                            image_count(&rig->disk, off * cluster_bytes) + 1);
        at += len;
    }
    rig->options.unpacker = &unpacker;
}

static void build_packed(struct rig *rig)
{
    rig_build(rig, 3, BITS, GUEST, 2);
    image_set_count(&rig->disk, rig_data_off(rig, 1), 0);
    pack(rig, CLUSTER, false);
    sweep_watch(&rig->disk);
}

static void build_packed_ext(struct rig *rig)
{
    rig_build(rig, 3, EXT_BITS, 12u << EXT_BITS, 2);
    put_be64(rig->disk.bytes + 72, QC_INCOMPATIBLE_EXTENDED_L2);
    image_set_count(&rig->disk, rig_data_off(rig, 1), 0);
    pack(rig, UINT64_C(1) << EXT_BITS, true);
    sweep_watch(&rig->disk);
}

static void build_data_of(struct rig *rig, bool is_raw)
{
    rig_build(rig, 3, BITS, GUEST, 0);
    rig_set_data_file(rig, &data, GUEST - 2u * CLUSTER); /* grows to the disk's size */
    put_be64(rig->disk.bytes + 88, is_raw ? QC_AUTOCLEAR_RAW_DATA : 0);
    for (unsigned i = 0; i < 4; i++)
        rig_set_l2(rig, i, i * CLUSTER | SHAPE_COPIED);
    memset(data.bytes, 0, GUEST);
    memset(data.bytes, 0x66, 4u * CLUSTER);
    sweep_watch(&rig->disk);
    sweep_watch(&data);
}

static void build_data(struct rig *rig)
{
    build_data_of(rig, false);
}

static void build_raw_data(struct rig *rig)
{
    build_data_of(rig, true);
}

/* ---- work ------------------------------------------------------------------------------------ */

/* What is asked for, in order, in clusters' parts; the kinds of calls are letters. */
struct step {
    char call; /* w: write, z: zero, k: zero and keep, d: discard, f: flush, n: note */
    unsigned cluster, off, len; /* off and len in eighths of a cluster */
};

static qc_status take_step(struct rig *rig, const struct step *step, uint8_t byte)
{
    uint64_t guest_off = step->cluster * rig->cluster_bytes + step->off * rig->cluster_bytes / 8;
    unsigned len = (unsigned)(step->len * rig->cluster_bytes / 8);

    switch (step->call) {
    case 'w':
        return put(rig, guest_off, len, byte);
    case 'z':
        return qc_zero(&rig->image, guest_off, len, true);
    case 'k':
        return qc_zero(&rig->image, guest_off, len, false);
    case 'd':
        return qc_discard(&rig->image, guest_off, len);
    case 'f':
        return qc_flush(&rig->image);
    default:
        sweep_note(rig);
        return QC_OK;
    }
}

static qc_status work(struct rig *rig)
{
    static const struct step steps[] = {
        {'w', 0, 2, 1},  {'w', 0, 7, 4}, {'w', 3, 3, 2},  {'w', 5, 2, 1},  {'n', 0, 0, 0},
        {'w', 9, 3, 1},  {'w', 9, 6, 1}, {'w', 9, 1, 1},  {'w', 10, 1, 6}, {'z', 2, 1, 5},
        {'n', 0, 0, 0},  {'k', 4, 0, 8}, {'z', 5, 0, 16}, {'d', 6, 0, 8},  {'n', 0, 0, 0},
        {'w', 10, 7, 9}, {'f', 0, 0, 0}, {'w', 7, 0, 8},  {'w', 4, 4, 2},  {'k', 1, 3, 9},
        {'n', 0, 0, 0},  {'w', 2, 3, 4}, {'d', 8, 0, 24}, {'w', 9, 0, 24}, {'n', 0, 0, 0},
        {'z', 10, 2, 3}, {'f', 0, 0, 0},
    };
    qc_status status = sweep_open(rig);

    for (unsigned i = 0; status == QC_OK && i < sizeof(steps) / sizeof(steps[0]); i++)
        status = take_step(rig, &steps[i], (uint8_t)(0x80 + i));
    return status == QC_OK ? qc_settle(&rig->image) : status;
}

static qc_status work_through(struct rig *rig)
{
    qc_status status;

    rig->options.write_through = true;
    status = work(rig);
    rig->options.write_through = false;
    return status;
}

static const struct sweep_case cases[] = {
    {.name = "version 3", .build = build_version_3, .work = work},
    {.name = "write-through", .build = build_version_3, .work = work_through},
    {.name = "odd end", .build = build_odd_end, .work = work},
    {.name = "shared", .build = build_shared, .work = work},
    {.name = "overlay of an image", .build = build_overlay_image, .work = work},
    {.name = "overlay", .build = build_overlay, .work = work},
    {.name = "overlay, version 2", .build = build_overlay_2, .work = work},
    {.name = "subclusters", .build = build_subclusters, .work = work},
    {.name = "subclusters over a layer", .build = build_subclusters_over, .work = work},
    {.name = "packed", .build = build_packed, .work = work},
    {.name = "packed, subclusters", .build = build_packed_ext, .work = work},
    {.name = "data file", .build = build_data, .work = work},
    {.name = "raw data file", .build = build_raw_data, .work = work},
};

/* With a pool of so many pages; 0: of those that the rig has. */
static void sweep_all(struct rig *rig, unsigned pages_count)
{
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct sweep_case sized = cases[i];

        sized.pages_count = pages_count;
        sweep_run(rig, &sized);
    }
}

static void writes_survive_failures(void **state)
{
    sweep_all(*state, 0);
}

static void writes_with_hardly_any_memory_survive_failures(void **state)
{
    sweep_all(*state, PAGES_FEW);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(writes_survive_failures),
        RIG_TEST(writes_with_hardly_any_memory_survive_failures),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
