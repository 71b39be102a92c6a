/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Whether the disk is what a snapshot of it holds: after every kind of change and of none, beside
 * tables of other lengths, over a long table, and where the disk below fails.
 */
#include "shape.h"

#include "../../core/bytes.h"

#define AT_TABLE (AT_DATA + SHAPE_DATA)
#define LARGE    (UINT64_C(64) << 20) /* of 512-byte clusters: an L1 table of 16 KiB */

static struct qc_snapshot snapshot;
static uint8_t sector[QC_SECTOR_BYTES];

static void expect(struct rig *rig, const char *name, bool is_disk)
{
    bool found = !is_disk;

    assert_int_equal(qc_snapshot_find(&rig->image, name, &snapshot), QC_OK);
    assert_int_equal(qc_snapshot_is_disk(&rig->image, &snapshot, &found), QC_OK);
    assert_int_equal(found, is_disk);
}

static void create(struct rig *rig, const char *name)
{
    assert_int_equal(qc_snapshot_create(&rig->image, name, 1, 2), QC_OK);
}

static void write_at(struct rig *rig, uint64_t guest_off)
{
    assert_int_equal(qc_write(&rig->image, guest_off, sector, sizeof(sector)), QC_OK);
}

static void what_is_written_tells(void **state)
{
    struct rig *rig = *state;

    for (uint32_t version = 2; version <= 3; version++) {
        shape_build(rig, version, 9);
        assert_int_equal(rig_open(rig), QC_OK);
        create(rig, "a");
        expect(rig, "a", true);
        create(rig, "b"); /* which changes no table of the disk */
        expect(rig, "a", true);
        expect(rig, "b", true);
        write_at(rig, 0); /* and is flushed by the question */
        expect(rig, "b", false);
        create(rig, "c");
        expect(rig, "c", true);
        expect(rig, "a", false);
        assert_int_equal(qc_snapshot_delete(&rig->image, "c"), QC_OK);
        write_at(rig, 512); /* in place again, and yet elsewhere than for "b" */
        expect(rig, "b", false);
        assert_int_equal(qc_snapshot_apply(&rig->image, "a"), QC_OK);
        expect(rig, "a", true);
        expect(rig, "b", true);
        assert_int_equal(qc_discard(&rig->image, 0, 512), QC_OK);
        expect(rig, "a", false);
        assert_int_equal(qc_snapshot_apply(&rig->image, "b"), QC_OK);
        assert_int_equal(qc_settle(&rig->image), QC_OK);
        assert_int_equal(rig_open(rig), QC_OK);
        expect(rig, "a", true);
    }
}

static void another_size_is_another_disk(void **state)
{
    struct rig *rig = *state;
    uint64_t bytes;

    shape_build(rig, 3, 9);
    assert_int_equal(rig_open(rig), QC_OK);
    bytes = qc_size(&rig->image);
    create(rig, "a");
    assert_int_equal(qc_resize(&rig->image, bytes + 512), QC_OK);
    expect(rig, "a", false);
    assert_int_equal(qc_snapshot_apply(&rig->image, "a"), QC_OK);
    expect(rig, "a", true);
}

/* An image with a snapshot "s1", to be changed and then opened to be read; its entry. */
static uint8_t *built(struct rig *rig)
{
    shape_build(rig, 3, 12);
    shape_add_snapshot(rig, 16, AT_TABLE);
    put_be64(shape_table(rig, AT_TABLE) + 48, get_be64(shape_table(rig, AT_HEADER) + 24));
    rig->options.readonly = true;
    return shape_table(rig, AT_TABLE);
}

