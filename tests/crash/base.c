/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See base.h. Each base is a function that says what its image holds beyond header, counts and L1
 * table; what lies below is built first, and shows wherever the image itself has nothing.
 */
#include "base.h"

#include <string.h>

#include "builder.h"

#define SPARE        12u /* clusters behind a full range */
#define VERSION_TOP  1u  /* of bytes in the image itself, and in the two layers below */
#define VERSION_MID  0x8000u
#define VERSION_DEEP 0x9000u

struct sim_disk lowers[LOWERS_MAX];

/* ---- what the bases hold beyond header, refcounts and L1 ---- */

static void build_empty(void *builder)
{
    (void)builder;
}

static void build_half(void *builder)
{
    struct builder *b = builder;

    put_l1(b, AT_L1, 0, AT_L2, ENTRY_COPIED);
    add_data(b, AT_L2, 0, 5);
    add_data(b, AT_L2, 1, 7);
    put_l1(b, AT_L1, 1, 8, ENTRY_COPIED);
    add_data(b, 8, 4, 9);
}

static void build_zeroalloc(void *builder)
{
    struct builder *b = builder;

    put_l1(b, AT_L1, 0, AT_L2, ENTRY_COPIED);
    add_data(b, AT_L2, 0, 5);
    put_entry(b, AT_L2, 1, 0, ENTRY_ZERO);
    put_entry(b, AT_L2, 2, 6, ENTRY_COPIED | ENTRY_ZERO);
    b->is_used[6] = false; /* poison in what is kept */
}

/* A snapshot that shares the first L2 table and what it names. */
static void add_snapshot(struct builder *b, uint32_t l1, uint32_t table, unsigned digits_count)
{
    uint64_t table_off = off_of(b, table);

    use(b, l1);
    put_l1(b, l1, 0, AT_L2, 0);
    use(b, table); /* one entry, name and id of one byte */
    put_be(b->sim, table_off, off_of(b, l1), 8);
    put_be(b->sim, table_off + 8, 3, 4);
    put_be(b->sim, table_off + 12, 1, 2);
    put_be(b->sim, table_off + 14, 1, 2);
    put_be(b->sim, table_off + 36, 16, 4);
    put_be(b->sim, table_off + 48, b->guest_bytes, 8);
    put_be(b->sim, table_off + 56, 0x3141, 2);
    put_be(b->sim, 60, 1, 4);
    put_be(b->sim, 64, table_off, 8);
    b->oracle->has_snapshot = true;
    for (unsigned digit = 0; digit < GUEST_CLUSTERS; digit++) {
        for (unsigned sector = 0; sector < CLUSTER_SECTORS_MAX; sector++)
            b->oracle->snapshot[digit][sector] = digit < digits_count
                                                     ? b->oracle->values[digit][sector].hashes[0]
                                                     : b->oracle->below[digit][sector];
    }
}

static void build_snapshot(void *builder)
{
    struct builder *b = builder;

    put_l1(b, AT_L1, 0, AT_L2, 0);
    put_entry(b, AT_L2, 0, 5, 0);
    put_entry(b, AT_L2, 1, 6, 0);
    put_data(b, 0, 5);
    put_data(b, 1, 6);
    b->counts[5] = b->counts[6] = 2;
    add_snapshot(b, 7, 8, 2);
    put_l1(b, AT_L1, 1, 9, ENTRY_COPIED);
    add_data(b, 9, 4, 10);
}

/* All that the first refcount block counts is taken, but for its last cluster. */
static void build_block(void *builder)
{
    struct builder *b = builder;

    build_half(b);
    for (uint32_t cluster = AT_REST; cluster + SPARE + 1 < b->clusters; cluster++) {
        if (b->counts[cluster] == 0)
            b->counts[cluster] = 1;
    }
}

/* The refcount table is full: 64 blocks, and two free clusters among all they count. */
static void build_reftable(void *builder)
{
    struct builder *b = builder;

    build_half(b);
    for (uint32_t i = 1; i < 64; i++) {
        put_be(b->sim, off_of(b, AT_REFTABLE) + i * 8, off_of(b, 20 + i), 8);
        use(b, 20 + i);
    }
    for (uint32_t cluster = AT_REST; cluster < b->clusters; cluster++) {
        if (b->counts[cluster] == 0 && cluster != 11 && cluster != 12)
            b->counts[cluster] = 1;
    }
}

static void build_autoclear(void *builder)
{
    struct builder *b = builder;

    build_half(b);
    put_be(b->sim, 88, 0x81, 8);
}

/*
 * Three compressed clusters: two begin in host cluster 5, in the middle of its sectors, and the
 * second of them goes on in host cluster 6; the third is alone in host cluster 7, and its entry,
 * but for bit 62, is that of a cluster which is kept and reads as zeros.
 */
