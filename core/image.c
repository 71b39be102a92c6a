/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Opening an image, and what is asked of an open one without changing it.
 *
 * Opening writes nothing, but for the repair of an image that is marked dirty and is to be written:
 * what a first change must announce (invariant 6) is written when that change comes (change.c).
 */
#include "qcow2.h"

#include "bytes.h"
#include "change.h"
#include "guard.h"
#include "layers.h"
#include "map.h"
#include "read.h"
#include "refs.h"
#include "seeded.h"
#include "snaptable.h"
#include "verify.h"

#define SNAPSHOT_READS_MAX 16u
#define BITMAP_READS_MAX   8u

#define ENTRY_BITS 3u  /* an entry's bytes, to the power of two */
#define SLICE_BITS 12u /* a slice's, where its table is not shorter */
_Static_assert(1u << SLICE_BITS == QC_PAGE_BYTES, "a slice is a page");

/* Keeps a reason that the header itself gives, and that a repair takes away. */
static void note_damage(struct qc_image *image)
{
    const struct qc_header *header = &image->top.header;
    struct qc_detail *reason = &image->readonly_reason;

    if (header->reftable_clusters == 0)
        qc_fail(reason, QC_OK, "no refcount table: read-only");
    else if (header->snapshots_over > 0)
        qc_fail(reason, QC_OK, "snapshot table too large: %u snapshots: read-only",
                QC_U(header->snapshots_count) + header->snapshots_over);
    else if (header->incompatible & QC_INCOMPATIBLE_CORRUPT)
        qc_fail(reason, QC_OK, "image is marked corrupt: read-only");
    else
        return;
    image->readonly_kind = QC_READONLY_DAMAGED;
}

/*
 * A snapshot table that cannot be kept safe is known before anybody relies on writing, and bitmaps
 * for which QEMU would not open the image; very long ones are looked at when the first change
 * comes, or not at all.
 */
static void look_at_tables(struct qc_image *image)
{
    qc_status status = qc_guard_measure_snapshots(image, SNAPSHOT_READS_MAX);

    if (status == QC_OK)
        status = qc_refs_look_at_bitmaps(image, BITMAP_READS_MAX);
    if (status == QC_CORRUPT || status == QC_UNSUPPORTED) {
        image->readonly_reason = image->detail;
        image->readonly_kind = QC_READONLY_DAMAGED;
    }
    qc_detail_clear(&image->detail);
}

/* Decides whether writes are taken, and keeps the reason where they are not. */
static void decide_readonly(struct qc_image *image, const struct qc_open_options *options)
{
    struct qc_detail *reason = &image->readonly_reason;

    if (options->readonly || image->top.disk->readonly) {
        qc_fail(reason, QC_OK, "read-only");
    } else if (options->snapshot != NULL) {
        qc_fail(reason, QC_OK, "snapshot %s: read-only", options->snapshot);
    } else if (options->is_backing_off && image->top.header.backing_bytes > 0 &&
               image->top.header.backing_off != 0) {
        qc_fail(reason, QC_OK, "without the layers below: read-only");
        image->readonly_kind = QC_READONLY_ALONE;
    } else {
        note_damage(image);
    }
    if (reason->text[0] != '\0')
        return;
    if (image->top.disk->ops->grow == NULL &&
        !qc_is_aligned(image->top.disk->size_bytes, image->top.disk->block_bytes))
        qc_fail(reason, QC_OK, "disk of %u bytes is no whole blocks: read-only",
                image->top.disk->size_bytes);
    else if (image->top.data->readonly)
        qc_fail(reason, QC_OK, "the data file is read-only");
    else if (qc_has_data_file(&image->top) && image->top.data->ops->grow == NULL &&
             image->top.data->size_bytes < qc_size(image))
        qc_fail(reason, QC_OK, "the data file is shorter than the disk: read-only");
    else if (image->top.header.cluster_bytes < image->top.disk->block_bytes)
        qc_fail(reason, QC_OK, "clusters of %u on %u-byte blocks: read-only",
                QC_U(image->top.header.cluster_bytes), QC_U(image->top.disk->block_bytes));
}

qc_status qc_open(struct qc_image *image, struct qc_cache *cache, struct qc_disk *disk,
                  const struct qc_open_options *options)
{
    uint64_t cluster_bytes;
    qc_status status;

    __builtin_memset(image, 0, sizeof(*image));
    image->top.disk = disk;
    image->cache = cache;
    image->verify = qc_verify_counts;
    image->is_write_through = options->write_through;
    image->is_unflushed =
        !QC_SEED(open_clean); /* R5: what another process wrote may not be durable yet */
    image->is_data_unflushed = image->is_unflushed;
    if (options->unpacker != NULL)
        qc_unpacker_forget(options->unpacker, image);
    image->unpacker = options->unpacker;
    status = qc_layers_open(image, options);
    if (status != QC_OK)
        return status;
    /* The header was read in pages of its own; from here on it is a table like others. */
    cluster_bytes = image->top.header.cluster_bytes;
    for (uint64_t off = 0; off < cluster_bytes; off += QC_PAGE_BYTES)
        qc_cache_forget(cache, off);
    qc_epoch_init(&image->epoch, cache);
    if (image->layers_count == 1 && !qc_has_data_file(&image->top) &&
        !qc_has_subclusters(&image->top.header))
        image->slice_clusters_bits =
            (unsigned)qc_min(image->top.header.cluster_bits, SLICE_BITS) - ENTRY_BITS;
    /* Behind a file's last cluster nothing ever was, and growing it brings zeros. */
    image->virgin_off = UINT64_MAX;
    if (!disk->readonly && disk->ops->grow != NULL)
        image->virgin_off = qc_units(disk->size_bytes, image->top.header.cluster_bits)
                            << image->top.header.cluster_bits;
    decide_readonly(image, options);
    if (options->snapshot != NULL)
        return qc_snapshot_enter(image, options->snapshot);
    if (image->readonly_reason.text[0] == '\0')
        look_at_tables(image);
    /* What cannot be repaired keeps its reason, and can be read. */
    if (image->readonly_reason.text[0] == '\0' &&
        (image->top.header.incompatible & QC_INCOMPATIBLE_DIRTY))
        (void)qc_repair_dirty(image);
    return QC_OK;
}

/* Apart from its caller, so that the quick way there costs neither room nor time for it. */
__attribute__((noinline)) static qc_status read_runs(struct qc_image *image, uint64_t guest_off,
                                                     void *buf, size_t len)
{
    if (!qc_is_inside(guest_off, len, qc_size(image)))
        return qc_fail(&image->detail, QC_RANGE, "read of %u bytes at guest %x is outside",
                       QC_U(len), guest_off);
    return qc_note_damage(image, qc_read_runs(image, guest_off, buf, len));
}

qc_status qc_read(struct qc_image *image, uint64_t guest_off, void *buf, size_t len)
{
    uint64_t guest_end = image->top.header.guest_bytes & ~QC_U(QC_SECTOR_BYTES - 1), host_off;
    qc_status status;

    qc_detail_clear(&image->detail);
    if (!qc_is_inside(guest_off, len, guest_end) || !qc_map_known(image, guest_off, len, &host_off))
        return read_runs(image, guest_off, buf, len);
    status = image->top.disk->ops->read(image->top.disk, host_off, buf, len);
    if (status != QC_OK)
        return qc_fail(&image->detail, status, "data at %x cannot be read", host_off);
    return QC_OK;
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

const struct qc_header *qc_info(const struct qc_image *image)
{
    return &image->top.header;
}
