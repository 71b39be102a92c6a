/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Internal snapshots: listing, and making, applying and deleting them in an order that survives a
 * cut at every point (invariant 9).
 *
 * Promises: a change starts on an empty epoch, with the dirty bit set where the format has it;
 * counts are raised before the pointer that relies on them is durable and lowered after the one
 * that did is gone; the pointer itself moves by one write of one sector of the header. A count that
 * would overflow is refused before anything is changed, and so is damage in what is to be given
 * back: the tree of a snapshot that is deleted, the disk's where one is applied. Format: QEMU's
 * docs/interop/qcow2, "Snapshots".
 *
 * Left to others: VM state, which is kept as it is and never made.
 */
#ifndef QC_SNAPSHOT_H
#define QC_SNAPSHOT_H

#include <stdbool.h>
#include <stdint.h>

#include "status.h"

struct qc_image;

#define QC_SNAPSHOT_ID_BYTES        128u /* with its end; what QEMU shows */
#define QC_SNAPSHOT_NAME_BYTES      256u
#define QC_SNAPSHOT_EXTRA_BYTES_MAX 1024u
#define QC_SNAPSHOT_TABLE_BYTES_MAX (64u * 1024 * 1024)

struct qc_snapshot {
    char id[QC_SNAPSHOT_ID_BYTES];
    char name[QC_SNAPSHOT_NAME_BYTES];
    uint64_t l1_off;
    uint32_t l1_entries;
    uint32_t date_sec, date_nsec; /* since 1970, UTC */
    uint64_t vm_clock_nsec;
    uint64_t vm_state_bytes;
    uint64_t guest_bytes; /* of the disk when it was made */
    uint64_t icount;      /* UINT64_MAX: not kept */
};

/*
 * The snapshots in the order of their table: *cursor starts at 0 and is moved on. QC_RANGE at the
 * end; QC_IO, QC_CORRUPT.
 */
qc_status qc_snapshot_next(struct qc_image *image, uint64_t *cursor,
                           struct qc_snapshot *ret_snapshot);

/* The snapshot of this id or, where there is none, of this name. QC_RANGE where there is neither.
 */
qc_status qc_snapshot_find(struct qc_image *image, const char *id_or_name,
                           struct qc_snapshot *ret_snapshot);

/*
 * Makes a snapshot of the disk as it is now. Its id is the lowest number above all others', as QEMU
 * chooses it. QC_READONLY, QC_NOSPACE, QC_UNSUPPORTED (a count would overflow, or a limit of the
 * format), QC_RANGE (a name too long), QC_IO, QC_CORRUPT; after an error the image is as before, or
 * is marked dirty and repaired at the next open.
 */
qc_status qc_snapshot_create(struct qc_image *image, const char *name, uint32_t date_sec,
                             uint32_t date_nsec);

/*
 * Whether the disk is what this snapshot of it holds: of the same size, by the same L2 tables. A
 * table that a snapshot holds is never written in place, so nothing was written since it was made,
 * or went back to. Flushes first. QC_IO, QC_CORRUPT, QC_UNSUPPORTED (its L1 table, as in
 * qc_snapshot_apply).
 */
qc_status qc_snapshot_is_disk(struct qc_image *image, const struct qc_snapshot *snapshot,
                              bool *ret_is_disk);

/* Makes the disk what it was. QC_RANGE: no such snapshot; other errors as qc_snapshot_create. */
qc_status qc_snapshot_apply(struct qc_image *image, const char *id_or_name);

/* Forgets a snapshot and frees what only it held. Errors as qc_snapshot_apply. */
qc_status qc_snapshot_delete(struct qc_image *image, const char *id_or_name);

#endif
