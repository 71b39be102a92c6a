/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See check.h. One walk from the header through every pointer counts references; then counts are
 * compared, and then COPIED flags.
 */
#include "check.h"

#include <string.h>

#include "base.h"

#define L2_RESERVED_MASK UINT64_C(0x3f000000000001fe)
#define L1_ENTRIES_MAX   8u
#define COUNT_MAX        4u /* two compressed clusters in one, in the image and in a snapshot */

enum role { ROLE_NONE, ROLE_TABLE, ROLE_L2, ROLE_DATA, ROLE_PACKED };

struct walk {
    struct view *view;
    struct check *check;
    unsigned cluster_bits, refcount_order, version;
    uint64_t l1_off, reftable_off;
    uint32_t l1_entries, reftable_clusters, clusters;
    uint16_t references[CHECK_CLUSTERS_MAX];
    uint8_t roles[CHECK_CLUSTERS_MAX];
};

static void corrupt(struct walk *walk, const char *what, uint64_t where)
{
    if (walk->check->corruption == NULL) {
        walk->check->corruption = what;
        walk->check->where = where;
    }
}

/* Counts references to clusters of one use; false where they are not all on the disk. */
static bool refer(struct walk *walk, uint64_t host_off, uint64_t clusters, enum role role)
{
    uint64_t first = host_off >> walk->cluster_bits;

    if ((host_off & ((1u << walk->cluster_bits) - 1)) != 0 || host_off == 0 ||
        first + clusters > walk->clusters || clusters > walk->clusters) {
        corrupt(walk, "pointer out of line or past the end", host_off);
        return false;
    }
    for (uint64_t i = first; i < first + clusters; i++) {
        bool is_shared = walk->roles[i] == role && role >= ROLE_L2;

        if (walk->roles[i] != ROLE_NONE && !is_shared && walk->check->overlap == NULL) {
            walk->check->overlap = "cluster of two uses";
            walk->check->where = i;
        }
        walk->roles[i] = (uint8_t)role;
        walk->references[i]++;
    }
    return true;
}

static uint64_t count_of(struct walk *walk, uint64_t cluster)
{
    unsigned order = walk->refcount_order;
    uint64_t reach = (8u << walk->cluster_bits) >> order;
    uint64_t block_off, byte_off, word;

    if (cluster / reach >= (uint64_t)walk->reftable_clusters << walk->cluster_bits >> 3)
        return 0;
    block_off = view_be64(walk->view, walk->reftable_off + cluster / reach * 8) & CHECK_OFFSET_MASK;
    if (block_off == 0)
        return 0;
    byte_off = block_off + (cluster % reach << order >> 3);
    word = view_be64(walk->view, byte_off & ~UINT64_C(7));
    if (order >= 3)
        return word << (byte_off & 7) * 8 >> (64 - (1u << order));
    word = word >> (56 - (byte_off & 7) * 8) & 0xff;
    return word >> (cluster << order & 7) & ((1u << (1u << order)) - 1);
}

static bool read_header(struct walk *walk)
{
    struct view *view = walk->view;

    walk->version = view_be32(view, 4);
    walk->cluster_bits = view_be32(view, 20);
    walk->l1_entries = view_be32(view, 36);
    walk->l1_off = view_be64(view, 40);
    walk->reftable_off = view_be64(view, 48);
    walk->reftable_clusters = view_be32(view, 56);
    walk->refcount_order = walk->version >= 3 ? view_be32(view, 96) : 4;
    walk->check->autoclear = walk->version >= 3 ? view_be64(view, 88) : 0;
    if (view_be32(view, 0) != 0x514649fb || walk->version < 2 || walk->version > 3 ||
        walk->cluster_bits < 9 || walk->cluster_bits > 13 || walk->refcount_order > 6 ||
        walk->l1_entries != 3 || walk->reftable_clusters == 0 || walk->reftable_clusters > 4) {
        corrupt(walk, "header", 0);
        return false;
    }
    walk->clusters = (uint32_t)(view_size(view) >> walk->cluster_bits);
    memset(walk->references, 0, walk->clusters * sizeof(walk->references[0]));
    memset(walk->roles, 0, walk->clusters);
    walk->references[0] = 1;
    walk->roles[0] = ROLE_TABLE;
    return true;
}

