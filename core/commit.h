/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The commit: the one place where order matters.
 *
 * Applies the epoch to the disk in at most three stages with one device flush after each:
 *
 * 1 targets   the unwritten parts of fresh clusters, counts, whole new tables nobody points at 2
 * roots     refcount table entries, the header field that names a new refcount table 3 pointers  L2
 * entries in existing tables, L1 entries
 *
 * Promises invariants 1 to 5: nothing durable points at what is not durable and whole; counts are
 * raised in stage 1 and lowered only in a later epoch; what lost its last pointer leaves quarantine
 * after stage 3's flush. A failing write leaves the epoch as it is, to be applied again from stage
 * 1 on; a failing flush makes the image read-only for good.
 */
#ifndef QC_COMMIT_H
#define QC_COMMIT_H

#include "qcow2.h"

/*
 * Applies the epoch and empties it, but for lowered counts, which are the next one's first records.
 */
qc_status qc_commit(struct qc_image *image);

/* Commits what there is and then writes lowered counts too: afterwards no count is too high. */
qc_status qc_settle_counts(struct qc_image *image);

/* Makes room for so many more records, committing at most twice. QC_NOSPACE: can never be had. */
qc_status qc_epoch_reserve(struct qc_image *image, uint32_t records_count);

/* Whether a commit has more to do than to lower counts. */
bool qc_has_changes(const struct qc_image *image);

/* A flush of the disk (invariant 5): its failure makes the image read-only. */
qc_status qc_flush_disk(struct qc_image *image);

#endif
