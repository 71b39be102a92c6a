/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The one sentence that explains an error, built in place from a format and values.
 *
 * Promises: always terminated, never longer than QC_DETAIL_BYTES, plain ASCII whatever the image
 * put into its strings. Conversions: %u and %x take a uint64_t (wrap values in QC_U), %s a string.
 */
#ifndef QC_DETAIL_H
#define QC_DETAIL_H

#include <stdint.h>

#include "status.h"

#define QC_DETAIL_BYTES 160
#define QC_U(value)     ((uint64_t)(value))

struct qc_detail {
    char text[QC_DETAIL_BYTES];
};

static inline void qc_detail_clear(struct qc_detail *detail)
{
    detail->text[0] = '\0';
}

/* Writes the sentence and returns status, so that refusing is one expression. */
qc_status qc_fail(struct qc_detail *detail, qc_status status, const char *format, ...);

#endif
