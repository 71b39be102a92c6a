/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See report.h. Text has its lines in the order in which qemu-img prints them; what version 2 has
 * no word for is left out, as there.
 */
#include "fields.h"
#include "snapshots.h"

#define COMPATIBLE_LAZY (UINT64_C(1) << 0)

static const char *compat_text(const struct qc_header *header)
{
    return header->version > 2 ? "1.1" : "0.10";
}

static const char *compression_text(const struct qc_header *header)
{
    return header->compression_type == QC_COMPRESSION_ZSTD ? "zstd" : "zlib";
}

static const char *bool_text(bool value)
{
    return value ? "true" : "false";
}

static bool has_bit(uint64_t bits, uint64_t bit)
{
    return (bits & bit) != 0;
}

static bool has_backing(const struct qc_header *header)
{
    return header->backing_off != 0 && header->backing_bytes > 0;
}

static void put_line(struct out *out, const char *key, const char *text)
{
    out_text(out, key);
    out_text(out, text);
    out_text(out, "\n");
}

static void put_uint_line(struct out *out, const char *key, uint64_t value)
{
    char text[OUT_NUMBER_BYTES];

    number_uint(text, value, 1);
    put_line(out, key, text);
}

/* What an image of any format has. */
static void put_head(struct out *out, const char *name, const char *format, uint64_t guest_bytes,
                     uint64_t used_bytes)
{
    char text[OUT_NUMBER_BYTES];

    put_line(out, "image: ", name);
    put_line(out, "file format: ", format);
    number_size(text, guest_bytes);
    out_text(out, "virtual size: ");
    out_text(out, text);
    out_text(out, " (");
    out_uint(out, guest_bytes);
    out_text(out, " bytes)\n");
    number_size(text, used_bytes);
    put_line(out, "disk size: ", used_bytes == REPORT_UNKNOWN ? "unavailable" : text);
}

static void put_head_fields(struct json *json, const char *name, const char *format,
                            uint64_t guest_bytes, uint64_t used_bytes)
{
    json_string(json, "filename", name);
    json_string(json, "format", format);
    json_uint(json, "virtual-size", guest_bytes);
    if (used_bytes != REPORT_UNKNOWN)
        json_uint(json, "actual-size", used_bytes);
}

static bool is_same(const char *one, const char *other)
{
    while (*one != '\0' && *one == *other) {
        one++;
        other++;
    }
    return *one == *other;
}

static qc_status put_backing(struct out *out, struct report_image *subject)
{
    const struct qc_header *header = qc_info(subject->image);
    const char *found = subject->names[1];
    qc_status status;

    if (!has_backing(header))
        return QC_OK;
    status = fields_name(subject, header->backing_off, header->backing_bytes);
    if (status != QC_OK)
        return status;
    out_text(out, "backing file: ");
    out_text(out, subject->text);
    if (found == NULL) {
        out_text(out, " (cannot determine actual path)");
    } else if (!is_same(found, subject->text)) {
        out_text(out, " (actual path: ");
        out_text(out, found);
        out_text(out, ")");
    }
    out_text(out, "\n");
    if (header->backing_format[0] != '\0')
        put_line(out, "backing file format: ", header->backing_format);
    return QC_OK;
}

static qc_status put_backing_fields(struct json *json, struct report_image *subject)
{
    const struct qc_header *header = qc_info(subject->image);
    qc_status status;

    if (!has_backing(header))
        return QC_OK;
    status = fields_name(subject, header->backing_off, header->backing_bytes);
    if (status != QC_OK)
        return status;
    json_string(json, "backing-filename", subject->text);
    if (subject->names[1] != NULL)
        json_string(json, "full-backing-filename", subject->names[1]);
    if (header->backing_format[0] != '\0')
        json_string(json, "backing-filename-format", header->backing_format);
    return QC_OK;
}

static qc_status put_bitmaps(struct out *out, struct report_image *subject)
{
    struct fields_bitmaps bitmaps = fields_bitmaps(subject);
    struct fields_bitmap bitmap;
    qc_status status = QC_OK;

    if (bitmaps.bitmaps_count > 0)
        out_text(out, "    bitmaps:\n");
    for (uint32_t i = 0, count = bitmaps.bitmaps_count; status == QC_OK && i < count; i++) {
        unsigned flags_count = 0;

        status = fields_bitmaps_next(subject, &bitmaps, &bitmap);
        if (status != QC_OK)
            break;
        out_text(out, "        [");
        out_uint(out, i);
        out_text(out, "]:\n            flags:\n");
        if (bitmap.flags & FIELDS_BITMAP_IN_USE) {
            out_text(out, "                [0]: in-use\n");
            flags_count++;
        }
        if (bitmap.flags & FIELDS_BITMAP_AUTO)
            put_line(out,
                     flags_count == 0 ? "                [0]: " : "                [1]: ", "auto");
        put_line(out, "            name: ", subject->text);
        put_uint_line(out, "            granularity: ", UINT64_C(1) << bitmap.granularity_bits);
    }
    return status;
}

