/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See repair.h. The order, with a flush after each line:
 *
 *   the mark dirty                        (version 3; a version 2 image has none)
 *   new tables, where old ones cannot stay, into clusters that nothing refers to
 *   (from here on snapshots over the limit count for nothing, and their clusters are free)
 *   flaws of entries; counts that are too low, raised
 *   the header's pointers to new tables and its count of snapshots, in one write of one block
 *   COPIED flags
 *   counts that are too high, lowered
 *   the mark cleared
 *
 * Every line is worked out from the references alone, so that a repair that was cut starts again.
 */
#include "repair.h"

#include "bytes.h"
#include "commit.h"
#include "seeded.h"
#include "shared.h"

#define L1_RESERVED_MASK UINT64_C(0x7f000000000001ff)
#define L2_RESERVED_MASK UINT64_C(0x3f000000000001fe)

#define HEADER_FEATURES_OFF 72u /* incompatible, compatible, autoclear */

/* Whether what an item names lay behind the end of the disk, and was not put there since. */
static bool is_beyond(const struct qc_repair *repair, const struct qc_walk_item *item)
{
    uint64_t cluster = item->host_off >> repair->image->top.header.cluster_bits;

    if (cluster - repair->copies_first < repair->moved_count)
        return false;
    return qc_is_beyond(&repair->image->top.header, repair->disk_bytes, item->host_off,
                        item->host_len);
}

/* Whether an L2 table may be changed. */
static bool is_ours(const struct qc_image *image, const struct qc_walk_item *l1)
{
    return l1->flaws == 0 && l1->host_off != 0 &&
           !qc_is_shared(image, l1->host_off >> image->top.header.cluster_bits);
}

static qc_status fix_l1(struct qc_walk *walk, struct qc_walk_item *item)
{
    struct qc_repair *repair = walk->context;
    bool is_gone =
        (item->flaws & (QC_FLAW_UNALIGNED | QC_FLAW_STRUCTURE)) || is_beyond(repair, item);

    if (!repair->is_l1_shared) {
        item->entry &= ~L1_RESERVED_MASK;
        item->flaws &= ~(uint32_t)QC_FLAW_RESERVED;
        /* A flag without a table, or a table that is nowhere. */
        if (item->host_off == 0 || (is_gone && repair->findings->may_drop))
            item->entry = 0;
    }
    item->is_followed = is_ours(walk->image, item);
    return qc_repair_go_on(repair, item->index);
}

/* Makes an entry, or the subclusters that would have data, read as zeros. */
static void make_zero(const struct qc_header *header, struct qc_walk_item *item)
{
    if (qc_has_subclusters(header)) {
        bool is_packed = (item->entry & QC_ENTRY_COMPRESSED) != 0;

        item->bitmap = is_packed ? QC_SUBS_ZERO
                                 : (item->bitmap | item->bitmap << QC_SUBCLUSTERS) & QC_SUBS_ZERO;
        item->entry = 0;
    } else {
        item->entry = header->version < 3 ? 0 : QC_ENTRY_ZERO;
    }
}

/* A compressed entry never needs more sectors than there are, nor subclusters. */
static void shorten(const struct qc_repair *repair, struct qc_walk_item *item)
{
    unsigned sectors_bits = repair->image->top.header.cluster_bits - 8;
    unsigned off_bits = 62 - sectors_bits;
    uint64_t sectors, mask = ((QC_U(1) << sectors_bits) - 1) << off_bits;

    item->bitmap = 0;
    /* What begins behind the disk has no length that would be right: it stays as it is. */
    if (item->host_off >= repair->disk_bytes || !is_beyond(repair, item))
        return;
    sectors = (repair->disk_bytes - 1) / QC_SECTOR_BYTES - item->host_off / QC_SECTOR_BYTES;
    item->entry = (item->entry & ~mask) | (sectors << off_bits & mask);
}

