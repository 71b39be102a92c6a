/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See compose.h. Without subclusters a new cluster is whole: zeros around the piece are left to the
 * commit, all else is copied. With them only the subclusters that the piece touches are made whole;
 * of the others those that had bytes of their own in the old cluster come along, in one stretch.
 */
#include "compose.h"

#include "bytes.h"
#include "patch.h"
#include "read.h"
#include "seeded.h"

static uint64_t in_cluster_of(const struct qc_image *image, uint64_t guest_off)
{
    return guest_off & (image->top.header.cluster_bytes - 1);
}

/* Reads guest bytes; behind the end of the guest disk there are zeros. */
static qc_status read_padded(struct qc_image *image, uint64_t guest_off, uint8_t *buf, uint64_t len)
{
    uint64_t size = qc_size(image);
    uint64_t here = guest_off < size ? qc_min(len, size - guest_off) : 0;

    __builtin_memset(buf + here, 0, len - here);
    return qc_read_runs(image, guest_off, buf, here);
}

/* Copies guest bytes as they are now to the disk, through the staging buffer. */
static qc_status copy_guest(struct qc_image *image, uint64_t guest_off, uint64_t len,
                            uint64_t host_off)
{
    qc_status status = QC_OK;

    for (uint64_t part; status == QC_OK && len > 0; len -= part) {
        part = qc_min(len, image->cache->staging_bytes);
        status = read_padded(image, guest_off, image->cache->staging, part);
        if (status == QC_OK)
            status = qc_write_data(image, host_off, image->cache->staging, part);
        guest_off += part;
        host_off += part;
    }
    return status;
}

/* Whether guest bytes around a write must be copied: nothing says that they are zeros (rule R1). */
static qc_status find_copied(struct qc_image *image, uint64_t guest_off, uint64_t len,
                             bool *ret_is_copied)
{
    struct qc_extent run;
    qc_status status;

    *ret_is_copied = false;
    if (len == 0 || QC_SEED(no_copy))
        return QC_OK;
    status = qc_map_run(image, guest_off, len, &run);
    if (status != QC_OK)
        return status;
    if (run.depth > 0 && QC_SEED(no_copy_below))
        return QC_OK;
    /* A part that is zeros before one that is not is copied with it. */
    *ret_is_copied =
        run.len < len || run.kind == QC_EXTENT_DATA || run.kind == QC_EXTENT_COMPRESSED;
    return QC_OK;
}

static uint64_t sub_bytes_of(const struct qc_image *image)
{
    return image->top.header.cluster_bytes >> QC_SUBCLUSTER_BITS;
}

/* The subclusters of an old cluster that have bytes of their own: first, and behind the last. */
static void find_own_subs(const struct qc_cluster *old, unsigned *ret_first, unsigned *ret_end)
{
    uint32_t own = (uint32_t)(old->entry.bits & QC_SUBS_ALLOCATED);

    if (old->kind == QC_EXTENT_COMPRESSED)
        own = UINT32_MAX;
    *ret_first = own == 0 ? QC_SUBCLUSTERS : (unsigned)__builtin_ctz(own);
    *ret_end = own == 0 ? 0 : QC_SUBCLUSTERS - (unsigned)__builtin_clz(own);
}

static void find_rest_of_subs(const struct qc_image *image, const struct qc_piece *piece,
                              const struct qc_cluster *olds, uint64_t count,
                              struct qc_rest *ret_rest)
{
    uint64_t sub_bytes = sub_bytes_of(image);
    uint64_t start = in_cluster_of(image, piece->guest_off);
    uint64_t end = in_cluster_of(image, piece->guest_off + piece->len - 1) + 1;
    uint64_t from = start & ~(sub_bytes - 1), to = (end + sub_bytes - 1) & ~(sub_bytes - 1);
    unsigned first_sub, end_sub, ignored;

    find_own_subs(&olds[0], &first_sub, &ignored);
    find_own_subs(&olds[count - 1], &ignored, &end_sub);
    from = qc_min(from, first_sub * sub_bytes);
    if (to < end_sub * sub_bytes)
        to = end_sub * sub_bytes;
    *ret_rest = (struct qc_rest){.head = start - from, .tail = to - end};
    ret_rest->is_head_copied = ret_rest->head > 0 && !QC_SEED(no_sub_copy);
    ret_rest->is_tail_copied = ret_rest->tail > 0 && !QC_SEED(no_sub_copy);
}

