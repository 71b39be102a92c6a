/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * What is known of L2 tables that this session made: which of their parts are zeros on the disk
 * because nothing was ever written there. Such parts need not be read.
 *
 * Promises: a part that is called zeros is zeros, on the disk as well as in the cache; what finds
 * no room is forgotten, which costs reads and nothing else.
 *
 * Left to others: telling what is written (commit.c, patch.c) and what is given up (table.c).
 */
#ifndef QC_BLANK_H
#define QC_BLANK_H

#include "qcow2.h"

/* A table, durable by now, whose bytes are all zeros but for what qc_blank_written tells. */
void qc_blank_add(struct qc_image *image, uint64_t table_off);

/* The 8 bytes at host_off, in whatever table, may be anything from now on. */
void qc_blank_written(struct qc_image *image, uint64_t host_off);

/* There is no table there any more; or nowhere. */
void qc_blank_forget(struct qc_image *image, uint64_t table_off);
void qc_blank_forget_all(struct qc_image *image);

/* Whether all of len bytes at host_off, within one cluster, are known to be zeros. */
bool qc_blank_covers(const struct qc_image *image, uint64_t host_off, uint64_t len);

#endif
