/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The cache's figures: how a pool is shared out, to the byte; how much of it the queue has, the
 * ghosts and what is lent; which slice goes when; and what is still known of it then.
 */
#include "support.h"

#include "../../core/bytes.h"

#define PAGE UINT64_C(4096)

/* A disk whose every 8 bytes are their own place. */
struct places {
    struct qc_disk disk;
    unsigned reads_count;
    uint64_t read_off_last;
    bool is_failing;
};

static qc_status places_read(struct qc_disk *disk, uint64_t host_off, void *buf, size_t len)
{
    struct places *places = (struct places *)disk;

    places->reads_count++;
    places->read_off_last = host_off;
    for (size_t i = 0; i + 8 <= len; i += 8)
        put_be64((uint8_t *)buf + i, host_off + i);
    return places->is_failing ? QC_IO : QC_OK;
}

static const struct qc_disk_ops places_ops = {.read = places_read};
static _Alignas(QC_PAGE_BYTES) uint8_t pool[QC_POOL_BYTES_MAX];
static struct places places;
static struct qc_cache cache;

static void begin(size_t pool_bytes)
{
    places = (struct places){.disk = {&places_ops, UINT64_MAX, 512, true}};
    qc_cache_init(&cache, pool, pool_bytes);
}

static const uint8_t *get_at(unsigned depth, uint64_t host_off, enum qc_heat heat)
{
    const uint8_t *slice = NULL;

    assert_int_equal(
        qc_cache_get(&cache, &places.disk, depth, host_off, QC_PAGE_BYTES, heat, &slice), QC_OK);
    for (unsigned i = 0; i < QC_PAGE_BYTES; i += 8)
        assert_true(qc_be64(slice + i) == host_off + i);
    return slice;
}

static void get(uint64_t page, enum qc_heat heat)
{
    get_at(0, page * PAGE, heat);
}

static bool is_here(uint64_t page)
{
    uint32_t len;

    return qc_cache_peek(&cache, page * PAGE, &len) != NULL;
}

/* One after the other, each where the next begins but for alignment. */
static void expect_side_by_side(const void *left, size_t left_bytes, const void *right)
{
    const uint8_t *end = (const uint8_t *)left + left_bytes;

    assert_true((uintptr_t)right % 8 == 0);
    assert_true((const uint8_t *)right >= end && (const uint8_t *)right - end < 8);
}

static void pool_is_shared_out(void **state)
{
    static const struct {
        unsigned pool_pages, staging_pages, buckets, pages, lend_pages_max;
    } cases[] = {
        {16, 3, 16, 11, 6},
        {17, 3, 32, 12, 7},
        {223, 15, 256, 192, 164},
        {224, 16, 256, 192, 164},
        {256, 16, 256, 223, 192},
        {320, 16, 512, 279, 241},
        {16384, 16, 16384, 15287, 13373},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        unsigned pages = cases[i].pool_pages, buckets = cases[i].buckets;
        unsigned slots = pages + pages / 2;

        begin(pages * PAGE);
        assert_int_equal(cache.staging_bytes, cases[i].staging_pages * PAGE);
        assert_int_equal(cache.buckets_mask, buckets - 1);
        assert_int_equal(cache.guests_mask, buckets - 1);
        assert_int_equal(cache.epoch_buckets_count, 16 * buckets);
        assert_int_equal(cache.filter_bytes, 128 * pages);
        assert_int_equal(cache.blanks_count, pages);
        assert_int_equal(cache.lists[QC_LIST_FREE].count, slots);
        assert_int_equal(cache.pages_count, cases[i].pages);
        assert_int_equal(cache.lend_pages_max, cases[i].lend_pages_max);

        assert_ptr_equal(cache.staging, pool);
        assert_ptr_equal(cache.pages, pool + cache.staging_bytes);
        assert_true((const uint8_t *)cache.slots - cache.pages >= cache.pages_count * (long)PAGE);
        assert_true((const uint8_t *)cache.slots - cache.pages <
                    (cache.pages_count + 1) * (long)PAGE);
        expect_side_by_side(cache.slots, (slots + 1) * sizeof(cache.slots[0]), cache.buckets);
        expect_side_by_side(cache.buckets, buckets * sizeof(cache.buckets[0]), cache.page_slots);
        expect_side_by_side(cache.page_slots, pages * sizeof(cache.page_slots[0]), cache.guests);
        expect_side_by_side(cache.guests, buckets * sizeof(cache.guests[0]), cache.blanks);
        expect_side_by_side(cache.blanks, pages * sizeof(cache.blanks[0]), cache.filter);
        expect_side_by_side(cache.filter, 128 * pages, cache.epoch_buckets);
        assert_ptr_equal((uint8_t *)cache.epoch_buckets + 16 * buckets * sizeof(uint32_t),
                         pool + pages * PAGE);
    }
}

