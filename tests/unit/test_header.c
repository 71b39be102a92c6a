/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The header: refusals with their status and their line, and both sides of each limit, where one
 * wrong field and the nearest right value do not say it all (those are rows of test_refusals.c).
 */
#include "support.h"

#define K64 16u /* bits of a 64 KiB cluster */

/* A good v3 image of 1 GiB with 64 KiB clusters: two L1 entries. */
static struct rig *good(void **state)
{
    struct rig *rig = *state;

    rig_build(rig, 3, K64, UINT64_C(1) << 30, 2);
    return rig;
}

static uint8_t *head(struct rig *rig)
{
    return rig->disk.bytes;
}

static void good_images_open(void **state)
{
    struct rig *rig = good(state);

    rig_expect(rig, QC_OK, "");
    assert_true(qc_size(&rig->image) == UINT64_C(1) << 30);
    rig_build(rig, 2, K64, UINT64_C(1) << 30, 0);
    rig_expect(rig, QC_OK, "");
    assert_int_equal(qc_info(&rig->image)->refcount_order, 4);
    for (unsigned bits = 9; bits <= 18; bits++) {
        rig_build(rig, 3, bits, 512, 1);
        rig_expect(rig, QC_OK, "");
        assert_int_equal(rig->disk.reads_count, 1);
    }
}

static void foreign_disks_are_left_alone_silently(void **state)
{
    struct rig *rig = good(state);

    head(rig)[3] = 0xfa;
    rig_expect(rig, QC_FOREIGN, "");
    good(state);
    rig->disk.disk.size_bytes = 71;
    rig_expect(rig, QC_FOREIGN, "");
    rig->disk.disk.size_bytes = 0;
    rig_expect(rig, QC_FOREIGN, "");
}

static void header_that_cannot_be_read_is_an_io_error(void **state)
{
    struct rig *rig = good(state);

    rig->disk.fail_at = 1;
    assert_int_equal(rig_open(rig), QC_IO);
    assert_string_equal(qc_detail(&rig->image), "header cannot be read");
}

static void cluster_bits_21_are_the_largest(void **state)
{
    struct rig *rig = *state;
    struct qc_header header;
    struct qc_detail detail;

    rig_build(rig, 3, 9, 512, 1);
    put_be32(head(rig) + 20, 21);
    assert_int_equal(qc_header_parse(head(rig), 512, &header, &detail), QC_OK);
    assert_int_equal(header.cluster_bytes, 2 * 1024 * 1024);
}

static void cve_2014_0144_header_length(void **state)
{
    struct rig *rig = good(state);

    put_be32(head(rig) + 100, 103);
    rig_expect(rig, QC_CORRUPT, "header length 103 invalid");
    put_be32(head(rig) + 100, 96);
    rig_expect(rig, QC_CORRUPT, "header length 96 invalid");
    put_be32(head(rig) + 100, 108);
    rig_expect(rig, QC_CORRUPT, "header length 108 invalid");
    put_be32(head(rig) + 100, 65544);
    rig_expect(rig, QC_CORRUPT, "header length 65544 invalid");
    put_be32(head(rig) + 100, 0xfffffff8);
    rig_expect(rig, QC_CORRUPT, "header length 4294967288 invalid");
    put_be32(head(rig) + 100, 104);
    rig_expect(rig, QC_OK, "");
    put_be32(head(rig) + 100, 65536);
    rig_expect(rig, QC_OK, "");
}

static void header_must_lie_in_the_file(void **state)
{
    struct rig *rig = good(state);

    rig->disk.disk.size_bytes = 111;
    rig_expect(rig, QC_CORRUPT, "header length 111 invalid");
    rig->disk.disk.size_bytes = 65535;
    put_be32(head(rig) + 100, 65536);
    rig_expect(rig, QC_CORRUPT, "header length 65536 invalid");
}

static void damage_bits_leave_the_image_readable(void **state)
{
    struct rig *rig = good(state);

    put_be64(head(rig) + 72, QC_INCOMPATIBLE_DIRTY | QC_INCOMPATIBLE_CORRUPT);
    put_be64(head(rig) + 80, UINT64_MAX); /* compatible bits may be anything */
    put_be64(head(rig) + 88, UINT64_MAX & ~(QC_AUTOCLEAR_RAW_DATA | QC_AUTOCLEAR_BITMAPS));
    rig_expect(rig, QC_OK, "");
    assert_true(qc_info(&rig->image)->incompatible & QC_INCOMPATIBLE_CORRUPT);
}

