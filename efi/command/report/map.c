/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See report.h. Runs are put together as qemu-img does it: layer by layer down to the one that has
 * something, and neighbours joined that differ in no field.
 */
#include "../../../core/plot.h"
#include "report.h"

/* A line of the map: a run of the guest disk. */
struct line {
    uint64_t start, len;
    unsigned depth;
    struct qc_plot plot; /* but for its length */
    bool is_present;     /* a layer has it */
};

struct map {
    struct out *out;
    struct report_image *subject;
    enum report_form form;
    bool is_first; /* line */
};

/* Whether what an overlay leaves out at guest_off is zeros, because nothing reaches so far. */
static bool ends_here(const struct qc_image *image, unsigned depth, uint64_t guest_off)
{
    return depth + 1 == image->layers_count || guest_off >= qc_plot_bytes(image, depth + 1);
}

/* The run at start, as far as one layer tells it. */
static qc_status find_line(struct report_image *subject, uint64_t start, struct line *ret_line)
{
    struct qc_image *image = subject->image;
    struct line line = {.start = start, .len = qc_size(image) - start};

    for (line.depth = 0; line.depth < image->layers_count; line.depth++) {
        uint64_t left = qc_plot_bytes(image, line.depth) - start;
        qc_status status =
            qc_plot(image, line.depth, start, left < line.len ? left : line.len, &line.plot);

        if (status != QC_OK)
            return qc_fail(&subject->detail, status, "%s", qc_detail(image));
        line.len = line.plot.len;
        line.is_present = line.plot.is_data || line.plot.is_zero;
        if (line.is_present)
            break;
        if (ends_here(image, line.depth, start)) {
            line.plot.is_zero = true;
            break;
        }
    }
    *ret_line = line;
    return QC_OK;
}

static bool continues(const struct line *line, const struct line *next)
{
    const struct qc_plot *one = &line->plot, *other = &next->plot;

    return next->depth == line->depth && next->is_present == line->is_present &&
           other->is_data == one->is_data && other->is_zero == one->is_zero &&
           other->has_place == one->has_place &&
           (!one->has_place || other->host_off == one->host_off + line->len);
}

/* The file in which the line's bytes lie. */
static const char *file_name(const struct report_image *subject, unsigned depth)
{
    const char *name = qc_has_data_file(&subject->image->layers[depth]) ? subject->data_names[depth]
                                                                        : subject->names[depth];

    return name != NULL ? name : "";
}

static qc_status put_text(struct map *map, const struct line *line)
{
    const uint64_t columns[] = {line->start, line->len, line->plot.host_off};

    if (!line->plot.is_data)
        return QC_OK;
    if (!line->plot.has_place)
        return qc_fail(&map->subject->detail, QC_UNSUPPORTED,
                       "File contains external, encrypted or compressed clusters.");
    for (unsigned i = 0; i < sizeof(columns) / sizeof(columns[0]); i++) {
        char text[OUT_NUMBER_BYTES];

        number_hex(text, columns[i]);
        out_left(map->out, text, 16);
    }
    out_text(map->out, file_name(map->subject, line->depth));
    out_text(map->out, "\n");
    return QC_OK;
}

static void put_bool(struct out *out, const char *key, bool value)
{
    out_text(out, key);
    out_text(out, value ? "true" : "false");
}

static void put_uint(struct out *out, const char *key, uint64_t value)
{
    out_text(out, key);
    out_uint(out, value);
}

static qc_status put_line(struct map *map, const struct line *line)
{
    struct out *out = map->out;

    if (map->form == REPORT_TEXT)
        return put_text(map, line);
    out_text(out, map->is_first ? "" : ",\n");
    map->is_first = false;
    put_uint(out, "{ \"start\": ", line->start);
    put_uint(out, ", \"length\": ", line->len);
    put_uint(out, ", \"depth\": ", line->depth);
    put_bool(out, ", \"present\": ", line->is_present);
    put_bool(out, ", \"zero\": ", line->plot.is_zero);
    put_bool(out, ", \"data\": ", line->plot.is_data);
    if (line->plot.has_place)
        put_uint(out, ", \"offset\": ", line->plot.host_off);
    out_text(out, "}");
    return QC_OK;
}

qc_status report_map(struct out *out, struct report_image *subject, enum report_form form,
                     qc_check_progress *progress, void *context)
{
    struct map map = {.out = out, .subject = subject, .form = form, .is_first = true};
    uint64_t size = qc_size(subject->image);
    struct line line, next;
    qc_status status = find_line(subject, 0, &line);

    out_text(out,
             form == REPORT_JSON ? "[" : "Offset          Length          Mapped to       File\n");
    while (status == QC_OK && line.start + line.len < size) {
        uint64_t end = line.start + line.len;

        if (progress != NULL && !progress(context, end, size))
            return qc_fail(&subject->detail, QC_RANGE, "stopped");
        status = find_line(subject, end, &next);
        if (status == QC_OK && continues(&line, &next)) {
            line.len += next.len;
        } else if (status == QC_OK) {
            status = put_line(&map, &line);
            line = next;
        }
    }
    if (status == QC_OK)
        status = put_line(&map, &line);
    if (status == QC_OK && form == REPORT_JSON)
        out_text(out, "]\n");
    return status;
}
