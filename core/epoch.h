/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The epoch: everything that changed since the last commit, as absolute records in memory.
 *
 * Promises: a record says a new value, never a difference, so that writing it twice is harmless;
 * lookup is O(1); records live in pages lent by the cache's pool and nowhere else; qc_epoch_add
 * never fails, because room was reserved before (rule R8); were it not, that is a fault of ours and
 * the epoch is never written.
 *
 * Left to others: what the values mean on the disk and in which order they go there (commit.c).
 */
#ifndef QC_EPOCH_H
#define QC_EPOCH_H

#include <stdbool.h>
#include <stdint.h>

#include "cache.h"

/* Also the order in which sorted records stand. */
enum qc_record_kind {
    QC_RECORD_COUNT = 1, /* key: host cluster */
    QC_RECORD_ROOT,      /* key: index in the refcount table */
    QC_RECORD_ENTRY,     /* key: guest cluster */
    QC_RECORD_L1,        /* key: index in the L1 table */
};

enum qc_record_flags {
    QC_RECORD_WRITE = 1,      /* COUNT: the disk may hold another value than `value` */
    QC_RECORD_RAISED = 2,     /* COUNT: a reference was added in this epoch */
    QC_RECORD_QUARANTINE = 4, /* COUNT: lost its last reference in this epoch (invariant 4) */
    QC_RECORD_NEW = 8,        /* ROOT, L1: the table it names is not durable yet (R2) */
    QC_RECORD_FRESH = 16,     /* ENTRY: private until published; unwritten sectors read as zeros */
    QC_RECORD_CLEAN = 32,     /* ENTRY, fresh: the disk's own unwritten sectors are zeros already */
    QC_RECORD_SEEDED = 128,   /* of use to seeded.h only */
    QC_RECORD_IN_NEW = 64,    /* ENTRY: its table is new; set while a commit sorts */
};

struct qc_record {
    uint64_t id;    /* kind << 56 | key */
    uint64_t value; /* COUNT: R6's `now`; ENTRY: the L2 entry; ROOT, L1: host offset of the table */
    uint64_t place; /* host offset of what it changes, for sorting; L1: the table
                       it is a copy of, 0: zeros */
    uint32_t chain : 24;
    uint32_t flags : 8;
    union {
        uint32_t lost; /* COUNT: references dropped in this epoch; R6's `then` is value - lost */
        struct {
            uint16_t from, to; /* ENTRY, fresh: sectors of the cluster that were written */
        } written;
    } u;
};

#define QC_RECORDS_PER_PAGE (QC_PAGE_BYTES / 32u)
#define QC_EPOCH_NONE       0u

struct qc_epoch {
    struct qc_cache *cache;
    uint32_t *buckets;
    uint32_t buckets_mask;
    uint32_t records_count; /* records are numbered from 1 */
    uint32_t records_max;
    uint32_t pages_count; /* of the pool, lent */
    uint32_t kind_counts[QC_RECORD_L1 + 1];
    const char *fault;       /* NULL, or which promise of our own was broken (sure.h) */
    struct qc_record runoff; /* what a record without room would overwrite */
};

/* An empty epoch; it takes its index from the cache's pool, which must be fresh. */
void qc_epoch_init(struct qc_epoch *epoch, struct qc_cache *cache);

/* Whether so many more records would fit. */
bool qc_epoch_has_room(const struct qc_epoch *epoch, uint32_t records_count);

/* The record of this kind and key, or NULL. Pointers hold until the epoch is sorted or emptied. */
struct qc_record *qc_epoch_find(const struct qc_epoch *epoch, enum qc_record_kind kind,
                                uint64_t key);

/* The record of this kind and key, added with all else 0 where there was none. */
struct qc_record *qc_epoch_add(struct qc_epoch *epoch, enum qc_record_kind kind, uint64_t key);

/* By number, 0 to records_count - 1. */
struct qc_record *qc_epoch_at(const struct qc_epoch *epoch, uint32_t number);

/* Sorts by kind, then place, then key. */
void qc_epoch_sort(struct qc_epoch *epoch);

/*
 * Of a sorted epoch: puts the L1 records, which are its last, in the order of the tables they name,
 * or back in that of their keys.
 */
void qc_epoch_sort_l1(struct qc_epoch *epoch, bool by_table);

/* Keeps only the records for which keep says so; keep may change a record, not its id. */
void qc_epoch_retain(struct qc_epoch *epoch, bool (*keep)(struct qc_record *record, void *context),
                     void *context);

static inline enum qc_record_kind qc_record_kind(const struct qc_record *record)
{
    return (enum qc_record_kind)(record->id >> 56);
}

static inline uint64_t qc_record_key(const struct qc_record *record)
{
    return record->id & ((UINT64_C(1) << 56) - 1);
}

#endif
