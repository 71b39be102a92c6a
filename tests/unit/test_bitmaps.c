/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Persistent bitmaps as the check sees them: their directory, tables and clusters are counted, and
 * what breaks the format is told and given up by a repair. Format: QEMU's docs/interop/qcow2,
 * "Bitmaps".
 */
#include "shape.h"

#define CLUSTER      4096u
#define MAGIC        UINT32_C(0x23852875)
#define AT_DIRECTORY (AT_DATA + SHAPE_DATA)
#define AT_TABLE     (AT_DIRECTORY + 1)
#define AT_BITS      (AT_DIRECTORY + 2)
#define AT_END       (AT_DIRECTORY + 3)
#define AUTOCLEAR    88u
#define ENTRY        32u /* bytes, with a name of two */

static uint8_t *directory(struct rig *rig)
{
    return rig->disk.bytes + AT_DIRECTORY * CLUSTER;
}

static uint8_t *table(struct rig *rig)
{
    return rig->disk.bytes + AT_TABLE * CLUSTER;
}

/* A sound image with one bitmap of one cluster, named by an extension behind another. */
static void build(struct rig *rig)
{
    uint8_t *extension, *entry = directory(rig);

    shape_build(rig, 3, 12);
    extension = rig->disk.bytes + 112;
    put_be64(rig->disk.bytes + AUTOCLEAR, QC_AUTOCLEAR_BITMAPS);
    put_be32(extension, 0x12345678); /* of nobody known */
    put_be32(extension + 4, 5);
    extension += 16;
    put_be32(extension, MAGIC);
    put_be32(extension + 4, 24);
    put_be32(extension + 8, 1);
    put_be64(extension + 16, 32);
    put_be64(extension + 24, AT_DIRECTORY * CLUSTER);
    memset(entry, 0, (AT_END - AT_DIRECTORY) * CLUSTER);
    put_be64(entry, AT_TABLE * CLUSTER);
    put_be32(entry + 8, 1);
    entry[16] = 1;
    entry[17] = 16;
    entry[19] = 2;
    memcpy(entry + 24, "b1", 2);
    put_be64(table(rig), AT_BITS * CLUSTER);
    rig->disk.disk.size_bytes = AT_END * CLUSTER;
    for (unsigned at = AT_DIRECTORY; at < AT_END; at++)
        shape_set_count(rig, at, 1);
}

static void good_bitmaps_are_counted(void **state)
{
    struct rig *rig = *state;
    struct qc_check_result result;

    build(rig);
    shape_expect_found(rig, 0, 0);
    put_be64(table(rig), 0); /* all zeros, all ones: no cluster */
    shape_expect_found(rig, 0, 1);
    put_be64(table(rig), 1);
    shape_expect_found(rig, 0, 1);
    build(rig);
    shape_set_count(rig, AT_BITS, 0);
    result = shape_check(rig, QC_FIX_ALL);
    shape_expect(&result, 0, 0);
    assert_int_equal(rig->disk.bytes[AUTOCLEAR + 7], QC_AUTOCLEAR_BITMAPS);
    assert_int_equal(shape_count(rig, AT_BITS), 1);
    /* Without the bit nobody keeps them: they are leaks. */
    build(rig);
    put_be64(rig->disk.bytes + AUTOCLEAR, 0);
    shape_expect_found(rig, 0, 3);
    /* The bit without an extension. */
    build(rig);
    put_be32(rig->disk.bytes + 112, 0);
    shape_expect_found(rig, 0, 3);
    build(rig);
    put_be32(rig->disk.bytes + 128, 0x12345679);
    put_be32(rig->disk.bytes + 132, 3920);
    shape_expect_found(rig, 0, 3);
}

/* The bit with a list of extensions that is full, or ends with the cluster, without theirs. */
static void lists_without_bitmaps_have_none(void **state)
{
    struct rig *rig = *state;

    build(rig);
    memset(rig->disk.bytes + 112, 0, 1024);
    for (unsigned i = 0; i < QC_EXTENSIONS_MAX; i++)
        put_be32(rig->disk.bytes + 112 + i * 8, 0x12345600 + i);
    shape_expect_found(rig, 0, 3);
    build(rig);
    put_be32(rig->disk.bytes + 116, CLUSTER - 120);
    shape_expect_found(rig, 0, 3);
}

/* The bit goes with what cannot be read, and their clusters with it. */
static void expect_given_up(struct rig *rig)
{
    struct qc_check_result result = shape_check(rig, QC_FIX_NOTHING);

    assert_true(result.corruptions + result.check_errors > 0);
    result = shape_check(rig, QC_FIX_LEAKS); /* this is not for it */
    assert_int_equal(rig->disk.bytes[AUTOCLEAR + 7], QC_AUTOCLEAR_BITMAPS);
    result = shape_check(rig, QC_FIX_ALL);
    shape_expect(&result, 0, 0);
    assert_int_equal(rig->disk.bytes[AUTOCLEAR + 7], 0);
    for (unsigned at = AT_DIRECTORY; at < AT_END; at++)
        assert_int_equal(shape_count(rig, at), 0);
}

