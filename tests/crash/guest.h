/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Is a state what the oracle allows? The judge of every cut.
 */
#ifndef CRASH_GUEST_H
#define CRASH_GUEST_H

#include "check.h"

struct judgement {
    const char *broken; /* NULL: nothing. The rule, in a few words */
    unsigned digit, sector;
    uint64_t where;
    bool is_dirty; /* marked so: what a repair makes of it is to be judged, and nothing else was */
    bool is_after; /* what was wanted of the change under way is there */
    struct check check;
};

/*
 * Judges one state of the view. Where after is not NULL, a change is under way that is done in one:
 * all is as the oracle says, or all as after does.
 */
void judge_cut(struct view *view, const struct oracle *oracle, const struct oracle *after,
               struct judgement *ret_judgement);

/* As judge_cut for a disk at rest: also, what the engine acknowledged must be what is there. */
void judge_now(struct view *view, const struct oracle *oracle, const struct oracle *after,
               struct judgement *ret_judgement);

/* The hash of what the sector holds in a fully decided view that was judged. */
uint64_t guest_hash(struct view *view, const struct judgement *judgement,
                    const struct oracle *oracle, unsigned digit, unsigned sector);

#endif
