/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The epoch at its edges: the shortest sorts in every order, pages that are just full, chains of
 * the hash, and the order of L1 records by what they name.
 */
#include "support.h"

static _Alignas(QC_PAGE_BYTES) uint8_t pool[320 * QC_PAGE_BYTES];
static struct qc_cache cache;
static struct qc_epoch epoch;

static void begin(void)
{
    qc_cache_init(&cache, pool, sizeof(pool));
    qc_epoch_init(&epoch, &cache);
}

static struct qc_record *add(enum qc_record_kind kind, uint64_t key, uint64_t place, uint64_t value)
{
    struct qc_record *record = qc_epoch_add(&epoch, kind, key);

    record->place = place;
    record->value = value;
    return record;
}

static uint64_t key_at(uint32_t number)
{
    return qc_record_key(qc_epoch_at(&epoch, number));
}

/* Every order of up to six records, by place and by key where places are the same. */
static void shortest_sorts_in_every_order(void **state)
{
    (void)state;
    for (unsigned count = 0; count <= 6; count++) {
        unsigned orders_count = 1;

        for (unsigned i = 2; i <= count; i++)
            orders_count *= i;
        for (unsigned order = 0; order < orders_count; order++) {
            unsigned left[6] = {0, 1, 2, 3, 4, 5}, rest = order;

            begin();
            for (unsigned i = count; i > 0; i--) {
                unsigned pick = rest % i, key = left[pick];

                rest /= i;
                left[pick] = left[i - 1];
                add(QC_RECORD_ENTRY, key, order % 2 ? 512 : 8 * (key / 2), 100 + key);
            }
            qc_epoch_sort(&epoch);
            for (unsigned i = 0; i < count; i++) {
                assert_int_equal(key_at(i), i);
                assert_int_equal(qc_epoch_find(&epoch, QC_RECORD_ENTRY, i)->value, 100 + i);
            }
        }
    }
}

static void kinds_stand_in_their_order(void **state)
{
    (void)state;
    begin();
    add(QC_RECORD_L1, 1, 99, 0);
    add(QC_RECORD_L1, 0, 100, 0); /* the place is its source and does not count */
    add(QC_RECORD_ENTRY, 5, 3, 0);
    add(QC_RECORD_ROOT, 6, 4, 0);
    add(QC_RECORD_COUNT, 7, 5, 0);
    qc_epoch_sort(&epoch);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(qc_record_kind(qc_epoch_at(&epoch, i)), QC_RECORD_COUNT + i);
    assert_int_equal(key_at(3), 0);
    assert_int_equal(key_at(4), 1);
}

/* The L1 records alone, first as their tables lie, then as before. */
static void l1_records_follow_their_tables_and_come_back(void **state)
{
    (void)state;
    begin();
    for (unsigned i = 0; i < 40; i++) {
        add(QC_RECORD_L1, i, 0, (i * 7 % 40 + 1) * 65536);
        add(QC_RECORD_ENTRY, i, 4096 + 8 * (39 - i), 0);
    }
    qc_epoch_sort(&epoch);
    qc_epoch_sort_l1(&epoch, true);
    for (unsigned i = 0; i < 40; i++) {
        assert_int_equal(key_at(i), 39 - i);
        assert_int_equal(qc_record_kind(qc_epoch_at(&epoch, i)), QC_RECORD_ENTRY);
        assert_int_equal(qc_epoch_at(&epoch, 40 + i)->value, (i + 1) * 65536);
        assert_non_null(qc_epoch_find(&epoch, QC_RECORD_L1, i));
        assert_non_null(qc_epoch_find(&epoch, QC_RECORD_ENTRY, i));
    }
    qc_epoch_sort_l1(&epoch, false);
    for (unsigned i = 0; i < 40; i++) {
        assert_int_equal(key_at(i), 39 - i);
        assert_int_equal(key_at(40 + i), i);
        assert_int_equal(qc_epoch_find(&epoch, QC_RECORD_L1, i)->value, (i * 7 % 40 + 1) * 65536);
    }
}

static bool keep_below(struct qc_record *record, void *context)
{
    return qc_record_key(record) < *(const uint64_t *)context;
}

