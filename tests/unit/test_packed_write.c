/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Compressed clusters, written over, zeroed and discarded: what becomes of the bytes around a write
 * and of the counts of host clusters that neighbours share, and that entries which contradict the
 * counts harm nothing. Cuts are tests/crash's.
 */
#include "content.h"

#include "../../core/bytes.h"
#include "../sim/deflate.h"

#define COPIED     (UINT64_C(1) << 63)
#define COMPRESSED (UINT64_C(1) << 62)
#define ZERO       UINT64_C(1)
#define OFFSETS    UINT64_C(0x00fffffffffffe00)
#define CLUSTER    4096u
#define GUEST      (64u * CLUSTER)
#define PACKED     40u /* guest clusters that are compressed */
#define ODD_BYTES  96u /* of each that do not repeat */

static struct qc_unpacker unpacker;
static uint8_t buf[GUEST], disk_before[MEM_DISK_BYTES];

static uint64_t entry_of(uint64_t host_off, size_t len)
{
    uint64_t more = (host_off + len - 1) / 512 - host_off / 512;

    return COMPRESSED | more << (62 - 4) | host_off;
}

static void add_counts(struct rig *rig, uint64_t host_off, size_t len)
{
    for (uint64_t at = host_off / CLUSTER; at <= (host_off + len - 1) / CLUSTER; at++)
        image_set_count(&rig->disk, at * CLUSTER, image_count(&rig->disk, at * CLUSTER) + 1);
}

/* Compresses a guest cluster to a place and returns where it ends. */
static uint64_t pack(struct rig *rig, unsigned index, uint64_t host_off)
{
    uint8_t *bytes = expected + index * CLUSTER, *at = rig->disk.bytes + host_off;
    uint64_t word = 0x0101010101010101 * (index + 1);
    size_t len;

    fill(bytes, ODD_BYTES, index);
    memset(bytes + ODD_BYTES, (int)index + 1, CLUSTER - ODD_BYTES);
    len = deflate_stored(at, bytes, ODD_BYTES, false);
    len += deflate_repeat(at + len, word, CLUSTER - ODD_BYTES, true);
    rig_set_l2(rig, index, entry_of(host_off, len));
    add_counts(rig, host_off, len);
    return host_off + len;
}

/* The first 40 guest clusters, one behind the other, in the first host clusters of data: their
 * counts are those of a true image. */
static struct rig *packed(void **state, uint32_t version)
{
    struct rig *rig = *state;
    uint64_t at;

    rig_build(rig, version, 12, GUEST, 4);
    rig->options.unpacker = &unpacker;
    content_begin(GUEST);
    for (unsigned i = 0; i < 4; i++)
        image_set_count(&rig->disk, rig_data_off(rig, i), 0);
    at = rig_data_off(rig, 0) + 50;
    for (unsigned i = 0; i < PACKED; i++)
        at = pack(rig, i, at);
    assert_in_range(at, rig_data_off(rig, 1) + 1, rig_data_off(rig, 2));
    image_set_count(&rig->disk, rig_data_off(rig, 2), 1); /* two that nobody names */
    image_set_count(&rig->disk, rig_data_off(rig, 3), 1);
    rig_open_ok(rig);
    return rig;
}

/* Every count is what the entries ask for: those of tables, and two clusters that nobody names. */
static void expect_counts(const struct rig *rig)
{
    unsigned wanted[MEM_DISK_BYTES / CLUSTER] = {0};

    for (unsigned i = 0; i < AT_DATA; i++)
        wanted[i] = 1;
    wanted[AT_DATA + 2] = wanted[AT_DATA + 3] = 1;
    for (unsigned i = 0; i < 64; i++) {
        uint64_t entry = image_l2(&rig->disk, i);
        uint64_t first = entry & (entry & COMPRESSED ? (UINT64_C(1) << 58) - 1 : OFFSETS);
        uint64_t end = first + CLUSTER;

        if (entry & COMPRESSED)
            end = first / 512 * 512 + ((entry >> 58 & 15) + 1) * 512;
        for (uint64_t at = first / CLUSTER; first != 0 && at <= (end - 1) / CLUSTER; at++)
            wanted[at]++;
    }
    for (unsigned i = 0; i < rig->disk.disk.size_bytes / CLUSTER; i++)
        assert_int_equal(image_count(&rig->disk, (uint64_t)i * CLUSTER), wanted[i]);
}

