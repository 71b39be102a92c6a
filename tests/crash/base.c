/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See base.h. Each base is a function that says what its image holds beyond header, counts and L1
 * table; what lies below (below.c) is built first, and shows wherever the image itself has nothing.
 */
#include "base.h"

#include <string.h>

#include "below.h"
#include "builder.h"

#define SPARE       12u /* clusters behind a full range */
#define VERSION_TOP 1u  /* of bytes in the image itself */

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
    oracle_keep(b->oracle, 'A');
    for (unsigned digit = digits_count; digit < GUEST_CLUSTERS; digit++)
        memcpy(b->oracle->snapshots[0].hashes[digit], b->oracle->below[digit],
               sizeof(b->oracle->below[digit]));
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

/* The snapshot has VM state behind the disk's end, in digit 7. */
static void build_vm_state(void *builder)
{
    struct builder *b = builder;
    uint64_t table_off = off_of(b, 8);

    build_snapshot(b);
    put_be(b->sim, table_off + 8, 4, 4);
    put_be(b->sim, table_off + 32, b->cluster_bytes, 4);
    put_be(b->sim, table_off + 40, b->cluster_bytes, 8);
    put_l1(b, 7, 3, 11, 0);
    put_entry(b, 11, 7, 12, 0);
    put_data(b, 7, 12);
    b->oracle->snapshots[0].has_vm_state = true;
    for (unsigned sector = 0; sector < b->cluster_bytes / SECTOR; sector++) {
        b->oracle->snapshots[0].hashes[7][sector] = b->oracle->values[7][sector].first;
        oracle_set(b->oracle, 7, sector, 0);
    }
}