/* A page is lent when its first record comes, and goes back with its last. */
static void pages_are_lent_as_records_need_them(void **state)
{
    static const struct {
        uint64_t kept;
        unsigned pages;
    } cases[] = {{257, 3}, {256, 2}, {255, 2}, {129, 2}, {128, 1}, {127, 1}, {1, 1}, {0, 0}};

    (void)state;
    begin();
    for (unsigned i = 0; i < 300; i++) {
        add(QC_RECORD_ENTRY, i, 8 * i, 1000 + i);
        assert_int_equal(cache.pages_lent, i / 128 + 1);
    }
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t kept = cases[i].kept;

        qc_epoch_retain(&epoch, keep_below, &kept);
        assert_int_equal(epoch.records_count, kept);
        assert_int_equal(epoch.kind_counts[QC_RECORD_ENTRY], kept);
        assert_int_equal(epoch.pages_count, cases[i].pages);
        assert_int_equal(cache.pages_lent, cases[i].pages);
        for (unsigned k = 0; k < 300; k++) {
            const struct qc_record *record = qc_epoch_find(&epoch, QC_RECORD_ENTRY, k);

            assert_int_equal(record != NULL, k < kept);
            assert_true(record == NULL || record->value == 1000 + k);
        }
    }
}

static void room_is_what_may_be_lent(void **state)
{
    (void)state;
    begin();
    assert_int_equal(epoch.records_max, cache.lend_pages_max * 128);
    assert_int_equal(epoch.buckets_mask, cache.epoch_buckets_count - 1);
    add(QC_RECORD_ENTRY, 1, 0, 0);
    assert_true(qc_epoch_has_room(&epoch, epoch.records_max - 1));
    assert_false(qc_epoch_has_room(&epoch, epoch.records_max));
}

/* All of a record lies in the page that was lent for it: what is below is the cache's. */
static void records_lie_in_what_is_lent(void **state)
{
    (void)state;
    begin();
    for (unsigned i = 0; i < 300; i++) {
        const uint8_t *bytes = (const uint8_t *)add(QC_RECORD_ENTRY, i, 0, 0);

        assert_ptr_equal(bytes, qc_cache_lent_page(&cache, i / 128) + i % 128 * 32);
        assert_ptr_equal(bytes, qc_epoch_at(&epoch, i));
    }
}

/* What was never reserved is remembered as a fault, and gets a record that is none of the epoch. */
static void record_without_room_is_of_no_epoch(void **state)
{
    (void)state;
    begin();
    for (uint32_t i = 0; i < epoch.records_max; i++)
        add(QC_RECORD_ENTRY, i, 0, 0);
    assert_null(epoch.fault);
    for (unsigned i = 0; i < 2; i++) {
        struct qc_record *record = qc_epoch_add(&epoch, QC_RECORD_L1, 1234567 + i);

        assert_non_null(epoch.fault);
        assert_int_equal(qc_record_kind(record), QC_RECORD_L1);
        assert_int_equal(qc_record_key(record), 1234567 + i);
        assert_true(record->value == 0 && record->place == 0 && record->flags == 0);
        assert_null(qc_epoch_find(&epoch, QC_RECORD_L1, 1234567 + i));
        memset(record, 0xff, sizeof(*record));
    }
    assert_int_equal(epoch.records_count, epoch.records_max);
    assert_int_equal(epoch.kind_counts[QC_RECORD_L1], 0);
    assert_int_equal(cache.pages_lent, cache.lend_pages_max);
}

/* Keys come one after the other, or in steps: never do many share a bucket. */
static void chains_are_short(void **state)
{
    static const uint64_t steps[] = {1, 8, 512, 8192, 65536};

    (void)state;
    for (unsigned i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        unsigned longest = 0;

        begin();
        for (unsigned k = 0; k < epoch.records_max; k++)
            add(k % 2 ? QC_RECORD_ENTRY : QC_RECORD_COUNT, k * steps[i], 0, 0);
        for (uint32_t bucket = 0; bucket <= epoch.buckets_mask; bucket++) {
            unsigned length = 0;

            for (uint32_t number = epoch.buckets[bucket]; number != QC_EPOCH_NONE; length++)
                number = qc_epoch_at(&epoch, number - 1)->chain;
            longest = length > longest ? length : longest;
        }
        assert_in_range(longest, 1, 32);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shortest_sorts_in_every_order),
        cmocka_unit_test(kinds_stand_in_their_order),
        cmocka_unit_test(l1_records_follow_their_tables_and_come_back),
        cmocka_unit_test(pages_are_lent_as_records_need_them),
        cmocka_unit_test(room_is_what_may_be_lent),
        cmocka_unit_test(records_lie_in_what_is_lent),
        cmocka_unit_test(record_without_room_is_of_no_epoch),
        cmocka_unit_test(chains_are_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
