/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Records in an array of pages, found through a hash with chains, sorted in place by heap.
 *
 * The pages come out of the cache's pool one by one as the epoch grows, and go back when it
 * empties: what is not needed for changes caches tables.
 */
#include "epoch.h"

#include "bytes.h"

_Static_assert(sizeof(struct qc_record) == 32, "a page holds whole records");

#define RECORDS_MAX ((1u << 24) - 1) /* what a chain can number */

static uint32_t bucket_of(const struct qc_epoch *epoch, uint64_t id)
{
    return (uint32_t)((id * UINT64_C(0x9e3779b97f4a7c15)) >> 36) & epoch->buckets_mask;
}

struct qc_record *qc_epoch_at(const struct qc_epoch *epoch, uint32_t number)
{
    uint8_t *page = qc_cache_lent_page(epoch->cache, number / QC_RECORDS_PER_PAGE);

    return (struct qc_record *)(void *)page + number % QC_RECORDS_PER_PAGE;
}

void qc_epoch_init(struct qc_epoch *epoch, struct qc_cache *cache)
{
    uint32_t pages_max = cache->lend_pages_max;
    uint32_t buckets_count = cache->epoch_buckets_count;

    __builtin_memset(epoch, 0, sizeof(*epoch));
    epoch->cache = cache;
    epoch->buckets = cache->epoch_buckets;
    epoch->buckets_mask = buckets_count - 1;
    epoch->records_max = (uint32_t)qc_min(pages_max * QC_RECORDS_PER_PAGE, RECORDS_MAX);
    __builtin_memset(epoch->buckets, 0, buckets_count * sizeof(epoch->buckets[0]));
}

bool qc_epoch_has_room(const struct qc_epoch *epoch, uint32_t records_count)
{
    return records_count <= epoch->records_max - epoch->records_count;
}

struct qc_record *qc_epoch_find(const struct qc_epoch *epoch, enum qc_record_kind kind,
                                uint64_t key)
{
    uint64_t id = (uint64_t)kind << 56 | key;
    uint32_t number;

    if (epoch->records_count == 0)
        return NULL;
    /* A chain never visits a record twice, so it ends. */
    for (number = epoch->buckets[bucket_of(epoch, id)]; number != QC_EPOCH_NONE;) {
        struct qc_record *record = qc_epoch_at(epoch, number - 1);

        if (record->id == id)
            return record;
        number = record->chain;
    }
    return NULL;
}

static void hash_add(struct qc_epoch *epoch, uint32_t number)
{
    struct qc_record *record = qc_epoch_at(epoch, number);
    uint32_t *bucket = &epoch->buckets[bucket_of(epoch, record->id)];

    record->chain = *bucket & 0xffffff;
    *bucket = number + 1;
}

struct qc_record *qc_epoch_add(struct qc_epoch *epoch, enum qc_record_kind kind, uint64_t key)
{
    struct qc_record *record = qc_epoch_find(epoch, kind, key);
    uint32_t number = epoch->records_count;

    if (record != NULL)
        return record;
    if (!qc_epoch_has_room(epoch, 1)) {
        epoch->fault = "no room was reserved";
        __builtin_memset(&epoch->runoff, 0, sizeof(epoch->runoff));
        epoch->runoff.id = (uint64_t)kind << 56 | key;
        return &epoch->runoff;
    }
    if (number == epoch->pages_count * QC_RECORDS_PER_PAGE) {
        qc_cache_lend_page(epoch->cache);
        epoch->pages_count++;
    }
    epoch->records_count++;
    epoch->kind_counts[kind]++;
    record = qc_epoch_at(epoch, number);
    __builtin_memset(record, 0, sizeof(*record));
    record->id = (uint64_t)kind << 56 | key;
    hash_add(epoch, number);
    return record;
}

static bool is_before(const struct qc_record *a, const struct qc_record *b)
{
    enum qc_record_kind a_kind = qc_record_kind(a), b_kind = qc_record_kind(b);

    if (a_kind != b_kind)
        return a_kind < b_kind;
    /* An L1 record's place is its source; its own order is that of its index. */
    if (a_kind != QC_RECORD_L1 && a->place != b->place)
        return a->place < b->place;
    return a->id < b->id;
}

static bool is_table_before(const struct qc_record *a, const struct qc_record *b)
{
    return a->value < b->value;
}

/* Records from number first on, and what puts them in order. */
struct range {
    struct qc_epoch *epoch;
    uint32_t first, count;
    bool (*is_before)(const struct qc_record *a, const struct qc_record *b);
};

static struct qc_record *in_range(const struct range *range, uint32_t i)
{
    return qc_epoch_at(range->epoch, range->first + i);
}

/* Lets the record at root sink until the heap of count records is one again. */
static void sift_down(const struct range *range, uint32_t root, uint32_t count)
{
    for (uint32_t child = 2 * root + 1; child < count; child = 2 * root + 1) {
        struct qc_record *parent_record = in_range(range, root), *child_record;
        struct qc_record swap;

        if (child + 1 < count &&
            range->is_before(in_range(range, child), in_range(range, child + 1)))
            child++;
        child_record = in_range(range, child);
        if (!range->is_before(parent_record, child_record))
            return;
        swap = *parent_record;
        *parent_record = *child_record;
        *child_record = swap;
        root = child;
    }
}

/* Forgets all chains: each record clears its own bucket, so that a small epoch costs little. */
static void hash_clear(struct qc_epoch *epoch)
{
    for (uint32_t i = 0; i < epoch->records_count; i++)
        epoch->buckets[bucket_of(epoch, qc_epoch_at(epoch, i)->id)] = QC_EPOCH_NONE;
}

static void sort(const struct range *range)
{
    hash_clear(range->epoch);
    for (uint32_t root = range->count / 2; root > 0; root--)
        sift_down(range, root - 1, range->count);
    for (uint32_t end = range->count; end > 1; end--) {
        struct qc_record *first = in_range(range, 0), *last = in_range(range, end - 1);
        struct qc_record swap = *first;

        *first = *last;
        *last = swap;
        sift_down(range, 0, end - 1);
    }
    for (uint32_t i = 0; i < range->epoch->records_count; i++)
        hash_add(range->epoch, i);
}

void qc_epoch_sort(struct qc_epoch *epoch)
{
    const struct range range = {epoch, 0, epoch->records_count, is_before};

    sort(&range);
}

void qc_epoch_sort_l1(struct qc_epoch *epoch, bool by_table)
{
    uint32_t count = epoch->kind_counts[QC_RECORD_L1];
    const struct range range = {epoch, epoch->records_count - count, count,
                                by_table ? is_table_before : is_before};

    sort(&range);
}

void qc_epoch_retain(struct qc_epoch *epoch, bool (*keep)(struct qc_record *record, void *context),
                     void *context)
{
    uint32_t kept = 0;

    hash_clear(epoch);
    __builtin_memset(epoch->kind_counts, 0, sizeof(epoch->kind_counts));
    for (uint32_t i = 0; i < epoch->records_count; i++) {
        struct qc_record *record = qc_epoch_at(epoch, i);

        if (!keep(record, context))
            continue;
        epoch->kind_counts[qc_record_kind(record)]++;
        *qc_epoch_at(epoch, kept++) = *record;
    }
    epoch->records_count = kept;
    for (; epoch->pages_count > (kept + QC_RECORDS_PER_PAGE - 1) / QC_RECORDS_PER_PAGE;
         epoch->pages_count--)
        qc_cache_return_page(epoch->cache);
    for (uint32_t i = 0; i < kept; i++)
        hash_add(epoch, i);
}