static void whole_clusters_are_written_over(void **state)
{
    struct rig *rig = packed(state, 3);
    unsigned first_count = image_count(&rig->disk, rig_data_off(rig, 0));

    expect_counts(rig);
    rig->disk.reads_count = 0;
    write_ok(rig, 5 * CLUSTER, CLUSTER, 1);
    expect_durable(rig);
    expect_counts(rig);
    assert_int_equal(image_count(&rig->disk, rig_data_off(rig, 0)), first_count - 1);
    assert_true((image_l2(&rig->disk, 5) & (COPIED | COMPRESSED)) == COPIED);
}

static void parts_keep_what_is_around_them(void **state)
{
    struct rig *rig = packed(state, 3);

    write_ok(rig, 0, 512, 1);
    write_ok(rig, CLUSTER + 1024, 512, 2);
    write_ok(rig, 3 * CLUSTER - 512, 1024, 3); /* over the border of two */
    expect_durable(rig);
    expect_counts(rig);
    rig->disk.writes_count = 0;
    write_ok(rig, CLUSTER, 512, 4); /* ours now: in place */
    assert_int_equal(rig->disk.writes_count, 1);
    expect_durable(rig);
    expect_counts(rig);
}

/* 40 neighbours that share two host clusters, one of them in both. */
static void neighbours_give_their_clusters_back_together(void **state)
{
    for (unsigned first = 0; first < 3; first++) {
        struct rig *rig = packed(state, 3);
        unsigned trims_before;

        write_ok(rig, first * CLUSTER + 512, (PACKED - first) * CLUSTER - 1024, 1);
        expect_content(rig);
        trims_before = rig->disk.trims_count;
        expect_durable(rig);
        expect_counts(rig);
        assert_int_equal(image_count(&rig->disk, rig_data_off(rig, 1)), 0);
        assert_int_equal(rig->disk.trims_count - trims_before, 1); /* once they hold nothing */
    }
}

static void freed_clusters_wait_for_the_commit(void **state)
{
    struct rig *rig = packed(state, 3);
    uint64_t free_off = rig_data_off(rig, 0);
    unsigned held = image_count(&rig->disk, free_off);

    rig_fix_size(rig, rig_data_off(rig, 4));
    rig_open_ok(rig);
    fill(buf, CLUSTER, 1);
    assert_int_equal(qc_write(&rig->image, 0, buf, CLUSTER), QC_NOSPACE);
    expect_content(rig);
    /* One that lies in the first host cluster is left, and so that one stays. */
    assert_int_equal(qc_discard(&rig->image, 0, (held - 1) * CLUSTER), QC_OK);
    memset(expected, 0, (held - 1) * CLUSTER);
    assert_int_equal(qc_write(&rig->image, 0, buf, CLUSTER), QC_NOSPACE);
    assert_int_equal(qc_discard(&rig->image, (held - 1) * CLUSTER, CLUSTER), QC_OK);
    memset(expected + (held - 1) * CLUSTER, 0, CLUSTER);
    rig->disk.flushes_count = 0;
    write_ok(rig, 0, CLUSTER, 2);
    assert_true(rig->disk.flushes_count > 0); /* invariant 4 */
    expect_durable(rig);
    assert_true(image_l2(&rig->disk, 0) == (free_off | COPIED));
    expect_counts(rig);
}

