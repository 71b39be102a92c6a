/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Header extensions at their edges: the end of their area and of the disk, pages of the cache, the
 * longest names and tables, and reads that fail in the middle of one.
 */
#include "support.h"

#define HEADER_BYTES 112u
#define CLUSTER      65536u
#define FORMAT       0xe2792acau
#define NAMES        0x6803f857u
#define BITMAPS      0x23852875u
#define LUKS         0x0537be77u
#define DATA_FILE    0x44415441u
#define OTHER        0x12345678u
#define UNKNOWN      "unknown incompatible feature bit 5"

static struct rig *begin(void **state)
{
    struct rig *rig = *state;

    rig_build(rig, 3, 16, UINT64_C(1) << 30, 2);
    return rig;
}

/* Puts an extension at off of the header's cluster and returns where the next one begins. */
static uint32_t put(struct rig *rig, uint32_t off, uint32_t type, uint32_t len)
{
    put_be32(rig->disk.bytes + off, type);
    put_be32(rig->disk.bytes + off + 4, len);
    return off + 8 + (len + 7) / 8 * 8;
}

static void expect_invalid(struct rig *rig, uint32_t type)
{
    char line[QC_DETAIL_BYTES];

    snprintf(line, sizeof(line), "header extension 0x%x invalid", type);
    rig_expect(rig, QC_CORRUPT, line);
}

/* The last 8 bytes of the area are an extension, fewer are none. */
static void last_extension_fills_the_area(void **state)
{
    struct rig *rig = begin(state);
    uint32_t off = put(rig, HEADER_BYTES, OTHER, CLUSTER - HEADER_BYTES - 8 - 8);

    assert_int_equal(off, CLUSTER - 8);
    put(rig, off, OTHER + 1, 0);
    rig_expect(rig, QC_OK, "");
    put(rig, off, OTHER + 1, 1);
    expect_invalid(rig, OTHER + 1);

    begin(state);
    off = put(rig, HEADER_BYTES, OTHER, 8);
    memset(rig->disk.bytes + off, 0xff, 8); /* a name, or an extension without end */
    put_be64(rig->disk.bytes + 8, off);
    rig_expect(rig, QC_OK, "");
    put_be64(rig->disk.bytes + 8, off + 7);
    rig_expect(rig, QC_CORRUPT, "header extension at 0x80 cut off");
    put_be64(rig->disk.bytes + 8, off + 8);
    expect_invalid(rig, UINT32_MAX);
}

/* With an unknown bit the walk comes before anything else is checked: the disk may be as short. */
static struct rig *begin_unknown(void **state)
{
    struct rig *rig = begin(state);

    put_be64(rig->disk.bytes + 72, UINT64_C(1) << 5);
    return rig;
}

static void area_ends_with_the_disk(void **state)
{
    struct rig *rig = begin_unknown(state);

    put(rig, HEADER_BYTES, OTHER, 8);
    rig->disk.disk.size_bytes = HEADER_BYTES + 16;
    rig_expect(rig, QC_UNSUPPORTED, UNKNOWN);
    put(rig, HEADER_BYTES, OTHER, 9);
    expect_invalid(rig, OTHER);
    rig->disk.disk.size_bytes = HEADER_BYTES + 7;
    rig_expect(rig, QC_CORRUPT, "header extension at 0x70 cut off");

    begin_unknown(state);
    put(rig, HEADER_BYTES, OTHER, 4096 - HEADER_BYTES - 8);
    put(rig, 4096, OTHER, 8);
    rig->disk.disk.size_bytes = 4096 + 16;
    rig_expect(rig, QC_UNSUPPORTED, UNKNOWN);
    put(rig, 4096, OTHER, 9);
    expect_invalid(rig, OTHER);
}

/* Data of every length is padded to a multiple of 8. */
static void next_extension_is_found_behind_any_length(void **state)
{
    for (uint32_t len = 0; len <= 24; len++) {
        struct rig *rig = begin(state);

        memset(rig->disk.bytes + HEADER_BYTES + 8, 0, 32);
        put(rig, put(rig, HEADER_BYTES, OTHER, len), OTHER + 1, CLUSTER);
        expect_invalid(rig, OTHER + 1);
    }
}

