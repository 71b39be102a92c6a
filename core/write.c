/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The loop that writes: each turn is one step, either in place or into clusters taken for it.
 *
 * Rule R8: within a step the order is data written, entry recorded, old reference dropped; all
 * records were reserved and all counts read before. Rule R11: a write that fails gives back only
 * the clusters it took itself, through quarantine, and leaves every other cluster's record as it
 * was. Rule R1: bytes around the written ones that are not zeros are copied here, at the write.
 */
#include "write.h"

#include "alloc.h"
#include "bytes.h"
#include "change.h"
#include "cluster.h"
#include "commit.h"
#include "compose.h"
#include "counts.h"
#include "map.h"
#include "patch.h"
#include "seeded.h"

static uint64_t in_cluster_of(const struct qc_image *image, uint64_t guest_off)
{
    return guest_off & (image->top.header.cluster_bytes - 1);
}

/* Sectors [from, to) of a fresh cluster were just written: one interval without holes. */
static void note_written(struct qc_record *record, uint64_t from, uint64_t to)
{
    if (record->u.written.from > from || record->u.written.from == record->u.written.to)
        record->u.written.from = (uint16_t)from;
    if (record->u.written.to < to)
        record->u.written.to = (uint16_t)to;
}

static struct qc_record *fresh_record(struct qc_image *image, uint64_t guest_off)
{
    const struct qc_header *header = &image->top.header;
    struct qc_record *record =
        qc_epoch_find(&image->epoch, QC_RECORD_ENTRY,
                      guest_off >> header->cluster_bits << qc_l2_words_bits(header));

    return record != NULL && (record->flags & QC_RECORD_FRESH) ? record : NULL;
}

/* A write that would leave a second hole in a fresh cluster fills the one before it at once. */
static qc_status fill_gap(struct qc_image *image, uint64_t guest_off, uint64_t len)
{
    struct qc_record *record = fresh_record(image, guest_off);
    uint64_t in_cluster = in_cluster_of(image, guest_off);
    uint64_t start = in_cluster / QC_SECTOR_BYTES;
    uint64_t end =
        start + qc_min(len, image->top.header.cluster_bytes - in_cluster) / QC_SECTOR_BYTES;
    uint64_t gap_from, gap_to;
    qc_status status = QC_OK;

    if (record == NULL)
        return QC_OK;
    if (end < record->u.written.from) {
        gap_from = end;
        gap_to = record->u.written.from;
    } else if (start > record->u.written.to) {
        gap_from = record->u.written.to;
        gap_to = start;
    } else {
        return QC_OK;
    }
    if (!(record->flags & QC_RECORD_CLEAN))
        status = qc_write_zeros(image,
                                (record->value & QC_ENTRY_OFFSET_MASK) + gap_from * QC_SECTOR_BYTES,
                                (gap_to - gap_from) * QC_SECTOR_BYTES);
    if (status == QC_OK)
        note_written(record, gap_from, gap_to);
    return status;
}

/* Extends the written interval of every fresh cluster that the piece covers. */
static void note_piece(struct qc_image *image, const struct qc_piece *piece)
{
    for (uint64_t done = 0, part; done < piece->len; done += part) {
        uint64_t in_cluster = in_cluster_of(image, piece->guest_off + done);
        struct qc_record *record = fresh_record(image, piece->guest_off + done);

        part = qc_min(piece->len - done, image->top.header.cluster_bytes - in_cluster);
        if (record != NULL)
            note_written(record, in_cluster / QC_SECTOR_BYTES,
                         (in_cluster + part) / QC_SECTOR_BYTES);
    }
}

/* A write that failed may have landed: what was not written there is not zeros any more. */
static void forget_clean(struct qc_image *image, const struct qc_piece *piece)
{
    uint64_t off = piece->guest_off - in_cluster_of(image, piece->guest_off);

    for (; off < piece->guest_off + piece->len; off += image->top.header.cluster_bytes) {
        struct qc_record *record = fresh_record(image, off);

        if (record != NULL)
            record->flags &= (uint8_t)~QC_RECORD_CLEAN;
    }
}