static void walk_blocks(struct walk *walk)
{
    uint64_t entries = (uint64_t)walk->reftable_clusters << walk->cluster_bits >> 3;

    for (uint64_t i = 0; i < entries; i++) {
        uint64_t block_off = view_be64(walk->view, walk->reftable_off + i * 8);

        if (block_off == 0 || !refer(walk, block_off, 1, ROLE_TABLE))
            continue;
        if (walk->references[block_off >> walk->cluster_bits] != 1)
            corrupt(walk, "refcount block referred to twice", block_off);
    }
}

static int digit_of(unsigned l1_index, unsigned l2_index)
{
    if (l1_index == 0 && l2_index < 4)
        return (int)l2_index;
    if (l1_index == 1 && l2_index < 2)
        return 4 + (int)l2_index;
    return l1_index == 2 && l2_index == 0 ? 6 : -1;
}

void check_packed_range(uint64_t entry, unsigned cluster_bits, uint64_t *ret_first,
                        uint64_t *ret_end)
{
    unsigned count_bits = cluster_bits - 8, offset_bits = 62 - count_bits;
    uint64_t sectors = (entry >> offset_bits & ((UINT64_C(1) << count_bits) - 1)) + 1;

    *ret_first = entry & ((UINT64_C(1) << offset_bits) - 1);
    *ret_end = (*ret_first / SECTOR + sectors) * SECTOR;
}

/* Each host cluster that a compressed one touches is referred to. */
static bool refer_packed(struct walk *walk, uint64_t entry, uint64_t entry_off)
{
    uint64_t first, end;

    if (entry & CHECK_COPIED)
        corrupt(walk, "COPIED on a compressed cluster", entry_off);
    check_packed_range(entry, walk->cluster_bits, &first, &end);
    first >>= walk->cluster_bits;
    end = (end - 1) >> walk->cluster_bits;
    return refer(walk, first << walk->cluster_bits, end + 1 - first, ROLE_PACKED);
}

static void walk_entry(struct walk *walk, uint64_t entry, uint64_t entry_off, int digit,
                       uint64_t *ret_entries)
{
    if (digit < 0)
        walk->check->has_stray = true;
    if (entry & CHECK_COMPRESSED) { /* first: its lower bits are all offset */
        if (!refer_packed(walk, entry, entry_off))
            return;
    } else {
        if ((entry & CHECK_ZERO) && walk->version < 3)
            corrupt(walk, "zero flag in version 2", entry_off);
        if (entry & L2_RESERVED_MASK)
            corrupt(walk, "reserved bits in an L2 entry", entry_off);
        if ((entry & CHECK_OFFSET_MASK) != 0 &&
            !refer(walk, entry & CHECK_OFFSET_MASK, 1, ROLE_DATA))
            return;
    }
    if (digit >= 0)
        ret_entries[digit] = entry;
}

static uint64_t word_at(const uint8_t *bytes)
{
    uint64_t value;

    memcpy(&value, bytes, 8);
    return __builtin_bswap64(value);
}

static void walk_l2(struct walk *walk, uint64_t l2_off, unsigned l1_index, uint64_t *ret_entries)
{
    uint32_t unit_bytes = walk->view->sim->unit_bytes;

    for (uint32_t off = 0; off < 1u << walk->cluster_bits; off += unit_bytes) {
        const uint8_t *bytes = view_unit(walk->view, (uint32_t)((l2_off + off) / unit_bytes));

        for (uint32_t i = 0; i < unit_bytes; i += 8) {
            uint64_t entry = word_at(bytes + i);

            if (entry != 0)
                walk_entry(walk, entry, l2_off + off + i, digit_of(l1_index, (off + i) / 8),
                           ret_entries);
        }
    }
}

