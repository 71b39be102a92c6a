/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * What making a snapshot costs on the disk below, counted on a fully mapped image of 64 GiB whose
 * tables are eight times as large as the cache: each byte of a table is read once and written once,
 * in large transfers, wherever the clusters lie. The figures are printed.
 */
#include "support.h"

#include "../../core/bytes.h"

#define CLUSTER_BITS   16u
#define CLUSTER        (UINT64_C(1) << CLUSTER_BITS)
#define GUEST          (UINT64_C(64) << 30)
#define GUEST_CLUSTERS (GUEST / CLUSTER)
#define L2_TABLES      (GUEST_CLUSTERS / (CLUSTER / 8))
#define BLOCKS         33u
#define REFTABLE_OFF   CLUSTER
#define L1_OFF         (2 * CLUSTER)
#define BLOCKS_OFF     (3 * CLUSTER)
#define L2_OFF         (BLOCKS_OFF + BLOCKS * CLUSTER)
#define DATA_OFF       (L2_OFF + L2_TABLES * CLUSTER)
#define END_OFF        (DATA_OFF + GUEST)
#define CACHE_BYTES    (1024u * 1024)
#define PAGE           4096u
#define COPIED         (UINT64_C(1) << 63)

enum part { PART_HEADER, PART_REFTABLE, PART_L1, PART_BLOCKS, PART_L2, PART_NEW, PARTS_COUNT };

struct tally {
    unsigned calls;
    uint64_t bytes;
};

/* An image that is computed: guest cluster g lies in data cluster place(g). Writes are looked at
 * and not kept. */
struct virtual_disk {
    struct qc_disk disk;
    struct tally reads[PARTS_COUNT], writes[PARTS_COUNT];
    uint8_t pages_read[DATA_OFF / PAGE], pages_written[DATA_OFF / PAGE];
    uint8_t header[CLUSTER];
    bool is_uncopied; /* the L1 table was written */
    unsigned flushes;
};

static enum part part_of(uint64_t host_off)
{
    if (host_off < REFTABLE_OFF)
        return PART_HEADER;
    if (host_off < L1_OFF)
        return PART_REFTABLE;
    if (host_off < BLOCKS_OFF)
        return PART_L1;
    if (host_off < L2_OFF)
        return PART_BLOCKS;
    if (host_off < DATA_OFF)
        return PART_L2;
    assert_true(host_off >= END_OFF); /* guest data is not touched */
    return PART_NEW;
}

static uint64_t place(uint64_t guest_cluster)
{
    /* An odd factor permutes the clusters of a power of two. */
    return guest_cluster * 0x9e3779b1u % GUEST_CLUSTERS;
}

/* The 8 bytes at a place of a table; the flag as long as nothing was written. */
static uint64_t word_at(uint64_t host_off)
{
    uint64_t clusters = END_OFF / CLUSTER, first;

    switch (part_of(host_off)) {
    case PART_REFTABLE:
        first = (host_off - REFTABLE_OFF) / 8;
        return first < BLOCKS ? BLOCKS_OFF + first * CLUSTER : 0;
    case PART_L1:
        first = (host_off - L1_OFF) / 8;
        return first < L2_TABLES ? (L2_OFF + first * CLUSTER) | COPIED : 0;
    case PART_BLOCKS:
        first = (host_off - BLOCKS_OFF) / 2;
        return first + 4 <= clusters ? UINT64_C(0x0001000100010001)
               : first < clusters    ? UINT64_C(0x0001000100010001) << (first + 4 - clusters) * 16
                                     : 0;
    case PART_L2:
        return (DATA_OFF + place((host_off - L2_OFF) / 8) * CLUSTER) | COPIED;
    default:
        return 0;
    }
}

static void note(struct tally *tallies, uint8_t *pages, uint64_t host_off, size_t len)
{
    struct tally *tally = &tallies[part_of(host_off)];

    assert_int_equal(part_of(host_off), part_of(host_off + len - 1));
    tally->calls++;
    tally->bytes += len;
    for (uint64_t off = host_off & ~QC_U(PAGE - 1); off < host_off + len && off < DATA_OFF;
         off += PAGE)
        pages[off / PAGE]++;
}

static qc_status virtual_read(struct qc_disk *disk, uint64_t host_off, void *bytes, size_t len)
{
    struct virtual_disk *virtual = (struct virtual_disk *)disk;
    uint8_t *out = bytes;

    assert_true(len > 0 && host_off <= disk->size_bytes && len <= disk->size_bytes - host_off);
    note(virtual->reads, virtual->pages_read, host_off, len);
    if (part_of(host_off) == PART_HEADER) {
        memcpy(out, virtual->header + host_off, len);
        return QC_OK;
    }
    assert_true(host_off % 8 == 0 && len % 8 == 0);
    for (size_t i = 0; i < len; i += 8)
        put_be64(out + i, word_at(host_off + i));
    return QC_OK;
}