/* Writes into clusters that are ours already; merges those that neighbour on the host. */
static QC_APART qc_status write_in_place(struct qc_image *image, struct qc_piece *piece,
                                         const struct qc_cluster *first)
{
    uint64_t cluster_bytes = image->top.header.cluster_bytes;
    uint64_t in_cluster = in_cluster_of(image, piece->guest_off);
    uint64_t len = qc_min(piece->len, cluster_bytes - in_cluster);
    uint64_t last_off;
    qc_status status;

    while (len < piece->len) {
        struct qc_cluster next;
        uint64_t part;

        if (qc_cluster_look(image, piece->guest_off + len, &next) != QC_OK) {
            qc_detail_clear(&image->detail); /* the next turn's error */
            image->is_to_be_marked = false;
            break;
        }
        part = qc_min(piece->len - len, cluster_bytes);
        if (!next.is_ours || !qc_is_plain(image, &next, 0, part) ||
            next.host_off != first->host_off + in_cluster + len)
            break;
        len += part;
    }
    piece->len = len;
    last_off = (piece->guest_off + len - 1) & ~(cluster_bytes - 1);
    status = fill_gap(image, piece->guest_off, len);
    if (status == QC_OK && last_off > piece->guest_off)
        status = fill_gap(image, last_off, piece->guest_off + len - last_off);
    if (status == QC_OK)
        status = qc_write_data(image, first->host_off + in_cluster, piece->buf, len);
    if (status == QC_OK)
        note_piece(image, piece);
    else
        forget_clean(image, piece);
    return status;
}

/* What one seeded bug does; not called otherwise. */
static void drop_kept(struct qc_image *image, const struct qc_cluster *cluster)
{
    uint64_t count;

    if (qc_count_prepare(image, cluster->host_off >> image->top.header.cluster_bits, &count) ==
        QC_OK)
        qc_count_drop(image, cluster->host_off >> image->top.header.cluster_bits);
}

/* Writes into the cluster that a "reads as zeros" entry keeps. */
static QC_APART qc_status write_kept(struct qc_image *image, struct qc_piece *piece)
{
    uint64_t in_cluster = in_cluster_of(image, piece->guest_off);
    struct qc_cluster cluster;
    qc_status status = qc_step_begin(image, QC_ENTRY_RECORDS, false);

    piece->len = qc_min(piece->len, image->top.header.cluster_bytes - in_cluster);
    if (status == QC_OK)
        status = qc_cluster_look(image, piece->guest_off, &cluster);
    if (status == QC_OK) {
        status = qc_write_data(image, cluster.host_off + in_cluster, piece->buf, piece->len);
        if (QC_SEED(undo_kept) && status != QC_OK)
            drop_kept(image, &cluster);
    }
    if (status != QC_OK)
        return status;
    cluster.entry.word = cluster.host_off | QC_ENTRY_COPIED;
    qc_set_entry(image, piece->guest_off, &cluster.entry)->flags = QC_RECORD_FRESH;
    note_piece(image, piece);
    return QC_OK;
}

/* An entry whose every byte is accounted for, but which may not precede them on the disk. */
static void set_whole_entry(struct qc_image *image, uint64_t guest_off,
                            const struct qc_l2_entry *entry)
{
    struct qc_record *record = qc_set_entry(image, guest_off, entry);

    record->flags = QC_RECORD_FRESH;
    note_written(record, 0, image->top.header.cluster_bytes / QC_SECTOR_BYTES);
}

/* Writes subclusters that a cluster of ours has room for and does not use yet. */
static QC_APART qc_status write_subclusters(struct qc_image *image, struct qc_piece *piece)
{
    uint64_t in_cluster = in_cluster_of(image, piece->guest_off);
    struct qc_cluster cluster;
    struct qc_rest rest;
    qc_status status = qc_step_begin(image, QC_ENTRY_RECORDS, false);

    piece->len = qc_min(piece->len, image->top.header.cluster_bytes - in_cluster);
    if (status == QC_OK)
        status = qc_cluster_look(image, piece->guest_off, &cluster);
    if (status != QC_OK)
        return status;
    qc_find_sub_rest(image, piece, &cluster, &rest);
    status = qc_write_composed(image, piece, &rest, cluster.host_off + in_cluster);
    if (status != QC_OK)
        return status;
    cluster.entry.bits = qc_written_bits(image, piece, &rest, 0, 1, cluster.entry.bits);
    cluster.entry.word |= QC_ENTRY_COPIED;
    set_whole_entry(image, piece->guest_off, &cluster.entry);
    return QC_OK;
}

/* How many clusters of the piece from the first on need a new one, in one L2 table and one step. */
static QC_APART uint64_t count_new(struct qc_image *image, const struct qc_piece *piece)
{
    unsigned cluster_bits = image->top.header.cluster_bits;
    uint64_t first = piece->guest_off >> cluster_bits;
    uint64_t l2_clusters = QC_U(1) << (qc_l2_reach_bits(&image->top.header) - cluster_bits);
    uint64_t l2_end = (first | (l2_clusters - 1)) + 1;
    uint64_t end = qc_units(piece->guest_off + piece->len, cluster_bits);
    uint64_t count = 1;

    end = qc_min(qc_min(end, l2_end), first + QC_STEP_CLUSTERS_MAX);
    for (; first + count < end; count++) {
        struct qc_cluster cluster;

        if (qc_cluster_look(image, (first + count) << cluster_bits, &cluster) != QC_OK) {
            qc_detail_clear(&image->detail); /* the next turn's error */
            image->is_to_be_marked = false;
            break;
        }
        if (cluster.is_ours)
            break;
    }
    return count;
}