static void refcount_order_is_at_most_6(void **state)
{
    struct rig *rig = good(state);

    put_be32(head(rig) + 96, 7);
    rig_expect(rig, QC_CORRUPT, "refcount_order 7 invalid");
    put_be32(head(rig) + 96, UINT32_MAX);
    rig_expect(rig, QC_CORRUPT, "refcount_order 4294967295 invalid");
    for (uint32_t order = 0; order <= 6; order++) {
        put_be32(head(rig) + 96, order);
        rig_expect(rig, QC_OK, "");
    }
}

static void compression_type_agrees_with_its_bit(void **state)
{
    struct rig *rig = good(state);

    head(rig)[104] = 2;
    rig_expect(rig, QC_UNSUPPORTED, "compression type 2 not supported");
    head(rig)[104] = 1;
    rig_expect(rig, QC_CORRUPT, "compression type 1 against its feature bit");
    put_be64(head(rig) + 72, QC_INCOMPATIBLE_COMPRESSION);
    rig_expect(rig, QC_OK, "");
    head(rig)[104] = 0;
    rig_expect(rig, QC_CORRUPT, "compression type 0 against its feature bit");
    put_be64(head(rig) + 72, 0);
    put_be32(head(rig) + 100, 104);
    head(rig)[104] = 1; /* behind the header now: the type of an unknown extension */
    rig_expect(rig, QC_OK, "");
}

static void extended_l2_needs_clusters_of_16_kib(void **state)
{
    struct rig *rig = good(state);

    /* An L2 table maps half as much. */
    put_be64(head(rig) + 72, QC_INCOMPATIBLE_EXTENDED_L2);
    rig_expect(rig, QC_CORRUPT, "L1 table too small: 2 entries");
    put_be32(head(rig) + 36, 4);
    rig_expect(rig, QC_OK, "");
    rig_build(rig, 3, 13, 512, 1);
    put_be64(head(rig) + 72, QC_INCOMPATIBLE_EXTENDED_L2);
    rig_expect(rig, QC_CORRUPT, "extended L2 entries with clusters of 8192");
    rig_build(rig, 3, 14, 512, 1);
    put_be64(head(rig) + 72, QC_INCOMPATIBLE_EXTENDED_L2);
    rig_expect(rig, QC_OK, "");
}

static void data_files_have_names(void **state)
{
    struct rig *rig = good(state);

    put_be64(head(rig) + 72, QC_INCOMPATIBLE_DATA_FILE);
    rig_expect(rig, QC_REFUSED, "backing name refused: no data file named");
    put_be64(head(rig) + 72, 0);
    put_be64(head(rig) + 88, QC_AUTOCLEAR_RAW_DATA);
    rig_expect(rig, QC_CORRUPT, "raw external data without an external data file");
}

static void cve_2014_0144_backing_name(void **state)
{
    struct rig *rig = good(state);

    put_be64(head(rig) + 8, 200);
    put_be32(head(rig) + 16, 9);
    rig_expect(rig, QC_REFUSED, "backing name refused: nothing says where it lies");
    put_be32(head(rig) + 16, 1023);
    rig_expect(rig, QC_REFUSED, "backing name refused: nothing says where it lies");
    put_be32(head(rig) + 16, 1024);
    rig_expect(rig, QC_CORRUPT, "backing name field invalid");
    put_be64(head(rig) + 8, 65536 - 9);
    put_be32(head(rig) + 16, 9);
    rig_expect(rig, QC_REFUSED, "backing name refused: nothing says where it lies");
    put_be32(head(rig) + 16, 10);
    rig_expect(rig, QC_CORRUPT, "backing name field invalid");
    put_be64(head(rig) + 8, UINT64_MAX);
    rig_expect(rig, QC_CORRUPT, "backing name field invalid");
    put_be64(head(rig) + 8, 111);
    rig_expect(rig, QC_CORRUPT, "backing name field invalid");
    put_be64(head(rig) + 8, 112);
    put_be32(head(rig) + 16, 0);
    rig_expect(rig, QC_OK, "");
}

