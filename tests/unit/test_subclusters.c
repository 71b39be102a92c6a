/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Extended L2 entries: what their second word means to a reader, and that a write touches only the
 * subclusters it must. Format: QEMU's docs/interop/qcow2, "Extended L2 Entries".
 */
#include "content.h"

#include "../../core/bytes.h"
#include "../../core/map.h"

#define CLUSTER (16u * 1024)
#define SUB     (CLUSTER / QC_SUBCLUSTERS)
#define GUEST   (8u * CLUSTER)

static uint8_t buf[GUEST];
static struct mem_layers below;
static struct mem_disk base;

static uint8_t *entry_at(struct rig *rig, unsigned index)
{
    return rig->disk.bytes + CLUSTER * AT_L2 + index * 16;
}

static void set_entry(struct rig *rig, unsigned index, uint64_t word, uint64_t bits)
{
    put_be64(entry_at(rig, index), word);
    put_be64(entry_at(rig, index) + 8, bits);
}

static uint64_t word_of(struct rig *rig, unsigned index)
{
    return qc_be64(entry_at(rig, index));
}

static uint64_t bits_of(struct rig *rig, unsigned index)
{
    return qc_be64(entry_at(rig, index) + 8);
}

static uint64_t subs(unsigned first, unsigned end)
{
    uint64_t bits = 0;

    for (unsigned sub = first; sub < end; sub++)
        bits |= QC_SUB_ALLOCATED(sub);
    return bits;
}

/*
 * Cluster 0 has subclusters 2 to 5 of its own, 6 and 7 zeros; 1 is whole; 2 is a host cluster with
 * nothing in it; 3 has only marks of zeros; the rest are holes.
 */
static struct rig *built(void **state, bool has_base)
{
    struct rig *rig = *state;

    memset(&rig->options, 0, sizeof(rig->options));
    rig_build(rig, 3, 14, GUEST, 3);
    put_be64(rig->disk.bytes + 72, QC_INCOMPATIBLE_EXTENDED_L2);
    set_entry(rig, 0, rig_data_off(rig, 0) | QC_ENTRY_COPIED, subs(2, 6) | subs(6, 8) << 32);
    set_entry(rig, 1, rig_data_off(rig, 1) | QC_ENTRY_COPIED, subs(0, 32));
    set_entry(rig, 2, rig_data_off(rig, 2) | QC_ENTRY_COPIED, 0);
    set_entry(rig, 3, 0, subs(0, 32) << 32);
    content_begin(GUEST);
    if (has_base) {
        image_set_below(&rig->disk, "base", "raw");
        layers_init(&below);
        memset(&base, 0, sizeof(base));
        image_build(&base, 3, 14, GUEST, 3);
        base.disk.readonly = true;
        base.disk.size_bytes = GUEST;
        memset(base.bytes, 0x77, GUEST);
        memset(expected, 0x77, GUEST);
        memset(expected + 6 * SUB, 0, 2 * SUB);
        memset(expected + 3 * CLUSTER, 0, CLUSTER);
        below.disks[1] = &base;
        rig->options.bases = &below.bases;
    }
    memcpy(expected + 2 * SUB, rig->disk.bytes + rig_data_off(rig, 0) + 2 * SUB, 4 * SUB);
    memcpy(expected + CLUSTER, rig->disk.bytes + rig_data_off(rig, 1), CLUSTER);
    rig_open_ok(rig);
    return rig;
}

/* Writes, and requires that so many bytes of data went to the disk for it. */
static void write_costing(struct rig *rig, uint64_t guest_off, size_t len, uint64_t bytes)
{
    uint64_t before = rig->disk.write_bytes;

    write_ok(rig, guest_off, len, 3);
    assert_int_equal(rig->disk.write_bytes - before, bytes);
}

