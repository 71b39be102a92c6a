/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The three stages; commit.h tells what they promise. Records are sorted once, by kind and place,
 * so that each stage walks its part in the order of the disk.
 *
 * Rule R4 is kept by what is not here: no record is dropped, compared away or changed between the
 * first write that carries it and the flush that ends stage 3.
 */
#include "commit.h"

#include "blank.h"
#include "bytes.h"
#include "counts.h"
#include "map.h"
#include "patch.h"
#include "seeded.h"
#include "sure.h"

#define HEADER_REFTABLE_OFF   48u
#define HEADER_REFTABLE_BYTES 12u

struct survey {
    bool has_pointers, has_roots, has_new, has_fresh, has_raised;
};

/* Gives every record its place on the disk. Reads tables; changes nothing else. */
static qc_status place_records(struct qc_image *image, struct survey *ret_survey)
{
    struct survey survey = {0};
    unsigned reach_bits = qc_block_reach_bits(image);

    for (uint32_t i = 0; i < image->epoch.records_count; i++) {
        struct qc_record *record = qc_epoch_at(&image->epoch, i);
        uint64_t key = qc_record_key(record), table_off;
        qc_status status = QC_OK;

        switch (qc_record_kind(record)) {
        case QC_RECORD_COUNT:
            status = qc_block_find(image, key >> reach_bits, &table_off);
            if (status == QC_OK && table_off == 0 && (record->flags & QC_RECORD_WRITE))
                return qc_fail(&image->detail, QC_CORRUPT, "bad refcount block");
            record->place =
                table_off +
                ((key & ((QC_U(1) << reach_bits) - 1)) << image->top.header.refcount_order >> 3);
            survey.has_raised |= (record->flags & QC_RECORD_RAISED) != 0;
            break;
        case QC_RECORD_ROOT:
            record->place = qc_reftable_off(image) + key * 8;
            survey.has_roots = true;
            break;
        case QC_RECORD_ENTRY:
            status = qc_map_place_entry(image, record);
            survey.has_pointers = true;
            survey.has_fresh |= (record->flags & QC_RECORD_FRESH) != 0;
            break;
        case QC_RECORD_L1:
            survey.has_pointers = true;
            survey.has_new |= (record->flags & QC_RECORD_NEW) != 0;
            break;
        }
        if (status != QC_OK)
            return status;
    }
    survey.has_roots |= image->grown_reftable.clusters != 0;
    *ret_survey = survey;
    return QC_OK;
}

qc_status qc_flush_disk(struct qc_image *image)
{
    struct qc_disk *data = image->top.data;
    qc_status status = QC_OK;

    /* What tables name lies in the data file, which is another disk: it goes first. */
    if (qc_has_data_file(&image->top) && image->is_data_unflushed && !QC_SEED(data_unflushed))
        status = data->ops->flush(data);
    if (status == QC_OK)
        status = image->top.disk->ops->flush(image->top.disk);
    if (status != QC_OK && !QC_SEED(silent_flush)) {
        /* Nobody knows what the disk kept: what the epoch names must never be published. */
        image->is_failed = true;
        return qc_fail(&image->detail, QC_IO, "the disk failed to flush: read-only");
    }
    image->is_unflushed = false;
    image->is_data_unflushed = false;
    return QC_OK;
}

/* Zeros for the sectors of fresh clusters that were never written (invariant 3, rule R1). */
static QC_APART qc_status fill_fresh(struct qc_image *image)
{
    uint32_t cluster_bytes = image->top.header.cluster_bytes;

    for (uint32_t i = 0; i < image->epoch.records_count; i++) {
        struct qc_record *record = qc_epoch_at(&image->epoch, i);
        uint64_t host_off = record->value & QC_ENTRY_OFFSET_MASK;
        qc_status status;

        if (qc_record_kind(record) != QC_RECORD_ENTRY || !(record->flags & QC_RECORD_FRESH))
            continue;
        if (!(record->flags & QC_RECORD_CLEAN) && !QC_SEED(no_fill)) {
            uint32_t from = record->u.written.from * QC_SECTOR_BYTES;
            uint32_t to = record->u.written.to * QC_SECTOR_BYTES;
            uint64_t end = cluster_bytes;

            /* A data file ends with the guest disk, which may be within a cluster. */
            if (qc_has_data_file(&image->top))
                end = qc_min(end, qc_size(image) - host_off);
            status = qc_write_zeros(image, host_off, from);
            if (status == QC_OK && to < end)
                status = qc_write_zeros(image, host_off + to, end - to);
            if (status != QC_OK)
                return status;
        }
        record->u.written.from = 0;
        record->u.written.to = (uint16_t)(cluster_bytes / QC_SECTOR_BYTES);
    }
    return QC_OK;
}

