/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Growing the guest disk: what is new reads as zeros whatever lay behind the end or lies below, the
 * L1 table moves when it must, and a failure at any write or flush leaves the old size or the new
 * one, never less.
 */
#include "support.h"

#include "../../core/bytes.h"
#include "../../core/counts.h"

#define CLUSTER 512u
#define GUEST   (5u * CLUSTER) /* of the image to start from, and 5 clusters of data */
#define REACH   (CLUSTER / 8 * CLUSTER)
#define LARGE   (REACH * 150u + 7 * CLUSTER) /* its L1 table has three clusters */
#define SHORT   (GUEST + CLUSTER)

static uint8_t buf[LARGE], expected[GUEST];

static struct rig *mapped(void **state, uint64_t guest_bytes)
{
    struct rig *rig = *state;

    memset(&rig->options, 0, sizeof(rig->options));
    rig_build(rig, 3, 9, guest_bytes, 15);
    rig_map(rig, 5);
    for (unsigned i = 5; i < 15; i++) /* free, and full of old bytes */
        image_set_count(&rig->disk, rig_data_off(rig, i), 0);
    memcpy(expected, rig->disk.bytes + rig_data_off(rig, 0), GUEST);
    assert_int_equal(rig_open(rig), QC_OK);
    return rig;
}

/* The guest is so large, begins with what it had, and is zeros behind from. */
static void expect_guest(struct rig *rig, uint64_t size, uint64_t from)
{
    assert_true(qc_size(&rig->image) == size);
    assert_int_equal(qc_read(&rig->image, 0, buf, size), QC_OK);
    assert_memory_equal(buf, expected, from);
    for (uint64_t i = from; i < size; i++)
        assert_int_equal(buf[i], 0);
}

static void grows_within_its_l1_table(void **state)
{
    struct rig *rig = mapped(state, GUEST);
    uint64_t l1_off = qc_info(&rig->image)->l1_off;

    assert_int_equal(qc_resize(&rig->image, SHORT), QC_OK);
    expect_guest(rig, SHORT, GUEST);
    assert_true(qc_be64(rig->disk.bytes + 24) == SHORT);
    assert_true(qc_info(&rig->image)->l1_off == l1_off);
    assert_int_equal(rig_open(rig), QC_OK);
    expect_guest(rig, SHORT, GUEST);
}

static void grows_to_a_longer_l1_table(void **state)
{
    struct rig *rig = mapped(state, GUEST);
    uint64_t old_l1_off = qc_info(&rig->image)->l1_off, new_l1_off;

    memset(rig->cache.staging, 0xee, rig->cache.staging_bytes); /* what was put together last */
    assert_int_equal(qc_resize(&rig->image, LARGE), QC_OK);
    expect_guest(rig, LARGE, GUEST);
    assert_int_equal(qc_settle(&rig->image), QC_OK);
    new_l1_off = qc_be64(rig->disk.bytes + 40);
    assert_true(new_l1_off != old_l1_off);
    assert_int_equal(qc_be32(rig->disk.bytes + 36), 151);
    assert_int_equal(image_count(&rig->disk, old_l1_off), 0);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(image_count(&rig->disk, new_l1_off + i * CLUSTER), 1);
    memset(buf, 0x5a, CLUSTER);
    assert_int_equal(qc_write(&rig->image, LARGE - CLUSTER, buf, CLUSTER), QC_OK);
    assert_int_equal(qc_settle(&rig->image), QC_OK);
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(qc_read(&rig->image, LARGE - CLUSTER, buf, CLUSTER), QC_OK);
    assert_int_equal(buf[0], 0x5a);
}

