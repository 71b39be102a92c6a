/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Compressed clusters, read: entries of every cluster size and at their limits, data anywhere on
 * the disk, what is damaged, and what reading costs. Streams are made by hand (sim/deflate.h; zstd
 * frames of raw blocks here), on a disk that holds a few pieces and is zeros elsewhere, so that
 * clusters of 2 MiB and offsets beyond any memory are the same to it.
 */
#include "support.h"

#include "../../core/bytes.h"
#include "../sim/deflate.h"

#define COPIED      (UINT64_C(1) << 63)
#define COMPRESSED  (UINT64_C(1) << 62)
#define PIECES_MAX  8u
#define CLUSTER_MAX (2u * 1024 * 1024)
#define ZSTD_BLOCK  (128u * 1024)

/* Where the image has its parts, in clusters. */
enum { SPARSE_L1 = 3, SPARSE_L2, SPARSE_DATA };

struct sparse {
    struct qc_disk disk; /* first, so that a disk's pointer is its sparse disk's */
    struct {
        uint64_t host_off;
        const uint8_t *bytes;
        size_t len;
    } pieces[PIECES_MAX];
    unsigned pieces_count, reads_count, fail_at;
    uint64_t read_bytes, read_len_last;
    uint8_t header[112], l1[8], l2[64 * 8];
    unsigned cluster_bits;
    struct qc_cache cache;
    struct qc_image image;
    struct qc_open_options options;
};

static struct sparse sparse;
static _Alignas(QC_PAGE_BYTES) uint8_t sparse_pool[POOL_BYTES];
static struct qc_unpacker unpacker;
static uint8_t plain[CLUSTER_MAX], packed[2 * CLUSTER_MAX], out[CLUSTER_MAX + 2];

static qc_status sparse_read(struct qc_disk *disk, uint64_t host_off, void *buf, size_t len)
{
    struct sparse *s = (struct sparse *)disk;

    assert_true(len > 0 && host_off <= disk->size_bytes && len <= disk->size_bytes - host_off);
    s->reads_count++;
    s->read_bytes += len;
    s->read_len_last = len;
    memset(buf, s->reads_count == s->fail_at ? 0xee : 0, len);
    if (s->reads_count == s->fail_at)
        return QC_IO;
    for (unsigned i = 0; i < s->pieces_count; i++) {
        uint64_t from = s->pieces[i].host_off, to = from + s->pieces[i].len;

        if (from < host_off)
            from = host_off;
        if (to > host_off + len)
            to = host_off + len;
        if (from < to)
            memcpy((uint8_t *)buf + (from - host_off),
                   s->pieces[i].bytes + (from - s->pieces[i].host_off), to - from);
    }
    return QC_OK;
}

static const struct qc_disk_ops sparse_ops = {sparse_read, NULL, NULL, NULL, NULL};

static void add_piece(uint64_t host_off, const uint8_t *bytes, size_t len)
{
    assert_true(sparse.pieces_count < PIECES_MAX);
    sparse.pieces[sparse.pieces_count].host_off = host_off;
    sparse.pieces[sparse.pieces_count].bytes = bytes;
    sparse.pieces[sparse.pieces_count++].len = len;
}

static uint64_t cluster_bytes(void)
{
    return UINT64_C(1) << sparse.cluster_bits;
}

/* A version 3 image of 64 guest clusters that is only read; compressed as the type says. */
static void build(unsigned cluster_bits, uint32_t type, uint64_t disk_bytes)
{
    memset(&sparse, 0, sizeof(sparse));
    sparse.cluster_bits = cluster_bits;
    sparse.disk = (struct qc_disk){&sparse_ops, disk_bytes, 512, true};
    memcpy(sparse.header, "QFI\xfb", 4);
    put_be32(sparse.header + 4, 3);
    put_be32(sparse.header + 20, cluster_bits);
    put_be64(sparse.header + 24, 64 * cluster_bytes());
    put_be32(sparse.header + 36, 1);
    put_be64(sparse.header + 40, SPARSE_L1 * cluster_bytes());
    put_be64(sparse.header + 48, cluster_bytes());
    put_be32(sparse.header + 56, 1);
    put_be64(sparse.header + 72, type == 0 ? 0 : QC_INCOMPATIBLE_COMPRESSION);
    put_be32(sparse.header + 96, 4);
    put_be32(sparse.header + 100, 112);
    sparse.header[104] = (uint8_t)type;
    put_be64(sparse.l1, SPARSE_L2 * cluster_bytes() | COPIED);
    add_piece(0, sparse.header, sizeof(sparse.header));
    add_piece(SPARSE_L1 * cluster_bytes(), sparse.l1, sizeof(sparse.l1));
    add_piece(SPARSE_L2 * cluster_bytes(), sparse.l2, sizeof(sparse.l2));
    sparse.options.unpacker = &unpacker;
}

