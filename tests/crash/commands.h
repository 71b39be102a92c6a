/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * What main.c calls by name. Each prints its figures, and returns 0 where nothing was broken.
 */
#ifndef CRASH_COMMANDS_H
#define CRASH_COMMANDS_H

#include <stdbool.h>
#include <stdint.h>

#include "cuts.h"

extern struct world world;
extern struct cutter cutter;

struct arguments {
    const char *base, *ops, *cut, *seed, *alphabet, *file;
    uint64_t number; /* of random runs: the first one's */
    uint64_t ops_count, cuts_count;
    unsigned unit, length, share;
    bool is_process_only;
};

/* The engine's bug of that name, or none; false where there is no such name. */
bool choose_seed(const char *name);

/* Finds every named bug, or one of them. */
int command_seeds(const struct arguments *arguments);

/* Every failure of every lower-level call of a set of sequences. */
int command_faults(const struct arguments *arguments);

/* Random operations with cuts, against the oracle. */
int command_random(const struct arguments *arguments);

/* The verdicts of check.h beside those of qemu-img check. */
int command_agree(const struct arguments *arguments);

/* Flushes of the disk that each kind of work costs. */
int command_costs(const struct arguments *arguments);

/* Whether pruning loses a violation. */
int command_prune(const struct arguments *arguments);

double seconds_now(void);
void print_figures(const struct figures *figures, double elapsed);

#endif
