/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The configuration file's parser: what a good file says, which line of a bad one is named and why,
 * and that no bytes at all lead it out of bounds.
 *
 * The parser is pure code of the driver; it is taken in by its source, so that it runs under the
 * sanitizers here.
 */
#include "../../efi/config.c"
#include "../../efi/config_find.c"
#include "support.h"

#define GUID_A "f548af4f-8d1c-4a1b-9d6a-112233445566"
#define GUID_B "00000000-0000-0000-0000-000000000001"
#define GUID_C "0fc63daf-8483-4772-8e79-3d69d8477de4"

static const struct config_guid bytes_a = {{0x4f, 0xaf, 0x48, 0xf5, 0x1c, 0x8d, 0x1b, 0x4a, 0x9d,
                                            0x6a, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66}};
static const struct config_guid bytes_b = {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}};
static const struct config_guid bytes_c = {{0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e,
                                            0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4}};

static struct config parsed;

/* Parses from a block of the text's exact length, so that a step beyond it is seen. */
static void parse(const char *text, size_t len)
{
    char *copy = malloc(len + 1);

    assert_non_null(copy);
    memcpy(copy + 1, text, len);
    config_parse(&parsed, copy + 1, len);
    free(copy);
}

static void parse_text(const char *text)
{
    parse(text, strlen(text));
}

/* The text has one bad line, this one, for this reason. */
static void expect_bad(const char *text, unsigned line, const char *reason)
{
    parse_text(text);
    assert_int_equal(parsed.bad_count, 1);
    assert_string_equal(parsed.bad[0].reason, reason);
    assert_int_equal(parsed.bad[0].line, line);
}

static void a_whole_file_is_understood(void **state)
{
    (void)state;
    parse_text("timeout   3                      # seconds the menu waits\n"
               "default   debian\n"
               "\n"
               "image     debian                 # starts an entry\n"
               "  file      \\images\\debian 12.qcow2\n"
               "  readonly  no\n"
               "  snapshot  before the upgrade\n"
               "  temporary no\n"
               "  headroom  2G\n"
               "  autosnapshot 5\n"
               "  backing   yes\n"
               "  loader    \\EFI\\BOOT\\BOOTX64.EFI\n"
               "# an image on a partition\n"
               "image\tsmall\r\n"
               "\tpartition " GUID_A "\r\n"
               "\tbase " GUID_B " qcow2\r\n"
               "\tdata " GUID_C "\r\n"
               "image other\n"
               "  partition F548AF4F-8D1C-4A1B-9D6A-112233445567\n"
               "  readonly yes\n"
               "  backing no");
    assert_int_equal(parsed.bad_count, 0);
    assert_int_equal(parsed.entries_count, 3);
    assert_int_equal(parsed.timeout_s, 3);
    assert_int_equal(parsed.default_number, 0);
    assert_string_equal(parsed.entries[0].name, "debian");
    assert_string_equal(parsed.entries[0].file, "\\images\\debian 12.qcow2");
    assert_string_equal(parsed.entries[0].loader, "\\EFI\\BOOT\\BOOTX64.EFI");
    assert_int_equal(parsed.entries[0].headroom_bytes, UINT64_C(2) << 30);
    assert_int_equal(parsed.entries[0].autosnapshots_count, 5);
    assert_false(parsed.entries[0].is_temporary);
    assert_int_equal(parsed.entries[1].headroom_bytes, 0);
    assert_int_equal(parsed.entries[1].autosnapshots_count, 0);
    assert_string_equal(parsed.entries[1].loader, "");
    assert_false(parsed.entries[0].has_partition);
    assert_false(parsed.entries[0].has_base || parsed.entries[0].has_data);
    assert_string_equal(parsed.entries[0].snapshot, "before the upgrade");
    assert_false(parsed.entries[0].is_readonly);
    assert_false(parsed.entries[0].is_backing_off);
    assert_string_equal(parsed.entries[1].name, "small");
    assert_true(parsed.entries[1].has_partition && parsed.entries[1].has_base);
    assert_memory_equal(&parsed.entries[1].partition, &bytes_a, sizeof(bytes_a));
    assert_memory_equal(&parsed.entries[1].base, &bytes_b, sizeof(bytes_b));
    assert_int_equal(parsed.entries[1].base_format, QC_FORMAT_QCOW2);
    assert_true(parsed.entries[1].has_data);
    assert_memory_equal(&parsed.entries[1].data, &bytes_c, sizeof(bytes_c));
    assert_string_equal(parsed.entries[1].snapshot, "");
    assert_false(parsed.entries[1].is_readonly);
    assert_true(parsed.entries[2].is_readonly && parsed.entries[2].is_backing_off);
    assert_int_equal(parsed.entries[2].partition.bytes[15], 0x67);
}