static void open_ok(void)
{
    qc_cache_init(&sparse.cache, sparse_pool, sizeof(sparse_pool));
    assert_int_equal(qc_open(&sparse.image, &sparse.cache, &sparse.disk, &sparse.options), QC_OK);
}

/* The entry of a compressed cluster whose len bytes begin at host_off. */
static uint64_t entry_of(uint64_t host_off, size_t len)
{
    unsigned off_bits = 62 - (sparse.cluster_bits - 8);

    return COMPRESSED | ((host_off + len - 1) / 512 - host_off / 512) << off_bits | host_off;
}

static void set_entry(unsigned index, uint64_t entry)
{
    put_be64(sparse.l2 + index * 8, entry);
}

/* Bytes that nothing compresses, another row for each salt. */
static void fill_plain(uint8_t *bytes, size_t len, unsigned salt)
{
    uint32_t state = salt * 2654435761u + 1;

    for (size_t i = 0; i < len; i++) {
        state = state * 1664525u + 1013904223u;
        bytes[i] = (uint8_t)(state >> 24);
    }
}

static size_t pack_deflate(const uint8_t *bytes, size_t len, uint8_t *ret_bytes)
{
    size_t used = 0, part;

    for (size_t done = 0; done < len; done += part) {
        part = len - done < DEFLATE_STORED_MAX ? len - done : DEFLATE_STORED_MAX;
        used += deflate_stored(ret_bytes + used, bytes + done, part, done + part == len);
    }
    return used;
}

/* A frame of one segment that tells its size, and raw blocks (RFC 8878, 3.1.1). */
static size_t pack_zstd(const uint8_t *bytes, size_t len, uint8_t *ret_bytes)
{
    static const uint8_t head[5] = {0x28, 0xb5, 0x2f, 0xfd, 0xa0};
    size_t used = sizeof(head), part;

    memcpy(ret_bytes, head, sizeof(head));
    for (unsigned i = 0; i < 4; i++)
        ret_bytes[used++] = (uint8_t)(len >> 8 * i);
    for (size_t done = 0; done < len; done += part) {
        uint32_t block;

        part = len - done < ZSTD_BLOCK ? len - done : ZSTD_BLOCK;
        block = (uint32_t)part << 3 | (done + part == len);
        for (unsigned i = 0; i < 3; i++)
            ret_bytes[used++] = (uint8_t)(block >> 8 * i);
        memcpy(ret_bytes + used, bytes + done, part);
        used += part;
    }
    return used;
}

/* Clusters of 4 KiB; one is packed at host cluster 9, in so many bytes, and no entry names it. */
static size_t build_small(void)
{
    size_t len;

    build(12, 0, 64 << 12);
    fill_plain(plain, 4096, 1);
    len = pack_deflate(plain, 4096, packed);
    add_piece(9 << 12, packed, len);
    return len;
}

/* Reads and requires these bytes; those around the buffer stay. */
static void expect_read(uint64_t guest_off, const uint8_t *bytes, size_t len)
{
    memset(out, 0xa5, len + 2);
    assert_int_equal(qc_read(&sparse.image, guest_off, out + 1, len), QC_OK);
    assert_memory_equal(out + 1, bytes, len);
    assert_true(out[0] == 0xa5 && out[len + 1] == 0xa5);
}

static void expect_bad(uint64_t guest_off, qc_status status, const char *line)
{
    assert_int_equal(qc_read(&sparse.image, guest_off, out, 1), status);
    assert_string_equal(qc_detail(&sparse.image), line);
}

