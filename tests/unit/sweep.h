/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Every call that a piece of work makes of its disks fails, one after the other: once, and from
 * then on for ever. After each, on disks that work again, the image opens, no count is below its
 * references, and each sector of the guest's is one of those it was allowed to be.
 *
 * Promises: reads, writes, flushes and growing count as calls alike; a write that fails lands by
 * half. A case whose work does not succeed on good disks is an error.
 *
 * Left to others: cuts of the power, and what a disk may lose (tests/crash, cuts.h).
 */
#ifndef UNIT_SWEEP_H
#define UNIT_SWEEP_H

#include "support.h"

/* One kind of work. */
struct sweep_case {
    const char *name;
    /* Makes the image, in its own way, with the rig's options; sweep_watch for each disk of it. */
    void (*build)(struct rig *rig);
    /* Opens it and works; the first answer that is not QC_OK ends it. */
    qc_status (*work)(struct rig *rig);
    bool is_damaged;      /* the image is not sound to begin with, but a repair makes it so */
    unsigned any_cluster; /* what the guest reads there is a table's, which changes; 0: none */
    unsigned pages_count; /* of the pool, hardly any, with counts believed; 0: as the rig has it */
};

/* To be called by build, for disks that are ready to be used: from here on they may fail. */
void sweep_watch(struct mem_disk *mem);

/*
 * rig_open, to be called by work. With hardly any pages every lookup reads, and the epoch is soon
 * full; the look at all counts before the first change, which would fail before all else, is left
 * out then.
 */
qc_status sweep_open(struct rig *rig);

/* To be called by work wherever it changed what the guest reads: that is allowed from now on. */
void sweep_note(struct rig *rig);

/* Whether a call fails that is none of a disk's, such as one that may stop a check. */
bool sweep_strikes(void);

/* Runs the case with every failure; how many those were. */
unsigned sweep_run(struct rig *rig, const struct sweep_case *work);

#endif
