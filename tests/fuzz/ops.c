/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * What the items of a recipe do with the open image, and what is known afterwards (run.h, e to g).
 *
 * A write that fails leaves its sectors unknown; a change of snapshots that fails leaves all
 * unknown. Buffers have exactly the length that is asked for, so that a step beyond one is seen.
 */
#include "world.h"

#include "../../core/bytes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RANGE_SECTORS_MAX 192u
#define MAP_RUNS_MAX      512u
#define LIST_MAX          80u

static uint64_t cluster_bytes(void)
{
    return UINT64_C(1) << world.layout.cluster_bits;
}

/* The tag of the sector at guest_off, which lies in a window. */
static uint64_t *tag_at(struct guest_tags *tags, uint64_t guest_off)
{
    uint64_t window = guest_off >> world.layout.reach_bits;
    uint64_t in_window = guest_off - (window << world.layout.reach_bits);
    uint64_t in_cluster = in_window & (cluster_bytes() - 1);
    uint64_t digit = window * FUZZ_WINDOW_DIGITS + (in_window >> world.layout.cluster_bits);

    return &tags->sectors[digit][in_cluster / QC_SECTOR_BYTES];
}

/* Until the next flush nobody knows which of its values a sector would come back with. */
static void set_tag(uint64_t guest_off, uint64_t tag)
{
    *tag_at(&world.tags, guest_off) = tag;
    *tag_at(&world.durable, guest_off) = TAG_ANY;
}

static void set_tags(uint64_t guest_off, uint64_t len, uint64_t first, uint64_t step)
{
    for (uint64_t i = 0; i < len / QC_SECTOR_BYTES; i++)
        set_tag(guest_off + i * QC_SECTOR_BYTES, first + i * step);
}

void world_range(const struct recipe_item *item, uint64_t *ret_off, uint64_t *ret_len)
{
    unsigned digit = item->a % FUZZ_DIGITS;
    uint64_t off = digit_off(&world.layout, digit);
    uint64_t window_end =
        digit_off(&world.layout, digit / FUZZ_WINDOW_DIGITS * FUZZ_WINDOW_DIGITS) +
        FUZZ_WINDOW_DIGITS * cluster_bytes();

    off += item->b % (cluster_bytes() / QC_SECTOR_BYTES) * QC_SECTOR_BYTES;
    *ret_off = off;
    *ret_len = (1 + item->c % RANGE_SECTORS_MAX) * QC_SECTOR_BYTES;
    if (item->c >> 30 == 3) /* often enough just one cluster or all of them */
        *ret_len = cluster_bytes();
    if (item->c >> 30 == 2)
        *ret_len = window_end - off;
    *ret_len = qc_min(*ret_len, window_end - off);
    if (off < qc_size(&world.image)) /* else outside: QC_RANGE */
        *ret_len = qc_min(*ret_len, qc_size(&world.image) - off);
}

/* ---- reading ------------------------------------------------------------------------------ */

static uint64_t tag_of(const uint8_t *bytes)
{
    uint64_t tag, word;

    memcpy(&tag, bytes, sizeof(tag));
    for (unsigned i = 8; i < QC_SECTOR_BYTES; i += 8) {
        memcpy(&word, bytes + i, sizeof(word));
        if (word != tag)
            return TAG_ANY;
    }
    return tag;
}

static void compare(uint64_t guest_off, const uint8_t *buf, uint64_t len, bool is_learning)
{
    for (uint64_t i = 0; i < len; i += QC_SECTOR_BYTES) {
        uint64_t *known = tag_at(&world.tags, guest_off + i), seen = tag_of(buf + i);

        if (is_learning)
            *known = seen;
        else if (*known != TAG_ANY && *known != seen)
            fuzz_fail("guest %lx reads as %lx, not %lx", (unsigned long)(guest_off + i),
                      (unsigned long)seen, (unsigned long)*known);
    }
}

static void read_range(uint64_t guest_off, uint64_t len, bool is_learning)
{
    uint8_t *buf = malloc(len);
    qc_status status;

    fuzz_disk_step(&world.fuzz);
    status = qc_read(&world.image, guest_off, buf, len);
    if (guest_off >= qc_size(&world.image) && status != QC_RANGE)
        fuzz_fail("a read outside answers %d", status);
    if (world.is_trusted && status == QC_OK)
        compare(guest_off, buf, len, is_learning);
    else if (world.is_trusted && is_learning)
        set_tags(guest_off, len, TAG_ANY, 0);
    else if (world.is_trusted && status != QC_RANGE && !world.has_bad_data)
        fuzz_fail("a good image cannot be read at %lx: %s", (unsigned long)guest_off,
                  qc_detail(&world.image));
    free(buf);
}

