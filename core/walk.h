/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * What bulk operations share: the cache's pages as scratch memory, and the walk over all tables of
 * an L1 table in large transfers.
 *
 * Promises: the cache holds nothing while its pages are lent; each table is read once in a walk
 * and, where the visitor changed it, written once, in whole blocks; every entry is checked before
 * the visitor sees it, and nothing that is flawed is followed unless the visitor says so; nothing
 * is read or written outside the disk.
 *
 * Left to others: what the entries mean to an operation, flushes and their order, counts (tally.h).
 * Format: QEMU's docs/interop/qcow2, "Cluster mapping".
 */
#ifndef QC_WALK_H
#define QC_WALK_H

#include "map.h"

/*
 * Memory out of the cache's pool. The staging buffer is not part of it: a walk and a pass over
 * counts read tables into that, one after the other.
 */
struct qc_scratch {
    uint8_t *tables; /* where pieces of L1 tables and of the refcount table are read */
    uint32_t tables_bytes;
    uint8_t *bytes; /* the operation's own; a multiple of QC_PAGE_BYTES, aligned to it */
    size_t bytes_count;
};

/*
 * Borrows all of the cache's pages. The epoch is empty. Until qc_scratch_return nothing may go
 * through the cache: no qc_table_*, qc_window_*, qc_patch_*, qc_count_*, qc_alloc_*, qc_map_*.
 */
void qc_scratch_borrow(struct qc_image *image, struct qc_scratch *ret_scratch);

/* Gives them back: an empty cache. */
void qc_scratch_return(struct qc_image *image);

/*
 * Reads and writes past the cache, for as long as its pages are borrowed (and after that for what
 * it does not hold). Reading behind the disk's end gives zeros; writing there is QC_RANGE. Errors
 * leave a line in the image's detail.
 */
qc_status qc_raw_read(struct qc_image *image, uint64_t host_off, uint8_t *buf, size_t len);
qc_status qc_raw_write(struct qc_image *image, uint64_t host_off, const uint8_t *buf, size_t len);

/* As qc_patch_header, past the cache: one write of one block. Uses the staging buffer. */
qc_status qc_raw_patch_header(struct qc_image *image, uint32_t host_off, const uint8_t *bytes,
                              uint32_t bytes_count);

/* What is wrong with an entry. */
enum qc_flaw {
    QC_FLAW_RESERVED = 1,  /* a reserved bit is set */
    QC_FLAW_UNALIGNED = 2, /* it names no cluster's start */
    QC_FLAW_OUTSIDE = 4,   /* it names what starts behind the disk's end */
    QC_FLAW_STRUCTURE = 8, /* it names the header or a table that the header names */
    QC_FLAW_INVALID = 16,  /* its parts contradict each other or the image's version */
};

/* One entry that is not 0. */
struct qc_walk_item {
    uint64_t index;    /* L1: in its table; L2: the guest cluster */
    uint64_t entry;    /* the visitor may change it where its table has no flaw */
    uint64_t bitmap;   /* extended L2: the subclusters; else 0. May be changed likewise */
    uint64_t host_off; /* of what it names: table, cluster, packed bytes; 0: nothing on this disk */
    uint32_t host_len; /* bytes of it: a cluster, or those packed */
    uint32_t flaws;
    bool is_followed; /* L1: preset to having no flaw; the visitor may change it */
};

struct qc_walk {
    struct qc_image *image;
    const struct qc_scratch *scratch;
    uint64_t l1_off; /* of any L1 table, the image's or a snapshot's; a cluster's start */
    uint32_t l1_entries;
    /*
     * Called for every entry of the L1 table that is not 0, and right after one that is followed
     * for every entry of its L2 table that is not 0 (NULL where none is followed). They may not use
     * the staging buffer; an answer other than QC_OK ends the walk with it.
     */
    qc_status (*visit_l1)(struct qc_walk *walk, struct qc_walk_item *item);
    qc_status (*visit_l2)(struct qc_walk *walk, struct qc_walk_item *item);
    void *context;
};

/*
 * Walks. An entry of L1 that a visitor changed is on the disk before qc_walk_run is back, in no
 * order to those of L2. QC_IO, or what a visitor answered.
 */
qc_status qc_walk_run(struct qc_walk *walk);

/*
 * Where the bytes of a compressed entry lie: "Compressed Clusters Descriptor". Up to a sector
 * more than there are.
 */
void qc_packed_span(const struct qc_header *header, uint64_t entry, uint64_t *ret_host_off,
                    uint32_t *ret_len);

#endif