static void only_what_maps_the_disk_counts(void **state)
{
    struct rig *rig = *state;
    uint8_t *entry = built(rig);

    assert_int_equal(rig_open(rig), QC_OK);
    expect(rig, "s1", true);
    put_be64(shape_table(rig, AT_L1), get_be64(shape_table(rig, AT_L1)) | SHAPE_COPIED);
    assert_int_equal(rig_open(rig), QC_OK);
    expect(rig, "s1", true);
    /* A second entry, where a VM's state would be. */
    put_be32(entry + 8, 2);
    put_be64(shape_table(rig, AT_TABLE + 1) + 8, 4096 * AT_DATA);
    /* The part of a sector that is not shown. */
    put_be64(entry + 48, get_be64(entry + 48) + 511);
    assert_int_equal(rig_open(rig), QC_OK);
    expect(rig, "s1", true);
    put_be64(shape_table(rig, AT_TABLE + 1), 0);
    assert_int_equal(rig_open(rig), QC_OK);
    expect(rig, "s1", false);
    assert_int_equal(rig->disk.writes_count, 0);
}

static void tables_that_cannot_be_are_refused(void **state)
{
    struct rig *rig = *state;
    uint8_t *entry = built(rig);
    bool found = true;

    put_be64(entry, 512);
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(qc_snapshot_find(&rig->image, "s1", &snapshot), QC_OK);
    assert_int_equal(qc_snapshot_is_disk(&rig->image, &snapshot, &found), QC_CORRUPT);
    assert_string_equal(qc_detail(&rig->image), "L1 table of snapshot 1 invalid");
    assert_true(found);
}

static void make_large(struct rig *rig)
{
    shape_build(rig, 3, 9);
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(qc_resize(&rig->image, LARGE), QC_OK);
    create(rig, "a");
    assert_int_equal(qc_settle(&rig->image), QC_OK);
}

/* Each half of the staging buffer takes a part of the table; the first difference ends it. */
static void long_tables_are_read_in_pieces(void **state)
{
    struct rig *rig = *state;
    uint64_t l1_bytes = LARGE / (64 * 512) * 8;
    unsigned reads, most;

    make_large(rig);
    most = 2 * (unsigned)((l1_bytes - 1) / (rig->cache.staging_bytes / 2) + 1);
    assert_in_range(most, 4, 64);
    assert_int_equal(qc_snapshot_find(&rig->image, "a", &snapshot), QC_OK);
    reads = rig->disk.reads_count;
    expect(rig, "a", true);
    assert_in_range(rig->disk.reads_count - reads, most, most + 8); /* and finding it */
    write_at(rig, LARGE - 512);
    expect(rig, "a", false);
    assert_int_equal(qc_snapshot_apply(&rig->image, "a"), QC_OK);
    expect(rig, "a", true);
    write_at(rig, 0);
    expect(rig, "a", false);
    reads = rig->disk.reads_count;
    assert_int_equal(qc_snapshot_is_disk(&rig->image, &snapshot, &(bool){true}), QC_OK);
    assert_int_equal(rig->disk.reads_count - reads, 2);
}

static void what_fails_below_is_told(void **state)
{
    struct rig *rig = *state;
    bool found = true;
    unsigned at = 1;

    make_large(rig);
    assert_int_equal(qc_snapshot_find(&rig->image, "a", &snapshot), QC_OK);
    for (;; at++) {
        qc_status status;

        rig->disk.reads_count = 0;
        rig->disk.fail_at = at;
        status = qc_snapshot_is_disk(&rig->image, &snapshot, &found);
        if (rig->disk.reads_count < at)
            break;
        assert_int_equal(status, QC_IO);
        assert_non_null(strstr(qc_detail(&rig->image), "cannot be read"));
    }
    assert_in_range(at, 5, 64);
    rig->disk.fail_at = 0;
    write_at(rig, 0);
    rig->disk.flushes_count = 0;
    rig->disk.fail_flush_at = 1;
    assert_int_equal(qc_snapshot_is_disk(&rig->image, &snapshot, &found), QC_IO);
    assert_string_equal(qc_detail(&rig->image), "the disk failed to flush: read-only");
    assert_true(found);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(what_is_written_tells),          RIG_TEST(another_size_is_another_disk),
        RIG_TEST(only_what_maps_the_disk_counts), RIG_TEST(tables_that_cannot_be_are_refused),
        RIG_TEST(long_tables_are_read_in_pieces), RIG_TEST(what_fails_below_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
