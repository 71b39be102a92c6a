/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * One compressed cluster through both decoders: streams written by hand after RFC 1951 and RFC
 * 8878, what the system's own libraries compress, and everything that damage can make of either.
 *
 * The source hands out copies of exactly the bytes it has to, output and workspace are as large as
 * promised, and the address sanitizer watches all three.
 */
#include "support.h"

#include <dlfcn.h>
#include <zlib.h>
#define ZSTD_STATIC_LINKING_ONLY
#include <zstd.h>

#include "../../core/decode.h"

#define SECTOR       512u
#define CLUSTER      (64u * 1024)
#define CLUSTER_MAX  (2u * 1024 * 1024)
#define PACKED_MAX   (CLUSTER_MAX + 64u * 1024)
#define RANDOM_COUNT 10000u
#define RANDOM_BYTES 300u

/* How much more than it must a source hands out. */
enum style { EXACTLY, ONE_MORE_EACH_TIME, EVERYTHING, STYLES };

struct run {
    struct qc_packed_source base; /* first, so that a source's pointer is its run's */
    enum style style;
    const uint8_t *packed;
    size_t packed_len;
    size_t loaded_end; /* of what was handed out so far */
    uint8_t *piece;
    unsigned fetch_count;
    unsigned fail_at; /* the fetch of this number fails, counted from 1; 0: none */
    uint8_t *workspace, *out;
};

static uint8_t plain[CLUSTER_MAX], packed[PACKED_MAX];
static const uint32_t TYPES[] = {QC_COMPRESSION_DEFLATE, QC_COMPRESSION_ZSTD};
static uint32_t random_state = 1;

static uint32_t random_next(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    random_state ^= random_state << 5;
    return random_state;
}

static qc_status fetch(struct qc_packed_source *base, size_t wanted)
{
    struct run *run = (struct run *)(void *)base;
    size_t at = run->loaded_end - base->available;
    size_t len = run->packed_len - at;
    size_t offered = wanted;

    assert_in_range(wanted, 1, QC_DECODER_INPUT_BYTES);
    run->fetch_count++;
    if (run->fetch_count == run->fail_at)
        return QC_IO;
    if (run->style == ONE_MORE_EACH_TIME)
        offered += run->fetch_count;
    if (run->style != EVERYTHING && offered < len)
        len = offered;
    free(run->piece);
    run->piece = malloc(len);
    if (len > 0)
        memcpy(run->piece, run->packed + at, len);
    base->bytes = run->piece;
    base->available = len;
    run->loaded_end = at + len;
    return QC_OK;
}

/* Decodes into a fresh run->out; run_end frees what a run holds. */
static qc_status run_type(struct run *run, uint32_t type, size_t out_bytes)
{
    run->base.fetch = fetch;
    run->workspace = malloc(QC_DECODER_BYTES);
    run->out = malloc(out_bytes);
    memset(run->workspace, 0xa5, QC_DECODER_BYTES);
    memset(run->out, 0x5a, out_bytes);
    return qc_decode(type, run->workspace, &run->base, run->out, out_bytes);
}

static void run_end(struct run *run)
{
    free(run->piece);
    free(run->workspace);
    free(run->out);
}

/* What all styles of source must answer; QC_OK gives the first out_bytes of plain. */
static void expect(uint32_t type, const uint8_t *bytes, size_t len, size_t out_bytes,
                   qc_status status)
{
    for (enum style style = 0; style < STYLES; style++) {
        struct run run = {.style = style, .packed = bytes, .packed_len = len};

        assert_int_equal(run_type(&run, type, out_bytes), status);
        if (status == QC_OK)
            assert_memory_equal(run.out, plain, out_bytes);
        run_end(&run);
    }
}

/* Of damaged bytes either may be said, and neither reads or writes where it must not. */
static void survive(uint32_t type, const uint8_t *bytes, size_t len, size_t out_bytes)
{
    struct run run = {.style = EXACTLY, .packed = bytes, .packed_len = len};
    qc_status status = run_type(&run, type, out_bytes);

    assert_true(status == QC_OK || status == QC_CORRUPT);
    run_end(&run);
}

/* ---- compressors: the system's shared libraries, by name at run time, beside our decoders ---- */

