/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See base.h. A builder keeps the counts as it adds references, and writes tables at the end.
 */
#include "base.h"

#include <string.h>

#define CLUSTERS_MAX 4608u
#define COPIED       (UINT64_C(1) << 63)
#define ZERO         1u
#define SPARE        12u /* clusters behind a full range */

enum { AT_HEADER, AT_REFTABLE, AT_BLOCK, AT_L1, AT_L2, AT_REST };

struct builder {
    struct sim_disk *sim;
    struct oracle *oracle;
    const struct base *base;
    unsigned cluster_bits;
    uint32_t cluster_bytes;
    uint32_t clusters;
    uint16_t counts[CLUSTERS_MAX];
    bool is_used[CLUSTERS_MAX]; /* holds bytes of its own: no poison */
};

static void put_be(struct sim_disk *sim, uint64_t host_off, uint64_t value, unsigned bytes_count)
{
    uint8_t bytes[8];

    for (unsigned i = 0; i < bytes_count; i++)
        bytes[i] = (uint8_t)(value >> (8 * (bytes_count - 1 - i)));
    sim_put(sim, host_off, bytes, bytes_count);
}

static uint64_t off_of(const struct builder *b, uint32_t cluster)
{
    return (uint64_t)cluster << b->cluster_bits;
}

static void use(struct builder *b, uint32_t cluster)
{
    b->is_used[cluster] = true;
    b->counts[cluster]++;
}

static void put_l1(struct builder *b, uint32_t l1, unsigned index, uint32_t l2, uint64_t flags)
{
    put_be(b->sim, off_of(b, l1) + index * 8, off_of(b, l2) | flags, 8);
    use(b, l2);
}

static unsigned l2_index(unsigned digit)
{
    return digit < 4 ? digit : digit < 6 ? digit - 4 : 0;
}

static void put_entry(struct builder *b, uint32_t l2, unsigned digit, uint32_t cluster,
                      uint64_t flags)
{
    put_be(b->sim, off_of(b, l2) + l2_index(digit) * 8, off_of(b, cluster) | flags, 8);
    if (cluster != 0)
        use(b, cluster);
}

static void put_data(struct builder *b, unsigned digit, uint32_t cluster)
{
    uint8_t bytes[SECTOR];

    for (unsigned sector = 0; sector < b->cluster_bytes / SECTOR; sector++) {
        oracle_fill(bytes, digit, sector, 1);
        sim_put(b->sim, off_of(b, cluster) + sector * SECTOR, bytes, SECTOR);
        oracle_set(b->oracle, digit, sector, 1);
    }
}

static void add_data(struct builder *b, uint32_t l2, unsigned digit, uint32_t cluster)
{
    put_entry(b, l2, digit, cluster, COPIED);
    put_data(b, digit, cluster);
}

/* ---- what the bases hold beyond header, refcounts and L1 ---- */

static void build_empty(void *builder)
{
    (void)builder;
}

static void build_half(void *builder)
{
    struct builder *b = builder;

    put_l1(b, AT_L1, 0, AT_L2, COPIED);
    add_data(b, AT_L2, 0, 5);
    add_data(b, AT_L2, 1, 7);
    put_l1(b, AT_L1, 1, 8, COPIED);
    add_data(b, 8, 4, 9);
}

static void build_zeroalloc(void *builder)
{
    struct builder *b = builder;

    put_l1(b, AT_L1, 0, AT_L2, COPIED);
    add_data(b, AT_L2, 0, 5);
    put_entry(b, AT_L2, 1, 0, ZERO);
    put_entry(b, AT_L2, 2, 6, COPIED | ZERO);
    b->is_used[6] = false; /* poison in what is kept */
}