qc_status qc_find_rest(struct qc_image *image, const struct qc_piece *piece,
                       const struct qc_cluster *olds, uint64_t count, struct qc_rest *ret_rest)
{
    uint64_t end = piece->guest_off + piece->len;
    struct qc_rest rest = {.head = in_cluster_of(image, piece->guest_off)};
    qc_status status;

    if (qc_has_subclusters(&image->top.header)) {
        find_rest_of_subs(image, piece, olds, count, ret_rest);
        return QC_OK;
    }
    status = find_copied(image, piece->guest_off - rest.head, rest.head, &rest.is_head_copied);
    rest.tail = qc_min(-end & (image->top.header.cluster_bytes - 1), qc_size(image) - end);
    if (status == QC_OK)
        status = find_copied(image, end, rest.tail, &rest.is_tail_copied);
    *ret_rest = rest;
    return status;
}

void qc_find_sub_rest(const struct qc_image *image, const struct qc_piece *piece,
                      const struct qc_cluster *cluster, struct qc_rest *ret_rest)
{
    uint64_t sub_bytes = sub_bytes_of(image);
    uint64_t start = in_cluster_of(image, piece->guest_off), end = start + piece->len;
    struct qc_rest rest = {0};

    if (!(cluster->entry.bits & QC_SUB_ALLOCATED(start / sub_bytes)))
        rest.head = start & (sub_bytes - 1);
    if (!(cluster->entry.bits & QC_SUB_ALLOCATED((end - 1) / sub_bytes)))
        rest.tail = -end & (sub_bytes - 1);
    rest.is_head_copied = rest.head > 0 && !QC_SEED(no_sub_copy);
    rest.is_tail_copied = rest.tail > 0 && !QC_SEED(no_sub_copy);
    *ret_rest = rest;
}

/* The piece between its copied bytes, put together in the staging buffer: one request. */
static qc_status write_at_once(struct qc_image *image, const struct qc_piece *piece, uint64_t head,
                               uint64_t tail, uint64_t host_off)
{
    uint8_t *staging = image->cache->staging;
    qc_status status;

    /* Both in one request, and between them what is then overwritten. */
    if (head > 0 && tail > 0)
        status = read_padded(image, piece->guest_off - head, staging, head + piece->len + tail);
    else if (head > 0)
        status = read_padded(image, piece->guest_off - head, staging, head);
    else
        status = read_padded(image, piece->guest_off + piece->len, staging + piece->len, tail);
    if (status != QC_OK)
        return status;
    __builtin_memcpy(staging + head, piece->buf, piece->len);
    return qc_write_data(image, host_off - head, staging, head + piece->len + tail);
}

qc_status qc_write_composed(struct qc_image *image, const struct qc_piece *piece,
                            const struct qc_rest *rest, uint64_t host_off)
{
    uint64_t end = piece->guest_off + piece->len;
    uint64_t head = rest->is_head_copied ? rest->head : 0;
    uint64_t tail = rest->is_tail_copied ? rest->tail : 0;
    qc_status status = QC_OK;

    /* A data file ends with the guest disk, which may be within a cluster. */
    if (qc_has_data_file(&image->top))
        tail = qc_min(tail, qc_size(image) - end);
    if (head + tail > 0 && head + piece->len + tail <= image->cache->staging_bytes)
        return write_at_once(image, piece, head, tail, host_off);
    if (head > 0)
        status = copy_guest(image, piece->guest_off - head, head, host_off - head);
    if (status == QC_OK && tail > 0)
        status = copy_guest(image, end, tail, host_off + piece->len);
    if (status == QC_OK)
        status = qc_write_data(image, host_off, piece->buf, piece->len);
    return status;
}

uint64_t qc_written_bits(const struct qc_image *image, const struct qc_piece *piece,
                         const struct qc_rest *rest, uint64_t index, uint64_t count, uint64_t bits)
{
    uint64_t sub_bytes = sub_bytes_of(image);
    uint64_t end = in_cluster_of(image, piece->guest_off + piece->len - 1) + 1 + rest->tail;
    uint64_t first = 0, last = QC_SUBCLUSTERS - 1;

    if (index == 0)
        first = (in_cluster_of(image, piece->guest_off) - rest->head) / sub_bytes;
    if (index == count - 1)
        last = (end - 1) / sub_bytes;
    for (uint64_t sub = first; sub <= last; sub++)
        bits = (bits & ~QC_SUB_ZERO(sub)) | QC_SUB_ALLOCATED(sub);
    return bits;
}

bool qc_is_plain(const struct qc_image *image, const struct qc_cluster *cluster,
                 uint64_t in_cluster, uint64_t len)
{
    uint64_t sub_bytes = sub_bytes_of(image);

    if (cluster->kind != QC_EXTENT_DATA)
        return QC_SEED(packed_in_place) && cluster->kind == QC_EXTENT_COMPRESSED;
    if (!qc_has_subclusters(&image->top.header))
        return true;
    for (uint64_t sub = in_cluster / sub_bytes; sub <= (in_cluster + len - 1) / sub_bytes; sub++) {
        if (!(cluster->entry.bits & QC_SUB_ALLOCATED(sub)))
            return false;
    }
    return true;
}
