/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The snapshot table as it is read and written anew: entries of every shape that the format has,
 * those that it forbids, ids, and tables longer than the staging buffer. Format: QEMU's
 * docs/interop/qcow2, "Snapshots".
 */
#include "shape.h"

#include "../../core/snaptable.h"

#define AT_TABLE (AT_DATA + SHAPE_DATA)

static struct qc_snapshot snapshot;

/* An image with one snapshot, which is open; the table's one entry may be changed. */
static uint8_t *built(struct rig *rig, uint32_t version, uint32_t extra_bytes)
{
    shape_build(rig, version, 12);
    shape_add_snapshot(rig, extra_bytes, AT_TABLE);
    assert_int_equal(rig_open(rig), QC_OK);
    return rig->disk.bytes + AT_TABLE * rig->cluster_bytes;
}

static void expect_find(struct rig *rig, const char *name, qc_status status, const char *detail)
{
    assert_int_equal(qc_snapshot_find(&rig->image, name, &snapshot), status);
    assert_string_equal(qc_detail(&rig->image), detail);
}

static void extra_data_is_read_as_far_as_it_goes(void **state)
{
    struct rig *rig = *state;
    static const uint32_t extras[] = {0, 8, 16, 24, 1024};

    for (unsigned i = 0; i < sizeof(extras) / sizeof(extras[0]); i++) {
        uint8_t *entry = built(rig, 3, extras[i]);

        put_be32(entry + 32, 77);
        if (extras[i] >= 8)
            put_be64(entry + 40, 78);
        if (extras[i] >= 16)
            put_be64(entry + 48, 4096);
        if (extras[i] >= 24)
            put_be64(entry + 56, 80);
        expect_find(rig, "s1", QC_OK, "");
        assert_string_equal(snapshot.id, "1");
        assert_int_equal(snapshot.vm_state_bytes, extras[i] >= 8 ? 78 : 77);
        assert_int_equal(snapshot.guest_bytes, extras[i] >= 16 ? 4096 : 0);
        assert_int_equal(snapshot.icount, extras[i] >= 24 ? 80 : UINT64_MAX);
    }
    (void)built(rig, 2, 0);
    expect_find(rig, "1", QC_OK, "");
    assert_int_equal(snapshot.guest_bytes, qc_size(&rig->image));
}

static void entries_that_cannot_be_are_refused(void **state)
{
    struct rig *rig = *state;
    uint8_t *entry = built(rig, 3, 16);

    expect_find(rig, "none", QC_RANGE, "no snapshot none");
    put_be32(entry + 36, QC_SNAPSHOT_EXTRA_BYTES_MAX + 1);
    expect_find(rig, "s1", QC_UNSUPPORTED, "snapshot has 1025 bytes of extra data");
    put_be32(entry + 36, 16);
    /* Its two strings end behind the disk, which is cut right behind the fixed part. */
    rig->disk.disk.size_bytes = AT_TABLE * rig->cluster_bytes + 56;
    expect_find(rig, "s1", QC_CORRUPT, "snapshot table ends behind the disk");
}

/* What a snapshot says of its disk is believed only as far as its L1 table goes. */
static void snapshots_that_are_no_disks_are_not_entered(void **state)
{
    static const struct {
        uint64_t guest_bytes, l1_off;
        uint32_t l1_entries;
        qc_status status;
        const char *detail;
    } cases[] = {
        {511, 0, 1, QC_CORRUPT, "size of the disk of snapshot 1 invalid"},
        {QC_GUEST_BYTES_MAX + 512, 0, 1, QC_UNSUPPORTED,
         "virtual size 72057594037928448 not supported"},
        {UINT64_C(4) << 20, 0, 1, QC_CORRUPT, "L1 table of snapshot 1 too small"},
        {4096, 0, QC_L1_BYTES_MAX / 8 + 1, QC_UNSUPPORTED, "L1 table of snapshot 1 too large"},
        {4096, UINT64_C(1) << 40, 1, QC_CORRUPT, "L1 table of snapshot 1 invalid"},
        {4096, 4096 + 512, 1, QC_CORRUPT, "L1 table of snapshot 1 invalid"},
        {4096, UINT64_MAX, 1, QC_CORRUPT, "L1 table of snapshot 1 invalid"},
    };
    struct rig *rig = *state;

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint8_t *entry = built(rig, 3, 16);

        if (cases[i].l1_off != 0)
            put_be64(entry, cases[i].l1_off == UINT64_MAX ? 0 : cases[i].l1_off);
        put_be32(entry + 8, cases[i].l1_entries);
        put_be64(entry + 48, cases[i].guest_bytes);
        rig->options.snapshot = "s1";
        assert_int_equal(rig_open(rig), cases[i].status);
        assert_string_equal(qc_detail(&rig->image), cases[i].detail);
    }
}

