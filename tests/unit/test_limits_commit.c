/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The commit, to the flush and to the record: what each kind of epoch costs, what a failed one
 * leaves, what lies behind the last record, and how much room can be made.
 */
#include "support.h"

#include "../../core/blank.h"
#include "../../core/commit.h"
#include "../../core/counts.h"
#include "../../core/map.h"

#define CLUSTER 4096u
#define REACH   (512u * CLUSTER) /* of an L2 table */
#define DATA    8u
#define FREE    16u /* clusters of old bytes behind them */

static uint8_t buf[CLUSTER], wanted[MEM_DISK_BYTES];

/* Guest clusters 0 to 7 lie side by side, free ones follow; a second L2 table is not there yet. */
static struct rig *built(void **state)
{
    struct rig *rig = *state;

    rig_build(rig, 3, 12, 5u * REACH, DATA);
    rig_map(rig, DATA);
    memset(rig->disk.bytes + rig->disk.disk.size_bytes, 0xee, FREE * CLUSTER);
    rig->disk.disk.size_bytes += FREE * CLUSTER;
    memset(buf, 0x5a, sizeof(buf));
    assert_int_equal(rig_open(rig), QC_OK);
    /* The first change clears and flushes what it must: not what is counted here. */
    assert_int_equal(qc_write(&rig->image, 0, buf, 512), QC_OK);
    assert_int_equal(qc_flush(&rig->image), QC_OK);
    rig->disk.flushes_count = 0;
    return rig;
}

static void write_at(struct rig *rig, uint64_t guest_off, size_t len)
{
    assert_int_equal(qc_write(&rig->image, guest_off, buf, len), QC_OK);
}

static void expect_flushes(struct rig *rig, unsigned count)
{
    assert_int_equal(rig->disk.flushes_count, 0);
    assert_int_equal(qc_flush(&rig->image), QC_OK);
    assert_int_equal(rig->disk.flushes_count, count);
    rig->disk.flushes_count = 0;
    assert_int_equal(qc_flush(&rig->image), QC_OK); /* and nothing is left */
    assert_int_equal(rig->disk.flushes_count, 0);
}

static void each_epoch_costs_its_flushes(void **state)
{
    struct rig *rig = built(state);

    write_at(rig, CLUSTER, CLUSTER); /* in place */
    expect_flushes(rig, 1);
    write_at(rig, 20 * CLUSTER, CLUSTER); /* a cluster */
    expect_flushes(rig, 2);
    write_at(rig, 21 * CLUSTER + 512, 512); /* and one that is filled */
    expect_flushes(rig, 2);
    write_at(rig, REACH, CLUSTER); /* and a table */
    expect_flushes(rig, 2);
    assert_int_equal(qc_discard(&rig->image, CLUSTER, CLUSTER), QC_OK); /* nothing is added */
    expect_flushes(rig, 1);
    rig->disk.is_full = true;
    rig->disk.fail_write_at = rig->disk.writes_count + 1; /* counts alone, raised and dropped */
    assert_int_equal(qc_write(&rig->image, 22 * CLUSTER, buf, CLUSTER), QC_IO);
    expect_flushes(rig, 1);
    /* Beside them something is unmapped: rule R9 spares the first flush only who adds nothing. */
    rig->disk.fail_write_at = rig->disk.writes_count + 1;
    assert_int_equal(qc_write(&rig->image, 22 * CLUSTER, buf, CLUSTER), QC_IO);
    assert_int_equal(qc_discard(&rig->image, 2 * CLUSTER, CLUSTER), QC_OK);
    expect_flushes(rig, 2);
    assert_int_equal(qc_settle(&rig->image), QC_OK); /* and lowered counts alone */
    assert_int_equal(rig->disk.flushes_count, 1);
    assert_int_equal(qc_settle(&rig->image), QC_OK);
    assert_int_equal(rig->disk.flushes_count, 1);
}

static void settled_counts_leave_nothing_volatile(void **state)
{
    struct rig *rig = built(state);

    assert_int_equal(qc_settle_counts(&rig->image), QC_OK);
    assert_int_equal(rig->disk.flushes_count, 0);
    write_at(rig, CLUSTER, CLUSTER);
    assert_int_equal(qc_settle_counts(&rig->image), QC_OK);
    assert_int_equal(rig->disk.flushes_count, 1);
    assert_int_equal(qc_discard(&rig->image, CLUSTER, CLUSTER), QC_OK);
    for (unsigned i = 0; i < 2; i++) { /* of the entry, of the lowered count */
        rig->disk.fail_write_at = rig->disk.writes_count + 1 + i;
        assert_int_equal(qc_settle_counts(&rig->image), QC_IO);
    }
    assert_int_equal(qc_settle_counts(&rig->image), QC_OK);
    assert_int_equal(image_count(&rig->disk, rig_data_off(rig, 1)), 0);
}

