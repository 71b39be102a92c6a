/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See owners.h. One walk from the header through every pointer tells up references and uses, then
 * the stored counts are held against them, and then COPIED flags.
 */
#include "owners.h"

#include "../../core/bytes.h"
#include "../../core/map.h"

#include <string.h>

#define L1_ENTRIES_MAX     4096u
#define SNAPSHOTS_SEEN_MAX 64u
#define L2_RESERVED        UINT64_C(0x3f000000000001fe)
#define L1_RESERVED        UINT64_C(0x7f000000000001ff)

struct walk {
    struct owners *owners;
    const uint8_t *bytes;
    uint64_t host_bytes;
    unsigned version, order, l2_words;
    bool has_data_file, is_active;
};

static void odd(struct walk *walk, const char *what, uint64_t where)
{
    if (walk->owners->odd == NULL) {
        walk->owners->odd = what;
        walk->owners->odd_at = where;
    }
    walk->owners->is_consistent = false;
}

/* Counts a reference to each cluster of a range; false where it is not all there. */
static bool refer(struct walk *walk, uint64_t host_off, uint64_t bytes, enum owner use)
{
    struct owners *owners = walk->owners;
    uint64_t first = host_off >> owners->cluster_bits;

    if (bytes == 0 || !qc_is_inside(host_off, bytes, walk->host_bytes)) {
        odd(walk, "a reference behind the disk", host_off);
        walk->owners->is_unsure = true;
        return false;
    }
    for (uint64_t i = first; i <= (host_off + bytes - 1) >> owners->cluster_bits; i++) {
        unsigned before = owners->uses[i];
        bool is_shared = before == use && use != OWNER_TABLE;

        /* L2 tables are shared by the active tree and snapshots. */
        is_shared = is_shared || (before == OWNER_TABLE && use == OWNER_INACTIVE);
        if (before != 0 && !is_shared)
            odd(walk, "a cluster of two uses", i);
        owners->uses[i] |= (uint8_t)(before == OWNER_TABLE && is_shared ? 0 : use);
        owners->references[i]++;
    }
    return true;
}

static bool refer_cluster(struct walk *walk, uint64_t host_off, enum owner use)
{
    uint64_t cluster_bytes = UINT64_C(1) << walk->owners->cluster_bits;

    if (host_off == 0 || !qc_is_aligned(host_off, cluster_bytes)) {
        odd(walk, "a pointer out of line", host_off);
        return false;
    }
    if (host_off < walk->host_bytes)
        cluster_bytes = qc_min(cluster_bytes, walk->host_bytes - host_off);
    return refer(walk, host_off, cluster_bytes, use);
}

static void walk_entry(struct walk *walk, uint64_t word, uint64_t bits, uint64_t guest_off)
{
    unsigned size_bits = walk->owners->cluster_bits - 8;
    uint64_t host_off = word & QC_ENTRY_OFFSET_MASK;

    if (word & QC_ENTRY_COMPRESSED) {
        uint64_t first = word & ((UINT64_C(1) << (62 - size_bits)) - 1);
        uint64_t sectors = (word >> (62 - size_bits) & ((UINT64_C(1) << size_bits) - 1)) + 1;
        uint64_t end = ((first >> 9) + sectors) << 9;

        if ((word & QC_ENTRY_COPIED) || bits != 0 || walk->has_data_file)
            odd(walk, "a compressed cluster that cannot be one", guest_off);
        if (qc_is_aligned(walk->host_bytes, 512) || end < walk->host_bytes)
            refer(walk, first, end - first, OWNER_PACKED);
        else
            odd(walk, "a compressed cluster at the disk's end", guest_off);
        return;
    }
    if ((word & L2_RESERVED) ||
        ((word & QC_ENTRY_ZERO) && (walk->version < 3 || walk->l2_words > 1)))
        odd(walk, "reserved bits in an L2 entry", guest_off);
    if ((bits & bits >> QC_SUBCLUSTERS & QC_SUBS_ALLOCATED) ||
        (host_off == 0 && !(walk->has_data_file && (word & QC_ENTRY_COPIED)) &&
         (bits & QC_SUBS_ALLOCATED)))
        odd(walk, "subclusters that contradict themselves", guest_off);
    if (walk->has_data_file) {
        if ((word & (QC_ENTRY_COPIED | QC_ENTRY_OFFSET_MASK)) != 0 &&
            (host_off != guest_off || !(word & QC_ENTRY_COPIED)))
            odd(walk, "another place in the data file", guest_off);
        return;
    }
    if (host_off == 0 && (word & QC_ENTRY_COPIED))
        odd(walk, "COPIED in no cluster", guest_off);
    if (host_off != 0)
        refer_cluster(walk, host_off, OWNER_DATA);
}