/* What does not divide evenly stays unused; every array is aligned all the same. */
static void odd_pool_is_cut_to_its_arrays(void **state)
{
    (void)state;
    for (size_t more = 1; more < 16; more++) {
        begin(QC_POOL_BYTES_MIN + more);
        assert_int_equal(cache.lists[QC_LIST_FREE].count, 24);
        assert_true((uintptr_t)cache.slots % 8 == 0 && (uintptr_t)cache.blanks % 8 == 0);
        assert_true((uintptr_t)cache.buckets % 8 == 0 && (uintptr_t)cache.guests % 8 == 0);
        assert_true((uintptr_t)cache.page_slots % 8 == 0 && (uintptr_t)cache.filter % 8 == 0);
        assert_true((uintptr_t)cache.epoch_buckets % 8 == 0);
        assert_true((uint8_t *)cache.epoch_buckets + 16 * 16 * sizeof(uint32_t) <=
                    pool + QC_POOL_BYTES_MIN + more);
    }
}

/* Tables are regular: neither their slices nor those of several layers share few buckets. */
static void chains_are_short(void **state)
{
    static const uint64_t steps[] = {512, 4096, 65536, 8 * 65536, UINT64_C(1) << 21};

    (void)state;
    for (unsigned i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        unsigned longest = 0;

        begin(320 * PAGE);
        for (unsigned k = 0; k < cache.pages_count; k++)
            get_at(k % 3, (k + 1) * steps[i], QC_HEAT_TOP);
        for (unsigned bucket = 0; bucket <= cache.buckets_mask; bucket++) {
            unsigned length = 0;

            for (uint16_t slot = cache.buckets[bucket]; slot != 0; slot = cache.slots[slot].chain)
                length++;
            longest = length > longest ? length : longest;
        }
        assert_in_range(longest, 1, 6);
    }
}

static void layers_and_far_places_are_kept_apart(void **state)
{
    const uint64_t last = QC_HOST_BYTES_MAX - PAGE;
    const uint8_t *first;

    (void)state;
    begin(QC_POOL_BYTES_MIN);
    first = get_at(0, last, QC_HEAT_PASSING);
    assert_true(get_at(255, last, QC_HEAT_PASSING) != first);
    assert_true(places.read_off_last == last);
    assert_true(get_at(128, last, QC_HEAT_PASSING) != first);
    assert_true(get_at(1, 0, QC_HEAT_PASSING) != get_at(2, 0, QC_HEAT_PASSING));
    assert_int_equal(places.read_off_last, 0);
    assert_int_equal(places.reads_count, 5);
    assert_ptr_equal(get_at(0, last, QC_HEAT_PASSING), first);
    assert_int_equal(places.reads_count, 5);
    get_at(3, 513, QC_HEAT_PASSING);
    assert_int_equal(places.read_off_last, 513);
}

/* Of a full cache a quarter, and one, wait in the queue while slices pass; the oldest goes. */
static void queue_has_a_quarter(void **state)
{
    unsigned pages, share;

    (void)state;
    begin(64 * PAGE);
    pages = cache.pages_count;
    share = pages / 4;
    for (unsigned i = 0; i < pages; i++)
        get(1000 + i, QC_HEAT_TOP);
    for (unsigned i = 0; i <= share; i++) {
        assert_true(is_here(1000 + i)); /* the main list's oldest, which goes now */
        get(2000 + i, QC_HEAT_PASSING);
        assert_false(is_here(1000 + i));
    }
    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(cache.lists[QC_LIST_QUEUE].count, share + 1);
        assert_int_equal(cache.lists[QC_LIST_MAIN].count, pages - share - 1);
        assert_true(is_here(2000 + i));
        get(2000 + share + 1 + i, QC_HEAT_PASSING);
        assert_false(is_here(2000 + i));
    }
    /* The next of the main list went for no one of these. */
    assert_true(is_here(1000 + share + 1));
}