#define ZLIB_TOOL(name) ((__typeof__(name) *)tool("libz.so.1", #name))
#define ZSTD_TOOL(name) ((__typeof__(name) *)tool("libzstd.so.1", #name))

static void *tool(const char *library, const char *name)
{
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    void *symbol = handle == NULL ? NULL : dlsym(handle, name);

    if (symbol == NULL)
        fail_msg("%s in %s: %s", name, library, dlerror());
    return symbol;
}

/* plain's first len bytes into packed as raw deflate. Returns the stream's length. */
static size_t pack_deflate(size_t len, int window_bits)
{
    z_stream stream = {.next_in = plain, .avail_in = (uInt)len};

    stream.next_out = packed;
    stream.avail_out = sizeof(packed);
    assert_int_equal(ZLIB_TOOL(deflateInit2_)(&stream, 9, Z_DEFLATED, -window_bits, 9,
                                              Z_DEFAULT_STRATEGY, ZLIB_VERSION, sizeof(stream)),
                     Z_OK);
    assert_int_equal(ZLIB_TOOL(deflate)(&stream, Z_FINISH), Z_STREAM_END);
    assert_int_equal(ZLIB_TOOL(deflateEnd)(&stream), Z_OK);
    return stream.total_out;
}

/* The same as one zstd frame, with or without the content's size and a checksum. */
static size_t pack_zstd(size_t len, int has_size, int has_checksum)
{
    ZSTD_CCtx *context = ZSTD_TOOL(ZSTD_createCCtx)();
    size_t packed_len;

    ZSTD_TOOL(ZSTD_CCtx_setParameter)(context, ZSTD_c_contentSizeFlag, has_size);
    ZSTD_TOOL(ZSTD_CCtx_setParameter)(context, ZSTD_c_checksumFlag, has_checksum);
    packed_len = ZSTD_TOOL(ZSTD_compress2)(context, packed, sizeof(packed), plain, len);
    assert_in_range(packed_len, 1, sizeof(packed));
    ZSTD_TOOL(ZSTD_freeCCtx)(context);
    return packed_len;
}

static size_t pack(uint32_t type, size_t len)
{
    return type == QC_COMPRESSION_ZSTD ? pack_zstd(len, 0, 0) : pack_deflate(len, 12);
}

/* Words of an alphabet that shrinks to about a half, as programs and texts do. */
static void fill_text(size_t len)
{
    for (size_t i = 0; i < len; i++) {
        uint32_t number = random_next();

        plain[i] = number % 5 == 0 && i > 700 ? plain[i - 1 - number / 7 % 700]
                                              : (uint8_t)(number >> 8) % 23 + 'a';
    }
}

static void fill_random(size_t len)
{
    for (size_t i = 0; i < len; i++)
        plain[i] = (uint8_t)random_next();
}

static void fill_zeros(size_t len)
{
    memset(plain, 0, len);
}

/* Random, and every other half window once more: as far back as deflate can see. */
static void fill_far(size_t len)
{
    const size_t half = 16384, distance = 32768 - 262;

    fill_random(len);
    for (size_t i = 2 * half; i < len; i++)
        if (i / half % 2 == 1)
            plain[i] = plain[i - distance];
}

/* ---- streams by hand ---- */

/* 512 times 'a' in fixed codes: a literal, lengths 258 and 253 at distance 1, end of block. */
static const uint8_t FIXED[] = {0x4b, 0x1c, 0x05, 0x23, 0x1a, 0x00, 0x00};

/* Frame of one segment of 512 bytes; 256 in a raw block, and the last 256 from one byte. */
static const uint8_t FRAME[] = {0x28, 0xb5, 0x2f, 0xfd, 0x60, 0x00, 0x01, 0x00, 0x08, 0x00};
static const uint8_t FRAME_RLE[] = {0x03, 0x08, 0x00, 'b'};
static const uint8_t FRAME_EMPTY[] = {0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x00, 0x01, 0x00, 0x00};
static const uint8_t SKIPPED[] = {0x50, 0x2a, 0x4d, 0x18, 0x03, 0x00, 0x00, 0x00, 1, 2, 3};

