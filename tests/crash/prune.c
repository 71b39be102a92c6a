/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Is deciding units only as they are read (view.h) as good as trying every combination of them?
 *
 * At the cuts of random sequences, of the engine as it is and with named bugs in it, every outcome
 * of every unit is combined with every other, and the verdict compared: something is broken in one
 * of the states of the one way exactly where it is in one of the other's.
 */
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "sequences.h"

#define RUNS_MAX    4000u
#define OPS_PER_RUN 4u
#define UNITS_MAX   20u
#define SUBSETS_MAX 2048u
#define SIZES_COUNT 2u /* a disk may have grown or not */

struct pruning {
    uint64_t state;
    uint64_t cuts, all_states, states, broken, disagreed;
};

static struct view view;

static uint32_t draw(struct pruning *pruning, uint32_t below)
{
    pruning->state = pruning->state * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (uint32_t)(pruning->state >> 33) % below;
}

static bool is_broken(void)
{
    struct judgement judgement;

    judge_cut(&view, &world.oracle, world_after(&world), &judgement);
    return judgement.broken != NULL;
}

static bool try_states(struct pruning *pruning)
{
    bool found = false;

    view_init(&view, &world.sim);
    do {
        pruning->states++;
        found |= is_broken();
    } while (view_next(&view));
    return found;
}

/* Counts up, one digit a unit; false after the last combination. */
static bool next_outcomes(const uint32_t *units, unsigned units_count, unsigned *outcomes)
{
    for (unsigned i = 0; i < units_count; i++) {
        if (++outcomes[i] < sim_outcomes_count(&world.sim, units[i]))
            return true;
        outcomes[i] = 0;
    }
    return false;
}

static bool try_all_states(struct pruning *pruning, const uint32_t *units, unsigned units_count)
{
    unsigned outcomes[UNITS_MAX] = {0};
    bool found = false;

    view_init(&view, &world.sim);
    do {
        for (unsigned i = 0; i < units_count; i++)
            view.decided[units[i]] = (uint8_t)outcomes[i];
        for (unsigned size = 0; size < SIZES_COUNT; size++) {
            view.decided[SIM_UNITS_MAX] = (uint8_t)size;
            pruning->all_states++;
            found |= is_broken();
        }
    } while (next_outcomes(units, units_count, outcomes));
    return found;
}

static void compare(void *context)
{
    struct pruning *pruning = context;
    const struct sim_disk *sim = &world.sim;
    uint32_t units[UNITS_MAX];
    unsigned units_count = 0;
    uint64_t subsets = 1;
    bool found;

    for (uint32_t i = 1; i <= sim->values_count; i++) {
        uint32_t unit = sim->values[i].unit;

        if (sim->newest[unit] != i)
            continue;
        subsets *= sim_outcomes_count(sim, unit);
        if (units_count == UNITS_MAX || subsets > SUBSETS_MAX)
            return;
        units[units_count++] = unit;
    }
    pruning->cuts++;
    found = try_all_states(pruning, units, units_count);
    pruning->broken += found;
    if (try_states(pruning) == found)
        return;
    pruning->disagreed++;
    printf("broken: all states and the pruned ones disagree, base %s unit %u\n", world.base->name,
           sim->unit_bytes);
}

int command_prune(const struct arguments *arguments)
{
    static const char *const seeds[] = {"none",     "late_counts", "no_flush1", "no_quarantine",
                                        "early_l1", "no_flush2",   "no_fill",   "no_cow"};
    struct pruning pruning = {.state = arguments->number};

    cutter_init(&cutter, &world);
    for (unsigned run = 0; run < RUNS_MAX; run++) {
        const struct base *base = &bases[draw(&pruning, bases_count)];
        uint32_t unit_bytes = base->clusters != 0 && draw(&pruning, 2) == 1 ? 4096 : 512;
        struct op ops[ALPHABET_MAX];
        unsigned ops_count = ops_parse(alphabet_plain(base), ops, ALPHABET_MAX);

        choose_seed(seeds[run % (sizeof(seeds) / sizeof(seeds[0]))]);
        world.is_blind = true;
        if (base->is_512_only || !cutter_start(&cutter, base, unit_bytes))
            continue;
        world.sim.before_flush = compare;
        world.sim.context = &pruning;
        for (unsigned i = 0; i < OPS_PER_RUN; i++) {
            if (!world_do(&world, ops[draw(&pruning, ops_count)].text))
                break;
            compare(&pruning);
        }
    }
    printf("prune cuts=%llu all_states=%llu states=%llu broken=%llu disagreed=%llu\n",
           (unsigned long long)pruning.cuts, (unsigned long long)pruning.all_states,
           (unsigned long long)pruning.states, (unsigned long long)pruning.broken,
           (unsigned long long)pruning.disagreed);
    return pruning.disagreed == 0 ? 0 : 1;
}