static void lengths_have_limits(void **state)
{
    static const struct {
        uint32_t type, len;
        bool is_good;
    } cases[] = {
        {FORMAT, 0, true},       {FORMAT, 15, true},       {FORMAT, 16, false},
        {DATA_FILE, 1023, true}, {DATA_FILE, 1024, false}, {BITMAPS, 24, true},
        {BITMAPS, 23, false},    {BITMAPS, 25, false},     {NAMES, 4000, true},
    };

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct rig *rig = begin(state);

        put(rig, HEADER_BYTES, cases[i].type, cases[i].len);
        if (cases[i].is_good)
            rig_expect(rig, QC_OK, "");
        else
            expect_invalid(rig, cases[i].type);
    }
}

static void luks_pointer_is_of_one_size(void **state)
{
    struct rig *rig = begin_unknown(state);

    put_be32(rig->disk.bytes + 32, 1);
    put(rig, HEADER_BYTES, LUKS, 16);
    rig_expect(rig, QC_UNSUPPORTED, UNKNOWN);
    put(rig, HEADER_BYTES, LUKS, 15);
    expect_invalid(rig, LUKS);
    put(rig, HEADER_BYTES, LUKS, 17);
    expect_invalid(rig, LUKS);
}

/* One of each, in both orders; then any of them once more. */
static void each_comes_once_in_any_order(void **state)
{
    static const uint32_t types[] = {FORMAT, NAMES, BITMAPS, DATA_FILE};
    static const uint32_t lens[] = {5, 48, 24, 3};

    for (unsigned again = 0; again < 4; again++) {
        for (unsigned way = 0; way < 2; way++) {
            struct rig *rig = begin(state);
            uint32_t off = HEADER_BYTES;

            for (unsigned i = 0; i < 4; i++) {
                unsigned k = way == 0 ? i : 3 - i;

                off = put(rig, off, types[k], lens[k]);
            }
            rig_expect(rig, QC_OK, "");
            put(rig, off, types[again], lens[again]);
            expect_invalid(rig, types[again]);
        }
    }
}

/* One whose head and one whose data lie across a page's end. */
static void pages_end_anywhere(void **state)
{
    struct rig *rig = begin(state);
    uint32_t off = put(rig, HEADER_BYTES, OTHER, 4096 - 8 - HEADER_BYTES - 8);

    assert_int_equal(off, 4096 - 8);
    put(rig, off, FORMAT, 15);
    memcpy(rig->disk.bytes + off + 8, "fifteen letters", 15);
    rig_expect(rig, QC_OK, "");
    assert_string_equal(qc_info(&rig->image)->backing_format, "fifteen letters");

    begin(state);
    off = put(rig, HEADER_BYTES, OTHER, 4096 - 16 - HEADER_BYTES - 8);
    put(rig, off, FORMAT, 15);
    memcpy(rig->disk.bytes + off + 8, "fifteen letters", 15);
    rig_expect(rig, QC_OK, "");
    assert_string_equal(qc_info(&rig->image)->backing_format, "fifteen letters");

    begin(state);
    off = put(rig, HEADER_BYTES, OTHER, 4096 - 16 - HEADER_BYTES - 8);
    put(rig, off, BITMAPS, 24);
    put_be32(rig->disk.bytes + off + 8, 1);
    put_be64(rig->disk.bytes + off + 16, 32);
    put_be64(rig->disk.bytes + off + 24, 5 * CLUSTER);
    put_be64(rig->disk.bytes + 88, QC_AUTOCLEAR_BITMAPS);
    rig_expect(rig, QC_OK, "");
    put_be64(rig->disk.bytes + off + 24, 5 * CLUSTER + 1);
    expect_invalid(rig, BITMAPS);
}

static void put_directory(struct rig *rig, uint64_t size)
{
    put(rig, HEADER_BYTES, BITMAPS, 24);
    put_be32(rig->disk.bytes + HEADER_BYTES + 8, 1);
    put_be64(rig->disk.bytes + HEADER_BYTES + 16, size);
    put_be64(rig->disk.bytes + HEADER_BYTES + 24, 5 * CLUSTER);
    put_be64(rig->disk.bytes + 88, QC_AUTOCLEAR_BITMAPS);
}