static void nothing_is_a_file_too(void **state)
{
    static const char *const nothing[] = {
        "", "\n", "\r\n\r\n", "   \t \n", "#", "# \x01\xff", "\xef\xbb\xbf", "\n\n# x\n   # y",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(nothing) / sizeof(nothing[0]); i++) {
        parse_text(nothing[i]);
        assert_int_equal(parsed.entries_count, 0);
        assert_int_equal(parsed.bad_count, 0);
    }
    parse_text("\xef\xbb\xbfimage a\n");
    assert_int_equal(parsed.entries_count, 1);
}

static void a_comment_begins_behind_a_blank(void **state)
{
    (void)state;
    parse_text("image a#b #c\nimage\td\t#e\n");
    assert_int_equal(parsed.bad_count, 0);
    assert_string_equal(parsed.entries[0].name, "a#b");
    assert_string_equal(parsed.entries[1].name, "d");
}

static void a_bad_line_is_named_and_the_rest_counts(void **state)
{
    (void)state;
    expect_bad("image a\ncolour blue\npartition " GUID_A "\n", 2, "unknown key");
    assert_true(parsed.entries[0].has_partition);
    expect_bad("\n\n\nIMAGE a\n", 4, "unknown key");
    expect_bad("imagea\n", 1, "unknown key");
    expect_bad("image a\nreadonly\nbacking no", 2, "the key has no value");
    assert_true(parsed.entries[0].is_backing_off);
    expect_bad("image   # no name\n", 1, "the key has no value");
    expect_bad("readonly yes\nimage a\n", 1, "the key belongs behind an image line");
    assert_false(parsed.entries[0].is_readonly);
}