static size_t put(size_t at, const void *bytes, size_t len)
{
    memcpy(packed + at, bytes, len);
    return at + len;
}

/* plain's len bytes from `from` on as one stored block, the last of its stream or not. */
static size_t put_stored(size_t at, size_t from, uint16_t len, bool is_last)
{
    const uint8_t head[] = {is_last, (uint8_t)len, (uint8_t)(len >> 8), (uint8_t)~len,
                            (uint8_t)(~len >> 8)};

    return put(put(at, head, sizeof(head)), plain + from, len);
}

static size_t put_frame(size_t at)
{
    memset(plain + 256, 'b', 256);
    at = put(at, FRAME, sizeof(FRAME));
    return put(put(at, plain, 256), FRAME_RLE, sizeof(FRAME_RLE));
}

static void deflate_by_hand(void **state)
{
    size_t len;

    (void)state;
    memset(plain, 'a', SECTOR);
    expect(QC_COMPRESSION_DEFLATE, FIXED, sizeof(FIXED), SECTOR, QC_OK);
    fill_random(SECTOR);
    len = put_stored(0, 0, 200, false);
    len = put_stored(len, 200, 0, false);
    len = put_stored(len, 200, 312, true);
    expect(QC_COMPRESSION_DEFLATE, packed, len, SECTOR, QC_OK);
}

static void zstd_by_hand(void **state)
{
    size_t len;

    (void)state;
    fill_random(256);
    len = put_frame(0);
    expect(QC_COMPRESSION_ZSTD, packed, len, SECTOR, QC_OK);
    packed[4] |= 1; /* wants a dictionary of a number that follows */
    memmove(packed + 6, packed + 5, len - 5);
    packed[5] = 7;
    expect(QC_COMPRESSION_ZSTD, packed, len + 1, SECTOR, QC_CORRUPT);
}

/* QEMU goes on with the next frame until the cluster is full, and skips what is to be skipped. */
static void zstd_frames_follow_each_other(void **state)
{
    const uint8_t too_long[] = {0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 1};
    size_t len;

    (void)state;
    fill_random(256);
    len = put(0, SKIPPED, sizeof(SKIPPED));
    len = put_frame(put(len, FRAME_EMPTY, sizeof(FRAME_EMPTY)));
    expect(QC_COMPRESSION_ZSTD, packed, len, SECTOR, QC_OK);
    memcpy(plain + SECTOR, plain, SECTOR);
    len = put_frame(put_frame(put(0, SKIPPED, sizeof(SKIPPED))));
    expect(QC_COMPRESSION_ZSTD, packed, len, 2 * SECTOR, QC_OK);
    expect(QC_COMPRESSION_ZSTD, packed, len, 3 * SECTOR, QC_CORRUPT);
    len = put_frame(put(0, too_long, sizeof(too_long)));
    expect(QC_COMPRESSION_ZSTD, packed, len, SECTOR, QC_CORRUPT);
}

/* Nothing again and again ends with the packed bytes. */
static void empty_blocks_and_frames_end(void **state)
{
    static const uint8_t stored[] = {0, 0, 0, 0xff, 0xff};
    size_t len;

    (void)state;
    for (len = 0; len < CLUSTER;)
        len = put(len, stored, sizeof(stored));
    expect(QC_COMPRESSION_DEFLATE, packed, len, SECTOR, QC_CORRUPT);
    for (len = 0; len < CLUSTER;)
        len = put(len, FRAME_EMPTY, sizeof(FRAME_EMPTY));
    expect(QC_COMPRESSION_ZSTD, packed, len, SECTOR, QC_CORRUPT);
    for (len = 0; len < CLUSTER;)
        len = put(len, SKIPPED, sizeof(SKIPPED));
    expect(QC_COMPRESSION_ZSTD, packed, len, SECTOR, QC_CORRUPT);
}

static void clusters_of_all_sizes(void **state)
{
    void (*const fills[])(size_t) = {fill_text, fill_random, fill_far, fill_zeros};

    (void)state;
    for (size_t out_bytes = SECTOR; out_bytes <= CLUSTER_MAX; out_bytes *= 8) {
        for (size_t i = 0; i < sizeof(fills) / sizeof(*fills); i++) {
            fills[i](out_bytes);
            for (size_t k = 0; k < 2; k++)
                expect(TYPES[k], packed, pack(TYPES[k], out_bytes), out_bytes, QC_OK);
        }
    }
}

