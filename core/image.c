/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Opening an image, and the one loop that reads it: split a request into runs, transfer each.
 *
 * A run is transferred in one piece, straight into the caller's buffer. The engine keeps no data of
 * the guest.
 */
#include "qcow2.h"

#include "bytes.h"
#include "map.h"

qc_status qc_open(struct qc_image *image, struct qc_cache *cache, struct qc_disk *disk)
{
    const uint8_t *bytes;
    uint32_t bytes_count = (uint32_t)qc_min(QC_PAGE_BYTES, disk->size_bytes);
    qc_status status;

    __builtin_memset(image, 0, sizeof(*image));
    image->disk = disk;
    image->cache = cache;
    if (bytes_count < QC_HEADER_V2_BYTES)
        return QC_FOREIGN;
    status = qc_cache_get(cache, disk, 0, bytes_count, QC_HEAT_PASSING, &bytes);
    if (status != QC_OK)
        return qc_fail(&image->detail, status, "header cannot be read");
    status = qc_header_parse(bytes, bytes_count, &image->header, &image->detail);
    /* An unknown incompatible bit may change what every other field means: it is refused first. */
    if (status == QC_OK && (image->header.incompatible & ~QC_INCOMPATIBLE_KNOWN) != 0)
        return qc_extensions_check(&image->header, cache, disk, &image->detail);
    if (status == QC_OK)
        status = qc_header_check(&image->header, disk->size_bytes, &image->detail);
    if (status == QC_OK)
        status = qc_extensions_check(&image->header, cache, disk, &image->detail);
    return status;
}

uint64_t qc_size(const struct qc_image *image)
{
    return image->header.guest_bytes & ~QC_U(QC_SECTOR_BYTES - 1);
}

static qc_status read_data(struct qc_image *image, uint64_t host_off, uint8_t *buf, uint64_t len)
{
    uint64_t disk_bytes = image->disk->size_bytes;
    uint64_t here = host_off < disk_bytes ? qc_min(len, disk_bytes - host_off) : 0;
    qc_status status;

    /* A file may end within its last cluster: what is not there was never written. */
    __builtin_memset(buf + here, 0, len - here);
    if (here == 0)
        return QC_OK;
    status = image->disk->ops->read(image->disk, host_off, buf, here);
    if (status != QC_OK)
        return qc_fail(&image->detail, status, "data at %x cannot be read", host_off);
    return QC_OK;
}

qc_status qc_read(struct qc_image *image, uint64_t guest_off, void *buf, size_t len)
{
    uint8_t *out = buf;

    qc_detail_clear(&image->detail);
    if (!qc_is_inside(guest_off, len, qc_size(image)))
        return qc_fail(&image->detail, QC_RANGE, "read of %u bytes at guest %x is outside",
                       QC_U(len), guest_off);
    while (len > 0) {
        struct qc_extent run;
        qc_status status = qc_map_run(image, guest_off, len, &run);

        if (status == QC_OK && run.kind == QC_EXTENT_DATA)
            status = read_data(image, run.host_off, out, run.len);
        else if (status == QC_OK)
            __builtin_memset(out, 0, run.len);
        if (status != QC_OK)
            return status;
        guest_off += run.len;
        out += run.len;
        len -= run.len;
    }
    return QC_OK;
}

qc_status qc_map(struct qc_image *image, uint64_t guest_off, uint64_t max_len,
                 struct qc_extent *ret_extent)
{
    qc_detail_clear(&image->detail);
    if (max_len == 0 || !qc_is_inside(guest_off, max_len, qc_size(image)))
        return qc_fail(&image->detail, QC_RANGE, "map of %u bytes at guest %x is outside", max_len,
                       guest_off);
    return qc_map_run(image, guest_off, max_len, ret_extent);
}

const char *qc_detail(const struct qc_image *image)
{
    return image->detail.text;
}

const struct qc_header *qc_info(const struct qc_image *image)
{
    return &image->header;
}
