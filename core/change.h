/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The way in and out of every change of an image.
 *
 * Promises: nothing is changed before it was announced (invariant 6); an image that takes no writes
 * is told so before anything else happens; damage that is met turns the image read-only and, of the
 * kinds that other software marks too, sets the corrupt mark where the image could be written.
 */
#ifndef QC_CHANGE_H
#define QC_CHANGE_H

#include "qcow2.h"

/* Passed first: the range in whole sectors, read-only, autoclear bits. */
qc_status qc_begin_change(struct qc_image *image, uint64_t guest_off, uint64_t len);

/* Passed last: damage makes the image read-only, write-through commits. Returns the status. */
qc_status qc_end_change(struct qc_image *image, qc_status status);

/*
 * Turns the image read-only where status is QC_CORRUPT, a flush failed or a promise of our own is
 * broken. Returns the status, QC_IO in the last case.
 */
qc_status qc_note_damage(struct qc_image *image, qc_status status);

#endif