static bool is_held(const struct qc_cluster *cluster, uint64_t host_cluster)
{
    return host_cluster - cluster->held_first < cluster->held_count;
}

/*
 * Entries of a damaged image may name one host cluster together more often than its count says;
 * olds[last] is the newest of them. Compressed clusters share host clusters and are counted alike.
 */
static qc_status check_shared(struct qc_image *image, const struct qc_cluster *olds, uint64_t last)
{
    for (uint32_t i = 0; i < olds[last].held_count; i++) {
        uint64_t host_cluster = olds[last].held_first + i, count;
        qc_status status = qc_count_get(image, host_cluster, &count);

        for (uint64_t k = 0; status == QC_OK && k <= last; k++) {
            if (is_held(&olds[k], host_cluster) && count-- == 0)
                status = qc_fail(&image->detail, QC_CORRUPT, "refcount out of range at %x",
                                 host_cluster << image->top.header.cluster_bits);
        }
        if (status != QC_OK)
            return status;
    }
    return QC_OK;
}

/* What the guest clusters keep until now, and all the reads that dropping it will need. */
static QC_APART qc_status prepare_olds(struct qc_image *image, uint64_t guest_off, uint64_t count,
                                       struct qc_cluster *olds)
{
    uint64_t cluster_bytes = image->top.header.cluster_bytes;

    for (uint64_t i = 0; i < count; i++) {
        qc_status status = qc_cluster_look(image, guest_off + i * cluster_bytes, &olds[i]);

        if (status == QC_OK)
            status = qc_cluster_prepare(image, &olds[i]);
        if (status == QC_OK)
            status = check_shared(image, olds, i);
        if (status != QC_OK)
            return status;
    }
    return QC_OK;
}

static void drop_olds(struct qc_image *image, uint64_t count, const struct qc_cluster *olds)
{
    for (uint64_t i = 0; i < count; i++)
        qc_cluster_drop(image, &olds[i]);
}

/* Publishes clusters that hold the piece: entries first, then the old references (rule R8). */
static QC_APART void record_taken(struct qc_image *image, const struct qc_piece *piece,
                                  const struct qc_rest *rest, uint64_t first, uint64_t count,
                                  const struct qc_cluster *olds, uint32_t flags)
{
    unsigned cluster_bits = image->top.header.cluster_bits;
    uint64_t guest_first = piece->guest_off >> cluster_bits;
    struct qc_piece whole = *piece;

    if (QC_SEED(mid_commit)) {
        drop_olds(image, count, olds);
        qc_commit(image);
    }
    for (uint64_t i = 0; i < count; i++) {
        uint64_t guest_off = (guest_first + i) << cluster_bits;
        struct qc_l2_entry entry = {(first + i) << cluster_bits | QC_ENTRY_COPIED, 0};

        if (qc_has_subclusters(&image->top.header)) {
            entry.bits =
                qc_written_bits(image, piece, rest, i, count, olds[i].entry.bits & QC_SUBS_ZERO);
            set_whole_entry(image, guest_off, &entry);
        } else {
            qc_set_entry(image, guest_off, &entry)->flags = flags & 0xff;
        }
    }
    if (rest->is_head_copied) {
        whole.guest_off -= rest->head;
        whole.len += rest->head;
    }
    if (rest->is_tail_copied)
        whole.len += rest->tail;
    note_piece(image, &whole);
    if (!QC_SEED(mid_commit))
        drop_olds(image, count, olds);
}

/* What one seeded bug does; not called otherwise. */
static qc_status copy_late(struct qc_image *image, const struct qc_piece *piece, uint64_t host_off,
                           const struct qc_cluster *old)
{
    uint32_t head = (uint32_t)in_cluster_of(image, piece->guest_off);
    uint32_t end = (uint32_t)(head + piece->len);
    uint32_t tail = image->top.header.cluster_bytes - end;
    uint8_t *staging = image->cache->staging;
    qc_status status = qc_commit(image);

    if (status == QC_OK && head > 0)
        status = image->top.disk->ops->read(image->top.disk, old->host_off, staging, head);
    if (status == QC_OK && head > 0)
        status = qc_write_data(image, host_off, staging, head);
    if (status == QC_OK && tail > 0)
        status = image->top.disk->ops->read(image->top.disk, old->host_off + end, staging, tail);
    return status == QC_OK && tail > 0 ? qc_write_data(image, host_off + end, staging, tail)
                                       : status;
}