static void erased_ones_read_as_zeros(void **state)
{
    for (uint32_t version = 2; version <= 3; version++) {
        struct rig *rig = packed(state, version);
        uint64_t mark = version >= 3 ? ZERO : 0;

        assert_int_equal(qc_discard(&rig->image, 0, CLUSTER), QC_OK);
        assert_int_equal(qc_zero(&rig->image, CLUSTER, CLUSTER, true), QC_OK);
        assert_int_equal(qc_zero(&rig->image, 2 * CLUSTER, CLUSTER, false), QC_OK);
        assert_int_equal(qc_zero(&rig->image, 3 * CLUSTER + 1024, 512, true), QC_OK);
        assert_int_equal(qc_discard(&rig->image, 4 * CLUSTER, CLUSTER - 512), QC_OK);
        memset(expected, 0, 3 * CLUSTER);
        memset(expected + 3 * CLUSTER + 1024, 0, 512);
        expect_durable(rig);
        expect_counts(rig);
        assert_true(image_l2(&rig->disk, 0) == 0);
        assert_true(image_l2(&rig->disk, 1) == mark);
        assert_true(image_l2(&rig->disk, 2) == mark); /* there is nothing to keep */
        assert_true(image_l2(&rig->disk, 4) & COMPRESSED);
    }
}

/* The source of a copy, or its target, fails: the cluster is what it was. */
static void failed_writes_change_nothing(void **state)
{
    for (unsigned is_write = 0; is_write < 2; is_write++) {
        struct rig *rig = packed(state, 3);

        write_ok(rig, 60 * CLUSTER, CLUSTER, 1); /* tables are here now */
        assert_int_equal(qc_flush(&rig->image), QC_OK);
        if (is_write)
            rig->disk.fail_write_at = rig->disk.writes_count + 1;
        else
            rig->disk.fail_at = rig->disk.reads_count + 1;
        fill(buf, 512, 2);
        assert_int_equal(qc_write(&rig->image, 7 * CLUSTER + 512, buf, 512), QC_IO);
        assert_string_equal(qc_readonly_reason(&rig->image), "");
        expect_content(rig);
        assert_int_equal(qc_flush(&rig->image), QC_OK);
        expect_durable(rig);
        expect_counts(rig);
        assert_true(image_l2(&rig->disk, 7) & COMPRESSED);
    }
}

enum { SMALL = 1024, TABLES = 5, SMALLS = TABLES * (SMALL / 8), AT_SMALLS = AT_L2 + TABLES };

/* 640 compressed clusters in 3 host clusters each. Counts have one bit and are all in one block. */
static struct rig *packed_small(void **state)
{
    struct rig *rig = *state;
    uint8_t *bytes = rig->disk.bytes;

    rig_build(rig, 3, 10, SMALLS * SMALL, 3 * SMALLS + TABLES);
    rig->options.unpacker = &unpacker;
    content_begin(SMALLS * SMALL);
    put_be32(bytes + 96, 0);
    memset(bytes + AT_REFBLOCK * SMALL, 0, SMALL);
    for (unsigned i = 0; i < AT_SMALLS + 3 * SMALLS; i++)
        bytes[AT_REFBLOCK * SMALL + i / 8] |= (uint8_t)(1u << i % 8);
    for (unsigned i = 0; i < TABLES; i++)
        put_be64(bytes + AT_L1 * SMALL + i * 8, (AT_L2 + i) * SMALL | COPIED);
    for (unsigned i = 0; i < SMALLS; i++) {
        uint64_t host_off = (AT_SMALLS + 3 * i) * SMALL + SMALL - 1;

        fill(expected + i * SMALL, SMALL, i);
        deflate_stored(bytes + host_off, expected + i * SMALL, SMALL, true);
        put_be64(bytes + AT_L2 * SMALL + i * 8, COMPRESSED | UINT64_C(3) << 60 | host_off);
    }
    rig_open_ok(rig);
    return rig;
}

/*
 * Whatever a step lets go of, up to 16 times 3 host clusters, room was reserved for it. The epoch
 * fills up several times, with another rest of room in each turn.
 */
