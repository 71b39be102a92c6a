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
#include "map.h"
#include "seeded.h"

#define ZEROS_BYTES 16384u

static uint8_t zeros[ZEROS_BYTES]; /* never written */

enum erase_kind { ERASE_DISCARD, ERASE_UNMAP, ERASE_KEEP };

/*
 * The entry that a cluster gets. Version 2 has no flag; without a layer below a hole reads as zeros
 * too.
 */
static uint64_t erased_entry(const struct qc_image *image, const struct qc_cluster *cluster,
                             enum erase_kind kind)
{
    if (image->top.header.version < 3 || (QC_SEED(below_shows) && kind == ERASE_DISCARD))
        return 0;
    if (image->layers_count == 1 && (kind == ERASE_DISCARD || cluster->entry == 0))
        return 0;
    if (kind == ERASE_KEEP && cluster->is_ours)
        return cluster->host_off | QC_ENTRY_ZERO | QC_ENTRY_COPIED;
    return QC_ENTRY_ZERO;
}

static qc_status erase_cluster(struct qc_image *image, uint64_t guest_off, enum erase_kind kind)
{
    struct qc_cluster cluster;
    uint64_t entry;
    qc_status status = qc_cluster_look(image, guest_off, &cluster);

    if (status != QC_OK || erased_entry(image, &cluster, kind) == cluster.entry)
        return status;
    status = qc_own_l2(image, guest_off);
    if (status == QC_OK)
        status = qc_step_begin(image, 1 + QC_HELD_CLUSTERS_MAX, false);
    /* Its L2 table may be ours only now, and a commit may have gone by: look again. */
    if (status == QC_OK)
        status = qc_cluster_look(image, guest_off, &cluster);
    if (status == QC_OK)
        status = qc_cluster_prepare(image, &cluster);
    if (status != QC_OK)
        return status;
    entry = erased_entry(image, &cluster, kind);
    qc_set_entry(image, guest_off, entry);
    if ((entry & QC_ENTRY_OFFSET_MASK) == 0)
        qc_cluster_drop(image, &cluster);
    return QC_OK;
}

static bool is_zeros(const struct qc_extent *run)
{
    return run->kind == QC_EXTENT_UNALLOCATED || run->kind == QC_EXTENT_ZERO;
}

/* Part of a cluster, or all of it: what is not zeros already is written. */
static qc_status zero_part(struct qc_image *image, uint64_t guest_off, uint64_t len)
{
    for (uint64_t done = 0; done < len;) {
        struct qc_extent run;
        qc_status status = qc_map_run(image, guest_off + done, len - done, &run);

        if (status == QC_OK && !is_zeros(&run)) {
            run.len = qc_min(run.len, ZEROS_BYTES);
            status = qc_write_sectors(image, guest_off + done, zeros, run.len);
        }
        if (status != QC_OK)
            return status;
        done += run.len;
    }
    return QC_OK;
}

/*
 * Whole clusters, at most len bytes; *ret_done is how much was. What the image has no cluster for
 * and reads as zeros is passed over in one stride; of all else only the first cluster is looked at.
 */
static qc_status erase_whole(struct qc_image *image, uint64_t guest_off, uint64_t cluster_len,
                             uint64_t len, enum erase_kind kind, uint64_t *ret_done)
{
    bool has_mark = image->top.header.version >= 3 || image->layers_count == 1;
    struct qc_extent own, run;
    qc_status status = qc_map_layer(image, 0, guest_off, cluster_len, &own);

    *ret_done = cluster_len;
    if (status == QC_OK && own.kind == QC_EXTENT_UNALLOCATED) {
        status = qc_map_layer(image, 0, guest_off, len, &own);
        if (status == QC_OK)
            status = qc_map_run(image, guest_off, own.len, &run);
        if (status == QC_OK && is_zeros(&run) && run.len >= cluster_len) {
            *ret_done = run.len == len ? len : run.len & ~QC_U(image->top.header.cluster_bytes - 1);
            return QC_OK;
        }
    }
    if (status != QC_OK)
        return status;
    if (has_mark)
        return erase_cluster(image, guest_off, kind);
    /* Version 2 cannot say "zeros" over a layer below: a discard is declined, zeros are written. */
    return kind == ERASE_DISCARD ? QC_OK : zero_part(image, guest_off, cluster_len);
}

static qc_status erase(struct qc_image *image, uint64_t guest_off, uint64_t len,
                       enum erase_kind kind)
{
    uint64_t cluster_bytes = image->top.header.cluster_bytes;
    uint64_t guest_end = qc_size(image);
    uint64_t stride = cluster_bytes; /* as far as a hole is looked for; doubled while one goes on */
    qc_status status = qc_begin_change(image, guest_off, len);

    for (uint64_t part; status == QC_OK && len > 0; guest_off += part, len -= part) {
        uint64_t in_cluster = guest_off & (cluster_bytes - 1);

        part = qc_min(len, cluster_bytes - in_cluster);
        if (in_cluster == 0 && (part == cluster_bytes || guest_off + part == guest_end)) {
            status = erase_whole(image, guest_off, part, qc_min(len, stride), kind, &part);
            stride = part >= stride ? 2 * stride : cluster_bytes;
        } else if (kind != ERASE_DISCARD) {
            status = zero_part(image, guest_off, part);
        }
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
