/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Reading: what each kind of entry gives, how runs are merged, where requests may begin and end,
 * and that a damaged entry is an error for those who read it and for nobody else.
 */
#include "support.h"

#define COPIED     (UINT64_C(1) << 63)
#define COMPRESSED (UINT64_C(1) << 62)
#define ZERO       UINT64_C(1)
#define CLUSTER    4096u
#define GUEST      (64u * CLUSTER)

static uint8_t buf[GUEST + 2];

/* 4 KiB clusters, 64 of them, the first 16 mapped to data clusters in order, the rest not. */
static struct rig *mapped(void **state, uint32_t version)
{
    struct rig *rig = *state;

    rig_build(rig, version, 12, GUEST, 16);
    rig_map(rig, 16);
    assert_int_equal(rig_open(rig), QC_OK);
    return rig;
}

static void expect_data(const uint8_t *bytes, uint64_t host_off, size_t len)
{
    for (size_t i = 0; i < len; i++)
        assert_int_equal(bytes[i], pattern_at(host_off + i));
}

static void expect_zeros(const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        assert_int_equal(bytes[i], 0);
}

/* Reads and requires success; the bytes around the buffer must stay as they are. */
static void read_ok(struct rig *rig, uint64_t guest_off, size_t len)
{
    memset(buf, 0xa5, sizeof(buf));
    assert_int_equal(qc_read(&rig->image, guest_off, buf + 1, len), QC_OK);
    assert_string_equal(qc_detail(&rig->image), "");
    assert_int_equal(buf[0], 0xa5);
    assert_int_equal(buf[len + 1], 0xa5);
}

static void each_kind_of_entry_reads_right(void **state)
{
    struct rig *rig = mapped(state, 3);

    rig_set_l2(rig, 0, 0);
    rig_set_l2(rig, 1, ZERO);
    rig_set_l2(rig, 2, rig_data_off(rig, 2) | ZERO | COPIED);
    rig_set_l2(rig, 3, rig_data_off(rig, 9)); /* shared with a snapshot: not COPIED */
    rig_set_l2(rig, 4, COPIED);               /* offset 0 is no cluster */
    assert_int_equal(rig_open(rig), QC_OK);
    read_ok(rig, 0, GUEST);
    expect_zeros(buf + 1, 3 * CLUSTER);
    expect_data(buf + 1 + 3 * CLUSTER, rig_data_off(rig, 9), CLUSTER);
    expect_zeros(buf + 1 + 4 * CLUSTER, CLUSTER);
    expect_data(buf + 1 + 5 * CLUSTER, rig_data_off(rig, 5), 11 * CLUSTER);
    expect_zeros(buf + 1 + 16 * CLUSTER, GUEST - 16 * CLUSTER);
}

static void any_offset_and_length_reads_right(void **state)
{
    static const uint64_t offs[] = {0, 1, 511, 512, 4095, 4096, 4097, 15 * CLUSTER + 5};
    static const size_t lens[] = {1, 2, 511, 512, 513, 4096, 4097, 3 * CLUSTER + 1};
    struct rig *rig = mapped(state, 3);

    for (unsigned o = 0; o < 8; o++) {
        for (unsigned l = 0; l < 8; l++) {
            uint64_t mapped_end = 16 * CLUSTER;
            size_t data = offs[o] + lens[l] < mapped_end ? lens[l] : mapped_end - offs[o];

            read_ok(rig, offs[o], lens[l]);
            expect_data(buf + 1, rig_data_off(rig, 0) + offs[o], data);
            expect_zeros(buf + 1 + data, lens[l] - data);
        }
    }
}

static void requests_end_with_the_guest_disk(void **state)
{
    struct rig *rig = mapped(state, 3);

    read_ok(rig, GUEST - 512, 512);
    read_ok(rig, GUEST, 0);
    assert_int_equal(qc_read(&rig->image, GUEST - 512, buf, 513), QC_RANGE);
    assert_int_equal(qc_read(&rig->image, GUEST, buf, 1), QC_RANGE);
    assert_int_equal(qc_read(&rig->image, UINT64_MAX, buf, 2), QC_RANGE);
    assert_int_equal(qc_read(&rig->image, 512, buf, SIZE_MAX), QC_RANGE);
    assert_int_equal(qc_read(&rig->image, GUEST + 1, buf, 0), QC_RANGE);
    assert_string_equal(qc_detail(&rig->image), "read of 0 bytes at guest 0x40001 is outside");
}

