/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Images whose tables lie, met by a request: refused with a line before anything lands where it
 * must not, and marked where others would come to harm by it.
 */
#include "damage.h"

#include "../../core/bytes.h"

static uint8_t buf[4 * CLUSTER];

/* ---- entries of L2 and L1 tables ------------------------------------------------------------- */

static void bad_l2_entries_whatever_is_asked(void **state)
{
    static const struct {
        uint64_t entry;
        enum rig_mark mark;
    } cases[] = {
        {6 * CLUSTER + 512, RIG_MARKED},
        {6 * CLUSTER + 2048, RIG_MARKED},
        {(6 * CLUSTER + 512) | ZERO, RIG_MARKED},
        {(6 * CLUSTER + 512) | COPIED, RIG_MARKED},
        {6 * CLUSTER | 2, RIG_UNMARKED},
        {6 * CLUSTER | 256, RIG_UNMARKED},
        {6 * CLUSTER | UINT64_C(1) << 56, RIG_UNMARKED},
        {6 * CLUSTER | UINT64_C(1) << 61, RIG_UNMARKED},
        {9 * CLUSTER, RIG_UNMARKED},
        {UINT64_C(1) << 55, RIG_UNMARKED},
    };
    struct rig *rig = mapped(state);
    char line[QC_DETAIL_BYTES];

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        rig_set_l2(rig, 1, cases[i].entry);
        snprintf(line, sizeof(line), "bad L2 entry 0x%llx at guest 0x1000",
                 (unsigned long long)cases[i].entry);
        expect_each(rig, READ, CLUSTER, line, cases[i].mark);
    }
    rig_set_l2(rig, 1, COMPRESSED);
    expect_each(rig, READ, CLUSTER, "bad compressed cluster at guest 0x1000", RIG_UNMARKED);
    rig_set_l2(rig, 1, COMPRESSED | 9 * CLUSTER);
    expect_each(rig, READ, CLUSTER, "bad compressed cluster at guest 0x1000", RIG_UNMARKED);
    rig_set_l2(rig, 1, rig_data_off(rig, 1) | COPIED);
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(qc_write(&rig->image, CLUSTER, buf, CLUSTER), QC_OK);
}

static void impossible_subclusters_are_marked(void **state)
{
    static const struct {
        uint64_t word, bits;
        enum rig_mark mark;
    } cases[] = {
        {0, 1, RIG_MARKED}, /* bytes of its own in no cluster */
        {5 << 14, UINT64_C(1) << 32 | 1, RIG_MARKED},
        {5 << 14 | 512, 1, RIG_MARKED},
        {5 << 14 | ZERO, 1, RIG_UNMARKED}, /* reserved there */
    };

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct rig *rig = *state;
        char line[QC_DETAIL_BYTES];

        rig_build(rig, 3, 14, 4 << 14, 2);
        put_be64(rig->disk.bytes + 72, QC_INCOMPATIBLE_EXTENDED_L2);
        put_be64(rig->disk.bytes + (AT_L2 << 14) + 16, cases[i].word);
        put_be64(rig->disk.bytes + (AT_L2 << 14) + 24, cases[i].bits);
        snprintf(line, sizeof(line), "bad L2 entry 0x%llx at guest 0x4000",
                 (unsigned long long)cases[i].word);
        expect_refused(rig, 1 << 14, 512, QC_CORRUPT, line, cases[i].mark);
    }
}

static void bad_l1_entries_whatever_is_asked(void **state)
{
    static const struct {
        uint64_t entry;
        enum rig_mark mark;
    } cases[] = {
        {8 * CLUSTER + 512, RIG_MARKED},
        {8 * CLUSTER | 1, RIG_UNMARKED},
        {8 * CLUSTER | UINT64_C(1) << 62, RIG_UNMARKED},
        {9 * CLUSTER, RIG_UNMARKED},
        {AT_L1 * CLUSTER | COPIED, RIG_MARKED},
        {AT_REFTABLE * CLUSTER | COPIED, RIG_MARKED},
    };

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct rig *rig = two_tables(state);
        char line[QC_DETAIL_BYTES];

        put_be64(rig->disk.bytes + CLUSTER * AT_L1 + 8, cases[i].entry);
        snprintf(line, sizeof(line), "bad L1 entry 0x%llx at guest 0x201000",
                 (unsigned long long)cases[i].entry);
        expect_each(rig, READ, REACH + CLUSTER, line, cases[i].mark);
    }
}

