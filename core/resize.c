/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Growing the guest disk, and with it the L1 table.
 *
 * Invariant 9, the order, each point of which may be the last before a cut: a longer L1 table is
 * counted, then written, then named by one write of one sector of the header, then the old one is
 * given back: between two of these nothing worse than a leak is on the disk. What is new is made to
 * read as zeros while it still lies behind the disk's end; only then the header says the new size.
 */
#include "alloc.h"
#include "bytes.h"
#include "change.h"
#include "commit.h"
#include "patch.h"
#include "seeded.h"

#define HEADER_SIZE_OFF 24u
#define HEADER_L1_OFF   36u
#define HEADER_L1_BYTES 12u

/* Writes bytes of the header, durably. If that fails nobody knows which header the disk has. */
static QC_APART qc_status switch_header(struct qc_image *image, uint32_t host_off,
                                        const uint8_t *bytes, uint32_t bytes_count)
{
    qc_status status = qc_patch_header(image, host_off, bytes, bytes_count);

    if (status == QC_OK)
        return qc_flush_disk(image);
    image->is_failed = true;
    return qc_fail(&image->detail, status, "the header could not be written: read-only");
}

/* The old table's entries, then zeros, in whole blocks. */
static qc_status write_l1(struct qc_image *image, uint64_t host_off, uint64_t table_bytes)
{
    struct qc_disk *disk = image->top.disk;
    uint64_t old_bytes = QC_U(image->top.header.l1_entries) * 8;
    uint8_t *staging = image->cache->staging;

    for (uint64_t off = 0, len; off < table_bytes; off += len) {
        uint64_t old_len =
            off < old_bytes ? qc_min(old_bytes - off, image->cache->staging_bytes) : 0;
        qc_status status = QC_OK;

        len = qc_min(table_bytes - off, image->cache->staging_bytes);
        if (old_len > 0)
            status = disk->ops->read(disk, image->top.header.l1_off + off, staging, old_len);
        if (status != QC_OK)
            return qc_fail(&image->detail, status, "table at %x cannot be read",
                           image->top.header.l1_off + off);
        __builtin_memset(staging + old_len, 0, len - old_len);
        status = disk->ops->write(disk, host_off + off, staging, len);
        image->is_unflushed = true;
        if (status != QC_OK)
            return qc_fail(&image->detail, status, "table at %x cannot be written", host_off + off);
    }
    return QC_OK;
}

static QC_APART qc_status grow_l1(struct qc_image *image, uint64_t entries)
{
    struct qc_header *header = &image->top.header;
    uint64_t old_clusters = qc_units(QC_U(header->l1_entries) * 8, header->cluster_bits);
    uint64_t old_first = header->l1_off >> header->cluster_bits;
    uint64_t clusters = qc_units(entries * 8, header->cluster_bits), first;
    uint8_t field[HEADER_L1_BYTES];
    qc_status status = qc_settle(image); /* rule R3: the epoch is empty */

    if (status == QC_OK)
        status = qc_alloc_run(image, clusters, &first);
    if (status != QC_OK)
        return status;
    status = write_l1(image, first << header->cluster_bits, clusters << header->cluster_bits);
    /* The counts are records of the epoch: this makes them and the table durable. */
    if (status == QC_OK && !QC_SEED(early_l1_switch))
        status = qc_commit(image);
    if (status != QC_OK) {
        struct qc_detail why = image->detail;

        (void)qc_free_run(image, first, clusters); /* a leak at worst */
        image->detail = why;
        return status;
    }
    qc_put_be32(field, (uint32_t)entries);
    qc_put_be64(field + 4, first << header->cluster_bits);
    status = switch_header(image, HEADER_L1_OFF, field, sizeof(field));
    if (status != QC_OK)
        return status;
    header->l1_off = first << header->cluster_bits;
    header->l1_entries = (uint32_t)entries;
    return qc_free_run(image, old_first, old_clusters);
}

static QC_APART qc_status check_size(struct qc_image *image, uint64_t new_bytes, uint64_t entries)
{
    struct qc_detail *detail = &image->detail;

    if (new_bytes < qc_size(image) || !qc_is_aligned(new_bytes, QC_SECTOR_BYTES))
        return qc_fail(detail, QC_RANGE, "virtual size %u is smaller or no whole sectors",
                       new_bytes);
    if (new_bytes > QC_GUEST_BYTES_MAX)
        return qc_fail(detail, QC_UNSUPPORTED, "virtual size %u not supported", new_bytes);
    if (entries > QC_L1_BYTES_MAX / 8)
        return qc_fail(detail, QC_UNSUPPORTED, "L1 table too large: %u entries", entries);
    /* Its new bytes would have to be mapped, all of them, for it to stay raw. */
    if (image->top.header.autoclear & QC_AUTOCLEAR_RAW_DATA)
        return qc_fail(detail, QC_UNSUPPORTED, "a raw external data file cannot grow");
    /* A version 2 snapshot need not say how large its disk was. */
    if (image->top.header.version < 3 && image->top.header.snapshots_count > 0)
        return qc_fail(detail, QC_UNSUPPORTED, "version 2 with snapshots cannot grow");
    return QC_OK;
}

static qc_status resize(struct qc_image *image, uint64_t new_bytes)
{
    struct qc_header *header = &image->top.header;
    struct qc_disk *data = image->top.data;
    uint64_t entries = qc_units(new_bytes, qc_l2_reach_bits(header));
    uint64_t old_bytes = header->guest_bytes, old_size = qc_size(image);
    uint8_t field[8];
    qc_status status = check_size(image, new_bytes, entries);

    if (status == QC_OK && entries > header->l1_entries)
        status = grow_l1(image, entries);
    if (status != QC_OK)
        return status;
    if (qc_has_data_file(&image->top) && data->size_bytes < new_bytes)
        status = data->ops->grow != NULL ? data->ops->grow(data, new_bytes) : QC_NOSPACE;
    if (status != QC_OK)
        return qc_fail(&image->detail, status, "no space in the data file");
    header->guest_bytes = new_bytes;
    status = qc_zero(image, old_size, new_bytes - old_size, true);
    if (status == QC_OK && !QC_SEED(early_size))
        status = qc_flush(image);
    qc_put_be64(field, new_bytes);
    if (status == QC_OK)
        status = switch_header(image, HEADER_SIZE_OFF, field, sizeof(field));
    if (status != QC_OK)
        header->guest_bytes = old_bytes;
    return status;
}

qc_status qc_resize(struct qc_image *image, uint64_t new_bytes)
{
    qc_status status = qc_begin_change(image, 0, qc_size(image));

    if (status == QC_OK)
        status = resize(image, new_bytes);
    return qc_end_change(image, status);
}