/* Nothing is published after a flush that failed, nor by an engine that broke its own promise. */
static void some_epochs_are_never_published(void **state)
{
    struct rig *rig = built(state);
    unsigned writes_count;

    write_at(rig, 20 * CLUSTER, CLUSTER);
    rig->disk.fail_flush_at = 1;
    assert_int_equal(qc_commit(&rig->image), QC_IO);
    writes_count = rig->disk.writes_count;
    assert_int_equal(qc_commit(&rig->image), QC_READONLY);
    assert_string_equal(qc_detail(&rig->image), "the disk failed to flush: read-only");
    assert_int_equal(rig->disk.writes_count, writes_count);

    built(state);
    write_at(rig, 20 * CLUSTER, CLUSTER);
    writes_count = rig->disk.writes_count;
    rig->image.epoch.fault = "a test";
    assert_int_equal(qc_commit(&rig->image), QC_IO);
    assert_string_equal(qc_detail(&rig->image), "internal fault: a test");
    assert_int_equal(rig->disk.writes_count, writes_count);
}

/* What is known of tables: of new ones where they are zeros, of old ones which slice maps what. */
static void commit_forgets_no_more_than_it_must(void **state)
{
    struct rig *rig = built(state);
    uint64_t table_off;
    const uint8_t *slice;

    assert_int_equal(qc_read(&rig->image, CLUSTER, buf, 512), QC_OK);
    assert_true(qc_cache_tagged(&rig->cache, 0, &slice));
    write_at(rig, 20 * CLUSTER, CLUSTER);
    assert_int_equal(qc_flush(&rig->image), QC_OK);
    assert_true(qc_cache_tagged(&rig->cache, 0, &slice));
    write_at(rig, REACH, CLUSTER);
    assert_int_equal(qc_flush(&rig->image), QC_OK);
    assert_false(qc_cache_tagged(&rig->cache, 0, &slice));
    table_off = qc_be64(rig->disk.bytes + AT_L1 * CLUSTER + 8) & QC_ENTRY_OFFSET_MASK;
    assert_false(qc_blank_covers(&rig->image, table_off, 8));
    assert_true(qc_blank_covers(&rig->image, table_off + CLUSTER / 2, CLUSTER / 2));
    for (unsigned i = 0; i < 3; i++) /* several at once */
        write_at(rig, (2 + i) * (uint64_t)REACH, CLUSTER);
    assert_int_equal(qc_flush(&rig->image), QC_OK);
    for (unsigned i = 0; i < 3; i++) {
        table_off = qc_be64(rig->disk.bytes + AT_L1 * CLUSTER + 8 * (2 + i)) & QC_ENTRY_OFFSET_MASK;
        assert_true(qc_blank_covers(&rig->image, table_off + CLUSTER / 2, CLUSTER / 2));
    }
}

/* Changes of every kind: a filled cluster, a new table, something in quarantine. */
static void change_all(struct rig *rig)
{
    write_at(rig, 20 * CLUSTER + 512, 512);
    write_at(rig, REACH, CLUSTER);
    assert_int_equal(qc_discard(&rig->image, CLUSTER, CLUSTER), QC_OK);
}

static unsigned new_count(const struct rig *rig)
{
    unsigned count = 0;

    for (uint32_t i = 0; i < rig->image.epoch.records_count; i++)
        count += (qc_epoch_at(&rig->image.epoch, i)->flags & QC_RECORD_NEW) != 0;
    return count;
}