static void values_are_checked(void **state)
{
    static const struct {
        const char *line, *reason;
    } bad[] = {
        {"timeout -1", "a number of seconds, 0 to 3600, is expected"},
        {"timeout 3601", "a number of seconds, 0 to 3600, is expected"},
        {"timeout 3s", "a number of seconds, 0 to 3600, is expected"},
        {"timeout 99999999999999999999999", "a number of seconds, 0 to 3600, is expected"},
        {"default a b", "a name has no blanks"},
        {"file images\\a.qcow2", "a path that begins with \\ is expected"},
        {"loader EFI", "a path that begins with \\ is expected"},
        {"partition 1", "a partition's GUID is expected"},
        {"partition " GUID_A "0", "a partition's GUID is expected"},
        {"partition f548af4g-8d1c-4a1b-9d6a-112233445566", "a partition's GUID is expected"},
        {"partition f548af4f 8d1c-4a1b-9d6a-112233445566", "a partition's GUID is expected"},
        {"partition f548af4f-8d1c-4a1b-9d6a1112233445566", "a partition's GUID is expected"},
        {"base base.qcow2", "a partition's GUID is expected"},
        {"base " GUID_A " vmdk", "the base's format is raw or qcow2"},
        {"base " GUID_A " raw qcow2", "the base's format is raw or qcow2"},
        {"data bytes.raw", "a partition's GUID is expected"},
        {"data " GUID_A " raw", "a partition's GUID is expected"},
        {"readonly maybe", "yes or no is expected"},
        {"readonly YES", "yes or no is expected"},
        {"readonly yess", "yes or no is expected"},
        {"temporary 1", "yes or no is expected"},
        {"backing noo", "yes or no is expected"},
        {"headroom G", "a size such as 2G is expected"},
        {"headroom 2GG", "a size such as 2G is expected"},
        {"headroom 2g", "a size such as 2G is expected"},
        {"headroom 16777216T", "a size such as 2G is expected"},
        {"headroom 99999999999999999999", "a size such as 2G is expected"},
        {"autosnapshot 65", "a number of snapshots to keep, 0 to 64, is expected"},
        {"autosnapshot yes", "a number of snapshots to keep, 0 to 64, is expected"},
        {"autosnapshot 5x", "a number of snapshots to keep, 0 to 64, is expected"},
        {"default c", "there is no image of this name"},
    };
    static const char *const good[] = {"timeout 9",     "timeout 0",          "timeout 3600",
                                       "default a",     "autosnapshot 0",     "autosnapshot 64",
                                       "headroom 0",    "headroom 16777215T", "headroom 7K",
                                       "headroom 512M", "loader \\a b\\c#d",  "base " GUID_C " raw",
                                       "temporary no"};
    char text[256];

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        snprintf(text, sizeof(text), "image a\n%s\nimage b\n", bad[i].line);
        expect_bad(text, 2, bad[i].reason);
        assert_int_equal(parsed.entries_count, 2);
        assert_false(parsed.entries[0].has_partition || parsed.entries[0].has_base ||
                     parsed.entries[0].has_data || parsed.entries[0].is_readonly ||
                     parsed.entries[0].is_backing_off);
    }
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        snprintf(text, sizeof(text), "image a\n%s\n", good[i]);
        parse_text(text);
        assert_int_equal(parsed.bad_count, 0);
    }
}

static void a_base_is_not_the_image_itself(void **state)
{
    (void)state;
    expect_bad("image a\npartition " GUID_A "\nbase " GUID_A "\n", 3,
               "the base is the image's own partition");
    assert_false(parsed.entries[0].has_base);
    expect_bad("image a\nbase " GUID_A "\npartition " GUID_A "\n", 3,
               "the base is the image's own partition");
    assert_false(parsed.entries[0].has_base);
}

static void a_data_file_is_not_the_image_itself(void **state)
{
    (void)state;
    expect_bad("image a\npartition " GUID_A "\ndata " GUID_A "\n", 3,
               "the data file is the image's own partition");
    assert_false(parsed.entries[0].has_data);
    expect_bad("image a\ndata " GUID_A "\nbase " GUID_B "\npartition " GUID_A "\n", 4,
               "the data file is the image's own partition");
    assert_false(parsed.entries[0].has_data);
    assert_true(parsed.entries[0].has_base && parsed.entries[0].has_partition);
    expect_bad("image a\ndata " GUID_A "\nbase " GUID_A "\npartition " GUID_A "\n", 4,
               "the data file is the image's own partition");
    assert_false(parsed.entries[0].has_data || parsed.entries[0].has_base);
}

static void a_data_file_has_one_use(void **state)
{
    (void)state;
    parse_text("image a\nimage b\ndata " GUID_A "\nimage c\ndata " GUID_A "\n");
    assert_int_equal(parsed.bad_count, 0);
    assert_int_equal(config_data_number(&parsed, &bytes_a), 1);
    assert_int_equal(config_data_number(&parsed, &bytes_b), CONFIG_ENTRIES_MAX);
    parse_text("image b\ndata " GUID_A "\nimage c\npartition " GUID_A "\n");
    assert_int_equal(config_data_number(&parsed, &bytes_a), CONFIG_ENTRIES_MAX);
    parse_text("image b\ndata " GUID_A "\nimage c\nbase " GUID_A "\n");
    assert_int_equal(config_data_number(&parsed, &bytes_a), CONFIG_ENTRIES_MAX);
    assert_int_equal(config_base_number(&parsed, &bytes_a), 1);
}