/* The share is one of the pages that are left: what is lent does not count. */
static void queue_has_a_quarter_of_what_is_left(void **state)
{
    unsigned left;

    (void)state;
    begin(64 * PAGE);
    for (unsigned i = 0; i < cache.lend_pages_max; i++)
        qc_cache_lend_page(&cache);
    left = cache.pages_count - cache.lend_pages_max;
    for (unsigned i = 0; i < left; i++)
        get(1000 + i, QC_HEAT_TOP);
    for (unsigned i = 0; i < 50; i++)
        get(2000 + i, QC_HEAT_PASSING);
    assert_int_equal(cache.lists[QC_LIST_QUEUE].count, left / 4 + 1);
    assert_int_equal(cache.lists[QC_LIST_MAIN].count, left - left / 4 - 1);
    assert_int_equal(cache.pages_used, left);
}

/* As many are remembered as there are slots without a page; the oldest is forgotten first. */
static void ghosts_are_remembered_so_long(void **state)
{
    unsigned pages, ghosts, share;

    (void)state;
    begin(64 * PAGE);
    pages = cache.pages_count;
    share = pages / 4;
    ghosts = cache.lists[QC_LIST_FREE].count - pages;
    for (unsigned i = 0; i < pages - share - 1; i++)
        get(1000 + i, QC_HEAT_TOP);
    for (unsigned i = 0; i < share + 1 + ghosts + 1; i++)
        get(2000 + i, QC_HEAT_PASSING);
    assert_int_equal(cache.lists[QC_LIST_GHOST].count, ghosts);
    get(2001, QC_HEAT_PASSING); /* the oldest that is remembered: joins the main list */
    assert_int_equal(cache.lists[QC_LIST_MAIN].count, pages - share);
    get(2000, QC_HEAT_PASSING); /* forgotten: waits again, and the queue is short by one */
    assert_int_equal(cache.lists[QC_LIST_QUEUE].count, share + 1);
    assert_int_equal(cache.lists[QC_LIST_MAIN].count, pages - share - 1);
}

static void main_list_is_in_the_order_of_use(void **state)
{
    unsigned pages;

    (void)state;
    begin(QC_POOL_BYTES_MIN);
    pages = cache.pages_count;
    for (unsigned i = 0; i < pages; i++)
        get(i, QC_HEAT_TOP);
    get(0, QC_HEAT_PASSING); /* used again: 1 is the oldest now */
    get(1000, QC_HEAT_TOP);
    assert_true(is_here(0));
    assert_false(is_here(1));
    assert_int_equal(cache.lists[QC_LIST_MAIN].count, pages);
    assert_int_equal(cache.lists[QC_LIST_GHOST].count, 0); /* no ghost is left of it */
}

/* Waiting in the queue, a slice is not asked for again: only after it left. */
static void queue_is_left_by_age_alone(void **state)
{
    const uint8_t *slice;

    (void)state;
    begin(QC_POOL_BYTES_MIN);
    get(1, QC_HEAT_PASSING);
    get(2, QC_HEAT_PASSING);
    get(1, QC_HEAT_PASSING);
    get(1, QC_HEAT_TOP);
    assert_int_equal(cache.lists[QC_LIST_MAIN].count, 0);
    assert_int_equal(cache.slots[cache.lists[QC_LIST_QUEUE].tail].key, PAGE);
    places.is_failing = true;
    assert_int_equal(qc_cache_get(&cache, &places.disk, 0, 3 * PAGE, 4096, QC_HEAT_PASSING, &slice),
                     QC_IO);
    assert_false(is_here(3)); /* not even a byte of it */
}

