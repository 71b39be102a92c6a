/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The reports' own arithmetic against the C library's, and what they do with an image that is wrong
 * or goes away. What they say of images that are right is held against qemu-img elsewhere
 * (tests/host/parity.py).
 */
#include <inttypes.h>
#include <math.h>

#include "../../core/plot.h"
#include "../../efi/command/report/report.h"
#include "support.h"

#define BITMAPS_TYPE  0x23852875u
#define HEADER_BYTES  112u
#define CLUSTER       65536u
#define DIRECTORY_OFF (AT_DATA * CLUSTER) /* in the first cluster of data */
#define ENTRY_BYTES   24u
#define SAID_BYTES    65536u

/* What was said, terminated. */
struct memory {
    struct out out; /* first */
    char text[SAID_BYTES];
    size_t count;
};

static struct memory said;
static struct report_image subject;

static void put(struct out *out, const char *utf8, size_t len)
{
    struct memory *memory = (struct memory *)out;

    assert_true(memory->count + len < SAID_BYTES);
    memcpy(memory->text + memory->count, utf8, len);
    memory->count += len;
    memory->text[memory->count] = '\0';
}

/* ---- numbers -------------------------------------------------------------------------------- */

/* As qemu-img makes it, with a double. */
static void expect_size(uint64_t bytes)
{
    static const char *const units[] = {"", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"};
    char wanted[64], text[OUT_NUMBER_BYTES];
    int unit = 0;

    frexp((double)bytes / (1000.0 / 1024.0), &unit);
    unit = (unit - 1) / 10;
    snprintf(wanted, sizeof(wanted), "%0.3g %sB", (double)bytes / (double)(1ull << unit * 10),
             units[unit]);
    number_size(text, bytes);
    assert_string_equal(text, wanted);
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void sizes_are_as_printf_writes_them(void **state)
{
    uint64_t dice = 88172645463325252u;

    (void)state;
    for (unsigned unit = 0; unit < 6; unit++) {
        for (uint64_t tenths = 1; tenths < 10300; tenths++) {
            /* Every number that is told apart, and where one ends and the next begins. */
            uint64_t bytes = (tenths << 10 * unit) / 10;

            expect_size(bytes);
            expect_size(bytes + 1);
            expect_size(bytes - (bytes > 0));
        }
        for (uint64_t half = 1; half < 2048; half += 2)
            expect_size((half << 10 * unit) / 2); /* ties */
    }
    for (unsigned i = 0; i < 200000; i++)
        expect_size(next_random(&dice) >> (1 + dice % 60));
    expect_size(INT64_MAX);
}

static void expect_percent(uint64_t part, uint64_t whole)
{
    char wanted[64], text[OUT_NUMBER_BYTES];

    snprintf(wanted, sizeof(wanted), "%0.2f", (double)part * 100.0 / (double)whole);
    number_percent(text, part, whole);
    assert_string_equal(text, wanted);
}

static void percentages_are_as_printf_writes_them(void **state)
{
    uint64_t dice = 1181783497276652981u;

    (void)state;
    for (uint64_t whole = 1; whole < 700; whole++)
        for (uint64_t part = 0; part <= whole + 9; part++)
            expect_percent(part, whole);
    for (uint64_t part = 0; part <= 20000; part++) {
        expect_percent(part, 20000); /* each second one a tie */
        expect_percent(part, 1600);
        expect_percent(part * 3, 12000);
    }
    for (unsigned i = 0; i < 200000; i++) {
        uint64_t whole = 1 + (next_random(&dice) >> (27 + dice % 30));

        expect_percent(next_random(&dice) % (whole + 1), whole);
    }
}

static void integers_are_as_printf_writes_them(void **state)
{
    static const uint64_t values[] = {0,         1,          9,          10,          UINT32_MAX,
                                      INT64_MAX, UINT64_MAX, 1ull << 63, 0xabcdef0123};
    char wanted[64], text[OUT_NUMBER_BYTES];

    (void)state;
    for (unsigned i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        number_uint(text, values[i], 1);
        snprintf(wanted, sizeof(wanted), "%" PRIu64, values[i]);
        assert_string_equal(text, wanted);
        number_uint(text, values[i], 3);
        snprintf(wanted, sizeof(wanted), "%03" PRIu64, values[i]);
        assert_string_equal(text, wanted);
        number_int(text, values[i]);
        snprintf(wanted, sizeof(wanted), "%" PRId64, (int64_t)values[i]);
        assert_string_equal(text, wanted);
        number_hex(text, values[i]);
        snprintf(wanted, sizeof(wanted), "%#" PRIx64, values[i]);
        assert_string_equal(text, wanted);
    }
}

/* ---- images --------------------------------------------------------------------------------- */

/* An image with so many bitmaps of name "b", an entry each, and nothing else. */
static uint8_t *build_bitmaps(struct rig *rig, unsigned count)
{
    uint8_t *extension = rig->disk.bytes + HEADER_BYTES, *entry;

    rig_build(rig, 3, 16, UINT64_C(1) << 20, 2);
    rig->disk.bytes[95] = 1; /* the bitmaps are up to date */
    put_be32(extension, BITMAPS_TYPE);
    put_be32(extension + 4, 24);
    put_be32(extension + 8, count);
    put_be64(extension + 16, (uint64_t)count * (ENTRY_BYTES + 8));
    put_be64(extension + 24, DIRECTORY_OFF);
    memset(rig->disk.bytes + DIRECTORY_OFF, 0, CLUSTER);
    for (unsigned i = 0; i < count; i++) {
        entry = rig->disk.bytes + DIRECTORY_OFF + i * (ENTRY_BYTES + 8);
        entry[17] = 16;
        entry[19] = 1;
        entry[ENTRY_BYTES] = 'b';
    }
    return rig->disk.bytes + DIRECTORY_OFF;
}

static void begin(struct rig *rig)
{
    said = (struct memory){.out = {put}};
    subject = (struct report_image){.image = &rig->image, .names = {"name"}};
    subject.used_bytes = REPORT_UNKNOWN;
}

/* What info answers, in both forms. */
static void expect_info(struct rig *rig, qc_status status, const char *detail)
{
    assert_int_equal(rig_open(rig), QC_OK);
    for (unsigned form = REPORT_TEXT; form <= REPORT_JSON; form++) {
        begin(rig);
        assert_int_equal(report_info(&said.out, &subject, form), status);
        assert_string_equal(subject.detail.text, detail);
    }
}

static void bitmaps_are_listed(void **state)
{
    struct rig *rig = *state;

    build_bitmaps(rig, 3);
    expect_info(rig, QC_OK, "");
    assert_non_null(strstr(said.text, "\"bitmaps\": [\n"));
    assert_null(strstr(said.text, "actual-size"));
    begin(rig);
    assert_int_equal(report_info(&said.out, &subject, REPORT_TEXT), QC_OK);
    assert_non_null(strstr(said.text, "        [2]:\n            flags:\n            name: b\n"
                                      "            granularity: 65536\n    refcount bits"));
    assert_non_null(strstr(said.text, "disk size: unavailable\n"));
}

static void wrong_bitmaps_are_refused(void **state)
{
    struct rig *rig = *state;

    build_bitmaps(rig, 2)[20] = 1;
    expect_info(rig, QC_UNSUPPORTED, "a bitmap has 16777216 bytes of extra data");
    build_bitmaps(rig, 2)[17] = 8;
    expect_info(rig, QC_CORRUPT, "a bitmap's granularity of 8 bits");
    build_bitmaps(rig, 2)[17] = 32;
    expect_info(rig, QC_CORRUPT, "a bitmap's granularity of 32 bits");
    build_bitmaps(rig, 2)[18] = 4;
    expect_info(rig, QC_CORRUPT, "a name of 1025 bytes");
    build_bitmaps(rig, 2);
    put_be32(rig->disk.bytes + HEADER_BYTES + 8, 3);
    expect_info(rig, QC_CORRUPT, "24 bytes at 0x50040 are outside");
    /* The last name ends behind the disk, which is cut after its cluster. */
    build_bitmaps(rig, 1)[18] = 3;
    rig_fix_size(rig, DIRECTORY_OFF + ENTRY_BYTES + 512);
    put_be64(rig->disk.bytes + HEADER_BYTES + 16, ENTRY_BYTES);
    expect_info(rig, QC_CORRUPT, "769 bytes at 0x50018 are outside");
}

static void read_errors_are_told(void **state)
{
    struct rig *rig = *state;

    build_bitmaps(rig, 1);
    for (unsigned i = 1;; i++) {
        assert_int_equal(rig_open(rig), QC_OK);
        begin(rig);
        rig->disk.fail_at = rig->disk.reads_count + i;
        if (report_info(&said.out, &subject, REPORT_JSON) == QC_OK)
            break;
        assert_non_null(strstr(subject.detail.text, "cannot be read"));
        assert_true(i < 16);
        rig->disk.fail_at = 0;
    }
}

static bool stop_behind(void *context, uint64_t done, uint64_t total)
{
    unsigned *left = context;

    assert_true(done <= total);
    return (*left)-- > 0;
}

/* Every second cluster is there. */
static void maps_can_be_stopped(void **state)
{
    struct rig *rig = *state;
    unsigned left = 3, lines = 0;

    rig_build(rig, 3, 16, UINT64_C(1) << 20, 8);
    for (unsigned i = 0; i < 8; i++)
        rig_set_l2(rig, 2 * i, rig_data_off(rig, i) | UINT64_C(1) << 63);
    assert_int_equal(rig_open(rig), QC_OK);
    begin(rig);
    assert_int_equal(report_map(&said.out, &subject, REPORT_JSON, stop_behind, &left), QC_RANGE);
    for (size_t i = 0; i < said.count; i++)
        lines += said.text[i] == '\n';
    assert_int_equal(lines, 2);
}

static void checks_can_be_stopped(void **state)
{
    struct rig *rig = *state;
    unsigned left = 0;

    rig_build(rig, 3, 16, UINT64_C(1) << 20, 8);
    assert_int_equal(rig_open(rig), QC_OK);
    begin(rig);
    assert_int_equal(
        report_check(&said.out, &subject, REPORT_TEXT, QC_FIX_NOTHING, stop_behind, &left), 1);
    assert_string_equal(subject.detail.text, "stopped");
    assert_int_equal(said.count, 0);
}

static void maps_end_at_a_bad_entry(void **state)
{
    struct rig *rig = *state;

    rig_build(rig, 3, 16, UINT64_C(1) << 20, 2);
    rig_set_l2(rig, 0, rig_data_off(rig, 0) | UINT64_C(1) << 63);
    rig_set_l2(rig, 1, 1 << 1);
    assert_int_equal(rig_open(rig), QC_OK);
    begin(rig);
    assert_int_equal(report_map(&said.out, &subject, REPORT_TEXT, NULL, NULL), QC_CORRUPT);
    assert_string_equal(subject.detail.text, "bad L2 entry 0x2 at guest 0x10000");
}

/* What is not committed has no place yet. */
static void maps_want_a_flush(void **state)
{
    static uint8_t sector[QC_SECTOR_BYTES];
    struct rig *rig = *state;
    struct qc_plot plot;

    rig_build(rig, 3, 16, UINT64_C(1) << 20, 2);
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(qc_write(&rig->image, 0, sector, sizeof(sector)), QC_OK);
    begin(rig);
    assert_int_equal(report_map(&said.out, &subject, REPORT_TEXT, NULL, NULL), QC_UNSUPPORTED);
    assert_int_equal(qc_flush(&rig->image), QC_OK);
    assert_int_equal(report_map(&said.out, &subject, REPORT_TEXT, NULL, NULL), QC_OK);
    assert_int_equal(qc_plot(&rig->image, 1, 0, 512, &plot), QC_RANGE);
    assert_int_equal(qc_plot(&rig->image, 0, 1 << 20, 512, &plot), QC_RANGE);
    assert_int_equal(qc_plot(&rig->image, 0, 0, 0, &plot), QC_RANGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_are_as_printf_writes_them),
        cmocka_unit_test(percentages_are_as_printf_writes_them),
        cmocka_unit_test(integers_are_as_printf_writes_them),
        RIG_TEST(bitmaps_are_listed),
        RIG_TEST(wrong_bitmaps_are_refused),
        RIG_TEST(read_errors_are_told),
        RIG_TEST(maps_can_be_stopped),
        RIG_TEST(checks_can_be_stopped),
        RIG_TEST(maps_end_at_a_bad_entry),
        RIG_TEST(maps_want_a_flush),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