static void a_key_is_given_once(void **state)
{
    (void)state;
    expect_bad("timeout 1\nimage a\ntimeout 2\n", 3, "the key was given before");
    expect_bad("image a\nbacking no\nbacking yes\n", 3, "the key was given before");
    assert_true(parsed.entries[0].is_backing_off);
    parse_text("image a\nbacking no\nimage b\nbacking yes\n");
    assert_int_equal(parsed.bad_count, 0);
    /* One that could not be used was not given. */
    expect_bad("image a\nreadonly 1\nreadonly yes\n", 2, "yes or no is expected");
    assert_true(parsed.entries[0].is_readonly);
    expect_bad("image a\nfile \\a\npartition " GUID_A, 3, "file and partition exclude each other");
    expect_bad("image a\npartition " GUID_A "\nfile \\a", 3,
               "file and partition exclude each other");
}

static void keys_of_a_refused_image_go_to_no_other(void **state)
{
    (void)state;
    expect_bad("image a\nimage a\nreadonly yes\n", 2, "there is an image of this name");
    assert_int_equal(parsed.entries_count, 1);
    assert_false(parsed.entries[0].is_readonly);
    expect_bad("image a\nimage b\nimage b\n", 3, "there is an image of this name");
    expect_bad("image a\nimage b c\nbacking no\nimage d\nreadonly yes\n", 2,
               "a name has no blanks");
    assert_int_equal(parsed.entries_count, 2);
    assert_false(parsed.entries[0].is_backing_off || parsed.entries[1].is_backing_off);
    assert_true(parsed.entries[1].is_readonly);
}

/* Where no boot program makes an overlay, nothing is written. */
static void what_is_temporary_is_kept(void **state)
{
    (void)state;
    parse_text("image b\ntemporary yes\nimage c\ntemporary yes\nreadonly no");
    assert_int_equal(parsed.bad_count, 0);
    for (unsigned i = 0; i < 2; i++)
        assert_true(parsed.entries[i].is_readonly && parsed.entries[i].is_temporary);
    parse_text("image b\ntemporary no\nreadonly yes\n");
    assert_true(parsed.entries[0].is_readonly && !parsed.entries[0].is_temporary);
}

static void what_is_written_is_known(void **state)
{
    static const bool is_written[] = {true, true, false, false, false};

    (void)state;
    parse_text("image a\nimage b\nreadonly no\nimage c\nreadonly yes\nimage d\nsnapshot s\n"
               "image e\ntemporary yes");
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(config_is_written(&parsed.entries[i]), is_written[i]);
    assert_true(config_is_written(NULL));
}

static void append(char *text, size_t size, const char *more)
{
    size_t len = strlen(text);

    assert_true(len + strlen(more) < size);
    strcpy(text + len, more);
}

