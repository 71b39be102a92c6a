/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* The list of snapshots as `info` and `snapshot -l` have it, in report.h's words and errors. */
#ifndef SNAPSHOTS_H
#define SNAPSHOTS_H

#include "json.h"
#include "report.h"

/* The field "snapshots", where there are any. */
qc_status snapshots_json(struct json *json, struct report_image *subject);

/* "2026-11-23 00:41:07", of seconds since 1970. */
void snapshots_date(char text[OUT_NUMBER_BYTES], uint32_t date_sec);

#endif
