/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See cuts.h.
 */
#include "cuts.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define SEEN_BITS   22u
#define SEEN_TRIES  16u
#define SAMPLES_MAX 512u

static uint64_t seen[1u << SEEN_BITS];

#define DEPTH_MAX 2u

static struct world next_worlds[DEPTH_MAX]; /* what opens a state after the cut */
static struct view views[DEPTH_MAX + 1];

static bool is_seen(uint64_t hash)
{
    for (unsigned i = 0; i < SEEN_TRIES; i++) {
        uint64_t *place = &seen[(hash + i) & ((1u << SEEN_BITS) - 1)];

        if (*place == hash)
            return true;
        if (*place == 0) {
            *place = hash;
            return false;
        }
    }
    return false; /* full here: looked at again, which only costs time */
}

static void tell(struct cutter *cutter, const char *format, ...)
{
    size_t used = strlen(cutter->found);
    va_list args;

    va_start(args, format);
    vsnprintf(cutter->found + used, sizeof(cutter->found) - used, format, args);
    va_end(args);
}

static void tell_state(struct cutter *cutter, const struct view *view,
                       const struct judgement *judgement)
{
    const struct world *world = cutter->world;

    cutter->figures.violations++;
    if (cutter->found[0] != '\0')
        return;
    tell(cutter, "broken: %s\n  at %llx, guest cluster %u sector %u\n", judgement->broken,
         (unsigned long long)judgement->where, judgement->digit, judgement->sector);
    tell(cutter, "  replay: crash one --base %s --unit %u --ops %s", world->base->name,
         world->sim.unit_bytes, cutter->ops);
    if (cutter->depth > 0)
        tell(cutter, " --share 1"); /* every state is opened again, this one as well */
    else
        tell(cutter, " --cut %u:", cutter->cut_number);
    for (unsigned i = 0; i < view->path_count && cutter->depth == 0; i++)
        tell(cutter, "%u", view->path[i].outcome);
    tell(cutter, "\n  surviving:");
    for (unsigned i = 0; i < view->path_count; i++)
        tell(cutter, " unit %u=%u/%u", view->path[i].unit, view->path[i].outcome,
             view->path[i].outcomes_count - 1u);
    tell(cutter, "\n");
}

static bool tell_world(struct cutter *cutter, const struct world *world, const char *when)
{
    cutter->figures.violations++;
    if (cutter->found[0] == '\0')
        tell(cutter, "broken: %s, %s %s\n  replay: crash one --base %s --unit %u --ops %s%s\n",
             world->violation, when, world->violation_note, world->base->name,
             world->sim.unit_bytes, cutter->ops, world == cutter->world ? "" : " --share 1");
    return false;
}

static void cut_here(void *context);

/* A world for what a cut left of another. */
static void succeed(struct world *next, const struct world *world)
{
    next->base = world->base;
    next->violation = NULL;
    next->violation_note[0] = '\0';
    next->is_faulty = next->is_lost = next->may_leak = next->is_blind = false;
    next->has_after = world->has_after;
    if (world->has_after)
        next->after = world->after;
    next->options = world->options;
    next->cluster_bits = world->cluster_bits;
    next->oracle = world->oracle;
}

/*
 * The engine takes over what lies on the next world's disk: it reads the same, and what it writes
 * holds. is_cutting: in that, and in the repair of what is marked dirty, the power is cut once
 * more.
 */
static bool take_over(struct cutter *cutter, uint64_t pick, bool is_cutting)
{
    struct world *next = &next_worlds[cutter->depth];
    struct cutter inner = *cutter;
    uint32_t lower_reads[LOWERS_MAX];
    char write_op[] = {'W', (char)('0' + pick % (GUEST_CLUSTERS - 1)), '\0'};
    bool is_good;

    for (unsigned i = 0; i < LOWERS_MAX; i++)
        lower_reads[i] = lowers[i].calls_count[SIM_READ];
    inner.world = next;
    inner.depth++;
    inner.is_cutting = true;
    inner.reopen_share = 0;
    inner.only_cut = 0;
    next->sim.context = &inner;
    next->sim.before_flush = is_cutting ? cut_here : NULL;
    succeed(next, cutter->world);
    is_good = world_revive(next, true) && world_read_back(next);
    if (is_good && is_cutting) {
        is_good = world_do(next, write_op) && world_do(next, "F");
        cut_here(&inner);
    }
    if (cutter->found[0] == '\0' && inner.found[0] != '\0')
        tell(cutter, "after a reopening and %s,F: %s", write_op, inner.found);
    cutter->figures = inner.figures;
    /* The first world's operation goes on, and its reads are counted. */
    for (unsigned i = 0; i < LOWERS_MAX; i++)
        lowers[i].calls_count[SIM_READ] = lower_reads[i];
    return is_good;
}

static uint64_t path_hash(const struct view *view, uint64_t hash)
{
    for (unsigned i = 0; i < view->path_count; i++)
        hash = (hash ^ view->path[i].outcome ^ (uint64_t)view->path[i].unit << 8) *
               UINT64_C(0x9e3779b97f4a7c15);
    return hash ^ hash >> 29;
}

