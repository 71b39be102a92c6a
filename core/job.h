/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The steps that changes of snapshots are made of: looking, raising the counts of a tree, switching
 * the header, lowering the counts of another.
 *
 * Promises: each step that must be durable before the next ends with a flush; counts of a tree are
 * raised, and its COPIED flags cleared before that, or lowered, as one; nothing is trimmed before
 * its last pointer is durably gone; a job that was broken off leaves a marked image that takes no
 * more writes (invariant 9).
 *
 * Left to others: the order of the steps (snapshot.c).
 */
#ifndef QC_JOB_H
#define QC_JOB_H

#include "ledger.h"

/* All that hangs on one L1 table. */
struct qc_tree {
    uint64_t l1_off;
    uint32_t l1_entries;
};

/* So much of an L1 table is kept in memory while it is walked, and not read again to be copied. */
#define QC_JOB_HELD_BYTES QC_PAGE_BYTES

struct qc_job {
    struct qc_image *image;
    struct qc_scratch scratch; /* without what is held */
    uint8_t *held;             /* the first entries of the tree that was raised */
    struct qc_ledger ledger;
    uint64_t run_first, run_count; /* clusters for new tables */
    uint64_t l2_off;               /* lowering: the table that is being walked, 0: none */
    uint64_t trim_off, trim_bytes; /* lowering: what is free now and not trimmed yet */
    bool is_borrowed;              /* the cache's pages */
    bool is_loaded;                /* the ledger's window is as on the disk */
    struct qc_tree lowered;        /* will lose a reference, and its table goes; no entries: none */
    uint64_t table_bytes;          /* of the snapshot table that goes, 0: it stays */
    bool is_trial;                 /* change nothing but the ledger */
    bool is_changing;              /* something was written that is not finished yet */
};

/* Passed first: the image takes writes, the epoch is empty (rule R3). */
qc_status qc_job_begin(struct qc_job *job, struct qc_image *image);

/* Passed last, with the job's status, which it returns unless finishing fails. */
qc_status qc_job_end(struct qc_job *job, qc_status status);

/*
 * Looks at all counts, finds run_count clusters side by side for new tables (0: none are needed),
 * refuses a tree whose counts cannot grow (NULL: none is raised), tries to give back job->lowered
 * and job->table_bytes, which are set before, and then marks the image dirty.
 * is_walked: the disk's own tree is walked before anything lands in the run, so that damage shows.
 * QC_UNSUPPORTED, QC_NOSPACE, QC_CORRUPT, QC_IO.
 */
qc_status qc_job_prepare(struct qc_job *job, const struct qc_tree *tree, uint64_t run_count,
                         bool is_walked);

/*
 * Clears COPIED in a tree, durably, then adds a reference to all of it (NULL: to nothing) and
 * counts the run. The counts are not flushed.
 */
qc_status qc_job_raise(struct qc_job *job, const struct qc_tree *tree);

/*
 * Drops a reference of all of a tree, durably; then, where sets_copied, makes COPIED right in the
 * disk's tree. The table of the tree itself is left.
 */
qc_status qc_job_lower(struct qc_job *job, const struct qc_tree *tree, bool sets_copied);

/* Writes a copy of the tree's L1 table without COPIED, and zeros to the end of its last cluster;
 * the tree was just raised. */
qc_status qc_job_copy_l1(struct qc_job *job, const struct qc_tree *tree, uint64_t host_off);

/* Writes some of the header's first sector, durably. */
qc_status qc_job_switch(struct qc_job *job, uint32_t host_off, const uint8_t *bytes,
                        uint32_t bytes_count);

/* Gives a table back whose pointer is durably gone. No other step but the end may follow. */
qc_status qc_job_free(struct qc_job *job, uint64_t host_off, uint64_t bytes);

/* Clusters that bytes of a table take. */
uint64_t qc_job_clusters(const struct qc_job *job, uint64_t bytes);

#endif
