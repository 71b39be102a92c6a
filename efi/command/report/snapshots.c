/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* See report.h. Columns are as wide as qemu-img's, and give way to what is longer. */
#include "snapshots.h"

#define SECONDS_PER_DAY  86400u
#define NSEC_PER_SEC     UINT64_C(1000000000)
#define NSEC_PER_MSEC    1000000u
#define NO_ICOUNT        UINT64_MAX
#define DAYS_PER_ERA     146097u /* of 400 years */
#define DAYS_BEFORE_1970 719468u /* from the first of March of the year 0 on */
#define CLOCK_BYTES      64u

/* Ends text with a number of at least so many digits, and what follows it. */
static char *append(char *text, uint64_t value, unsigned digits_min, char next)
{
    number_uint(text, value, digits_min);
    text += out_length(text);
    *text = next;
    text[1] = '\0';
    return text + 1;
}

/* The year starts in March here, so that the leap day is its last. */
void snapshots_date(char text[OUT_NUMBER_BYTES], uint32_t date_sec)
{
    uint32_t days = date_sec / SECONDS_PER_DAY + DAYS_BEFORE_1970, seconds;
    uint32_t era = days / DAYS_PER_ERA, year, day, month;

    seconds = date_sec % SECONDS_PER_DAY;
    day = days % DAYS_PER_ERA;
    year = (day - day / 1460 + day / 36524 - day / 146096) / 365;
    day -= 365 * year + year / 4 - year / 100;
    month = (5 * day + 2) / 153;
    day -= (153 * month + 2) / 5;
    year += era * 400 + (month >= 10);
    text = append(text, year, 4, '-');
    text = append(text, month < 10 ? month + 3 : month - 9, 2, '-');
    text = append(text, day + 1, 2, ' ');
    text = append(text, seconds / 3600, 2, ':');
    text = append(text, seconds / 60 % 60, 2, ':');
    append(text, seconds % 60, 2, '\0');
}

/* "00:00:00.000" */
static void clock_text(char *text, uint64_t nsec)
{
    uint64_t seconds = nsec / NSEC_PER_SEC;

    text = append(text, seconds / 3600, 2, ':');
    text = append(text, seconds / 60 % 60, 2, ':');
    text = append(text, seconds % 60, 2, '.');
    append(text, nsec / NSEC_PER_MSEC % 1000, 3, '\0');
}

static void put_row(struct out *out, const struct qc_snapshot *snapshot)
{
    char text[CLOCK_BYTES];

    out_left(out, snapshot->id, 9);
    out_text(out, " ");
    out_left(out, snapshot->name, 16);
    out_text(out, " ");
    number_size(text, snapshot->vm_state_bytes);
    out_right(out, text, 8);
    snapshots_date(text, snapshot->date_sec);
    out_right(out, text, 20);
    clock_text(text, snapshot->vm_clock_nsec);
    out_right(out, text, 13);
    text[0] = '\0';
    if (snapshot->icount != NO_ICOUNT)
        number_int(text, snapshot->icount);
    out_right(out, text, 11);
    out_text(out, "\n");
}

/* The next one, or the end, which is QC_RANGE; other errors with a line in the subject's detail. */
static qc_status next(struct report_image *subject, uint64_t *cursor, struct qc_snapshot *snapshot)
{
    qc_status status = qc_snapshot_next(subject->image, cursor, snapshot);

    if (status != QC_OK && status != QC_RANGE)
        qc_fail(&subject->detail, status, "%s", qc_detail(subject->image));
    return status;
}

qc_status report_snapshots(struct out *out, struct report_image *subject)
{
    struct qc_snapshot snapshot;
    uint64_t cursor = 0;
    qc_status status = next(subject, &cursor, &snapshot);

    if (status == QC_OK)
        out_text(out, "Snapshot list:\n"
                      "ID        TAG               VM SIZE                DATE     VM CLOCK     "
                      "ICOUNT\n");
    while (status == QC_OK) {
        put_row(out, &snapshot);
        status = next(subject, &cursor, &snapshot);
    }
    return status == QC_RANGE ? QC_OK : status;
}

static void put_fields(struct json *json, const struct qc_snapshot *snapshot)
{
    json_open(json, NULL, '{');
    if (snapshot->icount != NO_ICOUNT)
        json_int(json, "icount", snapshot->icount);
    json_uint(json, "vm-clock-nsec", snapshot->vm_clock_nsec % NSEC_PER_SEC);
    json_string(json, "name", snapshot->name);
    json_uint(json, "date-sec", snapshot->date_sec);
    json_uint(json, "date-nsec", snapshot->date_nsec);
    json_uint(json, "vm-clock-sec", snapshot->vm_clock_nsec / NSEC_PER_SEC);
    json_string(json, "id", snapshot->id);
    json_int(json, "vm-state-size", snapshot->vm_state_bytes);
    json_close(json, '}');
}

qc_status snapshots_json(struct json *json, struct report_image *subject)
{
    struct qc_snapshot snapshot;
    uint64_t cursor = 0;
    qc_status status = next(subject, &cursor, &snapshot);

    if (status == QC_OK) {
        json_open(json, "snapshots", '[');
        while (status == QC_OK) {
            put_fields(json, &snapshot);
            status = next(subject, &cursor, &snapshot);
        }
        json_close(json, ']');
    }
    return status == QC_RANGE ? QC_OK : status;
}
