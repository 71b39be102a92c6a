/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Opening what a cut, or the death of the process, left of a world (world.h, world_revive).
 */
#include "guest.h"
#include "world.h"

static void take_sector(struct sector_values *values, uint64_t hash, bool is_cut)
{
    if (!is_cut) {
        oracle_see(values, hash);
        return;
    }
    values->hashes[0] = hash;
    values->count = 1;
    values->live = 1;
}

/* What the guest finds now, in a state that was judged. */
static void take_guest(struct world *world, struct view *view, const struct judgement *judgement,
                       bool is_cut)
{
    if (judgement->is_after)
        world->oracle = world->after;
    world->has_after = false;
    world->oracle.is_raw_alike = false;
    for (unsigned digit = 0; digit < GUEST_CLUSTERS; digit++) {
        for (unsigned sector = 0; sector < world_sectors(world, digit); sector++)
            take_sector(&world->oracle.values[digit][sector],
                        guest_hash(view, judgement, &world->oracle, digit, sector), is_cut);
    }
}

bool world_revive(struct world *world, bool is_cut)
{
    static struct view view; /* too large for a frame */
    struct judgement judgement;
    bool was_dirty, is_unknown = world->has_after && !is_cut, is_open;

    view_init(&view, &world->sim);
    view.is_newest = true;
    was_dirty = check_is_dirty(&view);
    is_open = was_dirty || is_unknown;
    if (is_open && !world_open(world))
        return false;
    /* Which of the two it is must be durable, or a cut would bring the other back. */
    if (is_unknown && qc_flush(&world->image) != QC_OK)
        return world_fail(world, "what was broken off cannot be flushed", "the opening", "");
    judge_cut(&view, &world->oracle, world_after(world), &judgement);
    if (judgement.broken == NULL && judgement.is_dirty)
        judgement.broken = "a repair leaves the image marked dirty";
    if (judgement.broken == NULL && was_dirty && judgement.check.leaks_count > 0)
        judgement.broken = "a repair leaves counts too high";
    if (judgement.broken != NULL)
        return world_fail(world, judgement.broken, was_dirty ? "the repair" : "the opening", "");
    take_guest(world, &view, &judgement, is_cut);
    return is_open || world_open(world);
}