/* Whichever write of a commit fails: nothing is lost, and what is durable is not made again. */
static void failed_commit_is_made_good(void **state)
{
    struct rig *rig = built(state);
    unsigned writes_count = rig->disk.writes_count;

    change_all(rig);
    writes_count = rig->disk.writes_count;
    assert_int_equal(qc_flush(&rig->image), QC_OK);
    writes_count = rig->disk.writes_count - writes_count;
    assert_in_range(writes_count, 5, 20);
    memcpy(wanted, rig->disk.bytes, sizeof(wanted));
    for (unsigned nth = 1; nth <= writes_count; nth++) {
        unsigned before;

        built(state);
        change_all(rig);
        rig->disk.fail_write_at = rig->disk.writes_count + nth;
        rig->disk.flushes_count = 0;
        assert_int_equal(qc_flush(&rig->image), QC_IO);
        assert_int_equal(rig->image.quarantine_count, 1);
        assert_int_equal(rig->disk.trims_count, 0);
        assert_int_equal(new_count(rig), rig->disk.flushes_count == 0); /* rule R2 */
        before = rig->disk.writes_count;
        assert_int_equal(qc_flush(&rig->image), QC_OK);
        /* Both sides of a cluster that was written in part are filled once. */
        assert_int_equal(rig->disk.writes_count - before, writes_count - (nth <= 2 ? 0 : 2));
        assert_int_equal(rig->disk.trims_count, 1);
        assert_memory_equal(rig->disk.bytes, wanted, sizeof(wanted));
    }
}

/* A larger refcount table, here of the same size elsewhere: whole once, named once. */
static void refcount_table_moves_once(void **state)
{
    for (unsigned nth = 0;; nth++) {
        struct rig *rig = built(state);
        uint64_t old_off = rig->image.top.header.reftable_off;
        uint64_t new_off = rig_data_off(rig, DATA + 2);
        qc_status status;

        rig->image.grown_reftable.host_off = new_off;
        rig->image.grown_reftable.clusters = 1;
        rig->image.grown_reftable.is_new = true;
        rig->disk.fail_write_at = nth == 0 ? 0 : rig->disk.writes_count + nth;
        status = qc_commit(&rig->image);
        if (status != QC_OK) {
            assert_int_equal(status, QC_IO);
            assert_true(rig->image.top.header.reftable_off == old_off);
            assert_int_equal(rig->image.grown_reftable.is_new, rig->disk.flushes_count == 0);
            assert_int_equal(qc_commit(&rig->image), QC_OK);
        }
        assert_true(rig->image.top.header.reftable_off == new_off);
        assert_int_equal(rig->image.top.header.reftable_clusters, 1);
        assert_true(rig->image.grown_reftable.host_off == 0);
        assert_int_equal(rig->image.grown_reftable.clusters, 0);
        assert_memory_equal(rig->disk.bytes + old_off, rig->disk.bytes + new_off, CLUSTER);
        put_be64(buf, new_off);
        put_be32(buf + 8, 1);
        assert_memory_equal(rig->disk.bytes + 48, buf, 12);
        if (nth > 0 && status == QC_OK)
            break;
        assert_in_range(nth, 0, 10);
    }
}

/* Its entries are in what is written whole: the table and the header's field, no more. */
static void moved_refcount_table_brings_its_entries(void **state)
{
    struct rig *rig = built(state);
    uint64_t new_off = rig_data_off(rig, DATA + 2);
    unsigned writes_count = rig->disk.writes_count;

    rig->image.grown_reftable.host_off = new_off;
    rig->image.grown_reftable.clusters = 1;
    rig->image.grown_reftable.is_new = true;
    qc_epoch_add(&rig->image.epoch, QC_RECORD_ROOT, 5)->value = 0x123000;
    assert_int_equal(qc_commit(&rig->image), QC_OK);
    assert_int_equal(rig->disk.writes_count - writes_count, 2);
    assert_int_equal(qc_be64(rig->disk.bytes + new_off + 5 * 8), 0x123000);
    assert_int_equal(qc_be64(rig->disk.bytes + AT_REFTABLE * CLUSTER + 5 * 8), 0);
}

/* A new block's counts are those of the epoch, and zeros whatever lay there. */
static void new_refcount_block_is_zeros(void **state)
{
    struct rig *rig = built(state);
    uint64_t block_off = rig_data_off(rig, DATA + 4);
    struct qc_record *root = qc_epoch_add(&rig->image.epoch, QC_RECORD_ROOT, 1);

    root->value = block_off;
    root->flags = QC_RECORD_NEW;
    assert_int_equal(qc_commit(&rig->image), QC_OK);
    for (unsigned i = 0; i < CLUSTER; i++)
        assert_int_equal(rig->disk.bytes[block_off + i], 0);
    assert_int_equal(qc_be64(rig->disk.bytes + AT_REFTABLE * CLUSTER + 8), block_off);
}

