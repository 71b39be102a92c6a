/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The cache's hash and its three lists, all by index inside the caller's pool.
 *
 * A slot is on exactly one list: FREE (no key), QUEUE and MAIN (key and page) or GHOST (key only).
 * Each page below pages_used belongs to one slot of QUEUE or MAIN. A slice whose read failed keeps
 * its place with len 0, so that no page is ever lost and the next call simply reads again.
 */
#include "cache.h"

#include "bytes.h"

#define GHOSTS_PER_PAGES 2u /* one ghost for that many pages, as 2Q's authors advise */
#define QUEUE_PER_PAGES  4u /* the queue's share of the pages */
#define NONE             0u

#define HOST_OFF_BITS 56u
#define HOST_OFF_MASK ((UINT64_C(1) << HOST_OFF_BITS) - 1)

#define STAGING_PER_PAGES      16u
#define STAGING_PAGES_MIN      2u
#define STAGING_PAGES_MAX      16u
#define KEEP_PER_PAGES         8u /* what the cache never lends: this share, */
#define KEEP_PAGES_MIN         4u /* and so many more */
#define FILTER_BYTES_PER_PAGE  128u
#define BLANKS_PER_PAGE        1u
#define EPOCH_BUCKETS_PER_PAGE 16u /* half as many as records fit */

static uint32_t bucket_of(const struct qc_cache *cache, uint64_t key)
{
    /* Slices are multiples of 512; Fibonacci hashing spreads what tables leave regular. */
    return (uint32_t)(((key >> 9) * UINT64_C(0x9e3779b97f4a7c15)) >> 40) & cache->buckets_mask;
}

static void list_remove(struct qc_cache *cache, uint16_t index)
{
    struct qc_slot *slot = &cache->slots[index];
    uint16_t list = slot->list;

    if (slot->prev != NONE)
        cache->slots[slot->prev].next = slot->next;
    else
        cache->lists[list].head = slot->next;
    if (slot->next != NONE)
        cache->slots[slot->next].prev = slot->prev;
    else
        cache->lists[list].tail = slot->prev;
    cache->lists[list].count--;
}

static void list_add(struct qc_cache *cache, uint16_t index, enum qc_cache_list list)
{
    struct qc_slot *slot = &cache->slots[index];
    uint16_t head = cache->lists[list].head;

    slot->list = (uint16_t)list;
    slot->prev = NONE;
    slot->next = head;
    if (head != NONE)
        cache->slots[head].prev = index;
    else
        cache->lists[list].tail = index;
    cache->lists[list].head = index;
    cache->lists[list].count++;
}

static void list_move(struct qc_cache *cache, uint16_t index, enum qc_cache_list list)
{
    list_remove(cache, index);
    list_add(cache, index, list);
}

static uint16_t hash_find(const struct qc_cache *cache, uint64_t key)
{
    uint16_t index = cache->buckets[bucket_of(cache, key)];

    /* A chain never visits a slot twice, so it ends. */
    while (index != NONE && cache->slots[index].key != key)
        index = cache->slots[index].chain;
    return index;
}

static void hash_add(struct qc_cache *cache, uint16_t index)
{
    uint16_t *bucket = &cache->buckets[bucket_of(cache, cache->slots[index].key)];

    cache->slots[index].chain = *bucket;
    *bucket = index;
}

static void hash_remove(struct qc_cache *cache, uint16_t index)
{
    uint16_t *link = &cache->buckets[bucket_of(cache, cache->slots[index].key)];

    while (*link != index)
        link = &cache->slots[*link].chain;
    *link = cache->slots[index].chain;
}

/* Forgets what a slot stood for, page and all. */
static void slot_free(struct qc_cache *cache, uint16_t index)
{
    hash_remove(cache, index);
    cache->slots[index].guest = 0;
    list_move(cache, index, QC_LIST_FREE);
}

/* A page for a new slice, taken from the slice that is least worth keeping. */
static uint16_t page_take(struct qc_cache *cache)
{
    uint16_t victim, page;

    if (cache->free_pages_count > 0) {
        page = cache->free_page;
        __builtin_memcpy(&cache->free_page, cache->pages + (size_t)page * QC_PAGE_BYTES,
                         sizeof(cache->free_page));
        cache->free_pages_count--;
        return page;
    }
    if (cache->pages_used < cache->pages_count - cache->pages_lent)
        return cache->pages_used++;
    /* Where the main list is empty the queue has every page. */
    if (cache->lists[QC_LIST_QUEUE].count >
        (cache->pages_count - cache->pages_lent) / QUEUE_PER_PAGES) {
        /* Out of the queue, but remembered: asked for again, it will go to the main list. */
        victim = cache->lists[QC_LIST_QUEUE].tail;
        page = cache->slots[victim].page;
        cache->slots[victim].guest = 0;
        list_move(cache, victim, QC_LIST_GHOST);
    } else {
        victim = cache->lists[QC_LIST_MAIN].tail;
        page = cache->slots[victim].page;
        slot_free(cache, victim);
    }
    return page;
}

