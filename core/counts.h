/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Reference counts of host clusters: the durable ones through the cache, the epoch's over them.
 *
 * Promises rule R6: within an epoch `now` (the durable count and every reference added) is never
 * lowered, while `then` (the true count) may be; a cluster whose `then` falls to 0 is in quarantine
 * until the commit that removes its last pointer has succeeded (invariant 4).
 *
 * Left to others: which cluster to take (alloc.c), when counts reach the disk (commit.c). Format:
 * QEMU's docs/interop/qcow2, "Host cluster management".
 */
#ifndef QC_COUNTS_H
#define QC_COUNTS_H

#include "qcow2.h"

/* How many clusters one refcount block counts, as a power of two. */
unsigned qc_block_reach_bits(const struct qc_image *image);

/* The refcount block for a range of clusters: its host offset, 0 where there is none. */
qc_status qc_block_find(struct qc_image *image, uint64_t block_index, uint64_t *ret_block_off);

/* The true count of a host cluster: what it will be once everything is on the disk. */
qc_status qc_count_get(struct qc_image *image, uint64_t cluster, uint64_t *ret_count);

/*
 * Whether the cluster lost a reference in this epoch: the disk names it more often than its count
 * says until that is committed, so that it must not be written in place.
 */
bool qc_count_is_dropped(const struct qc_image *image, uint64_t cluster);

/* As qc_count_get, and makes a later drop of it need no disk. Room for a record is reserved. */
qc_status qc_count_prepare(struct qc_image *image, uint64_t cluster, uint64_t *ret_count);

/* Adds the first reference to a free cluster. Room for a record is reserved. */
void qc_count_take(struct qc_image *image, uint64_t cluster);

/* Drops one reference of a cluster that was prepared or taken in this step. */
void qc_count_drop(struct qc_image *image, uint64_t cluster);

/*
 * The first run of free clusters in [first, end), all of it in the range of one refcount block that
 * exists; at most max_count of them. *ret_count is 0 where none is free.
 */
qc_status qc_counts_find_free(struct qc_image *image, uint64_t first, uint64_t end,
                              uint64_t max_count, uint64_t *ret_first, uint64_t *ret_count);

/* Count number index of a block whose bytes, or those from a multiple of 8 counts on, are here. */
uint64_t qc_count_load(const uint8_t *bytes, uint64_t index, unsigned refcount_order);
void qc_count_store(uint8_t *bytes, uint64_t index, unsigned refcount_order, uint64_t count);

#endif
