/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Looks one run of the guest disk up. The walk goes slice by slice: an L1 entry, then as many L2
 * entries as its slice holds; the run grows while entries say the same and, for data, while each
 * cluster lies right behind the one before it.
 */
#include "map.h"

#include "bytes.h"
#include "seeded.h"

#define ENTRY_BYTES       8u
#define ENTRY_OFFSET_MASK UINT64_C(0x00fffffffffffe00)
#define ENTRY_COMPRESSED  (UINT64_C(1) << 62)
#define ENTRY_ZERO        (UINT64_C(1) << 0)
#define L1_RESERVED_MASK  UINT64_C(0x7f000000000001ff)
#define L2_RESERVED_MASK  UINT64_C(0x3f000000000001fe)

/*
 * The entry at entry_index of a table and, right behind it, those that lie in the same slice.
 * They are big endian still, and valid until the next call on the cache.
 */
static qc_status get_entries(struct qc_image *image, uint64_t table_off, uint64_t table_bytes,
                             uint64_t entry_index, enum qc_heat heat, const uint8_t **ret_entries,
                             uint32_t *ret_entries_count)
{
    uint64_t slice_start = entry_index * ENTRY_BYTES & ~QC_U(QC_PAGE_BYTES - 1);
    uint32_t entry_at = (uint32_t)(entry_index * ENTRY_BYTES - slice_start);
    uint32_t len = (uint32_t)qc_min(QC_PAGE_BYTES, table_bytes - slice_start);
    /* Whole blocks where the disk has them: a table's odd tail would cost a bounce. */
    uint64_t whole = (len + image->disk->block_bytes - 1) & ~QC_U(image->disk->block_bytes - 1);
    const uint8_t *slice;
    qc_status status;

    whole = qc_min(whole, image->disk->size_bytes - (table_off + slice_start));
    status = qc_cache_get(image->cache, image->disk, table_off + slice_start, (uint32_t)whole, heat,
                          &slice);
    if (status != QC_OK)
        return qc_fail(&image->detail, status, "table at %x cannot be read",
                       table_off + slice_start);
    *ret_entries = slice + entry_at;
    *ret_entries_count = (len - entry_at) / ENTRY_BYTES;
    return QC_OK;
}

/* The L2 table that maps guest_off: its host offset, or 0 where there is none. */
static qc_status find_l2(struct qc_image *image, uint64_t guest_off, uint64_t *ret_l2_off)
{
    const struct qc_header *header = &image->header;
    uint64_t l1_index = guest_off >> (2 * header->cluster_bits - 3);
    const uint8_t *slice;
    uint32_t entries_count;
    uint64_t entry, l2_off;
    qc_status status = get_entries(image, header->l1_off, QC_U(header->l1_entries) * ENTRY_BYTES,
                                   l1_index, QC_HEAT_TOP, &slice, &entries_count);

    if (status != QC_OK)
        return status;
    entry = qc_be64(slice);
    l2_off = entry & ENTRY_OFFSET_MASK;
    if ((entry & L1_RESERVED_MASK) != 0 || !qc_is_aligned(l2_off, header->cluster_bytes) ||
        !qc_is_inside(l2_off, header->cluster_bytes, image->disk->size_bytes))
        return qc_fail(&image->detail, QC_CORRUPT, "bad L1 entry %x at guest %x", entry, guest_off);
    *ret_l2_off = l2_off;
    return QC_OK;
}

/* What one L2 entry says of its cluster; len is left to the caller. Says nothing of errors. */
static qc_status parse_l2_entry(const struct qc_image *image, uint64_t entry,
                                struct qc_extent *ret_extent)
{
    uint64_t host_off = entry & ENTRY_OFFSET_MASK;
    bool is_zero = (entry & ENTRY_ZERO) != 0;

