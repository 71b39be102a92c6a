/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Each call that a sequence makes of the disk fails once, and from then on for ever.
 *
 * After a failed read or write the image goes on: more is discarded and written, a good flush makes
 * all of it durable, and a clean end leaves no leak. A layer below can only fail to be read, which
 * fails the write that needs it and no flush (world.h). After a failed flush of the disk the image
 * is read-only and says so, and every state a cut may leave is the last commit or newer.
 */
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "sequences.h"

#define ALPHABET        "W0,H2,D0,W4,z2,F,C"
#define ALPHABET_LAYERS "H0,T3,D0,X1,z2,F,C"
#define ALPHABET_SUBS   "H0,s0,s3,D1,q2,F,C"
#define ALPHABET_BULK   "W0,H1,D0,S,A0,K0,G,F,C"
#define LENGTH_MAX      3u
#define LENGTH_BULK     2u

struct sweep {
    const struct base *base;
    uint32_t unit_bytes;
    uint64_t runs, sequences, reads, writes, flushes, lower_reads;
    struct sim_disk *disk; /* the one that fails */
    struct op ops[SEQUENCE_OPS_MAX];
    unsigned ops_count;
};

static struct world start_world;

static bool complain(const char *what, const struct sweep *sweep, const struct sim_fault *fault)
{
    const char *where = sweep->disk == &world.sim ? "" : " of a layer below";
    static const char *const calls[] = {"read", "write", "flush"};
    static const char *const landings[] = {"nothing", "half", "all"};

    printf("broken: %s %s %s\n  after the %u. %s%s failed %s (landed %s%s)\n"
           "  replay: crash faults --base %s --unit %u --ops ",
           what, world.violation_note, cutter.found, fault->at, calls[fault->call], where,
           fault->is_forever ? "for ever" : "once", landings[fault->landing],
           fault->is_dropping ? ", dropped" : "", sweep->base->name, sweep->unit_bytes);
    for (unsigned i = 0; i < sweep->ops_count; i++)
        printf("%s%s", i > 0 ? "," : "", sweep->ops[i].text);
    printf("\n");
    return false;
}

/* What must hold once the failing is over, and the disk's flush never failed. */
static const char *judge_going_on(void)
{
    static const char *const more[] = {"D1", "W3", "H5", "D0"};
    struct judgement judgement;
    static struct view view; /* too large for a frame */

    if (qc_readonly_reason(&world.image)[0] != '\0')
        return "a failed read or write makes the image read-only";
    if (!world_read_back(&world))
        return world.violation;
    for (unsigned i = 0; i < sizeof(more) / sizeof(more[0]); i++) {
        if (!world_do(&world, more[i]))
            return world.violation;
    }
    if (!cutter_do(&cutter, "F"))
        return "cut in the next flush:";
    view_init(&view, &world.sim);
    judge_now(&view, &world.oracle, world_after(&world), &judgement);
    if (judgement.broken != NULL)
        return judgement.broken;
    return cutter_end(&cutter) ? NULL : "at the end:";
}

/* A change of the whole image that was broken off: it is read-only until it is opened again. */
static const char *judge_broken_off(void)
{
    static const char *const more[] = {"R", "W3", "D0", "F", "C"};

    if (world_write(&world, 3, 0, 1) != QC_READONLY)
        return "a write after a change that was broken off is taken";
    for (unsigned i = 0; i < sizeof(more) / sizeof(more[0]); i++) {
        if (!cutter_do(&cutter, more[i]))
            return "cut after a change was broken off:";
    }
    return NULL;
}

/* What must hold after a failed flush of the disk. */
static const char *judge_readonly(void)
{
    if (qc_readonly_reason(&world.image)[0] == '\0')
        return "a failed flush does not make the image read-only (invariant 5)";
    if (qc_flush(&world.image) == QC_OK)
        return "a flush after a failed one says that all is well";
    if (world_write(&world, 3, 0, 1) != QC_READONLY)
        return "a write after a failed flush is taken";
    return cutter_do(&cutter, "E") ? NULL : "cut after the failed flush:";
}

static bool run_fault(struct sweep *sweep, const struct sim_fault *fault)
{
    const char *broken;

    world_copy(&world, &start_world);
    world.is_blind = true;
    sim_arm(sweep->disk, fault);
    sweep->runs++;
    for (unsigned i = 0; i < sweep->ops_count && world.violation == NULL; i++)
        world_do(&world, sweep->ops[i].text);
    sweep->disk->fault.is_armed = false;
    if (world.violation != NULL)
        return complain(world.violation, sweep, fault);
    if (sweep->disk->fault.hits_count == 0)
        return complain("the fault did not strike", sweep, fault);
    if (fault->call == SIM_FLUSH) {
        world.is_faulty = true;
        world.is_lost = fault->is_dropping;
        broken = judge_readonly();
    } else {
        world.is_blind = false;
        broken = world.has_after ? judge_broken_off() : judge_going_on();
    }
    return broken == NULL || complain(broken, sweep, fault);
}