static void runs_end_where_subclusters_differ(void **state)
{
    struct rig *rig = built(state, false);
    static const struct {
        uint64_t len;
        enum qc_extent_kind kind;
    } runs[] = {
        {2 * SUB, QC_EXTENT_UNALLOCATED}, {4 * SUB, QC_EXTENT_DATA},
        {2 * SUB, QC_EXTENT_ZERO},        {CLUSTER - 8 * SUB, QC_EXTENT_UNALLOCATED},
        {CLUSTER, QC_EXTENT_DATA},        {CLUSTER, QC_EXTENT_UNALLOCATED},
        {CLUSTER, QC_EXTENT_ZERO},        {4 * CLUSTER, QC_EXTENT_UNALLOCATED},
    };
    uint64_t off = 0;

    for (unsigned i = 0; i < sizeof(runs) / sizeof(runs[0]); i++) {
        struct qc_extent run;

        assert_int_equal(qc_map(&rig->image, off, GUEST - off, &run), QC_OK);
        assert_int_equal(run.kind, runs[i].kind);
        assert_int_equal(run.len, runs[i].len);
        off += run.len;
    }
    assert_int_equal(off, GUEST);
    expect_content(rig);
    expect_content(built(state, true));
}

static void impossible_states_are_refused(void **state)
{
    static const struct {
        uint64_t word, bits;
    } bad[] = {
        {0, 1},                               /* bytes of its own in no cluster */
        {5 * CLUSTER, UINT64_C(1) << 32 | 1}, /* both at once */
        {5 * CLUSTER, UINT64_C(1) << 63 | 1u << 31},
        {5 * CLUSTER | 1, 0}, /* the flag that subclusters replace */
        {1, 0},
    };

    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct rig *rig = built(state, false);

        set_entry(rig, 0, bad[i].word, bad[i].bits);
        assert_int_equal(rig_open(rig), QC_OK);
        assert_int_equal(qc_read(&rig->image, 0, buf, 512), QC_CORRUPT);
        assert_string_not_equal(qc_readonly_reason(&rig->image), "");
        assert_int_equal(qc_write(&rig->image, 0, buf, 512), QC_READONLY);
    }
}

/* In a cluster of our own only the subcluster that is begun is made whole. */
static void a_write_completes_its_subclusters_only(void **state)
{
    for (unsigned has_base = 0; has_base < 2; has_base++) {
        struct rig *rig = built(state, has_base);

        write_costing(rig, 10 * SUB, 2 * SUB, 2 * SUB);
        /* 512 bytes are a subcluster's whole in the smallest clusters */
        write_costing(rig, 3 * SUB, 512, 512);
        write_costing(rig, CLUSTER + 512, 1024, 1024);
        write_costing(rig, 6 * SUB, SUB, SUB);
        expect_durable(rig);
        assert_true(bits_of(rig, 0) == (subs(2, 7) | subs(10, 12) | subs(7, 8) << 32));
        write_costing(rig, 2 * CLUSTER + 31 * SUB, SUB, SUB);
        expect_durable(rig);
        assert_true(bits_of(rig, 2) == subs(31, 32));
        assert_true(word_of(rig, 2) == (rig_data_off(rig, 2) | QC_ENTRY_COPIED));
    }
}

/* A cluster that was none of ours gets what it had of its own, and nothing from below. */
static void a_new_cluster_takes_its_own_subclusters_along(void **state)
{
    struct rig *rig = built(state, true);

    write_costing(rig, 4 * CLUSTER + 7 * SUB, SUB, SUB);
    expect_durable(rig);
    assert_true(bits_of(rig, 4) == subs(7, 8));
    write_costing(rig, 3 * CLUSTER, SUB, SUB);
    expect_durable(rig);
    assert_true(bits_of(rig, 3) == (subs(0, 1) | subs(1, 32) << 32));
}

