/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See layers.h. Format: QEMU's docs/interop/qcow2, "Header" (backing_file_offset) and "Header
 * extensions" (backing file format name).
 */
#include "layers.h"

#include "bytes.h"

/* Reads and checks the header of the layer at depth; its disk is set. */
static qc_status open_header(struct qc_image *image, unsigned depth, bool is_for_check)
{
    struct qc_disk *disk = image->layers[depth].disk;
    struct qc_header *header = &image->layers[depth].header;
    struct qc_detail *detail = &image->detail;
    uint32_t bytes_count = (uint32_t)qc_min(QC_PAGE_BYTES, disk->size_bytes);
    const uint8_t *bytes;
    qc_status status;

    if (bytes_count < QC_HEADER_V2_BYTES)
        return QC_FOREIGN;
    status = qc_cache_get(image->cache, disk, depth, 0, bytes_count, QC_HEAT_PASSING, &bytes);
    if (status != QC_OK)
        return qc_fail(detail, status, "header cannot be read");
    status = qc_header_parse(bytes, bytes_count, header, detail);
    /* An unknown incompatible bit may change what every other field means: it is refused first. */
    if (status == QC_OK && (header->incompatible & ~QC_INCOMPATIBLE_KNOWN) != 0)
        return qc_extensions_check(header, image->cache, disk, depth, detail);
    if (status == QC_OK)
        status = qc_header_check(header, disk->size_bytes, is_for_check, detail);
    if (status == QC_OK)
        status = qc_extensions_check(header, image->cache, disk, depth, detail);
    return status;
}

/* Reads a name out of a layer's first cluster into the staging buffer, terminated. */
static qc_status read_name(struct qc_image *image, struct qc_disk *disk, uint64_t host_off,
                           uint32_t len, const char **ret_name)
{
    char *name = (char *)image->cache->staging;
    qc_status status;

    if (!qc_is_inside(host_off, len, disk->size_bytes))
        return qc_fail(&image->detail, QC_CORRUPT, "backing name field invalid");
    status = disk->ops->read(disk, host_off, name, len);
    if (status != QC_OK)
        return qc_fail(&image->detail, status, "backing name cannot be read");
    for (uint32_t i = 0; i < len; i++) {
        if (name[i] == '\0')
            return qc_fail(&image->detail, QC_REFUSED, "backing name refused: it ends early");
    }
    name[len] = '\0';
    *ret_name = name;
    return QC_OK;
}

static bool is_same(const char *a, const char *b)
{
    unsigned i = 0;

    while (a[i] != '\0' && a[i] == b[i])
        i++;
    return a[i] == b[i];
}

static qc_status parse_format(const char *name, enum qc_format *ret_format,
                              struct qc_detail *detail)
{
    if (is_same(name, ""))
        *ret_format = QC_FORMAT_NONE;
    else if (is_same(name, "raw"))
        *ret_format = QC_FORMAT_RAW;
    else if (is_same(name, "qcow2"))
        *ret_format = QC_FORMAT_QCOW2;
    else
        return qc_fail(detail, QC_UNSUPPORTED, "backing format %s not supported", name);
    return QC_OK;
}

/* Asks the front end for a disk by the name at host_off of a layer's own. */
static qc_status ask(struct qc_image *image, struct qc_bases *bases, const struct qc_layer *layer,
                     uint64_t host_off, uint32_t len, struct qc_base *base)
{
    qc_status status;

    if (bases == NULL)
        return qc_fail(&image->detail, QC_REFUSED,
                       "backing name refused: nothing says where it lies");
    status = read_name(image, layer->disk, host_off, len, &base->name);
    if (status != QC_OK)
        return status;
    status = bases->find(bases, base);
    if (status != QC_OK)
        image->detail = base->detail;
    return status;
}

