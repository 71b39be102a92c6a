/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Power cuts during an operation: every state the disk may be found in, judged.
 *
 * The power goes just before each flush of the disk takes effect, and after the operation. At each
 * of these points every state that differs in a table is visited, and of each data sector every
 * outcome (view.h). A share of the states is opened by the engine again, read, written and flushed,
 * and the power cut once more. A state that is marked dirty is always opened, which repairs it, and
 * what comes of it is judged; in a share of them the power is cut during the repair.
 *
 * Promises: a point whose disk and oracle were both seen before is counted as a repeat and not
 * looked at again; a point with more states than CUT_STATES_MAX is sampled beyond them and counted
 * as not exhaustive.
 */
#ifndef CRASH_CUTS_H
#define CRASH_CUTS_H

#include "guest.h"
#include "world.h"

#define CUT_STATES_MAX 4096u

struct figures {
    uint64_t sequences, cuts, repeats, states, not_exhaustive, reopened, violations, ends, repaired;
    double subsets; /* all combinations of outcomes, data included, before any pruning */
};

typedef void (*state_fn)(void *context, struct view *view, const struct judgement *judgement);

struct cutter {
    struct world *world;
    struct figures figures;
    unsigned reopen_share;  /* one state in so many is opened again; 0: none */
    bool is_crash_only;     /* what is wrong without a cut is not looked at */
    bool is_cutting;        /* the operation that runs is the one to cut */
    unsigned depth;         /* how often the state was cut before */
    unsigned cut_number;    /* within the operation, from 1 */
    uint32_t leaks_of_base; /* counts too high from the start */
    const char *ops;        /* the sequence, to be printed */
    unsigned only_cut;      /* look at this cut alone, 0: at all */
    const char *only_path;  /* and at this state of it alone, "": at all */
    bool is_process_only;   /* not the power but the process goes, after each write */
    state_fn on_state;      /* told of every judged state, which then breaks nothing */
    void *context;
    char found[1024]; /* the first violation: "" while there is none */
};

/* Ready to cut what world does. Forgets every state seen. */
void cutter_init(struct cutter *cutter, struct world *world);

/* Builds the base and opens it. False where the base itself is wrong. */
bool cutter_start(struct cutter *cutter, const struct base *base, uint32_t unit_bytes);

/* Does one operation and cuts it. False once there is a violation. */
bool cutter_do(struct cutter *cutter, const char *op);

/* Ends cleanly from where the world stands: nothing may leak. The world is spent afterwards. */
bool cutter_end(struct cutter *cutter);

/* Whether disk, oracle and engine after the last operation were not seen before. */
bool cutter_is_new(struct cutter *cutter);

#endif
