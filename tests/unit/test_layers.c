/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Images over other images: what shows through, and what a write copies of it and what it leaves.
 * Layers below are disks that fail the test when anything but a read reaches them. How layers are
 * found is test_bases.c's.
 */
#include "content.h"

#define COPIED  (UINT64_C(1) << 63)
#define ZERO    UINT64_C(1)
#define CLUSTER 4096u
#define GUEST   (64u * CLUSTER)

static struct mem_disk disks[QC_LAYERS_MAX]; /* by depth; 0 is not used */
static struct mem_layers layers;
static uint8_t buf[GUEST];

/* An empty image of 64 clusters of 4 KiB, over a layer of the format. */
static struct rig *overlay(void **state, uint32_t version, const char *format)
{
    struct rig *rig = *state;

    rig_build(rig, version, 12, GUEST, 0);
    image_set_below(&rig->disk, "base", format);
    layers_init(&layers);
    for (unsigned i = 1; i < QC_LAYERS_MAX; i++)
        layers.disks[i] = &disks[i];
    rig->options.bases = &layers.bases;
    content_begin(GUEST);
    return rig;
}

/* A layer of guest_bytes whose first four clusters are mapped to its data; the rest is nothing. */
static void build_qcow2(unsigned depth, unsigned cluster_bits, uint64_t guest_bytes)
{
    struct mem_disk *disk = &disks[depth];

    memset(disk, 0, sizeof(*disk));
    image_build(disk, 3, cluster_bits, guest_bytes, 8);
    for (unsigned i = 0; i < 4; i++)
        image_set_l2(disk, i, ((uint64_t)(AT_DATA + i) << cluster_bits) | COPIED);
    disk->disk.readonly = true;
}

/* A raw layer: a pattern in its first half, then zeros. */
static void build_raw(unsigned depth, uint64_t bytes)
{
    struct mem_disk *disk = &disks[depth];

    build_qcow2(depth, 12, GUEST);
    for (uint64_t i = 0; i < MEM_DISK_BYTES; i++)
        disk->bytes[i] = i < GUEST / 2 ? pattern_at(i) : i < bytes ? 0 : 0xee;
    disk->disk.size_bytes = bytes;
}

/* An overlay over a raw layer of so many bytes, opened; expected is what shows. */
static struct rig *over_raw(void **state, uint32_t version, uint64_t bytes)
{
    struct rig *rig = overlay(state, version, "raw");

    build_raw(1, bytes);
    memcpy(expected, disks[1].bytes, bytes < GUEST ? bytes : GUEST);
    rig_open_ok(rig);
    return rig;
}

static void expect_extent(struct rig *rig, uint64_t guest_off, enum qc_extent_kind kind,
                          unsigned depth, uint64_t len, uint64_t host_off)
{
    struct qc_extent extent;

    assert_int_equal(qc_map(&rig->image, guest_off, GUEST - guest_off, &extent), QC_OK);
    assert_int_equal(extent.kind, kind);
    assert_true(extent.len == len);
    if (kind == QC_EXTENT_DATA)
        assert_true(extent.depth == depth && extent.host_off == host_off);
}

/* ---- what shows ---- */

/* So many layers below, each with one cluster of its own that all others leave open. */
static struct rig *chain(void **state, unsigned depth)
{
    struct rig *rig = overlay(state, 3, "qcow2");

    for (unsigned i = 1; i <= depth && i < QC_LAYERS_MAX; i++) {
        memset(&disks[i], 0, sizeof(disks[i]));
        image_build(&disks[i], 3, 12, GUEST, 1);
        memset(disks[i].bytes + AT_DATA * CLUSTER, (int)i, CLUSTER);
        image_set_l2(&disks[i], i, AT_DATA * CLUSTER | COPIED);
        if (i < depth)
            image_set_below(&disks[i], "base", "qcow2");
        disks[i].disk.readonly = true;
        memset(expected + i * CLUSTER, (int)i, CLUSTER);
    }
    return rig;
}

