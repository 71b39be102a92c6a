/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The qcow2 engine's public face, and the only header of core/ that front ends include.
 *
 * The caller owns all memory: it keeps one struct qc_image and one pool for each image it attaches,
 * both usually static, and lends them for as long as the image is open. Nothing is allocated.
 *
 * Promises: bytes from the disk are checked before they are used; a refused image is not written
 * (invariant 8); every loop is bounded by the request or by a limit named here. Images are opened
 * read-only. Not promised: locking. One image takes one call at a time.
 *
 * Offsets and lengths are bytes. "guest" is the disk that the image presents, "host" the one it
 * lies on. The format is QEMU's docs/interop/qcow2.
 */
#ifndef QC_QCOW2_H
#define QC_QCOW2_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cache.h"
#include "detail.h"
#include "disk.h"
#include "header.h"
#include "status.h"

/* Guest sizes are counted in units of this: a tail shorter than it is not shown, as QEMU does. */
#define QC_SECTOR_BYTES 512u

enum qc_extent_kind {
    QC_EXTENT_UNALLOCATED, /* no cluster here: reads as zeros */
    QC_EXTENT_ZERO,        /* reads as zeros whatever lies below, with or without a cluster kept */
    QC_EXTENT_DATA,        /* bytes at host_off */
};

/* One run of the guest disk whose bytes come from one place. */
struct qc_extent {
    enum qc_extent_kind kind;
    uint64_t len;      /* bytes, at least 1 */
    uint64_t host_off; /* QC_EXTENT_DATA only */
};

/* One opened image. Fixed size; its members belong to the engine. */
struct qc_image {
    struct qc_disk *disk;
    struct qc_cache *cache;
    struct qc_header header;
    struct qc_detail detail;
};

/*
 * Opens the image that starts at byte 0 of disk, with cache as its memory (qc_cache_init first; one
 * cache serves one image). QC_FOREIGN where no qcow2 header is, QC_IO, QC_CORRUPT, QC_UNSUPPORTED;
 * all but QC_FOREIGN leave a line in qc_detail. At most 64 reads are made before the answer.
 */
qc_status qc_open(struct qc_image *image, struct qc_cache *cache, struct qc_disk *disk);

/* Bytes of the guest disk, a multiple of QC_SECTOR_BYTES, at least one sector. */
uint64_t qc_size(const struct qc_image *image);

/*
 * Reads len bytes of the guest disk at guest_off into buf. QC_RANGE when they are not all inside
 * qc_size; QC_IO, QC_CORRUPT, QC_UNSUPPORTED (with a line in qc_detail) when they cannot be had,
 * and then buf's content is unspecified. len 0 is QC_OK. Neighbouring clusters that also neighbour
 * each other on the host are read in one request.
 */
qc_status qc_read(struct qc_image *image, uint64_t guest_off, void *buf, size_t len);

/*
 * The run that starts at guest_off, at most max_len bytes, as long as it can be told in one piece.
 * Errors as qc_read; max_len 0 is QC_RANGE.
 */
qc_status qc_map(struct qc_image *image, uint64_t guest_off, uint64_t max_len,
                 struct qc_extent *ret_extent);

/* One sentence about the image's last error, or "". Valid until the next call on the image. */
const char *qc_detail(const struct qc_image *image);

/* The parsed header, for those who describe an image; offsets in it are checked. */
const struct qc_header *qc_info(const struct qc_image *image);

#endif