/* What must stand in a table afterwards. */
static uint64_t wanted_word(uint64_t host_off)
{
    uint64_t first_table = (BLOCKS_OFF + BLOCKS * CLUSTER) / CLUSTER;
    uint64_t first = (host_off - BLOCKS_OFF) / 2, word = 0;

    if (part_of(host_off) != PART_BLOCKS)
        return word_at(host_off) & ~COPIED;
    for (uint64_t cluster = first; cluster < first + 4; cluster++) {
        bool is_new = cluster * CLUSTER >= END_OFF && cluster * CLUSTER < END_OFF + 2 * CLUSTER;
        bool is_in_tree = cluster >= first_table && cluster * CLUSTER < END_OFF;

        word = word << 16;
        if (cluster * CLUSTER < END_OFF || is_new)
            word |= is_in_tree ? 2 : 1;
    }
    return word;
}

static qc_status virtual_write(struct qc_disk *disk, uint64_t host_off, const void *bytes,
                               size_t len)
{
    struct virtual_disk *virtual = (struct virtual_disk *)disk;

    assert_true(len > 0 && host_off <= disk->size_bytes && len <= disk->size_bytes - host_off);
    note(virtual->writes, virtual->pages_written, host_off, len);
    if (part_of(host_off) == PART_HEADER)
        memcpy(virtual->header + host_off, bytes, len);
    else if (part_of(host_off) != PART_NEW)
        for (size_t i = 0; i < len; i += 8)
            assert_int_equal(qc_be64((const uint8_t *)bytes + i), wanted_word(host_off + i));
    return QC_OK;
}

static qc_status virtual_flush(struct qc_disk *disk)
{
    ((struct virtual_disk *)disk)->flushes++;
    return QC_OK;
}

static qc_status virtual_grow(struct qc_disk *disk, uint64_t size_bytes)
{
    disk->size_bytes = size_bytes;
    return QC_OK;
}

static const struct qc_disk_ops virtual_ops = {virtual_read, virtual_write, virtual_flush,
                                               virtual_grow, NULL};

static void make_header(struct virtual_disk *virtual)
{
    memcpy(virtual->header, "QFI\xfb", 4);
    put_be32(virtual->header + 4, 3);
    put_be32(virtual->header + 20, CLUSTER_BITS);
    put_be64(virtual->header + 24, GUEST);
    put_be32(virtual->header + 36, L2_TABLES);
    put_be64(virtual->header + 40, L1_OFF);
    put_be64(virtual->header + 48, REFTABLE_OFF);
    put_be32(virtual->header + 56, 1);
    put_be32(virtual->header + 96, 4);
    put_be32(virtual->header + 100, 104);
}

static void forget_tallies(struct virtual_disk *virtual)
{
    memset(virtual->reads, 0, sizeof(virtual->reads));
    memset(virtual->writes, 0, sizeof(virtual->writes));
    memset(virtual->pages_read, 0, sizeof(virtual->pages_read));
    memset(virtual->pages_written, 0, sizeof(virtual->pages_written));
    virtual->flushes = 0;
}

static void test_create(void **state)
{
    static const char *const names[] = {"header", "reftable", "L1", "blocks", "L2", "new"};
    static struct virtual_disk virtual;
    static struct qc_image image;
    static struct qc_cache cache;
    static _Alignas(QC_PAGE_BYTES) uint8_t pool[CACHE_BYTES];
    const struct qc_open_options options = {.readonly = false};

    (void)state;
    virtual.disk = (struct qc_disk){&virtual_ops, END_OFF, 512, false};
    make_header(&virtual);
    qc_cache_init(&cache, pool, sizeof(pool));
    assert_int_equal(qc_open(&image, &cache, &virtual.disk, &options), QC_OK);
    /* The first change of a session looks for tables: that is not the snapshot's. */
    assert_int_equal(qc_discard(&image, 0, 512), QC_OK);
    assert_int_equal(qc_flush(&image), QC_OK);
    forget_tallies(&virtual);
    assert_int_equal(qc_snapshot_create(&image, "one", 1, 2), QC_OK);
    for (unsigned i = 0; i < PARTS_COUNT; i++)
        print_message("%-8s %4u reads of %8u bytes, %4u writes of %8u bytes\n", names[i],
                      virtual.reads[i].calls, (unsigned)virtual.reads[i].bytes,
                      virtual.writes[i].calls, (unsigned)virtual.writes[i].bytes);
    print_message("%u flushes\n", virtual.flushes);
    for (uint64_t page = REFTABLE_OFF / PAGE; page < DATA_OFF / PAGE; page++) {
        assert_in_range(virtual.pages_read[page], 0, 1);
        assert_in_range(virtual.pages_written[page], 0, 1);
    }
    assert_int_equal(virtual.reads[PART_L2].bytes, L2_TABLES * CLUSTER);
    assert_int_equal(virtual.writes[PART_L2].bytes, L2_TABLES * CLUSTER);
    assert_in_range(virtual.reads[PART_L2].calls, 1, L2_TABLES);
    assert_in_range(virtual.writes[PART_L2].calls, 1, L2_TABLES);
    assert_in_range(virtual.reads[PART_BLOCKS].calls, 1, BLOCKS);
    assert_in_range(virtual.writes[PART_BLOCKS].calls, 1, BLOCKS);
    assert_int_equal(virtual.writes[PART_REFTABLE].calls, 0);
    assert_in_range(virtual.flushes, 4, 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_create)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
