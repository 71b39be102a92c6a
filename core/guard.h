/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Which host clusters hold tables, so that neither data nor an allocation lands on one (invariant
 * 7), whatever counts and entries of a damaged image say.
 *
 * Promises: never misses a table in use: the header's structures, the snapshot table to its end,
 * every L2 table of the active L1, every refcount block, on the disk or new in the epoch. Memory is
 * bounded: a Bloom filter, filled once before the first change, says no at once, and only where it
 * says maybe are the tables read. Filling it, tables that the L1 table or the refcount table name
 * twice are found, and L2 tables that are refcount blocks: what is written to one would change two.
 * That search is bounded too (ROUNDS_MAX, ASKED_BYTES_MAX); a check of the whole image is not. L1
 * tables of snapshots are known of the first SNAPSHOTS_KNOWN_MAX.
 *
 * Left to others: L2 tables of snapshots alone, which a check of the whole image covers.
 */
#ifndef QC_GUARD_H
#define QC_GUARD_H

#include "qcow2.h"

/*
 * Fills the filter from the L1 table and the refcount table, and measures the snapshot table.
 * QC_IO; QC_CORRUPT where a table is named twice; QC_CORRUPT, QC_UNSUPPORTED where the snapshot
 * table has no end that can be told.
 */
qc_status qc_guard_prepare(struct qc_image *image);

/*
 * Measures the snapshot table; with more than reads_max reads to make it gives up, which is no
 * error. Errors as qc_guard_prepare.
 */
qc_status qc_guard_measure_snapshots(struct qc_image *image, uint32_t reads_max);

/* A refcount block, or an L2 table, was made in this cluster. */
void qc_guard_add_block(struct qc_image *image, uint64_t cluster);
void qc_guard_add_l2(struct qc_image *image, uint64_t cluster);

/* Whether a cluster is a table. QC_IO, QC_CORRUPT where a table that must be read cannot be. */
qc_status qc_guard_check(struct qc_image *image, uint64_t cluster, bool *ret_is_table);

/* After everything else about a write is found good: QC_CORRUPT where counts are known to lie. */
qc_status qc_believe_counts(struct qc_image *image);

/*
 * How often one slice of the L2 table at l2_off names this cluster: what is written to a cluster
 * changes all of these guest ranges. word_index lies in the slice. Errors as qc_guard_check.
 */
qc_status qc_guard_count_names(struct qc_image *image, uint64_t l2_off, uint64_t word_index,
                               uint64_t host_off, uint32_t *ret_names_count);

/* Whether what the L1 table calls an L2 table is a refcount block. Errors as qc_guard_check. */
qc_status qc_guard_check_l2(struct qc_image *image, uint64_t cluster, bool *ret_is_block);

#endif