/* As a cut in a change of snapshots may leave it, and worse. */
static void build_dirty(void *builder)
{
    struct builder *b = builder;

    build_snapshot(b);
    put_be(b->sim, 72, 1, 8);
    b->counts[AT_L2] = 1; /* and two refer to it */
    b->counts[6] = 0;
    b->counts[9] = 2; /* and COPIED is set */
    b->counts[10] = 3;
    b->counts[15] = 1; /* a leak */
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

/* ---- subclusters ---- */

static void put_poison_in(struct builder *b, uint32_t cluster, unsigned from, unsigned to)
{
    uint8_t poison[SECTOR];

    for (unsigned sector = from; sector < to; sector++) {
        sim_fill_poison(poison, off_of(b, cluster) + sector * SECTOR);
        sim_put(b->sim, off_of(b, cluster) + sector * SECTOR, poison, SECTOR);
    }
}

static unsigned sub_sectors(const struct builder *b)
{
    return b->cluster_bytes / SECTOR / SUBS_COUNT;
}

/* Subclusters [from, to) of a digit. */
static void put_subs(struct builder *b, unsigned digit, uint32_t cluster, unsigned from,
                     unsigned to)
{
    put_sectors(b, digit, off_of(b, cluster), from * sub_sectors(b), to * sub_sectors(b));
}

static void put_zero_subs(struct builder *b, unsigned digit, unsigned from, unsigned to)
{
    for (unsigned sector = from * sub_sectors(b); sector < to * sub_sectors(b); sector++)
        oracle_set(b->oracle, digit, sector, 0);
}

/*
 * Digit 0 has subclusters with bytes of their own, zeros and holes; all of 1 are its own; 2 has
 * zeros without a cluster.
 */
static void add_subclusters(struct builder *b, uint64_t flags)
{
    put_entry(b, AT_L2, 0, 5, flags);
    put_bits(b, AT_L2, 0, SUBS_OF(0, 8) | SUBS_OF(18, 32) | SUBS_ZERO_OF(SUBS_OF(8, 12)));
    put_poison_in(b, 5, 0, b->cluster_bytes / SECTOR);
    put_subs(b, 0, 5, 0, 8);
    put_subs(b, 0, 5, 18, 32);
    put_zero_subs(b, 0, 8, 12);
    put_entry(b, AT_L2, 1, 6, flags);
    put_bits(b, AT_L2, 1, SUBS_ALL);
    put_data(b, 1, 6);
    put_bits(b, AT_L2, 2, SUBS_ZERO_OF(SUBS_OF(4, 17)));
    put_zero_subs(b, 2, 4, 17);
}

static void build_extended(void *builder)
{
    struct builder *b = builder;

    put_l1(b, AT_L1, 0, AT_L2, ENTRY_COPIED);
    add_subclusters(b, ENTRY_COPIED);
    put_l1(b, AT_L1, 1, 8, ENTRY_COPIED);
    add_data(b, 8, 4, 9);
}

static void build_extended_snapshot(void *builder)
{
    struct builder *b = builder;

    put_l1(b, AT_L1, 0, AT_L2, 0);
    add_subclusters(b, 0);
    b->counts[5] = b->counts[6] = 2;
    add_snapshot(b, 7, 8, 3);
}

/* ---- data in a file of its own ---- */

static void build_data_file(void *builder)
{
    struct builder *b = builder;

    put_l1(b, AT_L1, 0, AT_L2, ENTRY_COPIED);
    add_data(b, AT_L2, 0, 1);
    put_entry(b, AT_L2, 1, 0, ENTRY_ZERO);
    if (!b->is_raw_data)
        put_entry(b, AT_L2, 3, 1, ENTRY_COPIED | ENTRY_ZERO);
    put_l1(b, AT_L1, 1, 5, ENTRY_COPIED);
    add_data(b, 5, 4, 1);
}

/* ---- the end of the guest in the middle of a cluster, with other bytes behind it ---- */

static void build_short(void *builder)
{
    struct builder *b = builder;

    build_half(b);
    put_l1(b, AT_L1, 2, 10, ENTRY_COPIED);
    put_entry(b, 10, 6, 11, ENTRY_COPIED);
    put_poison_in(b, 11, 0, b->cluster_bytes / SECTOR);
    put_sectors(b, 6, off_of(b, 11), 0, b->cluster_bytes / SECTOR / 2);
}

/* What every base has, and then what only some do; most are told of space that is not needed. */
#define BASE(name_, version_, order_, clusters_, build_, ...)                                      \
    {                                                                                              \
        .name = #name_, .version = (version_), .refcount_order = (order_),                         \
        .clusters = (clusters_), .build = (build_), __VA_ARGS__                                    \
    }
#define OVER(build_below_, count_) .build_below = (build_below_), .lowers_count = (count_)

const struct base bases[] = {
    BASE(empty, 3, 4, 24, build_empty, .has_trim = true),
    BASE(half, 3, 4, 24, build_half, .has_trim = true),
    BASE(snapshot, 3, 4, 26, build_snapshot, .has_trim = true),
    BASE(snapshot2, 2, 4, 26, build_snapshot, .has_trim = true),
    BASE(vmstate, 3, 4, 28, build_vm_state, .has_trim = true),
    BASE(dirty, 3, 4, 26, build_dirty, .has_trim = true, .is_dirty = true),
    BASE(zeroalloc, 3, 1, 24, build_zeroalloc, .has_trim = false),
    BASE(block, 3, 6, 0, build_block, .has_trim = true),
    BASE(reftable, 3, 6, 4096, build_reftable, .clusters_max = 4240, .has_trim = true,
         .is_512_only = true),
    BASE(version2, 2, 4, 24, build_half, .has_trim = false),
    BASE(growing, 3, 4, 10, build_half, .clusters_max = 32),
    BASE(tight, 3, 4, 12, build_half, .has_trim = true, .is_tight = true),
    BASE(autoclear, 3, 4, 24, build_autoclear, .has_trim = false),
    BASE(through, 3, 4, 24, build_half, .has_trim = true, .is_write_through = true),
    BASE(packed, 3, 4, 24, build_packed, .has_trim = true),
    BASE(packedsnap, 3, 4, 26, build_packed_snapshot, .has_trim = true),
    BASE(overlay, 3, 4, 24, build_overlay, .has_trim = true, OVER(build_raw_below, 1)),
    BASE(overlay2, 2, 4, 24, build_overlay, .has_trim = true, OVER(build_raw_below, 1)),
    BASE(overlaydeep, 3, 4, 24, build_overlay_deep, .has_trim = true, OVER(build_deep_below, 2)),
    BASE(extended, 3, 4, 24, build_extended, .has_trim = true, .is_extended = true),
    BASE(extoverlay, 3, 4, 24, build_extended, .has_trim = true, .is_extended = true,
         OVER(build_near_below, 1)),
    BASE(extsnap, 3, 4, 26, build_extended_snapshot, .has_trim = true, .is_extended = true),
    BASE(datafile, 3, 4, 16, build_data_file, .has_trim = true, .has_data_file = true),
    BASE(dataraw, 3, 4, 16, build_data_file, .has_trim = true, .has_data_file = true,
         .is_raw_data = true),
    BASE(short, 3, 4, 24, build_short, .has_trim = true, .is_short = true),
    BASE(shortover, 3, 4, 24, build_overlay, .is_short = true, .is_512_only = true,
         OVER(build_raw_below_long, 1)),
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
    if (base->is_extended)
        return unit_bytes == 4096 ? 14 : 15;
    if (unit_bytes == 4096)
        return 12;
    return base->is_512_only && !base->is_short ? 9 : 10;
}

uint64_t base_guest_off(const struct base *base, unsigned digit, unsigned cluster_bits)
{
    return digit_guest_off(digit, cluster_bits, base->is_extended);
}

/* The second disk, with poison wherever the image says nothing of it. */
static void add_data_file(struct builder *b)
{
    uint64_t stretch = digit_guest_off(4, b->cluster_bits, b->is_extended);
    uint64_t bytes_max = digit_guest_off(7, b->cluster_bits, b->is_extended) + b->cluster_bytes;
    uint64_t end = b->sim->total_bytes;
    uint8_t poison[SECTOR];

    sim_add_data(b->sim, b->guest_bytes, bytes_max, stretch, 4u * b->cluster_bytes);
    for (uint64_t off = end; off < b->sim->total_bytes && !b->is_raw_data; off += SECTOR) {
        sim_fill_poison(poison, off);
        sim_put(b->sim, off, poison, SECTOR);
    }
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
    b.is_extended = base->is_extended;
    b.has_data_file = base->has_data_file;
    b.is_raw_data = base->is_raw_data;
    b.guest_bytes = digit_guest_off(6, b.cluster_bits, b.is_extended) + b.cluster_bytes;
    if (base->is_short)
        b.guest_bytes -= b.cluster_bytes / SECTOR / 2 * SECTOR;
    b.clusters = base->clusters;
    if (b.clusters == 0)
        b.clusters = (b.cluster_bytes * 8u >> base->refcount_order) + SPARE;
    bytes_max = off_of(&b, base->clusters_max != 0 ? base->clusters_max : b.clusters);
    sim_init(sim, unit_bytes, off_of(&b, b.clusters), bytes_max, base->has_trim);
    if (base->has_data_file)
        add_data_file(&b);
    oracle_init(oracle, b.cluster_bytes / SECTOR, b.guest_bytes);
    oracle->is_raw_alike = base->is_raw_data;
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