static void every_cluster_size_reads(void **state)
{
    (void)state;
    for (unsigned bits = QC_CLUSTER_BITS_MIN; bits <= QC_CLUSTER_BITS_MAX; bits++) {
        for (uint32_t type = QC_COMPRESSION_DEFLATE; type <= QC_COMPRESSION_ZSTD; type++) {
            uint64_t host_off, cluster;
            size_t len;

            build(bits, type, 32 * CLUSTER_MAX);
            cluster = cluster_bytes();
            host_off = (SPARSE_DATA + 1) * cluster - 77; /* within a sector, over the border */
            fill_plain(plain, cluster, bits);
            len = (type == 0 ? pack_deflate : pack_zstd)(plain, cluster, packed);
            add_piece(host_off, packed, len);
            set_entry(1, entry_of(host_off, len));
            open_ok();
            expect_read(cluster, plain, cluster);
            expect_read(cluster, plain, 1);
            expect_read(2 * cluster - 1, plain + cluster - 1, 1);
            expect_read(cluster + 100, plain + 100, cluster - 200);
            memset(plain, 0, cluster); /* on both sides there is nothing */
            expect_read(0, plain, cluster);
            expect_read(2 * cluster, plain, cluster);
        }
    }
}

static void expect_extent(unsigned index, uint64_t host_off, uint32_t packed_bytes)
{
    struct qc_extent extent;
    uint64_t guest_off = index * cluster_bytes();

    assert_int_equal(qc_map(&sparse.image, guest_off + 1, 2 * cluster_bytes(), &extent), QC_OK);
    assert_int_equal(extent.kind, QC_EXTENT_COMPRESSED);
    assert_int_equal(extent.depth, 0);
    assert_true(extent.len == cluster_bytes() - 1); /* each cluster is a run of its own */
    assert_true(extent.host_off == host_off && extent.packed_bytes == packed_bytes);
}

/* The field for the offset shrinks by a bit where the one for the sectors grows by one. */
static void entry_fields_have_their_widths(void **state)
{
    (void)state;
    for (unsigned bits = QC_CLUSTER_BITS_MIN; bits <= QC_CLUSTER_BITS_MAX; bits++) {
        unsigned off_bits = 62 - (bits - 8);
        uint64_t off_max = (UINT64_C(1) << (off_bits < 56 ? off_bits : 56)) - 1;
        uint64_t sectors_max = (UINT64_C(1) << (bits - 8)) - 1;

        build(bits, 0, UINT64_MAX / 2);
        set_entry(0, COMPRESSED | sectors_max << off_bits | (SPARSE_DATA * cluster_bytes() + 1));
        set_entry(1, COMPRESSED | off_max);
        set_entry(2, COMPRESSED | 1);
        set_entry(3, COMPRESSED | UINT64_C(1) << off_bits | 511);
        open_ok();
        expect_extent(0, SPARSE_DATA * cluster_bytes() + 1,
                      (uint32_t)((sectors_max + 1) * 512 - 1));
        expect_extent(1, off_max, 1);
        expect_extent(2, 1, 511);
        expect_extent(3, 511, 513);
    }
}

static void expect_nowhere(unsigned cluster_bits, uint64_t disk_bytes, uint64_t host_off)
{
    struct qc_extent extent;

    build(cluster_bits, 0, disk_bytes);
    set_entry(0, COMPRESSED | host_off);
    open_ok();
    assert_int_equal(qc_map(&sparse.image, 0, 1, &extent), QC_CORRUPT);
    expect_bad(0, QC_CORRUPT, "bad compressed cluster at guest 0x0");
}

static void entries_that_lead_nowhere_are_damage(void **state)
{
    struct qc_extent extent;

    (void)state;
    /* With the smallest clusters the field reaches beyond what any disk holds. */
    for (unsigned bit = 56; bit <= 60; bit++)
        expect_nowhere(9, UINT64_MAX / 2, UINT64_C(1) << bit);
    expect_nowhere(16, 64 << 16, 0); /* the header */
    expect_nowhere(16, 64 << 16, 64 << 16);
    /* One byte, which is no cluster, and more sectors than there are. */
    set_entry(0, COMPRESSED | UINT64_C(3) << (62 - 8) | ((64 << 16) - 1));
    open_ok();
    assert_int_equal(qc_map(&sparse.image, 0, 1, &extent), QC_OK);
    expect_bad(0, QC_IO, "bad compressed cluster at guest 0x0");
}