/* The mark is for who may write it: not on a disk that is only read, nor where the user says so. */
static void only_writable_images_are_marked(void **state)
{
    struct rig *rig = mapped(state);
    const char *line = "bad L2 entry 0x6200 at guest 0x1000";

    rig_set_l2(rig, 1, 6 * CLUSTER + 512);
    rig->options.readonly = true;
    assert_int_equal(rig_open(rig), QC_OK);
    rig_keep(rig);
    assert_int_equal(qc_read(&rig->image, CLUSTER, buf, 512), QC_CORRUPT);
    assert_string_equal(qc_detail(&rig->image), line);
    rig_expect_damage(rig, qc_write(&rig->image, 0, buf, 512), QC_READONLY, "read-only",
                      RIG_UNMARKED);
    rig->options.readonly = false;
    rig->disk.disk.readonly = true;
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(qc_read(&rig->image, CLUSTER, buf, 512), QC_CORRUPT);
    rig_expect_damage(rig, qc_write(&rig->image, 0, buf, 512), QC_READONLY, "read-only",
                      RIG_UNMARKED);
    rig_build(rig, 2, 12, GUEST, 4); /* which has no place for a mark */
    rig_set_l2(rig, 1, 6 * CLUSTER + 512);
    expect_refused(rig, CLUSTER, 512, QC_CORRUPT, line, RIG_UNMARKED);
}

static void marked_image_says_so_from_then_on(void **state)
{
    struct rig *rig = mapped(state);
    const char *line = "bad L2 entry 0x6200 at guest 0x1000";

    rig_set_l2(rig, 1, 6 * CLUSTER + 512);
    expect_refused(rig, CLUSTER, 512, QC_CORRUPT, line, RIG_MARKED);
    rig_expect_readonly(rig, "image is marked corrupt: read-only");
    assert_int_equal(qc_read(&rig->image, 0, buf, CLUSTER), QC_OK);
    /* Where the mark cannot be written the damage is told all the same. */
    for (unsigned is_flush = 0; is_flush < 2; is_flush++) {
        mapped(state);
        rig_set_l2(rig, 1, 6 * CLUSTER + 512);
        assert_int_equal(rig_open(rig), QC_OK);
        *(is_flush ? &rig->disk.fail_flush_at : &rig->disk.fail_write_at) = 1;
        assert_int_equal(qc_read(&rig->image, CLUSTER, buf, 512), QC_CORRUPT);
        assert_string_equal(qc_detail(&rig->image), line);
        assert_int_equal(qc_write(&rig->image, 0, buf, 512), QC_READONLY);
        assert_string_equal(qc_detail(&rig->image), line);
        assert_int_equal(qc_read(&rig->image, 0, buf, CLUSTER), QC_OK);
    }
}

/* ---- tables that are something else as well ---------------------------------------------------
 */

static void data_that_is_a_table(void **state)
{
    for (unsigned at = AT_REFTABLE; at <= AT_L2; at++) {
        struct rig *rig = mapped(state);
        char line[QC_DETAIL_BYTES];

        rig_set_l2(rig, 1, at * CLUSTER | COPIED);
        snprintf(line, sizeof(line), "cluster 0x%x is metadata", at * CLUSTER);
        expect_each(rig, WRITE, CLUSTER, line, RIG_MARKED);
        /* To be read it harms nobody. */
        put_be64(rig->disk.bytes + 72, 0);
        assert_int_equal(rig_open(rig), QC_OK);
        assert_int_equal(qc_read(&rig->image, CLUSTER, buf, CLUSTER), QC_OK);
        assert_memory_equal(buf, rig->disk.bytes + at * CLUSTER, CLUSTER);
        /* Nor are packed bytes given back that lie in a table. */
        rig_set_l2(rig, 1, COMPRESSED | (at * CLUSTER + 512));
        expect_each(rig, WRITE, CLUSTER, line, RIG_MARKED);
    }
}

static void l2_table_that_is_a_data_cluster(void **state)
{
    struct rig *rig = two_tables(state);
    uint64_t data_off = rig_data_off(rig, 2);

    memset(rig->disk.bytes + data_off, 0, CLUSTER);
    put_be64(rig->disk.bytes + CLUSTER * AT_L1 + 8, data_off | COPIED);
    expect_each(rig, WRITE, 2 * CLUSTER, "cluster 0x7000 is metadata", RIG_MARKED);
}

/* The first change looks for it: whoever writes through one name changes the other's table. */
static void table_of_two_names(void **state)
{
    static const unsigned counts[] = {1, 2};

    for (unsigned i = 0; i < 2; i++) {
        struct rig *rig = two_tables(state);
        uint64_t l2_off = AT_L2 * CLUSTER;

        put_be64(rig->disk.bytes + CLUSTER * AT_L1 + 8, l2_off | (i == 0 ? COPIED : 0));
        image_set_count(&rig->disk, l2_off, counts[i]);
        assert_int_equal(rig_open(rig), QC_OK);
        assert_int_equal(qc_read(&rig->image, REACH, buf, CLUSTER), QC_OK);
        assert_memory_equal(buf, rig->disk.bytes + rig_data_off(rig, 0), CLUSTER);
        expect_each(rig, WRITE, REACH, "table 0x4000 is named twice", RIG_UNMARKED);
        expect_each(rig, WRITE, CLUSTER, "table 0x4000 is named twice", RIG_UNMARKED);
    }
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
    image_set_count(&rig->disk, table_off, 1);
    image_set_count(&rig->disk, table_off + CLUSTER, 1);
    put_be32(rig->disk.bytes + 60, 2);
    put_be64(rig->disk.bytes + 64, table_off);
    return rig;
}

