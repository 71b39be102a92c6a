/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Whether the counts of an image may be believed, asked once before its first change.
 *
 * A count that is lower than what refers to its cluster lets two guest ranges change each other:
 * the cluster is handed out again, or written in place. No single lookup can see it, only telling
 * up all references does. That is done where it costs little.
 *
 * Promises: changes nothing; reads at most QC_VERIFY_TABLES_MAX tables and QC_VERIFY_BYTES_MAX of
 * them, and goes over what they say once. Of a larger image, of one with bitmaps that are in use,
 * and where a table cannot be read, the counts are believed.
 *
 * Left to others: refusing (cluster.c, alloc.c, after what they find themselves); all else that can
 * be wrong, and larger images (check.c).
 */
#ifndef QC_VERIFY_H
#define QC_VERIFY_H

#include "qcow2.h"

/* L2 tables and refcount blocks together, those of snapshots too. */
#define QC_VERIFY_TABLES_MAX 64u
#define QC_VERIFY_BYTES_MAX  (8u << 20)

/*
 * Sets image->lying_off to a cluster of data whose count is too low, where there is one. The guard
 * is prepared; with changes that wait nothing is looked at. Borrows the cache's pages. QC_IO where
 * the guard cannot tell.
 */
qc_status qc_verify_counts(struct qc_image *image);

#endif