static void virtual_size_is_one_sector_to_2_56(void **state)
{
    struct rig *rig = *state;

    rig_build(rig, 3, K64, 512, 1);
    put_be64(head(rig) + 24, 511);
    rig_expect(rig, QC_UNSUPPORTED, "virtual size 511 not supported");
    put_be64(head(rig) + 24, 0);
    rig_expect(rig, QC_UNSUPPORTED, "virtual size 0 not supported");
    put_be64(head(rig) + 24, (UINT64_C(1) << 56) + 1);
    rig_expect(rig, QC_UNSUPPORTED, "virtual size 72057594037927937 not supported");
    put_be64(head(rig) + 24, UINT64_C(1) << 56);
    rig_expect(rig, QC_CORRUPT, "L1 table too small: 1 entries");
    put_be64(head(rig) + 24, 1023);
    rig_expect(rig, QC_OK, "");
    assert_true(qc_size(&rig->image) == 512);
}

static void cve_2014_0143_huge_l1(void **state)
{
    struct rig *rig = good(state);

    put_be32(head(rig) + 36, 4194305);
    rig_expect(rig, QC_UNSUPPORTED, "L1 table too large: 4194305 entries");
    put_be32(head(rig) + 36, UINT32_MAX);
    rig_expect(rig, QC_UNSUPPORTED, "L1 table too large: 4294967295 entries");
    put_be32(head(rig) + 36, 4194304);
    rig_expect(rig, QC_CORRUPT,
               "L1 table offset 0x30000 invalid"); /* legal, but not on this disk */
    put_be32(head(rig) + 36, 1);
    rig_expect(rig, QC_CORRUPT, "L1 table too small: 1 entries");
    put_be32(head(rig) + 36, 3); /* longer than needed: VM state lies there */
    rig_expect(rig, QC_OK, "");
}

static void cve_2014_0144_refcount_table_size(void **state)
{
    struct rig *rig = good(state);

    put_be32(head(rig) + 56, 0);
    rig_expect(rig, QC_CORRUPT, "no refcount table");
    put_be32(head(rig) + 56, 129);
    rig_expect(rig, QC_UNSUPPORTED, "refcount table too large: 129 clusters");
    put_be32(head(rig) + 56, 128);
    rig_expect(rig, QC_CORRUPT, "refcount table offset 0x10000 invalid");
}

static void cve_2014_0144_tables_lie_in_the_disk(void **state)
{
    static const struct {
        unsigned field;
        const char *name;
    } tables[] = {{40, "L1"}, {48, "refcount"}, {64, "snapshot"}};
    static const uint64_t bad[] = {0, 1, 512, 65535, 7 * 65536, UINT64_MAX - 65535, UINT64_MAX};
    struct rig *rig = *state;
    char line[QC_DETAIL_BYTES];

    for (unsigned t = 0; t < 3; t++) {
        for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
            good(state);
            put_be32(head(rig) + 60, 1);
            put_be64(head(rig) + 64, 5 * 65536);
            rig_expect(rig, QC_OK, "");
            put_be64(head(rig) + tables[t].field, bad[i]);
            snprintf(line, sizeof(line), "%s table offset 0x%llx invalid", tables[t].name,
                     (unsigned long long)bad[i]);
            rig_expect(rig, QC_CORRUPT, line);
        }
    }
}

static void tables_end_with_the_bytes_in_use(void **state)
{
    struct rig *rig = good(state);

    rig->disk.disk.size_bytes = 3 * 65536 + 16;
    rig_expect(rig, QC_OK, "");
    rig->disk.disk.size_bytes = 3 * 65536 + 15;
    rig_expect(rig, QC_CORRUPT, "L1 table offset 0x30000 invalid");
    good(state);
    put_be32(head(rig) + 60, 2);
    put_be64(head(rig) + 64, 6 * 65536);
    rig->disk.disk.size_bytes = 6 * 65536 + 80;
    rig_expect(rig, QC_OK, "");
    rig->disk.disk.size_bytes = 6 * 65536 + 79;
    rig_expect(rig, QC_CORRUPT, "snapshot table offset 0x60000 invalid");
}

