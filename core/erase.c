/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Zeroing and discarding: whole clusters by their entries, parts of clusters by writing zeros.
 *
 * Invariant 4 does the hard part: a cluster that loses its pointer here goes into quarantine, and
 * the host is told only after the commit that made the unmapping durable.
 */
#include "write.h"

#include "alloc.h"
#include "bytes.h"
#include "change.h"
#include "cluster.h"
#include "counts.h"
#include "map.h"

#define ZEROS_BYTES 16384u

static uint8_t zeros[ZEROS_BYTES]; /* never written */

enum erase_kind { ERASE_DISCARD, ERASE_UNMAP, ERASE_KEEP };

/* The entry that a cluster gets. */
static uint64_t erased_entry(const struct qc_image *image, const struct qc_cluster *cluster,
                             enum erase_kind kind)
{
    /* Version 2 has no flag; and nothing lies below this image that a hole could show. */
    if (kind == ERASE_DISCARD || image->header.version < 3 || cluster->entry == 0)
        return 0;
    if (kind == ERASE_KEEP && cluster->is_ours)
        return cluster->host_off | QC_ENTRY_ZERO | QC_ENTRY_COPIED;
    return QC_ENTRY_ZERO;
}

static qc_status erase_cluster(struct qc_image *image, uint64_t guest_off, enum erase_kind kind)
{
    struct qc_cluster cluster;
    uint64_t entry, count;
    qc_status status = qc_cluster_look(image, guest_off, &cluster);

    if (status != QC_OK || erased_entry(image, &cluster, kind) == cluster.entry ||
        (cluster.host_off == 0 && kind != ERASE_DISCARD))
        return status;
    status = qc_own_l2(image, guest_off);
    if (status == QC_OK)
        status = qc_step_begin(image, 2, false);
    /* Its L2 table may be ours only now, and a commit may have gone by: look again. */
    if (status == QC_OK)
        status = qc_cluster_look(image, guest_off, &cluster);
    if (status == QC_OK && cluster.host_off != 0)
        status = qc_count_prepare(image, cluster.host_off >> image->header.cluster_bits, &count);
    if (status != QC_OK)
        return status;
    entry = erased_entry(image, &cluster, kind);
    qc_set_entry(image, guest_off, entry);
    if (cluster.host_off != 0 && (entry & QC_ENTRY_OFFSET_MASK) == 0)
        qc_count_drop(image, cluster.host_off >> image->header.cluster_bits);
    return QC_OK;
}

/* Part of a cluster: what is not zeros already is written. */
static qc_status zero_part(struct qc_image *image, uint64_t guest_off, uint64_t len)
{
    for (uint64_t done = 0; done < len;) {
        struct qc_extent run;
        qc_status status = qc_map_run(image, guest_off + done, len - done, &run);

        if (status == QC_OK && run.kind == QC_EXTENT_DATA) {
            run.len = qc_min(run.len, ZEROS_BYTES);
            status = qc_write_sectors(image, guest_off + done, zeros, run.len);
        }
        if (status != QC_OK)
            return status;
        done += run.len;
    }
    return QC_OK;
}

static qc_status erase(struct qc_image *image, uint64_t guest_off, uint64_t len,
                       enum erase_kind kind)
{
    uint64_t cluster_bytes = image->header.cluster_bytes;
    uint64_t guest_end = qc_size(image);
    qc_status status = qc_begin_change(image, guest_off, len);

    for (uint64_t part; status == QC_OK && len > 0; guest_off += part, len -= part) {
        uint64_t in_cluster = guest_off & (cluster_bytes - 1);
        struct qc_extent run;
        bool is_whole;

        part = qc_min(len, cluster_bytes - in_cluster);
        is_whole = in_cluster == 0 && (part == cluster_bytes || guest_off + part == guest_end);
        if (!is_whole) {
            status = kind == ERASE_DISCARD ? QC_OK : zero_part(image, guest_off, part);
            continue;
        }
        /* Holes are passed over in one stride; of all else only this cluster is looked at. */
        status = qc_map_run(image, guest_off, part, &run);
        if (status == QC_OK && run.kind == QC_EXTENT_UNALLOCATED)
            status = qc_map_run(image, guest_off, len, &run);
        if (status == QC_OK && run.kind == QC_EXTENT_UNALLOCATED)
            part = run.len;
        else if (status == QC_OK)
            status = erase_cluster(image, guest_off, kind);
    }
    return qc_end_change(image, status);
}

qc_status qc_zero(struct qc_image *image, uint64_t guest_off, uint64_t len, bool may_unmap)
{
    return erase(image, guest_off, len, may_unmap ? ERASE_UNMAP : ERASE_KEEP);
}

qc_status qc_discard(struct qc_image *image, uint64_t guest_off, uint64_t len)
{
    return erase(image, guest_off, len, ERASE_DISCARD);
}
