/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* See change.h. Flushing is here too, because it ends changes as nothing else does. */
#include "change.h"

#include "bytes.h"
#include "commit.h"
#include "guard.h"
#include "patch.h"
#include "seeded.h"

#define HEADER_INCOMPATIBLE_OFF 72u
#define HEADER_AUTOCLEAR_OFF    88u

/*
 * "Incompatible features", bit 1: nobody writes this image before it was repaired. A mark that
 * cannot be written changes nothing here.
 */
static void mark_corrupt(struct qc_image *image)
{
    uint64_t marked = image->top.header.incompatible | QC_INCOMPATIBLE_CORRUPT;
    uint8_t field[8];

    qc_put_be64(field, marked);
    if (image->top.header.version < 3 || image->is_failed ||
        qc_patch_header(image, HEADER_INCOMPATIBLE_OFF, field, sizeof(field)) != QC_OK ||
        qc_flush_disk(image) != QC_OK)
        return;
    image->top.header.incompatible = marked;
}

qc_status qc_note_damage(struct qc_image *image, qc_status status)
{
    bool is_to_be_marked = image->is_to_be_marked;

    image->is_to_be_marked = false;
    if (image->epoch.fault != NULL && !image->is_failed) {
        image->is_failed = true;
        status =
            qc_fail(&image->detail, QC_IO, "internal fault: %s: read-only", image->epoch.fault);
    }
    if (image->readonly_reason.text[0] != '\0' || (status != QC_CORRUPT && !image->is_failed))
        return status;
    image->readonly_reason = image->detail;
    if (status != QC_CORRUPT)
        return status;
    image->readonly_kind = QC_READONLY_DAMAGED;
    if (is_to_be_marked)
        mark_corrupt(image);
    image->detail = image->readonly_reason;
    return status;
}

/* The file is made to end with a cluster, so that its last table can be written in whole blocks. */
static qc_status round_disk_up(struct qc_image *image)
{
    struct qc_disk *disk = image->top.disk;
    uint64_t whole = qc_units(disk->size_bytes, image->top.header.cluster_bits)
                     << image->top.header.cluster_bits;
    qc_status status = QC_OK;

    if (disk->ops->grow != NULL && whole != disk->size_bytes)
        status = disk->ops->grow(disk, whole);
    /* A full host: what is there can still be written, if it is whole blocks. */
    if (status == QC_NOSPACE && qc_is_aligned(disk->size_bytes, disk->block_bytes))
        status = QC_OK;
    return status;
}

/* A data file is as long as the guest disk. */
static qc_status grow_data_file(struct qc_image *image)
{
    struct qc_disk *data = image->top.data;

    if (!qc_has_data_file(&image->top) || data->size_bytes >= qc_size(image))
        return QC_OK;
    return data->ops->grow != NULL ? data->ops->grow(data, qc_size(image)) : QC_NOSPACE;
}

/*
 * Before the first change: it is known where the tables are (invariant 7), and autoclear bits are
 * cleared where nobody here keeps what they promise (invariant 6). A raw data file stays one.
 */
static qc_status announce_changes(struct qc_image *image)
{
    uint64_t kept = image->top.header.autoclear & QC_AUTOCLEAR_RAW_DATA;
    uint8_t field[8];
    qc_status status = round_disk_up(image);

    if (status == QC_OK)
        status = grow_data_file(image);
    if (status != QC_OK)
        return qc_fail(&image->detail, status, "no space");
    status = qc_guard_prepare(image);
    /* What cannot be kept safe is not written: not now and not later. */
    if (status == QC_UNSUPPORTED)
        image->readonly_reason = image->detail;
    if (status == QC_OK && !QC_SEED(no_guard))
        status = image->verify(image);
    if (status != QC_OK)
        return status;
    if (image->top.header.autoclear != kept) {
        qc_put_be64(field, kept);
        status = qc_patch_header(image, HEADER_AUTOCLEAR_OFF, field, sizeof(field));
        if (status == QC_OK && !QC_SEED(early_autoclear))
            status = qc_flush_disk(image);
        if (status != QC_OK)
            return status;
        image->top.header.autoclear = kept;
    }
    image->is_announced = true;
    return QC_OK;
}

qc_status qc_begin_change(struct qc_image *image, uint64_t guest_off, uint64_t len)
{
    qc_detail_clear(&image->detail);
    if (!qc_is_inside(guest_off, len, qc_size(image)) ||
        !qc_is_aligned(guest_off | len, QC_SECTOR_BYTES))
        return qc_fail(&image->detail, QC_RANGE,
                       "write of %u bytes at guest %x is outside or no whole sectors", len,
                       guest_off);
    if (image->readonly_reason.text[0] != '\0')
        return qc_fail(&image->detail, QC_READONLY, "%s", qc_readonly_reason(image));
    return image->is_announced || len == 0 ? QC_OK : announce_changes(image);
}

qc_status qc_end_change(struct qc_image *image, qc_status status)
{
    if (status == QC_OK && image->is_write_through)
        return qc_flush(image);
    return qc_note_damage(image, status);
}

qc_status qc_flush(struct qc_image *image)
{
    qc_status status = QC_OK;

    qc_detail_clear(&image->detail);
    if (image->top.disk->readonly)
        return QC_OK;
    if (image->is_failed)
        return qc_fail(&image->detail, QC_READONLY, "%s", qc_readonly_reason(image));
    if (qc_has_changes(image))
        status = qc_commit(image);
    else if (image->is_unflushed)
        status = qc_flush_disk(image);
    return qc_note_damage(image, status);
}

qc_status qc_settle(struct qc_image *image)
{
    qc_status status = qc_flush(image);

    if (status == QC_OK && !image->top.disk->readonly)
        status = qc_note_damage(image, qc_settle_counts(image));
    return status;
}