static void chains_show_each_layer(void **state)
{
    for (unsigned depth = 1; depth < QC_LAYERS_MAX; depth++) {
        struct rig *rig = chain(state, depth);

        rig_open_ok(rig);
        assert_int_equal(layers.asked_count, depth);
        assert_int_equal(rig->image.layers_count, depth + 1);
        expect_content(rig);
        expect_extent(rig, 0, QC_EXTENT_UNALLOCATED, 0, CLUSTER, 0);
        for (unsigned i = 1; i <= depth; i++)
            expect_extent(rig, i * CLUSTER, QC_EXTENT_DATA, i, CLUSTER, AT_DATA * CLUSTER);
        write_ok(rig, 512, (depth + 1) * CLUSTER, depth);
        expect_durable(rig);
    }
}

static void deeper_chains_are_refused(void **state)
{
    struct rig *rig = chain(state, QC_LAYERS_MAX);

    rig_expect(rig, QC_REFUSED, "layer 7: backing name refused: more than 8 layers");
    assert_int_equal(layers.asked_count, QC_LAYERS_MAX - 1);
}

/* The guest's end is the image's, whatever a layer's is. */
static void layers_may_be_shorter_and_longer(void **state)
{
    static const uint64_t sizes[] = {512,          CLUSTER - 512,   3 * CLUSTER + 512,
                                     40 * CLUSTER, GUEST - 512,     GUEST,
                                     GUEST + 512,  GUEST + CLUSTER, MEM_DISK_BYTES};

    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct rig *rig = over_raw(state, 3, sizes[i]);
        uint64_t shown = sizes[i] < GUEST ? sizes[i] : GUEST;

        expect_content(rig);
        expect_extent(rig, 0, QC_EXTENT_DATA, 1, shown, 0);
        if (shown < GUEST)
            expect_extent(rig, shown, QC_EXTENT_UNALLOCATED, 0, GUEST - shown, 0);
        write_ok(rig, shown - 512, 512, i);
        if (shown + 512 <= GUEST)
            write_ok(rig, shown, 512, i + 1);
        expect_durable(rig);
    }
}

static void raw_layers_may_have_any_size(void **state)
{
    static const uint64_t sizes[] = {1, 511, 513, CLUSTER + 1, 5 * CLUSTER - 1};

    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct rig *rig = over_raw(state, 3, sizes[i]);

        expect_content(rig); /* zeros behind the last byte, within its sector too */
        write_ok(rig, 7 * CLUSTER, 512, i);
        write_ok(rig, 1024, 512, i);
        expect_durable(rig);
    }
}

/* What ends is the layer, not what it says nothing of: nothing of a deeper one shows behind it. */
static void ends_hide_what_is_deeper(void **state)
{
    struct rig *rig = overlay(state, 3, "qcow2");

    build_qcow2(1, 12, 6 * CLUSTER + 1536);
    image_set_below(&disks[1], "raw", "raw");
    build_raw(2, GUEST);
    memcpy(expected, disks[1].bytes + AT_DATA * CLUSTER, 4 * CLUSTER);
    memcpy(expected + 4 * CLUSTER, disks[2].bytes + 4 * CLUSTER, 2 * CLUSTER + 1536);
    rig_open_ok(rig);
    expect_content(rig);
    expect_extent(rig, 0, QC_EXTENT_DATA, 1, 4 * CLUSTER, AT_DATA * CLUSTER);
    expect_extent(rig, 4 * CLUSTER, QC_EXTENT_DATA, 2, 2 * CLUSTER + 1536, 4 * CLUSTER);
    write_ok(rig, 6 * CLUSTER + 1024, 1024, 1);
    expect_durable(rig);
}

