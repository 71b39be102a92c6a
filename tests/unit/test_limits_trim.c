/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Which bytes the host gets back after a commit: runs of clusters, each once, as far as there is a
 * disk.
 */
#include "support.h"

#include "../../core/commit.h"
#include "../../core/counts.h"

#define CLUSTER 4096u
#define DATA    8u

static struct qc_disk_ops ops;
static const struct qc_disk_ops *plain_ops;
static struct {
    uint64_t host_off, len;
} trims[8];
static unsigned trims_count;

static void noting_trim(struct qc_disk *disk, uint64_t host_off, uint64_t len)
{
    assert_true(len > 0 && trims_count < 8);
    trims[trims_count].host_off = host_off;
    trims[trims_count++].len = len;
    plain_ops->trim(disk, host_off, len);
}

/* Guest clusters 0 to 7 lie side by side. */
static struct rig *built(void **state)
{
    struct rig *rig = *state;

    rig_build(rig, 3, 12, 64u * CLUSTER, DATA);
    rig_map(rig, DATA);
    plain_ops = rig->disk.disk.ops;
    ops = *plain_ops;
    ops.trim = noting_trim;
    rig->disk.disk.ops = &ops;
    trims_count = 0;
    assert_int_equal(rig_open(rig), QC_OK);
    return rig;
}

static void neighbours_go_back_together(void **state)
{
    struct rig *rig = built(state);

    rig->image.free_hint = 100;
    assert_int_equal(qc_discard(&rig->image, CLUSTER, 2 * CLUSTER), QC_OK);
    assert_int_equal(qc_discard(&rig->image, 4 * CLUSTER, CLUSTER), QC_OK);
    assert_int_equal(trims_count, 0);
    assert_int_equal(qc_flush(&rig->image), QC_OK);
    assert_int_equal(trims_count, 2);
    assert_true(trims[0].host_off == rig_data_off(rig, 1) && trims[0].len == 2 * CLUSTER);
    assert_true(trims[1].host_off == rig_data_off(rig, 4) && trims[1].len == CLUSTER);
    assert_int_equal(rig->image.free_hint, AT_DATA + 1);
    assert_int_equal(qc_discard(&rig->image, 6 * CLUSTER, CLUSTER), QC_OK);
    assert_int_equal(qc_flush(&rig->image), QC_OK);
    assert_int_equal(rig->image.free_hint, AT_DATA + 1); /* that is still the first */
    assert_int_equal(trims_count, 3);
    assert_true(trims[2].host_off == rig_data_off(rig, 6));
}

/* Clusters of packed bytes may end behind the disk, or lie there. */
static void disk_ends_within_what_goes_back(void **state)
{
    static const struct {
        uint64_t present, len; /* bytes of the cluster, and what goes back of it */
    } cases[] = {{CLUSTER, CLUSTER}, {CLUSTER - 512, CLUSTER - 512}, {512, 512}, {0, 0}};

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct rig *rig = built(state);
        uint64_t count;

        rig->disk.disk.size_bytes = rig_data_off(rig, DATA - 1) + cases[i].present;
        assert_int_equal(qc_count_prepare(&rig->image, AT_DATA + DATA - 1, &count), QC_OK);
        assert_int_equal(count, 1);
        qc_count_drop(&rig->image, AT_DATA + DATA - 1);
        assert_int_equal(qc_commit(&rig->image), QC_OK);
        assert_int_equal(trims_count, cases[i].len != 0);
        assert_true(trims_count == 0 || trims[0].len == cases[i].len);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(neighbours_go_back_together),
        RIG_TEST(disk_ends_within_what_goes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