static bool is_asked_for(const struct cutter *cutter, const struct view *view, bool is_whole)
{
    const char *path = cutter->only_path;

    if (cutter->only_cut == 0 || path == NULL || path[0] == '\0' || cutter->depth > 0)
        return true;
    for (unsigned i = 0; i < view->path_count; i++) {
        if ((unsigned)(path[i] - '0') != view->path[i].outcome)
            return false;
    }
    return !is_whole || path[view->path_count] == '\0';
}

static void reopen(struct cutter *cutter, struct view *view, uint64_t pick)
{
    struct world *next = &next_worlds[cutter->depth];

    cutter->figures.reopened++;
    view_freeze(view, &next->sim, pick);
    if (!take_over(cutter, pick, true))
        tell_world(cutter, next, "after a reopening");
}

/*
 * A state that is marked dirty is what its repair makes of it. Which units matter only the repair
 * knows: they are decided as it uses them.
 */
static void visit_dirty(struct cutter *cutter, struct view *view, uint64_t cut_hash)
{
    static struct lazy lazy[DEPTH_MAX]; /* too large for a frame */
    struct world *next = &next_worlds[cutter->depth];
    struct judgement judgement = {.broken = "a repair leaves the image marked dirty"};
    uint64_t hash;

    if (cutter->depth < DEPTH_MAX) {
        view_thaw(view, &next->sim, &lazy[cutter->depth]);
        if (take_over(cutter, 0, false))
            judgement.broken = NULL;
        else
            judgement.broken = next->violation;
        next->sim.before_use = NULL;
    }
    if (!is_asked_for(cutter, view, true))
        return;
    cutter->figures.states++;
    cutter->figures.repaired++;
    hash = path_hash(view, cut_hash);
    if (judgement.broken != NULL)
        tell_state(cutter, view, &judgement);
    else if (cutter->reopen_share != 0 && hash % cutter->reopen_share == 0)
        reopen(cutter, view, hash >> 8);
}

/* One state: judged, told, and perhaps opened again. */
static void visit(struct cutter *cutter, struct view *view, uint64_t cut_hash)
{
    const struct world *world = cutter->world;
    struct judgement judgement;
    uint64_t hash;

    judge_cut(view, &world->oracle, world_after(world), &judgement);
    if (!is_asked_for(cutter, view, !judgement.is_dirty))
        return;
    if (judgement.is_dirty && cutter->on_state == NULL) {
        visit_dirty(cutter, view, cut_hash);
        return;
    }
    cutter->figures.states++;
    if (cutter->on_state != NULL) {
        cutter->on_state(cutter->context, view, &judgement);
        return;
    }
    hash = path_hash(view, cut_hash);
    if (judgement.broken != NULL)
        tell_state(cutter, view, &judgement);
    else if (cutter->reopen_share != 0 && hash % cutter->reopen_share == 0)
        reopen(cutter, view, hash >> 8);
}

/* States beyond those that can all be visited: random ones. */
static void sample(struct cutter *cutter, struct view *view, uint64_t hash)
{
    cutter->figures.not_exhaustive++;
    for (unsigned i = 0; i < SAMPLES_MAX; i++) {
        view_rewind(view);
        for (unsigned k = 0; k < view->given_count; k++) {
            hash = hash * UINT64_C(6364136223846793005) + 1442695040888963407;
            view->path[k].outcome = (uint8_t)((hash >> 33) % view->path[k].outcomes_count);
            /* A path may lead elsewhere now: what follows is decided as it comes. */
            if (k + 1 < view->given_count && (hash >> 20) % 4 == 0)
                view->given_count = k + 1;
        }
        visit(cutter, view, hash);
    }
}

/* The process dies and the disk lives on: everything written is there. */
static void die_here(void *context)
{
    struct cutter *cutter = context;

    if (!cutter->is_cutting)
        return;
    cutter->cut_number++;
    cutter->figures.cuts++;
    view_init(&views[0], &cutter->world->sim);
    views[0].is_newest = true;
    visit(cutter, &views[0], cutter->cut_number);
}

static double subsets_of(const struct sim_disk *sim)
{
    double subsets = 1;

    for (uint32_t i = 1; i <= sim->values_count; i++) {
        uint32_t unit = sim->values[i].unit;

        if (sim->newest[unit] == i)
            subsets *= sim_outcomes_count(sim, unit);
    }
    return subsets;
}

static void cut_here(void *context)
{
    struct cutter *cutter = context;
    const struct world *world = cutter->world;
    struct view *view = &views[cutter->depth];
    uint64_t hash = sim_hash(&world->sim);
    unsigned states = 0;

    if (!cutter->is_cutting)
        return;
    cutter->cut_number++;
    if (cutter->only_cut != 0 && cutter->only_cut != cutter->cut_number)
        return;
    hash ^= oracle_hash(&world->oracle) + cutter->depth;
    if (world->has_after)
        hash = hash * 3 ^ oracle_hash(&world->after);
    if (cutter->depth == 0)
        cutter->figures.cuts++;
    if (is_seen(hash | 1)) {
        cutter->figures.repeats++;
        return;
    }
    if (cutter->depth == 0)
        cutter->figures.subsets += subsets_of(&world->sim);
    view_init(view, &world->sim);
    do {
        visit(cutter, view, hash);
        if (++states == CUT_STATES_MAX) {
            sample(cutter, view, hash);
            break;
        }
    } while (cutter->found[0] == '\0' && view_next(view));
}