/* Zeros and data of the layer below may lie in one cluster of the image. */
static void clusters_may_differ_in_size(void **state)
{
    static const unsigned bits[] = {9, 10, 14, 16};

    for (unsigned i = 0; i < sizeof(bits) / sizeof(bits[0]); i++) {
        struct rig *rig = overlay(state, 2 + i % 2, "qcow2");
        uint64_t shown = UINT64_C(4) << bits[i];

        build_qcow2(1, bits[i], bits[i] < 12 ? UINT64_C(32) << bits[i] : GUEST);
        shown = shown < GUEST ? shown : GUEST;
        image_set_l2(&disks[1], 0, ZERO);
        memcpy(expected, disks[1].bytes + ((size_t)AT_DATA << bits[i]), shown);
        memset(expected, 0, (size_t)1 << bits[i]);
        rig_open_ok(rig);
        expect_content(rig);
        write_ok(rig, 1024, 512, i);
        write_ok(rig, 3 * CLUSTER + 512, 512, i);
        expect_durable(rig);
    }
}

static void bits_of_a_layer_below_do_not_matter(void **state)
{
    static const uint64_t bits[] = {QC_INCOMPATIBLE_DIRTY, QC_INCOMPATIBLE_CORRUPT};

    for (unsigned i = 0; i < 2; i++) {
        struct rig *rig = overlay(state, 3, "qcow2");

        build_qcow2(1, 12, GUEST);
        put_be64(disks[1].bytes + 72, bits[i]);
        put_be64(disks[1].bytes + 88, QC_AUTOCLEAR_BITMAPS);
        memcpy(expected, disks[1].bytes + AT_DATA * CLUSTER, 4 * CLUSTER);
        rig_open_ok(rig);
        write_ok(rig, 512, 512, 1);
        expect_durable(rig);
    }
}

static void damage_below_is_told(void **state)
{
    struct rig *rig = overlay(state, 3, "qcow2");

    build_qcow2(1, 12, GUEST);
    image_set_l2(&disks[1], 1, AT_DATA * CLUSTER | 2);
    rig_open_ok(rig);
    assert_int_equal(qc_read(&rig->image, 0, buf, CLUSTER), QC_OK);
    assert_int_equal(qc_read(&rig->image, CLUSTER, buf, 1), QC_IO);
    assert_string_equal(qc_detail(&rig->image), "bad L2 entry 0x5002 at guest 0x1000");
    assert_int_equal(qc_read(&rig->image, 2 * CLUSTER, buf, CLUSTER), QC_OK);
    assert_int_equal(qc_write(&rig->image, CLUSTER, buf, CLUSTER), QC_OK); /* nothing is read */
    assert_string_equal(qc_readonly_reason(&rig->image), "");
}

/* ---- writes ---- */

static void writes_copy_only_what_is_not_zeros(void **state)
{
    struct rig *rig = over_raw(state, 3, 40 * CLUSTER);
    static const struct {
        uint64_t guest_off, len;
        unsigned reads, writes;
        uint64_t bytes;
    } cases[] = {
        {0, 512, 1, 1, CLUSTER},                 /* the rest behind it */
        {2 * CLUSTER - 512, 512, 1, 1, CLUSTER}, /* the rest before it */
        {3 * CLUSTER + 512, 512, 1, 1, CLUSTER}, /* both, and one request each way */
        {5 * CLUSTER, CLUSTER, 0, 1, CLUSTER},   /* nothing is left to copy */
        {7 * CLUSTER, 3 * CLUSTER, 0, 1, 3 * CLUSTER},
        {50 * CLUSTER + 512, 512, 0, 1, 512}, /* behind the layer's end: zeros, not copied */
    };

    write_ok(rig, 60 * CLUSTER, 512, 9); /* tables are here now */
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        disks[1].reads_count = rig->disk.writes_count = 0;
        rig->disk.write_bytes = 0;
        write_ok(rig, cases[i].guest_off, cases[i].len, i);
        assert_int_equal(disks[1].reads_count, cases[i].reads);
        assert_int_equal(rig->disk.writes_count, cases[i].writes);
        assert_true(rig->disk.write_bytes == cases[i].bytes);
    }
    expect_durable(rig);
}