static void steps_have_room_for_all_they_let_go(void **state)
{
    for (unsigned turn = 0; turn < 16; turn++) {
        struct rig *rig = packed_small(state);
        unsigned step = turn % 2 == 0 ? 16 : 1;

        for (unsigned at = 0; at < SMALLS; at += at < turn ? 1 : step) {
            unsigned count = at < turn ? 1 : at + step > SMALLS ? SMALLS - at : step;

            if (step == 16 || at < turn) {
                write_ok(rig, at * SMALL, count * SMALL, at);
            } else {
                assert_int_equal(qc_discard(&rig->image, at * SMALL, SMALL), QC_OK);
                memset(expected + at * SMALL, 0, SMALL);
            }
            assert_in_range(rig->image.epoch.records_count, 1, rig->image.epoch.records_max);
        }
        assert_true(rig->disk.flushes_count >= 2); /* commits on the way */
        assert_int_equal(qc_settle(&rig->image), QC_OK);
        rig_open_ok(rig);
        expect_content(rig);
    }
}

/* ---- entries and counts that contradict each other ---- */

/* What is asked is refused with this line, not a byte is written, and what was readable still is.
 */
static void expect_refused(struct rig *rig, uint64_t guest_off, uint64_t len, const char *line)
{
    uint64_t disk_bytes = rig->disk.disk.size_bytes;

    rig_open_ok(rig);
    memcpy(disk_before, rig->disk.bytes, disk_bytes);
    rig->disk.writes_count = 0;
    assert_int_equal(qc_write(&rig->image, guest_off, buf, len), QC_CORRUPT);
    assert_string_equal(qc_detail(&rig->image), line);
    assert_string_equal(qc_readonly_reason(&rig->image), line);
    assert_int_equal(rig->disk.writes_count, 0);
    assert_int_equal(qc_settle(&rig->image), QC_OK);
    assert_memory_equal(disk_before, rig->disk.bytes, disk_bytes); /* it may have grown */
    expect_content(rig);
}

static void counts_of_zero_are_damage(void **state)
{
    struct rig *rig = packed(state, 3);
    unsigned in_both = 0;
    char line[QC_DETAIL_BYTES];

    while ((image_l2(&rig->disk, in_both + 1) & 0xffff) < rig_data_off(rig, 1))
        in_both++;
    for (unsigned i = 0; i < 2; i++) {
        rig = packed(state, 3);
        image_set_count(&rig->disk, rig_data_off(rig, i), 0);
        snprintf(line, sizeof(line), "refcount out of range at 0x%x", (AT_DATA + i) * CLUSTER);
        expect_refused(rig, in_both * CLUSTER, CLUSTER, line);
        assert_int_equal(rig_open(rig), QC_OK);
        assert_int_equal(qc_discard(&rig->image, in_both * CLUSTER, CLUSTER), QC_CORRUPT);
        assert_string_equal(qc_detail(&rig->image), line);
    }
}

static void entries_that_name_tables_are_damage(void **state)
{
    for (unsigned at = AT_HEADER; at <= AT_DATA; at++) {
        struct rig *rig = packed(state, 3);
        char line[QC_DETAIL_BYTES];
        uint64_t table_off = at * CLUSTER, host_off = table_off + CLUSTER - 1;

        if (at == AT_DATA) { /* a table that only the end of the data lies in */
            table_off = rig_data_off(rig, 3);
            host_off = table_off - 1;
            put_be64(rig->disk.bytes + CLUSTER * AT_REFTABLE + 8, table_off);
        }
        rig_set_l2(rig, 50, entry_of(host_off, 600));
        snprintf(line, sizeof(line), "cluster 0x%x is metadata", (unsigned)table_off);
        rig_open_ok(rig);
        rig->disk.writes_count = 0;
        assert_int_equal(qc_write(&rig->image, 50 * CLUSTER, buf, CLUSTER), QC_CORRUPT);
        assert_string_equal(qc_detail(&rig->image), line);
        assert_int_equal(rig->disk.writes_count, 1); /* the corrupt mark */
        assert_int_equal(rig->disk.bytes[79], 2);
    }
}