void cutter_init(struct cutter *cutter, struct world *world)
{
    memset(cutter, 0, sizeof(*cutter));
    memset(seen, 0, sizeof(seen));
    cutter->world = world;
    cutter->ops = "";
}

static void start_cutting(struct cutter *cutter)
{
    struct world *world = cutter->world;

    cutter->is_cutting = true;
    cutter->cut_number = 0;
    world->sim.before_flush = cutter->is_process_only ? NULL : cut_here;
    world->sim.after_write = cutter->is_process_only ? die_here : NULL;
    world->sim.context = cutter;
    world->sim.is_flush_idle = cutter->is_process_only;
}

/* A dirty image is repaired as it is opened, which is cut too. */
bool cutter_start(struct cutter *cutter, const struct base *base, uint32_t unit_bytes)
{
    static struct view view; /* too large for a frame */
    struct judgement judgement = {0};
    struct world *world = cutter->world;
    bool is_good;

    world_build(world, base, unit_bytes);
    if (base->is_dirty)
        start_cutting(cutter);
    is_good = !base->is_dirty || world_open(world);
    cutter->is_cutting = false;
    if (!is_good || cutter->found[0] != '\0')
        return cutter->found[0] == '\0' ? tell_world(cutter, world, "at the opening") : false;
    view_init(&view, &world->sim);
    view.is_newest = true;
    judge_now(&view, &world->oracle, NULL, &judgement);
    cutter->leaks_of_base = judgement.check.leaks_count;
    if (judgement.broken != NULL) {
        snprintf(cutter->found, sizeof(cutter->found), "base %s: %s at %llx", base->name,
                 judgement.broken, (unsigned long long)judgement.where);
        return false;
    }
    return base->is_dirty || world_open(world) || tell_world(cutter, world, "at the opening");
}

bool cutter_do(struct cutter *cutter, const char *op)
{
    struct world *world = cutter->world;

    start_cutting(cutter);
    if (world_do(world, op))
        (cutter->is_process_only ? die_here : cut_here)(cutter);
    else if (!cutter->is_crash_only)
        tell_world(cutter, world, "");
    else
        world->is_faulty = true; /* nothing to build on */
    cutter->is_cutting = false;
    return cutter->found[0] == '\0';
}

/* What the engine keeps in memory, caches left out. */
static uint64_t engine_hash(const struct world *world)
{
    const struct qc_epoch *epoch = &world->image.epoch;
    uint64_t words[sizeof(world->image) / 8], hash = 1;

    memcpy(words, &world->image, sizeof(words));
    for (unsigned i = 0; i < sizeof(words) / 8; i++)
        hash = (hash ^ hash >> 31 ^ words[i]) * UINT64_C(0x9e3779b97f4a7c15);
    for (uint32_t i = 0; i < epoch->records_count; i++) {
        const struct qc_record *record = qc_epoch_at(epoch, i);

        hash = (hash ^ hash >> 31 ^ record->id) * UINT64_C(0x9e3779b97f4a7c15);
        hash = (hash ^ hash >> 31 ^ record->value) * UINT64_C(0x9e3779b97f4a7c15);
        hash =
            (hash ^ record->flags ^ (uint64_t)record->u.lost << 8) * UINT64_C(0xbf58476d1ce4e5b9);
    }
    return hash ^ hash >> 29;
}

bool cutter_is_new(struct cutter *cutter)
{
    const struct world *world = cutter->world;
    uint64_t hash = sim_hash(&world->sim) * 3 ^ engine_hash(world);

    hash ^= oracle_hash(&world->oracle);
    if (world->has_after)
        hash = hash * 3 ^ oracle_hash(&world->after);
    return !is_seen(hash | 1);
}

bool cutter_end(struct cutter *cutter)
{
    struct world *world = cutter->world;
    struct judgement judgement;

    if (world->is_faulty)
        return true;
    cutter->figures.ends++;
    cutter->is_cutting = false;
    if (!world_do(world, "C"))
        return tell_world(cutter, world, "at the clean end");
    view_init(&views[0], &world->sim);
    views[0].is_newest = world->sim.is_flush_idle;
    judge_now(&views[0], &world->oracle, world_after(world), &judgement);
    if (judgement.broken == NULL && !world->may_leak &&
        judgement.check.leaks_count != cutter->leaks_of_base)
        judgement.broken = "clusters leak after a clean end";
    if (judgement.broken == NULL && world->sim.values_count > 0 && !world->sim.is_flush_idle)
        judgement.broken = "the clean end leaves the disk unflushed";
    if (judgement.broken != NULL)
        tell_state(cutter, &views[0], &judgement);
    return judgement.broken == NULL;
}