/* A table longer than what one refcount block counts: the blocks it needs lie before it. */
static void grows_past_the_reach_of_refcount_blocks(void **state)
{
    struct rig *rig = mapped(state, GUEST);
    const uint64_t size = UINT64_C(1) << 30;
    uint64_t l1_off;

    assert_int_equal(qc_resize(&rig->image, size), QC_OK);
    assert_int_equal(qc_settle(&rig->image), QC_OK);
    assert_in_range(rig->disk.disk.size_bytes, size / REACH * 8, 3u * 1024 * 1024);
    assert_int_equal(rig_open(rig), QC_OK);
    l1_off = qc_info(&rig->image)->l1_off;
    for (uint64_t off = 0; off < size / REACH * 8; off += CLUSTER) {
        uint64_t count;

        assert_int_equal(qc_count_get(&rig->image, (l1_off + off) / CLUSTER, &count), QC_OK);
        assert_int_equal(count, 1);
    }
    memset(buf, 0x5a, CLUSTER);
    assert_int_equal(qc_write(&rig->image, size - CLUSTER, buf, CLUSTER), QC_OK);
    assert_int_equal(qc_settle(&rig->image), QC_OK);
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(qc_read(&rig->image, size - CLUSTER, buf, CLUSTER), QC_OK);
    assert_int_equal(buf[0], 0x5a);
}

/* The cluster in which the disk ended, and entries behind its end, may hold anything. */
static void what_lay_behind_the_end_reads_as_zeros(void **state)
{
    struct rig *rig = mapped(state, 2 * CLUSTER + 512);

    rig_build(rig, 3, 12, 4096 + 512, 5);
    rig_map(rig, 5);
    memcpy(expected, rig->disk.bytes + rig_data_off(rig, 0), GUEST);
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(qc_resize(&rig->image, 5 * 4096), QC_OK);
    assert_int_equal(qc_read(&rig->image, 4096, buf, 4 * 4096), QC_OK);
    assert_int_equal(buf[511], pattern_at(rig_data_off(rig, 1) + 511));
    for (unsigned i = 512; i < 4 * 4096; i++)
        assert_int_equal(buf[i], 0);
}

static struct mem_layers below;
static struct mem_disk base;

/* A layer below that is longer than the disk was must not show in what is new. */
static void a_longer_layer_below_does_not_show(void **state)
{
    for (unsigned version = 2; version <= 3; version++) {
        struct rig *rig = *state;

        memset(&rig->options, 0, sizeof(rig->options));
        rig_build(rig, version, 9, GUEST, 5);
        image_set_below(&rig->disk, "base", "raw");
        layers_init(&below);
        memset(&base, 0, sizeof(base));
        image_build(&base, 3, 9, GUEST, 5);
        base.disk.readonly = true;
        base.disk.size_bytes = 9 * CLUSTER;
        memset(base.bytes, 0x77, 9 * CLUSTER);
        memset(expected, 0x77, GUEST);
        below.disks[1] = &base;
        rig->options.bases = &below.bases;
        assert_int_equal(rig_open(rig), QC_OK);
        assert_int_equal(qc_resize(&rig->image, 12 * CLUSTER), QC_OK);
        expect_guest(rig, 12 * CLUSTER, GUEST);
        assert_int_equal(rig_open(rig), QC_OK);
        expect_guest(rig, 12 * CLUSTER, GUEST);
    }
}

