/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Finding free host clusters, and making the refcount blocks and the refcount table grow with them.
 *
 * Promises: a step of an operation begins with qc_step_begin, which commits if it must and then
 * never again until the next one (rule R8); nothing is handed out that the header, the L1 table,
 * the refcount table or the snapshot table occupies, whatever the counts say.
 */
#ifndef QC_ALLOC_H
#define QC_ALLOC_H

#include "qcow2.h"

/*
 * Begins a step that adds at most records_count records and, where wants_cluster, takes a cluster:
 * qc_alloc_take will then find one. Commits at most twice. QC_NOSPACE, QC_IO, QC_CORRUPT.
 */
qc_status qc_step_begin(struct qc_image *image, uint32_t records_count, bool wants_cluster);

/*
 * Takes the free clusters that qc_step_begin found: 1 to max_count, neighbours on the host.
 * *ret_is_clean: the disk says that they still read as zeros.
 */
qc_status qc_alloc_take(struct qc_image *image, uint64_t max_count, uint64_t *ret_first,
                        uint64_t *ret_count, bool *ret_is_clean);

/*
 * As qc_alloc_take, one cluster for an L2 table. Tables lie side by side where that can be, so that
 * a commit writes many with one request.
 */
qc_status qc_alloc_table(struct qc_image *image, uint64_t *ret_cluster);

/*
 * Takes count clusters, one behind the other on the host. Not a step: it commits whenever its
 * records need room, so that until something names the clusters a cut leaves them as a leak.
 * QC_NOSPACE, QC_IO, QC_CORRUPT; after an error some may stay counted.
 */
qc_status qc_alloc_run(struct qc_image *image, uint64_t count, uint64_t *ret_first);

/* Drops one reference of each of count clusters, committing as qc_alloc_run does. */
qc_status qc_free_run(struct qc_image *image, uint64_t first, uint64_t count);

#endif
