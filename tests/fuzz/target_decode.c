/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The decoders: the input's first two bytes choose the kind, the cluster's size and how much is
 * handed out at a time; the others are the packed bytes.
 *
 * Packed bytes are copied for each fetch and the output has its exact length, so that a step beyond
 * either is seen; no input is asked for that was there already, and the same bytes in other pieces
 * give the same cluster.
 */
#include "disk.h"

#include <stdlib.h>
#include <string.h>

#define FETCHES_MAX 100000u

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t len);

struct source {
    struct qc_packed_source base; /* first, so that a source's pointer is its whole's */
    const uint8_t *packed;
    size_t len, given_end; /* of what was handed out so far */
    size_t more;           /* than is wanted */
    uint8_t *piece;
    unsigned fetches_count;
};

static qc_status fetch(struct qc_packed_source *base, size_t wanted)
{
    struct source *source = (struct source *)base;
    size_t at = source->given_end - base->available, offered = wanted + source->more;

    if (wanted == 0 || wanted > QC_DECODER_INPUT_BYTES || wanted <= base->available)
        fuzz_fail("%zu packed bytes are wanted", wanted);
    if (++source->fetches_count > FETCHES_MAX)
        fuzz_fail("more than %u fetches", FETCHES_MAX);
    if (offered > source->len - at)
        offered = source->len - at;
    free(source->piece);
    source->piece = malloc(offered + 1);
    memcpy(source->piece, source->packed + at, offered);
    base->bytes = source->piece;
    base->available = offered;
    source->given_end = at + offered;
    return QC_OK;
}

static qc_status decode(uint32_t kind, const uint8_t *packed, size_t len, size_t more, uint8_t *out,
                        size_t out_bytes)
{
    static _Alignas(16) uint8_t workspace[QC_DECODER_BYTES];
    struct source source = {.base = {.fetch = fetch}, .packed = packed, .len = len, .more = more};
    qc_status status = qc_decode(kind, workspace, &source.base, out, out_bytes);

    free(source.piece);
    if (status != QC_OK && status != QC_CORRUPT)
        fuzz_fail("decoding answers %d", status);
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t len)
{
    uint32_t kind;
    size_t out_bytes;
    uint8_t *out, *again;
    qc_status status;

    if (len < 2)
        return 0;
    kind = input[0] & 1 ? QC_COMPRESSION_ZSTD : QC_COMPRESSION_DEFLATE;
    out_bytes = (size_t)1 << (9 + input[0] / 2 % 8);
    out = malloc(out_bytes);
    again = malloc(out_bytes);
    status = decode(kind, input + 2, len - 2, input[1], out, out_bytes);
    if (decode(kind, input + 2, len - 2, len, again, out_bytes) != status ||
        (status == QC_OK && memcmp(out, again, out_bytes) != 0))
        fuzz_fail("pieces of other lengths decode to something else");
    fuzz_count(status == QC_OK);
    free(out);
    free(again);
    return 0;
}