/* The snapshot with this id has no other name; the next one gets what follows the highest. */
static void expect_next_id(struct rig *rig, const char *id, const char *next)
{
    uint8_t *entry = built(rig, 3, 16);

    put_be64(entry + 48, 4096); /* of the disk */
    entry[13] = (uint8_t)strlen(id);
    entry[15] = 0;
    memcpy(entry + 56, id, strlen(id));
    assert_int_equal(rig_open(rig), QC_OK);
    if (next == NULL) {
        assert_int_equal(qc_snapshot_create(&rig->image, "new", 1, 2), QC_UNSUPPORTED);
        assert_string_equal(qc_detail(&rig->image), "no snapshot id is left");
        return;
    }
    assert_int_equal(qc_snapshot_create(&rig->image, "new", 1, 2), QC_OK);
    expect_find(rig, "new", QC_OK, "");
    assert_string_equal(snapshot.id, next);
}

static void new_ids_follow_the_highest(void **state)
{
    expect_next_id(*state, "1", "2");
    expect_next_id(*state, "7a", "8");
    expect_next_id(*state, "abc", "1");
    expect_next_id(*state, "-", "1");
    expect_next_id(*state, "99", "100");
    expect_next_id(*state, "00000000000000000041x", "42");
    expect_next_id(*state, "18446744073709551599", "18446744073709551600");
    expect_next_id(*state, "99999999999999999999", NULL);
}

static void new_names_are_short(void **state)
{
    struct rig *rig = *state;
    char name[QC_SNAPSHOT_NAME_BYTES + 1] = "";

    shape_build(rig, 3, 12);
    assert_int_equal(rig_open(rig), QC_OK);
    memset(name, 'n', QC_SNAPSHOT_NAME_BYTES);
    assert_int_equal(qc_snapshot_create(&rig->image, name, 1, 2), QC_RANGE);
    assert_string_equal(qc_detail(&rig->image), "snapshot name is too long");
    name[QC_SNAPSHOT_NAME_BYTES - 1] = '\0';
    assert_int_equal(qc_snapshot_create(&rig->image, name, 1, 2), QC_OK);
    expect_find(rig, name, QC_OK, "");
    assert_string_equal(snapshot.name, name);
}

/* As many as fill the staging buffer more than once; each is found, and goes again. */
static void a_long_table_is_written_in_pieces(void **state)
{
    struct rig *rig = *state;
    unsigned count, left;
    char name[QC_SNAPSHOT_NAME_BYTES];

    shape_build(rig, 3, 12);
    assert_int_equal(rig_open(rig), QC_OK);
    count = 2 * rig->cache.staging_bytes / 300 + 2;
    for (unsigned i = 0; i < count; i++) {
        snprintf(name, sizeof(name), "%0240u", i);
        assert_int_equal(qc_snapshot_create(&rig->image, name, 1, 2), QC_OK);
    }
    for (left = count; left > 0; left--) {
        struct qc_check_result result = {0};
        uint64_t cursor = 0;

        /* From the middle, from the start, from the end. */
        snprintf(name, sizeof(name), "%u", left % 3 == 0 ? left : left % 3 == 1 ? 1 : left / 2 + 1);
        for (unsigned i = 0, wanted = (unsigned)strtoul(name, NULL, 10); i < wanted; i++)
            assert_int_equal(qc_snapshot_next(&rig->image, &cursor, &snapshot), QC_OK);
        assert_int_equal(qc_snapshot_delete(&rig->image, snapshot.id), QC_OK);
        if (left % 16 != 1)
            continue;
        assert_int_equal(rig_open(rig), QC_OK);
        assert_int_equal(qc_check(&rig->image, QC_FIX_NOTHING, NULL, NULL, &result), QC_OK);
        assert_int_equal(result.corruptions + result.leaks + result.check_errors, 0);
    }
    assert_int_equal(qc_info(&rig->image)->snapshots_count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(extra_data_is_read_as_far_as_it_goes),
        RIG_TEST(entries_that_cannot_be_are_refused),
        RIG_TEST(snapshots_that_are_no_disks_are_not_entered),
        RIG_TEST(new_ids_follow_the_highest),
        RIG_TEST(new_names_are_short),
        RIG_TEST(a_long_table_is_written_in_pieces),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
