/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See fields.h. Where the directory of bitmaps lies was checked when the image was opened; of its
 * entries only the first, and not for names.
 */
#include "fields.h"

#define ENTRY_BYTES          24u /* of a directory, before its extra data and name */
#define ENTRY_ALIGNMENT      8u
#define GRANULARITY_BITS_MIN 9u
#define GRANULARITY_BITS_MAX 31u

static uint32_t be32(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

/* Reads what the image must hold before end_off. */
static qc_status read_bytes(struct report_image *subject, uint64_t host_off, uint64_t end_off,
                            void *bytes, uint32_t len)
{
    struct qc_disk *disk = subject->image->top.disk;
    qc_status status;

    end_off = end_off < disk->size_bytes ? end_off : disk->size_bytes;
    if (len > end_off || host_off > end_off - len)
        return qc_fail(&subject->detail, QC_CORRUPT, "%u bytes at %x are outside", QC_U(len),
                       host_off);
    status = len > 0 ? disk->ops->read(disk, host_off, bytes, len) : QC_OK;
    if (status != QC_OK)
        return qc_fail(&subject->detail, status, "%u bytes at %x cannot be read", QC_U(len),
                       host_off);
    return QC_OK;
}

qc_status fields_name(struct report_image *subject, uint64_t host_off, uint32_t len)
{
    qc_status status;

    if (len >= sizeof(subject->text))
        return qc_fail(&subject->detail, QC_CORRUPT, "a name of %u bytes", QC_U(len));
    status = read_bytes(subject, host_off, UINT64_MAX, subject->text, len);
    subject->text[status == QC_OK ? len : 0] = '\0';
    return status;
}

struct fields_bitmaps fields_bitmaps(const struct report_image *subject)
{
    const struct qc_header *header = qc_info(subject->image);
    /* Without the bit another program wrote the image since: the extension says nothing. */
    if (!(header->autoclear & QC_AUTOCLEAR_BITMAPS))
        return (struct fields_bitmaps){0};
    return (struct fields_bitmaps){
        .bitmaps_count = header->bitmaps_count,
        .host_off = header->bitmap_dir_off,
        .end_off = header->bitmap_dir_off + header->bitmap_dir_bytes,
    };
}

qc_status fields_bitmaps_next(struct report_image *subject, struct fields_bitmaps *bitmaps,
                              struct fields_bitmap *ret_bitmap)
{
    uint8_t entry[ENTRY_BYTES];
    uint32_t name_bytes, extra_bytes, granularity_bits;
    uint64_t len;
    qc_status status =
        read_bytes(subject, bitmaps->host_off, bitmaps->end_off, entry, sizeof(entry));

    if (status != QC_OK)
        return status;
    granularity_bits = entry[17];
    name_bytes = (uint32_t)entry[18] << 8 | entry[19];
    extra_bytes = be32(entry + 20);
    if (extra_bytes != 0)
        return qc_fail(&subject->detail, QC_UNSUPPORTED, "a bitmap has %u bytes of extra data",
                       QC_U(extra_bytes));
    if (granularity_bits < GRANULARITY_BITS_MIN || granularity_bits > GRANULARITY_BITS_MAX)
        return qc_fail(&subject->detail, QC_CORRUPT, "a bitmap's granularity of %u bits",
                       QC_U(granularity_bits));
    status = fields_name(subject, bitmaps->host_off + sizeof(entry), name_bytes);
    if (status != QC_OK)
        return status;
    len = (sizeof(entry) + (uint64_t)name_bytes + ENTRY_ALIGNMENT - 1) &
          ~(uint64_t)(ENTRY_ALIGNMENT - 1);
    bitmaps->host_off += len;
    bitmaps->bitmaps_count--;
    ret_bitmap->flags = be32(entry + 12);
    ret_bitmap->granularity_bits = granularity_bits;
    return QC_OK;
}
