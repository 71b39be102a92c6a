/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The cache of clean slices: at most 4 KiB of one metadata table each, as they are on the disk.
 *
 * Promises: nothing in here is ever dirty, so evicting writes nothing and needs no order (what
 * changed lives elsewhere); lookup is O(1) by hash; one miss costs one read of the disk; a table
 * read once from end to end does not push out the slices in use.
 *
 * Replacement is 2Q (Johnson and Shasha, 1994): a new slice waits in a short queue, and only one
 * that is asked for again after it left that queue (a ghost entry remembers it) joins the main
 * list, which is kept in order of use. Slices of tables that every lookup passes join it at once.
 *
 * Left to others: what a slice means, and which bytes of a disk may be read as a table.
 */
#ifndef QC_CACHE_H
#define QC_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "disk.h"
#include "status.h"

#define QC_PAGE_BYTES     4096u
#define QC_POOL_BYTES_MIN (16u * QC_PAGE_BYTES)
#define QC_POOL_BYTES_MAX (64u * 1024 * 1024)

enum qc_heat {
    QC_HEAT_PASSING, /* waits in the queue first */
    QC_HEAT_TOP,     /* every lookup passes it: main list at once */
};

enum qc_cache_list { QC_LIST_FREE, QC_LIST_QUEUE, QC_LIST_MAIN, QC_LIST_GHOST, QC_LISTS_COUNT };

/* What is known of one L2 table (blank.h). */
struct qc_blank {
    uint64_t table_off;  /* 0: of none */
    uint64_t written[2]; /* a bit for each of its parts that may hold entries */
};

/* A slice in the cache, or the memory of one (a ghost has no page). Linked by index, 0 is none. */
struct qc_slot {
    uint64_t key;   /* depth of the layer << 56 | host_off */
    uint64_t guest; /* the guest slice it maps, and 1; 0: none is known, or nothing is here */
    uint32_t len;
    uint16_t page;
    uint16_t list;
    uint16_t prev, next; /* within the list, head is the newest */
    uint16_t chain;      /* within the hash bucket */
};

struct qc_cache {
    uint8_t *pages;
    struct qc_slot *slots; /* slots[0] is not used */
    uint16_t *buckets;
    uint32_t buckets_mask;
    uint16_t *page_slots; /* whose slice a page holds */
    uint16_t pages_count;
    uint16_t pages_used; /* pages from here on were never given to a slice */
    uint16_t pages_lent; /* to the epoch: the last so many of all */
    uint16_t free_page;  /* first of those given back, chained through their own first bytes */
    uint16_t free_pages_count;
    uint16_t lend_pages_max; /* the cache keeps the rest for itself */
    uint32_t *epoch_buckets; /* room for the epoch's hash */
    uint32_t epoch_buckets_count;
    uint16_t *guests; /* by guest slice: the slot that may map it */
    uint32_t guests_mask;
    uint32_t blanks_count;
    struct qc_blank *blanks; /* room for blank.h's */
    uint8_t *filter;         /* and for the guard's */
    uint32_t filter_bytes;
    uint8_t *staging; /* where writes are put together; the pages follow it */
    uint32_t staging_bytes;
    struct {
        uint16_t head, tail, count;
    } lists[QC_LISTS_COUNT];
};

/*
 * Makes an empty cache of all the pool: pages, slots and hash all lie inside it. pool must be
 * aligned to QC_PAGE_BYTES and stay lent to the cache; pool_bytes is QC_POOL_BYTES_MIN to
 * QC_POOL_BYTES_MAX, what does not divide evenly stays unused.
 */
void qc_cache_init(struct qc_cache *cache, void *pool, size_t pool_bytes);

/*
 * Forgets every slice; what is lent stays lent. Until the next call the other pages may hold
 * anything.
 */
void qc_cache_reset(struct qc_cache *cache);

/*
 * Takes a page away from the cache, the last that is left, and gives back the one that was taken
 * last. At most lend_pages_max are lent at a time; a slice that ret_slice of an earlier call points
 * to may go. So what is lent is one stretch at the end, and what is left another.
 */
void qc_cache_lend_page(struct qc_cache *cache);
void qc_cache_return_page(struct qc_cache *cache);

/* The n-th page that is lent, from 0. */
static inline uint8_t *qc_cache_lent_page(const struct qc_cache *cache, uint32_t n)
{
    return cache->pages + (size_t)(cache->pages_count - 1 - n) * QC_PAGE_BYTES;
}

/* How far the staging buffer reaches after qc_cache_reset, until a slice is asked for. */
static inline size_t qc_cache_wide_bytes(const struct qc_cache *cache)
{
    return cache->staging_bytes + (size_t)(cache->pages_count - cache->pages_lent) * QC_PAGE_BYTES;
}

/*
 * The slice of the image itself, depth 0, that starts at host_off, and its length; NULL where it is
 * not here. Never reads.
 */
uint8_t *qc_cache_peek(struct qc_cache *cache, uint64_t host_off, uint32_t *ret_len);

/* Forgets the slice of the image itself that starts at host_off, if it is here. */
void qc_cache_forget(struct qc_cache *cache, uint64_t host_off);

/*
 * The slice of len bytes (1 to QC_PAGE_BYTES) at host_off of disk, read if it is not here. All of
 * it lies inside the disk, and below QC_HOST_BYTES_MAX. depth (below 256) tells the disks of
 * several layers apart. *ret_slice is valid until the next call on this cache. QC_OK or QC_IO.
 */
qc_status qc_cache_get(struct qc_cache *cache, struct qc_disk *disk, unsigned depth,
                       uint64_t host_off, uint32_t len, enum qc_heat heat,
                       const uint8_t **ret_slice);

/*
 * Remembers that the slice of the image itself at host_off, if it is here, is the one that maps
 * this guest slice, in the caller's numbering; and forgets all of that.
 */
void qc_cache_tag(struct qc_cache *cache, uint64_t host_off, uint64_t guest_slice);
void qc_cache_untag_all(struct qc_cache *cache);

/* What qc_cache_get does with a slot that it finds, for qc_cache_tagged. */
void qc_cache_use(struct qc_cache *cache, uint16_t index);

/* Whether the slice that maps a guest slice is known; and it, as qc_cache_get would return it. */
static inline bool qc_cache_tagged(struct qc_cache *cache, uint64_t guest_slice,
                                   const uint8_t **ret_slice)
{
    uint16_t index = cache->guests[guest_slice & cache->guests_mask];
    const struct qc_slot *slot = &cache->slots[index];

    if (slot->guest != guest_slice + 1)
        return false;
    if (slot->list == QC_LIST_MAIN && cache->lists[QC_LIST_MAIN].head != index)
        qc_cache_use(cache, index);
    *ret_slice = cache->pages + (size_t)slot->page * QC_PAGE_BYTES;
    return true;
}

#endif