/* Every table that nobody points at yet, whole. */
static qc_status write_new_tables(struct qc_image *image)
{
    uint64_t old_bytes = QC_U(image->top.header.reftable_clusters)
                         << image->top.header.cluster_bits;
    qc_status status = QC_OK;

    for (uint32_t i = 0; i < image->epoch.records_count && status == QC_OK; i++) {
        const struct qc_record *record = qc_epoch_at(&image->epoch, i);

        if (qc_record_kind(record) == QC_RECORD_ROOT && (record->flags & QC_RECORD_NEW))
            status = qc_patch_new_table(image, QC_RECORD_COUNT, record->value,
                                        image->top.header.cluster_bytes, 0, 0);
    }
    if (status == QC_OK && image->grown_reftable.is_new)
        status = qc_patch_new_table(image, QC_RECORD_ROOT, image->grown_reftable.host_off,
                                    QC_U(image->grown_reftable.clusters)
                                        << image->top.header.cluster_bits,
                                    image->top.header.reftable_off, old_bytes);
    if (status != QC_OK || image->epoch.kind_counts[QC_RECORD_L1] == 0)
        return status;
    qc_epoch_sort_l1(&image->epoch, true);
    status = qc_patch_new_l2(image);
    qc_epoch_sort_l1(&image->epoch, false);
    return status;
}

/* Rule R2: what stage 1's flush made durable is never written whole again. */
static void freeze_new_tables(struct qc_image *image)
{
    image->grown_reftable.is_new = false;
    for (uint32_t i = 0; i < image->epoch.records_count; i++)
        qc_epoch_at(&image->epoch, i)->flags &= (uint8_t)~QC_RECORD_NEW;
}

/* What two seeded bugs do; not called otherwise. */
static void lose_quarantine(struct qc_image *image)
{
    image->quarantine_count = 0;
    for (uint32_t i = 0; i < image->epoch.records_count; i++)
        qc_epoch_at(&image->epoch, i)->flags &= (uint8_t)~QC_RECORD_QUARANTINE;
}

/* What a seeded bug does; not called otherwise. */
static bool keep_none(struct qc_record *record, void *context)
{
    (void)record;
    (void)context;
    return false;
}

static qc_status stage_targets(struct qc_image *image, const struct survey *survey)
{
    qc_status status = QC_SEED(late_fill) ? QC_OK : fill_fresh(image);

    if (status == QC_OK && !QC_SEED(late_counts))
        status = qc_patch_tables(image, QC_RECORD_COUNT);
    if (status == QC_OK)
        status = write_new_tables(image);
    if (status == QC_OK && QC_SEED(early_l1))
        status = qc_patch_tables(image, QC_RECORD_L1);
    if (status == QC_OK && QC_SEED(early_root))
        status = qc_patch_tables(image, QC_RECORD_ROOT);
    if (status != QC_OK || QC_SEED(no_flush1))
        return status;
    if (QC_SEED(skip_empty) && !survey->has_raised && !survey->has_new && !survey->has_roots)
        return status;
    /* Rule R9: only an epoch that adds nothing can do without this barrier. */
    if (survey->has_fresh || survey->has_raised || survey->has_new || survey->has_roots)
        status = qc_flush_disk(image);
    if (status == QC_OK && !QC_SEED(rewrite_new))
        freeze_new_tables(image);
    if (status == QC_OK && QC_SEED(release_early))
        lose_quarantine(image);
    return status;
}

static qc_status stage_roots(struct qc_image *image, bool was_written_whole)
{
    uint8_t field[HEADER_REFTABLE_BYTES];
    qc_status status = was_written_whole ? QC_OK : qc_patch_tables(image, QC_RECORD_ROOT);

    if (status == QC_OK && image->grown_reftable.clusters != 0) {
        qc_put_be64(field, image->grown_reftable.host_off);
        qc_put_be32(field + 8, image->grown_reftable.clusters);
        status = qc_patch_header(image, HEADER_REFTABLE_OFF, field, sizeof(field));
    }
    if (QC_SEED(no_flush2))
        return status;
    return status == QC_OK ? qc_flush_disk(image) : status;
}

static qc_status stage_pointers(struct qc_image *image)
{
    qc_status status = qc_patch_tables(image, QC_RECORD_ENTRY);

    if (status == QC_OK)
        status = qc_patch_tables(image, QC_RECORD_L1);
    if (status == QC_OK && QC_SEED(late_counts))
        status = qc_patch_tables(image, QC_RECORD_COUNT);
    if (status == QC_OK && QC_SEED(late_fill))
        status = fill_fresh(image);
    if (QC_SEED(no_flush3)) {
        image->is_unflushed = false;
        return status;
    }
    return status == QC_OK ? qc_flush_disk(image) : status;
}

/* Lets a released cluster go: it may be taken again, and the host may have its bytes back. */
static void release(struct qc_image *image, uint64_t first, uint64_t count)
{
    struct qc_disk *disk = image->top.disk;
    uint64_t host_off = first << image->top.header.cluster_bits;

    if (count == 0)
        return;
    if (image->free_hint > first)
        image->free_hint = first;
    /* Packed bytes may lie in a last cluster that the disk has only in part. */
    if (disk->ops->trim != NULL && host_off < disk->size_bytes)
        disk->ops->trim(
            disk, host_off,
            qc_min(count << image->top.header.cluster_bits, disk->size_bytes - host_off));
}