static void add_three_packed(struct builder *b)
{
    uint64_t end = add_packed(b, AT_L2, 0, off_of(b, 5) + 100);

    (void)add_packed(b, AT_L2, 1, off_of(b, 6) - (end - off_of(b, 5)) / 2);
    add_packed(b, AT_L2, 2, off_of(b, 7) + 1);
}

static void build_packed(void *builder)
{
    struct builder *b = builder;

    put_l1(b, AT_L1, 0, AT_L2, ENTRY_COPIED);
    add_three_packed(b);
    put_l1(b, AT_L1, 1, 8, ENTRY_COPIED);
    add_data(b, 8, 4, 9);
}

static void build_packed_snapshot(void *builder)
{
    struct builder *b = builder;

    put_l1(b, AT_L1, 0, AT_L2, 0);
    add_three_packed(b);
    for (uint32_t cluster = 5; cluster <= 7; cluster++)
        b->counts[cluster] *= 2;
    add_snapshot(b, 8, 9, 3);
}

/* Over a raw layer: a hole over data, data over data, and zeros over data where they can be said.
 */
static void build_overlay(void *builder)
{
    struct builder *b = builder;

    put_l1(b, AT_L1, 0, AT_L2, ENTRY_COPIED);
    add_data(b, AT_L2, 1, 5);
    if (b->version < 3)
        return;
    put_entry(b, AT_L2, 2, 0, ENTRY_ZERO);
    for (unsigned sector = 0; sector < b->cluster_bytes / SECTOR; sector++)
        oracle_set(b->oracle, 2, sector, 0);
}

static void build_overlay_deep(void *builder)
{
    struct builder *b = builder;

    put_l1(b, AT_L1, 0, AT_L2, ENTRY_COPIED);
    add_packed(b, AT_L2, 2, off_of(b, 5) + 100);
}

/* ---- the layers below ---- */

static struct builder below; /* too large for a frame */

static void show_below(struct oracle *oracle, unsigned digit, unsigned from, unsigned to,
                       unsigned version)
{
    uint8_t bytes[SECTOR];

    for (unsigned sector = from; sector < to; sector++)
        oracle->below[digit][sector] = oracle_fill(bytes, digit, sector, version);
}

static void start_below(struct sim_disk *sim, unsigned cluster_bits, uint64_t bytes,
                        uint16_t version)
{
    memset(&below, 0, sizeof(below));
    below.sim = sim;
    below.cluster_bits = cluster_bits;
    below.cluster_bytes = 1u << cluster_bits;
    below.data_version = version;
    sim_init(sim, SECTOR, bytes, bytes, false);
}

/* It ends in the middle of digit 5; digit 3 begins with zeros, and 4 is nothing else. */
static void build_raw_below(unsigned cluster_bits, struct oracle *oracle)
{
    unsigned sectors = (1u << cluster_bits) / SECTOR;
    uint64_t bytes = base_guest_off(5, cluster_bits) + sectors / 2 * SECTOR;
    static const uint8_t zeros[SECTOR];

    start_below(&lowers[0], cluster_bits, bytes, VERSION_MID);
    put_poison(&below);
    for (unsigned digit = 0; digit <= 5; digit++) {
        unsigned from = digit == 3 ? sectors / 2 : digit == 4 ? sectors : 0;
        unsigned to = digit == 5 ? sectors / 2 : sectors;

        for (unsigned sector = 0; sector < from; sector++)
            sim_put(&lowers[0], base_guest_off(digit, cluster_bits) + sector * SECTOR, zeros,
                    SECTOR);
        put_sectors(&below, digit, base_guest_off(digit, cluster_bits), from, to);
        show_below(oracle, digit, from, to, VERSION_MID);
    }
    lowers[0].disk.readonly = true;
}

/*
 * A qcow2 layer with compressed clusters that ends in the middle of digit 5, over a raw one that
 * goes on behind that end and holds other bytes everywhere.
 */
