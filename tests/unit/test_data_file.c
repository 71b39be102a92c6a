/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * External data files: the map says only what is there, the data lies at the guest's own offsets on
 * another disk, and that disk is flushed before the tables that name its bytes. Format: QEMU's
 * docs/interop/qcow2, "data_file" and "raw external data".
 */
#include "content.h"

#include "../../core/bytes.h"
#include "../../core/map.h"

#define CLUSTER 4096u
#define GUEST   (8u * CLUSTER - 1024)
#define NAME    "data.raw"

static uint8_t buf[9 * CLUSTER];
static struct mem_disk data;
static unsigned order[64],
    order_count; /* which disk was flushed: 0 the image's, 1 the data file's */
static const struct qc_disk_ops *plain_ops;
static struct qc_disk_ops watched_ops;

static qc_status watched_flush(struct qc_disk *disk)
{
    if (order_count < 64)
        order[order_count++] = disk == &data.disk;
    return plain_ops->flush(disk);
}

static qc_status find_data(struct qc_bases *bases, struct qc_base *base)
{
    (void)bases;
    assert_true(base->is_data_file && base->depth == 0 && base->format == QC_FORMAT_RAW);
    assert_string_equal(base->name, NAME);
    base->disk = &data.disk;
    return QC_OK;
}

static struct qc_bases finder = {find_data};

/* Guest clusters 0 and 2 are there, 1 reads as zeros, the rest are holes over old bytes. */
static struct rig *built(void **state, bool is_raw)
{
    struct rig *rig = *state;
    uint8_t *bytes = rig->disk.bytes;

    memset(&rig->options, 0, sizeof(rig->options));
    rig_build(rig, 3, 12, GUEST, 0);
    put_be64(bytes + 72, QC_INCOMPATIBLE_DATA_FILE);
    put_be64(bytes + 88, is_raw ? QC_AUTOCLEAR_RAW_DATA : 0);
    put_be32(bytes + 112, 0x44415441);
    put_be32(bytes + 116, sizeof(NAME) - 1);
    memcpy(bytes + 120, NAME, sizeof(NAME) - 1);
    rig_set_l2(rig, 0, QC_ENTRY_COPIED);
    rig_set_l2(rig, 1, QC_ENTRY_ZERO);
    rig_set_l2(rig, 2, 2 * CLUSTER | QC_ENTRY_COPIED);
    memset(&data, 0, sizeof(data));
    image_build(&data, 3, 12, GUEST, 4); /* for a disk; its bytes are the guest's */
    data.disk.size_bytes = GUEST;
    memset(data.bytes, is_raw ? 0 : 0xee, sizeof(data.bytes));
    memset(data.bytes, 0x11, CLUSTER);
    memset(data.bytes + 2 * CLUSTER, 0x22, CLUSTER);
    content_begin(GUEST);
    memset(expected, 0x11, CLUSTER);
    memset(expected + 2 * CLUSTER, 0x22, CLUSTER);
    rig->options.bases = &finder;
    plain_ops = rig->disk.disk.ops;
    watched_ops = *plain_ops;
    watched_ops.flush = watched_flush;
    rig->disk.disk.ops = data.disk.ops = &watched_ops;
    order_count = 0;
    rig_open_ok(rig);
    return rig;
}

static void data_lies_at_the_guests_offsets(void **state)
{
    struct rig *rig = built(state, false);
    uint64_t size = rig->disk.disk.size_bytes;

    expect_content(rig);
    write_ok(rig, 512, 1024, 0x33);
    write_ok(rig, CLUSTER + 512, 512, 0x44);
    write_ok(rig, 3 * CLUSTER + 1024, CLUSTER, 0x55);
    write_ok(rig, GUEST - 512, 512, 0x66);
    expect_durable(rig);
    assert_memory_equal(data.bytes + 3 * CLUSTER, expected + 3 * CLUSTER, 2 * CLUSTER);
    assert_true(image_l2(&rig->disk, 4) == (4 * CLUSTER | QC_ENTRY_COPIED));
    assert_int_equal(rig->disk.disk.size_bytes, size); /* nothing was taken in the image */
}

static void entries_that_lie_elsewhere_are_refused(void **state)
{
    static const uint64_t bad[] = {3 * CLUSTER | QC_ENTRY_COPIED, QC_ENTRY_COMPRESSED | 512};

    for (unsigned i = 0; i < 2; i++) {
        struct rig *rig = built(state, false);

        rig_set_l2(rig, 2, bad[i]);
        assert_int_equal(rig_open(rig), QC_OK);
        assert_int_equal(qc_read(&rig->image, 2 * CLUSTER, buf, 512), QC_CORRUPT);
    }
}

/* Stage 1 ends with both disks flushed, the data file first; tables follow. */
static void data_is_durable_before_what_names_it(void **state)
{
    struct rig *rig = built(state, false);

    assert_int_equal(qc_flush(&rig->image), QC_OK); /* rule R5, on both disks */
    assert_true(order_count == 2 && order[0] == 1 && order[1] == 0);
    order_count = 0;
    write_ok(rig, 4 * CLUSTER, 512, 0x33);
    assert_int_equal(qc_flush(&rig->image), QC_OK);
    assert_true(order_count >= 2);
    assert_true(order[0] == 1 && order[1] == 0);
    write_ok(rig, 0, 512, 0x34);
    order_count = 0;
    assert_int_equal(qc_flush(&rig->image), QC_OK);
    assert_true(order_count >= 1 && order[0] == 1);
    data.fail_flush_at = data.flushes_count + 1;
    write_ok(rig, 6 * CLUSTER, 512, 0x35);
    assert_int_equal(qc_flush(&rig->image), QC_IO);
    assert_string_not_equal(qc_readonly_reason(&rig->image), "");
    assert_true(image_l2(&rig->disk, 6) == 0);
}

