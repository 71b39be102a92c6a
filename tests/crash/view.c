/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See view.h.
 */
#include "view.h"

#include <string.h>

void view_init(struct view *view, const struct sim_disk *sim)
{
    view->sim = sim;
    view->is_newest = false;
    view->path_count = view->given_count = 0;
    view->is_overflowing = false;
    memset(view->decided, VIEW_UNDECIDED, sizeof(view->decided));
}

void view_rewind(struct view *view)
{
    for (unsigned i = 0; i < view->path_count; i++)
        view->decided[view->path[i].unit] = VIEW_UNDECIDED;
    if (view->given_count < view->path_count)
        view->given_count = view->path_count;
    view->path_count = 0;
}

bool view_next(struct view *view)
{
    unsigned last = view->path_count;

    view_rewind(view);
    while (last > 0 && view->path[last - 1].outcome + 1 == view->path[last - 1].outcomes_count)
        last--;
    if (last == 0)
        return false;
    view->path[last - 1].outcome++;
    view->given_count = last;
    return true;
}

static unsigned decide(struct view *view, uint32_t unit, unsigned outcomes_count)
{
    unsigned at = view->path_count;

    if (at == VIEW_PATH_MAX) {
        view->is_overflowing = true;
        return 0;
    }
    if (at >= view->given_count) {
        view->path[at].unit = (uint16_t)unit;
        view->path[at].outcome = 0;
        view->path[at].outcomes_count = (uint8_t)outcomes_count;
    }
    view->path_count++;
    view->decided[unit] = view->path[at].outcome;
    return view->path[at].outcome;
}

uint64_t view_size(struct view *view)
{
    const struct sim_disk *sim = view->sim;
    unsigned outcome = 1;

    if (!view->is_newest && sim->durable_bytes != sim->disk.size_bytes) {
        outcome = view->decided[SIM_UNITS_MAX];
        if (outcome == VIEW_UNDECIDED)
            outcome = decide(view, SIM_UNITS_MAX, 2);
    }
    return outcome == 0 ? sim->durable_bytes : sim->disk.size_bytes;
}

/* Where the disk is a view's itself, the unit is decided there. */
static void use_unit(const struct view *view, uint32_t unit)
{
    if (view->sim->before_use != NULL)
        view->sim->before_use(view->sim->use_context, unit);
}

const uint8_t *view_unit(struct view *view, uint32_t unit)
{
    unsigned outcomes_count = sim_outcomes_count(view->sim, unit);
    unsigned outcome = 0;
    const uint64_t *hashes;

    use_unit(view, unit);
    if (view->is_newest)
        outcome = outcomes_count - 1;
    else if (outcomes_count > 1 && view->decided[unit] != VIEW_UNDECIDED)
        outcome = view->decided[unit];
    else if (outcomes_count > 1)
        outcome = decide(view, unit, outcomes_count);
    return sim_outcome(view->sim, unit, outcome, &hashes);
}

unsigned view_sector_outcomes(const struct view *view, uint64_t host_off)
{
    uint32_t unit = (uint32_t)(host_off / view->sim->unit_bytes);

    if (view->is_newest || view->decided[unit] != VIEW_UNDECIDED)
        return 1;
    return sim_outcomes_count(view->sim, unit);
}

uint64_t view_sector_hash(const struct view *view, uint64_t host_off, unsigned outcome)
{
    uint32_t unit = (uint32_t)(host_off / view->sim->unit_bytes);
    const uint64_t *hashes;

    use_unit(view, unit);
    if (view->is_newest)
        outcome = sim_outcomes_count(view->sim, unit) - 1;
    else if (view->decided[unit] != VIEW_UNDECIDED)
        outcome = view->decided[unit];
    sim_outcome(view->sim, unit, outcome, &hashes);
    return hashes[host_off % view->sim->unit_bytes / 512];
}

uint64_t view_be64(struct view *view, uint64_t host_off)
{
    const uint8_t *bytes = view_unit(view, (uint32_t)(host_off / view->sim->unit_bytes));
    uint64_t value;

    memcpy(&value, bytes + host_off % view->sim->unit_bytes, 8);
    return __builtin_bswap64(value);
}

uint32_t view_be32(struct view *view, uint64_t host_off)
{
    const uint8_t *bytes = view_unit(view, (uint32_t)(host_off / view->sim->unit_bytes));
    uint32_t value;

    memcpy(&value, bytes + host_off % view->sim->unit_bytes, 4);
    return __builtin_bswap32(value);
}

uint8_t view_byte(struct view *view, uint64_t host_off)
{
    uint32_t unit_bytes = view->sim->unit_bytes;

    return view_unit(view, (uint32_t)(host_off / unit_bytes))[host_off % unit_bytes];
}

void view_freeze(const struct view *view, struct sim_disk *target, uint64_t pick)
{
    const struct sim_disk *sim = view->sim;

    sim_copy(target, sim);
    sim_adopt(target);
    target->before_flush = target->after_write = NULL;
    target->before_use = NULL;
    target->fault.is_armed = false;
    target->values_count = 0;
    for (uint32_t i = 1; i <= sim->values_count; i++) {
        uint32_t unit = sim->values[i].unit;
        unsigned outcomes_count = sim_outcomes_count(sim, unit);
        unsigned outcome = view->decided[unit];
        const uint64_t *hashes;

        if (sim->newest[unit] != i)
            continue;
        if (view->is_newest)
            outcome = outcomes_count - 1;
        else if (outcome == VIEW_UNDECIDED)
            outcome =
                (unsigned)((pick ^ unit * UINT64_C(0x9e3779b97f4a7c15)) >> 33) % outcomes_count;
        target->newest[unit] = 0;
        sim_put(target, (uint64_t)unit * sim->unit_bytes, sim_outcome(sim, unit, outcome, &hashes),
                sim->unit_bytes);
    }
    if (!view->is_newest && view->decided[SIM_UNITS_MAX] == 0) {
        static const uint8_t zeros[512];

        /* What was written behind the end went with it; growing again brings zeros. */
        for (uint64_t off = sim->durable_bytes; off < sim->disk.size_bytes; off += sizeof(zeros))
            sim_put(target, off, zeros, sizeof(zeros));
        target->disk.size_bytes = sim->durable_bytes;
    }
    target->durable_bytes = target->disk.size_bytes;
}

static void decide_used(void *context, uint32_t unit)
{
    struct lazy *lazy = context;
    uint32_t unit_bytes = lazy->sim->unit_bytes;

    if (lazy->is_known[unit])
        return;
    lazy->is_known[unit] = true;
    if (sim_outcomes_count(lazy->view->sim, unit) > 1)
        sim_put(lazy->sim, (uint64_t)unit * unit_bytes, view_unit(lazy->view, unit), unit_bytes);
}

void view_thaw(struct view *view, struct sim_disk *target, struct lazy *lazy)
{
    view_size(view);
    view_freeze(view, target, 0);
    memset(lazy, 0, sizeof(*lazy));
    lazy->view = view;
    lazy->sim = target;
    target->before_use = decide_used;
    target->use_context = lazy;
}
