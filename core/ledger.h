/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The stored counts of a window of host clusters, all in memory, changed there and written back:
 * what snapshots add to and take from whole trees at a time.
 *
 * Promises: each refcount block of a window is read once and, where a count in it changed, written
 * once, in transfers as large as the staging buffer. Counters are as narrow as the counts allow, so
 * that one window reaches far: with counts of 1 a MiB counts four million clusters. A count is
 * never passed over its limit or below 0, and what nothing counts is never taken to be in use.
 *
 * Left to others: which references there are, flushes and their order (snapshot.c). Format: QEMU's
 * docs/interop/qcow2, "Host cluster management".
 */
#ifndef QC_LEDGER_H
#define QC_LEDGER_H

#include "walk.h"

struct qc_ledger {
    struct qc_image *image;
    const struct qc_scratch *scratch;
    uint64_t end;     /* no host cluster from here on is looked at */
    uint64_t first;   /* of the window */
    uint64_t count;   /* of clusters in it; 0: nothing is loaded */
    uint64_t largest; /* count in the window when it was loaded */
    unsigned order;   /* a counter has 1 << order bits, at most as many as a stored one */
    uint64_t *units;  /* host offset of each unit of refcount blocks, 0: none; bit 0: changed */
    uint8_t *counts;  /* one unit's counters after the other's */
};

/* Nothing loaded. New clusters are looked for up to extra_clusters behind a disk that grows. */
void qc_ledger_init(struct qc_ledger *ledger, struct qc_image *image,
                    const struct qc_scratch *scratch, uint64_t extra_clusters);

/*
 * Loads the window that starts at the host cluster first: 0, or where the window before it ended.
 * Every count in it can be doubled, or its counters are as wide as the stored ones. QC_IO,
 * QC_CORRUPT. Uses the staging buffer and scratch->tables, as storing does.
 */
qc_status qc_ledger_load(struct qc_ledger *ledger, uint64_t first);

/* Writes what changed since it was loaded or stored. No flush. */
qc_status qc_ledger_store(struct qc_ledger *ledger);

/* Whether one window holds everything. */
bool qc_ledger_is_whole(const struct qc_ledger *ledger);

/* Whether a count in the window might pass its limit by as many references as it tells now. */
bool qc_ledger_is_near_limit(const struct qc_ledger *ledger);

bool qc_ledger_has(const struct qc_ledger *ledger, uint64_t cluster);

/* The count of a cluster in the window. */
uint64_t qc_ledger_get(const struct qc_ledger *ledger, uint64_t cluster);

/*
 * One more, or one less, reference to every cluster of the window that [host_off, host_off + len)
 * touches; they are in use. QC_CORRUPT where one is not, QC_UNSUPPORTED where one has as many as
 * its width can tell.
 */
qc_status qc_ledger_add(struct qc_ledger *ledger, uint64_t host_off, uint64_t len);
qc_status qc_ledger_drop(struct qc_ledger *ledger, uint64_t host_off, uint64_t len);

/* Counts those of count clusters from first on that lie in the window and are free. */
void qc_ledger_take(struct qc_ledger *ledger, uint64_t first, uint64_t count);

/* So many free clusters side by side in the window, which blocks count; 0: there are none. */
uint64_t qc_ledger_find_run(const struct qc_ledger *ledger, uint64_t count);

#endif