static void limits_have_two_sides(void **state)
{
    static char text[2 * CONFIG_FILE_BYTES_MAX];
    char line[32];

    (void)state;
    text[0] = '\0';
    for (unsigned i = 0; i < CONFIG_ENTRIES_MAX; i++) {
        snprintf(line, sizeof(line), "image i%u\n", i);
        append(text, sizeof(text), line);
    }
    parse_text(text);
    assert_int_equal(parsed.entries_count, CONFIG_ENTRIES_MAX);
    assert_int_equal(parsed.bad_count, 0);
    append(text, sizeof(text), "image one-more\nreadonly yes\n");
    expect_bad(text, CONFIG_ENTRIES_MAX + 1, "more than 16 images");
    assert_false(parsed.entries[CONFIG_ENTRIES_MAX - 1].is_readonly);
    assert_null(config_entry_of(&parsed, &bytes_a));
    assert_int_equal(config_base_number(&parsed, &bytes_a), CONFIG_ENTRIES_MAX);

    parse_text("image 12345678901234567890123456789012");
    assert_int_equal(strlen(parsed.entries[0].name), CONFIG_NAME_BYTES_MAX);
    expect_bad("image 123456789012345678901234567890123", 1, "the name is longer than 32 bytes");

    memset(text, ' ', CONFIG_LINE_BYTES_MAX);
    memcpy(text, "image a", 7);
    parse(text, CONFIG_LINE_BYTES_MAX);
    assert_int_equal(parsed.entries_count, 1);
    parse(text, CONFIG_LINE_BYTES_MAX + 1);
    assert_int_equal(parsed.entries_count, 0);
    assert_string_equal(parsed.bad[0].reason, "the line is longer than 512 bytes");

    memcpy(text, "image a\nsnapshot ", 17);
    memset(text + 17, 'x', CONFIG_TEXT_BYTES_MAX);
    text[17 + CONFIG_TEXT_BYTES_MAX] = '\0';
    parse_text(text);
    assert_int_equal(parsed.bad_count, 0);
    assert_int_equal(strlen(parsed.entries[0].snapshot), CONFIG_TEXT_BYTES_MAX);
    append(text, sizeof(text), "x");
    expect_bad(text, 2, "the snapshot's name is longer than 255 bytes");

    memcpy(text, "image a\nfile \\", 14);
    memset(text + 14, 'x', CONFIG_TEXT_BYTES_MAX);
    text[13 + CONFIG_TEXT_BYTES_MAX] = '\0';
    parse_text(text);
    assert_int_equal(parsed.bad_count, 0);
    append(text, sizeof(text), "x");
    expect_bad(text, 2, "the path is longer than 255 bytes");

    memset(text, '\n', CONFIG_FILE_BYTES_MAX);
    memcpy(text + CONFIG_FILE_BYTES_MAX, "image a", 7);
    parse(text, CONFIG_FILE_BYTES_MAX + 7);
    assert_int_equal(parsed.entries_count, 0);
}

static void bad_lines_are_counted_beyond_those_kept(void **state)
{
    (void)state;
    parse_text("a\nb\nc\nd\ne\nf\ng\nh\ni\nj\na\nb\nc\nd\ne\nf\ng\nh\nimage k\n");
    assert_int_equal(parsed.bad_count, 18);
    assert_int_equal(parsed.bad[CONFIG_BAD_KEPT - 1].line, CONFIG_BAD_KEPT);
    assert_int_equal(parsed.entries_count, 1);
}

static void text_of_another_kind_is_told(void **state)
{
    static const char wide[] = "i\0m\0a\0g\0e\0 \0a\0\n";

    (void)state;
    parse(wide, sizeof(wide));
    assert_int_equal(parsed.entries_count, 0);
    assert_string_equal(parsed.bad[0].reason, "not plain text: save it as UTF-8");
    expect_bad("image a\rreadonly yes\n", 1, "not plain text: save it as UTF-8");
    expect_bad("image a\x1b[2J\n", 1, "not plain text: save it as UTF-8");
    expect_bad("image a\x7f\n", 1, "not plain text: save it as UTF-8");
}