static void entries_that_break_the_format_are_given_up(void **state)
{
    static const uint64_t entries[] = {
        AT_BITS * CLUSTER | 1,
        AT_BITS * CLUSTER | 2,
        AT_BITS * CLUSTER + 512,
        AT_BITS * CLUSTER | 1ull << 63,
        2,
    };
    struct rig *rig = *state;

    for (unsigned i = 0; i < sizeof(entries) / sizeof(entries[0]); i++) {
        build(rig);
        put_be64(table(rig), entries[i]);
        expect_given_up(rig);
    }
}

/* Each is good but for one field, of 4 bytes or, where high is not 0, of 8. */
static const struct {
    unsigned off;
    uint32_t high, low;
} wrong[] = {
    {0, 0x00000001, 0}, /* the table's offset: 2^32, behind the end */
    {4, 0, 0},          /* 0 */
    {4, 0, AT_TABLE *CLUSTER + 8},
    {0, 0x01000000, 0}, /* 2^56 */
    {8, 0, 0},          /* entries of the table */
    {8, 0, 512 * 1024 * 1024 / CLUSTER + 1},
    {12, 0, 4},                        /* flags */
    {16, 0, 2u << 24 | 16u << 16 | 2}, /* type */
    {16, 0, 1u << 24 | 8u << 16 | 2},  /* granularity */
    {16, 0, 1u << 24 | 32u << 16 | 2},
    {16, 0, 1u << 24 | 16u << 16 | 1024}, /* bytes of the name */
    {20, 0, 9},                           /* of extra data: the entry ends behind its room */
};

static void build_wrong(struct rig *rig, unsigned i)
{
    build(rig);
    put_be32(directory(rig) + wrong[i].off, wrong[i].high != 0 ? wrong[i].high : wrong[i].low);
    if (wrong[i].off == 16 && (wrong[i].low & 0xffff) == 1024)
        put_be64(rig->disk.bytes + 144, 2048); /* bytes of the directory */
}

static void directories_that_break_the_format_are_given_up(void **state)
{
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        build_wrong(*state, i);
        expect_given_up(*state);
    }
}

static void expect_opened(struct rig *rig, const char *reason)
{
    assert_int_equal(rig_open(rig), QC_OK);
    assert_string_equal(qc_readonly_reason(&rig->image), reason);
    assert_int_equal(rig->image.readonly_kind, reason[0] ? QC_READONLY_DAMAGED : 0);
}

/* So many, with names of two bytes as the first. */
static void repeat(struct rig *rig, unsigned count)
{
    build(rig);
    for (unsigned i = 1; i < count; i++)
        memcpy(directory(rig) + i * ENTRY, directory(rig), ENTRY);
    put_be32(rig->disk.bytes + 136, count);
    put_be64(rig->disk.bytes + 144, count * ENTRY);
}

/* QEMU does not open what it cannot load, so nobody is to rely on writing it. */
static void wrong_directories_open_read_only(void **state)
{
    static const char first[] = "bitmap 0 of the directory invalid";
    struct rig *rig = *state;

    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        build_wrong(rig, i);
        if (wrong[i].high == 1) /* QEMU reads zeros behind the end */
            continue;
        expect_opened(rig, first);
        put_be64(rig->disk.bytes + AUTOCLEAR, 0);
        expect_opened(rig, "");
    }
    build(rig);
    directory(rig)[23] = 6; /* extra data, which fits */
    expect_opened(rig, first);
    for (unsigned len = 31; len <= 33; len++) {
        build(rig);
        put_be64(rig->disk.bytes + 144, len);
        expect_opened(rig, len == 32 ? "" : first);
    }
    for (unsigned i = 7; i <= 8; i++) { /* the ninth is not looked at */
        repeat(rig, 9);
        expect_opened(rig, "");
        directory(rig)[i * ENTRY + 16] = 2;
        expect_opened(rig, i == 7 ? "bitmap 7 of the directory invalid" : "");
    }
}

/* What cannot be read now may be read later: the image is not the worse for it. */
static void unreadable_directory_says_nothing(void **state)
{
    struct rig *rig = *state;

    build(rig);
    rig->disk.fail_at = 2;
    expect_opened(rig, "");
    assert_in_range(rig->disk.reads_count, 2, 2);
}

/* A bit for each 512 bytes: one cluster of them is for 16 MiB. */
static void bitmaps_of_a_smaller_disk_are_given_up(void **state)
{
    struct rig *rig = *state;

    build(rig);
    directory(rig)[17] = 9;
    shape_expect_found(rig, 0, 0);
    put_be64(rig->disk.bytes + 24, UINT64_C(17) << 20);
    put_be32(rig->disk.bytes + 36, 9);
    expect_given_up(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(good_bitmaps_are_counted),
        RIG_TEST(lists_without_bitmaps_have_none),
        RIG_TEST(entries_that_break_the_format_are_given_up),
        RIG_TEST(directories_that_break_the_format_are_given_up),
        RIG_TEST(wrong_directories_open_read_only),
        RIG_TEST(unreadable_directory_says_nothing),
        RIG_TEST(bitmaps_of_a_smaller_disk_are_given_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