static void odd_sizes_show_whole_sectors(void **state)
{
    struct rig *rig = *state;

    rig_build(rig, 3, 12, 3 * CLUSTER + 1000, 4);
    for (unsigned i = 0; i < 4; i++)
        rig_set_l2(rig, i, rig_data_off(rig, i));
    assert_int_equal(rig_open(rig), QC_OK);
    assert_true(qc_size(&rig->image) == 3 * CLUSTER + 512);
    read_ok(rig, 0, 3 * CLUSTER + 512);
    expect_data(buf + 1, rig_data_off(rig, 0), 3 * CLUSTER + 512);
    assert_int_equal(qc_read(&rig->image, 3 * CLUSTER, buf, 513), QC_RANGE);
}

static void file_may_end_within_its_last_cluster(void **state)
{
    struct rig *rig = mapped(state, 3);

    rig->disk.disk.size_bytes = rig_data_off(rig, 15) + 700;
    read_ok(rig, 15 * CLUSTER, CLUSTER);
    expect_data(buf + 1, rig_data_off(rig, 15), 700);
    expect_zeros(buf + 1 + 700, CLUSTER - 700);
    read_ok(rig, 15 * CLUSTER + 1024, 512);
    expect_zeros(buf + 1, 512);
}

static void neighbours_are_read_in_one_request(void **state)
{
    struct rig *rig = mapped(state, 3);

    read_ok(rig, 0, 512); /* tables are in the cache now */
    rig->disk.reads_count = 0;
    read_ok(rig, 100, 15 * CLUSTER);
    assert_int_equal(rig->disk.reads_count, 1);
    assert_true(rig->disk.read_off_last == rig_data_off(rig, 0) + 100);
    assert_int_equal(rig->disk.read_len_last, 15 * CLUSTER);
    read_ok(rig, 20 * CLUSTER, 20 * CLUSTER); /* zeros cost nothing */
    assert_int_equal(rig->disk.reads_count, 1);
}

static void strangers_are_not_merged(void **state)
{
    struct rig *rig = mapped(state, 3);

    rig_set_l2(rig, 4, rig_data_off(rig, 5) | COPIED);
    rig_set_l2(rig, 5, rig_data_off(rig, 4) | COPIED);
    assert_int_equal(rig_open(rig), QC_OK);
    rig->disk.reads_count = 0;
    read_ok(rig, 0, 16 * CLUSTER);
    expect_data(buf + 1, rig_data_off(rig, 0), 4 * CLUSTER);
    expect_data(buf + 1 + 4 * CLUSTER, rig_data_off(rig, 5), CLUSTER);
    expect_data(buf + 1 + 5 * CLUSTER, rig_data_off(rig, 4), CLUSTER);
    expect_data(buf + 1 + 6 * CLUSTER, rig_data_off(rig, 6), 10 * CLUSTER);
    assert_int_equal(rig->disk.reads_count, 4 + 2); /* four runs, L1 and L2 */
}

