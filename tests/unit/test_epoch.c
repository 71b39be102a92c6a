/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The epoch's records: found, sorted, kept and dropped, against a plain array that does the same.
 */
#include "support.h"

#define KEYS     700u
#define RECORDS  3000u
#define POOL_LEN (64u * QC_PAGE_BYTES)

static _Alignas(QC_PAGE_BYTES) uint8_t pool[POOL_LEN];
static uint64_t seed;

static uint64_t random_number(void)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return seed >> 33;
}

static void begin(struct qc_cache *cache, struct qc_epoch *epoch)
{
    seed = 20260202;
    memset(pool, 0xdd, sizeof(pool));
    qc_cache_init(cache, pool, sizeof(pool));
    qc_epoch_init(epoch, cache);
}

/* The model: value by kind and key, 0 for none. */
static uint64_t model[QC_RECORD_L1 + 1][KEYS];

static unsigned model_count(void)
{
    unsigned count = 0;

    for (unsigned kind = 0; kind <= QC_RECORD_L1; kind++) {
        for (unsigned key = 0; key < KEYS; key++)
            count += model[kind][key] != 0;
    }
    return count;
}

static void expect_model(const struct qc_epoch *epoch)
{
    assert_int_equal(epoch->records_count, model_count());
    for (unsigned kind = 1; kind <= QC_RECORD_L1; kind++) {
        for (unsigned key = 0; key < KEYS; key++) {
            const struct qc_record *record = qc_epoch_find(epoch, (enum qc_record_kind)kind, key);

            assert_int_equal(record != NULL, model[kind][key] != 0);
            if (record != NULL)
                assert_true(record->value == model[kind][key]);
        }
    }
}

static void add_some(struct qc_epoch *epoch, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        unsigned kind = (unsigned)(1 + random_number() % 4), key = random_number() % KEYS;
        struct qc_record *record = qc_epoch_add(epoch, (enum qc_record_kind)kind, key);

        assert_true(record->value == model[kind][key]); /* there already, or all zeros */
        model[kind][key] = record->value = 1 + random_number();
        record->place = random_number() % 1000;
    }
}

static bool keep_odd(struct qc_record *record, void *context)
{
    unsigned *kept = context;

    if (record->value % 2 == 0)
        return false;
    (*kept)++;
    return true;
}

static void records_are_found_sorted_and_kept(void **state)
{
    struct qc_cache cache;
    struct qc_epoch epoch;

    (void)state;
    begin(&cache, &epoch);
    memset(model, 0, sizeof(model));
    for (unsigned round = 0; round < 20; round++) {
        unsigned kept = 0;

        add_some(&epoch, round < 2 ? RECORDS : 40);
        expect_model(&epoch);
        qc_epoch_sort(&epoch);
        expect_model(&epoch);
        for (uint32_t i = 1; i < epoch.records_count; i++) {
            const struct qc_record *a = qc_epoch_at(&epoch, i - 1), *b = qc_epoch_at(&epoch, i);

            assert_true(qc_record_kind(a) <= qc_record_kind(b));
            if (qc_record_kind(a) != qc_record_kind(b))
                continue;
            if (qc_record_kind(a) == QC_RECORD_L1)
                assert_true(a->id < b->id);
            else
                assert_true(a->place < b->place || (a->place == b->place && a->id < b->id));
        }
        qc_epoch_retain(&epoch, keep_odd, &kept);
        for (unsigned kind = 0; kind <= QC_RECORD_L1; kind++) {
            for (unsigned key = 0; key < KEYS; key++)
                model[kind][key] = model[kind][key] % 2 ? model[kind][key] : 0;
        }
        expect_model(&epoch);
        assert_int_equal(kept, epoch.records_count);
    }
}

static void room_is_bounded_and_given_back(void **state)
{
    struct qc_cache cache;
    struct qc_epoch epoch;
    unsigned kept = 0;

    (void)state;
    begin(&cache, &epoch);
    assert_true(qc_epoch_has_room(&epoch, epoch.records_max));
    assert_false(qc_epoch_has_room(&epoch, epoch.records_max + 1));
    for (uint32_t i = 0; i < epoch.records_max; i++)
        qc_epoch_add(&epoch, QC_RECORD_ENTRY, i)->value = 2;
    assert_false(qc_epoch_has_room(&epoch, 1));
    assert_int_equal(cache.pages_lent, cache.lend_pages_max);
    assert_int_equal(epoch.kind_counts[QC_RECORD_ENTRY], epoch.records_max);
    qc_epoch_retain(&epoch, keep_odd, &kept);
    assert_int_equal(cache.pages_lent, 0);
    assert_int_equal(epoch.kind_counts[QC_RECORD_ENTRY], 0);
    assert_null(qc_epoch_find(&epoch, QC_RECORD_ENTRY, 3));
}

static void keys_of_56_bits_are_kept_apart(void **state)
{
    struct qc_cache cache;
    struct qc_epoch epoch;
    const uint64_t last = (UINT64_C(1) << 56) - 1;

    (void)state;
    begin(&cache, &epoch);
    qc_epoch_add(&epoch, QC_RECORD_COUNT, last)->value = 5;
    qc_epoch_add(&epoch, QC_RECORD_ENTRY, last)->value = 6;
    qc_epoch_add(&epoch, QC_RECORD_COUNT, 0)->value = 7;
    assert_int_equal(qc_epoch_find(&epoch, QC_RECORD_COUNT, last)->value, 5);
    assert_int_equal(qc_epoch_find(&epoch, QC_RECORD_ENTRY, last)->value, 6);
    assert_true(qc_record_key(qc_epoch_find(&epoch, QC_RECORD_ENTRY, last)) == last);
    assert_null(qc_epoch_find(&epoch, QC_RECORD_ENTRY, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_are_found_sorted_and_kept),
        cmocka_unit_test(room_is_bounded_and_given_back),
        cmocka_unit_test(keys_of_56_bits_are_kept_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