static bool is_tagged(uint64_t guest_slice)
{
    const uint8_t *slice;

    return qc_cache_tagged(&cache, guest_slice, &slice);
}

static void tag(uint64_t page, uint64_t guest_slice)
{
    qc_cache_tag(&cache, page * PAGE, guest_slice);
}

static void tag_finds_its_slice(void **state)
{
    const uint8_t *slice, *wanted;
    unsigned reads_count;

    (void)state;
    begin(QC_POOL_BYTES_MIN);
    assert_false(is_tagged(0));
    wanted = get_at(0, 7 * PAGE, QC_HEAT_TOP);
    get(8, QC_HEAT_TOP);
    reads_count = places.reads_count;
    tag(7, 0);
    tag(8, 1);
    assert_true(qc_cache_tagged(&cache, 0, &slice));
    assert_ptr_equal(slice, wanted);
    assert_int_equal(cache.slots[cache.lists[QC_LIST_MAIN].head].key, 7 * PAGE); /* was used */
    tag(8, cache.guests_mask + UINT64_C(1)); /* finds the first one's place taken */
    assert_false(is_tagged(0));
    assert_true(is_tagged(cache.guests_mask + UINT64_C(1)));
    assert_false(is_tagged(1));
    qc_cache_untag_all(&cache);
    assert_false(is_tagged(cache.guests_mask + UINT64_C(1)));
    assert_int_equal(places.reads_count, reads_count);
}

static void last_tag_is_forgotten_too(void **state)
{
    (void)state;
    begin(QC_POOL_BYTES_MIN);
    get(7, QC_HEAT_TOP);
    tag(7, cache.guests_mask);
    assert_true(is_tagged(cache.guests_mask));
    qc_cache_untag_all(&cache);
    assert_false(is_tagged(cache.guests_mask));
}

/* What left the cache, was forgotten or failed to be read maps nothing, be it guest slice 0. */
static void tag_goes_with_its_slice(void **state)
{
    const uint8_t *slice;

    (void)state;
    begin(QC_POOL_BYTES_MIN);
    get(7, QC_HEAT_TOP);
    tag(7, 0);
    qc_cache_forget(&cache, 7 * PAGE);
    assert_false(is_tagged(0));
    tag(7, 0); /* nothing is there to be tagged */
    assert_false(is_tagged(0));
    get(7, QC_HEAT_TOP);
    assert_false(is_tagged(0));

    tag(7, 0);
    for (unsigned i = 0; i < cache.pages_count; i++) /* out of the main list */
        get(100 + i, QC_HEAT_TOP);
    assert_false(is_here(7));
    assert_false(is_tagged(0));

    begin(QC_POOL_BYTES_MIN);
    get(7, QC_HEAT_PASSING);
    tag(7, 0);
    for (unsigned i = 0; i < cache.pages_count; i++) /* out of the queue: a ghost */
        get(100 + i, QC_HEAT_PASSING);
    assert_false(is_here(7));
    assert_false(is_tagged(0));
    tag(7, 0);
    assert_false(is_tagged(0));
    get(7, QC_HEAT_PASSING);
    assert_false(is_tagged(0));

    begin(QC_POOL_BYTES_MIN);
    assert_int_equal(qc_cache_get(&cache, &places.disk, 0, 7 * PAGE, 512, QC_HEAT_TOP, &slice),
                     QC_OK);
    tag(7, 0);
    places.is_failing = true; /* a longer slice at the same place */
    assert_int_equal(qc_cache_get(&cache, &places.disk, 0, 7 * PAGE, 1024, QC_HEAT_TOP, &slice),
                     QC_IO);
    assert_false(is_tagged(0));
    assert_false(is_here(7));
}

