/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Putting an image right, in an order that survives a cut at every point (invariant 9).
 *
 * Promises: no count falls below its references at any point, nothing is written into a table that
 * something else claims too, and what cannot be read stays as it is: a repair invents no content.
 * Begun again after a cut it comes to the same end.
 *
 * Left to others: finding out what is wrong, before and afterwards (check.c).
 */
#ifndef QC_REPAIR_H
#define QC_REPAIR_H

#include "relocate.h"

/*
 * Repairs: with QC_FIX_LEAKS only counts that are too high and, where nothing else is wrong, COPIED
 * flags. The scratch is borrowed. go_on is asked as qc_refs asks it. QC_OK when all was done that
 * can be; QC_IO, QC_NOSPACE, QC_RANGE; after an error the image is still marked dirty.
 */
qc_status qc_repair(struct qc_image *image, const struct qc_scratch *scratch, enum qc_check_fix fix,
                    const struct qc_findings *findings,
                    bool (*go_on)(void *context, uint64_t l1_index), void *context);

/* The marks of the header that say that something may be wrong. */
#define QC_MARKS (QC_INCOMPATIBLE_DIRTY | QC_INCOMPATIBLE_CORRUPT)

/* Leaves only these marks in the header, durably, and the image as freshly opened. */
qc_status qc_repair_finish(struct qc_image *image, uint64_t marks);

#endif