/* The same where a snapshot has the cluster too: before the write, and on both sides of it. */
static void a_shared_cluster_is_copied_as_far_as_it_has_bytes(void **state)
{
    static const struct {
        unsigned at, bytes_count, first, end;
    } writes[] = {{12, 11, 2, 13}, {3, 4, 2, 6}, {0, 6, 0, 6}};

    for (unsigned i = 0; i < 3; i++) {
        struct rig *rig = built(state, true);
        uint64_t zeros = subs(6, 8) << 32;

        image_set_count(&rig->disk, rig_data_off(rig, 0), 2);
        set_entry(rig, 0, rig_data_off(rig, 0), bits_of(rig, 0));
        assert_int_equal(rig_open(rig), QC_OK);
        write_costing(rig, writes[i].at * SUB, SUB, writes[i].bytes_count * SUB);
        expect_durable(rig);
        assert_int_equal(image_count(&rig->disk, rig_data_off(rig, 0)), 1);
        if (writes[i].end > 6)
            zeros = 0;
        assert_true(bits_of(rig, 0) == (subs(writes[i].first, writes[i].end) | zeros));
    }
}

static void zeroing_writes_no_data(void **state)
{
    for (unsigned has_base = 0; has_base < 2; has_base++) {
        struct rig *rig = built(state, has_base);
        uint64_t before = rig->disk.write_bytes;

        assert_int_equal(qc_zero(&rig->image, CLUSTER + 3 * SUB, 5 * SUB, false), QC_OK);
        assert_int_equal(qc_zero(&rig->image, 5 * CLUSTER + SUB, SUB, true), QC_OK);
        assert_int_equal(qc_zero(&rig->image, 6 * CLUSTER, CLUSTER, true), QC_OK);
        assert_int_equal(rig->disk.write_bytes, before);
        memset(expected + CLUSTER + 3 * SUB, 0, 5 * SUB);
        memset(expected + 5 * CLUSTER + SUB, 0, SUB);
        memset(expected + 6 * CLUSTER, 0, CLUSTER);
        expect_durable(rig);
        assert_true(bits_of(rig, 1) == (subs(0, 3) | subs(8, 32) | subs(3, 8) << 32));
        assert_true(bits_of(rig, 6) == (has_base ? subs(0, 32) << 32 : 0));
        assert_int_equal(image_count(&rig->disk, rig_data_off(rig, 1)), 1);
        assert_int_equal(qc_zero(&rig->image, CLUSTER, CLUSTER, false), QC_OK);
        memset(expected + CLUSTER, 0, CLUSTER);
        expect_durable(rig);
        assert_true(word_of(rig, 1) == (rig_data_off(rig, 1) | QC_ENTRY_COPIED));
        assert_true(bits_of(rig, 1) == subs(0, 32) << 32);
    }
}

static void discarding_lets_the_cluster_go(void **state)
{
    for (unsigned has_base = 0; has_base < 2; has_base++) {
        struct rig *rig = built(state, has_base);

        assert_int_equal(qc_discard(&rig->image, SUB, 3 * CLUSTER), QC_OK);
        memset(expected + CLUSTER, 0, 2 * CLUSTER);
        expect_durable(rig);
        assert_int_equal(image_count(&rig->disk, rig_data_off(rig, 1)), 0);
        assert_true(word_of(rig, 1) == 0);
        assert_true(bits_of(rig, 1) == (has_base ? subs(0, 32) << 32 : 0));
        assert_int_equal(image_count(&rig->disk, rig_data_off(rig, 0)), 1);
    }
}

/* An L2 table maps half as many clusters: a write over its end needs the next one's own. */
static void writes_go_on_in_the_next_table(void **state)
{
    struct rig *rig = *state;
    const uint64_t reach = (uint64_t)CLUSTER * (CLUSTER / 16);

    memset(&rig->options, 0, sizeof(rig->options));
    rig_build(rig, 3, 14, 2 * reach, 0);
    put_be64(rig->disk.bytes + 72, QC_INCOMPATIBLE_EXTENDED_L2);
    put_be32(rig->disk.bytes + 36, 2);
    assert_int_equal(rig_open(rig), QC_OK);
    memset(buf, 0x5a, 4 * CLUSTER);
    assert_int_equal(qc_write(&rig->image, reach - CLUSTER, buf, 4 * CLUSTER), QC_OK);
    assert_int_equal(qc_settle(&rig->image), QC_OK);
    assert_int_equal(rig_open(rig), QC_OK);
    memset(buf, 0, 4 * CLUSTER);
    assert_int_equal(qc_read(&rig->image, reach - CLUSTER, buf, 4 * CLUSTER), QC_OK);
    for (unsigned i = 0; i < 4 * CLUSTER; i++)
        assert_int_equal(buf[i], 0x5a);
}

