/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* See report.h. A figure that is 0 is no field, but for check-errors; so it is in qemu-img. */
#include "json.h"
#include "report.h"

enum { EXIT_CLEAN, EXIT_UNCHECKED, EXIT_CORRUPT, EXIT_LEAKS };

static void put_count(struct out *out, const char *before, uint64_t count, const char *behind)
{
    out_text(out, before);
    out_uint(out, count);
    out_text(out, behind);
}

static void put_findings(struct out *out, const struct qc_check_result *result)
{
    if (result->corruptions == 0 && result->leaks == 0 && result->check_errors == 0)
        out_text(out, "No errors were found on the image.\n");
    if (result->corruptions > 0)
        put_count(out, "\n", result->corruptions,
                  " errors were found on the image.\n"
                  "Data may be corrupted, or further writes to the image may corrupt it.\n");
    if (result->leaks > 0)
        put_count(out, "\n", result->leaks,
                  " leaked clusters were found on the image.\n"
                  "This means waste of disk space, but no harm to data.\n");
    if (result->check_errors > 0)
        put_count(out, "\n", result->check_errors,
                  " internal errors have occurred during the check.\n");
}

static void put_percent(struct out *out, uint64_t part, uint64_t whole, const char *behind)
{
    char text[OUT_NUMBER_BYTES];

    number_percent(text, part, whole);
    out_text(out, text);
    out_text(out, behind);
}

static void put_use(struct out *out, const struct qc_check_result *result)
{
    uint64_t allocated = result->allocated_clusters, total = result->total_clusters;

    if (total > 0 && allocated > 0) {
        put_count(out, "", allocated, "/");
        put_count(out, "", total, " = ");
        put_percent(out, allocated, total, "% allocated, ");
        put_percent(out, result->fragmented_clusters, allocated, "% fragmented, ");
        put_percent(out, result->compressed_clusters, allocated, "% compressed clusters\n");
    }
    if (result->image_end_off > 0)
        put_count(out, "Image end offset: ", result->image_end_off, "\n");
}

static void check_text(struct out *out, const struct qc_check_result *result)
{
    if (result->leaks_fixed > 0 || result->corruptions_fixed > 0) {
        out_text(out, "The following inconsistencies were found and repaired:\n\n");
        put_count(out, "    ", result->leaks_fixed, " leaked clusters\n");
        put_count(out, "    ", result->corruptions_fixed, " corruptions\n\n");
        out_text(out, "Double checking the fixed image now...\n");
    }
    put_findings(out, result);
    put_use(out, result);
}

static void check_json(struct out *out, const char *name, const struct qc_check_result *result)
{
    const struct {
        const char *key;
        uint64_t value;
    } fields[] = {
        {"corruptions", result->corruptions},
        {"leaks", result->leaks},
        {"corruptions-fixed", result->corruptions_fixed},
        {"leaks-fixed", result->leaks_fixed},
        {"total-clusters", result->total_clusters},
        {"allocated-clusters", result->allocated_clusters},
        {"fragmented-clusters", result->fragmented_clusters},
        {"compressed-clusters", result->compressed_clusters},
        {"image-end-offset", result->image_end_off},
    };
    struct json json = {.out = out};

    json_open(&json, NULL, '{');
    json_string(&json, "filename", name);
    json_string(&json, "format", "qcow2");
    json_uint(&json, "check-errors", result->check_errors);
    for (unsigned i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        if (fields[i].value > 0)
            json_uint(&json, fields[i].key, fields[i].value);
    }
    json_close(&json, '}');
}

int report_check(struct out *out, struct report_image *subject, enum report_form form,
                 enum qc_check_fix fix, qc_check_progress *progress, void *context)
{
    struct qc_check_result result;
    qc_status status = qc_check(subject->image, fix, progress, context, &result);

    if (status != QC_OK) {
        qc_fail(&subject->detail, status, "%s",
                status == QC_RANGE ? "stopped" : qc_detail(subject->image));
        return EXIT_UNCHECKED;
    }
    if (form == REPORT_JSON)
        check_json(out, subject->names[0], &result);
    else
        check_text(out, &result);
    if (result.check_errors > 0) {
        qc_fail(&subject->detail, QC_CORRUPT, "Check failed");
        return EXIT_UNCHECKED;
    }
    return result.corruptions > 0 ? EXIT_CORRUPT : result.leaks > 0 ? EXIT_LEAKS : EXIT_CLEAN;
}
