/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * What reading costs on the disk below, counted on a fully mapped image of 64 GiB whose tables are
 * eight times as large as the cache: at most one metadata read a miss, none when warm, and one data
 * operation for whatever lies in one run. The figures are printed.
 */
#include "support.h"

#define CLUSTER_BITS 16u
#define CLUSTER      (UINT64_C(1) << CLUSTER_BITS)
#define GUEST        (UINT64_C(64) << 30)
#define L2_TABLES    (GUEST / CLUSTER / (CLUSTER / 8))
#define L1_OFF       (3 * CLUSTER)
#define L2_OFF       (4 * CLUSTER)
#define DATA_OFF     (L2_OFF + L2_TABLES * CLUSTER)
#define CACHE_BYTES  (1024u * 1024)
#define REQUESTS     10000u

/* An image that is computed instead of stored: guest cluster g lies in data cluster place(g). */
struct virtual_disk {
    struct qc_disk disk;
    bool is_shuffled;
    unsigned metadata_reads, data_reads;
};

static uint64_t place(const struct virtual_disk *virtual, uint64_t guest_cluster)
{
    /* An odd factor permutes the clusters of a power of two. */
    return virtual->is_shuffled ? guest_cluster * 0x9e3779b1u % (GUEST / CLUSTER) : guest_cluster;
}

static void fill_metadata(const struct virtual_disk *virtual, uint64_t host_off, uint8_t *out,
                          size_t len)
{
    for (size_t i = 0; i < len; i += 8) {
        uint64_t off = host_off + i;

        if (off >= L2_OFF)
            put_be64(out + i, DATA_OFF + place(virtual, (off - L2_OFF) / 8) * CLUSTER);
        else if (off >= L1_OFF && off < L1_OFF + L2_TABLES * 8)
            put_be64(out + i, L2_OFF + (off - L1_OFF) / 8 * CLUSTER);
        else
            put_be64(out + i, 0);
    }
    if (host_off == 0) {
        memcpy(out, "QFI\xfb", 4);
        put_be32(out + 4, 3);
        put_be32(out + 20, CLUSTER_BITS);
        put_be64(out + 24, GUEST);
        put_be32(out + 36, L2_TABLES);
        put_be64(out + 40, L1_OFF);
        put_be64(out + 48, CLUSTER);
        put_be32(out + 56, 1);
        put_be32(out + 96, 4);
        put_be32(out + 100, 104);
    }
}

static qc_status virtual_read(struct qc_disk *disk, uint64_t host_off, void *buf, size_t len)
{
    struct virtual_disk *virtual = (struct virtual_disk *)disk;

    assert_true(host_off <= disk->size_bytes && len <= disk->size_bytes - host_off);
    if (host_off >= DATA_OFF) {
        virtual->data_reads++;
        /* The first bytes tell where they come from. */
        memset(buf, 0, len);
        put_be64(buf, host_off);
        return QC_OK;
    }
    virtual->metadata_reads++;
    fill_metadata(virtual, host_off, buf, len);
    return QC_OK;
}

static const struct qc_disk_ops virtual_ops = {.read = virtual_read};
static _Alignas(QC_PAGE_BYTES) uint8_t pool[CACHE_BYTES];
static uint8_t buf[1024 * 1024];

static void begin(struct virtual_disk *virtual, struct qc_cache *cache, struct qc_image *image,
                  bool is_shuffled)
{
    *virtual = (struct virtual_disk){.disk = {&virtual_ops, DATA_OFF + GUEST, 512, true},
                                     .is_shuffled = is_shuffled};
    const struct qc_open_options options = {.readonly = true};

    qc_cache_init(cache, pool, sizeof(pool));
    assert_int_equal(qc_open(image, cache, &virtual->disk, &options), QC_OK);
}

static uint64_t expected_head(const struct virtual_disk *virtual, uint64_t guest_off)
{
    return DATA_OFF + place(virtual, guest_off / CLUSTER) * CLUSTER + guest_off % CLUSTER;
}

static void read_randomly(bool is_shuffled)
{
    struct virtual_disk virtual;
    struct qc_cache cache;
    struct qc_image image;
    uint64_t seed = 1;
    unsigned misses = 0;

    begin(&virtual, &cache, &image, is_shuffled);
    assert_int_equal(virtual.metadata_reads, 1);
    assert_int_equal(qc_read(&image, 0, buf, 4096), QC_OK);
    virtual.metadata_reads = virtual.data_reads = 0;
    for (unsigned i = 0; i < REQUESTS; i++) {
        uint64_t guest_off, expected;
        unsigned before = virtual.metadata_reads;

        seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        guest_off = (seed >> 20) % (GUEST / 4096) * 4096;
        assert_int_equal(qc_read(&image, guest_off, buf, 4096), QC_OK);
        expected = expected_head(&virtual, guest_off);
        for (unsigned k = 0; k < 8; k++)
            assert_int_equal(buf[k], (uint8_t)(expected >> (56 - 8 * k)));
        assert_in_range(virtual.metadata_reads - before, 0, 1);
        misses += virtual.metadata_reads != before;
    }
    assert_int_equal(virtual.metadata_reads, misses);
    assert_int_equal(virtual.data_reads, REQUESTS);
    print_message("random 4 KiB over %s 64 GiB, 1 MiB cache: %u requests, %u metadata reads\n",
                  is_shuffled ? "shuffled" : "contiguous", REQUESTS, virtual.metadata_reads);
    /* 2,048 slices, about 250 pages: no policy keeps more than that share of a random load. */
    assert_in_range(virtual.metadata_reads, 8000, 9000);
}

static void random_reads_cost_one_metadata_read_a_miss(void **state)
{
    (void)state;
    read_randomly(false);
    read_randomly(true);
}

static void warm_read_costs_one_operation(void **state)
{
    struct virtual_disk virtual;
    struct qc_cache cache;
    struct qc_image image;

    (void)state;
    begin(&virtual, &cache, &image, false);
    assert_int_equal(qc_read(&image, 0, buf, 4096), QC_OK);
    virtual.metadata_reads = virtual.data_reads = 0;
    for (unsigned i = 0; i < 512; i++)
        assert_int_equal(qc_read(&image, i * CLUSTER + 4096, buf, 4096), QC_OK);
    assert_int_equal(virtual.metadata_reads, 0);
    assert_int_equal(virtual.data_reads, 512);
}

static void sequential_reads_cost_one_operation_each(void **state)
{
    struct virtual_disk virtual;
    struct qc_cache cache;
    struct qc_image image;

    (void)state;
    begin(&virtual, &cache, &image, false);
    virtual.metadata_reads = 0;
    for (unsigned i = 0; i < 1024; i++)
        assert_int_equal(qc_read(&image, i * sizeof(buf), buf, sizeof(buf)), QC_OK);
    assert_int_equal(virtual.data_reads, 1024);
    /* 1 GiB is two L2 tables of sixteen slices each, and the L1. */
    assert_int_equal(virtual.metadata_reads, 2 * 16 + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_reads_cost_one_metadata_read_a_miss),
        cmocka_unit_test(warm_read_costs_one_operation),
        cmocka_unit_test(sequential_reads_cost_one_operation_each),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