static void walk_l1(struct walk *walk, uint64_t l1_off, uint32_t entries, uint64_t *ret_entries)
{
    if (!refer(walk, l1_off, 1, ROLE_TABLE))
        return;
    for (unsigned i = 0; i < entries; i++) {
        uint64_t l2_off = view_be64(walk->view, l1_off + i * 8) & CHECK_OFFSET_MASK;

        if (l2_off != 0 && refer(walk, l2_off, 1, ROLE_L2))
            walk_l2(walk, l2_off, i, ret_entries);
    }
}

static void walk_snapshots(struct walk *walk)
{
    uint32_t snapshots_count = view_be32(walk->view, 60);
    uint64_t table_off = view_be64(walk->view, 64);

    if (snapshots_count == 0)
        return;
    if (snapshots_count > 1 || !refer(walk, table_off, 1, ROLE_TABLE)) {
        corrupt(walk, "snapshot table", table_off);
        return;
    }
    walk_l1(walk, view_be64(walk->view, table_off),
            view_be32(walk->view, table_off + 8) > L1_ENTRIES_MAX
                ? 0
                : view_be32(walk->view, table_off + 8),
            walk->check->snapshot);
}

static void compare_counts(struct walk *walk)
{
    for (uint32_t cluster = 0; cluster < walk->clusters; cluster++) {
        uint64_t count = count_of(walk, cluster);

        if (count < walk->references[cluster])
            corrupt(walk, "count below references (invariant 1)", cluster);
        else if (count > walk->references[cluster])
            walk->check->leaks_count++;
        if (count > COUNT_MAX && walk->check->overlap == NULL) {
            walk->check->overlap = "a count that nobody wrote (invariant 2)";
            walk->check->where = cluster;
        }
    }
}

static void compare_flag(struct walk *walk, uint64_t entry, uint64_t entry_off)
{
    uint64_t cluster = (entry & CHECK_OFFSET_MASK) >> walk->cluster_bits;

    if ((entry & CHECK_COMPRESSED) || cluster == 0 || cluster >= walk->clusters)
        return;
    if ((count_of(walk, cluster) == 1) != ((entry & CHECK_COPIED) != 0))
        corrupt(walk, "COPIED is not (count is 1)", entry_off);
}

static void compare_l2_flags(struct walk *walk, uint64_t l2_off)
{
    uint32_t unit_bytes = walk->view->sim->unit_bytes;

    for (uint32_t off = 0; off < 1u << walk->cluster_bits; off += unit_bytes) {
        const uint8_t *bytes = view_unit(walk->view, (uint32_t)((l2_off + off) / unit_bytes));

        for (uint32_t i = 0; i < unit_bytes; i += 8) {
            uint64_t entry = word_at(bytes + i);

            if (entry != 0)
                compare_flag(walk, entry, l2_off + off + i);
        }
    }
}

static void compare_flags(struct walk *walk)
{
    for (unsigned i = 0; i < walk->l1_entries; i++) {
        uint64_t l1_entry = view_be64(walk->view, walk->l1_off + i * 8);

        compare_flag(walk, l1_entry, walk->l1_off + i * 8);
        if ((l1_entry & CHECK_OFFSET_MASK) != 0)
            compare_l2_flags(walk, l1_entry & CHECK_OFFSET_MASK);
    }
}

void check_state(struct view *view, struct check *ret_check)
{
    static struct walk walk; /* too large for a frame */

    memset(ret_check, 0, sizeof(*ret_check));
    walk.view = view;
    walk.check = ret_check;
    if (!read_header(&walk) || !refer(&walk, walk.reftable_off, walk.reftable_clusters, ROLE_TABLE))
        return;
    walk_blocks(&walk);
    walk_l1(&walk, walk.l1_off, walk.l1_entries, ret_check->active);
    walk_snapshots(&walk);
    if (ret_check->corruption != NULL)
        return; /* what is compared next may lie anywhere */
    compare_counts(&walk);
    compare_flags(&walk);
}
