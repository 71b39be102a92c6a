/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Images whose tables lie, met by a write: refused with a line before anything lands where it must
 * not. The disk in memory itself fails the test on any request past its end.
 */
#include "support.h"

#include "../../core/bytes.h"

#define COPIED  (UINT64_C(1) << 63)
#define ZERO    UINT64_C(1)
#define CLUSTER 4096u
#define GUEST   (64u * CLUSTER)

static uint8_t buf[GUEST], before[MEM_DISK_BYTES];

/* 4 KiB clusters, the first four mapped in order. */
static struct rig *mapped(void **state)
{
    struct rig *rig = *state;

    rig_build(rig, 3, 12, GUEST, 4);
    for (unsigned i = 0; i < 4; i++)
        rig_set_l2(rig, i, rig_data_off(rig, i) | COPIED);
    return rig;
}

static void set_count(struct rig *rig, uint64_t host_off, uint8_t count)
{
    rig->disk.bytes[CLUSTER * AT_REFBLOCK + host_off / CLUSTER * 2 + 1] = count;
}

/* Opens, and requires that this write is refused so and changes no byte of the disk. */
static void expect_refused(struct rig *rig, uint64_t guest_off, size_t len, qc_status status,
                           const char *detail)
{
    assert_int_equal(rig_open(rig), QC_OK);
    memcpy(before, rig->disk.bytes, sizeof(before));
    assert_int_equal(qc_write(&rig->image, guest_off, buf, len), status);
    assert_string_equal(qc_detail(&rig->image), detail);
    assert_memory_equal(before, rig->disk.bytes, sizeof(before));
    assert_int_equal(qc_settle(&rig->image), QC_OK);
    assert_memory_equal(before, rig->disk.bytes, sizeof(before));
}

static void kept_cluster_outside_the_disk(void **state)
{
    struct rig *rig = mapped(state);

    rig_set_l2(rig, 1, 0x80000000 | ZERO | COPIED);
    expect_refused(rig, CLUSTER, 512, QC_CORRUPT,
                   "bad L2 entry 0x8000000080000001 at guest 0x1000");
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(qc_discard(&rig->image, CLUSTER, CLUSTER), QC_CORRUPT);
}

/*
 * Two snapshots of no cluster; the first one's entry fills the cluster of the table and more, so
 * that the second lies in the next.
 */
static struct rig *with_long_table(void **state)
{
    struct rig *rig = mapped(state);
    uint64_t table_off = rig_data_off(rig, 4);
    uint8_t *entry = rig->disk.bytes + table_off;

    rig->disk.disk.size_bytes = table_off + 2 * CLUSTER;
    memset(entry, 0, 2 * CLUSTER);
    put_be32(entry + 12, CLUSTER); /* no id, so long a name */
    put_be32(entry + 36, 16);
    put_be32(entry + 40 + 16 + CLUSTER + 36, 16);
    set_count(rig, table_off, 1);
    set_count(rig, table_off + CLUSTER, 1);
    put_be32(rig->disk.bytes + 60, 2);
    put_be64(rig->disk.bytes + 64, table_off);
    return rig;
}

static void last_cluster_of_a_snapshot_table(void **state)
{
    struct rig *rig = with_long_table(state);

    rig_set_l2(rig, 1, rig_data_off(rig, 5) | COPIED);
    expect_refused(rig, CLUSTER, 512, QC_CORRUPT, "cluster 0xa000 is metadata");
    /* Its count says that it is free. */
    with_long_table(state);
    set_count(rig, rig_data_off(rig, 5), 0);
    expect_refused(rig, 10 * CLUSTER, 512, QC_CORRUPT, "free cluster 0xa000 is metadata");
    with_long_table(state);
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(qc_write(&rig->image, CLUSTER, buf, 512), QC_OK);
}

/* Nobody knows what else belongs to it. */
static void snapshot_table_without_an_end(void **state)
{
    struct rig *rig = with_long_table(state);
    uint64_t table_off = rig_data_off(rig, 4);

    put_be32(rig->disk.bytes + table_off + 36, 1025);
    expect_refused(rig, 0, 512, QC_UNSUPPORTED, "snapshot has 1025 bytes of extra data");
    with_long_table(state);
    put_be32(rig->disk.bytes + table_off + 12, 0xffffffff);
    expect_refused(rig, 0, 512, QC_CORRUPT, "snapshot table ends behind the disk");
    with_long_table(state);
    put_be32(rig->disk.bytes + table_off + 40 + 16 + CLUSTER + 12, CLUSTER);
    expect_refused(rig, 0, 512, QC_CORRUPT, "snapshot table ends behind the disk");
}