/* What a qcow2 layer says is zeros is neither read nor copied; so is what hides data below it. */
static void zeros_below_are_not_copied(void **state)
{
    struct rig *rig = overlay(state, 3, "qcow2");

    build_qcow2(1, 12, GUEST);
    image_set_l2(&disks[1], 1, ZERO);
    image_set_l2(&disks[1], 2, AT_DATA * CLUSTER | ZERO | COPIED);
    memcpy(expected, disks[1].bytes + AT_DATA * CLUSTER, 4 * CLUSTER);
    memset(expected + CLUSTER, 0, 2 * CLUSTER);
    rig_open_ok(rig);
    write_ok(rig, 60 * CLUSTER, 512, 9); /* before the first change the cache is emptied */
    expect_content(rig);
    for (unsigned i = 1; i < 10; i += 1 + (i == 2)) {
        disks[1].reads_count = 0;
        rig->disk.write_bytes = 0;
        write_ok(rig, i * CLUSTER + 512, 512, i);
        assert_int_equal(disks[1].reads_count, 0);
        assert_true(rig->disk.write_bytes == 512);
    }
    expect_durable(rig);
}

static void what_cannot_be_read_fails_its_write_and_no_flush(void **state)
{
    struct rig *rig = over_raw(state, 3, GUEST);

    write_ok(rig, 60 * CLUSTER, CLUSTER, 1);
    disks[1].fail_at = disks[1].reads_count + 1;
    assert_int_equal(qc_read(&rig->image, 0, buf, 512), QC_IO);
    assert_string_equal(qc_detail(&rig->image), "data at 0x0 cannot be read");
    disks[1].fail_at = disks[1].reads_count + 1;
    fill(buf, 512, 2);
    assert_int_equal(qc_write(&rig->image, 512, buf, 512), QC_IO);
    assert_string_equal(qc_readonly_reason(&rig->image), "");
    disks[1].fail_at = disks[1].reads_count + 1;
    write_ok(rig, 0, CLUSTER, 3); /* a whole cluster needs nothing */
    assert_int_equal(qc_flush(&rig->image), QC_OK);
    disks[1].fail_at = 0;
    expect_durable(rig);
}

/* Tables of a layer cannot be read either: whoever needs them is told, and nothing is lost. */
static void tables_below_that_cannot_be_read_fail_the_write(void **state)
{
    for (unsigned nth = 1; nth <= 4; nth++) {
        struct rig *rig = overlay(state, 3, "qcow2");
        qc_status status;

        build_qcow2(1, 12, GUEST);
        memcpy(expected, disks[1].bytes + AT_DATA * CLUSTER, 4 * CLUSTER);
        rig_open_ok(rig);
        disks[1].fail_at = disks[1].reads_count + nth;
        fill(buf, 512, nth);
        status = qc_write(&rig->image, CLUSTER + 512, buf, 512);
        assert_int_equal(status, nth <= 3 ? QC_IO : QC_OK); /* L1, L2, data */
        if (status == QC_OK)
            memcpy(expected + CLUSTER + 512, buf, 512);
        disks[1].fail_at = 0;
        expect_durable(rig);
    }
}

/* The guest may end within a cluster: what a layer has behind that is not copied. */
static void guests_may_end_within_a_cluster(void **state)
{
    struct rig *rig = over_raw(state, 3, GUEST);
    uint64_t guest_bytes = 9 * CLUSTER + 1536;

    put_be64(rig->disk.bytes + 24, guest_bytes);
    rig_open_ok(rig);
    assert_true(qc_size(&rig->image) == guest_bytes);
    write_ok(rig, 0, CLUSTER, 1);
    rig->disk.write_bytes = 0;
    write_ok(rig, 9 * CLUSTER + 512, 512, 2);
    assert_true(rig->disk.write_bytes == 1536);
    assert_int_equal(qc_settle(&rig->image), QC_OK);
    rig_open_ok(rig);
    assert_int_equal(qc_read(&rig->image, 0, buf, guest_bytes), QC_OK);
    assert_memory_equal(buf, expected, guest_bytes);
    assert_int_equal(qc_discard(&rig->image, 9 * CLUSTER, 1536), QC_OK); /* whole, to the end */
    assert_int_equal(qc_read(&rig->image, 9 * CLUSTER, buf, 1536), QC_OK);
    assert_true(buf[0] == 0 && memcmp(buf, buf + 1, 1535) == 0);
}

