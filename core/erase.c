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
static struct qc_l2_entry erased_entry(const struct qc_image *image,
                                       const struct qc_cluster *cluster, enum erase_kind kind)
{
    bool has_subclusters = qc_has_subclusters(&image->top.header);
    struct qc_l2_entry entry = {0, 0};

    if (image->top.header.version < 3 || (QC_SEED(below_shows) && kind == ERASE_DISCARD))
        return entry;
    if (image->layers_count == 1 && kind == ERASE_DISCARD)
        return entry;
    if (kind == ERASE_KEEP && cluster->is_ours)
        entry.word = cluster->host_off | QC_ENTRY_COPIED;
    if (has_subclusters)
        entry.bits = QC_SUBS_ZERO;
    else
        entry.word |= QC_ENTRY_ZERO;
    return entry;
}

static bool is_equal(const struct qc_l2_entry *a, const struct qc_l2_entry *b)
{
    return a->word == b->word && a->bits == b->bits;
}

/* The entry of a cluster of which only the subclusters [first, end) become zeros. */
static struct qc_l2_entry sub_erased_entry(const struct qc_cluster *cluster, uint64_t first,
                                           uint64_t end)
{
    struct qc_l2_entry entry = cluster->entry;

    for (uint64_t sub = first; sub < end; sub++)
        entry.bits = (entry.bits & ~QC_SUB_ALLOCATED(sub)) | QC_SUB_ZERO(sub);
    return entry;
}

static bool is_fresh(const struct qc_image *image, uint64_t guest_off)
{
    const struct qc_header *header = &image->top.header;
    const struct qc_record *record =
        qc_epoch_find(&image->epoch, QC_RECORD_ENTRY,
                      guest_off >> header->cluster_bits << qc_l2_words_bits(header));

    return record != NULL && (record->flags & QC_RECORD_FRESH) != 0;
}

/* Erases subclusters [first, end) of a cluster that is not compressed, or all of it. */
static qc_status erase_subs(struct qc_image *image, uint64_t guest_off, uint64_t first,
                            uint64_t end, enum erase_kind kind)
{
    bool is_whole = end - first == QC_SUBCLUSTERS, was_fresh;
    struct qc_cluster cluster;
    struct qc_l2_entry entry;
    struct qc_record *record;
    qc_status status = qc_cluster_look(image, guest_off, &cluster);

    if (status != QC_OK)
        return status;
    entry = is_whole ? erased_entry(image, &cluster, kind) : sub_erased_entry(&cluster, first, end);
    if (is_equal(&entry, &cluster.entry))
        return QC_OK;
    status = qc_own_l2(image, guest_off);
    if (status == QC_OK)
        status = qc_step_begin(image, QC_ENTRY_RECORDS + QC_HELD_CLUSTERS_MAX, false);
    /* Its L2 table may be ours only now, and a commit may have gone by: look again. */
    if (status == QC_OK)
        status = qc_cluster_look(image, guest_off, &cluster);
    if (status == QC_OK)
        status = qc_cluster_prepare(image, &cluster);
    if (status != QC_OK)
        return status;
    entry = is_whole ? erased_entry(image, &cluster, kind) : sub_erased_entry(&cluster, first, end);
    was_fresh = is_fresh(image, guest_off);
    record = qc_set_entry(image, guest_off, &entry);
    /* Other subclusters were written in this epoch: their bytes still go before the entry. */
    if (was_fresh && (entry.bits & QC_SUBS_ALLOCATED) != 0 && !QC_SEED(sub_unfresh)) {
        record->flags = QC_RECORD_FRESH;
        record->u.written.to = (uint16_t)(image->top.header.cluster_bytes / QC_SECTOR_BYTES);
    }
    if ((entry.word & QC_ENTRY_OFFSET_MASK) == 0)
        qc_cluster_drop(image, &cluster);
    return QC_OK;
}

static bool is_zeros(const struct qc_extent *run)
{
    return run->kind == QC_EXTENT_UNALLOCATED || run->kind == QC_EXTENT_ZERO;
}

/* A raw data file has the guest's bytes even for readers that know no tables: they are written. */
static bool is_raw_kept(const struct qc_image *image)
{
    return (image->top.header.autoclear & QC_AUTOCLEAR_RAW_DATA) != 0;
}

/*
 * Whether what the map calls zeros is zeros in a raw data file too: a write that failed, or whose
 * entry a cut took back, may have left its bytes there. Other files need not be asked.
 */
static qc_status is_raw_zero(struct qc_image *image, uint64_t guest_off, uint64_t len,
                             bool *ret_is_zero)
{
    struct qc_disk *data = image->top.data;
    const uint8_t *staging = image->cache->staging;
    qc_status status;

    *ret_is_zero = true;
    if (!is_raw_kept(image))
        return QC_OK;
    status = data->ops->read(data, guest_off, image->cache->staging, (size_t)len);
    if (status != QC_OK)
        return qc_fail(&image->detail, status, "data at %x cannot be read", guest_off);
    *ret_is_zero = staging[0] == 0 && __builtin_memcmp(staging, staging + 1, len - 1) == 0;
    return QC_OK;
}

