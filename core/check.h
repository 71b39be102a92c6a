/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Checking an image as `qemu-img check` does, and repairing it.
 *
 * Promises: memory is bounded, the cache's pages are all it uses: counts are told up over a window
 * of host clusters, in as many passes as it takes; without a fix nothing is written; a repair that
 * is cut can be begun again; no content that was right is changed. The numbers mean what qemu-img's
 * mean.
 *
 * Left to others: when to check (image.c does at the opening of a dirty image for writing).
 */
#ifndef QC_CHECK_H
#define QC_CHECK_H

#include <stdbool.h>
#include <stdint.h>

#include "status.h"

struct qc_image;

/*
 * What the repair of a dirty image at its opening reads of L2 tables at most: so many times the
 * disk, and so many bytes, of which each table is QC_DIRTY_LOOK_BYTES at least. An image whose
 * tables do not lie needs a small part of that. QC_DIRTY_LOOKS_MIN are for small disks with many
 * snapshots, as far as so few clusters can hold them. qc_check has no such limit: its caller stops
 * it.
 */
#define QC_DIRTY_DISKS_MAX  32u
#define QC_DIRTY_BYTES_MAX  (UINT64_C(16) << 30)
#define QC_DIRTY_LOOK_BYTES 4096u
#define QC_DIRTY_LOOKS_MIN  4096u

enum qc_check_fix {
    QC_FIX_NOTHING,
    QC_FIX_LEAKS, /* counts that are too high */
    QC_FIX_ALL,   /* everything: what an entry names that is nowhere reads as zeros afterwards */
};

struct qc_check_result {
    uint64_t corruptions, leaks, check_errors; /* what is left */
    uint64_t corruptions_fixed, leaks_fixed;
    uint64_t total_clusters, allocated_clusters, fragmented_clusters, compressed_clusters;
    uint64_t image_end_off; /* host offset behind the last cluster in use */
};

/* Called now and then with how much is done; false stops the check. */
typedef bool qc_check_progress(void *context, uint64_t done, uint64_t total);

/*
 * Checks the open image; with a fix it must take writes, or be read-only only for its dirty or
 * corrupt mark, for what is_for_check lets pass, or because the layers below are left out. QC_OK
 * when the check ran to its end, whatever it found; QC_IO, QC_NOSPACE, QC_RANGE where progress
 * stopped it, QC_UNSUPPORTED for what cannot be checked.
 */
qc_status qc_check(struct qc_image *image, enum qc_check_fix fix, qc_check_progress *progress,
                   void *context, struct qc_check_result *ret_result);

/*
 * At the opening of an image for writing: repairs one that is marked dirty, as QC_FIX_ALL does but
 * for entries that can never be read again, which stay. QC_OK: nothing is wrong any more and it
 * takes writes. Otherwise it stays read-only, and its reason is "dirty image, repair failed: ...".
 */
qc_status qc_repair_dirty(struct qc_image *image);

#endif