void world_verify(bool is_learning)
{
    for (unsigned digit = 0; digit < FUZZ_DIGITS; digit++) {
        uint64_t guest_off = digit_off(&world.layout, digit);

        if (guest_off < qc_size(&world.image))
            read_range(guest_off, qc_min(cluster_bytes(), qc_size(&world.image) - guest_off),
                       is_learning);
    }
}

static void list(void)
{
    uint64_t cursor = 0;
    struct qc_snapshot snapshot;
    qc_status status = QC_OK;
    unsigned count = 0;

    for (; count < LIST_MAX && status == QC_OK; count += status == QC_OK)
        status = qc_snapshot_next(&world.image, &cursor, &snapshot);
    if (world.is_trusted && !world.recipe.is_damaged &&
        (status != QC_RANGE || count != world.snapshots_count))
        fuzz_fail("%u snapshots, not %u: %s", count, world.snapshots_count,
                  qc_detail(&world.image));
}

static void map_runs(void)
{
    uint64_t size = qc_size(&world.image), off = 0;

    for (unsigned i = 0; i < MAP_RUNS_MAX && off < size; i++) {
        struct qc_extent extent;

        if (qc_map(&world.image, off, size - off, &extent) != QC_OK) {
            off = (off + cluster_bytes()) & ~(cluster_bytes() - 1);
            continue;
        }
        if (extent.len == 0 || extent.len > size - off)
            fuzz_fail("a run of %lu bytes", (unsigned long)extent.len);
        off += extent.len;
    }
}

/* ---- writing ------------------------------------------------------------------------------ */

/* What a failed call leaves open; READONLY, RANGE: nothing. Whether it was done. */
static bool is_done(qc_status status)
{
    if (status == QC_IO && !world.fuzz.has_failed && world.is_trusted && !world.has_bad_data)
        fuzz_fail("a good disk is said to fail: %s", qc_detail(&world.image));
    if (status == QC_CORRUPT && world.is_trusted)
        fuzz_fail("a good image is said to be corrupt: %s", qc_detail(&world.image));
    if (status != QC_OK && status != QC_RANGE && status != QC_READONLY)
        world.is_shaken = true;
    return status == QC_OK;
}

static void write_range(const struct recipe_item *item)
{
    uint64_t off, len, tag = UINT64_C(0xda7a) << 48 | (uint64_t)++world.tags_given << 16;
    uint8_t *buf;
    qc_status status;

    world_range(item, &off, &len);
    buf = malloc(len);
    for (uint64_t i = 0; i < len; i += 8) {
        uint64_t word = tag + i / QC_SECTOR_BYTES;

        memcpy(buf + i, &word, 8);
    }
    owners_find(&world.now, world.fuzz.bytes, world.fuzz.disk.size_bytes);
    world.data_tag = tag;
    status = qc_write(&world.image, off, buf, len);
    world.data_tag = 0;
    memset(world.now.uses, 0, sizeof(world.now.uses));
    free(buf);
    if (is_done(status))
        set_tags(off, len, tag, 1);
    else if (status != QC_RANGE && status != QC_READONLY)
        set_tags(off, len, TAG_ANY, 0);
}

/*
 * Whole clusters read as zeros then, but in version 2 over a layer below; parts of them stay as
 * they are, but subclusters, and what the guest's end cuts, may go too.
 */
static void discard_tags(uint64_t off, uint64_t len)
{
    bool is_declined = world.recipe.version < 3 && world.recipe.has_below;

    for (uint64_t i = off; i < off + len; i += QC_SECTOR_BYTES) {
        uint64_t tag = *tag_at(&world.tags, i), first = i & ~(cluster_bytes() - 1);
        uint64_t end = first + cluster_bytes();

        if (first >= off && end <= off + len && !is_declined)
            set_tag(i, 0);
        else if (tag != 0 && (is_declined || world.recipe.is_extended || end > off + len))
            set_tag(i, TAG_ANY);
    }
}

static void zero_range(const struct recipe_item *item)
{
    uint64_t off, len;
    bool may_unmap = (item->a & 0x10) != 0, is_all = item->a >> 5 == 7;
    bool is_discard = item->kind == RECIPE_DISCARD;
    qc_status status;

    world_range(item, &off, &len);
    is_all = is_all && world.layout.cluster_bits <= 12;
    if (is_all) {
        off = 0;
        len = qc_size(&world.image);
    }
    status = is_discard ? qc_discard(&world.image, off, len)
                        : qc_zero(&world.image, off, len, may_unmap);
    if (!is_done(status) && (status == QC_RANGE || status == QC_READONLY))
        return;
    for (unsigned digit = 0; digit < FUZZ_DIGITS && is_all; digit++)
        set_tags(digit_off(&world.layout, digit), cluster_bytes(),
                 status == QC_OK && !is_discard ? 0 : TAG_ANY, 0);
    if (is_all)
        return;
    if (status == QC_OK && is_discard)
        discard_tags(off, len);
    else
        set_tags(off, len, status == QC_OK ? 0 : TAG_ANY, 0);
}