static qc_status fix_l2(struct qc_walk *walk, struct qc_walk_item *item)
{
    const struct qc_repair *repair = walk->context;
    const struct qc_header *header = &walk->image->top.header;
    bool has_data_file = (header->incompatible & QC_INCOMPATIBLE_DATA_FILE) != 0;
    bool has_data = qc_has_subclusters(header) ? (item->bitmap & QC_SUBS_ALLOCATED) != 0
                                               : !(item->entry & QC_ENTRY_ZERO);
    bool may_drop = repair->findings->may_drop;

    if (item->entry & QC_ENTRY_COMPRESSED) {
        item->entry &= ~QC_ENTRY_COPIED;
        if (may_drop && (has_data_file || item->host_off >= repair->disk_bytes ||
                         (item->flaws & QC_FLAW_STRUCTURE)))
            make_zero(header, item);
        else if (!has_data_file)
            shorten(repair, item);
        return QC_OK;
    }
    item->entry &= ~L2_RESERVED_MASK;
    /* Subclusters that are data and zeros at once, or data and nowhere, cannot be read. */
    if (may_drop && (item->flaws & QC_FLAW_INVALID) && qc_has_subclusters(header)) {
        if (item->entry & QC_ENTRY_OFFSET_MASK)
            item->bitmap &= ~(item->bitmap >> QC_SUBCLUSTERS);
        else
            make_zero(header, item);
    }
    /* A cluster that was only kept, and where none can be: what reads as zeros goes on to. */
    if ((item->flaws & QC_FLAW_UNALIGNED) && (!has_data || may_drop))
        make_zero(header, item);
    else if (may_drop && ((item->flaws & QC_FLAW_STRUCTURE) || is_beyond(repair, item)))
        make_zero(header, item);
    return QC_OK;
}

static qc_status fix_tree(struct qc_repair *repair, uint64_t l1_off, uint32_t l1_entries)
{
    struct qc_walk walk = {.image = repair->image,
                           .scratch = repair->scratch,
                           .l1_off = l1_off,
                           .l1_entries = l1_entries,
                           .visit_l1 = fix_l1,
                           .visit_l2 = fix_l2,
                           .context = repair};

    repair->is_l1_shared = qc_is_l1_shared(repair->image, l1_off, l1_entries);
    return qc_walk_run(&walk);
}

/* A cluster that more refer to than its count can hold stays one that has too few. */
static qc_status raise_count(void *context, struct qc_stored *item)
{
    struct qc_repair *repair = context;
    uint64_t count = qc_min(item->counted, qc_count_max(&repair->image->top.header));

    if (count > item->stored && item->has_block)
        item->stored = count;
    else if (count > item->stored)
        repair->needs_rebuild = true;
    return QC_OK;
}

static qc_status raise_window(struct qc_repair *repair)
{
    return qc_tally_pass(repair->image, repair->scratch, &repair->tally, raise_count, repair);
}

static qc_status lower_count(void *context, struct qc_stored *item)
{
    (void)context;
    if (item->stored > item->counted)
        item->stored = item->counted;
    return QC_OK;
}

static qc_status lower_window(struct qc_repair *repair)
{
    return qc_tally_pass(repair->image, repair->scratch, &repair->tally, lower_count, repair);
}

static void set_copied(const struct qc_repair *repair, struct qc_walk_item *item)
{
    uint64_t host_off = item->entry & QC_ENTRY_OFFSET_MASK;
    uint64_t cluster = host_off >> repair->image->top.header.cluster_bits;

    if (host_off == 0 || cluster - repair->tally.first >= repair->tally.count)
        return;
    /* Where a count cannot be as large as it must, the flag goes with what is stored. */
    if (qc_min(qc_tally_get(&repair->tally, cluster), qc_count_max(&repair->image->top.header)) ==
        1)
        item->entry |= QC_ENTRY_COPIED;
    else
        item->entry &= ~QC_ENTRY_COPIED;
}

static qc_status copied_l1(struct qc_walk *walk, struct qc_walk_item *item)
{
    struct qc_repair *repair = walk->context;

    /* The header's own table is never a shared one (shared.c). */
    set_copied(repair, item);
    item->is_followed = is_ours(walk->image, item);
    return qc_repair_go_on(repair, item->index);
}

static qc_status copied_l2(struct qc_walk *walk, struct qc_walk_item *item)
{
    if (item->entry & QC_ENTRY_COMPRESSED)
        return QC_OK;
    if (walk->image->top.header.incompatible & QC_INCOMPATIBLE_DATA_FILE) {
        /* Nothing is shared there; offset 0 without the flag is no cluster. */
        if (item->entry & QC_ENTRY_OFFSET_MASK)
            item->entry |= QC_ENTRY_COPIED;
    } else {
        set_copied(walk->context, item);
    }
    return QC_OK;
}

