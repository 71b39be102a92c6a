/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Images whose counts lie, met by a request: refused with a line before anything lands where it
 * must not, and marked where others would come to harm by it.
 */
#include "damage.h"

#include "../../core/bytes.h"

static uint8_t buf[4 * CLUSTER];

/* ---- refcount blocks --------------------------------------------------------------------------
 */

static void refcount_block_of_two_names(void **state)
{
    struct rig *rig = mapped(state);

    put_be64(rig->disk.bytes + CLUSTER * AT_REFTABLE + 8, CLUSTER * AT_REFBLOCK);
    expect_each(rig, WRITE, CLUSTER, "table 0x2000 is named twice", RIG_UNMARKED);
    put_be64(rig->disk.bytes + CLUSTER * AT_REFTABLE + 8, 0);
    expect_refused(rig, 0, 512, QC_OK, "", RIG_UNMARKED);
}

static void entries_that_share_more_than_the_count(void **state)
{
    struct rig *rig = mapped(state);

    for (unsigned i = 0; i < 3; i++)
        rig_set_l2(rig, i, rig_data_off(rig, 0));
    image_set_count(&rig->disk, rig_data_off(rig, 0), 2);
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(qc_write(&rig->image, 0, buf, 3 * CLUSTER), QC_CORRUPT);
    assert_string_equal(qc_detail(&rig->image), "refcount out of range at 0x5000");
    assert_int_equal(qc_settle(&rig->image), QC_OK);
    assert_int_equal(rig->disk.bytes[CLUSTER * AT_REFBLOCK + 5 * 2 + 1], 2);
    assert_int_equal(rig->disk.bytes[CLUSTER * AT_REFBLOCK + 5 * 2], 0);
}

static void bad_refcount_blocks(void **state)
{
    static const struct {
        uint64_t entry;
        enum rig_mark mark;
    } cases[] = {
        {AT_REFBLOCK * CLUSTER + 512, RIG_MARKED},   {AT_REFBLOCK * CLUSTER | 1, RIG_UNMARKED},
        {AT_REFBLOCK * CLUSTER | 256, RIG_UNMARKED}, {9 * CLUSTER, RIG_UNMARKED},
        {UINT64_MAX - CLUSTER + 1, RIG_UNMARKED},    {AT_REFTABLE * CLUSTER, RIG_MARKED},
    };

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct rig *rig = mapped(state);
        char line[QC_DETAIL_BYTES];

        put_be64(rig->disk.bytes + CLUSTER * AT_REFTABLE, cases[i].entry);
        snprintf(line, sizeof(line), "bad refcount block at 0x%llx",
                 (unsigned long long)cases[i].entry);
        expect_each(rig, WRITE, CLUSTER, line, cases[i].mark);
    }
}

/* ---- counts that lie --------------------------------------------------------------------------
 */

static void counts_that_contradict_entries(void **state)
{
    for (unsigned count = 0; count <= 2; count += 2) {
        struct rig *rig = mapped(state);

        image_set_count(&rig->disk, rig_data_off(rig, 1), count);
        expect_each(rig, WRITE, CLUSTER, "COPIED flag wrong at guest 0x1000", RIG_UNMARKED);
    }
    for (unsigned at = AT_HEADER; at < AT_L2; at++) {
        struct rig *rig = mapped(state);
        char line[QC_DETAIL_BYTES];

        image_set_count(&rig->disk, at * CLUSTER, 0);
        snprintf(line, sizeof(line), "free cluster 0x%x is metadata", at * CLUSTER);
        expect_refused(rig, 10 * CLUSTER, 512, QC_CORRUPT, line, RIG_MARKED);
    }
    image_set_count(&mapped(state)->disk, AT_L2 * CLUSTER, 0);
    expect_refused(*state, CLUSTER, 512, QC_CORRUPT, "refcount out of range at 0x4000",
                   RIG_UNMARKED);
    put_be64(mapped(state)->disk.bytes + CLUSTER * AT_REFTABLE, 0); /* nothing is counted */
    expect_refused(*state, CLUSTER, 512, QC_CORRUPT, "COPIED flag wrong at guest 0x1000",
                   RIG_UNMARKED);
}

/* A count that is too high costs its space and nothing else. */
static void counts_that_are_too_high(void **state)
{
    struct rig *rig = mapped(state);
    struct qc_check_result result;

    rig_set_l2(rig, 1, rig_data_off(rig, 1));
    image_set_count(&rig->disk, rig_data_off(rig, 1), 9);
    memcpy(buf, rig->disk.bytes + rig_data_off(rig, 1), CLUSTER);
    memset(buf, 0x5a, 512);
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(qc_write(&rig->image, CLUSTER, buf, 512), QC_OK);
    assert_int_equal(qc_settle(&rig->image), QC_OK);
    assert_int_equal(qc_check(&rig->image, QC_FIX_NOTHING, NULL, NULL, &result), QC_OK);
    assert_true(result.corruptions == 0 && result.leaks == 1);
    assert_int_equal(image_count(&rig->disk, rig_data_off(rig, 1)), 8);
    assert_int_equal(qc_read(&rig->image, CLUSTER, buf + CLUSTER, CLUSTER), QC_OK);
    assert_memory_equal(buf, buf + CLUSTER, CLUSTER);
}