static void erased_clusters_do_not_show_what_is_below(void **state)
{
    struct rig *rig = over_raw(state, 3, 40 * CLUSTER);

    write_ok(rig, CLUSTER, CLUSTER, 1);
    assert_int_equal(qc_flush(&rig->image), QC_OK);
    rig->disk.write_bytes = 0;
    assert_int_equal(qc_discard(&rig->image, 0, 2 * CLUSTER), QC_OK);
    assert_int_equal(qc_zero(&rig->image, 2 * CLUSTER, CLUSTER, true), QC_OK);
    assert_int_equal(qc_zero(&rig->image, 3 * CLUSTER, CLUSTER, false), QC_OK);
    assert_int_equal(qc_discard(&rig->image, 45 * CLUSTER, 2 * CLUSTER),
                     QC_OK); /* behind the end */
    memset(expected, 0, 4 * CLUSTER);
    assert_true(rig->disk.write_bytes == 0); /* all of it is entries */
    assert_int_equal(qc_zero(&rig->image, 4 * CLUSTER + 512, 512, true), QC_OK);
    memset(expected + 4 * CLUSTER + 512, 0, 512);
    assert_int_equal(qc_discard(&rig->image, 6 * CLUSTER, CLUSTER - 512), QC_OK); /* not whole */
    expect_durable(rig);
    for (unsigned i = 0; i < 4; i++)
        assert_true(image_l2(&rig->disk, i) == ZERO);
    assert_true(image_l2(&rig->disk, 6) == 0 && image_l2(&rig->disk, 45) == 0);
    write_ok(rig, 512, 512, 2); /* nothing of below comes back with it */
    expect_durable(rig);
}

/* Version 2 has no mark: a discard changes nothing, and zeros are written. */
static void version_2_writes_its_zeros(void **state)
{
    struct rig *rig = over_raw(state, 2, 40 * CLUSTER);

    write_ok(rig, CLUSTER, CLUSTER, 1);
    assert_int_equal(qc_discard(&rig->image, 0, 4 * CLUSTER), QC_OK);
    expect_durable(rig);
    assert_int_equal(qc_zero(&rig->image, 512, 3 * CLUSTER, true), QC_OK);
    assert_int_equal(qc_zero(&rig->image, 6 * CLUSTER, CLUSTER, false), QC_OK);
    memset(expected + 512, 0, 3 * CLUSTER);
    memset(expected + 6 * CLUSTER, 0, CLUSTER);
    assert_int_equal(qc_flush(&rig->image), QC_OK);
    rig->disk.write_bytes = 0;
    assert_int_equal(qc_zero(&rig->image, 41 * CLUSTER, 10 * CLUSTER, true), QC_OK);
    assert_true(rig->disk.write_bytes == 0); /* zeros already */
    expect_durable(rig);
    for (unsigned i = 0; i < 64; i++)
        assert_true((image_l2(&rig->disk, i) & ZERO) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(chains_show_each_layer),
        RIG_TEST(deeper_chains_are_refused),
        RIG_TEST(layers_may_be_shorter_and_longer),
        RIG_TEST(raw_layers_may_have_any_size),
        RIG_TEST(ends_hide_what_is_deeper),
        RIG_TEST(clusters_may_differ_in_size),
        RIG_TEST(bits_of_a_layer_below_do_not_matter),
        RIG_TEST(damage_below_is_told),
        RIG_TEST(writes_copy_only_what_is_not_zeros),
        RIG_TEST(zeros_below_are_not_copied),
        RIG_TEST(what_cannot_be_read_fails_its_write_and_no_flush),
        RIG_TEST(tables_below_that_cannot_be_read_fail_the_write),
        RIG_TEST(guests_may_end_within_a_cluster),
        RIG_TEST(erased_clusters_do_not_show_what_is_below),
        RIG_TEST(version_2_writes_its_zeros),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