/* The entry counts whole sectors, and QEMU takes more than there are. */
static void entries_may_reach_too_far(void **state)
{
    size_t len;

    (void)state;
    for (unsigned more = 0; more < 200; more += 33) {
        uint64_t host_off = 9 << 16;

        build(16, 0, 0);
        len = deflate_repeat(packed, 0x0123456789abcdef, cluster_bytes(), true);
        sparse.disk.size_bytes = host_off + len; /* the disk ends with the stream */
        add_piece(host_off, packed, len);
        set_entry(0, entry_of(host_off, len) + ((uint64_t)more << (62 - 8)));
        open_ok();
        for (size_t i = 0; i < cluster_bytes(); i += 8)
            memcpy(plain + i, "\xef\xcd\xab\x89\x67\x45\x23\x01", 8);
        expect_read(0, plain, cluster_bytes());
        assert_int_equal(sparse.reads_count, 4); /* header, L1, L2, and once what there is */
    }
}

static void streams_of_another_length_are_damage(void **state)
{
    static const int wrongs[] = {-8, -1, 1, 8};

    (void)state;
    for (unsigned i = 0; i < sizeof(wrongs) / sizeof(wrongs[0]); i++) {
        size_t len;

        build(12, 0, 64 << 12);
        fill_plain(plain, 4104, i);
        len = pack_deflate(plain, (size_t)(4096 + wrongs[i]), packed);
        add_piece(9 << 12, packed, len);
        set_entry(3, entry_of(9 << 12, len));
        fill_plain(plain, 4104, 9);
        len = pack_deflate(plain, 4096, packed + 8192);
        add_piece(12 << 12, packed + 8192, len);
        set_entry(0, entry_of(12 << 12, len));
        open_ok();
        expect_read(1, plain + 1, 100); /* in memory, and unharmed afterwards */
        expect_bad(3 << 12, QC_IO, "bad compressed cluster at guest 0x3000");
        expect_read(1, plain + 1, 100);
        expect_bad((3 << 12) + 4095, QC_IO, "bad compressed cluster at guest 0x3000");
    }
}

static void entries_shorter_than_their_stream_are_damage(void **state)
{
    size_t len = build_small();

    (void)state;
    set_entry(0, entry_of(9 << 12, len - 512));
    set_entry(1, entry_of(9 << 12, len));
    open_ok();
    expect_bad(0, QC_IO, "bad compressed cluster at guest 0x0");
    expect_read(1 << 12, plain, 4096); /* and nobody else's */
}

static void without_memory_only_the_compressed_are_missing(void **state)
{
    size_t len = build_small();

    (void)state;
    add_piece(12 << 12, plain, 4096);
    set_entry(0, entry_of(9 << 12, len));
    set_entry(1, 12 << 12);
    sparse.options.unpacker = NULL;
    open_ok();
    expect_bad(0, QC_UNSUPPORTED, "compressed cluster at guest 0x0: no memory");
    expect_read(1 << 12, plain, 4096);
}

static void failed_reads_leave_nothing_behind(void **state)
{
    size_t len = build_small();

    (void)state;
    set_entry(0, entry_of(9 << 12, len));
    set_entry(5, entry_of(20 << 12, 512));
    open_ok();
    assert_int_equal(qc_read(&sparse.image, 4 << 12, out, 1), QC_OK); /* tables are here now */
    for (unsigned i = 0; i < 2; i++) {
        sparse.fail_at = sparse.reads_count + 1;
        expect_bad(i, QC_IO, "data at 0x9000 cannot be read");
        assert_string_equal(qc_readonly_reason(&sparse.image), "read-only");
    }
    expect_read(1, plain + 1, 4095);
    sparse.fail_at = sparse.reads_count + 1;
    expect_read(0, plain, 4096); /* still here */
    expect_bad(5 << 12, QC_IO, "data at 0x14000 cannot be read");
    expect_read(0, plain, 4096); /* read anew */
}

/* ---- what it costs ---- */

#define ROW_CLUSTERS 32u
#define ROW_BITS     16u

/* 32 clusters of 64 KiB one behind the other, some 40 KiB each; returns the host offset of the
 * first. */
static uint64_t build_row(uint64_t *ret_end)
{
    uint64_t host_off = (SPARSE_DATA << ROW_BITS) + 1000, end = host_off;

    build(ROW_BITS, 0, 1 << 28);
    for (unsigned i = 0; i < ROW_CLUSTERS; i++) {
        uint8_t *at = packed + (end - host_off);
        size_t len, half = 40000;

        fill_plain(plain + i * 65536u, 65536, i);
        len = deflate_stored(at, plain + i * 65536u, half, false);
        memset(plain + i * 65536u + half, (int)i, 65536 - half);
        len += deflate_repeat(at + len, i * UINT64_C(0x0101010101010101), 65536 - half, true);
        set_entry(i, entry_of(end, len));
        end += len;
    }
    add_piece(host_off, packed, end - host_off);
    *ret_end = end;
    open_ok();
    return host_off;
}