static void zstd_checksums_are_checked(void **state)
{
    size_t len;

    (void)state;
    fill_text(CLUSTER);
    expect(QC_COMPRESSION_ZSTD, packed, pack_zstd(CLUSTER, 1, 0), CLUSTER, QC_OK);
    len = pack_zstd(CLUSTER, 1, 1);
    expect(QC_COMPRESSION_ZSTD, packed, len, CLUSTER, QC_OK);
    packed[len - 1] ^= 1;
    expect(QC_COMPRESSION_ZSTD, packed, len, CLUSTER, QC_CORRUPT);
}

/* The bytes that a match wants lie in an earlier piece: only inflate's window still has them. */
static void deflate_looks_back_across_pieces(void **state)
{
    struct run run = {.style = EXACTLY, .packed = packed};

    (void)state;
    fill_far(CLUSTER_MAX);
    run.packed_len = pack_deflate(CLUSTER_MAX, 15);
    assert_in_range(run.packed_len, CLUSTER_MAX / 2, CLUSTER_MAX / 4 * 3);
    assert_int_equal(run_type(&run, QC_COMPRESSION_DEFLATE, CLUSTER_MAX), QC_OK);
    assert_in_range(run.fetch_count, 8, 12);
    assert_memory_equal(run.out, plain, CLUSTER_MAX);
    run_end(&run);
}

/* What is untouched was not copied: no window for a stream that lies in one piece. */
static void deflate_in_one_piece_needs_no_window(void **state)
{
    struct run run = {.style = EXACTLY, .packed = packed};

    (void)state;
    fill_text(CLUSTER);
    run.packed_len = pack_deflate(CLUSTER, 15);
    assert_int_equal(run_type(&run, QC_COMPRESSION_DEFLATE, CLUSTER), QC_OK);
    assert_int_equal(run.fetch_count, 1);
    for (size_t i = 8192; i < QC_DECODER_BYTES; i++)
        assert_int_equal(run.workspace[i], 0xa5);
    run_end(&run);
}

/* Packed bytes are padded to sectors, and the next cluster's may begin in the last of them. */
static void bytes_behind_the_stream_are_left_alone(void **state)
{
    (void)state;
    for (size_t k = 0; k < 2; k++) {
        size_t len;

        fill_text(CLUSTER);
        len = pack(TYPES[k], CLUSTER);
        memset(packed + len, 0xff, SECTOR);
        expect(TYPES[k], packed, len + SECTOR, CLUSTER, QC_OK);
        memcpy(packed + len, packed, SECTOR);
        expect(TYPES[k], packed, len + SECTOR, CLUSTER, QC_OK);
    }
}

static void one_cluster_is_not_more_or_less(void **state)
{
    (void)state;
    for (size_t k = 0; k < 2; k++) {
        fill_text(CLUSTER + 1);
        expect(TYPES[k], packed, pack(TYPES[k], CLUSTER + 1), CLUSTER, QC_CORRUPT);
        expect(TYPES[k], packed, pack(TYPES[k], CLUSTER - 1), CLUSTER, QC_CORRUPT);
        expect(TYPES[k], packed, pack(TYPES[k], 0), CLUSTER, QC_CORRUPT);
        expect(TYPES[k], packed, 0, CLUSTER, QC_CORRUPT);
        memset(plain, 'z', 2 * CLUSTER); /* one match runs over the end */
        expect(TYPES[k], packed, pack(TYPES[k], 2 * CLUSTER), CLUSTER, QC_CORRUPT);
    }
}

/* QEMU takes deflate without the end that follows the last byte, but no zstd frame without its own.
 */