static void last_cluster_of_a_snapshot_table(void **state)
{
    struct rig *rig = with_long_table(state);

    rig_set_l2(rig, 1, rig_data_off(rig, 5) | COPIED);
    expect_refused(rig, CLUSTER, 512, QC_CORRUPT, "cluster 0xa000 is metadata", RIG_MARKED);
    /* Its count says that it is free. */
    with_long_table(state);
    image_set_count(&rig->disk, rig_data_off(rig, 5), 0);
    expect_refused(rig, 10 * CLUSTER, 512, QC_CORRUPT, "free cluster 0xa000 is metadata",
                   RIG_MARKED);
    with_long_table(state);
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(qc_write(&rig->image, CLUSTER, buf, 512), QC_OK);
}

/* Nobody knows what else belongs to it: known at the opening, with the line. */
static void snapshot_table_without_an_end(void **state)
{
    struct rig *rig = with_long_table(state);
    uint8_t *entry = rig->disk.bytes + rig_data_off(rig, 4);

    put_be32(entry + 36, 1025);
    rig_expect_readonly(rig, "snapshot has 1025 bytes of extra data");
    put_be32(entry + 36, UINT32_MAX);
    rig_expect_readonly(rig, "snapshot has 4294967295 bytes of extra data");
    with_long_table(state);
    put_be32(entry + 12, UINT32_MAX);
    rig_expect_readonly(rig, "snapshot table ends behind the disk");
    with_long_table(state);
    put_be32(entry + 40 + 16 + CLUSTER + 12, CLUSTER);
    rig_expect_readonly(rig, "snapshot table ends behind the disk");
    with_long_table(state);
    put_be32(entry + 40 + 16 + CLUSTER + 12, CLUSTER - 200); /* up to the last cluster's end */
    rig_expect(rig, QC_OK, "");
    assert_string_equal(qc_readonly_reason(&rig->image), "");
}

static void cluster_that_the_disk_cuts(void **state)
{
    struct rig *rig = mapped(state);

    rig_fix_size(rig, rig_data_off(rig, 3) + 512);
    expect_refused(rig, 3 * CLUSTER, CLUSTER, QC_UNSUPPORTED, "cluster 0x8000 ends behind the disk",
                   RIG_UNMARKED);
    rig_set_l2(rig, 3, rig_data_off(rig, 3) | ZERO | COPIED);
    expect_refused(rig, 3 * CLUSTER, 512, QC_UNSUPPORTED, "cluster 0x8000 ends behind the disk",
                   RIG_UNMARKED);
    assert_string_equal(qc_readonly_reason(&rig->image), "");
    assert_int_equal(qc_write(&rig->image, 0, buf, CLUSTER), QC_OK);
    assert_int_equal(qc_settle(&rig->image), QC_OK);
}

static void disk_of_no_whole_blocks(void **state)
{
    struct rig *rig = mapped(state);

    rig_fix_size(rig, rig_data_off(rig, 4) + 8);
    expect_refused(rig, 0, 512, QC_READONLY, "disk of 36872 bytes is no whole blocks: read-only",
                   RIG_UNMARKED);
}

static void refcount_block_that_is_the_l1(void **state)
{
    struct rig *rig = mapped(state);

    put_be64(rig->disk.bytes + CLUSTER * AT_REFTABLE, CLUSTER * AT_L1);
    expect_refused(rig, 0, 512, QC_CORRUPT, "bad refcount block at 0x3000", RIG_MARKED);
}

static void l2_table_that_is_a_refcount_block(void **state)
{
    struct rig *rig = mapped(state);

    put_be64(rig->disk.bytes + CLUSTER * AT_L1, CLUSTER * AT_REFBLOCK | COPIED);
    memset(rig->disk.bytes + CLUSTER * AT_REFBLOCK + 8 * 40, 0, 8); /* an entry that says nothing */
    expect_refused(rig, 40 * CLUSTER, 512, QC_CORRUPT, "cluster 0x2000 is metadata", RIG_MARKED);
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
        RIG_TEST(bad_l2_entries_whatever_is_asked),  RIG_TEST(impossible_subclusters_are_marked),
        RIG_TEST(bad_l1_entries_whatever_is_asked),  RIG_TEST(only_writable_images_are_marked),
        RIG_TEST(marked_image_says_so_from_then_on), RIG_TEST(data_that_is_a_table),
        RIG_TEST(l2_table_that_is_a_data_cluster),   RIG_TEST(table_of_two_names),
        RIG_TEST(last_cluster_of_a_snapshot_table),  RIG_TEST(snapshot_table_without_an_end),
        RIG_TEST(cluster_that_the_disk_cuts),        RIG_TEST(disk_of_no_whole_blocks),
        RIG_TEST(refcount_block_that_is_the_l1),     RIG_TEST(l2_table_that_is_a_refcount_block),
        RIG_TEST(full_host_takes_writes_in_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