/* A table that says where a count lies, and cannot be read: nothing is written. */
static void place_that_cannot_be_read(void **state)
{
    struct rig *rig = built(state);
    unsigned writes_count;

    change_all(rig);
    qc_cache_reset(rig->image.cache);
    writes_count = rig->disk.writes_count;
    rig->disk.fail_at = rig->disk.reads_count + 1;
    assert_int_equal(qc_flush(&rig->image), QC_IO);
    assert_int_equal(rig->disk.writes_count, writes_count);
    assert_int_equal(qc_flush(&rig->image), QC_OK);
}

static unsigned writes_of(void **state, const unsigned *tables)
{
    struct rig *rig = *state;
    unsigned before;

    rig_build(rig, 3, 12, UINT64_C(100) * REACH, DATA);
    assert_int_equal(rig_open(rig), QC_OK);
    for (unsigned i = 0; i < 4; i++)
        write_at(rig, (uint64_t)tables[i] * REACH, CLUSTER);
    before = rig->disk.writes_count;
    assert_int_equal(qc_flush(&rig->image), QC_OK);
    return rig->disk.writes_count - before;
}

/* Tables are written as they lie, their entries in L1 as those lie: neighbours at once. */
static void order_of_writes_makes_no_more_of_them(void **state)
{
    unsigned ascending = writes_of(state, (const unsigned[]){1, 2, 80, 81});

    assert_int_equal(writes_of(state, (const unsigned[]){81, 80, 2, 1}), ascending);
    assert_int_equal(writes_of(state, (const unsigned[]){80, 1, 81, 2}), ascending);
}

/* Memory behind the last record may hold anything, the records of an earlier epoch above all. */
static void plant(struct rig *rig, enum qc_record_kind kind)
{
    struct qc_epoch *epoch = &rig->image.epoch;
    struct qc_record *record = qc_epoch_at(epoch, epoch->records_count);

    assert_true(epoch->records_count % QC_RECORDS_PER_PAGE != 0);
    memset(record, 0, sizeof(*record));
    record->id = (uint64_t)kind << 56 | (kind == QC_RECORD_COUNT ? AT_DATA + 5 : 1);
    record->flags =
        QC_RECORD_WRITE | QC_RECORD_RAISED | QC_RECORD_QUARANTINE | QC_RECORD_NEW | QC_RECORD_FRESH;
    record->value = rig_data_off(rig, 5);
    record->place = kind == QC_RECORD_L1 ? 0 : rig_data_off(rig, 5);
    record->u.written.from = 1;
    record->u.written.to = 1;
}

/* The same changes with or without something behind the last record. */
static struct rig *run(void **state, enum qc_record_kind kind)
{
    struct rig *rig = built(state);

    for (unsigned step = 0; step < 4; step++) {
        if (step == 0)
            write_at(rig, 20 * CLUSTER + 512, 512);
        else if (step == 1)
            assert_int_equal(qc_discard(&rig->image, CLUSTER, CLUSTER), QC_OK);
        else if (step == 2)
            write_at(rig, REACH + 512, 512);
        else
            assert_int_equal(qc_zero(&rig->image, 2 * CLUSTER, CLUSTER, true), QC_OK);
        if (kind != 0)
            plant(rig, kind);
        assert_int_equal(qc_flush(&rig->image), QC_OK);
    }
    assert_int_equal(qc_settle(&rig->image), QC_OK);
    return rig;
}

static void nothing_is_behind_the_last_record(void **state)
{
    struct rig *rig = run(state, 0);
    unsigned writes_count = rig->disk.writes_count, flushes_count = rig->disk.flushes_count;
    unsigned trims_count = rig->disk.trims_count;

    memcpy(wanted, rig->disk.bytes, sizeof(wanted));
    for (enum qc_record_kind kind = QC_RECORD_COUNT; kind <= QC_RECORD_L1; kind++) {
        run(state, kind);
        assert_memory_equal(rig->disk.bytes, wanted, sizeof(wanted));
        assert_int_equal(rig->disk.writes_count, writes_count);
        assert_int_equal(rig->disk.flushes_count, flushes_count);
        assert_int_equal(rig->disk.trims_count, trims_count);
        assert_false(qc_blank_covers(&rig->image, rig_data_off(rig, 5), 8));
    }
}