/* 512-byte clusters: an L2 table is 64 entries, so runs cross tables and L1 entries. */
static void runs_cross_tables(void **state)
{
    struct rig *rig = *state;
    struct qc_extent extent;
    uint64_t guest = 130 * 512;

    rig_build(rig, 3, 9, guest, 140);
    /* Data clusters 0..129 hold the guest's, 130 and 131 the second and third L2 table. */
    put_be64(rig->disk.bytes + 512 * AT_L1 + 8, rig_data_off(rig, 130));
    put_be64(rig->disk.bytes + 512 * AT_L1 + 16, rig_data_off(rig, 131));
    memset(rig->disk.bytes + rig_data_off(rig, 130), 0, 1024);
    for (unsigned i = 0; i < 64; i++) {
        rig_set_l2(rig, i, rig_data_off(rig, i));
        put_be64(rig->disk.bytes + rig_data_off(rig, 130) + i * 8, rig_data_off(rig, 64 + i));
    }
    for (unsigned i = 0; i < 2; i++)
        put_be64(rig->disk.bytes + rig_data_off(rig, 131) + i * 8, rig_data_off(rig, 128 + i));
    assert_int_equal(rig_open(rig), QC_OK);
    rig->disk.reads_count = 0;
    read_ok(rig, 0, guest);
    expect_data(buf + 1, rig_data_off(rig, 0), guest);
    assert_int_equal(rig->disk.reads_count, 1 + 1 + 3);
    assert_int_equal(qc_map(&rig->image, 512, guest - 512, &extent), QC_OK);
    assert_int_equal(extent.kind, QC_EXTENT_DATA);
    assert_true(extent.len == guest - 512 && extent.host_off == rig_data_off(rig, 1));
    put_be64(rig->disk.bytes + 512 * AT_L1 + 8, 0);
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(qc_map(&rig->image, 60 * 512, guest - 60 * 512, &extent), QC_OK);
    assert_true(extent.kind == QC_EXTENT_DATA && extent.len == 4 * 512);
    assert_int_equal(qc_map(&rig->image, 64 * 512 + 100, guest - 64 * 512 - 100, &extent), QC_OK);
    assert_true(extent.kind == QC_EXTENT_UNALLOCATED && extent.len == 64 * 512 - 100);
}

static void map_tells_the_kinds_apart(void **state)
{
    struct rig *rig = mapped(state, 3);
    struct qc_extent extent;

    rig_set_l2(rig, 1, ZERO);
    rig_set_l2(rig, 2, rig_data_off(rig, 2) | ZERO);
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(qc_map(&rig->image, 10, GUEST - 10, &extent), QC_OK);
    assert_true(extent.kind == QC_EXTENT_DATA && extent.len == CLUSTER - 10);
    assert_true(extent.host_off == rig_data_off(rig, 0) + 10);
    assert_int_equal(qc_map(&rig->image, CLUSTER, GUEST - CLUSTER, &extent), QC_OK);
    assert_true(extent.kind == QC_EXTENT_ZERO && extent.len == 2 * CLUSTER);
    assert_int_equal(qc_map(&rig->image, CLUSTER, 1, &extent), QC_OK);
    assert_true(extent.kind == QC_EXTENT_ZERO && extent.len == 1);
    assert_int_equal(qc_map(&rig->image, 0, 0, &extent), QC_RANGE);
    assert_int_equal(qc_map(&rig->image, 0, GUEST + 1, &extent), QC_RANGE);
    assert_int_equal(qc_map(&rig->image, 0, UINT64_MAX, &extent), QC_RANGE);
}

/* Requires that cluster 3 fails so, that its neighbours do not, and that a merged read fails too.
 */
static void expect_bad_cluster_3(struct rig *rig, uint64_t entry, qc_status status)
{
    char line[QC_DETAIL_BYTES];
    struct qc_extent extent;

    rig_set_l2(rig, 3, entry);
    assert_int_equal(rig_open(rig), QC_OK);
    if (entry & UINT64_C(1) << 62)
        snprintf(line, sizeof(line), "bad compressed cluster at guest 0x3000");
    else
        snprintf(line, sizeof(line), "bad L2 entry 0x%llx at guest 0x3000",
                 (unsigned long long)entry);
    assert_int_equal(qc_read(&rig->image, 3 * CLUSTER, buf, 512), status);
    assert_string_equal(qc_detail(&rig->image), line);
    assert_int_equal(qc_read(&rig->image, 0, buf, GUEST), status);
    assert_string_equal(qc_detail(&rig->image), line);
    read_ok(rig, 0, 3 * CLUSTER);
    read_ok(rig, 4 * CLUSTER, 4 * CLUSTER);
    assert_int_equal(qc_map(&rig->image, 0, GUEST, &extent), QC_OK);
    assert_true(extent.len == 3 * CLUSTER);
    assert_string_equal(qc_detail(&rig->image), "");
}