/* A write that fails gives back what it took, through quarantine (rule R11). */
static void give_back(struct qc_image *image, uint64_t first, uint64_t count,
                      const struct qc_cluster *olds)
{
    for (uint64_t i = 0; i < count && !qc_has_data_file(&image->top); i++) {
        if (QC_SEED(free_named) && olds[i].host_off != 0)
            qc_count_drop(image, olds[i].host_off >> image->top.header.cluster_bits);
        qc_count_drop(image, first + i);
    }
}

/* Begins a step that takes clusters for the piece; in a data file they are there already. */
static qc_status take_clusters(struct qc_image *image, const struct qc_piece *piece,
                               uint64_t *ret_first, uint64_t *ret_count, bool *ret_is_clean)
{
    bool has_data_file = qc_has_data_file(&image->top);
    uint64_t wanted = count_new(image, piece);
    uint32_t records = (uint32_t)((1 + QC_ENTRY_RECORDS + QC_HELD_CLUSTERS_MAX) * wanted);
    qc_status status = qc_step_begin(image, records, !has_data_file);

    if (status != QC_OK || !has_data_file)
        return status == QC_OK ? qc_alloc_take(image, wanted, ret_first, ret_count, ret_is_clean)
                               : status;
    *ret_first = piece->guest_off >> image->top.header.cluster_bits;
    *ret_count = wanted;
    *ret_is_clean = false;
    return QC_OK;
}

_Static_assert(sizeof(struct qc_cluster) * QC_STEP_CLUSTERS_MAX <= QC_WORK_BYTES,
               "the clusters of a step fit");

static QC_APART qc_status write_new(struct qc_image *image, struct qc_piece *piece)
{
    struct qc_cluster *olds = (struct qc_cluster *)image->work[0];
    uint64_t cluster_bytes = image->top.header.cluster_bytes;
    uint64_t head = in_cluster_of(image, piece->guest_off);
    uint64_t first, count;
    struct qc_rest rest;
    bool is_clean, is_late = false;
    qc_status status = qc_own_l2(image, piece->guest_off);

    if (status == QC_OK)
        status = take_clusters(image, piece, &first, &count, &is_clean);
    if (status != QC_OK)
        return status;
    piece->len = qc_min(piece->len, count * cluster_bytes - head);
    status = prepare_olds(image, piece->guest_off - head, count, olds);
    if (status == QC_OK)
        status = qc_find_rest(image, piece, olds, count, &rest);
    if (QC_SEED(late_copy) && status == QC_OK && count == 1 && olds[0].host_off != 0) {
        is_late = rest.is_head_copied || rest.is_tail_copied;
        rest.is_head_copied = rest.is_tail_copied = false;
    }
    if (status == QC_OK)
        status = qc_write_composed(image, piece, &rest, first * cluster_bytes + head);
    if (status == QC_OK) {
        record_taken(image, piece, &rest, first, count, olds,
                     is_late ? 0 : QC_RECORD_FRESH | (is_clean ? QC_RECORD_CLEAN : 0));
        return is_late ? copy_late(image, piece, first * cluster_bytes, &olds[0]) : QC_OK;
    }
    if (QC_SEED(double_alloc))
        record_taken(image, piece, &rest, first, count, olds, QC_RECORD_FRESH);
    give_back(image, first, count, olds);
    return status;
}

/* One step of a write, which may cover less than the piece: piece->len says how much it did. */
static QC_APART qc_status write_step(struct qc_image *image, struct qc_piece *piece)
{
    uint64_t in_cluster = in_cluster_of(image, piece->guest_off);
    uint64_t len = qc_min(piece->len, image->top.header.cluster_bytes - in_cluster);
    struct qc_cluster *cluster = (struct qc_cluster *)image->work[1];
    qc_status status = qc_cluster_look(image, piece->guest_off, cluster);

    if (status != QC_OK)
        return status;
    if (!cluster->is_ours)
        return write_new(image, piece);
    if (qc_is_plain(image, cluster, in_cluster, len))
        return write_in_place(image, piece, cluster);
    return qc_has_subclusters(&image->top.header) ? write_subclusters(image, piece)
                                                  : write_kept(image, piece);
}

qc_status qc_write_sectors(struct qc_image *image, uint64_t guest_off, const void *buf,
                           uint64_t len)
{
    struct qc_piece piece = {.guest_off = guest_off, .buf = buf};
    qc_status status = QC_OK;

    while (status == QC_OK && len > 0) {
        piece.len = len;
        status = write_step(image, &piece);
        piece.guest_off += piece.len;
        piece.buf += piece.len;
        len -= piece.len;
    }
    return status;
}

qc_status qc_write(struct qc_image *image, uint64_t guest_off, const void *buf, size_t len)
{
    qc_status status = qc_begin_change(image, guest_off, len);

    if (status == QC_OK)
        status = qc_write_sectors(image, guest_off, buf, len);
    return qc_end_change(image, status);
}
