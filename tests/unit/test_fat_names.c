/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Names and folders of FAT volumes that are built here entry by entry: short and long names, parts
 * of long ones that belong to nobody, folders that ring, lead away or never end.
 */
#include "opened_volume.h"

#define LABEL 0x08u

/* ---- names ------------------------------------------------------------------------------- */

static void short_names(void **state)
{
    static const struct {
        const char *path;
        uint32_t cluster; /* 0: not found */
    } cases[] = {{"FILE.BIN", 3},  {"\\file.bin", 3},   {"//File.Bin", 3},  {"NOEXT", 4},
                 {"noext.", 4},    {"FILE.BI", 0},      {"FILE.BINX", 0},   {"FILEX.BIN", 0},
                 {"FILE BIN", 0},  {"FILE .BIN", 0},    {"FILE.B.N", 0},    {".BIN", 0},
                 {"LONGNAMEX", 0}, {"LONGNAME.EXT", 5}, {"FILE.BIN/", 3},   {"FILE.BIN/A", 0},
                 {"FILE", 0},      {"GONE.BIN", 0},     {"\xE5ONE.BIN", 0}, {"VOLUME", 0},
                 {"LAST", 0}};
    uint64_t content_off;

    (void)state;
    start(3000);
    content_off = volume_cluster_off(&volume, 3); /* a file's, whose content looks like entries */
    volume_entry(&volume, &entry_off, "VOLUME     ", LABEL, 0, 0);
    volume_entry(&volume, &entry_off, "\xE5ONE    BIN", 0x20, 9, 1);
    volume_entry(&volume, &entry_off, FILE_NAME, 0x20, 3, 1);
    volume_entry(&volume, &entry_off, "NOEXT      ", 0x01, 4, 1);
    volume_entry(&volume, &entry_off, "LONGNAMEEXT", 0x20, 5, 1);
    entry_off += 32; /* the end */
    volume_entry(&volume, &entry_off, "LAST       ", 0x20, 6, 1);
    volume_entry(&volume, &content_off, "A          ", 0x20, 6, 1);
    assert_int_equal(open_volume(), QC_OK);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        qc_status status = find(cases[i].path);

        if (status != (cases[i].cluster ? QC_OK : QC_RANGE) ||
            (status == QC_OK && file.cluster != cases[i].cluster))
            fail_msg("%s: %d", cases[i].path, status);
    }
}

static unsigned widen(uint16_t *units, const char *text)
{
    unsigned count = 0;

    for (; text[count] != '\0'; count++)
        units[count] = (uint8_t)text[count];
    return count;
}

/* Every length there is, around the parts of 13 most of all. */
static void long_names(void **state)
{
    static uint16_t units[255];
    static char path[257];
    unsigned length;

    (void)state;
    for (length = 1; length <= 255; length += length > 40 && length < 245 ? 13 : 1) {
        start(5000);
        for (unsigned i = 0; i < length; i++) {
            units[i] = (uint16_t)(i % 2 ? 'a' + i % 26 : '0' + i % 10);
            path[i] = (char)(i % 2 ? 'A' + i % 26 : '0' + i % 10);
        }
        path[length] = '\0';
        volume_long(&volume, &entry_off, units, length, "NAME~1     ");
        volume_entry(&volume, &entry_off, "NAME~1     ", 0x20, 7, 1);
        assert_int_equal(open_volume(), QC_OK);
        assert_int_equal(find(path), QC_OK);
        assert_int_equal(find("name~1"), QC_OK);
        assert_int_equal(file.entry_off, entry_off - 32);
        path[length] = 'x';
        path[length + 1] = '\0';
        assert_int_equal(find(path), QC_RANGE);
        path[length - 1] = '\0';
        assert_int_equal(find(path), length == 1 ? QC_REFUSED : QC_RANGE);
        path[length - 1] = '#';
        path[length] = '\0';
        assert_int_equal(find(path), QC_RANGE);
    }
}

static void names_beyond_ascii(void **state)
{
    /* e with acute accent, the euro sign, and a character of two units. */
    static const uint16_t units[] = {0xE9, 0x20AC, 0xD83D, 0xDE00, '.', 'q'};
    static const char *const wrong[] = {
        "\xC3\x89\xE2\x82\xAC\xF0\x9F\x98\x80.q", /* no folding beyond ASCII */
        "\xE9\xE2\x82\xAC\xF0\x9F\x98\x80.q",     /* no UTF-8 */
        "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98",       /* cut */
        "\xC3\xA9\xE2\x82\xAC\x80.q",
        "\xC3\xA9\xF0\x82\x82\xAC\xF0\x9F\x98\x80.q", /* longer than need be */
        "\xC3\xA9\xF7\xBF\xBF\xBF\xFF\xFE",
    };

    (void)state;
    start(3000);
    volume_long(&volume, &entry_off, units, 6, "_       Q  ");
    volume_entry(&volume, &entry_off, "_       Q  ", 0x20, 7, 1);
    assert_int_equal(open_volume(), QC_OK);
    assert_int_equal(find("\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80.Q"), QC_OK);
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        assert_int_equal(find(wrong[i]), QC_RANGE);
}

