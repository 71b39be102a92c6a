/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Ends of ranges that hardly any image has: names, numbers and lines as long as they may be, disks
 * that end or cannot grow, tables that name each other, reads that fail while a table is asked for.
 */
#include "shape.h"

#include "../../core/bytes.h"
#include "../../core/change.h"
#include "../../core/commit.h"
#include "../../core/decode.h"
#include "../../core/epoch.h"
#include "../../core/guard.h"

#define CLUSTER 512u
#define ZERO    UINT64_C(1)
#define READS   40u

static uint8_t buf[256 * 1024];
static struct mem_disk other;

/* Counts are believed: what looks at all of them before the first change would fail first. */
static void make_small(struct rig *rig)
{
    rig_believe(rig);
    rig_shrink(rig, 2);
}

static void lines_end_in_time(void **state)
{
    struct qc_detail detail;
    char text[2 * QC_DETAIL_BYTES];

    (void)state;
    memset(text, 'x', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    qc_fail(&detail, QC_OK, "%s", text);
    assert_int_equal(strlen(detail.text), QC_DETAIL_BYTES - 1);
    qc_fail(&detail, QC_OK, text);
    assert_int_equal(strlen(detail.text), QC_DETAIL_BYTES - 1);
    qc_fail(&detail, QC_OK, "%s %u %x",
            "\x01"
            "a~\x7f\xff",
            UINT64_MAX, UINT64_MAX);
    assert_string_equal(detail.text, "?a~?? 18446744073709551615 0xffffffffffffffff");
}

static void names_end_in_time(void **state)
{
    struct qc_detail detail;
    char name[QC_BACKING_NAME_BYTES_MAX + 77];

    (void)state;
    memset(name, 'n', sizeof(name));
    name[sizeof(name) - 1] = '\0';
    assert_int_equal(qc_name_check(name, &detail), QC_OK);
}

static void a_workspace_that_is_none_decodes_nothing(void **state)
{
    static _Alignas(16) uint8_t workspace[QC_DECODER_BYTES + 16];
    struct qc_packed_source source = {0};

    (void)state;
    assert_int_equal(qc_decode(QC_COMPRESSION_ZSTD, workspace + 1, &source, buf, 512), QC_CORRUPT);
}

static qc_status find_other(struct qc_bases *bases, struct qc_base *base)
{
    (void)bases;
    base->disk = &other.disk;
    return QC_OK;
}

static void the_image_is_no_data_file(void **state)
{
    struct rig *rig = *state;

    shape_build(rig, 3, 9);
    rig_set_data_file(rig, &other, CLUSTER);
    memcpy(&other, &rig->disk, sizeof(other));
    qc_cache_init(&rig->cache, rig->pool, sizeof(rig->pool));
    assert_int_equal(qc_open(&rig->image, &rig->cache, &other.disk, &rig->options), QC_REFUSED);
    assert_string_equal(qc_detail(&rig->image), "backing name refused: the image is no data file");
}

/* Damage below fails what needs it; the image itself goes on. */
static void a_damaged_table_below_is_no_damage_here(void **state)
{
    struct rig *rig = *state;
    static struct qc_bases finder = {find_other};

    shape_build(rig, 3, 9);
    memcpy(&other, &rig->disk, sizeof(other));
    put_be64(other.bytes + AT_L1 * CLUSTER, AT_REFTABLE * CLUSTER);
    rig_set_l2(rig, 0, 0);
    image_set_below(&rig->disk, "other", "qcow2");
    rig->options.bases = &finder;
    rig_open_ok(rig);
    assert_int_equal(qc_read(&rig->image, 0, buf, 512), QC_IO);
    assert_int_equal(qc_read(&rig->image, CLUSTER, buf, 512), QC_OK);
    assert_string_equal(qc_readonly_reason(&rig->image), "");
}

static void without_a_layer_below_nothing_is_left_out(void **state)
{
    struct rig *rig = *state;

    shape_build(rig, 3, 9);
    rig->options.is_backing_off = true;
    rig_open_ok(rig);
    put_be32(rig->disk.bytes + 16, 5); /* a length without a place */
    rig_open_ok(rig);
}

static void odd_disks_that_cannot_grow_take_no_writes(void **state)
{
    struct rig *rig = *state;

    shape_build(rig, 3, 9);
    rig->disk.disk.size_bytes -= 100;
    rig_open_ok(rig);
    rig->disk.is_full = true;
    assert_int_equal(qc_write(&rig->image, 0, buf, 512), QC_NOSPACE);
    assert_string_equal(qc_detail(&rig->image), "no space");
}

static void damage_on_a_failed_disk_is_not_marked(void **state)
{
    struct rig *rig = *state;

    shape_build(rig, 3, 9);
    rig_open_ok(rig);
    rig->image.is_failed = rig->image.is_to_be_marked = true;
    rig->disk.writes_count = 0;
    assert_int_equal(qc_note_damage(&rig->image, QC_CORRUPT), QC_CORRUPT);
    assert_int_equal(rig->disk.writes_count, 0);
}

/* Stage 1 ends with a flush for whatever it adds: an L2 table or a block alone as well. */
static void each_new_table_has_its_barrier(void **state)
{
    struct rig *rig = *state;
    static const enum qc_record_kind kinds[] = {QC_RECORD_L1, QC_RECORD_ROOT};

    for (unsigned i = 0; i < 2; i++) {
        struct qc_record *record;

        rig_build(rig, 3, 9, 3 * 64 * CLUSTER, SHAPE_DATA);
        rig_open_ok(rig);
        assert_int_equal(qc_settle(&rig->image), QC_OK);
        record = qc_epoch_add(&rig->image.epoch, kinds[i], 1);
        record->value = rig_data_off(rig, 1);
        record->flags = QC_RECORD_NEW;
        rig->disk.flushes_count = 0;
        assert_int_equal(qc_commit(&rig->image), QC_OK);
        assert_int_equal(rig->disk.flushes_count, 2);
    }
}

static void counts_that_wait_are_settled(void **state)
{
    struct rig *rig = *state;

    for (unsigned fails = 0; fails < 2; fails++) {
        shape_build(rig, 3, 9);
        rig_open_ok(rig);
        assert_int_equal(qc_settle_counts(&rig->image), QC_OK); /* a flush, and nothing else */
        assert_int_equal(qc_discard(&rig->image, 0, 2 * CLUSTER), QC_OK);
        rig->disk.writes_count = 0;
        rig->disk.fail_write_at = fails;
        assert_int_equal(qc_settle_counts(&rig->image), fails ? QC_IO : QC_OK);
        rig->disk.fail_write_at = 0;
        assert_int_equal(qc_settle(&rig->image), QC_OK);
        assert_int_equal(shape_count(rig, AT_DATA + 1), 0);
    }
}

/* A table that is not durable yet is a table all the same. */
static void a_table_of_this_epoch_takes_no_data(void **state)
{
    struct rig *rig = *state;
    uint64_t l2_off;

    rig_build(rig, 3, 9, 3 * 64 * CLUSTER, SHAPE_DATA);
    rig_open_ok(rig);
    assert_int_equal(qc_write(&rig->image, 64 * CLUSTER, buf, 512), QC_OK);
    l2_off = (rig->image.for_tables.next - 1) * CLUSTER;
    rig_set_l2(rig, 7, l2_off | SHAPE_COPIED);
    qc_cache_forget(&rig->cache, AT_L2 * CLUSTER);
    assert_int_equal(qc_write(&rig->image, 7 * CLUSTER, buf, 512), QC_CORRUPT);
    assert_string_equal(qc_detail(&rig->image), "cluster 0x1a00 is metadata");
}

/* Where a table must be asked whether it names a cluster, and cannot be read. */
static void tables_that_cannot_be_asked_fail_the_write(void **state)
{
    struct rig *rig = *state;
    unsigned io_count[2] = {0, 0};

    for (unsigned at = 1; at < 2 * READS; at++) {
        qc_status status;

        /* The first free cluster, or the cluster of data, is a table by the L1 table. */
        rig_build(rig, 3, 9, 3 * 64 * CLUSTER, SHAPE_DATA);
        rig_set_l2(rig, 0, rig_data_off(rig, 0) | SHAPE_COPIED);
        put_be64(shape_table(rig, AT_L1) + 16, rig_data_off(rig, at % 2 ? SHAPE_DATA : 0));
        rig_open_ok(rig);
        make_small(rig);
        rig->disk.reads_count = 0;
        rig->disk.fail_at = (at + 1) / 2;
        status = qc_write(&rig->image, at % 2 ? 9 * CLUSTER : 0, buf, 512);
        io_count[at % 2] += status == QC_IO;
        assert_true(status == QC_IO || status == QC_CORRUPT);
        rig->disk.fail_at = 0;
    }
    assert_in_range(io_count[0], 4, READS);
    assert_in_range(io_count[1], 6, READS);
}

static void tables_named_more_than_twice(void **state)
{
    struct rig *rig = *state;

    rig_build(rig, 3, 9, 3 * 64 * CLUSTER, SHAPE_DATA);
    for (unsigned i = 1; i < 3; i++)
        put_be64(shape_table(rig, AT_L1) + 8 * i, AT_L2 * CLUSTER | SHAPE_COPIED);
    rig_open_ok(rig);
    assert_int_equal(qc_write(&rig->image, 0, buf, 512), QC_CORRUPT);
    assert_string_equal(qc_detail(&rig->image), "table 0x800 is named twice");
}

/* So many tables that the filter takes most of them for named before: asked for so often, no more.
 */
static void a_filter_that_is_full_ends(void **state)
{
    struct rig *rig = *state;
    unsigned entries = 60000;

    rig_build(rig, 3, 9, (uint64_t)entries * 64 * CLUSTER, SHAPE_DATA);
    put_be64(rig->disk.bytes + 40, 16 * CLUSTER);
    rig->disk.disk.size_bytes = 16 * CLUSTER + entries * 8u;
    for (unsigned i = 0; i < entries; i++)
        put_be64(rig->disk.bytes + 16 * CLUSTER + i * 8u,
                 i == 0 ? AT_L2 * CLUSTER | SHAPE_COPIED : (UINT64_C(1) << 30) + i * CLUSTER);
    rig_set_l2(rig, 0, rig_data_off(rig, 0) | SHAPE_COPIED);
    rig_open_ok(rig);
    assert_int_equal(qc_write(&rig->image, 0, buf, 512), QC_OK);
}

static void a_kept_cluster_that_is_nowhere(void **state)
{
    struct rig *rig = *state;

    shape_build(rig, 3, 9);
    rig_set_l2(rig, 0, rig_data_off(rig, 300) | SHAPE_COPIED | ZERO);
    rig_open_ok(rig);
    assert_int_equal(qc_write(&rig->image, 0, buf, 512), QC_CORRUPT);
}

/* A table larger than what is read of it at once, of every refused kind. */
static void long_snapshot_tables_are_measured(void **state)
{
    struct rig *rig = *state;
    uint64_t off = 16 * 4096, entry_bytes = 40 + QC_SNAPSHOT_EXTRA_BYTES_MAX;
    /* So many that they end with a block. */
    unsigned count = ((unsigned)((MEM_DISK_BYTES - off) / entry_bytes) - 8) / 64 * 64;

    for (unsigned fault = 0; fault < 2; fault++) {
        shape_build(rig, 3, 12);
        rig->disk.disk.size_bytes = off + count * entry_bytes + (fault == 0 ? 4096 : 0);
        memset(rig->disk.bytes + off, 0, MEM_DISK_BYTES - off);
        for (unsigned i = 0; i < count; i++)
            put_be32(rig->disk.bytes + off + i * entry_bytes + 36, QC_SNAPSHOT_EXTRA_BYTES_MAX);
        if (fault == 0)
            put_be32(rig->disk.bytes + off + (count - 1) * entry_bytes + 36,
                     QC_SNAPSHOT_EXTRA_BYTES_MAX + 1);
        put_be32(rig->disk.bytes + 60, count + (fault == 1));
        put_be64(rig->disk.bytes + 64, off);
        rig_open_ok(rig);
        rig->disk.is_full = true;
        assert_int_equal(qc_write(&rig->image, 0, buf, 512),
                         fault == 0 ? QC_UNSUPPORTED : QC_CORRUPT);
        assert_string_equal(qc_detail(&rig->image), fault == 0
                                                        ? "snapshot has 1025 bytes of extra data"
                                                        : "snapshot table ends behind the disk");
        assert_string_not_equal(qc_readonly_reason(&rig->image), "");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(lines_end_in_time),
        RIG_TEST(names_end_in_time),
        RIG_TEST(a_workspace_that_is_none_decodes_nothing),
        RIG_TEST(the_image_is_no_data_file),
        RIG_TEST(a_damaged_table_below_is_no_damage_here),
        RIG_TEST(without_a_layer_below_nothing_is_left_out),
        RIG_TEST(odd_disks_that_cannot_grow_take_no_writes),
        RIG_TEST(damage_on_a_failed_disk_is_not_marked),
        RIG_TEST(each_new_table_has_its_barrier),
        RIG_TEST(counts_that_wait_are_settled),
        RIG_TEST(a_table_of_this_epoch_takes_no_data),
        RIG_TEST(tables_that_cannot_be_asked_fail_the_write),
        RIG_TEST(tables_named_more_than_twice),
        RIG_TEST(a_filter_that_is_full_ends),
        RIG_TEST(a_kept_cluster_that_is_nowhere),
        RIG_TEST(long_snapshot_tables_are_measured),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
