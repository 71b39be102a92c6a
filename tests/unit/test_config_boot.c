/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The configuration file's parser, as far as only the boot program asks: what boots by itself and
 * when, how much room an image gets. The rest of the language is in test_config.c.
 */
#include "../../efi/config.c"
#include "../../efi/config_find.c"
#include "support.h"

static struct config parsed;

static void parse_text(const char *text)
{
    config_parse(&parsed, text, strlen(text));
}

/* The text has one bad line, this one, for this reason. */
static void expect_bad(const char *text, unsigned line, const char *reason)
{
    parse_text(text);
    assert_int_equal(parsed.bad_count, 1);
    assert_string_equal(parsed.bad[0].reason, reason);
    assert_int_equal(parsed.bad[0].line, line);
}

/* The boot program's choice does not hang on where in the file it is told. */
static void what_boots_by_itself_is_known(void **state)
{
    (void)state;
    parse_text("image a\nimage b\n");
    assert_int_equal(parsed.default_number, 0);
    assert_int_equal(parsed.timeout_s, CONFIG_SECONDS);
    parse_text("default b\nimage a\nimage b\ntimeout 0\n");
    assert_int_equal(parsed.bad_count, 0);
    assert_int_equal(parsed.default_number, 1);
    assert_int_equal(parsed.timeout_s, 0);
    expect_bad("image a\ndefault bb\nimage b\n", 2, "there is no image of this name");
    assert_int_equal(parsed.default_number, 0);
    expect_bad("default a\n", 1, "there is no image of this name");
}

static void room_is_counted_in_bytes(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } sizes[] = {{"0", 0},
                 {"7", 7},
                 {"7K", 7168},
                 {"512M", UINT64_C(512) << 20},
                 {"3G", UINT64_C(3) << 30},
                 {"16777215T", UINT64_C(16777215) << 40}};
    char text[64];

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        snprintf(text, sizeof(text), "image a\nheadroom %s\n", sizes[i].text);
        parse_text(text);
        assert_int_equal(parsed.bad_count, 0);
        assert_int_equal(parsed.entries[0].headroom_bytes, sizes[i].bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_boots_by_itself_is_known),
        cmocka_unit_test(room_is_counted_in_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