static qc_status copied_window(struct qc_repair *repair)
{
    const struct qc_header *header = &repair->image->top.header;
    struct qc_walk walk = {.image = repair->image,
                           .scratch = repair->scratch,
                           .l1_off = header->l1_off,
                           .l1_entries = header->l1_entries,
                           .visit_l1 = copied_l1,
                           .visit_l2 = copied_l2,
                           .context = repair};

    return qc_walk_run(&walk);
}

/*
 * The mark that whoever opens the image next has to repair it. Unknown autoclear bits go too, and
 * the known one that bitmaps that cannot be read are good.
 */
static qc_status mark_dirty(struct qc_image *image, bool drops_bitmaps)
{
    struct qc_header *header = &image->top.header;
    uint8_t features[24];

    if (header->version < 3 || QC_SEED(repair_no_mark))
        return QC_OK;
    header->incompatible |= QC_INCOMPATIBLE_DIRTY;
    header->autoclear &= QC_AUTOCLEAR_BITMAPS | QC_AUTOCLEAR_RAW_DATA;
    if (drops_bitmaps)
        header->autoclear &= ~QC_AUTOCLEAR_BITMAPS;
    qc_put_be64(features, header->incompatible);
    qc_put_be64(features + 8, header->compatible);
    qc_put_be64(features + 16, header->autoclear);
    return qc_raw_patch_header(image, HEADER_FEATURES_OFF, features, sizeof(features));
}

/* The file is made to end with a cluster, so that its last table can be written whole. */
static qc_status round_up(struct qc_image *image)
{
    struct qc_disk *disk = image->top.disk;
    unsigned cluster_bits = image->top.header.cluster_bits;
    uint64_t whole = qc_units(disk->size_bytes, cluster_bits) << cluster_bits;
    qc_status status = QC_OK;

    if (disk->ops->grow != NULL && whole != disk->size_bytes)
        status = disk->ops->grow(disk, whole);
    return status == QC_OK ? QC_OK : qc_fail(&image->detail, status, "no space");
}

static qc_status flush_after(struct qc_repair *repair, qc_status status)
{
    return status == QC_OK && repair->image->is_unflushed ? qc_flush_disk(repair->image) : status;
}

/* What was raised, fixed and switched is durable before counts are lowered. */
static qc_status flush_before_lower(struct qc_repair *repair, qc_status status)
{
    return QC_SEED(repair_early_lower) ? status : flush_after(repair, status);
}

/* Finds the tables that cannot stay, and moves them. */
static qc_status relocate(struct qc_repair *repair)
{
    qc_status status = qc_repair_windows(repair, qc_judge_window, true);

    if (status != QC_OK || !(repair->needs_rebuild || repair->needs_snapshots))
        return status;
    if (repair->needs_snapshots)
        status = qc_relocate_snapshots(repair);
    if (status == QC_OK && repair->needs_rebuild)
        status = qc_relocate_counts(repair);
    repair->needs_rebuild = false;
    /* What shared its clusters with them may be alone now. */
    qc_forget_shared(repair->image);
    return status == QC_OK ? qc_repair_windows(repair, qc_judge_window, true) : status;
}

/* Counts that are too low; where there is no block for one, all blocks are made anew. */
static qc_status raise_counts(struct qc_repair *repair)
{
    qc_status status;

    repair->needs_rebuild = false;
    status = qc_repair_windows(repair, raise_window, false);
    if (status != QC_OK || !repair->needs_rebuild)
        return status;
    status = qc_relocate_counts(repair);
    if (status == QC_OK)
        status = qc_repair_windows(repair, raise_window, false);
    return status;
}

/* Tables that share their clusters with something get clusters of their own. */
static qc_status unshare(struct qc_repair *repair)
{
    qc_status status = qc_unshare_copy(repair);

    if (status != QC_OK || repair->copies_count == 0)
        return status;
    status = flush_after(repair, raise_counts(repair));
    if (status == QC_OK)
        status = qc_relocate_switch(repair);
    status = flush_after(repair, status);
    if (status == QC_OK)
        status = qc_unshare_switch(repair);
    status = flush_after(repair, status);
    repair->moved_count = repair->copies_count;
    repair->copies_count = 0;
    qc_forget_shared(repair->image);
    return status == QC_OK ? qc_repair_windows(repair, qc_judge_window, true) : status;
}

