/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * One state of a disk after a power cut, decided as it is read.
 *
 * A unit with several outcomes is decided when its bytes are first asked for; the next state
 * differs in the last decision that has an outcome left. So every state that a reader can tell
 * apart is visited once, and units that nobody reads double nothing. Data sectors are never
 * decided unless they are read as a table too: their outcomes are all looked at, one by one,
 * because nothing else depends on them.
 *
 * Promises: a reader that is a function of the bytes it is given sees every combination of them.
 */
#ifndef CRASH_VIEW_H
#define CRASH_VIEW_H

#include "../sim/sim.h"

#define VIEW_PATH_MAX  64u
#define VIEW_UNDECIDED 255u

struct view {
    const struct sim_disk *sim;
    bool is_newest;       /* no cut: every unit is what was last written */
    unsigned path_count;  /* decisions made */
    unsigned given_count; /* decisions known from the start */
    bool is_overflowing;  /* more units than the path holds: the rest stayed durable */
    struct {
        uint16_t unit;
        uint8_t outcome, outcomes_count;
    } path[VIEW_PATH_MAX];
    uint8_t decided[SIM_UNITS_MAX + 1]; /* outcome, or VIEW_UNDECIDED; the last is the size's */
};

/* A disk whose bytes are a view's, each unit of it decided when it is first used. */
struct lazy {
    struct view *view;
    struct sim_disk *sim;
    bool is_known[SIM_UNITS_MAX];
};

/* The first state: what is durable, wherever it is asked. */
void view_init(struct view *view, const struct sim_disk *sim);

/* Starts the state anew, to be read once more: decisions stay. */
void view_rewind(struct view *view);

/* Moves to the next state; false where there is none left. */
bool view_next(struct view *view);

/* The disk's size in bytes, which decides it: growing is volatile as well. */
uint64_t view_size(struct view *view);

/* The bytes of a unit, which decides it. */
const uint8_t *view_unit(struct view *view, uint32_t unit);

/* The outcomes that a sector may still have: a decided unit has one. */
unsigned view_sector_outcomes(const struct view *view, uint64_t host_off);
uint64_t view_sector_hash(const struct view *view, uint64_t host_off, unsigned outcome);

uint64_t view_be64(struct view *view, uint64_t host_off);
uint32_t view_be32(struct view *view, uint64_t host_off);
uint8_t view_byte(struct view *view, uint64_t host_off);

/* Puts the state's bytes into another disk as durable ones; undecided units take the outcome
 * that pick says of unit and count. */
void view_freeze(const struct view *view, struct sim_disk *target, uint64_t pick);

/* As view_freeze, but that undecided units are decided as target is used. Its writes are its own.
 * lazy must stay while target is used. */
void view_thaw(struct view *view, struct sim_disk *target, struct lazy *lazy);

#endif
