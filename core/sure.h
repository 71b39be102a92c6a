/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Assertions: about our own mistakes, never about bytes from a disk. They are in every build.
 *
 * Promises: one that fails neither stops the machine nor goes on: what was about to be written is
 * not, the epoch is never published, and the image turns read-only with a line (change.c), while
 * what can be read stays readable.
 *
 * The crash suite has them out: its oracles are to find a bug by themselves.
 *
 * Left to others: damage of the image, which is checked where it is met and has lines of its own.
 */
#ifndef QC_SURE_H
#define QC_SURE_H

#include "qcow2.h"

#if defined(QC_SEEDS_AT_RUN_TIME)
#define QC_HAS_SURES 0
#else
#define QC_HAS_SURES 1
#endif

/* QC_OK where the promise holds, else QC_IO; what says which one is broken. */
static inline qc_status qc_sure(struct qc_image *image, bool is_so, const char *what)
{
    if (is_so || !QC_HAS_SURES)
        return QC_OK;
    image->epoch.fault = what;
    return qc_fail(&image->detail, QC_IO, "internal fault: %s", what);
}

#endif
