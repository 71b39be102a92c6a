/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The memory in which compressed clusters are read and unpacked, and what it holds.
 *
 * Promises: a cluster that is read in small pieces is unpacked once; packed clusters that lie one
 * behind the other are read ahead in large transfers, and one that is read alone is read alone. One
 * unpacker may serve all images of a front end, one call at a time.
 *
 * Left to others: decoding (decode.c), and which cluster (map.c).
 */
#ifndef QC_PACKED_H
#define QC_PACKED_H

#include <stdbool.h>
#include <stdint.h>

#include "decode.h"
#include "status.h"

#define QC_UNPACKED_BYTES (2u * 1024 * 1024) /* the largest cluster */
#define QC_PACKED_BYTES   (1024u * 1024)     /* read ahead at most */
#define QC_UNPACKER_ALIGN 4096u

struct qc_image;
struct qc_extent;

/* Which bytes of which layer of which image. */
struct qc_packed_place {
    const struct qc_image *image; /* NULL: nothing */
    unsigned depth;
    uint64_t host_off;
};

/* Fixed size; starts as zeros, its members belong to the engine. */
struct qc_unpacker {
    _Alignas(QC_UNPACKER_ALIGN) uint8_t unpacked[QC_UNPACKED_BYTES];
    _Alignas(QC_UNPACKER_ALIGN) uint8_t packed[QC_PACKED_BYTES];
    _Alignas(QC_UNPACKER_ALIGN) uint8_t workspace[QC_DECODER_BYTES];
    struct qc_packed_place unpacked_place; /* of the cluster in `unpacked` */
    struct qc_packed_place packed_place;   /* of the bytes in `packed` */
    uint32_t packed_len;
    uint32_t ahead_bytes;    /* how far the next sequential transfer reads */
    uint64_t next_off;       /* where the packed bytes of the last cluster ended */
    uint64_t unpacked_count; /* clusters unpacked so far, for those who measure */
};

/* Forgets what it holds of an image, which is opened or closed. */
void qc_unpacker_forget(struct qc_unpacker *unpacker, const struct qc_image *image);

/*
 * Reads what extent (QC_EXTENT_COMPRESSED) says is at guest_off: extent->len bytes, of one cluster.
 * QC_IO also where they do not unpack, QC_UNSUPPORTED without an unpacker; with a line in the
 * image's detail.
 */
qc_status qc_packed_read(struct qc_image *image, const struct qc_extent *extent, uint64_t guest_off,
                         uint8_t *buf);

#endif