static void build_deep_below(unsigned cluster_bits, struct oracle *oracle)
{
    unsigned sectors = (1u << cluster_bits) / SECTOR;
    uint64_t end = base_guest_off(5, cluster_bits) + sectors * SECTOR;

    start_below(&lowers[1], cluster_bits, end, VERSION_DEEP);
    put_poison(&below);
    for (unsigned digit = 0; digit <= 5; digit++)
        put_sectors(&below, digit, base_guest_off(digit, cluster_bits), 0, sectors);
    lowers[1].disk.readonly = true;

    start_below(&lowers[0], cluster_bits, UINT64_C(16) << cluster_bits, VERSION_MID);
    below.clusters = 16;
    below.version = 3;
    below.refcount_order = 4;
    below.below = "raw";
    below.guest_bytes = base_guest_off(5, cluster_bits) + sectors / 2 * SECTOR;
    put_header(&below);
    put_l1(&below, AT_L1, 0, AT_L2, ENTRY_COPIED);
    end = add_packed(&below, AT_L2, 0, off_of(&below, 6) - 50);
    add_packed(&below, AT_L2, 1, end + 7);
    add_data(&below, AT_L2, 2, 7);
    put_l1(&below, AT_L1, 1, 8, ENTRY_COPIED);
    put_entry(&below, 8, 4, 0, ENTRY_ZERO);
    add_data(&below, 8, 5, 9);
    put_counts(&below);
    put_poison(&below);
    lowers[0].disk.readonly = true;
    for (unsigned sector = 0; sector < sectors; sector++) {
        for (unsigned digit = 0; digit <= 1; digit++)
            oracle->below[digit][sector] = oracle_packed_hash(digit, sector, VERSION_MID);
    }
    show_below(oracle, 2, 0, sectors, VERSION_MID);
    show_below(oracle, 3, 0, sectors, VERSION_DEEP);
    show_below(oracle, 5, 0, sectors / 2, VERSION_MID);
}

const struct base bases[] = {
    {"empty", 3, 4, 24, 0, true, false, false, false, build_empty, NULL, 0},
    {"half", 3, 4, 24, 0, true, false, false, false, build_half, NULL, 0},
    {"snapshot", 3, 4, 26, 0, true, false, false, false, build_snapshot, NULL, 0},
    {"zeroalloc", 3, 1, 24, 0, false, false, false, false, build_zeroalloc, NULL, 0},
    {"block", 3, 6, 0, 0, true, false, false, false, build_block, NULL, 0},
    {"reftable", 3, 6, 4096, 4240, true, false, true, false, build_reftable, NULL, 0},
    {"version2", 2, 4, 24, 0, false, false, false, false, build_half, NULL, 0},
    {"growing", 3, 4, 10, 32, false, false, false, false, build_half, NULL, 0},
    {"tight", 3, 4, 12, 0, true, true, false, false, build_half, NULL, 0},
    {"autoclear", 3, 4, 24, 0, false, false, false, false, build_autoclear, NULL, 0},
    {"through", 3, 4, 24, 0, true, false, false, true, build_half, NULL, 0},
    {"packed", 3, 4, 24, 0, true, false, false, false, build_packed, NULL, 0},
    {"packedsnap", 3, 4, 26, 0, true, false, false, false, build_packed_snapshot, NULL, 0},
    {"overlay", 3, 4, 24, 0, true, false, false, false, build_overlay, build_raw_below, 1},
    {"overlay2", 2, 4, 24, 0, true, false, false, false, build_overlay, build_raw_below, 1},
    {"overlaydeep", 3, 4, 24, 0, true, false, false, false, build_overlay_deep, build_deep_below,
     2},
};
const unsigned bases_count = sizeof(bases) / sizeof(bases[0]);

const struct base *base_find(const char *name)
{
    for (unsigned i = 0; i < bases_count; i++) {
        if (strcmp(bases[i].name, name) == 0)
            return &bases[i];
    }
    return NULL;
}

unsigned base_cluster_bits(const struct base *base, uint32_t unit_bytes)
{
    if (unit_bytes == 4096)
        return 12;
    return base->is_512_only ? 9 : 10;
}

void base_build(const struct base *base, uint32_t unit_bytes, struct sim_disk *sim,
                struct oracle *oracle)
{
    static struct builder b; /* too large for a frame */
    uint64_t bytes_max;

    memset(&b, 0, sizeof(b));
    b.sim = sim;
    b.oracle = oracle;
    b.version = base->version;
    b.refcount_order = base->refcount_order;
    b.data_version = VERSION_TOP;
    b.cluster_bits = base_cluster_bits(base, unit_bytes);
    b.cluster_bytes = 1u << b.cluster_bits;
    b.guest_bytes = base_guest_off(6, b.cluster_bits) + b.cluster_bytes;
    b.clusters = base->clusters;
    if (b.clusters == 0)
        b.clusters = (b.cluster_bytes * 8u >> base->refcount_order) + SPARE;
    bytes_max = off_of(&b, base->clusters_max != 0 ? base->clusters_max : b.clusters);
    sim_init(sim, unit_bytes, off_of(&b, b.clusters), bytes_max, base->has_trim);
    oracle_init(oracle);
    if (base->build_below != NULL) {
        base->build_below(b.cluster_bits, oracle);
        oracle_start_from_below(oracle);
        b.below = base->lowers_count > 1 ? "qcow2" : "raw";
    }
    put_header(&b);
    base->build(&b);
    put_counts(&b);
    put_poison(&b);
}
