/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The verbs that look into one image, and those that change its snapshots: info, map, check,
 * snapshot. What they print is report/'s.
 */
#include "clock.h"
#include "console.h"
#include "verbs.h"

/* Finds and opens the first word, by which reports call the image unless it is only its place. */
static int begin(const struct request *request, enum opened_use use,
                 struct report_image **ret_subject)
{
    static struct target target;
    const char *word = request->words[0];
    int status = target_find(word, &target);

    if (status != EXIT_GOOD)
        return status;
    if (target.is_attached && word[text_find(word, ':')] == ':' &&
        word[text_find(word, ':') + 1] == '\0')
        word = target.name;
    return opened_begin(&target, word, use, ret_subject);
}

static int ended(const struct request *request, qc_status status, const char *why)
{
    if (status != QC_OK && console_is_interrupted())
        return fail_interrupted();
    return status != QC_OK ? fail(request->words[0], ": ", why) : EXIT_GOOD;
}

int verb_info(const struct request *request)
{
    struct report_image *subject;
    int status = begin(request, OPENED_ALONE, &subject);

    if (status != EXIT_GOOD)
        return status;
    return opened_end(
        ended(request, report_info(&console, subject, request->form), subject->detail.text));
}

int verb_map(const struct request *request)
{
    struct report_image *subject;
    int status = begin(request, OPENED_LAYERS, &subject);

    if (status != EXIT_GOOD)
        return status;
    return opened_end(ended(request,
                            report_map(&console, subject, request->form, console_progress, NULL),
                            subject->detail.text));
}

int verb_check(const struct request *request)
{
    struct report_image *subject;
    int status =
        begin(request, request->fix == QC_FIX_NOTHING ? OPENED_CHECK : OPENED_REPAIR, &subject);

    if (status != EXIT_GOOD)
        return status;
    status =
        report_check(&console, subject, request->form, request->fix, console_progress, "checking");
    console_progress_end();
    if (status == EXIT_FAILED)
        status = ended(request, QC_CORRUPT, subject->detail.text);
    return opened_end(status);
}

/* ---- snapshots ------------------------------------------------------------------------------ */

static qc_status change(struct qc_image *image, const struct request *request)
{
    uint32_t nsec, sec = clock_now(&nsec);

    switch (request->action) {
    case 'c':
        return qc_snapshot_create(image, request->snapshot, sec, nsec);
    case 'a':
        return qc_snapshot_apply(image, request->snapshot);
    default:
        return qc_snapshot_delete(image, request->snapshot);
    }
}

int verb_snapshot(const struct request *request)
{
    struct report_image *subject;
    bool is_list = request->action == 'l';
    int status = begin(request, is_list ? OPENED_ALONE : OPENED_CHANGE, &subject);
    qc_status why;

    if (status != EXIT_GOOD)
        return status;
    if (is_list) {
        why = report_snapshots(&console, subject);
        return opened_end(ended(request, why, subject->detail.text));
    }
    why = change(subject->image, request);
    return opened_end(ended(request, why,
                            why == QC_RANGE && request->action != 'c' ? "no such snapshot"
                                                                      : qc_detail(subject->image)));
}
