/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Long random runs: operations of every kind, now and then a power cut, and on from what it left.
 *
 * A run of operations on one base, cut CUTS_PER_RUN times, is made from one 64-bit number and from
 * nothing else: the number of a run that broke replays it.
 */
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "sequences.h"

#define CUTS_PER_RUN 20u
#define OPS_PER_CUT  100u
#define COUNT_MAX    64u /* with what a cluster's cuts and failed writes left: 9 were seen */
#define BULK_SHARE   16u /* one operation in so many changes the image as a whole */

struct runner {
    uint64_t state; /* of the generator */
    uint64_t ops_count, cuts_count, judged_count;
    unsigned flushes_to_cut; /* 0: the cut comes between operations */
    bool was_cut;
    const char *broken;
    struct judgement judgement;
};

static struct world spare; /* what a cut left */
static struct view cut_view;

static uint64_t draw(struct runner *runner, uint64_t below)
{
    uint64_t x;

    runner->state += UINT64_C(0x9e3779b97f4a7c15);
    x = runner->state;
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return (x ^ x >> 31) % below;
}

/* A cut: every unit is any of its values. What is left goes to the spare world. */
static void cut(struct runner *runner)
{
    const struct sim_disk *sim = &world.sim;

    view_init(&cut_view, sim);
    for (uint32_t i = 1; i <= sim->values_count; i++) {
        uint32_t unit = sim->values[i].unit;

        cut_view.decided[unit] = (uint8_t)draw(runner, sim_outcomes_count(sim, unit));
    }
    runner->judged_count++;
    judge_cut(&cut_view, &world.oracle, world_after(&world), &runner->judgement);
    if (runner->judgement.broken != NULL)
        runner->broken = runner->judgement.broken;
    view_freeze(&cut_view, &spare.sim, 0);
    memcpy(&spare, &world, offsetof(struct world, after));
    spare.after = world.after;
    runner->was_cut = true;
}

static void before_flush(void *context)
{
    struct runner *runner = context;

    if (!runner->was_cut && runner->flushes_to_cut > 0 && --runner->flushes_to_cut == 0)
        cut(runner);
}

/* Goes on from what the cut left: that, and nothing else, is what the guest has now. */
static bool take_over(struct runner *runner)
{
    world_copy(&world, &spare);
    sim_adopt(&world.sim);
    runner->cuts_count++;
    runner->was_cut = false;
    world.is_faulty = world.is_lost = false;
    if (!world_revive(&world, true) || !world_read_back(&world))
        return false;
    world.sim.before_flush = before_flush;
    world.sim.context = runner;
    return true;
}

/* A change of the whole image, where the base takes such. */
static void draw_bulk(struct runner *runner, char *op)
{
    static const char kinds[] = "SSAKKGJ";
    char kind = kinds[draw(runner, sizeof(kinds) - 1)];

    if (world.base->has_data_file && strchr("SAK", kind) != NULL)
        kind = 'G';
    if (strchr("AK", kind) != NULL)
        snprintf(op, OP_CHARS_MAX, "%c%u", kind, (unsigned)draw(runner, SNAPSHOTS_KEPT_MAX));
    else
        snprintf(op, OP_CHARS_MAX, "%c", kind);
}

static void draw_op(struct runner *runner, char *op)
{
    static const char kinds[] = "WWHHTTXDDZzsqFFFCREw";
    static const char *const failing[] = {"f11n", "f11h", "f11a", "f12h", "f21a", "c11a",
                                          "c21a", "g1",   "g2",   "!1",   "!2"};
    char kind = kinds[draw(runner, sizeof(kinds) - 1)];
    unsigned digit = (unsigned)draw(runner, kind == 'X' ? 3 : GUEST_CLUSTERS);

    if (draw(runner, 24) == 0)
        strcpy(op, failing[draw(runner, sizeof(failing) / sizeof(failing[0]))]);
    else if (oracle_is_full(&world.oracle))
        strcpy(op, "F");
    else if (draw(runner, BULK_SHARE) == 0)
        draw_bulk(runner, op);
    else if (strchr("FCRE", kind) != NULL)
        snprintf(op, OP_CHARS_MAX, "%c", kind);
    else
        snprintf(op, OP_CHARS_MAX, "%c%u", kind, digit);
}

/* Operations up to the next cut, and the cut. */
static bool run_to_cut(struct runner *runner)
{
    unsigned ops_count = 1 + (unsigned)draw(runner, 2 * OPS_PER_CUT - 1);
    char op[OP_CHARS_MAX];

    runner->flushes_to_cut = 0;
    for (unsigned i = 0; i < ops_count && !runner->was_cut && !world.is_faulty; i++) {
        if (i == ops_count / 2 && draw(runner, 2) == 0)
            runner->flushes_to_cut = 1 + (unsigned)draw(runner, 3);
        draw_op(runner, op);
        runner->ops_count++;
        if (!world_do(&world, op))
            runner->broken = world.violation;
        if (runner->broken != NULL)
            return false;
    }
    if (!runner->was_cut)
        cut(runner);
    if (runner->broken == NULL && !take_over(runner))
        runner->broken = world.violation;
    return runner->broken == NULL;
}

/* The oracle's versions must not run out; nor clusters, which a cut may leak. */
static bool run_number(struct runner *runner, uint64_t number)
{
    struct base base;
    uint32_t unit_bytes;

    runner->state = number * UINT64_C(0xd1342543de82ef95) + 1;
    base = bases[draw(runner, bases_count)];
    unit_bytes = draw(runner, 2) == 0 || base.is_512_only ? 512 : 4096;
    base.is_tight = true;
    base.is_write_through = draw(runner, 8) == 0;
    world_build(&world, &base, unit_bytes);
    world.sim.before_flush = before_flush;
    world.sim.context = runner;
    runner->was_cut = false;
    if (!world_open(&world))
        runner->broken = world.violation;
    for (unsigned i = 0; i < CUTS_PER_RUN && runner->broken == NULL; i++)
        run_to_cut(runner);
    if (runner->broken == NULL)
        return true;
    printf("broken: %s %s, base %s, unit %u, guest cluster %u sector %u\n"
           "  replay: crash random --number %llu --count 1\n",
           runner->broken, world.violation_note, base.name, unit_bytes, runner->judgement.digit,
           runner->judgement.sector, (unsigned long long)number);
    return false;
}

int command_random(const struct arguments *arguments)
{
    static struct runner runner; /* too large for a frame */
    double begin = seconds_now();
    uint64_t number = arguments->number;
    bool is_good = true;

    world.is_blind = false;
    check_count_max = COUNT_MAX;
    do {
        is_good = run_number(&runner, number++);
    } while (is_good && (runner.ops_count < arguments->ops_count ||
                         runner.cuts_count < arguments->cuts_count));
    printf("random first=%llu runs=%llu ops=%llu cuts=%llu violations=%d seconds=%.1f\n",
           (unsigned long long)arguments->number, (unsigned long long)(number - arguments->number),
           (unsigned long long)runner.ops_count, (unsigned long long)runner.cuts_count, !is_good,
           seconds_now() - begin);
    return is_good ? 0 : 1;
}
