/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See run.h: a recipe from its bytes to the last look at the disk. What the items do is in ops.c.
 */
#include "run.h"

#include "world.h"

#include "../../core/bytes.h"

#include <stdlib.h>
#include <string.h>

#define OPEN_READS_MAX 64u

struct world world;

static _Alignas(QC_PAGE_BYTES) uint8_t pool[FUZZ_POOL_BYTES];
static struct qc_unpacker unpacker;

static qc_status find(struct qc_bases *bases, struct qc_base *base)
{
    (void)bases;
    if (base->name[0] == '\0' || base->name[strlen(base->name) - 1] == '\0')
        fuzz_fail("an empty name is asked for");
    if (!base->is_data_file && base->depth != 1)
        fuzz_fail("layer %u is asked for", base->depth);
    base->disk = base->is_data_file ? &world.data.disk : &world.below;
    return QC_OK;
}

bool world_open(void)
{
    qc_status status;

    watch_open();
    world.is_silent = world.options.readonly || !world.at_open.is_dirty;
    world.is_repaired = !world.is_silent;
    fuzz_disk_step(&world.fuzz);
    world.fuzz.reads_count = world.fuzz.writes_count = 0;
    qc_cache_init(&world.cache, pool, world.recipe.pool_pages * QC_PAGE_BYTES);
    status = qc_open(&world.image, &world.cache, &world.fuzz.disk, &world.options);
    if (world.is_silent && world.fuzz.reads_count > OPEN_READS_MAX)
        fuzz_fail("%u reads to open", world.fuzz.reads_count);
    if (status != QC_OK && world.fuzz.writes_count > 0)
        fuzz_fail("a refused image was written");
    world.is_silent = qc_readonly_reason(&world.image)[0] != '\0';
    return status == QC_OK;
}

static void make_world(const uint8_t *input, size_t len)
{
    struct recipe *recipe = &world.recipe;

    recipe_parse(recipe, input, len);
    recipe_render(recipe, &world.fuzz, &world.data, &world.layout, &world.tags);
    recipe_damage(recipe, &world.layout, &world.fuzz);
    fuzz_below_init(&world.below, world.layout.below_bytes);
    world.bases.find = find;
    world.options = (struct qc_open_options){.readonly = recipe->is_readonly,
                                             .write_through = recipe->is_write_through,
                                             .is_backing_off = recipe->is_backing_off,
                                             .is_for_check = recipe->is_for_check,
                                             .bases = &world.bases,
                                             .unpacker = &unpacker,
                                             .snapshot = recipe->is_snapshot_shown ? "1" : NULL};
    world.fuzz.watch = watch_write;
    world.is_shaken = world.has_bad_data = world.is_reading = false;
    world.data_tag = 0;
    world.tags_given = 0;
    world.snapshots_count = recipe->snapshots_count;
    for (unsigned i = 0; i < recipe->snapshots_count; i++) {
        struct kept_snapshot *kept = &world.snapshots[i];

        kept->name[0] = 's';
        kept->name[1] = (char)('1' + i);
        kept->name[2] = '\0';
        kept->guest_bytes = world.layout.guest_bytes;
        kept->tags = world.tags;
    }
}

/*
 * Contents are known where the tables are consistent. A damaged image that is all the same is
 * asked, because its bytes may have been changed under it.
 */
static void learn(void)
{
    world.is_trusted =
        world.at_open.is_consistent && !world.at_open.is_dirty && !world.recipe.is_backing_off;
    if (!world.is_trusted)
        return;
    if (world.recipe.is_damaged) {
        world.has_bad_data = true;
        world.snapshots_count = 0;
        world_verify(true);
    } else {
        world_verify(false);
    }
    world.durable = world.tags;
}

static bool run(const uint8_t *input, size_t len, bool is_reading)
{
    bool is_open;

    make_world(input, len);
    world.options.readonly |= is_reading;
    is_open = world_open();
    if (is_open) {
        if (!world.recipe.is_damaged && !world.at_open.is_consistent)
            fuzz_fail("the recipe's own image is not consistent: %s", world.at_open.odd);
        learn();
        for (unsigned i = 0; i < world.recipe.items_count; i++)
            world_do(&world.recipe.items[i]);
        world_end();
    } else if (!world.recipe.is_damaged) {
        fuzz_fail("the recipe's own image is refused: %s", qc_detail(&world.image));
    }
    fuzz_count(is_open);
    return is_open;
}

bool run_reads(const uint8_t *input, size_t len)
{
    return run(input, len, true);
}

bool run_all(const uint8_t *input, size_t len)
{
    return run(input, len, false);
}
