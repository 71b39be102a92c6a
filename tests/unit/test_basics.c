/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The small helpers at the bottom of the core: numbers, ranges, and the sentence of an error.
 */
#include "support.h"

#include "../../core/bytes.h"

static void numbers_are_big_endian_at_any_alignment(void **state)
{
    const uint8_t bytes[] = {0, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08};

    (void)state;
    assert_int_equal(qc_be32(bytes + 1), 0x01020304);
    assert_true(qc_be64(bytes + 1) == UINT64_C(0x0102030405060708));
}

static void ranges_never_wrap(void **state)
{
    (void)state;
    assert_true(qc_is_inside(0, 0, 0));
    assert_true(qc_is_inside(10, 0, 10));
    assert_true(qc_is_inside(0, 10, 10));
    assert_true(qc_is_inside(9, 1, 10));
    assert_false(qc_is_inside(9, 2, 10));
    assert_false(qc_is_inside(11, 0, 10));
    assert_false(qc_is_inside(UINT64_MAX, 2, UINT64_MAX));
    assert_false(qc_is_inside(2, UINT64_MAX, UINT64_MAX));
    assert_true(qc_is_inside(UINT64_MAX - 1, 1, UINT64_MAX));
}

static void units_round_up_without_overflow(void **state)
{
    (void)state;
    assert_int_equal(qc_units(0, 9), 0);
    assert_int_equal(qc_units(1, 9), 1);
    assert_int_equal(qc_units(512, 9), 1);
    assert_int_equal(qc_units(513, 9), 2);
    assert_true(qc_units(UINT64_MAX, 9) == UINT64_C(1) << 55);
    assert_int_equal(qc_min(3, 4), 3);
    assert_int_equal(qc_min(4, 3), 3);
}

static void details_are_formatted(void **state)
{
    struct qc_detail detail;

    (void)state;
    assert_int_equal(qc_fail(&detail, QC_IO, "%s of %u at %x", "read", QC_U(0), UINT64_MAX), QC_IO);
    assert_string_equal(detail.text, "read of 0 at 0xffffffffffffffff");
    qc_fail(&detail, QC_IO, "%u %x", UINT64_MAX, QC_U(0));
    assert_string_equal(detail.text, "18446744073709551615 0x0");
    qc_detail_clear(&detail);
    assert_string_equal(detail.text, "");
}

static void details_are_cut_and_plain(void **state)
{
    struct qc_detail detail;
    char longer[2 * QC_DETAIL_BYTES];

    (void)state;
    memset(longer, 'a', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    qc_fail(&detail, QC_IO, "%s", longer);
    assert_int_equal(strlen(detail.text), QC_DETAIL_BYTES - 1);
    qc_fail(&detail, QC_IO, "%s%u", longer, QC_U(1234567));
    assert_int_equal(strlen(detail.text), QC_DETAIL_BYTES - 1);
    qc_fail(&detail, QC_IO, "<%s>", "a\x1b[2J\x80\xff\n~ ");
    assert_string_equal(detail.text, "<a?[2J???~ >");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_big_endian_at_any_alignment),
        cmocka_unit_test(ranges_never_wrap),
        cmocka_unit_test(units_round_up_without_overflow),
        cmocka_unit_test(details_are_formatted),
        cmocka_unit_test(details_are_cut_and_plain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