/* Cuts bytes off the end of the pool; alignment is that of a page's fraction, 8 at least. */
static void *carve(uint8_t *pool, size_t *pool_bytes, size_t bytes)
{
    *pool_bytes = (*pool_bytes - bytes) & ~(size_t)7;
    __builtin_memset(pool + *pool_bytes, 0, bytes);
    return pool + *pool_bytes;
}

void qc_cache_init(struct qc_cache *cache, void *pool, size_t pool_bytes)
{
    size_t pages_max = pool_bytes / QC_PAGE_BYTES;
    size_t staging_pages =
        qc_min(pages_max / STAGING_PER_PAGES + STAGING_PAGES_MIN, STAGING_PAGES_MAX);
    size_t slots_count = pages_max + pages_max / GHOSTS_PER_PAGES + 1;
    size_t buckets_count = 1;

    while (buckets_count < pages_max)
        buckets_count *= 2;
    __builtin_memset(cache, 0, sizeof(*cache));
    cache->buckets_mask = (uint32_t)(buckets_count - 1);
    cache->epoch_buckets_count = (uint32_t)buckets_count * EPOCH_BUCKETS_PER_PAGE;
    cache->epoch_buckets =
        carve(pool, &pool_bytes, cache->epoch_buckets_count * sizeof(cache->epoch_buckets[0]));
    cache->filter_bytes = (uint32_t)(pages_max * FILTER_BYTES_PER_PAGE);
    cache->filter = carve(pool, &pool_bytes, cache->filter_bytes);
    cache->blanks_count = (uint32_t)pages_max * BLANKS_PER_PAGE;
    cache->blanks = carve(pool, &pool_bytes, cache->blanks_count * sizeof(cache->blanks[0]));
    cache->guests_mask = cache->buckets_mask;
    cache->guests = carve(pool, &pool_bytes, buckets_count * sizeof(cache->guests[0]));
    cache->page_slots = carve(pool, &pool_bytes, pages_max * sizeof(cache->page_slots[0]));
    cache->buckets = carve(pool, &pool_bytes, buckets_count * sizeof(cache->buckets[0]));
    cache->slots = carve(pool, &pool_bytes, slots_count * sizeof(cache->slots[0]));
    cache->staging = pool;
    cache->staging_bytes = (uint32_t)(staging_pages * QC_PAGE_BYTES);
    cache->pages = (uint8_t *)pool + cache->staging_bytes;
    cache->pages_count = (uint16_t)((pool_bytes - cache->staging_bytes) / QC_PAGE_BYTES);
    cache->lend_pages_max =
        (uint16_t)(cache->pages_count - cache->pages_count / KEEP_PER_PAGES - KEEP_PAGES_MIN);
    for (size_t i = 1; i < slots_count; i++)
        list_add(cache, (uint16_t)i, QC_LIST_FREE);
}

void qc_cache_reset(struct qc_cache *cache)
{
    uint32_t slots_count = 1;

    for (unsigned list = 0; list < QC_LISTS_COUNT; list++)
        slots_count += cache->lists[list].count;
    __builtin_memset(cache->lists, 0, sizeof(cache->lists));
    __builtin_memset(cache->buckets, 0, (cache->buckets_mask + 1) * sizeof(cache->buckets[0]));
    cache->pages_used = 0;
    cache->free_pages_count = 0;
    qc_cache_untag_all(cache);
    for (uint32_t i = 1; i < slots_count; i++)
        list_add(cache, (uint16_t)i, QC_LIST_FREE);
}

void qc_cache_lend_page(struct qc_cache *cache)
{
    uint16_t wanted = (uint16_t)(cache->pages_count - cache->pages_lent - 1);
    uint16_t slot, page;

    /*
     * Of the pages that were given back the last is the highest, and all that were never used are
     * higher still: if the wanted page is free, it is the one that page_take finds first.
     */
    if (wanted < cache->pages_used) {
        page = page_take(cache);
        if (page != wanted) {
            slot = cache->page_slots[wanted];
            __builtin_memcpy(cache->pages + (size_t)page * QC_PAGE_BYTES,
                             cache->pages + (size_t)wanted * QC_PAGE_BYTES, QC_PAGE_BYTES);
            cache->slots[slot].page = page;
            cache->page_slots[page] = slot;
        }
    }
    cache->pages_lent++;
}