static void walk_l2(struct walk *walk, uint64_t l2_off, uint64_t l1_index)
{
    unsigned cluster_bits = walk->owners->cluster_bits;
    uint64_t entries = (UINT64_C(1) << cluster_bits >> 3) / walk->l2_words;

    if (!refer_cluster(walk, l2_off, walk->is_active ? OWNER_TABLE : OWNER_INACTIVE))
        return;
    if (l2_off + (UINT64_C(1) << cluster_bits) > walk->host_bytes) {
        odd(walk, "an L2 table behind the disk", l2_off);
        walk->owners->is_unsure = true;
        return;
    }
    for (uint64_t i = 0; i < entries; i++) {
        const uint8_t *entry = walk->bytes + l2_off + i * walk->l2_words * 8;
        uint64_t bits = walk->l2_words > 1 ? qc_be64(entry + 8) : 0;

        if ((qc_be64(entry) | bits) != 0)
            walk_entry(walk, qc_be64(entry), bits, (l1_index * entries + i) << cluster_bits);
    }
}

static void walk_l1(struct walk *walk, uint64_t l1_off, uint64_t l1_entries)
{
    if (l1_entries > L1_ENTRIES_MAX ||
        !qc_is_aligned(l1_off, UINT64_C(1) << walk->owners->cluster_bits)) {
        odd(walk, "an L1 table", l1_off);
        return;
    }
    if (l1_entries == 0 ||
        !refer(walk, l1_off, l1_entries * 8, walk->is_active ? OWNER_TABLE : OWNER_INACTIVE))
        return;
    for (uint64_t i = 0; i < l1_entries; i++) {
        uint64_t entry = qc_be64(walk->bytes + l1_off + i * 8);

        if (entry & L1_RESERVED)
            odd(walk, "reserved bits in an L1 entry", i);
        if (entry & QC_ENTRY_OFFSET_MASK)
            walk_l2(walk, entry & QC_ENTRY_OFFSET_MASK, i);
        else if (entry != 0)
            odd(walk, "an L1 entry that names nothing", i);
    }
}

/* Bytes of a snapshot's entry; 0 where it is none. */
static uint64_t measure_entry(struct walk *walk, uint64_t off)
{
    const uint8_t *entry = walk->bytes + off;
    uint64_t bytes = UINT64_C(40);

    if (!qc_is_inside(off, bytes, walk->host_bytes))
        return 0;
    bytes += (qc_be32(entry + 12) >> 16) + (qc_be32(entry + 12) & 0xffff) + qc_be32(entry + 36);
    if (!qc_is_inside(off, bytes, walk->host_bytes) || qc_be32(entry + 36) < 16 ||
        qc_be32(entry + 36) > QC_SNAPSHOT_EXTRA_BYTES_MAX)
        return 0;
    return bytes;
}

static void walk_snapshots(struct walk *walk)
{
    uint32_t count = qc_be32(walk->bytes + 60);
    uint64_t first_off = qc_be64(walk->bytes + 64), off = first_off;

    for (uint32_t i = 0; i < count; i++) {
        uint64_t bytes = measure_entry(walk, off);

        if (bytes == 0 || i >= SNAPSHOTS_SEEN_MAX) {
            odd(walk, "the snapshot table", off);
            walk->owners->is_unsure = true;
            return;
        }
        walk_l1(walk, qc_be64(walk->bytes + off), qc_be32(walk->bytes + off + 8));
        off = (off + bytes + 7) & ~UINT64_C(7);
    }
    if (count > 0)
        refer(walk, first_off, qc_min(off, walk->host_bytes) - first_off, OWNER_TABLE);
}

static uint64_t count_in(const struct walk *walk, const uint8_t *block, uint64_t in_block)
{
    uint64_t value = 0;

    if (walk->order < 3)
        return block[in_block << walk->order >> 3] >> (in_block << walk->order & 7) &
               ((1u << (1u << walk->order)) - 1);
    for (unsigned width = 1u << walk->order >> 3, i = 0; i < width; i++)
        value = value << 8 | block[in_block * width + i];
    return value;
}

/* Every count of a block, into counts. */
static void walk_block(struct walk *walk, uint64_t block_off, uint64_t index)
{
    struct owners *owners = walk->owners;
    uint64_t per_block = (UINT64_C(8) << owners->cluster_bits) >> walk->order;

    if (!refer_cluster(walk, block_off, OWNER_TABLE))
        return;
    if (block_off + (UINT64_C(1) << owners->cluster_bits) > walk->host_bytes) {
        odd(walk, "a refcount block behind the disk", block_off);
        return;
    }
    for (uint64_t i = 0; i < per_block; i++) {
        uint64_t count = count_in(walk, walk->bytes + block_off, i), at = index * per_block + i;

        if (count > 0 && at >= OWNERS_CLUSTERS_MAX)
            odd(walk, "a count far behind the disk", at);
        else if (count > 0)
            owners->counts[at] = count;
    }
}