/* Parts that are not this short name's, or not all of them: the long name is nobody's. */
static void broken_long_names(void **state)
{
    static const struct {
        unsigned place; /* from the first of three parts */
        uint8_t value;
    } cases[] = {{0, 0x42},  {0, 0x44},  {0, 0x03},      {0, 0xE5},      {32, 0x01},
                 {32, 0x42}, {32, 0xE5}, {13, 0},        {32 + 13, 0},   {64 + 13, 0},
                 {64, 0x02}, {1, 'x'},   {32 + 14, 'x'}, {64 + 30, 'x'}, {64 + 31, 'x'},
                 {0, 0x40},  {3, 1}};
    static const char path[] = "a long name of three parts.ext";
    uint16_t units[40];
    unsigned count = widen(units, path);

    (void)state;
    for (unsigned i = 0; i <= sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t first;

        start(3000);
        first = entry_off;
        volume_long(&volume, &entry_off, units, count, "ALONGN~1EXT");
        assert_int_equal(entry_off, first + 96);
        if (i > 0)
            volume.bytes[first + cases[i - 1].place] = cases[i - 1].value;
        volume_entry(&volume, &entry_off, "ALONGN~1EXT", 0x20, 7, 1);
        assert_int_equal(open_volume(), QC_OK);
        if (find(path) != (i == 0 ? QC_OK : QC_RANGE))
            fail_msg("case %u", i);
        assert_int_equal(find("ALONGN~1.EXT"), QC_OK);
    }
}

/* Only two of three parts are there, or all have another name's sum. */
static void missing_parts(void **state)
{
    static const struct {
        unsigned first, second, sum_change;
        qc_status status;
    } cases[] = {{0, 0, 0, QC_OK},
                 {0, 2, 0, QC_RANGE},
                 {0, 1, 0, QC_RANGE},
                 {0, 0, 1, QC_RANGE},
                 {1, 2, 0, QC_RANGE}};
    static const char path[] = "a long name of three parts.ext";
    uint16_t units[40];
    unsigned count = widen(units, path);

    (void)state;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint8_t parts[96], *to;

        start(3000);
        to = volume.bytes + entry_off;
        volume_long(&volume, &entry_off, units, count, "ALONGN~1EXT");
        for (unsigned j = 0; j < 3; j++)
            to[32 * j + 13] = (uint8_t)(to[32 * j + 13] + cases[i].sum_change);
        if (cases[i].second != 0) {
            memcpy(parts, to, sizeof(parts));
            memcpy(to, parts + (size_t)32 * cases[i].first, 32);
            memcpy(to + 32, parts + (size_t)32 * cases[i].second, 32);
            entry_off -= 32;
        }
        volume_entry(&volume, &entry_off, "ALONGN~1EXT", 0x20, 7, 1);
        assert_int_equal(open_volume(), QC_OK);
        if (find(path) != cases[i].status)
            fail_msg("case %u", i);
        assert_int_equal(find("ALONGN~1.EXT"), QC_OK);
    }
}

static void a_long_name_is_for_the_next_entry(void **state)
{
    static const char gone[] = "\xE5THER      ";
    uint16_t units[40];
    unsigned count = widen(units, "longer than eight");

    (void)state;
    start(3000);
    volume_long(&volume, &entry_off, units, count, gone);
    volume_entry(&volume, &entry_off, gone, 0x20, 7, 1);
    volume_entry(&volume, &entry_off, FILE_NAME, 0x20, 8, 1);
    assert_int_equal(open_volume(), QC_OK);
    assert_int_equal(find("longer than eight"), QC_RANGE);
    assert_int_equal(find(PATH), QC_OK);
}

/* ---- directories ------------------------------------------------------------------------- */

