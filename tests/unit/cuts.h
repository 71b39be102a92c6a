/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * A small image on a disk whose power is cut, and what must hold of whatever the disk kept: no
 * count is below its references, no COPIED flag is wrong, the disk and each snapshot read as before
 * a change or as after it; a repair puts the rest right and leaves the content.
 *
 * Promises: counts and flags are told up here from the bytes, with nothing of the engine's.
 *
 * Left to others: what the change is (test_snapshot.c).
 */
#ifndef UNIT_CUTS_H
#define UNIT_CUTS_H

#include "support.h"

#include "../sim/sim.h"

#define CUTS_CLUSTERS      81u /* of the disk: with clusters of 512 bytes, two L2 tables */
#define CUTS_GUEST_MAX     (CUTS_CLUSTERS * 4096u)
#define CUTS_SNAPSHOTS_MAX 4u
#define CUTS_BYTES_MAX     (2u * 1024 * 1024)

/* What a disk, or a snapshot, holds. */
struct content {
    char name[16];
    uint64_t bytes_count;
    uint8_t bytes[CUTS_GUEST_MAX];
};

/* An image as a whole. */
struct world {
    struct content disk;
    struct content snapshots[CUTS_SNAPSHOTS_MAX];
    unsigned snapshots_count;
};

struct engine {
    struct qc_cache cache;
    struct qc_image image;
    _Alignas(QC_PAGE_BYTES) uint8_t pool[POOL_BYTES];
};

/* What is being tested. */
struct cuts {
    struct sim_disk sim;
    struct world before, after; /* of a change */
    unsigned cluster_bits;
    uint64_t dice_state;
    uint64_t states_count; /* looked at */
};

extern struct cuts cuts;

uint64_t cuts_dice(void);

/* Takes what the disk holds now for the state to look at: the newest bytes, or the durable ones. */
void cuts_flatten(bool is_newest);

/*
 * Of that state: no count is below its references, no flag wrong; by choice none is above, and none
 * is missing.
 */
void cuts_check_counts(bool is_exact, bool has_copied);

/* Of that state: whether the disk and its snapshots are these; whether it is marked dirty. */
bool cuts_is_world(const struct world *world);
bool cuts_is_marked(void);

/* Of that state: all that must hold of it. */
void cuts_check_state(void);

/* Checks every choice of what each unit of the disk kept since its last flush, or many by lot. */
void cuts_check_all(void *context);

/* Whether the disk of an open image holds this. */
bool cuts_reads_as(struct qc_image *image, const struct content *wanted);

#endif
