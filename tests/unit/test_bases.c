/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * How the layers below an image are found: what the front end is asked, which names and formats
 * are refused, and that nothing is opened that it did not hand out. What layers show is
 * test_layers.c's.
 */
#include "support.h"

#include "../sim/sim.h"

#define ZERO    UINT64_C(1)
#define CLUSTER 4096u
#define GUEST   (64u * CLUSTER)

static struct mem_disk below[3]; /* by depth; 0 is not used */
static struct mem_layers layers;
static uint8_t buf[GUEST];

/* An empty image of 64 clusters of 4 KiB, over a layer of the format. */
static struct rig *overlay(void **state, uint32_t version, const char *format)
{
    struct rig *rig = *state;

    rig_build(rig, version, 12, GUEST, 0);
    image_set_below(&rig->disk, "base", format);
    layers_init(&layers);
    layers.disks[1] = &below[1];
    layers.disks[2] = &below[2];
    rig->options.bases = &layers.bases;
    return rig;
}

static void build_below(unsigned depth)
{
    memset(&below[depth], 0, sizeof(below[depth]));
    image_build(&below[depth], 3, 12, GUEST, 1);
    image_set_l2(&below[depth], 0, AT_DATA * CLUSTER);
    below[depth].disk.readonly = true;
}

static void names_and_formats_are_handed_on(void **state)
{
    struct rig *rig = overlay(state, 3, "qcow2");

    build_below(1);
    image_set_below(&below[1], "../odd name\x01\xff", "");
    layers.formats[2] = QC_FORMAT_RAW;
    build_below(2);
    assert_int_equal(rig_open(rig), QC_OK);
    assert_string_equal(layers.names[1], "base");
    assert_string_equal(layers.names[2], "../odd name\x01\xff");
    assert_int_equal(layers.asked_formats[1], QC_FORMAT_QCOW2);
    assert_int_equal(layers.asked_formats[2], QC_FORMAT_NONE);
    assert_true(rig->image.layers[2].is_raw);
}

static void layers_that_cannot_be_had_are_refused(void **state)
{
    struct rig *rig = overlay(state, 3, "");

    build_below(1);
    rig_expect(rig, QC_REFUSED, "backing name refused: no format given");
    layers.formats[1] = QC_FORMAT_QCOW2;
    rig_expect(rig, QC_OK, "");
    layers.answers[1] = QC_REFUSED;
    rig_expect(rig, QC_REFUSED, "not here");
    layers.answers[1] = QC_OK;
    rig->options.bases = NULL;
    rig_expect(rig, QC_REFUSED, "backing name refused: nothing says where it lies");
    rig = overlay(state, 3, "vmdk");
    rig_expect(rig, QC_UNSUPPORTED, "backing format vmdk not supported");
    rig = overlay(state, 3, "qcow2");
    rig->disk.bytes[rig->disk.bytes[15] + 2] = 0; /* within the name */
    rig_expect(rig, QC_REFUSED, "backing name refused: it ends early");
    assert_int_equal(layers.asked_count, 0);
    rig = overlay(state, 3, "qcow2");
    below[1].bytes[0] = 'q';
    rig_expect(rig, QC_CORRUPT, "layer 1: not a qcow2 image");
    build_below(1);
    put_be64(below[1].bytes + 40, 1);
    rig_expect(rig, QC_CORRUPT, "layer 1: L1 table offset 0x1 invalid");
    assert_int_equal(rig->disk.writes_count, 0);
}

static void layers_may_be_left_out(void **state)
{
    struct rig *rig = overlay(state, 3, "qcow2");

    rig->options.is_backing_off = true;
    rig_set_l2(rig, 3, ZERO);
    rig_expect(rig, QC_OK, "");
    assert_int_equal(layers.asked_count, 0);
    assert_string_equal(qc_readonly_reason(&rig->image), "without the layers below: read-only");
    assert_int_equal(qc_read(&rig->image, 0, buf, GUEST), QC_OK);
    assert_true(buf[0] == 0 && memcmp(buf, buf + 1, GUEST - 1) == 0);
    assert_int_equal(qc_write(&rig->image, 0, buf, 512), QC_READONLY);
    assert_int_equal(qc_discard(&rig->image, 0, CLUSTER), QC_READONLY);
}

/* The image itself can be repaired, and is read-only after that as before. */
static void without_layers_an_image_is_repaired(void **state)
{
    struct rig *rig = overlay(state, 3, "qcow2");
    struct qc_check_result result;

    rig->options.is_backing_off = rig->options.is_for_check = true;
    put_be32(rig->disk.bytes + 56, 0);
    for (unsigned i = 0; i < 2; i++) {
        rig_expect(rig, QC_OK, "");
        assert_int_equal(qc_check(&rig->image, QC_FIX_ALL, NULL, NULL, &result), QC_OK);
        assert_int_equal(result.corruptions, 0);
        assert_true((result.corruptions_fixed > 0) == (i == 0));
        assert_string_equal(qc_readonly_reason(&rig->image), "without the layers below: read-only");
        assert_int_equal(qc_write(&rig->image, 0, buf, 512), QC_READONLY);
    }
}

/* A layer below is only read: nobody repairs it. */
static void damage_below_is_refused_in_a_check_too(void **state)
{
    struct rig *rig = overlay(state, 3, "qcow2");

    rig->options.is_for_check = true;
    build_below(1);
    put_be32(below[1].bytes + 56, 0);
    rig_expect(rig, QC_CORRUPT, "layer 1: no refcount table");
}

static void names_that_lead_away_are_refused(void **state)
{
    static const char *const bad[] = {"",          "/etc/x",   "\\x",  "c:x",  "json:{}",
                                      "nbd://h/x", "a/b:c",    "..",   "../x", "a/..",
                                      "a/../b",    "a\\..\\b", "..\\x"};
    static const char *const good[] = {"x",     "a/b.qcow2", ".x",  "..x", "a..",
                                       "a/..b", "a..b/c",    "./x", "..."};
    struct qc_detail detail;

    (void)state;
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(qc_name_check(bad[i], &detail), QC_REFUSED);
        assert_memory_equal(detail.text, "backing name refused: ", 22);
    }
    for (unsigned i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        assert_int_equal(qc_name_check(good[i], &detail), QC_OK);
}

/* What the crash suite's layers stand on: nothing but a read may be asked of such a disk. */
static void disks_that_are_only_read_count_all_else(void **state)
{
    static struct sim_disk sim;

    (void)state;
    sim_init(&sim, 512, 4096, 8192, true);
    sim.disk.readonly = true;
    assert_int_equal(sim.ops.read(&sim.disk, 0, buf, 512), QC_OK);
    assert_int_equal(sim.broken_count, 0);
    assert_int_equal(sim.ops.write(&sim.disk, 0, buf, 512), QC_IO);
    assert_int_equal(sim.ops.flush(&sim.disk), QC_IO);
    assert_int_equal(sim.ops.grow(&sim.disk, 8192), QC_NOSPACE);
    sim.ops.trim(&sim.disk, 0, 512);
    assert_int_equal(sim.broken_count, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(names_and_formats_are_handed_on),
        RIG_TEST(layers_that_cannot_be_had_are_refused),
        RIG_TEST(layers_may_be_left_out),
        RIG_TEST(without_layers_an_image_is_repaired),
        RIG_TEST(damage_below_is_refused_in_a_check_too),
        cmocka_unit_test(names_that_lead_away_are_refused),
        cmocka_unit_test(disks_that_are_only_read_count_all_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