static void count_without_a_block(void **state)
{
    struct rig *rig = built(state);
    unsigned writes_count = rig->disk.writes_count;
    struct qc_record *record;

    /* One that was only looked at has no place and needs none. */
    record = qc_epoch_add(&rig->image.epoch, QC_RECORD_COUNT, 100000);
    assert_int_equal(qc_commit(&rig->image), QC_OK);
    assert_int_equal(rig->image.epoch.records_count, 0);
    record = qc_epoch_add(&rig->image.epoch, QC_RECORD_COUNT, 100000);
    record->flags = QC_RECORD_WRITE | QC_RECORD_RAISED;
    record->value = 1;
    assert_int_equal(qc_commit(&rig->image), QC_CORRUPT);
    assert_string_equal(qc_detail(&rig->image), "bad refcount block");
    assert_int_equal(rig->disk.writes_count, writes_count);
}

static void changes_are_more_than_counts(void **state)
{
    for (unsigned set = 0; set < 16; set++) {
        struct rig *rig = built(state);

        for (unsigned kind = QC_RECORD_COUNT; kind <= QC_RECORD_L1; kind++) {
            if (set & 1u << (kind - 1))
                qc_epoch_add(&rig->image.epoch, (enum qc_record_kind)kind, 1);
        }
        assert_int_equal(qc_has_changes(&rig->image), set > 1);
        rig->image.is_raised = true;
        assert_true(qc_has_changes(&rig->image));
        rig->image.is_raised = false;
        rig->image.quarantine_count = 1;
        assert_true(qc_has_changes(&rig->image));
    }
}

/* All room there is can be had, for two commits: the first leaves lowered counts. */
static void all_room_can_be_had(void **state)
{
    struct rig *rig = built(state);
    uint32_t all = rig->image.epoch.records_max;

    assert_int_equal(qc_discard(&rig->image, CLUSTER, CLUSTER), QC_OK);
    assert_int_equal(qc_epoch_reserve(&rig->image, all - rig->image.epoch.records_count), QC_OK);
    assert_int_equal(rig->disk.flushes_count, 0);
    assert_int_equal(qc_epoch_reserve(&rig->image, all), QC_OK);
    assert_int_equal(rig->disk.flushes_count, 2);
    assert_int_equal(rig->image.epoch.records_count, 0);
    assert_int_equal(qc_epoch_reserve(&rig->image, all), QC_OK);
    assert_int_equal(rig->disk.flushes_count, 2);
    assert_int_equal(qc_epoch_reserve(&rig->image, all + 1), QC_NOSPACE);
    assert_string_equal(qc_detail(&rig->image), "no space: the epoch is too small");
    assert_int_equal(qc_discard(&rig->image, 2 * CLUSTER, CLUSTER), QC_OK);
    rig->disk.fail_write_at = rig->disk.writes_count + 1;
    assert_int_equal(qc_epoch_reserve(&rig->image, all), QC_IO);
}

/* What a commit leaves of an image: no mark of an epoch but lowered counts. */
static void epoch_is_over_when_it_is_durable(void **state)
{
    struct rig *rig = built(state);

    write_at(rig, REACH, 512);
    assert_int_equal(qc_discard(&rig->image, CLUSTER, CLUSTER), QC_OK);
    assert_int_equal(rig->image.quarantine_count, 1);
    assert_true(rig->image.is_raised && rig->image.is_unflushed);
    assert_int_equal(qc_flush(&rig->image), QC_OK);
    assert_int_equal(rig->image.quarantine_count, 0);
    assert_false(rig->image.is_raised || rig->image.is_unflushed);
    assert_false(rig->image.is_data_unflushed);
    assert_int_equal(rig->image.epoch.records_count, 1);
    assert_int_equal(image_count(&rig->disk, rig_data_off(rig, 1)), 1);
    assert_int_equal(qc_settle(&rig->image), QC_OK);
    assert_int_equal(image_count(&rig->disk, rig_data_off(rig, 1)), 0);
    assert_int_equal(rig->image.epoch.records_count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(each_epoch_costs_its_flushes),
        RIG_TEST(settled_counts_leave_nothing_volatile),
        RIG_TEST(some_epochs_are_never_published),
        RIG_TEST(commit_forgets_no_more_than_it_must),
        RIG_TEST(moved_refcount_table_brings_its_entries),
        RIG_TEST(failed_commit_is_made_good),
        RIG_TEST(refcount_table_moves_once),
        RIG_TEST(new_refcount_block_is_zeros),
        RIG_TEST(place_that_cannot_be_read),
        RIG_TEST(order_of_writes_makes_no_more_of_them),
        RIG_TEST(nothing_is_behind_the_last_record),
        RIG_TEST(count_without_a_block),
        RIG_TEST(changes_are_more_than_counts),
        RIG_TEST(all_room_can_be_had),
        RIG_TEST(epoch_is_over_when_it_is_durable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