static void bitmap_directory_is_at_most_64_mib(void **state)
{
    struct rig *rig = begin(state);

    rig->disk.disk.size_bytes = UINT64_C(1) << 40; /* what is read lies in its first bytes */
    put_directory(rig, 1);
    rig_expect(rig, QC_OK, "");
    put_directory(rig, 64 * 1024 * 1024);
    rig_expect(rig, QC_OK, "");
    put_directory(rig, 64 * 1024 * 1024 + 1);
    expect_invalid(rig, BITMAPS);
    put_directory(rig, 1);
    put_be32(rig->disk.bytes + HEADER_BYTES + 12, UINT32_C(1) << 31); /* reserved */
    expect_invalid(rig, BITMAPS);
}

/* Names bit 5 in the entry number at of a table so long. */
static struct rig *with_names(void **state, unsigned at, uint32_t len)
{
    struct rig *rig = begin(state);
    uint8_t *table = rig->disk.bytes + HEADER_BYTES + 8;

    put(rig, HEADER_BYTES, NAMES, len);
    memset(table, 0x77, len);
    memset(table + at * 48, 0, 48);
    table[at * 48 + 1] = 5;
    memcpy(table + at * 48 + 2, "name", 4);
    put_be64(rig->disk.bytes + 72, UINT64_C(1) << 5);
    return rig;
}

static void names_are_looked_up_in_192_entries(void **state)
{
    rig_expect(with_names(state, 0, 48), QC_UNSUPPORTED, UNKNOWN " (name)");
    rig_expect(with_names(state, 1, 95), QC_UNSUPPORTED, UNKNOWN);
    rig_expect(with_names(state, 1, 96), QC_UNSUPPORTED, UNKNOWN " (name)");
    rig_expect(with_names(state, 191, 200 * 48), QC_UNSUPPORTED, UNKNOWN " (name)");
    rig_expect(with_names(state, 192, 200 * 48), QC_UNSUPPORTED,
               "unknown incompatible feature bit 5");
}

/* Leaves letters where the next calls keep what they have on the stack. */
static __attribute__((noinline)) void soil_stack(void)
{
    volatile uint8_t bytes[16384];

    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = 'A';
}

static void longest_name_has_46_letters(void **state)
{
    struct rig *rig = with_names(state, 0, 48);

    memset(rig->disk.bytes + HEADER_BYTES + 10, 'n', 46);
    soil_stack();
    rig_expect(rig, QC_UNSUPPORTED, UNKNOWN " (nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn)");
}

/* The second page, where only the data lie, cannot be read. */
static void expect_unreadable(struct rig *rig)
{
    rig->disk.reads_count = 0;
    rig->disk.fail_at = 2;
    assert_int_equal(rig_open(rig), QC_IO);
    assert_string_equal(qc_detail(&rig->image), "header extensions cannot be read");
}

static void data_that_cannot_be_read(void **state)
{
    static const uint32_t types[] = {FORMAT, BITMAPS, NAMES};
    static const uint32_t lens[] = {5, 24, 48};

    for (unsigned i = 0; i < 3; i++) {
        struct rig *rig = begin(state);
        uint32_t off = put(rig, HEADER_BYTES, OTHER, 4096 - 8 - HEADER_BYTES - 8);

        put(rig, off, types[i], lens[i]);
        put_be64(rig->disk.bytes + 88, QC_AUTOCLEAR_BITMAPS);
        if (types[i] == NAMES)
            put_be64(rig->disk.bytes + 72, UINT64_C(1) << 5);
        expect_unreadable(rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(last_extension_fills_the_area),
        RIG_TEST(area_ends_with_the_disk),
        RIG_TEST(next_extension_is_found_behind_any_length),
        RIG_TEST(lengths_have_limits),
        RIG_TEST(luks_pointer_is_of_one_size),
        RIG_TEST(each_comes_once_in_any_order),
        RIG_TEST(pages_end_anywhere),
        RIG_TEST(bitmap_directory_is_at_most_64_mib),
        RIG_TEST(names_are_looked_up_in_192_entries),
        RIG_TEST(longest_name_has_46_letters),
        RIG_TEST(data_that_cannot_be_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