static void the_end_may_be_missing_in_deflate(void **state)
{
    size_t len;

    (void)state;
    fill_random(SECTOR);
    len = put_stored(0, 0, SECTOR, false);
    expect(QC_COMPRESSION_DEFLATE, packed, len, SECTOR, QC_OK);
    expect(QC_COMPRESSION_DEFLATE, packed, len - 1, SECTOR, QC_CORRUPT);
    packed[len] = 7; /* no kind of block */
    expect(QC_COMPRESSION_DEFLATE, packed, len + 1, SECTOR, QC_CORRUPT);
    len = put_stored(len, 0, 1, true);
    expect(QC_COMPRESSION_DEFLATE, packed, len, SECTOR, QC_CORRUPT);
    memset(plain, 'a', SECTOR);
    expect(QC_COMPRESSION_DEFLATE, FIXED, sizeof(FIXED) - 1, SECTOR, QC_OK);
    len = put_frame(0);
    packed[len - 4] &= 0xfe; /* not the last block */
    expect(QC_COMPRESSION_ZSTD, packed, len, SECTOR, QC_CORRUPT);
}

/* Small streams, cut at every byte and with each bit turned over. */
static void damage_at_every_place(void **state)
{
    const size_t lens[] = {SECTOR, 4096};

    (void)state;
    for (size_t i = 0; i < 2 * sizeof(lens) / sizeof(*lens); i++) {
        uint32_t type = TYPES[i % 2];
        size_t out_bytes = lens[i / 2];
        size_t len;

        fill_text(out_bytes);
        len = pack(type, out_bytes);
        /* Deflate's last two bytes may hold its end alone. */
        for (size_t cut = 0; cut + 2 < len; cut++)
            expect(type, packed, cut, out_bytes, QC_CORRUPT);
        for (size_t bit = 0; bit < len * 8; bit++) {
            packed[bit / 8] ^= (uint8_t)(1u << bit % 8);
            survive(type, packed, len, out_bytes);
            packed[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        expect(type, packed, len, out_bytes, QC_OK);
    }
}

static void many_bytes_wrong(void **state)
{
    (void)state;
    fill_text(CLUSTER);
    for (unsigned i = 0; i < 400; i++) {
        uint32_t type = TYPES[i % 2];
        size_t len;

        len = pack(type, CLUSTER);
        for (unsigned k = 0; k < 1 + i / 40; k++)
            packed[random_next() % len] = (uint8_t)random_next();
        survive(type, packed, len, CLUSTER);
    }
}

static void random_bytes(void **state)
{
    (void)state;
    for (unsigned i = 0; i < RANDOM_COUNT; i++) {
        size_t len = random_next() % RANDOM_BYTES;

        for (size_t k = 0; k < len; k++)
            packed[k] = (uint8_t)random_next();
        survive(QC_COMPRESSION_DEFLATE, packed, len, 4096);
        if (i % 4 != 0) /* else hardly a frame begins at all */
            put(0, FRAME, 4);
        survive(QC_COMPRESSION_ZSTD, packed, len, 4096);
    }
}

static void a_source_that_fails_is_believed(void **state)
{
    (void)state;
    fill_far(CLUSTER_MAX);
    for (size_t k = 0; k < 2; k++) {
        size_t len = pack(TYPES[k], CLUSTER_MAX);

        for (unsigned fail_at = 1; fail_at <= 6; fail_at++) {
            struct run run = {.packed = packed, .packed_len = len, .fail_at = fail_at};

            assert_int_equal(run_type(&run, TYPES[k], CLUSTER_MAX), QC_IO);
            assert_int_equal(run.fetch_count, fail_at);
            run_end(&run);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(deflate_by_hand),
        cmocka_unit_test(zstd_by_hand),
        cmocka_unit_test(zstd_frames_follow_each_other),
        cmocka_unit_test(empty_blocks_and_frames_end),
        cmocka_unit_test(clusters_of_all_sizes),
        cmocka_unit_test(zstd_checksums_are_checked),
        cmocka_unit_test(deflate_looks_back_across_pieces),
        cmocka_unit_test(deflate_in_one_piece_needs_no_window),
        cmocka_unit_test(bytes_behind_the_stream_are_left_alone),
        cmocka_unit_test(one_cluster_is_not_more_or_less),
        cmocka_unit_test(the_end_may_be_missing_in_deflate),
        cmocka_unit_test(damage_at_every_place),
        cmocka_unit_test(many_bytes_wrong),
        cmocka_unit_test(random_bytes),
        cmocka_unit_test(a_source_that_fails_is_believed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
