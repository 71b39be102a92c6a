/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * What an open image says of itself that the engine does not keep: names, and the list of bitmaps.
 *
 * Promises: every place is checked before it is read; at most QC_BITMAPS_MAX bitmaps are told.
 * Format: QEMU's docs/interop/qcow2, "Header extensions" and "Bitmaps".
 */
#ifndef FIELDS_H
#define FIELDS_H

#include "report.h"

/* A name that lies at host_off of the image, terminated, in subject->text. QC_IO, QC_CORRUPT. */
qc_status fields_name(struct report_image *subject, uint64_t host_off, uint32_t len);

/* Where the bitmap directory is read; bitmaps_count 0: there is none. */
struct fields_bitmaps {
    uint32_t bitmaps_count; /* that are still to come */
    uint64_t host_off;      /* of the next entry, */
    uint64_t end_off;       /* of the directory's end */
};

struct fields_bitmap {
    uint32_t flags;
    uint32_t granularity_bits; /* a bit stands for 1 << so many bytes of the guest disk */
};

#define FIELDS_BITMAP_IN_USE UINT32_C(1) /* it was not stored when the image was last closed */
#define FIELDS_BITMAP_AUTO   UINT32_C(2) /* it is kept up to date while the image is written */

/* The directory. */
struct fields_bitmaps fields_bitmaps(const struct report_image *subject);

/* The next bitmap, its name in subject->text. QC_IO, QC_CORRUPT, QC_UNSUPPORTED. */
qc_status fields_bitmaps_next(struct report_image *subject, struct fields_bitmaps *bitmaps,
                              struct fields_bitmap *ret_bitmap);

#endif