/* ---- the rest ----------------------------------------------------------------------------- */

static void snapshot_create(void)
{
    struct kept_snapshot *kept = &world.snapshots[world.snapshots_count];
    char name[4];
    qc_status status;

    if (world.snapshots_count == FUZZ_SNAPSHOTS_MAX)
        return;
    snprintf(name, sizeof(name), "n%u", ++world.tags_given % 100);
    status = qc_snapshot_create(&world.image, name, 1, 2);
    if (is_done(status)) {
        memcpy(kept->name, name, sizeof(name));
        kept->guest_bytes = qc_size(&world.image);
        kept->tags = world.tags;
        world.snapshots_count++;
        world.durable = world.tags;
    } else if (status != QC_READONLY && status != QC_UNSUPPORTED && status != QC_NOSPACE) {
        world.is_trusted = false;
    }
}

static void snapshot_change(const struct recipe_item *item)
{
    unsigned index = world.snapshots_count > 0 ? item->b % world.snapshots_count : 0;
    const char *name = world.snapshots_count > 0 ? world.snapshots[index].name : "1";
    bool is_apply = item->kind == RECIPE_SNAP_APPLY;
    qc_status status =
        is_apply ? qc_snapshot_apply(&world.image, name) : qc_snapshot_delete(&world.image, name);

    /* One of a damaged image, of which nothing is known: no check looks at its disk's size. */
    world.is_trusted &= world.snapshots_count > 0;
    if (!is_done(status)) {
        world.is_trusted &= status == QC_READONLY || status == QC_UNSUPPORTED ||
                            status == QC_NOSPACE || status == QC_RANGE;
        return;
    }
    if (world.snapshots_count == 0)
        return;
    if (is_apply) {
        world.tags = world.snapshots[index].tags;
    } else {
        world.snapshots_count--;
        memmove(&world.snapshots[index], &world.snapshots[index + 1],
                (world.snapshots_count - index) * sizeof(world.snapshots[0]));
    }
    world.durable = world.tags;
}

static void check(const struct recipe_item *item)
{
    bool is_readonly = qc_readonly_reason(&world.image)[0] != '\0';
    enum qc_check_fix fix = is_readonly ? QC_FIX_NOTHING : (enum qc_check_fix)(item->a % 3);
    struct qc_check_result again;
    qc_status status;

    /* A repair of a read-only image is allowed where damage is the reason. */
    if (is_readonly && world.image.readonly_kind != QC_READONLY_FIXED && (item->a & 0x80)) {
        fix = QC_FIX_ALL;
        world.is_silent = false;
    }
    world.is_repaired = world.is_repaired || fix != QC_FIX_NOTHING;
    status = qc_check(&world.image, fix, NULL, NULL, &world.check);
    if (is_done(status) && world.is_trusted && !world.recipe.is_snapshot_shown &&
        world.check.corruptions + world.check.check_errors > 0)
        fuzz_fail("a good image is said to be corrupt");
    if (status != QC_OK || fix != QC_FIX_ALL)
        return;
    if (!world.is_trusted && world.check.corruptions + world.check.check_errors > 0)
        return;
    fuzz_disk_step(&world.fuzz);
    status = qc_check(&world.image, QC_FIX_NOTHING, NULL, NULL, &again);
    if (status != QC_OK || again.corruptions + again.check_errors > 0 ||
        again.leaks > world.check.leaks)
        fuzz_fail("a repaired image has %lu corruptions, %lu errors, %lu leaks",
                  (unsigned long)again.corruptions, (unsigned long)again.check_errors,
                  (unsigned long)again.leaks);
}

static void resize(const struct recipe_item *item)
{
    uint64_t old = qc_size(&world.image), wanted = old, end;
    uint64_t size_max = digit_off(&world.layout, FUZZ_DIGITS - 1) + cluster_bytes();
    qc_status status;

    if (item->a & 1)
        wanted = digit_off(&world.layout, item->a % FUZZ_DIGITS) + cluster_bytes();
    else
        wanted += item->c % 64 * QC_SECTOR_BYTES;
    wanted = qc_min(wanted, size_max);
    status = qc_resize(&world.image, wanted);
    if (!is_done(status))
        return;
    if (qc_size(&world.image) != wanted || wanted < old)
        fuzz_fail("resized from %lu to %lu, not %lu", (unsigned long)old,
                  (unsigned long)qc_size(&world.image), (unsigned long)wanted);
    for (unsigned digit = 0; digit < FUZZ_DIGITS; digit++) {
        uint64_t off = digit_off(&world.layout, digit);

        end = qc_min(off + cluster_bytes(), wanted);
        off = off > old ? off : old;
        if (off < end)
            set_tags(off, end - off, 0, 0);
    }
    world.durable = world.tags;
}