/* The external data file of a layer that has one. */
static qc_status find_data_file(struct qc_image *image, unsigned depth, struct qc_bases *bases)
{
    struct qc_layer *layer = &image->layers[depth];
    const struct qc_header *header = &layer->header;
    struct qc_base base = {.depth = depth, .is_data_file = true, .format = QC_FORMAT_RAW};
    qc_status status;

    layer->data = layer->disk;
    if (!(header->incompatible & QC_INCOMPATIBLE_DATA_FILE))
        return QC_OK;
    if (header->data_name_bytes == 0)
        return qc_fail(&image->detail, QC_REFUSED, "backing name refused: no data file named");
    status = ask(image, bases, layer, header->data_name_off, header->data_name_bytes, &base);
    if (status != QC_OK)
        return status;
    if (base.disk == layer->disk)
        return qc_fail(&image->detail, QC_REFUSED,
                       "backing name refused: the image is no data file");
    layer->data = base.disk;
    return QC_OK;
}

/* Asks the front end for the layer that the one above names. */
static qc_status find_base(struct qc_image *image, unsigned depth, struct qc_bases *bases,
                           struct qc_base *ret_base)
{
    const struct qc_layer *above = &image->layers[depth - 1];
    struct qc_detail *detail = &image->detail;
    struct qc_base base = {.depth = depth};
    qc_status status;

    if (depth == QC_LAYERS_MAX)
        return qc_fail(detail, QC_REFUSED, "backing name refused: more than %u layers",
                       QC_U(QC_LAYERS_MAX));
    status = parse_format(above->header.backing_format, &base.format, detail);
    if (status == QC_OK)
        status =
            ask(image, bases, above, above->header.backing_off, above->header.backing_bytes, &base);
    if (status != QC_OK)
        return status;
    if (base.format == QC_FORMAT_NONE)
        return qc_fail(detail, QC_REFUSED, "backing name refused: no format given");
    *ret_base = base;
    return QC_OK;
}

/* Puts the depth before the sentence of an error, which would otherwise seem to be the image's. */
static qc_status name_layer(struct qc_image *image, unsigned depth, qc_status status)
{
    struct qc_detail inner = image->detail;

    if (status == QC_FOREIGN)
        return qc_fail(&image->detail, QC_CORRUPT, "layer %u: not a qcow2 image", QC_U(depth));
    return qc_fail(&image->detail, status, "layer %u: %s", QC_U(depth), inner.text);
}

qc_status qc_layers_open(struct qc_image *image, const struct qc_open_options *options)
{
    qc_status status = open_header(image, 0, options->is_for_check);

    image->layers_count = 1;
    if (status == QC_OK)
        status = find_data_file(image, 0, options->bases);
    if (options->is_backing_off)
        return status;
    while (status == QC_OK) {
        unsigned depth = image->layers_count;
        const struct qc_layer *above = &image->layers[depth - 1];
        struct qc_base base;

        if (above->is_raw || above->header.backing_off == 0 || above->header.backing_bytes == 0)
            break;
        status = find_base(image, depth, options->bases, &base);
        if (status != QC_OK)
            return depth == 1 ? status : name_layer(image, depth - 1, status);
        image->layers[depth].disk = image->layers[depth].data = base.disk;
        image->layers[depth].is_raw = base.format == QC_FORMAT_RAW;
        if (base.format == QC_FORMAT_QCOW2)
            status = open_header(image, depth, false);
        if (status == QC_OK && base.format == QC_FORMAT_QCOW2)
            status = find_data_file(image, depth, options->bases);
        if (status != QC_OK)
            return name_layer(image, depth, status);
        image->layers_count++;
    }
    return status;
}

qc_status qc_name_check(const char *name, struct qc_detail *detail)
{
    bool is_start = true; /* of a part */

    if (name[0] == '\0')
        return qc_fail(detail, QC_REFUSED, "backing name refused: it is empty");
    if (name[0] == '/' || name[0] == '\\')
        return qc_fail(detail, QC_REFUSED, "backing name refused: absolute: %s", name);
    for (unsigned i = 0; i < QC_BACKING_NAME_BYTES_MAX && name[i] != '\0'; i++) {
        bool is_end;

        if (name[i] == ':')
            return qc_fail(detail, QC_REFUSED, "backing name refused: not a plain file: %s", name);
        if (is_start && name[i] == '.' && name[i + 1] == '.') {
            is_end = name[i + 2] == '\0' || name[i + 2] == '/' || name[i + 2] == '\\';
            if (is_end)
                return qc_fail(detail, QC_REFUSED, "backing name refused: it leads out: %s", name);
        }
        is_start = name[i] == '/' || name[i] == '\\';
    }
    return QC_OK;
}