/* One kind of call: each in turn, in every way it may fail. */
static bool run_calls(struct sweep *sweep, enum sim_call call, uint32_t calls_count)
{
    unsigned ways_count = call == SIM_READ ? 1 : call == SIM_WRITE ? 3 : 2;

    for (uint32_t at = 1; at <= calls_count; at++) {
        for (unsigned way = 0; way < 2 * ways_count; way++) {
            struct sim_fault fault = {.call = call, .at = at, .is_forever = way % 2 == 1};

            if (call == SIM_WRITE)
                fault.landing = (enum sim_landing)(way / 2);
            if (call == SIM_FLUSH)
                fault.is_dropping = way / 2 == 1;
            if (!run_fault(sweep, &fault))
                return false;
        }
    }
    return true;
}

static bool run_sequence(struct sweep *sweep)
{
    uint32_t before[SIM_CALLS_COUNT], calls[SIM_CALLS_COUNT], lower_calls[LOWERS_MAX];

    sweep->sequences++;
    world_copy(&world, &start_world);
    world.is_blind = true;
    memcpy(before, world.sim.calls_count, sizeof(before));
    for (unsigned i = 0; i < LOWERS_MAX; i++)
        lower_calls[i] = lowers[i].calls_count[SIM_READ];
    for (unsigned i = 0; i < sweep->ops_count; i++)
        world_do(&world, sweep->ops[i].text);
    for (unsigned call = 0; call < SIM_CALLS_COUNT; call++)
        calls[call] = world.sim.calls_count[call] - before[call];
    sweep->reads += calls[SIM_READ];
    sweep->writes += calls[SIM_WRITE];
    sweep->flushes += calls[SIM_FLUSH];
    for (unsigned i = 0; i < LOWERS_MAX; i++) {
        lower_calls[i] = lowers[i].calls_count[SIM_READ] - lower_calls[i];
        sweep->lower_reads += lower_calls[i];
    }
    for (unsigned i = 0; i < LOWERS_MAX; i++) {
        sweep->disk = &lowers[i];
        if (!run_calls(sweep, SIM_READ, lower_calls[i]))
            return false;
    }
    sweep->disk = &world.sim;
    return run_calls(sweep, SIM_READ, calls[SIM_READ]) &&
           run_calls(sweep, SIM_WRITE, calls[SIM_WRITE]) &&
           run_calls(sweep, SIM_FLUSH, calls[SIM_FLUSH]);
}

static bool run_alphabet(struct sweep *sweep, const char *text, unsigned length)
{
    struct op alphabet[ALPHABET_MAX];
    unsigned alphabet_count = ops_parse(text, alphabet, ALPHABET_MAX);
    uint64_t sequences_count = 1;

    for (sweep->ops_count = 1; sweep->ops_count <= length; sweep->ops_count++) {
        sequences_count *= alphabet_count;
        for (uint64_t number = 0; number < sequences_count; number++) {
            uint64_t rest = number;

            for (unsigned i = 0; i < sweep->ops_count; i++, rest /= alphabet_count)
                sweep->ops[i] = alphabet[rest % alphabet_count];
            if (!run_sequence(sweep))
                return false;
        }
    }
    return true;
}

static bool run_base(struct sweep *sweep, const char *ops_text)
{
    const struct base *base = sweep->base;

    sweep->disk = &world.sim;
    cutter_init(&cutter, &world);
    if (!cutter_start(&cutter, base, sweep->unit_bytes))
        return complain("the base", sweep, &(struct sim_fault){0});
    world_copy(&start_world, &world);
    if (ops_text != NULL) {
        sweep->ops_count = ops_parse(ops_text, sweep->ops, SEQUENCE_OPS_MAX);
        return run_sequence(sweep);
    }
    if (alphabet_bulk(base) != NULL && !run_alphabet(sweep, ALPHABET_BULK, LENGTH_BULK))
        return false;
    if (base->is_extended)
        return run_alphabet(sweep, ALPHABET_SUBS, LENGTH_MAX - 1);
    return run_alphabet(sweep, base->lowers_count > 0 ? ALPHABET_LAYERS : ALPHABET, LENGTH_MAX);
}

int command_faults(const struct arguments *arguments)
{
    struct sweep sweep = {.unit_bytes = arguments->unit != 0 ? arguments->unit : 512};
    double begin = seconds_now();
    bool is_good = true;

    for (unsigned i = 0; i < bases_count; i++) {
        sweep.base = &bases[i];
        if (arguments->base != NULL && strcmp(arguments->base, bases[i].name) != 0)
            continue;
        if (sweep.unit_bytes == 512 || !bases[i].is_512_only)
            is_good &= run_base(&sweep, arguments->ops);
    }
    printf("faults unit=%u sequences=%llu calls: reads=%llu writes=%llu flushes=%llu "
           "lower_reads=%llu\n",
           sweep.unit_bytes, (unsigned long long)sweep.sequences, (unsigned long long)sweep.reads,
           (unsigned long long)sweep.writes, (unsigned long long)sweep.flushes,
           (unsigned long long)sweep.lower_reads);
    printf("  runs=%llu states=%llu violations=%d seconds=%.1f\n", (unsigned long long)sweep.runs,
           (unsigned long long)cutter.figures.states, !is_good, seconds_now() - begin);
    return is_good ? 0 : 1;
}
