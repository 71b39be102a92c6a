/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Tables on the disk, slice by slice through the cache: L1, L2, refcount table, refcount blocks.
 *
 * Promises: one rule for where the slices of a table begin (multiples of QC_PAGE_BYTES from its
 * start), so that whoever reads, rewrites or forgets a table means the same slices; no byte outside
 * the disk is asked for, what a file does not hold reads as zeros.
 */
#ifndef QC_TABLE_H
#define QC_TABLE_H

#include "qcow2.h"

/*
 * The slice at slice_off (a multiple of QC_PAGE_BYTES) of the table at table_off, which has
 * table_bytes, of the layer at depth. Valid until the next call on the cache.
 */
qc_status qc_table_slice(struct qc_image *image, unsigned depth, uint64_t table_off,
                         uint64_t table_bytes, uint64_t slice_off, enum qc_heat heat,
                         const uint8_t **ret_slice);

/*
 * The 8-byte entry at entry_index of a table and, right behind it, those that lie in the same
 * slice. They are big endian still.
 */
qc_status qc_table_entries(struct qc_image *image, unsigned depth, uint64_t table_off,
                           uint64_t table_bytes, uint64_t entry_index, enum qc_heat heat,
                           const uint8_t **ret_entries, uint32_t *ret_entries_count);

/* Forgets every slice of the image itself that starts in the cluster at host_off (rule R13). */
void qc_table_forget(struct qc_image *image, uint64_t host_off);

/*
 * Says of damage that it is of the kind for which the corrupt mark is set, because whoever writes
 * the image might write where it must not: offsets of no cluster, tables where data is looked for.
 * Returns QC_CORRUPT.
 */
static inline qc_status qc_marked(struct qc_image *image)
{
    image->is_to_be_marked = true;
    return QC_CORRUPT;
}

/* Whether a host cluster belongs to a structure that the layer's header names (invariant 7). */
bool qc_is_header_structure(const struct qc_image *image, unsigned depth, uint64_t cluster);

#endif
