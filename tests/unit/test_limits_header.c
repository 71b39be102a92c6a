/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The header's limits where test_header.c cannot stand on both sides with a disk in memory: the
 * shortest headers, disks of any size, tables that are empty.
 */
#include "support.h"

#define CLUSTER UINT64_C(65536)

static void parse(const uint8_t *bytes, uint32_t bytes_count, qc_status status,
                  struct qc_header *ret_header)
{
    struct qc_detail detail;

    assert_int_equal(qc_header_parse(bytes, bytes_count, ret_header, &detail), status);
}

static void shortest_headers_are_whole(void **state)
{
    struct rig *rig = *state;
    struct qc_header header;

    rig_build(rig, 2, 16, UINT64_C(1) << 30, 0);
    parse(rig->disk.bytes, 71, QC_FOREIGN, &header);
    parse(rig->disk.bytes, 72, QC_OK, &header);
    assert_int_equal(header.header_bytes, 72);
    rig_build(rig, 3, 16, UINT64_C(1) << 30, 0);
    parse(rig->disk.bytes, 111, QC_CORRUPT, &header);
    parse(rig->disk.bytes, 112, QC_OK, &header);
    assert_int_equal(header.header_bytes, 112);
}

static void header_length_is_a_multiple_of_8(void **state)
{
    struct rig *rig = *state;
    char line[QC_DETAIL_BYTES];

    rig_build(rig, 3, 16, UINT64_C(1) << 30, 2);
    for (unsigned len = 105; len < 112; len++) {
        put_be32(rig->disk.bytes + 100, len);
        snprintf(line, sizeof(line), "header length %u invalid", len);
        rig_expect(rig, QC_CORRUPT, line);
    }
}

static void feature_words_are_kept_as_they_are(void **state)
{
    struct rig *rig = *state;
    struct qc_header header;

    rig_build(rig, 3, 16, UINT64_C(1) << 30, 0);
    put_be64(rig->disk.bytes + 72, UINT64_C(0x1122334455667788));
    put_be64(rig->disk.bytes + 80, UINT64_C(0x99aabbccddeeff00));
    put_be64(rig->disk.bytes + 88, UINT64_C(0x0123456789abcdef));
    parse(rig->disk.bytes, 112, QC_OK, &header);
    assert_true(header.incompatible == UINT64_C(0x1122334455667788));
    assert_true(header.compatible == UINT64_C(0x99aabbccddeeff00));
    assert_true(header.autoclear == UINT64_C(0x0123456789abcdef));
}

/* Requires this answer of a check of the header as if it lay on a disk of so many bytes. */
static void expect_on_disk(struct rig *rig, uint64_t disk_bytes, qc_status status, const char *line)
{
    struct qc_header header;
    struct qc_detail detail = {""};

    parse(rig->disk.bytes, 112, QC_OK, &header);
    assert_int_equal(qc_header_check(&header, disk_bytes, rig->options.is_for_check, &detail),
                     status);
    assert_string_equal(detail.text, line);
}

static void header_may_end_with_the_disk(void **state)
{
    struct rig *rig = *state;

    rig_build(rig, 3, 16, UINT64_C(1) << 30, 0);
    expect_on_disk(rig, 111, QC_CORRUPT, "header length 112 invalid");
    expect_on_disk(rig, 112, QC_CORRUPT, "L1 table offset 0x30000 invalid");
}

static void tables_lie_below_2_56_on_any_disk(void **state)
{
    struct rig *rig = *state;

    rig_build(rig, 3, 16, UINT64_C(1) << 30, 0);
    put_be64(rig->disk.bytes + 40, QC_HOST_BYTES_MAX - CLUSTER);
    expect_on_disk(rig, UINT64_MAX, QC_OK, "");
    put_be64(rig->disk.bytes + 40, QC_HOST_BYTES_MAX);
    expect_on_disk(rig, UINT64_MAX, QC_CORRUPT, "L1 table offset 0x100000000000000 invalid");
}

/* A table that is not there has no place, whatever its offset says. */
static void empty_table_overlaps_nothing(void **state)
{
    struct rig *rig = *state;

    rig_build(rig, 3, 9, 512, 8);
    rig->options.is_for_check = true;
    put_be32(rig->disk.bytes + 60, 13); /* two clusters of the snapshot table: */
    put_be64(rig->disk.bytes + 64, 6 * 512);
    put_be64(rig->disk.bytes + 48, 7 * 512); /* in its second, a refcount table */
    expect_on_disk(rig, 16 * 512, QC_CORRUPT, "snapshot table overlaps refcount table");
    put_be32(rig->disk.bytes + 56, 0);
    expect_on_disk(rig, 16 * 512, QC_OK, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(shortest_headers_are_whole),         RIG_TEST(header_length_is_a_multiple_of_8),
        RIG_TEST(feature_words_are_kept_as_they_are), RIG_TEST(header_may_end_with_the_disk),
        RIG_TEST(tables_lie_below_2_56_on_any_disk),  RIG_TEST(empty_table_overlaps_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