/* How much at guest_off is alike, as much as is written in one go, and whether it is zeros. */
static QC_APART qc_status find_zeros(struct qc_image *image, uint64_t guest_off, uint64_t len,
                                     uint64_t *ret_len, bool *ret_is_zero)
{
    struct qc_extent run;
    qc_status status = qc_map_run(image, guest_off, len, &run);

    if (status != QC_OK)
        return status;
    *ret_is_zero = is_zeros(&run);
    if (!*ret_is_zero || is_raw_kept(image))
        run.len = qc_min(run.len, qc_min(ZEROS_BYTES, image->cache->staging_bytes));
    *ret_len = run.len;
    return *ret_is_zero ? is_raw_zero(image, guest_off, run.len, ret_is_zero) : QC_OK;
}

/* Part of a cluster, or all of it: what is not zeros already is written. */
static qc_status zero_part(struct qc_image *image, uint64_t guest_off, uint64_t len)
{
    for (uint64_t done = 0, part; done < len; done += part) {
        bool is_zero;
        qc_status status = find_zeros(image, guest_off + done, len - done, &part, &is_zero);

        if (status == QC_OK && !is_zero)
            status = qc_write_sectors(image, guest_off + done, zeros, part);
        if (status != QC_OK)
            return status;
    }
    return QC_OK;
}

/* How much at guest_off, at most len, reads as zeros in all layers and has no cluster here. */
static QC_APART qc_status find_hole(struct qc_image *image, uint64_t guest_off,
                                    uint64_t cluster_len, uint64_t len, uint64_t *ret_len)
{
    struct qc_extent own, run;
    qc_status status = qc_map_layer(image, 0, guest_off, cluster_len, &own);

    *ret_len = 0;
    if (status != QC_OK || own.kind != QC_EXTENT_UNALLOCATED || is_raw_kept(image))
        return status;
    status = qc_map_layer(image, 0, guest_off, len, &own);
    if (status == QC_OK)
        status = qc_map_run(image, guest_off, own.len, &run);
    if (status == QC_OK && is_zeros(&run))
        *ret_len = run.len;
    return status;
}

/*
 * Whole clusters, at most len bytes; *ret_done is how much was. What the image has no cluster for
 * and reads as zeros is passed over in one stride; of all else only the first cluster is looked at.
 */
static qc_status erase_whole(struct qc_image *image, uint64_t guest_off, uint64_t cluster_len,
                             uint64_t len, enum erase_kind kind, uint64_t *ret_done)
{
    bool has_mark =
        (image->top.header.version >= 3 || image->layers_count == 1) && !is_raw_kept(image);
    uint64_t hole_len;
    qc_status status = find_hole(image, guest_off, cluster_len, len, &hole_len);

    *ret_done = cluster_len;
    if (status != QC_OK)
        return status;
    if (hole_len >= cluster_len) {
        *ret_done = hole_len == len ? len : hole_len & ~QC_U(image->top.header.cluster_bytes - 1);
        return QC_OK;
    }
    if (has_mark)
        return erase_subs(image, guest_off, 0, QC_SUBCLUSTERS, kind);
    /*
     * Version 2 cannot say "zeros" over a layer below, nor can a raw data file: a discard is
     * declined there, zeros are written.
     */
    return kind == ERASE_DISCARD ? QC_OK : zero_part(image, guest_off, cluster_len);
}

/*
 * Part of a cluster that becomes zeros: whole subclusters by their marks, what is left by writing.
 * *ret_done is how much was done.
 */
static QC_APART qc_status zero_some(struct qc_image *image, uint64_t guest_off, uint64_t len,
                                    uint64_t *ret_done)
{
    const struct qc_header *header = &image->top.header;
    uint64_t sub_bytes = header->cluster_bytes >> QC_SUBCLUSTER_BITS;
    uint64_t in_cluster = guest_off & (header->cluster_bytes - 1);
    uint64_t in_sub = in_cluster & (sub_bytes - 1);
    uint64_t first = in_cluster / sub_bytes, end = (in_cluster + len) / sub_bytes;
    struct qc_cluster *cluster = (struct qc_cluster *)image->work[1];
    qc_status status;

    *ret_done = len;
    if (!qc_has_subclusters(header) || is_raw_kept(image))
        return zero_part(image, guest_off, len);
    status = qc_cluster_look(image, guest_off, cluster);
    if (status != QC_OK)
        return status;
    if (cluster->kind == QC_EXTENT_COMPRESSED)
        return zero_part(image, guest_off, len);
    if (in_sub != 0 || first == end) {
        *ret_done = qc_min(len, sub_bytes - in_sub);
        return zero_part(image, guest_off, *ret_done);
    }
    *ret_done = (end - first) * sub_bytes;
    return erase_subs(image, guest_off - in_cluster, first, end, ERASE_KEEP);
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
            status = zero_some(image, guest_off, part, &part);
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