static void walk_blocks(struct walk *walk)
{
    uint64_t off = qc_be64(walk->bytes + 48);
    uint64_t bytes = (uint64_t)qc_be32(walk->bytes + 56) << walk->owners->cluster_bits;

    if (!refer(walk, off, bytes, OWNER_TABLE))
        return;
    for (uint64_t i = 0; i < bytes / 8; i++) {
        uint64_t entry = qc_be64(walk->bytes + off + i * 8);

        if (entry & 511)
            odd(walk, "reserved bits in the refcount table", i);
        else if (entry != 0)
            walk_block(walk, entry, i);
    }
    for (uint64_t i = 0; i < bytes / 8; i++) {
        uint64_t cluster = qc_be64(walk->bytes + off + i * 8) >> walk->owners->cluster_bits;

        if (cluster != 0 && cluster < OWNERS_CLUSTERS_MAX && walk->owners->references[cluster] > 1)
            walk->owners->is_unsure = true;
    }
}

static bool read_header(struct walk *walk)
{
    struct owners *owners = walk->owners;
    const uint8_t *bytes = walk->bytes;
    uint64_t incompatible;

    walk->version = qc_be32(bytes + 4);
    owners->cluster_bits = qc_be32(bytes + 20);
    if (walk->host_bytes < QC_HEADER_BYTES_MAX || walk->version < 2 || walk->version > 3 ||
        owners->cluster_bits < QC_CLUSTER_BITS_MIN || owners->cluster_bits > 16) {
        odd(walk, "the header", 0);
        return false;
    }
    incompatible = walk->version > 2 ? qc_be64(bytes + 72) : 0;
    walk->order = walk->version > 2 ? qc_be32(bytes + 96) : 4;
    walk->l2_words = incompatible & QC_INCOMPATIBLE_EXTENDED_L2 ? 2 : 1;
    walk->has_data_file = (incompatible & QC_INCOMPATIBLE_DATA_FILE) != 0;
    owners->is_dirty = (incompatible & QC_INCOMPATIBLE_DIRTY) != 0;
    if (walk->order > 6) {
        odd(walk, "the header", 0);
        return false;
    }
    owners->clusters_count = qc_units(walk->host_bytes, owners->cluster_bits);
    return true;
}

static void compare_counts(struct walk *walk)
{
    struct owners *owners = walk->owners;

    for (uint64_t i = 0; i < OWNERS_CLUSTERS_MAX; i++) {
        if (owners->counts[i] < owners->references[i])
            odd(walk, "a count below its references", i);
        if (owners->counts[i] > owners->references[i])
            *(i < owners->clusters_count ? &owners->leaks : &owners->leaks_behind) += 1;
    }
}

static void compare_flag(struct walk *walk, uint64_t entry, uint64_t where)
{
    uint64_t cluster = (entry & QC_ENTRY_OFFSET_MASK) >> walk->owners->cluster_bits;

    if (cluster == 0 || cluster >= OWNERS_CLUSTERS_MAX)
        return;
    if ((walk->owners->counts[cluster] == 1) != ((entry & QC_ENTRY_COPIED) != 0))
        odd(walk, "a COPIED flag", where);
}

static void compare_flags(struct walk *walk)
{
    uint64_t l1_off = qc_be64(walk->bytes + 40);

    for (uint64_t i = 0; i < qc_be32(walk->bytes + 36) && walk->owners->is_consistent; i++) {
        uint64_t entry = qc_be64(walk->bytes + l1_off + i * 8);
        uint64_t l2_off = entry & QC_ENTRY_OFFSET_MASK;

        if (l2_off == 0)
            continue;
        compare_flag(walk, entry, i);
        for (uint64_t k = 0; k < UINT64_C(1) << walk->owners->cluster_bits && !walk->has_data_file;
             k += walk->l2_words * 8) {
            uint64_t word = qc_be64(walk->bytes + l2_off + k);

            if (!(word & QC_ENTRY_COMPRESSED))
                compare_flag(walk, word, l2_off + k);
        }
    }
}

void owners_find(struct owners *owners, const uint8_t *bytes, uint64_t host_bytes)
{
    struct walk walk = {.owners = owners, .bytes = bytes, .host_bytes = host_bytes};

    memset(owners, 0, sizeof(*owners));
    owners->is_consistent = true;
    if (!read_header(&walk))
        return;
    refer(&walk, 0, 1, OWNER_TABLE);
    walk.is_active = true;
    walk_l1(&walk, qc_be64(bytes + 40), qc_be32(bytes + 36));
    walk.is_active = false;
    walk_snapshots(&walk);
    walk_blocks(&walk);
    compare_counts(&walk);
    compare_flags(&walk);
}