static void ranges_named_too_often_are_damage(void **state)
{
    for (unsigned count = 1; count <= 2; count++) {
        struct rig *rig = packed(state, 3);
        uint64_t host_off = rig_data_off(rig, 2);

        image_set_count(&rig->disk, host_off, 0);
        pack(rig, 50, host_off + 10);
        for (unsigned i = 51; i <= 50 + count; i++) {
            rig_set_l2(rig, i, image_l2(&rig->disk, 50));
            memcpy(expected + i * CLUSTER, expected + 50 * CLUSTER, CLUSTER);
        }
        image_set_count(&rig->disk, host_off, count); /* one too low */
        expect_refused(rig, 50 * CLUSTER, (count + 1) * CLUSTER, "refcount out of range at 0x7000");
        /* Where counts are believed: one by one the last finds nothing left, and none wraps. */
        rig_open_ok(rig);
        rig_believe(rig);
        for (unsigned i = 50; i < 50 + count; i++)
            write_ok(rig, i * CLUSTER, CLUSTER, i);
        assert_int_equal(qc_write(&rig->image, (50 + count) * CLUSTER, buf, CLUSTER), QC_CORRUPT);
        assert_string_equal(qc_detail(&rig->image), "refcount out of range at 0x7000");
    }
}

static void entries_past_the_end_are_not_written_over(void **state)
{
    struct rig *rig = packed(state, 3);

    rig_fix_size(rig, rig_data_off(rig, 4));
    rig_set_l2(rig, 50, entry_of(rig_data_off(rig, 4) - 1, 600));
    rig_open_ok(rig);
    rig->disk.writes_count = 0;
    assert_int_equal(qc_write(&rig->image, 50 * CLUSTER, buf, CLUSTER), QC_CORRUPT);
    assert_string_equal(qc_detail(&rig->image), "refcount out of range at 0x9000");
    assert_int_equal(rig->disk.writes_count, 0);
}

/* Lost bytes of one cluster are no damage to the image: all else is written, and so is this one. */
static void clusters_that_do_not_unpack_may_be_written_over(void **state)
{
    struct rig *rig = packed(state, 3);

    rig->disk.bytes[rig_data_off(rig, 0) + 50] = 0xff; /* no such kind of block */
    assert_int_equal(qc_read(&rig->image, 0, buf, 512), QC_IO);
    assert_int_equal(qc_write(&rig->image, 512, buf, 512), QC_IO);
    assert_string_equal(qc_detail(&rig->image), "bad compressed cluster at guest 0x0");
    assert_string_equal(qc_readonly_reason(&rig->image), "");
    write_ok(rig, CLUSTER, 512, 1);
    write_ok(rig, 0, CLUSTER, 2);
    expect_durable(rig);
    expect_counts(rig);
}

/* A disk that does not grow may end within the host cluster of packed bytes. */
static void trims_end_with_the_disk(void **state)
{
    struct rig *rig = packed(state, 3);
    struct qc_disk_ops ops = *rig->disk.disk.ops;

    ops.grow = NULL;
    rig->disk.disk.ops = &ops; /* its trim requires that the range is inside */
    image_set_count(&rig->disk, rig_data_off(rig, 2), 0);
    image_set_count(&rig->disk, rig_data_off(rig, 3), 0);
    rig->disk.disk.size_bytes = rig_data_off(rig, 2) - 512;
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(qc_discard(&rig->image, 0, GUEST), QC_OK);
    assert_int_equal(qc_settle(&rig->image), QC_OK);
    assert_int_equal(rig->disk.trims_count, 1);
    assert_int_equal(image_count(&rig->disk, rig_data_off(rig, 1)), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(whole_clusters_are_written_over),
        RIG_TEST(parts_keep_what_is_around_them),
        RIG_TEST(neighbours_give_their_clusters_back_together),
        RIG_TEST(freed_clusters_wait_for_the_commit),
        RIG_TEST(erased_ones_read_as_zeros),
        RIG_TEST(failed_writes_change_nothing),
        RIG_TEST(steps_have_room_for_all_they_let_go),
        RIG_TEST(counts_of_zero_are_damage),
        RIG_TEST(entries_that_name_tables_are_damage),
        RIG_TEST(ranges_named_too_often_are_damage),
        RIG_TEST(entries_past_the_end_are_not_written_over),
        RIG_TEST(clusters_that_do_not_unpack_may_be_written_over),
        RIG_TEST(trims_end_with_the_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
