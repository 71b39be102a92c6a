/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* Reading tables by slices; see table.h for the promises. */
#include "table.h"

#include "blank.h"
#include "bytes.h"
#include "seeded.h"

#define ENTRY_BYTES 8u

qc_status qc_table_slice(struct qc_image *image, unsigned depth, uint64_t table_off,
                         uint64_t table_bytes, uint64_t slice_off, enum qc_heat heat,
                         const uint8_t **ret_slice)
{
    struct qc_disk *disk = image->layers[depth].disk;
    uint64_t host_off = table_off + slice_off;
    uint64_t len = qc_min(QC_PAGE_BYTES, table_bytes - slice_off);
    uint64_t block_bytes = disk->block_bytes;
    qc_status status;

    /* Whole blocks where the disk has them: a table's odd tail would cost a bounce. */
    len = qc_min((len + block_bytes - 1) & ~(block_bytes - 1), disk->size_bytes - host_off);
    status = qc_cache_get(image->cache, disk, depth, host_off, (uint32_t)len, heat, ret_slice);
    if (status != QC_OK)
        return qc_fail(&image->detail, status, "table at %x cannot be read", host_off);
    return QC_OK;
}

qc_status qc_table_entries(struct qc_image *image, unsigned depth, uint64_t table_off,
                           uint64_t table_bytes, uint64_t entry_index, enum qc_heat heat,
                           const uint8_t **ret_entries, uint32_t *ret_entries_count)
{
    uint64_t slice_off = entry_index * ENTRY_BYTES & ~QC_U(QC_PAGE_BYTES - 1);
    uint64_t in_slice = entry_index * ENTRY_BYTES - slice_off;
    const uint8_t *slice;
    qc_status status =
        qc_table_slice(image, depth, table_off, table_bytes, slice_off, heat, &slice);

    if (status != QC_OK)
        return status;
    *ret_entries = slice + in_slice;
    *ret_entries_count =
        (uint32_t)((qc_min(QC_PAGE_BYTES, table_bytes - slice_off) - in_slice) / ENTRY_BYTES);
    return QC_OK;
}

void qc_table_forget(struct qc_image *image, uint64_t host_off)
{
    if (QC_SEED(stale_table))
        return;
    qc_blank_forget(image, host_off);
    for (uint64_t off = 0; off < image->top.header.cluster_bytes; off += QC_PAGE_BYTES)
        qc_cache_forget(image->cache, host_off + off);
}

/* Of a layer's snapshot table: what its entries have at least, until it was measured. */
static uint64_t snapshots_bytes(const struct qc_image *image, unsigned depth)
{
    uint32_t count = image->layers[depth].header.snapshots_count;

    if (depth == 0 && count > 0 && image->snapshots_bytes > 0)
        return image->snapshots_bytes;
    return QC_U(count) * QC_SNAPSHOT_ENTRY_BYTES_MIN;
}

bool qc_is_header_structure(const struct qc_image *image, unsigned depth, uint64_t cluster)
{
    const struct qc_header *header = &image->layers[depth].header;
    unsigned cluster_bits = header->cluster_bits;
    bool is_top = depth == 0;
    const struct {
        uint64_t host_off, clusters;
    } parts[] = {
        {0, 1},
        {header->l1_off, qc_units(QC_U(header->l1_entries) * 8, cluster_bits)},
        {header->reftable_off, header->reftable_clusters},
        {image->grown_reftable.host_off, is_top ? image->grown_reftable.clusters : 0},
        {header->snapshots_off, qc_units(snapshots_bytes(image, depth), cluster_bits)},
    };

    for (unsigned i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        if (cluster - (parts[i].host_off >> cluster_bits) < parts[i].clusters)
            return true;
    }
    return false;
}
