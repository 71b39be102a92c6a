/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The engine on an emulated disk beside the oracle, and the operations that drive both.
 *
 * Promises: a world is plain memory; put back at the same address it goes on from there. After each
 * operation the guest is read back through the engine, unless is_blind.
 */
#ifndef CRASH_WORLD_H
#define CRASH_WORLD_H

#include "../../core/qcow2.h"
#include "../../core/seeded.h"
#include "base.h"
#include "check.h"

/*
 * An operation is spelled in a few characters; a digit names a guest cluster (base.h):
 *
 *   W0 H0 T0  writes all, the first or the second half of cluster 0
 *   X0        writes across the border of clusters 0 and 1
 *   D0 Z0 z0  discards, zeroes letting go, zeroes keeping the cluster
 *   F C       flush, and the clean end (settle)
 *   R         the process dies and comes back: what it had written stays, what it knew is gone
 *   w0        a write of all of cluster 0 whose first disk write fails and lands half
 *   f12a      a flush in whose stage 1 the 2nd write fails and lands all (h: half, n: nothing)
 *   c12a      the same of a clean end
 *   g2        a flush whose 2nd disk flush fails, !2: and drops what was not durable
 *   E         every cached slice is forgotten
 *   s0 q0     writes one sector, zeroes one subcluster, in the middle of cluster 0
 *   G J       the guest grows over the fourth L2 table, to the end of its last cluster (bulk.c)
 *   S A0 K0   makes a snapshot; applies, deletes the first one of the table
 */
#define OP_CHARS_MAX 6u

#define WORLD_POOL_BYTES QC_POOL_BYTES_MIN

struct op {
    char text[OP_CHARS_MAX];
};

/*
 * What lies below never changes and is no part of a world; nothing but reads may reach it, and none
 * of a flush. Nor is the memory for compressed clusters a part: each copy of a world starts
 * without.
 */
struct world {
    const struct base *base;
    const char *violation; /* NULL: none. What went wrong in an operation itself */
    char violation_note[160];
    struct qc_open_options options;
    bool is_blind;
    bool is_faulty; /* a fault was armed: operations may fail */
    bool may_leak;  /* the process died with changes in memory: clusters may stay counted */
    bool is_lost;   /* the disk dropped what it had acknowledged: read-only is all we ask */
    unsigned cluster_bits;
    struct oracle oracle;
    bool has_after; /* a change is under way that is done in one, or was broken off */
    struct qc_cache cache;
    struct qc_image image;
    _Alignas(QC_PAGE_BYTES) uint8_t pool[WORLD_POOL_BYTES];
    struct oracle after; /* where has_after */
    struct sim_disk sim;
};

void world_build(struct world *world, const struct base *base, uint32_t unit_bytes);

/* Opens the image that lies on the world's disk, over the layers of the base built last. */
bool world_open(struct world *world);

/*
 * The engine forgets and opens what lies on the disk, which it repairs if it is marked dirty.
 * is_cut: what is there is all that the guest may find from now on. Else some of it may not be
 * durable yet.
 */
bool world_revive(struct world *world, bool is_cut);

/* What the guest may find after the change under way; NULL: none is. */
const struct oracle *world_after(const struct world *world);

/* How many sectors of a digit's cluster are inside the guest. */
unsigned world_sectors(const struct world *world, unsigned digit);

/* False and `violation`. */
bool world_fail(struct world *world, const char *what, const char *op, const char *note);

/* Reads of the layers below, so far. */
uint32_t world_lower_reads(void);

void world_copy(struct world *target, const struct world *source);

/* Does an operation; false and `violation` where the engine broke a promise. */
bool world_do(struct world *world, const char *op);

/* Reads the guest back through the engine. */
bool world_read_back(struct world *world);

/* What the guest reads now, after writes that failed: of all that it may hold, that. */
bool world_see(struct world *world);

/* The status of a direct call, for tests that want a single one. */
qc_status world_write(struct world *world, unsigned digit, unsigned from, unsigned to);

/* Spells the names apart: "W0,D0,F" to ops; 0 where one is unknown or there are too many. */
unsigned ops_parse(const char *text, struct op *ops, unsigned ops_max);

#endif