static void small_reads_unpack_each_cluster_once(void **state)
{
    uint64_t end, host_off = build_row(&end), before = unpacker.unpacked_count;
    unsigned tables;

    (void)state;
    assert_int_equal(qc_read(&sparse.image, 63 << ROW_BITS, out, 1), QC_OK);
    tables = sparse.reads_count;
    sparse.read_bytes = 0;
    for (uint64_t off = 0; off < ROW_CLUSTERS << ROW_BITS; off += 4096)
        expect_read(off, plain + off, 4096);
    assert_int_equal(unpacker.unpacked_count - before, ROW_CLUSTERS);
    print_message("%u packed bytes in pieces of 4 KiB: %u reads, %u bytes\n",
                  (unsigned)(end - host_off), sparse.reads_count - tables,
                  (unsigned)sparse.read_bytes);
    /* Transfers double, from 64 KiB to 1 MiB. */
    assert_in_range(sparse.reads_count - tables, 2, 8);
    assert_in_range(sparse.read_bytes, end - host_off, (end - host_off) * 2);
}

static void clusters_read_whole_read_ahead_as_well(void **state)
{
    uint64_t end, host_off = build_row(&end), before = unpacker.unpacked_count;

    (void)state;
    expect_read(0, plain, ROW_CLUSTERS << ROW_BITS);
    assert_int_equal(unpacker.unpacked_count - before, ROW_CLUSTERS);
    assert_in_range(sparse.reads_count, 2, 3 + 8); /* header, L1, L2 */
    assert_in_range(sparse.read_bytes, end - host_off, (end - host_off) * 2);
}

static void clusters_read_alone_are_read_alone(void **state)
{
    uint64_t end;

    (void)state;
    build_row(&end);
    assert_int_equal(qc_read(&sparse.image, 63 << ROW_BITS, out, 1), QC_OK);
    sparse.reads_count = 0;
    for (unsigned i = 0; i < 8; i++) {
        uint64_t off = (uint64_t)(i * 13 % ROW_CLUSTERS) << ROW_BITS;

        expect_read(off + 5, plain + off + 5, 100);
        assert_int_equal(sparse.reads_count, i + 1);
        assert_in_range(sparse.read_len_last, 40000, 65536);
    }
}

/* One unpacker serves two images, and one that is opened anew. */
static void images_share_the_memory(void **state)
{
    static struct qc_cache cache;
    static struct qc_image other;
    static _Alignas(QC_PAGE_BYTES) uint8_t pool[POOL_BYTES];
    size_t len = build_small();

    (void)state;
    set_entry(0, entry_of(9 << 12, len));
    open_ok();
    expect_read(3, plain + 3, 10);
    for (unsigned salt = 2; salt <= 3; salt++) {
        fill_plain(plain, 4096, salt); /* other bytes at the same place */
        pack_deflate(plain, 4096, packed);
        qc_cache_init(&cache, pool, sizeof(pool));
        assert_int_equal(qc_open(&other, &cache, &sparse.disk, &sparse.options), QC_OK);
        assert_int_equal(qc_read(&other, 3, out, 10), QC_OK);
        assert_memory_equal(out, plain + 3, 10);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_cluster_size_reads),
        cmocka_unit_test(entry_fields_have_their_widths),
        cmocka_unit_test(entries_that_lead_nowhere_are_damage),
        cmocka_unit_test(entries_may_reach_too_far),
        cmocka_unit_test(streams_of_another_length_are_damage),
        cmocka_unit_test(entries_shorter_than_their_stream_are_damage),
        cmocka_unit_test(without_memory_only_the_compressed_are_missing),
        cmocka_unit_test(failed_reads_leave_nothing_behind),
        cmocka_unit_test(small_reads_unpack_each_cluster_once),
        cmocka_unit_test(clusters_read_whole_read_ahead_as_well),
        cmocka_unit_test(clusters_read_alone_are_read_alone),
        cmocka_unit_test(images_share_the_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