static void cluster_that_the_disk_cuts(void **state)
{
    struct rig *rig = mapped(state);

    rig_fix_size(rig, rig_data_off(rig, 3) + 512);
    expect_refused(rig, 3 * CLUSTER, CLUSTER, QC_UNSUPPORTED,
                   "cluster 0x8000 ends behind the disk");
    rig_set_l2(rig, 3, rig_data_off(rig, 3) | ZERO | COPIED);
    expect_refused(rig, 3 * CLUSTER, 512, QC_UNSUPPORTED, "cluster 0x8000 ends behind the disk");
    assert_string_equal(qc_readonly_reason(&rig->image), "");
    assert_int_equal(qc_write(&rig->image, 0, buf, CLUSTER), QC_OK);
    assert_int_equal(qc_settle(&rig->image), QC_OK);
}

static void disk_of_no_whole_blocks(void **state)
{
    struct rig *rig = mapped(state);

    rig_fix_size(rig, rig_data_off(rig, 4) + 8);
    expect_refused(rig, 0, 512, QC_READONLY, "disk of 36872 bytes is no whole blocks: read-only");
}

static void entries_that_share_more_than_the_count(void **state)
{
    struct rig *rig = mapped(state);

    for (unsigned i = 0; i < 3; i++)
        rig_set_l2(rig, i, rig_data_off(rig, 0));
    set_count(rig, rig_data_off(rig, 0), 2);
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(qc_write(&rig->image, 0, buf, 3 * CLUSTER), QC_CORRUPT);
    assert_string_equal(qc_detail(&rig->image), "refcount out of range at 0x5000");
    assert_int_equal(qc_settle(&rig->image), QC_OK);
    assert_int_equal(rig->disk.bytes[CLUSTER * AT_REFBLOCK + 5 * 2 + 1], 2);
    assert_int_equal(rig->disk.bytes[CLUSTER * AT_REFBLOCK + 5 * 2], 0);
}

static void refcount_block_that_is_the_l1(void **state)
{
    struct rig *rig = mapped(state);

    put_be64(rig->disk.bytes + CLUSTER * AT_REFTABLE, CLUSTER * AT_L1);
    expect_refused(rig, 0, 512, QC_CORRUPT, "bad refcount block at 0x3000");
}

static void l2_table_that_is_a_refcount_block(void **state)
{
    struct rig *rig = mapped(state);

    put_be64(rig->disk.bytes + CLUSTER * AT_L1, CLUSTER * AT_REFBLOCK | COPIED);
    memset(rig->disk.bytes + CLUSTER * AT_REFBLOCK + 8 * 40, 0, 8); /* an entry that says nothing */
    expect_refused(rig, 40 * CLUSTER, 512, QC_CORRUPT, "cluster 0x2000 is metadata");
}

static void full_host_takes_writes_in_place(void **state)
{
    struct rig *rig = mapped(state);

    rig_build(rig, 3, 12, GUEST, (MEM_DISK_BYTES / CLUSTER) - AT_DATA);
    rig_set_l2(rig, 0, rig_data_off(rig, 0) | COPIED);
    rig->disk.disk.size_bytes -= 512; /* the file ends within its last cluster, and cannot grow */
    rig->disk.is_full = true;
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(qc_write(&rig->image, 0, buf, 512), QC_OK);
    assert_int_equal(qc_write(&rig->image, CLUSTER, buf, 512), QC_NOSPACE);
    assert_int_equal(qc_write(&rig->image, 512, buf, 512), QC_OK);
    assert_int_equal(qc_settle(&rig->image), QC_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(kept_cluster_outside_the_disk),   RIG_TEST(last_cluster_of_a_snapshot_table),
        RIG_TEST(snapshot_table_without_an_end),   RIG_TEST(cluster_that_the_disk_cuts),
        RIG_TEST(disk_of_no_whole_blocks),         RIG_TEST(entries_that_share_more_than_the_count),
        RIG_TEST(refcount_block_that_is_the_l1),   RIG_TEST(l2_table_that_is_a_refcount_block),
        RIG_TEST(full_host_takes_writes_in_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
