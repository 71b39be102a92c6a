/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Writing tables: a stretch of the disk is put together in the staging buffer, changed by records,
 * and written in whole blocks with one request.
 *
 * Promises: after a good write the cached slices show what was written, after a failed one they are
 * forgotten (rule R13); nothing outside the named table is touched.
 */
#ifndef QC_WINDOW_H
#define QC_WINDOW_H

#include "qcow2.h"

struct qc_window {
    uint64_t table_off;   /* the table it lies in, for the cache's slices */
    uint64_t table_bytes; /* a multiple of 8 */
    uint64_t host_off;    /* a multiple of the block, as is len where the table has whole blocks */
    uint32_t len;         /* at most staging_bytes */
};

/* Fills the staging buffer with what the disk holds there; bytes past its end are zeros. */
qc_status qc_window_load(struct qc_image *image, const struct qc_window *window);

/* Writes the staging buffer. */
qc_status qc_window_store(struct qc_image *image, const struct qc_window *window);

#endif