static qc_status repair_all(struct qc_repair *repair)
{
    qc_status status;

    repair->image->top.header.snapshots_over = 0;
    status = relocate(repair);
    if (status == QC_OK && repair->findings->is_again && repair->findings->may_drop)
        status = unshare(repair);
    if (status == QC_OK && repair->findings->needs_entries)
        status = qc_for_each_l1(repair, fix_tree);
    repair->is_counted = false;
    if (status == QC_OK)
        status = raise_counts(repair);
    if (!QC_SEED(repair_early_switch))
        status = flush_before_lower(repair, status);
    if (status == QC_OK)
        status = qc_relocate_switch(repair);
    status = flush_before_lower(repair, status);
    if (status == QC_OK)
        status = qc_repair_windows(repair, copied_window, false);
    status = flush_before_lower(repair, status);
    if (status == QC_OK)
        status = qc_repair_windows(repair, lower_window, false);
    return QC_SEED(repair_early_clear) ? status : flush_after(repair, status);
}

/* Only counts that are too high, and flags where nothing else is wrong. */
static qc_status repair_leaks(struct qc_repair *repair)
{
    qc_status status = QC_OK;

    if (repair->findings->copied_errors > 0 && repair->findings->other_errors == 0) {
        status = qc_repair_windows(repair, qc_judge_window, true);
        if (status == QC_OK)
            status = qc_repair_windows(repair, copied_window, false);
        status = flush_after(repair, status);
    }
    if (status == QC_OK && !repair->findings->needs_rebuild)
        status = qc_repair_windows(repair, lower_window, false);
    return flush_after(repair, status);
}

_Static_assert(sizeof(struct qc_repair) <= QC_WORK_BYTES, "a repair fits");

qc_status qc_repair(struct qc_image *image, const struct qc_scratch *scratch, enum qc_check_fix fix,
                    const struct qc_findings *findings,
                    bool (*go_on)(void *context, uint64_t l1_index), void *context)
{
    struct qc_repair *repair = (struct qc_repair *)image->work[1];
    qc_status status;

    __builtin_memset(repair, 0, sizeof(*repair));
    repair->image = image;
    repair->scratch = scratch;
    repair->findings = findings;
    repair->go_on = go_on;
    repair->context = context;
    repair->header = image->top.header;
    repair->disk_bytes = image->top.disk->size_bytes;
    repair->needs_rebuild = findings->needs_rebuild;
    repair->needs_snapshots = findings->needs_snapshots;
    status = round_up(image);
    qc_forget_shared(image);
    image->is_announced = false;
    image->snapshots_bytes = 0;
    if (status == QC_OK)
        status = mark_dirty(image, findings->needs_bitmaps && findings->may_drop);
    status = flush_after(repair, status);
    if (status == QC_OK)
        status = fix == QC_FIX_ALL ? repair_all(repair) : repair_leaks(repair);
    if (status != QC_OK)
        qc_relocate_undo(repair);
    return status;
}

qc_status qc_repair_finish(struct qc_image *image, uint64_t marks)
{
    struct qc_header *header = &image->top.header;
    uint64_t incompatible = (header->incompatible & ~QC_MARKS) | marks;
    uint8_t features[8];
    qc_status status = QC_OK;

    qc_forget_shared(image);
    image->is_announced = false;
    image->free_hint = 0;
    if (image->top.disk->ops->grow != NULL)
        image->virgin_off = qc_units(image->top.disk->size_bytes, header->cluster_bits)
                            << header->cluster_bits;
    if (header->version >= 3 && incompatible != header->incompatible) {
        qc_put_be64(features, incompatible);
        status = qc_raw_patch_header(image, HEADER_FEATURES_OFF, features, sizeof(features));
    }
    if (status == QC_OK && image->is_unflushed)
        status = qc_flush_disk(image);
    if (status == QC_OK)
        header->incompatible = incompatible;
    return status;
}
