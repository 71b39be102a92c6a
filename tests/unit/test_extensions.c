/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Header extensions: what is passed over, what is refused, and that a hostile list ends.
 */
#include "support.h"

#define HEADER_BYTES 112u
#define CLUSTER      65536u

struct list {
    struct rig *rig;
    uint64_t off;
};

static struct list begin(void **state)
{
    struct list list = {*state, HEADER_BYTES};

    rig_build(list.rig, 3, 16, UINT64_C(1) << 30, 2);
    return list;
}

/* Adds an extension and returns where its data lie. */
static uint8_t *add(struct list *list, uint32_t type, uint32_t len)
{
    uint8_t *bytes = list->rig->disk.bytes + list->off;

    put_be32(bytes, type);
    put_be32(bytes + 4, len);
    list->off += 8 + ((len + 7) & ~UINT64_C(7));
    return bytes + 8;
}

/* count, zero, directory size and offset of the bitmaps extension. */
static void put_bitmaps(uint8_t *data, uint32_t count, uint32_t zero, uint64_t size, uint64_t off)
{
    put_be32(data, count);
    put_be32(data + 4, zero);
    put_be64(data + 8, size);
    put_be64(data + 16, off);
}

static void set_unknown_bit(struct list *list, unsigned bit)
{
    put_be64(list->rig->disk.bytes + 72, UINT64_C(1) << bit);
}

static void unknown_extensions_are_passed_over(void **state)
{
    struct list list = begin(state);

    memset(add(&list, 0x12345678, 13), 0xff, 13);
    add(&list, 0x12345678, 0);
    memcpy(add(&list, 0xe2792aca, 5), "qcow2", 5);
    add(&list, 0x44415441, 9);
    rig_expect(list.rig, QC_OK, "");
}

static void length_is_bounded_by_the_cluster(void **state)
{
    struct list list = begin(state);

    add(&list, 0x12345678, CLUSTER - HEADER_BYTES - 8);
    rig_expect(list.rig, QC_OK, "");
    put_be32(list.rig->disk.bytes + HEADER_BYTES + 4, CLUSTER - HEADER_BYTES - 7);
    rig_expect(list.rig, QC_CORRUPT, "header extension 0x12345678 invalid");
    put_be32(list.rig->disk.bytes + HEADER_BYTES + 4, UINT32_MAX);
    rig_expect(list.rig, QC_CORRUPT, "header extension 0x12345678 invalid");
}

static void area_ends_at_the_backing_name(void **state)
{
    struct list list = begin(state);

    put_be64(list.rig->disk.bytes + 8, HEADER_BYTES + 16);
    add(&list, 0x12345678, 8);
    add(&list, 0x12345678, UINT32_MAX); /* these bytes are the name, not an extension */
    rig_expect(list.rig, QC_OK, "");
    put_be32(list.rig->disk.bytes + HEADER_BYTES + 4, 9);
    rig_expect(list.rig, QC_CORRUPT, "header extension 0x12345678 invalid");
}

/* QEMU opens none of these. */
static void the_end_is_whole(void **state)
{
    struct list list = begin(state);

    put_be32(add(&list, 0, CLUSTER - HEADER_BYTES - 8), 1); /* what follows is not looked at */
    rig_expect(list.rig, QC_OK, "");
    put_be32(list.rig->disk.bytes + HEADER_BYTES + 4, CLUSTER - HEADER_BYTES - 7);
    rig_expect(list.rig, QC_CORRUPT, "header extension 0x0 invalid");
    for (unsigned len = 0; len <= 8; len++) {
        put_be32(list.rig->disk.bytes + HEADER_BYTES + 4, 0);
        put_be64(list.rig->disk.bytes + 8, HEADER_BYTES + len);
        if (len == 0 || len == 8)
            rig_expect(list.rig, QC_OK, "");
        else
            rig_expect(list.rig, QC_CORRUPT, "header extension at 0x70 cut off");
    }
}

static void known_extensions_come_once(void **state)
{
    static const uint32_t known[] = {0xe2792aca, 0x6803f857, 0x44415441};

    for (unsigned i = 0; i < 3; i++) {
        struct list list = begin(state);
        char line[QC_DETAIL_BYTES];

        add(&list, known[i], 8);
        rig_expect(list.rig, QC_OK, "");
        add(&list, known[i], 8);
        snprintf(line, sizeof(line), "header extension 0x%x invalid", known[i]);
        rig_expect(list.rig, QC_CORRUPT, line);
    }
}