static void flush(bool is_settle)
{
    qc_status status = is_settle ? qc_settle(&world.image) : qc_flush(&world.image);

    if (is_done(status))
        world.durable = world.tags;
}

/* As if the process had died: of what was not flushed nobody knows whether it is there. */
static void forget(void)
{
    for (unsigned digit = 0; digit < FUZZ_DIGITS; digit++) {
        for (unsigned i = 0; i < FUZZ_SECTORS_MAX; i++) {
            if (world.durable.sectors[digit][i] != world.tags.sectors[digit][i])
                world.tags.sectors[digit][i] = TAG_ANY;
        }
    }
    world.is_shaken = true;
}

static void reopen(const struct recipe_item *item)
{
    world.fuzz.fail_write_in = 0;
    if (item->a & 1)
        flush(true);
    else
        forget();
    if (!world_open()) {
        if (world.is_trusted)
            fuzz_fail("what was open opens no more: %s", qc_detail(&world.image));
        world.options.readonly = true;
        return;
    }
    if (world.is_trusted && !world.at_open.is_consistent && !world.at_open.is_dirty)
        fuzz_fail("what was consistent is so no more: %s at %lx", world.at_open.odd,
                  (unsigned long)world.at_open.odd_at);
    world_verify(false);
    world.durable = world.tags;
}

void world_do(const struct recipe_item *item)
{
    uint64_t off, len;

    fuzz_disk_step(&world.fuzz);
    world.is_reading =
        item->kind == RECIPE_READ || item->kind == RECIPE_LIST || item->kind == RECIPE_MAP_RUNS;
    switch (item->kind) {
    case RECIPE_READ:
        world_range(item, &off, &len);
        return read_range(off, len, false);
    case RECIPE_WRITE:
        return write_range(item);
    case RECIPE_ZERO:
    case RECIPE_DISCARD:
        return zero_range(item);
    case RECIPE_FLUSH:
    case RECIPE_SETTLE:
        return flush(item->kind == RECIPE_SETTLE);
    case RECIPE_SNAP_CREATE:
        return snapshot_create();
    case RECIPE_SNAP_APPLY:
    case RECIPE_SNAP_DELETE:
        return snapshot_change(item);
    case RECIPE_CHECK:
        return check(item);
    case RECIPE_RESIZE:
        return resize(item);
    case RECIPE_REOPEN:
        return reopen(item);
    case RECIPE_LIST:
        return list();
    case RECIPE_MAP_RUNS:
        return map_runs();
    case RECIPE_FAULT:
        world.fuzz.fail_write_in = 1 + item->c % 8;
        return;
    default: /* part of the image */
        return;
    }
}

void world_end(void)
{
    bool is_settled;
    qc_status status;

    world.fuzz.fail_write_in = 0;
    world.is_reading = false;
    fuzz_disk_step(&world.fuzz);
    is_settled = qc_settle(&world.image) == QC_OK;
    if (world.is_trusted)
        world_verify(false);
    if (strstr(qc_readonly_reason(&world.image), "internal fault") != NULL)
        fuzz_fail("%s", qc_readonly_reason(&world.image));
    owners_find(&world.now, world.fuzz.bytes, world.fuzz.disk.size_bytes);
    if (is_settled && world.is_trusted && !world.now.is_dirty) {
        if (!world.now.is_consistent)
            fuzz_fail("what was consistent is so no more: %s at %lx", world.now.odd,
                      (unsigned long)world.now.odd_at);
        if (!world.is_shaken && world.now.leaks + world.now.leaks_behind >
                                    world.at_open.leaks + world.at_open.leaks_behind)
            fuzz_fail("%lu clusters are leaked, %lu were", (unsigned long)world.now.leaks,
                      (unsigned long)world.at_open.leaks);
    }
    fuzz_disk_step(&world.fuzz);
    status = qc_check(&world.image, QC_FIX_NOTHING, NULL, NULL, &world.check);
    if (is_settled && status == QC_OK && world.now.is_consistent &&
        !world.recipe.is_snapshot_shown && !world.recipe.is_for_check &&
        (world.check.corruptions + world.check.check_errors > 0 ||
         world.check.leaks != world.now.leaks))
        fuzz_fail("the check finds %lu corruptions, %lu leaks, not %lu",
                  (unsigned long)world.check.corruptions, (unsigned long)world.check.leaks,
                  (unsigned long)world.now.leaks);
}
