/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Assertions fail safe: a promise of our own that is broken, here by hand, turns the image
 * read-only with a line; nothing more is written, and what can be read stays readable.
 */
#include "support.h"

#include "../../core/change.h"
#include "../../core/counts.h"
#include "../../core/patch.h"
#include "../../core/window.h"

#define COPIED  (UINT64_C(1) << 63)
#define CLUSTER 4096u

static uint8_t buf[CLUSTER], before[MEM_DISK_BYTES];

static struct rig *changed(void **state)
{
    struct rig *rig = *state;

    rig_build(rig, 3, 12, 64u * CLUSTER, 2);
    rig_set_l2(rig, 0, rig_data_off(rig, 0) | COPIED);
    assert_int_equal(rig_open(rig), QC_OK);
    memset(buf, 7, sizeof(buf));
    assert_int_equal(qc_write(&rig->image, 0, buf, CLUSTER), QC_OK);
    assert_int_equal(qc_write(&rig->image, 8 * CLUSTER, buf, CLUSTER), QC_OK);
    memcpy(before, rig->disk.bytes, sizeof(before));
    return rig;
}

/* The epoch is never published, and nobody may write; reading goes on. */
static void expect_safe(struct rig *rig, const char *what)
{
    char line[QC_DETAIL_BYTES];

    snprintf(line, sizeof(line), "internal fault: %s: read-only", what);
    assert_string_equal(qc_readonly_reason(&rig->image), line);
    assert_int_equal(qc_write(&rig->image, 0, buf, CLUSTER), QC_READONLY);
    assert_string_equal(qc_detail(&rig->image), line);
    assert_int_equal(qc_flush(&rig->image), QC_READONLY);
    assert_int_equal(qc_settle(&rig->image), QC_READONLY);
    assert_memory_equal(before, rig->disk.bytes, sizeof(before));
    assert_int_equal(qc_read(&rig->image, 0, buf, CLUSTER), QC_OK);
    assert_int_equal(buf[CLUSTER - 1], 7);
    assert_int_equal(qc_read(&rig->image, 8 * CLUSTER, buf, CLUSTER), QC_OK);
    assert_int_equal(buf[CLUSTER - 1], 7);
}

static void reference_that_was_never_counted(void **state)
{
    struct rig *rig = changed(state);
    uint64_t count;

    qc_count_drop(&rig->image, 900);
    assert_int_equal(qc_flush(&rig->image), QC_IO);
    expect_safe(rig, "a reference was dropped that was not counted");
    changed(state);
    assert_int_equal(qc_count_prepare(&rig->image, AT_DATA, &count), QC_OK);
    assert_int_equal(count, 1);
    qc_count_drop(&rig->image, AT_DATA);
    assert_null(rig->image.epoch.fault);
    qc_count_drop(&rig->image, AT_DATA);
    assert_int_equal(qc_flush(&rig->image), QC_IO);
    expect_safe(rig, "a reference was dropped that was not counted");
}

static void record_without_room(void **state)
{
    struct rig *rig = changed(state);
    uint64_t key = 100;

    while (qc_epoch_has_room(&rig->image.epoch, 1))
        qc_epoch_add(&rig->image.epoch, QC_RECORD_COUNT, key++);
    assert_null(rig->image.epoch.fault);
    assert_ptr_equal(qc_epoch_add(&rig->image.epoch, QC_RECORD_COUNT, key),
                     &rig->image.epoch.runoff);
    assert_int_equal(qc_flush(&rig->image), QC_IO);
    expect_safe(rig, "no room was reserved");
}

static void table_outside_the_disk(void **state)
{
    struct rig *rig = changed(state);
    uint64_t end = rig->disk.disk.size_bytes;
    struct qc_window window = {
        .table_off = end - 512, .table_bytes = CLUSTER, .host_off = end - 512, .len = 512};

    assert_int_equal(qc_window_store(&rig->image, &window), QC_OK);
    memcpy(before, rig->disk.bytes, sizeof(before));
    window.len = 1024;
    assert_int_equal(qc_window_store(&rig->image, &window), QC_IO);
    assert_int_equal(qc_note_damage(&rig->image, QC_IO), QC_IO);
    expect_safe(rig, "a table outside the disk");
    changed(state);
    window = (struct qc_window){
        .table_off = 2 * CLUSTER, .table_bytes = CLUSTER, .host_off = CLUSTER, .len = 512};
    assert_int_equal(qc_window_store(&rig->image, &window), QC_IO);
    assert_int_equal(qc_note_damage(&rig->image, QC_OK), QC_IO);
    expect_safe(rig, "a table outside the disk");
}

static void data_where_none_may_be(void **state)
{
    struct rig *rig = changed(state);
    uint64_t end = rig->disk.disk.size_bytes;

    assert_int_equal(qc_write_data(&rig->image, CLUSTER, buf, 512), QC_OK);
    assert_int_equal(qc_write_data(&rig->image, end - 512, buf, 512), QC_OK);
    memcpy(before, rig->disk.bytes, sizeof(before));
    assert_int_equal(qc_write_data(&rig->image, CLUSTER - 512, buf, 512), QC_IO);
    assert_string_equal(qc_detail(&rig->image),
                        "internal fault: data outside the disk or on the header");
    assert_int_equal(qc_note_damage(&rig->image, QC_IO), QC_IO);
    expect_safe(rig, "data outside the disk or on the header");
    changed(state);
    assert_int_equal(qc_write_data(&rig->image, end - 512, buf, 1024), QC_IO);
    assert_int_equal(qc_note_damage(&rig->image, QC_IO), QC_IO);
    expect_safe(rig, "data outside the disk or on the header");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(reference_that_was_never_counted),
        RIG_TEST(record_without_room),
        RIG_TEST(table_outside_the_disk),
        RIG_TEST(data_where_none_may_be),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