static void sizes_that_are_refused(void **state)
{
    struct rig *rig = mapped(state, GUEST);

    assert_int_equal(qc_resize(&rig->image, GUEST - 512), QC_RANGE);
    assert_int_equal(qc_resize(&rig->image, GUEST + 1), QC_RANGE);
    assert_int_equal(qc_resize(&rig->image, QC_GUEST_BYTES_MAX + 512), QC_UNSUPPORTED);
    assert_int_equal(qc_resize(&rig->image, (uint64_t)QC_L1_BYTES_MAX / 8 * REACH + 512),
                     QC_UNSUPPORTED);
    assert_int_equal(qc_resize(&rig->image, GUEST), QC_OK);
    expect_guest(rig, GUEST, GUEST);
    for (unsigned i = 5; i < 15; i++)
        image_set_count(&rig->disk, rig_data_off(rig, i), 1);
    assert_int_equal(rig_open(rig), QC_OK);
    rig->disk.is_full = true;
    assert_int_equal(qc_resize(&rig->image, LARGE), QC_NOSPACE);
    expect_guest(rig, GUEST, GUEST);
    assert_int_equal(qc_resize(&rig->image, SHORT), QC_OK);
    rig_build(rig, 2, 9, GUEST, 5);
    put_be32(rig->disk.bytes + 60, 1);
    put_be64(rig->disk.bytes + 64, rig_data_off(rig, 4));
    memset(rig->disk.bytes + rig_data_off(rig, 4), 0, 512); /* one without names */
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(qc_resize(&rig->image, SHORT), QC_UNSUPPORTED);
}

/* Whether the last write was one of the header: then nobody knows which one the disk has. */
static bool is_header_write(const struct rig *rig)
{
    return rig->disk.write_off_last == 0;
}

/* A failed write of the new table gives its clusters back. */
static void a_failed_table_is_no_leak(void **state)
{
    struct rig *rig = mapped(state, GUEST);

    rig->disk.fail_write_at = rig->disk.writes_count + 1;
    assert_int_equal(qc_resize(&rig->image, LARGE), QC_IO);
    rig->disk.fail_write_at = 0;
    assert_int_equal(qc_settle(&rig->image), QC_OK);
    for (unsigned i = 5; i < 15; i++)
        assert_int_equal(image_count(&rig->disk, rig_data_off(rig, i)), 0);
}

/* Cuts it off at one write or flush, opens anew, and grows again. */
static bool survives_failure(struct rig *rig, unsigned write, unsigned flush)
{
    qc_status status;

    rig->disk.writes_count = rig->disk.flushes_count = 0;
    rig->disk.fail_write_at = write;
    rig->disk.fail_flush_at = flush;
    status = qc_resize(&rig->image, LARGE);
    rig->disk.fail_write_at = rig->disk.fail_flush_at = 0;
    if (status != QC_OK) {
        assert_string_not_equal(qc_detail(&rig->image), "");
        expect_guest(rig, GUEST, GUEST);
        if (rig->disk.writes_count == write && is_header_write(rig))
            assert_string_not_equal(qc_readonly_reason(&rig->image), "");
    }
    assert_int_equal(rig_open(rig), QC_OK);
    if (qc_size(&rig->image) == GUEST)
        expect_guest(rig, GUEST, GUEST);
    else
        expect_guest(rig, LARGE, GUEST);
    memset(rig->cache.staging, 0xee, rig->cache.staging_bytes); /* what was put together last */
    assert_int_equal(qc_resize(&rig->image, LARGE), QC_OK);
    expect_guest(rig, LARGE, GUEST);
    assert_int_equal(qc_settle(&rig->image), QC_OK);
    assert_int_equal(image_count(&rig->disk, qc_info(&rig->image)->l1_off), 1);
    return status == QC_OK;
}

static void every_failure_leaves_the_old_size_or_the_new(void **state)
{
    unsigned failures = 0;

    for (unsigned at = 1; !survives_failure(mapped(state, GUEST), at, 0); at++)
        failures++;
    for (unsigned at = 1; !survives_failure(mapped(state, GUEST), 0, at); at++)
        failures++;
    assert_true(failures >= 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(grows_within_its_l1_table),
        RIG_TEST(grows_to_a_longer_l1_table),
        RIG_TEST(grows_past_the_reach_of_refcount_blocks),
        RIG_TEST(what_lay_behind_the_end_reads_as_zeros),
        RIG_TEST(a_longer_layer_below_does_not_show),
        RIG_TEST(sizes_that_are_refused),
        RIG_TEST(a_failed_table_is_no_leak),
        RIG_TEST(every_failure_leaves_the_old_size_or_the_new),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