static qc_status put_bitmap_fields(struct json *json, struct report_image *subject)
{
    struct fields_bitmaps bitmaps = fields_bitmaps(subject);
    struct fields_bitmap bitmap;
    qc_status status = QC_OK;

    if (bitmaps.bitmaps_count == 0)
        return QC_OK;
    json_open(json, "bitmaps", '[');
    for (uint32_t left = bitmaps.bitmaps_count; status == QC_OK && left > 0; left--) {
        status = fields_bitmaps_next(subject, &bitmaps, &bitmap);
        if (status != QC_OK)
            break;
        json_open(json, NULL, '{');
        json_open(json, "flags", '[');
        if (bitmap.flags & FIELDS_BITMAP_IN_USE)
            json_string(json, NULL, "in-use");
        if (bitmap.flags & FIELDS_BITMAP_AUTO)
            json_string(json, NULL, "auto");
        json_close(json, ']');
        json_string(json, "name", subject->text);
        json_uint(json, "granularity", UINT64_C(1) << bitmap.granularity_bits);
        json_close(json, '}');
    }
    json_close(json, ']');
    return status;
}

static qc_status put_specific(struct out *out, struct report_image *subject)
{
    const struct qc_header *header = qc_info(subject->image);
    bool has_data_file = has_bit(header->incompatible, QC_INCOMPATIBLE_DATA_FILE);
    qc_status status = QC_OK;

    out_text(out, "Format specific information:\n");
    put_line(out, "    compat: ", compat_text(header));
    put_line(out, "    compression type: ", compression_text(header));
    if (header->version > 2) {
        put_line(out,
                 "    lazy refcounts: ", bool_text(has_bit(header->compatible, COMPATIBLE_LAZY)));
        status = put_bitmaps(out, subject);
    }
    put_uint_line(out, "    refcount bits: ", UINT64_C(1) << header->refcount_order);
    if (status != QC_OK || header->version == 2)
        return status;
    if (has_data_file) {
        status = fields_name(subject, header->data_name_off, header->data_name_bytes);
        if (status != QC_OK)
            return status;
        put_line(out, "    data file: ", subject->text);
        put_line(out, "    data file raw: ",
                 bool_text(has_bit(header->autoclear, QC_AUTOCLEAR_RAW_DATA)));
    }
    put_line(out,
             "    corrupt: ", bool_text(has_bit(header->incompatible, QC_INCOMPATIBLE_CORRUPT)));
    put_line(out, "    extended l2: ", bool_text(qc_has_subclusters(header)));
    return QC_OK;
}

static qc_status put_specific_fields(struct json *json, struct report_image *subject)
{
    const struct qc_header *header = qc_info(subject->image);
    bool has_data_file = has_bit(header->incompatible, QC_INCOMPATIBLE_DATA_FILE);
    qc_status status = QC_OK;

    json_open(json, "format-specific", '{');
    json_string(json, "type", "qcow2");
    json_open(json, "data", '{');
    json_string(json, "compat", compat_text(header));
    json_string(json, "compression-type", compression_text(header));
    json_uint(json, "refcount-bits", UINT64_C(1) << header->refcount_order);
    if (header->version > 2) {
        json_bool(json, "lazy-refcounts", has_bit(header->compatible, COMPATIBLE_LAZY));
        json_bool(json, "corrupt", has_bit(header->incompatible, QC_INCOMPATIBLE_CORRUPT));
        json_bool(json, "extended-l2", qc_has_subclusters(header));
        status = put_bitmap_fields(json, subject);
    }
    if (status == QC_OK && has_data_file) {
        status = fields_name(subject, header->data_name_off, header->data_name_bytes);
        json_string(json, "data-file", subject->text);
        json_bool(json, "data-file-raw", has_bit(header->autoclear, QC_AUTOCLEAR_RAW_DATA));
    }
    json_close(json, '}');
    json_close(json, '}');
    return status;
}

static qc_status info_text(struct out *out, struct report_image *subject)
{
    const struct qc_header *header = qc_info(subject->image);
    qc_status status;

    put_head(out, subject->names[0], "qcow2", qc_size(subject->image), subject->used_bytes);
    put_uint_line(out, "cluster_size: ", header->cluster_bytes);
    if (has_bit(header->incompatible, QC_INCOMPATIBLE_DIRTY))
        put_line(out, "cleanly shut down: ", "no");
    status = put_backing(out, subject);
    if (status == QC_OK)
        status = report_snapshots(out, subject);
    return status == QC_OK ? put_specific(out, subject) : status;
}

qc_status report_info(struct out *out, struct report_image *subject, enum report_form form)
{
    const struct qc_header *header = qc_info(subject->image);
    struct json json = {.out = out};
    qc_status status;

    if (form == REPORT_TEXT)
        return info_text(out, subject);
    json_open(&json, NULL, '{');
    put_head_fields(&json, subject->names[0], "qcow2", qc_size(subject->image),
                    subject->used_bytes);
    json_uint(&json, "cluster-size", header->cluster_bytes);
    json_bool(&json, "dirty-flag", has_bit(header->incompatible, QC_INCOMPATIBLE_DIRTY));
    status = put_backing_fields(&json, subject);
    if (status == QC_OK)
        status = snapshots_json(&json, subject);
    if (status == QC_OK)
        status = put_specific_fields(&json, subject);
    json_close(&json, '}');
    return status;
}

void report_info_raw(struct out *out, const char *name, uint64_t guest_bytes, uint64_t used_bytes,
                     enum report_form form)
{
    struct json json = {.out = out};

    if (form == REPORT_TEXT) {
        put_head(out, name, "raw", guest_bytes, used_bytes);
        return;
    }
    json_open(&json, NULL, '{');
    put_head_fields(&json, name, "raw", guest_bytes, used_bytes);
    json_bool(&json, "dirty-flag", false);
    json_close(&json, '}');
}