static void format_name_is_short(void **state)
{
    struct list list = begin(state);

    add(&list, 0xe2792aca, 16);
    rig_expect(list.rig, QC_CORRUPT, "header extension 0xe2792aca invalid");
    put_be32(list.rig->disk.bytes + HEADER_BYTES + 4, 15);
    rig_expect(list.rig, QC_OK, "");
}

static void luks_pointer_needs_encryption(void **state)
{
    struct list list = begin(state);

    add(&list, 0x0537be77, 16);
    rig_expect(list.rig, QC_CORRUPT, "header extension 0x537be77 invalid");
}

static void at_most_32_extensions(void **state)
{
    struct list list = begin(state);

    for (unsigned i = 0; i < 32; i++)
        add(&list, 0x1000 + i, 0);
    rig_expect(list.rig, QC_OK, "");
    add(&list, 0x2000, 0);
    rig_expect(list.rig, QC_UNSUPPORTED, "more than 32 header extensions");
}

static void extensions_far_apart_cost_a_page_each(void **state)
{
    struct list list = begin(state);

    for (unsigned i = 0; i < 15; i++)
        add(&list, 0x1000 + i, 4096 - 8);
    rig_expect(list.rig, QC_OK, "");
    assert_in_range(list.rig->disk.reads_count, 15, 17);
}

/*
 * As many as may be, each across a page's end; the last are bitmaps, a format and a name to look
 * up; and snapshots whose entries are as long as the format lets them be.
 */
static void worst_image_is_opened_in_time(void **state)
{
    struct list list = {*state, HEADER_BYTES};
    uint32_t cluster = 1u << 19, entry_len = 40 + 1024 + 2 * UINT16_MAX + 2;
    uint8_t *bytes = list.rig->disk.bytes;

    rig_build(list.rig, 3, 19, 512, 2);
    add(&list, 0x1000, 4096 - HEADER_BYTES - 8 - 4);
    for (unsigned i = 1; i < 30; i++)
        add(&list, 0x1000, 3 * 4096 - 8);
    put_bitmaps(add(&list, 0x23852875, 24), 9, 0, 9 * 32, 4 * cluster);
    for (unsigned i = 0; i < 9; i++) {
        uint8_t *entry = bytes + 4 * cluster + i * 32;

        put_be64(entry, 5 * cluster);
        put_be64(entry + 8, UINT64_C(1) << 32);
        put_be32(entry + 16, 1 << 24 | 16 << 16 | 2);
        put_be64(entry + 20, 0);
    }
    memcpy(add(&list, 0xe2792aca, 5), "qcow2", 5);
    put_be64(bytes + 88, QC_AUTOCLEAR_BITMAPS);
    put_be64(bytes + 64, 5 * cluster);
    put_be32(bytes + 60, 7);
    for (unsigned i = 0; i < 7; i++) {
        uint8_t *entry = bytes + 5 * cluster + i * entry_len;

        memset(entry, 0, 40);
        put_be32(entry + 12, UINT32_MAX);
        put_be32(entry + 36, 1024);
    }
    rig_expect(list.rig, QC_OK, "");
    assert_string_equal(qc_readonly_reason(&list.rig->image), "");
    assert_in_range(list.rig->disk.reads_count, 46, 64);
}

static void unreadable_extensions_are_an_io_error(void **state)
{
    struct list list = begin(state);

    add(&list, 0x1000, 8192);
    list.rig->disk.fail_at = 2;
    assert_int_equal(rig_open(list.rig), QC_IO);
    assert_string_equal(qc_detail(&list.rig->image), "header extensions cannot be read");
}