/* Zeroing one subcluster does not hurry the entry before bytes that were written in another. */
static void zeroing_leaves_written_subclusters_first(void **state)
{
    struct rig *rig = built(state, false);
    unsigned before;

    write_costing(rig, 2 * CLUSTER, SUB, SUB); /* the host cluster is there, and durable */
    assert_int_equal(qc_settle(&rig->image), QC_OK);
    write_costing(rig, 2 * CLUSTER + 10 * SUB, SUB, SUB);
    assert_int_equal(qc_zero(&rig->image, 2 * CLUSTER + 20 * SUB, SUB, true), QC_OK);
    before = rig->disk.flushes_count;
    assert_int_equal(qc_flush(&rig->image), QC_OK);
    assert_int_equal(rig->disk.flushes_count - before, 2);
    expect_durable(rig);
}

/* Larger subclusters have parts of their own: those are completed, from below or with zeros. */
static void parts_of_a_subcluster_are_completed(void **state)
{
    struct rig *rig = *state;
    const uint64_t cluster = 64 * 1024, sub = cluster / QC_SUBCLUSTERS;

    memset(&rig->options, 0, sizeof(rig->options));
    rig_build(rig, 3, 16, 2 * cluster, 1);
    put_be64(rig->disk.bytes + 72, QC_INCOMPATIBLE_EXTENDED_L2);
    put_be64(rig->disk.bytes + AT_L2 * cluster, rig_data_off(rig, 0) | QC_ENTRY_COPIED);
    assert_int_equal(rig_open(rig), QC_OK);
    memset(buf, 0x5a, 512);
    assert_int_equal(qc_write(&rig->image, sub + 512, buf, 512), QC_OK);
    assert_int_equal(qc_write(&rig->image, cluster + 3 * sub + 1024, buf, 512), QC_OK);
    assert_int_equal(qc_settle(&rig->image), QC_OK);
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(qc_read(&rig->image, 0, buf, 2 * cluster), QC_OK);
    for (uint64_t i = 0; i < 2 * cluster; i++) {
        bool is_written = (i >= sub + 512 && i < sub + 1024) ||
                          (i >= cluster + 3 * sub + 1024 && i < cluster + 3 * sub + 1536);

        assert_int_equal(buf[i], is_written ? 0x5a : 0);
    }
    assert_true(qc_be64(rig->disk.bytes + AT_L2 * cluster + 8) == subs(1, 2));
    assert_int_equal(qc_zero(&rig->image, sub + 512 + 512, 2 * sub, true), QC_OK);
    assert_int_equal(qc_read(&rig->image, sub, buf, 3 * sub), QC_OK);
    assert_true(buf[512] == 0x5a && buf[1023] == 0x5a && buf[1024] == 0 && buf[511] == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(runs_end_where_subclusters_differ),
        RIG_TEST(impossible_states_are_refused),
        RIG_TEST(a_write_completes_its_subclusters_only),
        RIG_TEST(a_new_cluster_takes_its_own_subclusters_along),
        RIG_TEST(a_shared_cluster_is_copied_as_far_as_it_has_bytes),
        RIG_TEST(zeroing_writes_no_data),
        RIG_TEST(zeroing_leaves_written_subclusters_first),
        RIG_TEST(writes_go_on_in_the_next_table),
        RIG_TEST(discarding_lets_the_cluster_go),
        RIG_TEST(parts_of_a_subcluster_are_completed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
