/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * How many flushes of the disk a flush of the image costs, for each kind of work before it.
 */
#include <stdio.h>

#include "commands.h"
#include "sequences.h"

/* The image is opened and flushed; then `before`, then `work`, whose flushes are counted. */
static const struct cost {
    const char *what, *base, *before, *work;
    unsigned flushes_count;
} costs[] = {
    {"nothing", "half", "F", "F", 0},
    {"nothing-after-lowered-counts", "half", "D0,F", "F", 0},
    {"first-flush-after-open", "half", "", "F", 1},
    {"data-in-place", "half", "F", "W0,H1,F", 1},
    {"allocation", "half", "F", "W2,F", 2},
    {"part-of-a-cluster", "half", "F", "H2,F", 2},
    {"many-allocations-and-discards", "half", "F", "W2,H3,D0,T1,Z4,F", 2},
    {"three-new-tables", "empty", "F", "W0,W4,W6,F", 2},
    {"overwrite-after-snapshot", "snapshot", "F", "H0,F", 2},
    {"part-of-a-compressed-cluster", "packed", "F", "H0,F", 2},
    {"part-of-what-lies-below", "overlay", "F", "H0,F", 2},
    {"discard-over-a-layer", "overlay", "F", "D0,F", 1},
    {"zero-that-keeps-its-cluster", "half", "F", "z0,F", 1},
    {"write-into-a-kept-cluster", "zeroalloc", "F", "H2,F", 2},
    {"discards", "half", "F", "D0,D1,D4,F", 1},
    {"new-refcount-block", "block", "F", "W2,W3,F", 3},
    {"grown-refcount-table", "reftable", "F", "W2,W3,W6,F", 3},
    {"clean-end-with-lowered-counts", "half", "D0,F", "C", 1},
    {"clean-end-after-discard", "half", "F", "D0,C", 2},
};

static bool do_all(const char *text)
{
    struct op ops[ALPHABET_MAX];
    unsigned ops_count = ops_parse(text, ops, ALPHABET_MAX);

    for (unsigned i = 0; i < ops_count; i++) {
        if (!world_do(&world, ops[i].text))
            return false;
    }
    return true;
}

int command_costs(const struct arguments *arguments)
{
    bool is_good = true;

    (void)arguments;
    for (unsigned i = 0; i < sizeof(costs) / sizeof(costs[0]); i++) {
        uint32_t before;
        bool is_done;

        cutter_init(&cutter, &world);
        is_done = cutter_start(&cutter, base_find(costs[i].base), 512) && do_all(costs[i].before);
        before = world.sim.calls_count[SIM_FLUSH];
        is_done = is_done && do_all(costs[i].work);
        before = world.sim.calls_count[SIM_FLUSH] - before;
        printf("cost %s: %u expected %u %s\n", costs[i].what, before, costs[i].flushes_count,
               is_done && before == costs[i].flushes_count ? "good" : "broken");
        is_good &= is_done && before == costs[i].flushes_count;
    }
    return is_good ? 0 : 1;
}