static void entries_are_found(void **state)
{
    struct config_guid none = {{9}};

    (void)state;
    parse_text("image a\nbase " GUID_B "\nimage b\npartition " GUID_A "\nbase " GUID_B "\n"
               "image c\npartition " GUID_A "\nreadonly yes\nimage d\npartition " GUID_B "\n");
    assert_int_equal(parsed.bad_count, 0);
    assert_ptr_equal(config_entry_of(&parsed, &bytes_a), &parsed.entries[1]);
    assert_ptr_equal(config_entry_of(&parsed, &bytes_b), &parsed.entries[3]);
    assert_null(config_entry_of(&parsed, &none));
    assert_int_equal(config_base_number(&parsed, &bytes_b), 0);
    assert_int_equal(parsed.entries[0].base_format, QC_FORMAT_NONE);
    assert_int_equal(config_base_number(&parsed, &bytes_a), CONFIG_ENTRIES_MAX);
    parse_text("image a\nimage b\nbase " GUID_C "\nimage c\nbase " GUID_B "\n");
    assert_int_equal(config_base_number(&parsed, &bytes_b), 2);
    /* What was never given is no GUID of zeros. */
    parse_text("image a\nbase 00000000-0000-0000-0000-000000000000\nimage b\n"
               "partition 00000000-0000-0000-0000-000000000000\n");
    assert_int_equal(parsed.bad_count, 0);
    parse_text("image a\nimage b\nbase " GUID_C "\n");
    memset(&none, 0, sizeof(none));
    assert_null(config_entry_of(&parsed, &none));
    assert_int_equal(config_base_number(&parsed, &none), CONFIG_ENTRIES_MAX);
}

/* Words of the language and bytes of none, in any order: whatever comes out keeps its limits. */
static void any_bytes_are_survived(void **state)
{
    static const char *const words[] = {
        "image ",    "partition ", "base ",    GUID_A,       GUID_B,
        "\n",        " ",          "\t",       "#",          "\r\n",
        "readonly ", "yes",        "no",       "raw",        "\\x",
        "file ",     "loader ",    "timeout ", "3",          "headroom ",
        "2G",        "a",          "b",        "\xff",       "\xef\xbb\xbf",
        "snapshot ", "data ",      "default ", "temporary ", "autosnapshot ",
    };
    uint64_t dice = 0x71636f7732;
    char text[512];

    (void)state;
    for (unsigned round = 0; round < 20000; round++) {
        size_t len = 0;

        for (unsigned i = 0; i < 24; i++) {
            const char *word;

            dice = dice * UINT64_C(6364136223846793005) + 1442695040888963407;
            if ((dice >> 60) == 0) {
                text[len++] = (char)(dice >> 40);
                continue;
            }
            word = words[(dice >> 33) % (sizeof(words) / sizeof(words[0]))];
            if (len + strlen(word) > sizeof(text) - 1)
                break;
            memcpy(text + len, word, strlen(word));
            len += strlen(word);
        }
        parse(text, len);
        assert_true(parsed.entries_count <= CONFIG_ENTRIES_MAX);
        assert_true(parsed.default_number < parsed.entries_count || parsed.default_number == 0);
        for (unsigned i = 0; i < parsed.entries_count; i++) {
            assert_true(strlen(parsed.entries[i].name) > 0);
            assert_false(parsed.entries[i].has_file && parsed.entries[i].has_partition);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_file_is_understood),
        cmocka_unit_test(nothing_is_a_file_too),
        cmocka_unit_test(a_comment_begins_behind_a_blank),
        cmocka_unit_test(a_bad_line_is_named_and_the_rest_counts),
        cmocka_unit_test(values_are_checked),
        cmocka_unit_test(a_base_is_not_the_image_itself),
        cmocka_unit_test(a_data_file_is_not_the_image_itself),
        cmocka_unit_test(a_data_file_has_one_use),
        cmocka_unit_test(a_key_is_given_once),
        cmocka_unit_test(keys_of_a_refused_image_go_to_no_other),
        cmocka_unit_test(what_is_temporary_is_kept),
        cmocka_unit_test(what_is_written_is_known),
        cmocka_unit_test(limits_have_two_sides),
        cmocka_unit_test(bad_lines_are_counted_beyond_those_kept),
        cmocka_unit_test(text_of_another_kind_is_told),
        cmocka_unit_test(entries_are_found),
        cmocka_unit_test(any_bytes_are_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