/* Whoever reads the raw file alone sees what the guest sees, and the promise is kept. */
static void a_raw_data_file_stays_one(void **state)
{
    struct rig *rig = built(state, true);

    write_ok(rig, 4 * CLUSTER + 512, 512, 0x33);
    assert_int_equal(qc_zero(&rig->image, 0, CLUSTER, true), QC_OK);
    memset(expected, 0, CLUSTER);
    assert_int_equal(qc_discard(&rig->image, 2 * CLUSTER, CLUSTER), QC_OK); /* declined */
    expect_durable(rig);
    assert_memory_equal(data.bytes, expected, GUEST);
    assert_true(qc_be64(rig->disk.bytes + 88) == QC_AUTOCLEAR_RAW_DATA);
}

/* What a write left that failed goes when the place is zeroed, though the map has nothing there. */
static void a_raw_data_file_loses_what_failed(void **state)
{
    static const struct {
        uint64_t off, len;
    } zeroed[] = {{4 * CLUSTER, CLUSTER}, {4 * CLUSTER, 2048}, {3 * CLUSTER + 512, 3 * CLUSTER}};

    for (unsigned i = 0; i < sizeof(zeroed) / sizeof(zeroed[0]); i++) {
        struct rig *rig = built(state, true);
        uint8_t bytes[1024];

        memset(bytes, 0x33, sizeof(bytes));
        data.fail_write_at = data.writes_count + 1;
        assert_int_equal(qc_write(&rig->image, 4 * CLUSTER + 512, bytes, sizeof(bytes)), QC_IO);
        assert_int_equal(data.bytes[4 * CLUSTER + 512], 0x33);
        assert_int_equal(qc_zero(&rig->image, zeroed[i].off, zeroed[i].len, true), QC_OK);
        expect_durable(rig);
        assert_memory_equal(data.bytes, expected, GUEST);
    }
}

static void holes_do_not_show_old_bytes(void **state)
{
    struct rig *rig = built(state, false);

    assert_int_equal(qc_discard(&rig->image, 0, CLUSTER), QC_OK);
    assert_int_equal(qc_zero(&rig->image, 2 * CLUSTER, CLUSTER, false), QC_OK);
    memset(expected, 0, CLUSTER);
    memset(expected + 2 * CLUSTER, 0, CLUSTER);
    expect_durable(rig);
    write_ok(rig, 1024, 512, 0x33);
    write_ok(rig, 2 * CLUSTER + 1024, 512, 0x34);
    expect_durable(rig);
}

static void a_short_data_file_grows_or_takes_no_writes(void **state)
{
    struct rig *rig = built(state, false);

    data.disk.size_bytes = 3 * CLUSTER;
    assert_int_equal(rig_open(rig), QC_OK);
    expect_content(rig);
    write_ok(rig, 6 * CLUSTER, 512, 0x33);
    expect_durable(rig);
    assert_int_equal(data.disk.size_bytes, GUEST);
    data.disk.size_bytes = 3 * CLUSTER;
    watched_ops.grow = NULL;
    assert_int_equal(rig_open(rig), QC_OK);
    assert_string_equal(qc_readonly_reason(&rig->image),
                        "the data file is shorter than the disk: read-only");
    data.disk.size_bytes = GUEST;
    data.disk.readonly = true;
    assert_int_equal(rig_open(rig), QC_OK);
    assert_string_equal(qc_readonly_reason(&rig->image), "the data file is read-only");
}

static void growing_grows_the_data_file(void **state)
{
    struct rig *rig = built(state, false);

    assert_int_equal(qc_resize(&rig->image, 9 * CLUSTER), QC_OK);
    assert_int_equal(data.disk.size_bytes, 9 * CLUSTER);
    assert_int_equal(qc_read(&rig->image, GUEST, buf, 9 * CLUSTER - GUEST), QC_OK);
    for (unsigned i = 0; i < 9 * CLUSTER - GUEST; i++)
        assert_int_equal(buf[i], 0);
}

static void without_a_finder_it_is_refused(void **state)
{
    struct rig *rig = built(state, false);

    rig->options.bases = NULL;
    rig_expect(rig, QC_REFUSED, "backing name refused: nothing says where it lies");
    rig->options.bases = &finder;
    put_be32(rig->disk.bytes + 112, 0);
    rig_expect(rig, QC_REFUSED, "backing name refused: no data file named");
}

/* A mark on the image is one reason more: a repair must not begin on a disk that may not change. */
static void read_only_data_file_is_not_repaired(void **state)
{
    struct rig *rig = built(state, false);
    struct qc_check_result result;

    rig->disk.bytes[79] |= QC_INCOMPATIBLE_CORRUPT;
    data.disk.readonly = true;
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(qc_check(&rig->image, QC_FIX_ALL, NULL, NULL, &result), QC_READONLY);
    assert_string_not_equal(qc_readonly_reason(&rig->image), "");
    assert_int_equal(data.writes_count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(data_lies_at_the_guests_offsets),
        RIG_TEST(entries_that_lie_elsewhere_are_refused),
        RIG_TEST(data_is_durable_before_what_names_it),
        RIG_TEST(a_raw_data_file_stays_one),
        RIG_TEST(a_raw_data_file_loses_what_failed),
        RIG_TEST(holes_do_not_show_old_bytes),
        RIG_TEST(a_short_data_file_grows_or_takes_no_writes),
        RIG_TEST(growing_grows_the_data_file),
        RIG_TEST(without_a_finder_it_is_refused),
        RIG_TEST(read_only_data_file_is_not_repaired),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
