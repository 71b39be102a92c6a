/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * decode.h over zlib and zstd. This is the only file of the engine that knows either.
 *
 * Promises: the decoders write to the output and to the workspace alone, and look back into the
 * output itself where they can: zstd never has a window of its own, inflate only where the packed
 * bytes come in several pieces.
 *
 * Left to others: how the libraries are built (shims.h).
 */
#include "decode.h"

#include "bytes.h"
#include "header.h"
#include "shims.h"

#define ZLIB_CONST
#define ZSTD_STATIC_LINKING_ONLY
#include <zlib.h>
#include <zstd.h>

/* Writers choose smaller windows, 4 KiB for QEMU; the largest reads them all. */
#define WINDOW_BITS 15

#define ARENA_ALIGN 16u

/* Memory for inflate: it asks twice at most, and never wants a piece changed. */
struct arena {
    uint8_t *free;
    size_t free_bytes;
};

static voidpf arena_take(voidpf opaque, uInt count, uInt bytes)
{
    struct arena *arena = opaque;
    size_t len = ((size_t)count * bytes + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);
    uint8_t *piece = arena->free;

    if (len > arena->free_bytes)
        return Z_NULL;
    arena->free += len;
    arena->free_bytes -= len;
    return piece;
}

static void arena_give(voidpf opaque, voidpf piece)
{
    (void)opaque;
    (void)piece;
}

static void pass(struct qc_packed_source *source, size_t len)
{
    source->bytes += len;
    source->available -= len;
}

/*
 * A cluster that is full is not yet right: one more byte is asked for, into a place of its own, and
 * must not come. QEMU takes a stream that just stops there, and its writers pad with anything.
 * Z_FINISH even while more may come: only then does inflate keep no window of a stream that it
 * ends.
 */
static qc_status inflate_cluster(void *workspace, struct qc_packed_source *source, uint8_t *out,
                                 size_t out_bytes)
{
    struct arena arena = {workspace, QC_DECODER_BYTES};
    z_stream stream = {.zalloc = arena_take,
                       .zfree = arena_give,
                       .opaque = &arena,
                       .next_out = out,
                       .avail_out = (uInt)out_bytes};
    uint8_t beyond;
    uLong moved;
    int answer = inflateInit2(&stream, -WINDOW_BITS);

    if (answer != Z_OK)
        return QC_CORRUPT;
    do {
        if (source->available == 0) {
            qc_status status = source->fetch(source, QC_DECODER_INPUT_BYTES);

            if (status != QC_OK)
                return status;
        }
        if (stream.avail_out == 0) {
            stream.next_out = &beyond;
            stream.avail_out = 1;
        }
        moved = stream.total_in + stream.total_out;
        stream.next_in = source->bytes;
        stream.avail_in = (uInt)qc_min(source->available, UINT_MAX);
        answer = inflate(&stream, Z_FINISH);
        pass(source, (size_t)(stream.next_in - source->bytes));
    } while (answer == Z_BUF_ERROR && stream.total_in + stream.total_out != moved &&
             stream.total_out <= out_bytes);
    if (answer != Z_STREAM_END && answer != Z_BUF_ERROR)
        return QC_CORRUPT;
    return stream.total_out == out_bytes ? QC_OK : QC_CORRUPT;
}

/*
 * One frame behind the filled bytes, or one that is to be skipped. Each round takes at least one
 * packed byte. No block is larger than what a source can make contiguous; a frame to be skipped
 * that is has no place in a cluster.
 */
static qc_status decode_frame(ZSTD_DCtx *context, struct qc_packed_source *source, uint8_t *out,
                              size_t out_bytes, size_t *filled)
{
    size_t wanted, given = ZSTD_decompressBegin(context);

    while (!ZSTD_isError(given) && (wanted = ZSTD_nextSrcSizeToDecompress(context)) > 0) {
        if (wanted > QC_DECODER_INPUT_BYTES)
            return QC_CORRUPT;
        if (source->available < wanted) {
            qc_status status = source->fetch(source, wanted);

            if (status != QC_OK)
                return status;
        }
        if (source->available < wanted)
            return QC_CORRUPT;
        given = ZSTD_decompressContinue(context, out + *filled, out_bytes - *filled, source->bytes,
                                        wanted);
        pass(source, wanted);
        if (!ZSTD_isError(given))
            *filled += given;
    }
    return ZSTD_isError(given) ? QC_CORRUPT : QC_OK;
}

/* Frame after frame until the cluster is full, as QEMU does; none of them is empty of packed bytes.
 */
static qc_status unzstd_cluster(void *workspace, struct qc_packed_source *source, uint8_t *out,
                                size_t out_bytes)
{
    ZSTD_DCtx *context = ZSTD_initStaticDCtx(workspace, QC_DECODER_BYTES);
    qc_status status = context == NULL ? QC_CORRUPT : QC_OK;
    size_t filled = 0;

    while (status == QC_OK && filled < out_bytes)
        status = decode_frame(context, source, out, out_bytes, &filled);
    return status;
}

qc_status qc_decode(uint32_t compression_type, void *workspace, struct qc_packed_source *source,
                    uint8_t *out, size_t out_bytes)
{
    if (compression_type == QC_COMPRESSION_ZSTD)
        return unzstd_cluster(workspace, source, out, out_bytes);
    return inflate_cluster(workspace, source, out, out_bytes);
}