/* The largest count there is, raised by a snapshot. */
static void count_at_its_maximum(void **state)
{
    struct rig *rig = mapped(state);

    put_be32(rig->disk.bytes + 96, 0); /* counts of one bit, lowest first */
    memset(rig->disk.bytes + CLUSTER * AT_REFBLOCK, 0, CLUSTER);
    put_be64(rig->disk.bytes + CLUSTER * AT_REFBLOCK, UINT64_C(0xff01) << 48);
    assert_int_equal(rig_open(rig), QC_OK);
    rig_keep(rig);
    rig_expect_damage(rig, qc_snapshot_create(&rig->image, "one", 1, 2), QC_UNSUPPORTED,
                      "refcount of 1 at 0x4000 cannot grow", RIG_UNMARKED);
    assert_int_equal(qc_write(&rig->image, 0, buf, CLUSTER), QC_OK);
}

/* The second L1 entry names a table whose first entry names what the first table's does. */
static struct rig *two_names(void **state)
{
    struct rig *rig = two_tables(state);
    uint64_t l2_off = rig_data_off(rig, 3);

    rig_set_l2(rig, 3, 0);
    memset(rig->disk.bytes + l2_off, 0, CLUSTER);
    put_be64(rig->disk.bytes + CLUSTER * AT_L1 + 8, l2_off | COPIED);
    put_be64(rig->disk.bytes + l2_off, rig_data_off(rig, 1) | COPIED);
    return rig;
}

/* Entries side by side are seen to name one cluster; the one that is not written in place may go.
 */
static void cluster_of_two_names_in_one_slice(void **state)
{
    struct rig *rig = mapped(state);

    rig_set_l2(rig, 2, rig_data_off(rig, 1) | COPIED);
    expect_refused(rig, CLUSTER, CLUSTER, QC_CORRUPT, "cluster 0x6000 is named twice",
                   RIG_UNMARKED);
    expect_refused(rig, 2 * CLUSTER, 512, QC_CORRUPT, "cluster 0x6000 is named twice",
                   RIG_UNMARKED);
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(qc_read(&rig->image, CLUSTER, buf, 2 * CLUSTER), QC_OK);
    assert_memory_equal(buf, buf + CLUSTER, CLUSTER);
}

/* Two entries, one cluster, one count: what one of them gives back the other has no more. */
static void cluster_of_two_names(void **state)
{
    struct rig *rig = two_names(state);

    assert_int_equal(rig_open(rig), QC_OK);
    rig_believe(rig);
    assert_int_equal(qc_write(&rig->image, REACH, buf, CLUSTER), QC_OK); /* in place */
    assert_int_equal(qc_discard(&rig->image, CLUSTER, CLUSTER), QC_OK);
    assert_int_equal(qc_settle(&rig->image), QC_OK);
    rig_keep(rig);
    rig_expect_damage(rig, qc_write(&rig->image, REACH, buf, 512), QC_CORRUPT,
                      "COPIED flag wrong at guest 0x200000", RIG_UNMARKED);
}

/* With a count of 2 each gets a cluster of its own, and nobody loses anything. */
static void cluster_of_two_names_that_is_counted_twice(void **state)
{
    struct rig *rig = mapped(state);
    uint64_t host_off = rig_data_off(rig, 1);

    rig_set_l2(rig, 1, host_off);
    rig_set_l2(rig, 2, host_off);
    image_set_count(&rig->disk, host_off, 2);
    assert_int_equal(rig_open(rig), QC_OK);
    memset(buf, 0x5a, CLUSTER);
    assert_int_equal(qc_write(&rig->image, CLUSTER, buf, CLUSTER), QC_OK);
    assert_int_equal(qc_read(&rig->image, 2 * CLUSTER, buf, CLUSTER), QC_OK);
    assert_memory_equal(buf, rig->disk.bytes + host_off, CLUSTER);
    assert_int_equal(buf[0], pattern_at(host_off));
    assert_int_equal(qc_settle(&rig->image), QC_OK);
    assert_int_equal(image_count(&rig->disk, host_off), 1);
}

/* What one name gave back became a table since, which the other must not write into. */
static void cluster_of_two_names_that_is_a_table_now(void **state)
{
    struct rig *rig = two_names(state);
    uint64_t host_off = rig_data_off(rig, 1);

    put_be32(rig->disk.bytes + 36, 3);
    put_be64(rig->disk.bytes + 24, 3 * REACH);
    assert_int_equal(rig_open(rig), QC_OK);
    rig_believe(rig);
    assert_int_equal(qc_discard(&rig->image, CLUSTER, CLUSTER), QC_OK);
    assert_int_equal(qc_settle(&rig->image), QC_OK);
    assert_int_equal(qc_write(&rig->image, 2 * REACH, buf, CLUSTER), QC_OK);
    assert_int_equal(qc_settle(&rig->image), QC_OK);
    assert_true(qc_be64(rig->disk.bytes + CLUSTER * AT_L1 + 16) == (host_off | COPIED));
    rig_keep(rig);
    rig_expect_damage(rig, qc_write(&rig->image, REACH, buf, CLUSTER), QC_CORRUPT,
                      "cluster 0x6000 is metadata", RIG_MARKED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(refcount_block_of_two_names),
        RIG_TEST(entries_that_share_more_than_the_count),
        RIG_TEST(bad_refcount_blocks),
        RIG_TEST(counts_that_contradict_entries),
        RIG_TEST(counts_that_are_too_high),
        RIG_TEST(count_at_its_maximum),
        RIG_TEST(cluster_of_two_names_in_one_slice),
        RIG_TEST(cluster_of_two_names),
        RIG_TEST(cluster_of_two_names_that_is_counted_twice),
        RIG_TEST(cluster_of_two_names_that_is_a_table_now),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