static void snapshots_are_at_most_65536(void **state)
{
    struct rig *rig = good(state);

    put_be64(head(rig) + 64, 5 * 65536);
    put_be32(head(rig) + 60, 65537);
    rig_expect(rig, QC_UNSUPPORTED, "snapshot table too large: 65537 snapshots");
    put_be32(head(rig) + 60, 65536);
    rig_expect(rig, QC_CORRUPT, "snapshot table offset 0x50000 invalid");
    rig->disk.disk.size_bytes = MEM_DISK_BYTES;
    rig_expect(rig, QC_OK, "");
}

/* Opened for a check, two of all damages pass, and are why the image takes no writes. */
static void check_opens_what_it_can_repair(void **state)
{
    struct rig *rig = good(state);

    rig->options.is_for_check = true;
    put_be32(head(rig) + 56, 0);
    rig_expect(rig, QC_OK, "");
    assert_string_equal(qc_readonly_reason(&rig->image), "no refcount table: read-only");
    put_be32(head(rig) + 56, 1);
    put_be64(head(rig) + 64, 5 * 65536);
    put_be32(head(rig) + 60, UINT32_MAX);
    rig_expect(rig, QC_CORRUPT, "snapshot table offset 0x50000 invalid");
    rig->disk.disk.size_bytes = MEM_DISK_BYTES;
    rig_expect(rig, QC_OK, "");
    assert_string_equal(qc_readonly_reason(&rig->image),
                        "snapshot table too large: 4294967295 snapshots: read-only");
    assert_int_equal(qc_info(&rig->image)->snapshots_count, 65536);
    rig->options.readonly = true;
    rig_expect(rig, QC_OK, "");
    assert_string_equal(qc_readonly_reason(&rig->image), "read-only");
    put_be64(head(rig) + 48, 1);
    rig_expect(rig, QC_CORRUPT, "refcount table offset 0x1 invalid");
}

static void tables_do_not_overlap(void **state)
{
    struct rig *rig = good(state);

    put_be64(head(rig) + 40, 65536);
    rig_expect(rig, QC_CORRUPT, "refcount table overlaps L1 table");
    good(state);
    put_be32(head(rig) + 60, 1);
    put_be64(head(rig) + 64, 3 * 65536);
    rig_expect(rig, QC_CORRUPT, "snapshot table overlaps L1 table");
    put_be64(head(rig) + 64, 65536);
    rig_expect(rig, QC_CORRUPT, "snapshot table overlaps refcount table");
    good(state);
    put_be32(head(rig) + 56, 2); /* clusters 1 and 2 */
    rig_expect(rig, QC_OK, "");
    put_be32(head(rig) + 56, 3); /* reaches the L1 in cluster 3 */
    rig_expect(rig, QC_CORRUPT, "refcount table overlaps L1 table");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(good_images_open),
        RIG_TEST(foreign_disks_are_left_alone_silently),
        RIG_TEST(header_that_cannot_be_read_is_an_io_error),
        RIG_TEST(cluster_bits_21_are_the_largest),
        RIG_TEST(cve_2014_0144_header_length),
        RIG_TEST(header_must_lie_in_the_file),
        RIG_TEST(damage_bits_leave_the_image_readable),
        RIG_TEST(refcount_order_is_at_most_6),
        RIG_TEST(compression_type_agrees_with_its_bit),
        RIG_TEST(extended_l2_needs_clusters_of_16_kib),
        RIG_TEST(data_files_have_names),
        RIG_TEST(cve_2014_0144_backing_name),
        RIG_TEST(virtual_size_is_one_sector_to_2_56),
        RIG_TEST(cve_2014_0143_huge_l1),
        RIG_TEST(cve_2014_0144_refcount_table_size),
        RIG_TEST(cve_2014_0144_tables_lie_in_the_disk),
        RIG_TEST(tables_end_with_the_bytes_in_use),
        RIG_TEST(snapshots_are_at_most_65536),
        RIG_TEST(check_opens_what_it_can_repair),
        RIG_TEST(tables_do_not_overlap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