static void bad_l2_entries_are_refused(void **state)
{
    struct rig *rig = mapped(state, 3);

    for (unsigned bit = 1; bit < 62; bit++) {
        bool is_reserved = (bit >= 1 && bit <= 8) || (bit >= 56 && bit <= 61);

        if (is_reserved) {
            expect_bad_cluster_3(rig, rig_data_off(rig, 3) | UINT64_C(1) << bit, QC_CORRUPT);
            expect_bad_cluster_3(rig, UINT64_C(1) << bit | ZERO, QC_CORRUPT);
        }
    }
    expect_bad_cluster_3(rig, rig_data_off(rig, 3) + 512, QC_CORRUPT);
    expect_bad_cluster_3(rig, rig_data_off(rig, 3) + 512 + ZERO, QC_CORRUPT);
    expect_bad_cluster_3(rig, rig->disk.disk.size_bytes, QC_CORRUPT);
    expect_bad_cluster_3(rig, UINT64_C(0x00fffffffffff000), QC_CORRUPT);
    expect_bad_cluster_3(rig, COMPRESSED, QC_CORRUPT);
    expect_bad_cluster_3(rig, COMPRESSED | rig->disk.disk.size_bytes, QC_CORRUPT);
    rig_set_l2(rig, 3, rig->disk.disk.size_bytes - CLUSTER);
    assert_int_equal(rig_open(rig), QC_OK);
    read_ok(rig, 3 * CLUSTER, CLUSTER);
}

static void zero_flag_needs_version_3(void **state)
{
    struct rig *rig = mapped(state, 2);

    expect_bad_cluster_3(rig, ZERO, QC_CORRUPT);
    expect_bad_cluster_3(rig, rig_data_off(rig, 3) | ZERO, QC_CORRUPT);
}

static void bad_l1_entries_are_refused(void **state)
{
    struct rig *rig = mapped(state, 3);
    uint64_t end = rig->disk.disk.size_bytes;
    const uint64_t good_entry = (uint64_t)AT_L2 * CLUSTER;
    const uint64_t bad[] = {good_entry | 1,
                            good_entry | 256,
                            good_entry | UINT64_C(1) << 56,
                            good_entry | UINT64_C(1) << 62,
                            good_entry + 512,
                            end,
                            UINT64_C(0x00fffffffffff000)};
    char line[QC_DETAIL_BYTES];

    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        put_be64(rig->disk.bytes + AT_L1 * CLUSTER, bad[i]);
        assert_int_equal(rig_open(rig), QC_OK);
        assert_int_equal(qc_read(&rig->image, 4096, buf, 512), QC_CORRUPT);
        snprintf(line, sizeof(line), "bad L1 entry 0x%llx at guest 0x1000",
                 (unsigned long long)bad[i]);
        assert_string_equal(qc_detail(&rig->image), line);
    }
    put_be64(rig->disk.bytes + AT_L1 * CLUSTER, good_entry);
    rig->disk.disk.size_bytes = good_entry + CLUSTER - 1; /* the table would be cut */
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(qc_read(&rig->image, 0, buf, 512), QC_CORRUPT);
}

static void failing_reads_fail_the_request_once(void **state)
{
    struct rig *rig = mapped(state, 3);
    const char *lines[] = {"table at 0x3000 cannot be read", "table at 0x4000 cannot be read",
                           "data at 0x5000 cannot be read"};

    for (unsigned nth = 1; nth <= 3; nth++) {
        assert_int_equal(rig_open(rig), QC_OK);
        rig->disk.reads_count = 0;
        rig->disk.fail_at = nth;
        assert_int_equal(qc_read(&rig->image, 0, buf, CLUSTER), QC_IO);
        assert_string_equal(qc_detail(&rig->image), lines[nth - 1]);
        read_ok(rig, 0, CLUSTER);
        expect_data(buf + 1, rig_data_off(rig, 0), CLUSTER);
        rig->disk.fail_at = 0;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(each_kind_of_entry_reads_right),
        RIG_TEST(any_offset_and_length_reads_right),
        RIG_TEST(requests_end_with_the_guest_disk),
        RIG_TEST(odd_sizes_show_whole_sectors),
        RIG_TEST(file_may_end_within_its_last_cluster),
        RIG_TEST(neighbours_are_read_in_one_request),
        RIG_TEST(strangers_are_not_merged),
        RIG_TEST(runs_cross_tables),
        RIG_TEST(map_tells_the_kinds_apart),
        RIG_TEST(bad_l2_entries_are_refused),
        RIG_TEST(zero_flag_needs_version_3),
        RIG_TEST(bad_l1_entries_are_refused),
        RIG_TEST(failing_reads_fail_the_request_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
