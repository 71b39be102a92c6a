/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* The list of snapshots as `info` and `snapshot -l` have it, in report.h's words and errors. */
#ifndef SNAPSHOTS_H
#define SNAPSHOTS_H

#include "json.h"
#include "report.h"

/* The field "snapshots", where there are any. */
qc_status snapshots_json(struct json *json, struct report_image *subject);

#endif