static void folders(void **state)
{
    static char deep[3 * 70] = "";

    (void)state;
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        uint32_t last = sizes[i] + 1;
        uint64_t off;

        start(sizes[i]);
        volume_entry(&volume, &entry_off, "A          ", DIRECTORY, 10, 0);
        volume_chain(&volume, (const uint32_t[]){10, last, 12, 0});
        off = volume_cluster_off(&volume, 10);
        volume_entry(&volume, &off, ".          ", DIRECTORY, 10, 0);
        volume_entry(&volume, &off, "..         ", DIRECTORY, 0, 0);
        for (unsigned j = 2; j < CLUSTER / 32; j++)
            volume_entry(&volume, &off, "X          ", 0x20, 20, 0);
        off = volume_cluster_off(&volume, last);
        for (unsigned j = 0; j < CLUSTER / 32; j++)
            volume_entry(&volume, &off, "Y          ", 0x20, 21, 0);
        off = volume_cluster_off(&volume, 12);
        volume_entry(&volume, &off, "A          ", DIRECTORY, 10, 0); /* a ring */
        volume_entry(&volume, &off, FILE_NAME, 0x20, 30, 77);
        assert_int_equal(open_volume(), QC_OK);
        assert_int_equal(find("a\\file.bin"), QC_OK);
        assert_int_equal(file.entry_off, off - 32);
        assert_int_equal(file.cluster, 30);
        assert_int_equal(file.size_bytes, 77);
        assert_int_equal(find("a/a/a/a/y"), QC_OK);
        assert_int_equal(find("a"), QC_REFUSED);
        assert_int_equal(find("a/a/"), QC_REFUSED);
        assert_int_equal(find(""), QC_REFUSED);
        assert_int_equal(find("\\"), QC_REFUSED);
        assert_int_equal(find("a/b"), QC_RANGE);
        assert_int_equal(find("a/x/y"), QC_RANGE);
        assert_int_equal(find("a/./x"), QC_RANGE);
        assert_int_equal(find("a/../a/x"), QC_RANGE);
    }
    for (unsigned i = 0; i < QC_FAT_DEPTH_MAX - 1; i++)
        strcat(deep, "a/");
    strcat(deep, "x");
    assert_int_equal(find(deep), QC_OK);
    memmove(deep + 2, deep, strlen(deep) + 1);
    assert_int_equal(find(deep), QC_RANGE);
}

static void a_root_over_several_clusters(void **state)
{
    (void)state;
    volume_init(&volume, VOLUME_BYTES_MAX);
    volume.root_cluster = 65537;
    volume_format(&volume, 65600);
    volume_chain(&volume, (const uint32_t[]){65537, 70, 0});
    entry_off = volume_cluster_off(&volume, 65537);
    for (unsigned i = 0; i < CLUSTER / 32; i++)
        volume_entry(&volume, &entry_off, "X          ", 0x20, 20, 0);
    entry_off = volume_cluster_off(&volume, 70);
    volume_entry(&volume, &entry_off, FILE_NAME, 0x20, 65540, 5);
    assert_int_equal(open_volume(), QC_OK);
    assert_int_equal(find(PATH), QC_OK);
    assert_int_equal(file.cluster, 65540);
    for (unsigned i = 1; i < CLUSTER / 32; i++)
        volume_entry(&volume, &entry_off, "X          ", 0x20, 20, 0);
    assert_int_equal(find("NOT.HER"), QC_RANGE); /* full to the end of the chain */
}

static void a_full_root(void **state)
{
    (void)state;
    start(3000);
    for (unsigned i = 0; i < 512; i++)
        volume_entry(&volume, &entry_off, i < 511 ? "X          " : FILE_NAME, 0x20, 20, 0);
    assert_int_equal(open_volume(), QC_OK);
    assert_int_equal(find(PATH), QC_OK);
    assert_int_equal(find("NOT.HER"), QC_RANGE);
}

static void broken_folders(void **state)
{
    static const uint32_t starts[] = {0, 1, 3002, 0xFFFF};

    (void)state;
    for (unsigned i = 0; i < sizeof(starts) / sizeof(starts[0]); i++) {
        start(3000);
        volume_entry(&volume, &entry_off, "A          ", DIRECTORY, starts[i], 0);
        assert_int_equal(open_volume(), QC_OK);
        assert_int_equal(find("a/b"), QC_CORRUPT);
    }
    for (unsigned i = 0; i < 3; i++) { /* nothing, a bad cluster, a ring of full clusters */
        start(3000);
        volume_entry(&volume, &entry_off, "A          ", DIRECTORY, 10, 0);
        entry_off = volume_cluster_off(&volume, 10);
        for (unsigned j = 0; j < CLUSTER / 32; j++)
            volume_entry(&volume, &entry_off, "X          ", 0x20, 20, 0);
        volume_link(&volume, 10, i == 0 ? 0 : i == 1 ? 0xFF7 : 10);
        assert_int_equal(open_volume(), QC_OK);
        assert_int_equal(find("a/b"), QC_CORRUPT);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_names),
        cmocka_unit_test(long_names),
        cmocka_unit_test(names_beyond_ascii),
        cmocka_unit_test(broken_long_names),
        cmocka_unit_test(missing_parts),
        cmocka_unit_test(a_long_name_is_for_the_next_entry),
        cmocka_unit_test(folders),
        cmocka_unit_test(a_root_over_several_clusters),
        cmocka_unit_test(a_full_root),
        cmocka_unit_test(broken_folders),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