void qc_cache_return_page(struct qc_cache *cache)
{
    uint16_t page = (uint16_t)(cache->pages_count - cache->pages_lent);

    cache->pages_lent--;
    if (page >= cache->pages_used)
        return;
    __builtin_memcpy(cache->pages + (size_t)page * QC_PAGE_BYTES, &cache->free_page,
                     sizeof(cache->free_page));
    cache->free_page = page;
    cache->free_pages_count++;
}

uint8_t *qc_cache_peek(struct qc_cache *cache, uint64_t host_off, uint32_t *ret_len)
{
    uint16_t index = hash_find(cache, host_off);
    const struct qc_slot *slot = &cache->slots[index];

    if (index == NONE || slot->list == QC_LIST_GHOST || slot->len == 0)
        return NULL;
    *ret_len = slot->len;
    return cache->pages + (size_t)slot->page * QC_PAGE_BYTES;
}

void qc_cache_forget(struct qc_cache *cache, uint64_t host_off)
{
    uint16_t index = hash_find(cache, host_off);

    /* The page stays with its slot, which no longer stands for anything: len 0 reads again. */
    if (index != NONE) {
        cache->slots[index].len = 0;
        cache->slots[index].guest = 0;
    }
}

/* Reads a slice that is not here. Nothing is recorded before the disk has answered. */
static qc_status load(struct qc_cache *cache, struct qc_disk *disk, uint64_t key, uint32_t len,
                      enum qc_heat heat, const uint8_t **ret_slice)
{
    uint16_t page = page_take(cache);
    uint8_t *bytes = cache->pages + (size_t)page * QC_PAGE_BYTES;
    uint16_t index = hash_find(cache, key); /* a ghost, if any */
    enum qc_cache_list list = heat == QC_HEAT_TOP || index != NONE ? QC_LIST_MAIN : QC_LIST_QUEUE;
    qc_status status = disk->ops->read(disk, key & HOST_OFF_MASK, bytes, len);

    if (index == NONE) {
        /* There are more slots than pages: where none is free, some are ghosts. */
        if (cache->lists[QC_LIST_FREE].count == 0)
            slot_free(cache, cache->lists[QC_LIST_GHOST].tail);
        index = cache->lists[QC_LIST_FREE].tail;
        cache->slots[index].key = key;
        hash_add(cache, index);
    }
    cache->slots[index].guest = 0;
    cache->slots[index].page = page;
    cache->page_slots[page] = index;
    cache->slots[index].len = status == QC_OK ? len : 0;
    list_move(cache, index, list);
    if (status == QC_OK)
        *ret_slice = bytes;
    return status;
}

qc_status qc_cache_get(struct qc_cache *cache, struct qc_disk *disk, unsigned depth,
                       uint64_t host_off, uint32_t len, enum qc_heat heat,
                       const uint8_t **ret_slice)
{
    uint64_t key = (uint64_t)depth << HOST_OFF_BITS | host_off;
    uint16_t index = hash_find(cache, key);
    struct qc_slot *slot = &cache->slots[index];
    uint8_t *bytes;
    qc_status status;

    if (index == NONE || slot->list == QC_LIST_GHOST)
        return load(cache, disk, key, len, heat, ret_slice);
    bytes = cache->pages + (size_t)slot->page * QC_PAGE_BYTES;
    if (slot->len < len) {
        /* A read that failed before, or a shorter slice of another table at the same place. */
        slot->len = 0;
        slot->guest = 0;
        status = disk->ops->read(disk, host_off, bytes, len);
        if (status != QC_OK)
            return status;
        slot->len = len;
    }
    if (slot->list == QC_LIST_MAIN && cache->lists[QC_LIST_MAIN].head != index)
        list_move(cache, index, QC_LIST_MAIN);
    *ret_slice = bytes;
    return QC_OK;
}

void qc_cache_tag(struct qc_cache *cache, uint64_t host_off, uint64_t guest_slice)
{
    uint16_t index = hash_find(cache, host_off);

    if (index == NONE || cache->slots[index].list == QC_LIST_GHOST || cache->slots[index].len == 0)
        return;
    cache->slots[index].guest = guest_slice + 1;
    cache->guests[guest_slice & cache->guests_mask] = index;
}

void qc_cache_untag_all(struct qc_cache *cache)
{
    __builtin_memset(cache->guests, 0, (cache->guests_mask + 1) * sizeof(cache->guests[0]));
}

void qc_cache_use(struct qc_cache *cache, uint16_t index)
{
    list_move(cache, index, QC_LIST_MAIN);
}
