/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See bulk.h. What is meant to become of the guest is put together before the engine is asked,
 * because a cut may come while it works. All that came before is durable by then.
 */
#include "bulk.h"

#include <string.h>

/* A version 2 image cannot say that a change is under way: flags may be missing after a cut. */
static void begin(struct world *world)
{
    world->after = world->oracle;
    oracle_flush(&world->after);
    world->has_after = true;
}

/*
 * Done; refused, which changes nothing: small counts overflow, version 2 does not grow under
 * snapshots, nor does a raw data file; or broken off: then either may be found, and the image takes
 * no more changes.
 */
static bool end(struct world *world, const char *op, qc_status status)
{
    bool is_struck = world->sim.fault.is_armed && world->sim.fault.hits_count > 0;
    bool is_broken_off = qc_readonly_reason(&world->image)[0] != '\0';
    bool is_refused =
        (status == QC_NOSPACE && world->base->is_tight) ||
        (status == QC_UNSUPPORTED && (world->base->refcount_order <= 1 ||
                                      world->base->version < 3 || world->base->is_raw_data));

    if (status == QC_OK)
        world->oracle = world->after;
    if (status == QC_OK || !is_broken_off)
        world->has_after = false;
    if (status == QC_OK || is_struck || world->is_faulty || (is_refused && !is_broken_off))
        return true;
    return world_fail(world, "an operation failed for no reason", op, qc_detail(&world->image));
}

static bool grow(struct world *world, const char *op)
{
    unsigned last = op[0] == 'G' ? GUEST_CLUSTERS - 1 : GUEST_CLUSTERS - 2;
    uint64_t guest_bytes = base_guest_off(world->base, last, world->cluster_bits) +
                           (UINT64_C(1) << world->cluster_bits);

    if (guest_bytes <= world->oracle.guest_bytes)
        return true;
    begin(world);
    world->after.guest_bytes = guest_bytes;
    for (unsigned digit = 0; digit < GUEST_CLUSTERS; digit++) {
        for (unsigned sector = world_sectors(world, digit); sector < world->oracle.cluster_sectors;
             sector++)
            oracle_set(&world->after, digit, sector, 0); /* whatever lies below */
    }
    return end(world, op, qc_resize(&world->image, guest_bytes));
}

/* The first letter that no snapshot has. */
static char new_name(const struct oracle *oracle)
{
    char name = 'a';

    for (unsigned i = 0; i < oracle->snapshots_count; i++) {
        for (unsigned k = 0; k < oracle->snapshots_count; k++)
            name += oracle->snapshots[k].name == name;
    }
    return name;
}

static bool change_snapshots(struct world *world, const char *op)
{
    bool may_lack_flags = world->oracle.may_lack_flags;
    unsigned count = world->oracle.snapshots_count, index = (unsigned)(op[1] - '0');
    char name[] = {new_name(&world->oracle), '\0'};
    qc_status status;

    if (op[0] == 'S' ? count == SNAPSHOTS_KEPT_MAX : index >= count)
        return true;
    if (op[0] == 'S' && oracle_is_open(&world->oracle) && !world_see(world))
        return true; /* the reading fails: nothing is known of what there is */
    world->oracle.may_lack_flags |= world->base->version < 3;
    begin(world);
    if (op[0] == 'S') {
        oracle_keep(&world->after, name[0]);
        status = qc_snapshot_create(&world->image, name, 1, 2);
    } else if (op[0] == 'A') {
        name[0] = world->oracle.snapshots[index].name;
        oracle_apply(&world->after, index);
        status = qc_snapshot_apply(&world->image, name);
    } else {
        name[0] = world->oracle.snapshots[index].name;
        memmove(&world->after.snapshots[index], &world->after.snapshots[index + 1],
                (count - 1 - index) * sizeof(world->after.snapshots[0]));
        world->after.snapshots_count--;
        status = qc_snapshot_delete(&world->image, name);
    }
    if (!end(world, op, status))
        return false;
    if (!world->has_after)
        world->oracle.may_lack_flags = may_lack_flags;
    return true;
}

bool bulk_do(struct world *world, const char *op)
{
    if (world->has_after)
        return true; /* one was broken off, and no other is taken */
    return strchr("GJ", op[0]) != NULL ? grow(world, op) : change_snapshots(world, op);
}
