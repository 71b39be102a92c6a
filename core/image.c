/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Opening an image, and what is asked of an open one without changing it.
 *
 * Opening writes nothing: what a first change must announce (invariant 6) is written when that
 * change comes (change.c).
 */
#include "qcow2.h"

#include "bytes.h"
#include "change.h"
#include "map.h"
#include "read.h"
#include "seeded.h"

/* Decides whether writes are taken, and keeps the reason where they are not. */
static void decide_readonly(struct qc_image *image, const struct qc_open_options *options)
{
    struct qc_detail *reason = &image->readonly_reason;

    if (options->readonly || image->disk->readonly)
        qc_fail(reason, QC_OK, "read-only");
    else if (image->header.incompatible & QC_INCOMPATIBLE_CORRUPT)
        qc_fail(reason, QC_OK, "image is marked corrupt: read-only");
    else if (image->header.incompatible & QC_INCOMPATIBLE_DIRTY)
        qc_fail(reason, QC_OK, "dirty image, not repaired: read-only");
    else if (image->disk->ops->grow == NULL &&
             !qc_is_aligned(image->disk->size_bytes, image->disk->block_bytes))
        qc_fail(reason, QC_OK, "disk of %u bytes is no whole blocks: read-only",
                image->disk->size_bytes);
    else if (image->header.cluster_bytes < image->disk->block_bytes)
        qc_fail(reason, QC_OK, "clusters of %u on %u-byte blocks: read-only",
                QC_U(image->header.cluster_bytes), QC_U(image->disk->block_bytes));
}

static qc_status open_header(struct qc_image *image)
{
    struct qc_disk *disk = image->disk;
    uint32_t bytes_count = (uint32_t)qc_min(QC_PAGE_BYTES, disk->size_bytes);
    const uint8_t *bytes;
    qc_status status;

    if (bytes_count < QC_HEADER_V2_BYTES)
        return QC_FOREIGN;
    status = qc_cache_get(image->cache, disk, 0, bytes_count, QC_HEAT_PASSING, &bytes);
    if (status != QC_OK)
        return qc_fail(&image->detail, status, "header cannot be read");
    status = qc_header_parse(bytes, bytes_count, &image->header, &image->detail);
    /* An unknown incompatible bit may change what every other field means: it is refused first. */
    if (status == QC_OK && (image->header.incompatible & ~QC_INCOMPATIBLE_KNOWN) != 0)
        return qc_extensions_check(&image->header, image->cache, disk, &image->detail);
    if (status == QC_OK)
        status = qc_header_check(&image->header, disk->size_bytes, &image->detail);
    if (status == QC_OK)
        status = qc_extensions_check(&image->header, image->cache, disk, &image->detail);
    return status;
}

qc_status qc_open(struct qc_image *image, struct qc_cache *cache, struct qc_disk *disk,
                  const struct qc_open_options *options)
{
    uint64_t cluster_bytes;
    qc_status status;

    __builtin_memset(image, 0, sizeof(*image));
    image->disk = disk;
    image->cache = cache;
    image->is_write_through = options->write_through;
    image->is_unflushed =
        !QC_SEED(open_clean); /* R5: what another process wrote may not be durable yet */
    status = open_header(image);
    if (status != QC_OK)
        return status;
    /* The header was read in pages of its own; from here on it is a table like others. */
    cluster_bytes = image->header.cluster_bytes;
    for (uint64_t off = 0; off < cluster_bytes; off += QC_PAGE_BYTES)
        qc_cache_forget(cache, off);
    qc_epoch_init(&image->epoch, cache);
    /* Behind a file's last cluster nothing ever was, and growing it brings zeros. */
    image->virgin_off = UINT64_MAX;
    if (!disk->readonly && disk->ops->grow != NULL)
        image->virgin_off = qc_units(disk->size_bytes, image->header.cluster_bits)
                            << image->header.cluster_bits;
    decide_readonly(image, options);
    return QC_OK;
}

qc_status qc_read(struct qc_image *image, uint64_t guest_off, void *buf, size_t len)
{
    qc_detail_clear(&image->detail);
    if (!qc_is_inside(guest_off, len, qc_size(image)))
        return qc_fail(&image->detail, QC_RANGE, "read of %u bytes at guest %x is outside",
                       QC_U(len), guest_off);
    return qc_note_damage(image, qc_read_runs(image, guest_off, buf, len));
}

qc_status qc_map(struct qc_image *image, uint64_t guest_off, uint64_t max_len,
                 struct qc_extent *ret_extent)
{
    qc_detail_clear(&image->detail);
    if (max_len == 0 || !qc_is_inside(guest_off, max_len, qc_size(image)))
        return qc_fail(&image->detail, QC_RANGE, "map of %u bytes at guest %x is outside", max_len,
                       guest_off);
    return qc_note_damage(image, qc_map_run(image, guest_off, max_len, ret_extent));
}

const char *qc_detail(const struct qc_image *image)
{
    return image->detail.text;
}

const char *qc_readonly_reason(const struct qc_image *image)
{
    return image->readonly_reason.text;
}

const struct qc_header *qc_info(const struct qc_image *image)
{
    return &image->header;
}
