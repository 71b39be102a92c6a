/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * From sorted records to writes: which blocks of which table they change, merged where they lie
 * close together.
 *
 * Promises: whole blocks, ascending within a kind, one write for neighbours; only records that must
 * be written are (a prepared count is not, an entry of a new table goes with its table).
 *
 * Left to others: the order between kinds, and flushes (commit.c).
 */
#ifndef QC_PATCH_H
#define QC_PATCH_H

#include "qcow2.h"

/* Writes the records of one kind into tables that exist. */
qc_status qc_patch_tables(struct qc_image *image, enum qc_record_kind kind);

/*
 * Writes a new table whole: base_bytes of the table at base_off, then zeros, with the records of
 * this kind whose places lie in it.
 */
qc_status qc_patch_new_table(struct qc_image *image, enum qc_record_kind kind, uint64_t table_off,
                             uint64_t table_bytes, uint64_t base_off, uint64_t base_bytes);

/*
 * Writes all new L2 tables so, the L1 records being in their order: those that lie side by side
 * with one request, for which the cache may be emptied.
 */
qc_status qc_patch_new_l2(struct qc_image *image);

/* Changes some bytes of the header, all of them in its first 512. */
qc_status qc_patch_header(struct qc_image *image, uint32_t host_off, const uint8_t *bytes,
                          uint32_t bytes_count);

/* Writes guest data; volatile until the disks are flushed. */
qc_status qc_write_data(struct qc_image *image, uint64_t host_off, const void *buf, uint64_t len);

/* Writes zeros to the disk of guest data; len 0 is nothing. */
qc_status qc_write_zeros(struct qc_image *image, uint64_t host_off, uint64_t len);

/* The refcount table in force: the grown one of this epoch, or the header's. */
uint64_t qc_reftable_off(const struct qc_image *image);

#endif