static void build_snapshot(void *builder)
{
    struct builder *b = builder;
    uint64_t table_off;

    put_l1(b, AT_L1, 0, AT_L2, 0);
    put_entry(b, AT_L2, 0, 5, 0);
    put_entry(b, AT_L2, 1, 6, 0);
    put_data(b, 0, 5);
    put_data(b, 1, 6);
    b->counts[5] = b->counts[6] = 2;
    use(b, 7); /* the snapshot's L1 */
    put_l1(b, 7, 0, AT_L2, 0);
    use(b, 8); /* the snapshot table: one entry, name and id of one byte */
    table_off = off_of(b, 8);
    put_be(b->sim, table_off, off_of(b, 7), 8);
    put_be(b->sim, table_off + 8, 3, 4);
    put_be(b->sim, table_off + 12, 1, 2);
    put_be(b->sim, table_off + 14, 1, 2);
    put_be(b->sim, table_off + 36, 16, 4);
    put_be(b->sim, table_off + 48,
           (2 * UINT64_C(1) << (b->cluster_bits - 3) << b->cluster_bits) + b->cluster_bytes, 8);
    put_be(b->sim, table_off + 56, 0x3141, 2);
    put_be(b->sim, 60, 1, 4);
    put_be(b->sim, 64, table_off, 8);
    put_l1(b, AT_L1, 1, 9, COPIED);
    add_data(b, 9, 4, 10);
    b->oracle->has_snapshot = true;
    for (unsigned digit = 0; digit < GUEST_CLUSTERS; digit++) {
        for (unsigned sector = 0; sector < CLUSTER_SECTORS_MAX; sector++) {
            uint8_t bytes[SECTOR];

            b->oracle->snapshot[digit][sector] = oracle_fill(
                bytes, digit, sector, digit < 2 ? b->oracle->values[digit][sector].version : 0);
        }
    }
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

const struct base bases[] = {
    {"empty", 3, 4, 24, 0, true, false, false, false, build_empty},
    {"half", 3, 4, 24, 0, true, false, false, false, build_half},
    {"snapshot", 3, 4, 26, 0, true, false, false, false, build_snapshot},
    {"zeroalloc", 3, 1, 24, 0, false, false, false, false, build_zeroalloc},
    {"block", 3, 6, 0, 0, true, false, false, false, build_block},
    {"reftable", 3, 6, 4096, 4240, true, false, true, false, build_reftable},
    {"version2", 2, 4, 24, 0, false, false, false, false, build_half},
    {"growing", 3, 4, 10, 32, false, false, false, false, build_half},
    {"tight", 3, 4, 12, 0, true, true, false, false, build_half},
    {"autoclear", 3, 4, 24, 0, false, false, false, false, build_autoclear},
    {"through", 3, 4, 24, 0, true, false, false, true, build_half},
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

uint64_t base_guest_off(unsigned digit, unsigned cluster_bits)
{
    uint64_t table = digit < 4 ? 0 : digit < 6 ? 1 : 2;

    return ((table << (cluster_bits - 3)) + l2_index(digit)) << cluster_bits;
}

static void put_header(struct builder *b)
{
    uint64_t guest_bytes = base_guest_off(6, b->cluster_bits) + b->cluster_bytes;

    sim_put(b->sim, 0, "QFI\xfb", 4);
    put_be(b->sim, 4, b->base->version, 4);
    put_be(b->sim, 20, b->cluster_bits, 4);
    put_be(b->sim, 24, guest_bytes, 8);
    put_be(b->sim, 36, 3, 4);
    put_be(b->sim, 40, off_of(b, AT_L1), 8);
    put_be(b->sim, 48, off_of(b, AT_REFTABLE), 8);
    put_be(b->sim, 56, 1, 4);
    if (b->base->version >= 3) {
        put_be(b->sim, 96, b->base->refcount_order, 4);
        put_be(b->sim, 100, 104, 4);
    }
    put_be(b->sim, off_of(b, AT_REFTABLE), off_of(b, AT_BLOCK), 8);
    for (uint32_t cluster = AT_HEADER; cluster <= AT_L1; cluster++)
        use(b, cluster);
}

static void put_counts(struct builder *b)
{
    unsigned order = b->base->refcount_order;
    uint32_t per_block = b->cluster_bytes * 8u >> order;

    for (uint32_t cluster = 0; cluster < b->clusters; cluster++) {
        uint32_t block = cluster / per_block == 0 ? AT_BLOCK : 20 + cluster / per_block;
        uint64_t host_off = off_of(b, block) + ((uint64_t)(cluster % per_block) << order >> 3);

        if (b->counts[cluster] == 0)
            continue;
        if (order >= 3) {
            put_be(b->sim, host_off, b->counts[cluster], 1u << (order - 3));
        } else {
            unsigned shift = (cluster << order) & 7;
            uint8_t byte = b->sim->durable[host_off] | (uint8_t)(b->counts[cluster] << shift);

            sim_put(b->sim, host_off, &byte, 1);
        }
    }
}

void base_build(const struct base *base, uint32_t unit_bytes, struct sim_disk *sim,
                struct oracle *oracle)
{
    static struct builder b; /* too large for a frame */
    uint8_t poison[SECTOR];
    uint64_t bytes_max;

    memset(&b, 0, sizeof(b));
    b.sim = sim;
    b.oracle = oracle;
    b.base = base;
    b.cluster_bits = base_cluster_bits(base, unit_bytes);
    b.cluster_bytes = 1u << b.cluster_bits;
    b.clusters = base->clusters;
    if (b.clusters == 0)
        b.clusters = (b.cluster_bytes * 8u >> base->refcount_order) + SPARE;
    bytes_max = off_of(&b, base->clusters_max != 0 ? base->clusters_max : b.clusters);
    sim_init(sim, unit_bytes, off_of(&b, b.clusters), bytes_max, base->has_trim);
    oracle_init(oracle);
    put_header(&b);
    base->build(&b);
    put_counts(&b);
    for (uint64_t off = 0; off < sim->disk.size_bytes; off += SECTOR) {
        if (b.is_used[off >> b.cluster_bits])
            continue;
        sim_fill_poison(poison, off);
        sim_put(sim, off, poison, SECTOR);
    }
}
