/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * One compressed cluster through the libraries' own decoders: zlib's inflate and zstd's single-file
 * decoder, with all their memory in a workspace that the caller lends.
 *
 * Promises: exactly out_bytes come out, or it is an error; no call of a decoder is repeated without
 * progress, so a hostile stream ends; nothing is allocated and nothing outside the workspace and
 * the output is written.
 *
 * Left to others: where the packed bytes come from (packed.c). Format: QEMU's docs/interop/qcow2,
 * "Compressed Clusters Descriptor"; raw deflate is RFC 1951, zstd RFC 8878.
 */
#ifndef QC_DECODE_H
#define QC_DECODE_H

#include <stddef.h>
#include <stdint.h>

#include "status.h"

/* What inflate with a window of 32 KiB, or zstd's static context, needs; they share it. */
#define QC_DECODER_BYTES (96u * 1024)

/*
 * No decoder asks for more contiguous packed bytes at a time: zstd wants a whole block and the
 * header of the next.
 */
#define QC_DECODER_INPUT_BYTES (128u * 1024 + 64)

/* Packed bytes, handed out from front to back. */
struct qc_packed_source {
    /*
     * Makes at least wanted (1 to QC_DECODER_INPUT_BYTES) bytes contiguous at `bytes`, without
     * passing over any, and sets available, which may be more; fewer only where the data ends, and
     * then available < wanted is the answer. QC_OK or QC_IO.
     */
    qc_status (*fetch)(struct qc_packed_source *source, size_t wanted);
    const uint8_t *bytes; /* the next ones; the decoder moves it on as it takes them */
    size_t available;     /* and lowers this */
};

/*
 * Decodes one cluster of out_bytes to out; the source may hold more than the cluster's stream.
 * workspace is QC_DECODER_BYTES, aligned to 16. QC_IO from the source; QC_CORRUPT where the stream
 * is damaged, ends early, or gives more or less than one cluster.
 */
qc_status qc_decode(uint32_t compression_type, void *workspace, struct qc_packed_source *source,
                    uint8_t *out, size_t out_bytes);

#endif