static void reset_forgets_every_slice(void **state)
{
    unsigned slots_count, lent_count = 2;

    (void)state;
    begin(64 * PAGE);
    slots_count = cache.lists[QC_LIST_FREE].count;
    for (unsigned i = 0; i < 200; i++)
        get(i, i % 2 ? QC_HEAT_TOP : QC_HEAT_PASSING);
    qc_cache_lend_page(&cache);
    qc_cache_lend_page(&cache);
    qc_cache_lend_page(&cache);
    qc_cache_return_page(&cache); /* one is in the chain of those given back */
    get(199, QC_HEAT_TOP);
    tag(199, 3);
    cache.page_slots[0] = UINT16_MAX; /* lie right behind what is cleared */
    cache.blanks[0].table_off = UINT64_MAX;
    qc_cache_reset(&cache);
    assert_int_equal(cache.page_slots[0], UINT16_MAX);
    assert_true(cache.blanks[0].table_off == UINT64_MAX);
    for (unsigned i = 0; i <= cache.buckets_mask; i++)
        assert_true(cache.buckets[i] == 0 && cache.guests[i] == 0);
    for (unsigned i = 0; i < 200; i++)
        assert_false(is_here(i));
    assert_false(is_tagged(3));
    assert_int_equal(cache.lists[QC_LIST_FREE].count, slots_count);
    assert_int_equal(cache.pages_lent, lent_count);
    for (unsigned i = 0; i < 300; i++)
        get(i, i % 2 ? QC_HEAT_TOP : QC_HEAT_PASSING);
    assert_int_equal(cache.pages_used, cache.pages_count - lent_count);
    assert_int_equal(cache.lists[QC_LIST_QUEUE].count + cache.lists[QC_LIST_MAIN].count,
                     cache.pages_count - lent_count);
}

/* A page that comes back is used before any slice has to go. */
static void returned_page_is_used_first(void **state)
{
    unsigned pages;

    (void)state;
    begin(QC_POOL_BYTES_MIN);
    pages = cache.pages_count;
    for (unsigned i = 0; i < pages; i++)
        get(i, QC_HEAT_TOP);
    for (unsigned i = 0; i < 3; i++)
        qc_cache_lend_page(&cache);
    for (unsigned i = 0; i < 3; i++)
        assert_false(is_here(i));
    for (unsigned i = 3; i < pages; i++)
        get_at(0, i * PAGE, QC_HEAT_TOP);
    assert_int_equal(places.reads_count, pages);
    for (unsigned i = 0; i < 3; i++)
        qc_cache_return_page(&cache);
    assert_int_equal(cache.free_pages_count, 3);
    for (unsigned i = 0; i < 3; i++)
        get(i, QC_HEAT_TOP);
    assert_int_equal(cache.free_pages_count, 0);
    for (unsigned i = 0; i < pages; i++) /* each still has its own page */
        get(i, QC_HEAT_TOP);
    assert_int_equal(places.reads_count, pages + 3);
}

/* Pages that no slice ever had are lent and come back without a trace. */
static void unused_page_is_lent_and_comes_back(void **state)
{
    unsigned pages;

    (void)state;
    begin(QC_POOL_BYTES_MIN);
    pages = cache.pages_count;
    for (unsigned i = 0; i < pages - 1; i++)
        get(i, QC_HEAT_TOP);
    qc_cache_lend_page(&cache);
    assert_int_equal(cache.pages_used, pages - 1);
    qc_cache_return_page(&cache);
    assert_int_equal(cache.free_pages_count, 0);
    get(pages - 1, QC_HEAT_TOP);
    assert_int_equal(cache.pages_used, pages);
    for (unsigned i = 0; i < pages; i++)
        assert_true(is_here(i));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pool_is_shared_out),
        cmocka_unit_test(odd_pool_is_cut_to_its_arrays),
        cmocka_unit_test(chains_are_short),
        cmocka_unit_test(layers_and_far_places_are_kept_apart),
        cmocka_unit_test(queue_has_a_quarter),
        cmocka_unit_test(queue_has_a_quarter_of_what_is_left),
        cmocka_unit_test(ghosts_are_remembered_so_long),
        cmocka_unit_test(main_list_is_in_the_order_of_use),
        cmocka_unit_test(queue_is_left_by_age_alone),
        cmocka_unit_test(tag_finds_its_slice),
        cmocka_unit_test(last_tag_is_forgotten_too),
        cmocka_unit_test(tag_goes_with_its_slice),
        cmocka_unit_test(reset_forgets_every_slice),
        cmocka_unit_test(returned_page_is_used_first),
        cmocka_unit_test(unused_page_is_lent_and_comes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