    /* Bit 62 first: in a compressed entry bit 0 is part of the offset. */
    if (entry & ENTRY_COMPRESSED)
        return QC_UNSUPPORTED;
    if ((entry & L2_RESERVED_MASK) != 0 || !qc_is_aligned(host_off, image->header.cluster_bytes) ||
        (is_zero && image->header.version < 3))
        return QC_CORRUPT;
    if (is_zero && !(QC_SEED_ZERO_FLAG && host_off != 0)) {
        *ret_extent = (struct qc_extent){.kind = QC_EXTENT_ZERO};
    } else if (host_off == 0) {
        *ret_extent = (struct qc_extent){.kind = QC_EXTENT_UNALLOCATED};
    } else {
        if (host_off >= image->disk->size_bytes)
            return QC_CORRUPT;
        *ret_extent = (struct qc_extent){.kind = QC_EXTENT_DATA, .host_off = host_off};
    }
    return QC_OK;
}

static qc_status refuse_l2_entry(struct qc_image *image, qc_status status, uint64_t entry,
                                 uint64_t guest_off)
{
    if (status == QC_UNSUPPORTED)
        return qc_fail(&image->detail, status, "compressed cluster at guest %x not supported",
                       guest_off);
    return qc_fail(&image->detail, status, "bad L2 entry %x at guest %x", entry, guest_off);
}

/* How many entries from the first on continue its run; a bad one ends the run before it. */
static uint64_t count_run(const struct qc_image *image, const uint8_t *entries,
                          uint64_t entries_count, const struct qc_extent *first)
{
    uint64_t run = 1;

    for (; run < entries_count; run++) {
        uint64_t entry = qc_be64(entries + run * ENTRY_BYTES);
        struct qc_extent next;

        if (parse_l2_entry(image, entry, &next) != QC_OK || next.kind != first->kind)
            break;
        if (first->kind == QC_EXTENT_DATA && !QC_SEED_MERGE_GAP &&
            next.host_off != first->host_off + (run << image->header.cluster_bits))
            break;
    }
    return run;
}

/*
 * The run at guest_off as far as one slice of one table tells it; at least to the end of the
 * cluster, unless max_len ends before.
 */
static qc_status map_in_slice(struct qc_image *image, uint64_t guest_off, uint64_t max_len,
                              struct qc_extent *ret_extent)
{
    unsigned cluster_bits = image->header.cluster_bits;
    uint64_t l2_entries = image->header.cluster_bytes / ENTRY_BYTES;
    uint64_t l2_index = ((guest_off >> cluster_bits) + QC_SEED_L2_LOOKUP) & (l2_entries - 1);
    uint64_t in_cluster = guest_off & (image->header.cluster_bytes - 1);
    struct qc_extent run = {.kind = QC_EXTENT_UNALLOCATED};
    uint64_t run_clusters = l2_entries - l2_index; /* where no L2 table is */
    const uint8_t *entries;
    uint32_t entries_count;
    uint64_t l2_off;
    qc_status status = find_l2(image, guest_off, &l2_off);

    if (status != QC_OK)
        return status;
    if (l2_off != 0) {
        status = get_entries(image, l2_off, image->header.cluster_bytes, l2_index, QC_HEAT_PASSING,
                             &entries, &entries_count);
        if (status != QC_OK)
            return status;
        status = parse_l2_entry(image, qc_be64(entries), &run);
        if (status != QC_OK)
            return refuse_l2_entry(image, status, qc_be64(entries), guest_off);
        run_clusters = qc_min(entries_count, qc_units(in_cluster + max_len, cluster_bits));
        run_clusters = count_run(image, entries, run_clusters, &run);
    }
    run.len = qc_min(max_len, (run_clusters << cluster_bits) - in_cluster);
    if (run.kind == QC_EXTENT_DATA)
        run.host_off += in_cluster;
    *ret_extent = run;
    return QC_OK;
}

qc_status qc_map_run(struct qc_image *image, uint64_t guest_off, uint64_t max_len,
                     struct qc_extent *ret_extent)
{
    struct qc_extent run, next;
    qc_status status = map_in_slice(image, guest_off, max_len, &run);

    if (status != QC_OK)
        return status;
    while (run.len < max_len) {
        if (map_in_slice(image, guest_off + run.len, max_len - run.len, &next) != QC_OK) {
            qc_detail_clear(&image->detail); /* an error of whoever asks for what follows */
            break;
        }
        if (next.kind != run.kind ||
            (run.kind == QC_EXTENT_DATA && next.host_off != run.host_off + run.len))
            break;
        run.len += next.len;
    }
    *ret_extent = run;
    return QC_OK;
}