static void bitmaps_are_checked_while_their_bit_is_set(void **state)
{
    static const struct {
        uint32_t count, zero;
        uint64_t size, off;
        bool is_good;
    } cases[] = {
        {1, 0, 32, 5 * CLUSTER, true},
        {65535, 0, 2 * CLUSTER, 5 * CLUSTER, true},
        {0, 0, 32, 5 * CLUSTER, false},
        {65536, 0, 32, 5 * CLUSTER, false},
        {1, 1, 32, 5 * CLUSTER, false},
        {1, 0, 0, 5 * CLUSTER, false},
        {1, 0, 64 * 1024 * 1024 + 1, 5 * CLUSTER, false},
        {1, 0, 32, 0, false},
        {1, 0, 32, 5 * CLUSTER + 512, false},
        {1, 0, 32, 7 * CLUSTER, false},
        {1, 0, UINT64_MAX, 5 * CLUSTER, false},
        {1, 0, 32, UINT64_MAX - 65535, false},
    };

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct list list = begin(state);

        put_bitmaps(add(&list, 0x23852875, 24), cases[i].count, cases[i].zero, cases[i].size,
                    cases[i].off);
        rig_expect(list.rig, QC_OK, ""); /* the bit is clear: nobody trusts the extension */
        put_be64(list.rig->disk.bytes + 88, QC_AUTOCLEAR_BITMAPS);
        if (cases[i].is_good)
            rig_expect(list.rig, QC_OK, "");
        else
            rig_expect(list.rig, QC_CORRUPT, "header extension 0x23852875 invalid");
    }
}

static void bitmaps_extension_has_one_size(void **state)
{
    struct list list = begin(state);

    add(&list, 0x23852875, 32);
    rig_expect(list.rig, QC_CORRUPT, "header extension 0x23852875 invalid");
}

static void unknown_feature_is_named_from_the_table(void **state)
{
    struct list list = begin(state);
    uint8_t *table = add(&list, 0x6803f857, 3 * 48);

    table[0] = 1; /* a compatible bit of the same number is not meant */
    table[1] = 5;
    memcpy(table + 2, "wrong kind", 10);
    table[48 + 1] = 6;
    memcpy(table + 48 + 2, "wrong bit", 9);
    table[96 + 1] = 5;
    memset(table + 96 + 2, 'x', 46);
    memcpy(table + 96 + 2, "time\ttravel", 11);
    rig_expect(list.rig, QC_OK, "");
    set_unknown_bit(&list, 5);
    rig_expect(
        list.rig, QC_UNSUPPORTED,
        "unknown incompatible feature bit 5 (time?travelxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx)");
    set_unknown_bit(&list, 7);
    rig_expect(list.rig, QC_UNSUPPORTED, "unknown incompatible feature bit 7");
}

static void unknown_feature_is_refused_before_other_fields(void **state)
{
    struct list list = begin(state);

    set_unknown_bit(&list, 63);
    put_be64(list.rig->disk.bytes + 40, 1);
    put_be32(list.rig->disk.bytes + 32, 77);
    rig_expect(list.rig, QC_UNSUPPORTED, "unknown incompatible feature bit 63");
    put_be64(list.rig->disk.bytes + 8, UINT64_MAX); /* nor is a wild backing offset followed */
    rig_expect(list.rig, QC_UNSUPPORTED, "unknown incompatible feature bit 63");
}

static void small_clusters_have_extensions_too(void **state)
{
    struct rig *rig = *state;

    rig_build(rig, 3, 9, 512, 1);
    put_be32(rig->disk.bytes + HEADER_BYTES, 0x12345678);
    put_be32(rig->disk.bytes + HEADER_BYTES + 4, 512 - HEADER_BYTES - 8);
    rig_expect(rig, QC_OK, "");
    put_be32(rig->disk.bytes + HEADER_BYTES + 4, 512 - HEADER_BYTES - 7);
    rig_expect(rig, QC_CORRUPT, "header extension 0x12345678 invalid");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(unknown_extensions_are_passed_over),
        RIG_TEST(length_is_bounded_by_the_cluster),
        RIG_TEST(area_ends_at_the_backing_name),
        RIG_TEST(the_end_is_whole),
        RIG_TEST(known_extensions_come_once),
        RIG_TEST(format_name_is_short),
        RIG_TEST(luks_pointer_needs_encryption),
        RIG_TEST(at_most_32_extensions),
        RIG_TEST(extensions_far_apart_cost_a_page_each),
        RIG_TEST(worst_image_is_opened_in_time),
        RIG_TEST(unreadable_extensions_are_an_io_error),
        RIG_TEST(bitmaps_are_checked_while_their_bit_is_set),
        RIG_TEST(bitmaps_extension_has_one_size),
        RIG_TEST(unknown_feature_is_named_from_the_table),
        RIG_TEST(unknown_feature_is_refused_before_other_fields),
        RIG_TEST(small_clusters_have_extensions_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