static bool keep_lowered(struct qc_record *record, void *context)
{
    (void)context;
    if (qc_record_kind(record) != QC_RECORD_COUNT || record->u.lost == 0)
        return false;
    record->value -= record->u.lost;
    record->u.lost = 0;
    record->flags = QC_RECORD_WRITE | (QC_SEED(late_trim) ? QC_RECORD_SEEDED : 0);
    return true;
}

/* New tables are on the disk as they were written: their entries, and else zeros. */
static void learn_tables(struct qc_image *image)
{
    uint32_t count = image->epoch.records_count;

    if (image->epoch.kind_counts[QC_RECORD_L1] == 0)
        return;
    if (!QC_SEED(stale_tag))
        qc_cache_untag_all(image->cache);
    for (uint32_t i = count - image->epoch.kind_counts[QC_RECORD_L1]; i < count; i++) {
        const struct qc_record *l1 = qc_epoch_at(&image->epoch, i);

        if (l1->place == 0)
            qc_blank_add(image, l1->value);
    }
    for (uint32_t i = 0; i < count; i++) {
        const struct qc_record *record = qc_epoch_at(&image->epoch, i);

        if (qc_record_kind(record) == QC_RECORD_ENTRY)
            qc_blank_written(image, record->place);
    }
}

/* After stage 3's flush: everything is durable, the epoch empties. */
static QC_APART void publish(struct qc_image *image)
{
    uint64_t first = 0, count = 0;

    for (uint32_t i = 0; i < image->epoch.records_count; i++) {
        const struct qc_record *record = qc_epoch_at(&image->epoch, i);

        if (qc_record_kind(record) != QC_RECORD_COUNT ||
            !(record->flags & (QC_SEED(late_trim) ? QC_RECORD_SEEDED : QC_RECORD_QUARANTINE)))
            continue;
        if (qc_record_key(record) != first + count) {
            release(image, first, count);
            first = qc_record_key(record);
            count = 0;
        }
        count++;
    }
    release(image, first, count);
    if (image->grown_reftable.clusters != 0) {
        image->top.header.reftable_off = image->grown_reftable.host_off;
        image->top.header.reftable_clusters = image->grown_reftable.clusters;
        image->grown_reftable.clusters = 0;
        image->grown_reftable.host_off = 0;
    }
    image->quarantine_count = 0;
    image->is_raised = false;
    learn_tables(image);
    qc_epoch_retain(&image->epoch, keep_lowered, NULL);
}

bool qc_has_changes(const struct qc_image *image)
{
    const uint32_t *counts = image->epoch.kind_counts;

    return counts[QC_RECORD_ROOT] + counts[QC_RECORD_ENTRY] + counts[QC_RECORD_L1] > 0 ||
           image->quarantine_count > 0 || image->is_raised;
}

qc_status qc_commit(struct qc_image *image)
{
    struct survey survey;
    bool was_written_whole = image->grown_reftable.is_new;
    qc_status status;

    if (image->is_failed)
        return qc_fail(&image->detail, QC_READONLY, "the disk failed to flush: read-only");
    status = qc_sure(image, image->epoch.fault == NULL, image->epoch.fault);
    if (status != QC_OK)
        return status;
    status = place_records(image, &survey);
    if (status != QC_OK)
        return status;
    qc_epoch_sort(&image->epoch);
    status = stage_targets(image, &survey);
    if (status == QC_OK && survey.has_roots)
        status = stage_roots(image, was_written_whole);
    if (status == QC_OK && survey.has_pointers)
        status = stage_pointers(image);
    /* Data written in place, or counts that only a failed write raised. */
    if (status == QC_OK && image->is_unflushed)
        status = qc_flush_disk(image);
    if (status == QC_OK)
        publish(image);
    if (status != QC_OK && QC_SEED(lose_quarantine))
        lose_quarantine(image);
    if (status != QC_OK && QC_SEED(lose_epoch)) {
        image->grown_reftable.clusters = 0;
        lose_quarantine(image);
        qc_epoch_retain(&image->epoch, keep_none, NULL);
    }
    return status;
}

qc_status qc_settle_counts(struct qc_image *image)
{
    qc_status status = qc_has_changes(image) ? qc_commit(image) : QC_OK;

    /* What is left are lowered counts; a commit of them alone is stage 1 and one flush. */
    if (status == QC_OK && image->epoch.records_count > 0)
        status = qc_commit(image);
    if (status == QC_OK && image->is_unflushed)
        status = qc_flush_disk(image);
    return status;
}

qc_status qc_epoch_reserve(struct qc_image *image, uint32_t records_count)
{
    qc_status status = QC_OK;

    if (qc_epoch_has_room(&image->epoch, records_count))
        return QC_OK;
    if (qc_has_changes(image))
        status = qc_commit(image);
    if (status == QC_OK && !qc_epoch_has_room(&image->epoch, records_count))
        status = qc_commit(image);
    if (status == QC_OK && !qc_epoch_has_room(&image->epoch, records_count))
        status = qc_fail(&image->detail, QC_NOSPACE, "no space: the epoch is too small");
    return status;
}
