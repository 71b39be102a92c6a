/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See check.h. One walk from the header through every pointer counts references; then counts are
 * compared, and then COPIED flags.
 */
#include "check.h"

#include <string.h>

#include "builder.h"

#define L2_RESERVED_MASK UINT64_C(0x3f000000000001fe)
#define L1_ENTRIES_MAX   8u
#define ALLOCATED_MASK   UINT64_C(0xffffffff)

#define INCOMPATIBLE_DIRTY     1u
#define INCOMPATIBLE_DATA_FILE 4u
#define INCOMPATIBLE_EXTENDED  16u
#define AUTOCLEAR_RAW_DATA     2u

#define SNAPSHOT_FIXED_BYTES 40u
#define SNAPSHOT_TEXT_MAX    256u

enum role { ROLE_NONE, ROLE_TABLE, ROLE_L2, ROLE_DATA, ROLE_PACKED };

/* Two compressed clusters in one, in the image and in 3 snapshots. */
uint64_t check_count_max = 8;

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

static void read_features(struct walk *walk)
{
    uint64_t incompatible = view_be64(walk->view, 72), autoclear = view_be64(walk->view, 88);

    walk->check->is_dirty = (incompatible & INCOMPATIBLE_DIRTY) != 0;
    walk->check->is_extended = (incompatible & INCOMPATIBLE_EXTENDED) != 0;
    walk->check->has_data_file = (incompatible & INCOMPATIBLE_DATA_FILE) != 0;
    walk->check->is_raw_data = (autoclear & AUTOCLEAR_RAW_DATA) != 0;
    walk->check->autoclear = autoclear & ~(uint64_t)AUTOCLEAR_RAW_DATA;
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
    walk->check->cluster_bits = walk->cluster_bits;
    walk->check->guest_bytes = view_be64(view, 24);
    if (walk->version >= 3)
        read_features(walk);
    if (view_be32(view, 0) != 0x514649fb || walk->version < 2 || walk->version > 3 ||
        walk->cluster_bits < 9 || walk->cluster_bits > 15 || walk->refcount_order > 6 ||
        walk->l1_entries < 3 || walk->l1_entries > L1_ENTRIES_MAX || walk->reftable_clusters == 0 ||
        walk->reftable_clusters > 4) {
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

static int digit_of(unsigned in_l1, unsigned in_l2)
{
    for (unsigned digit = 0; digit < GUEST_CLUSTERS; digit++) {
        if (l1_index(digit) == in_l1 && l2_index(digit) == in_l2)
            return (int)digit;
    }
    return -1;
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

/* An entry that is not compressed. False where it cannot be followed. */
static bool refer_plain(struct walk *walk, const struct mapping *entry, uint64_t entry_off,
                        uint64_t guest_off)
{
    uint64_t host_off = entry->word & CHECK_OFFSET_MASK;

    if ((entry->word & CHECK_ZERO) && walk->version < 3)
        corrupt(walk, "zero flag in version 2", entry_off);
    if ((entry->word & CHECK_ZERO) && walk->check->is_extended && walk->check->overlap == NULL)
        walk->check->overlap = "zero flag beside subclusters";
    if (entry->word & L2_RESERVED_MASK)
        corrupt(walk, "reserved bits in an L2 entry", entry_off);
    if ((entry->bits & entry->bits >> 32 & ALLOCATED_MASK) != 0)
        corrupt(walk, "a subcluster with bytes of its own that reads as zeros", entry_off);
    if (walk->check->has_data_file) {
        if ((host_off & ((1u << walk->cluster_bits) - 1)) != 0)
            corrupt(walk, "pointer out of line or past the end", host_off);
        if ((entry->word & (CHECK_OFFSET_MASK | CHECK_COPIED)) != 0 && host_off != guest_off &&
            walk->check->overlap == NULL)
            walk->check->overlap = "an entry names another place in the data file";
        return true;
    }
    if (host_off == 0 && (entry->bits & ALLOCATED_MASK) != 0)
        corrupt(walk, "subclusters with bytes of their own in no cluster", entry_off);
    return host_off == 0 || refer(walk, host_off, 1, ROLE_DATA);
}

static void walk_entry(struct walk *walk, const struct mapping *entry, uint64_t entry_off,
                       unsigned in_l1, unsigned in_l2, struct mapping *ret_entries)
{
    int digit = digit_of(in_l1, in_l2);
    uint64_t guest_off;

    if (digit < 0) {
        walk->check->has_stray |= (entry->word & (CHECK_OFFSET_MASK | CHECK_COMPRESSED)) != 0;
        digit = 0;
        ret_entries = NULL;
    }
    guest_off = digit_guest_off((unsigned)digit, walk->cluster_bits, walk->check->is_extended);
    if (entry->word & CHECK_COMPRESSED) { /* first: its lower bits are all offset */
        if (walk->check->has_data_file || entry->bits != 0)
            corrupt(walk, "a compressed cluster that cannot be one", entry_off);
        if (!refer_packed(walk, entry->word, entry_off))
            return;
    } else if (!refer_plain(walk, entry, entry_off, guest_off)) {
        return;
    }
    if (ret_entries != NULL)
        ret_entries[digit] = *entry;
}

static uint64_t word_at(const uint8_t *bytes)
{
    uint64_t value;

    memcpy(&value, bytes, 8);
    return __builtin_bswap64(value);
}

typedef void (*entry_fn)(struct walk *walk, const struct mapping *entry, uint64_t entry_off,
                         unsigned in_l1, unsigned in_l2, struct mapping *entries);

/* Every entry of a table that is not 0. */
static void for_entries(struct walk *walk, uint64_t l2_off, unsigned in_l1, entry_fn visit,
                        struct mapping *entries)
{
    uint32_t unit_bytes = walk->view->sim->unit_bytes;
    uint32_t entry_bytes = walk->check->is_extended ? 16 : 8;

    for (uint32_t off = 0; off < 1u << walk->cluster_bits; off += unit_bytes) {
        const uint8_t *bytes = view_unit(walk->view, (uint32_t)((l2_off + off) / unit_bytes));

        for (uint32_t i = 0; i < unit_bytes; i += entry_bytes) {
            struct mapping entry = {word_at(bytes + i), 0};

            if (entry_bytes == 16)
                entry.bits = word_at(bytes + i + 8);
            if ((entry.word | entry.bits) != 0)
                visit(walk, &entry, l2_off + off + i, in_l1, (off + i) / entry_bytes, entries);
        }
    }
}

static void walk_l1(struct walk *walk, uint64_t l1_off, uint32_t entries,
                    struct mapping *ret_entries)
{
    if (!refer(walk, l1_off, 1, ROLE_TABLE))
        return;
    for (unsigned i = 0; i < entries && i < L1_ENTRIES_MAX; i++) {
        uint64_t l2_off = view_be64(walk->view, l1_off + i * 8) & CHECK_OFFSET_MASK;

        if (l2_off != 0 && refer(walk, l2_off, 1, ROLE_L2))
            for_entries(walk, l2_off, i, walk_entry, ret_entries);
    }
}

/* Entries of the table follow each other; all of them fit a cluster. */
static void walk_snapshots(struct walk *walk)
{
    struct view *view = walk->view;
    uint32_t count = view_be32(view, 60);
    uint64_t off = view_be64(view, 64);

    if (count == 0)
        return;
    if (count > SNAPSHOTS_KEPT_MAX || !refer(walk, off, 1, ROLE_TABLE)) {
        corrupt(walk, "snapshot table", off);
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        struct check_snapshot *snapshot = &walk->check->snapshots[i];
        uint32_t id_bytes = view_be32(view, off + 12) >> 16;
        uint32_t name_bytes = view_be32(view, off + 12) & 0xffff;
        uint32_t extra_bytes = view_be32(view, off + 36);

        if (id_bytes > SNAPSHOT_TEXT_MAX || name_bytes > SNAPSHOT_TEXT_MAX ||
            extra_bytes > SNAPSHOT_TEXT_MAX || extra_bytes < 16) {
            corrupt(walk, "snapshot table", off);
            return;
        }
        snapshot->guest_bytes = view_be64(view, off + 48);
        snapshot->name = (char)view_byte(view, off + SNAPSHOT_FIXED_BYTES + extra_bytes + id_bytes);
        walk_l1(walk, view_be64(view, off), view_be32(view, off + 8), snapshot->entries);
        off += (SNAPSHOT_FIXED_BYTES + extra_bytes + id_bytes + name_bytes + 7) / 8 * 8;
        walk->check->snapshots_count++;
    }
}

static void compare_counts(struct walk *walk)
{
    for (uint32_t cluster = 0; cluster < walk->clusters; cluster++) {
        uint64_t count = count_of(walk, cluster);

        if (count < walk->references[cluster])
            corrupt(walk, "count below references (invariant 1)", cluster);
        else if (count > walk->references[cluster])
            walk->check->leaks_count++;
        if (count > check_count_max && walk->check->overlap == NULL) {
            walk->check->overlap = "a count that nobody wrote (invariant 2)";
            walk->check->where = cluster;
        }
    }
}

/* COPIED is where the count is 1, and nowhere else. */
static void compare_flag(struct walk *walk, bool is_one, bool is_copied, uint64_t entry_off)
{
    if (is_copied && !is_one)
        corrupt(walk, "COPIED though the count is not 1", entry_off);
    if (is_one && !is_copied && walk->check->unflagged == NULL) {
        walk->check->unflagged = "not COPIED though the count is 1";
        if (walk->check->corruption == NULL)
            walk->check->where = entry_off;
    }
}

/* What lies in a data file is not counted, and always ours. */
static void compare_entry(struct walk *walk, const struct mapping *entry, uint64_t entry_off,
                          unsigned in_l1, unsigned in_l2, struct mapping *entries)
{
    uint64_t cluster = (entry->word & CHECK_OFFSET_MASK) >> walk->cluster_bits;
    bool is_copied = (entry->word & CHECK_COPIED) != 0;

    (void)in_l1;
    (void)in_l2;
    (void)entries;
    if (entry->word & CHECK_COMPRESSED)
        return;
    if (walk->check->has_data_file)
        compare_flag(walk, cluster != 0 || is_copied, is_copied, entry_off);
    else if (cluster != 0 && cluster < walk->clusters)
        compare_flag(walk, count_of(walk, cluster) == 1, is_copied, entry_off);
}

static void compare_flags(struct walk *walk)
{
    for (unsigned i = 0; i < walk->l1_entries; i++) {
        uint64_t entry = view_be64(walk->view, walk->l1_off + i * 8);
        uint64_t l2_off = entry & CHECK_OFFSET_MASK;

        if (l2_off == 0)
            continue;
        if (l2_off >> walk->cluster_bits < walk->clusters)
            compare_flag(walk, count_of(walk, l2_off >> walk->cluster_bits) == 1,
                         (entry & CHECK_COPIED) != 0, walk->l1_off + i * 8);
        for_entries(walk, l2_off, i, compare_entry, NULL);
    }
}

bool check_is_dirty(struct view *view)
{
    return view_be32(view, 4) >= 3 && (view_be64(view, 72) & INCOMPATIBLE_DIRTY) != 0;
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
