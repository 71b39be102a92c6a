/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See check.h. A check goes window by window over the host clusters: a walk tells up the
 * references into the window, a pass holds them against the stored counts, a second walk over the
 * active tables looks at the COPIED flags of what lies in the window. Figures mean what qemu-img's
 * do: a count too low, or a wrong flag, is a corruption, a count too high a leak, what cannot be
 * looked at an error.
 */
#include "check.h"

#include "bytes.h"
#include "change.h"
#include "repair.h"
#include "sure.h"

#define HEADER_L1_OFF 40u

#define WIDTH_MAX      4u
#define REPAIRS_MAX    4u /* one may uncover what another hid */
#define PROGRESS_PARTS 2u /* of a window: both walks */

struct check {
    struct qc_image *image;
    struct qc_scratch scratch;
    struct qc_tally tally;
    struct qc_refs refs;
    struct qc_check_result result;
    struct qc_findings findings;
    bool may_drop;
    bool is_last; /* the window is the last: what lies behind it has no count */
    qc_check_progress *progress;
    void *context;
    uint64_t end, round, rounds, part; /* where the check is, for progress */
};

static bool go_on(void *context, uint64_t l1_index)
{
    struct check *check = context;
    uint64_t entries = check->image->top.header.l1_entries;
    uint64_t share = check->tally.count / PROGRESS_PARTS;
    uint64_t done = check->tally.first + check->part * share;

    if (check->progress == NULL)
        return true;
    if (l1_index < entries)
        done += share * l1_index / entries;
    return check->progress(check->context, check->round * check->end + qc_min(done, check->end),
                           check->rounds * check->end);
}

static qc_status compare(void *context, struct qc_stored *item)
{
    struct check *check = context;

    if (item->is_lost) {
        check->result.check_errors++;
        return QC_OK;
    }
    if (item->stored > 0 || item->counted > 0)
        check->result.image_end_off = (item->cluster + 1) << check->image->top.header.cluster_bits;
    if (item->stored < item->counted) {
        check->result.corruptions++;
        check->findings.needs_rebuild = check->findings.needs_rebuild || !item->has_block;
    } else if (item->stored > item->counted) {
        check->result.leaks++;
    }
    return QC_OK;
}

/* Whether COPIED says what the stored count does: true exactly where it is 1. */
static void check_copied(struct check *check, const struct qc_walk_item *item, uint64_t host_off)
{
    uint64_t cluster = host_off >> check->image->top.header.cluster_bits;
    bool is_here = cluster - check->tally.first < check->tally.count;
    bool is_behind = check->is_last && cluster >= check->tally.first + check->tally.count;
    bool is_copied = (item->entry & QC_ENTRY_COPIED) != 0;

    if (is_here || is_behind)
        check->findings.copied_errors += is_copied != (qc_tally_get(&check->tally, cluster) == 1);
}

static qc_status visit_l1(struct qc_walk *walk, struct qc_walk_item *item)
{
    struct check *check = walk->context;

    item->is_followed = item->host_off != 0;
    if (item->is_followed)
        check_copied(check, item, item->host_off);
    return go_on(check, item->index) ? QC_OK : QC_RANGE;
}

static qc_status visit_l2(struct qc_walk *walk, struct qc_walk_item *item)
{
    struct check *check = walk->context;
    uint64_t host_off = item->entry & QC_ENTRY_OFFSET_MASK;

    if (item->entry & QC_ENTRY_COMPRESSED)
        return QC_OK;
    if (walk->image->top.header.incompatible & QC_INCOMPATIBLE_DATA_FILE) {
        /* Nothing is shared there. Without the flag, offset 0 is no cluster at all. */
        if (host_off != 0 && !(item->entry & QC_ENTRY_COPIED) && check->tally.first == 0)
            check->findings.copied_errors++;
    } else if (host_off != 0) {
        check_copied(check, item, host_off);
    }
    return QC_OK;
}

/* Tells up the references into the window that starts at first, in counters as wide as needed. */
static qc_status count_window(struct check *check, uint64_t first, uint64_t end)
{
    uint64_t count_max = qc_count_max(&check->image->top.header);

    for (;;) {
        bool is_widest;
        qc_status status;

        qc_tally_begin(&check->tally, &check->scratch, check->findings.width, first, end);
        check->tally.limit = (uint32_t)qc_min(check->tally.limit, count_max);
        is_widest = check->tally.limit == count_max || check->findings.width == WIDTH_MAX;
        status = qc_refs_count(&check->refs);
        if (status != QC_OK || is_widest || check->tally.over_count == 0)
            return status;
        check->findings.width *= 2;
    }
}

static qc_status check_flags(struct check *check)
{
    const struct qc_header *header = &check->image->top.header;
    struct qc_walk walk = {.image = check->image,
                           .scratch = &check->scratch,
                           .l1_off = header->l1_off,
                           .l1_entries = header->l1_entries,
                           .visit_l1 = visit_l1,
                           .visit_l2 = visit_l2,
                           .context = check};
    qc_status status = qc_tally_load(check->image, &check->scratch, &check->tally);

    check->part = 1;
    return status == QC_OK ? qc_walk_run(&walk) : status;
}

/* Clusters whose counts matter: on the disk, or behind a disk that was cut and still named. */
static void find_ends(const struct check *check, uint64_t *ret_end, uint64_t *ret_flags_end)
{
    const struct qc_refs *refs = &check->refs;
    uint64_t end = refs->end > refs->stored_end ? refs->end : refs->stored_end;
    uint64_t flags_end = qc_min(refs->stored_end, refs->beyond_end);

    end = qc_min(end, refs->clusters);
    /* One window more is enough for files that lost their end. */
    flags_end = qc_min(flags_end, end + check->scratch.bytes_count / check->findings.width);
    *ret_end = end;
    *ret_flags_end = flags_end > end ? flags_end : end;
}

static qc_status check_windows(struct check *check)
{
    const struct qc_header *header = &check->image->top.header;
    uint64_t end = qc_units(check->image->top.disk->size_bytes, header->cluster_bits) + 1;
    uint64_t flags_end = end;

    for (uint64_t first = 0, count; first < flags_end; first += count) {
        qc_status status;

        check->part = 0;
        status = count_window(check, first, flags_end);
        if (status != QC_OK || check->refs.check_errors > 0)
            return status;
        check->result.corruptions += check->refs.corruptions_in_window + check->tally.over_count;
        check->findings.needs_rebuild = check->findings.needs_rebuild || check->refs.needs_rebuild;
        find_ends(check, &end, &flags_end);
        check->end = flags_end;
        count = qc_min(check->tally.count, flags_end - first);
        check->tally.count = first < end ? qc_min(count, end - first) : 0;
        status = qc_tally_pass(check->image, &check->scratch, &check->tally, compare, check);
        check->tally.count = count;
        check->is_last = first + count >= flags_end;
        if (status == QC_OK)
            status = check_flags(check);
        if (status != QC_OK)
            return status;
    }
    return QC_OK;
}

/* A whole check that changes nothing. */
static qc_status inspect(struct check *check)
{
    const struct qc_header *header = &check->image->top.header;
    struct qc_check_result *result = &check->result;
    uint32_t width = check->findings.width;
    qc_status status;

    *result = (struct qc_check_result){0};
    check->findings = (struct qc_findings){.width = width, .may_drop = check->may_drop};
    check->refs = (struct qc_refs){.image = check->image,
                                   .scratch = &check->scratch,
                                   .tally = &check->tally,
                                   .is_lenient = check->may_drop,
                                   .go_on = go_on,
                                   .context = check};
    status = check_windows(check);
    result->corruptions += check->refs.corruptions;
    result->check_errors += check->refs.check_errors;
    check->findings.other_errors = result->corruptions + result->check_errors;
    result->corruptions += check->findings.copied_errors;
    result->total_clusters = qc_units(qc_size(check->image), header->cluster_bits);
    result->allocated_clusters = check->refs.allocated;
    result->fragmented_clusters = check->refs.fragmented;
    result->compressed_clusters = check->refs.compressed;
    check->findings.needs_entries = check->refs.needs_entries;
    check->findings.needs_snapshots = check->refs.needs_snapshots;
    check->findings.needs_bitmaps = check->refs.needs_bitmaps;
    return status;
}

static uint64_t fixed(uint64_t before, uint64_t after)
{
    return before > after ? before - after : 0;
}

/* Damage that a repair with this fix is there for. */
static uint64_t damage(const struct check *check, enum qc_check_fix fix)
{
    const struct qc_check_result *result = &check->result;

    if (fix == QC_FIX_LEAKS)
        return result->leaks + (check->findings.other_errors == 0 ? result->corruptions : 0);
    return result->leaks + result->corruptions + result->check_errors;
}

/* Repairs what the check found and checks again, as long as there is less of it each time. */
static qc_status repair(struct check *check, enum qc_check_fix fix)
{
    struct qc_check_result before = check->result;
    uint64_t marks = check->image->top.header.incompatible & QC_MARKS;
    uint64_t last = UINT64_MAX;
    qc_status status = QC_OK;

    for (unsigned i = 0; i < REPAIRS_MAX && damage(check, fix) > 0; i++) {
        /* What the first repair leaves is looked at in another way by the second. */
        if (i > 1 && damage(check, fix) >= last)
            break;
        last = damage(check, fix);
        check->round++;
        check->findings.is_again = i > 0;
        status = qc_repair(check->image, &check->scratch, fix, &check->findings, go_on, check);
        check->round++;
        if (status == QC_OK)
            status = inspect(check);
        if (status != QC_OK)
            return status;
    }
    check->result.corruptions_fixed = fixed(before.corruptions, check->result.corruptions);
    check->result.leaks_fixed = fixed(before.leaks, check->result.leaks);
    if (check->result.corruptions + check->result.check_errors == 0)
        marks = 0;
    return qc_repair_finish(check->image, marks);
}

/* Whether nothing but its damage, or what lies below, keeps an image from being written. */
static bool may_repair(const struct qc_image *image)
{
    const struct qc_disk *disk = image->top.disk;

    if (disk->readonly || image->top.data->readonly || image->is_failed ||
        image->top.header.cluster_bytes < disk->block_bytes ||
        (disk->ops->grow == NULL && !qc_is_aligned(disk->size_bytes, disk->block_bytes)))
        return false;
    return image->readonly_reason.text[0] == '\0' || image->readonly_kind != QC_READONLY_FIXED;
}

/* Whether what is open is the disk as it is now: of a snapshot's tables nobody could tell. */
static qc_status refuse_snapshot(struct qc_image *image)
{
    uint8_t bytes[8];
    qc_status status = qc_raw_read(image, HEADER_L1_OFF, bytes, sizeof(bytes));

    if (status == QC_OK && qc_be64(bytes) != image->top.header.l1_off)
        return qc_fail(&image->detail, QC_UNSUPPORTED, "a snapshot is open: not to be checked");
    return status;
}

static qc_status run(struct check *check, enum qc_check_fix fix)
{
    struct qc_image *image = check->image;
    qc_status status;

    qc_detail_clear(&image->detail);
    if (fix != QC_FIX_NOTHING && !may_repair(image))
        return qc_fail(&image->detail, QC_READONLY, "%s", image->readonly_reason.text);
    status = image->top.disk->readonly ? QC_OK : qc_settle(image);
    if (status == QC_OK)
        status = refuse_snapshot(image);
    if (status == QC_OK)
        status = qc_sure(image, image->epoch.records_count == 0, "a check over waiting changes");
    if (status != QC_OK)
        return status;
    check->findings.width = 1;
    check->rounds = fix == QC_FIX_NOTHING ? 1 : 2 * REPAIRS_MAX + 1;
    qc_scratch_borrow(image, &check->scratch);
    status = inspect(check);
    if (status == QC_OK && fix != QC_FIX_NOTHING)
        status = repair(check, fix);
    qc_scratch_return(image);
    /* Not all damage is marked in the header, and what a check alone found is still there. A
     * repair that leaves none has put the header right too. */
    if (status == QC_OK && fix != QC_FIX_NOTHING && image->readonly_kind == QC_READONLY_DAMAGED &&
        check->result.corruptions + check->result.check_errors == 0) {
        qc_detail_clear(&image->readonly_reason);
        image->readonly_kind = QC_READONLY_FIXED;
    }
    return status;
}

_Static_assert(sizeof(struct check) <= QC_WORK_BYTES, "a check fits");

static struct check *begin(struct qc_image *image)
{
    struct check *check = (struct check *)image->work[0];

    __builtin_memset(check, 0, sizeof(*check));
    check->image = image;
    return check;
}

qc_status qc_check(struct qc_image *image, enum qc_check_fix fix, qc_check_progress *progress,
                   void *context, struct qc_check_result *ret_result)
{
    struct check *check = begin(image);
    qc_status status;

    check->progress = progress;
    check->context = context;
    check->may_drop = fix == QC_FIX_ALL;
    status = run(check, fix);
    if (status == QC_OK)
        *ret_result = check->result;
    return status;
}

/* Each look at an L2 table is paid for, so that tables that lie hold nobody up. */
static bool spend(void *context, uint64_t done, uint64_t total)
{
    uint64_t *looks_left = context;

    (void)done;
    (void)total;
    if (*looks_left == 0)
        return false;
    (*looks_left)--;
    return true;
}

qc_status qc_repair_dirty(struct qc_image *image)
{
    uint64_t look_bytes = image->top.header.cluster_bytes > QC_DIRTY_LOOK_BYTES
                              ? image->top.header.cluster_bytes
                              : QC_DIRTY_LOOK_BYTES;
    uint64_t disk_bytes = qc_min(image->top.disk->size_bytes, QC_DIRTY_BYTES_MAX);
    uint64_t clusters = qc_units(disk_bytes, image->top.header.cluster_bits);
    /* So few clusters do not hold more tables, and snapshots that share them. */
    uint64_t looks_left = qc_min(disk_bytes * QC_DIRTY_DISKS_MAX, QC_DIRTY_BYTES_MAX) / look_bytes +
                          qc_min(QC_DIRTY_LOOKS_MIN, clusters * clusters);
    struct check *check = begin(image);
    qc_status status;

    check->progress = spend;
    check->context = &looks_left;
    status = run(check, QC_FIX_ALL);
    if (status == QC_RANGE)
        status = qc_fail(&image->detail, QC_UNSUPPORTED, "too many tables");
    if (status == QC_OK && check->result.corruptions + check->result.check_errors > 0)
        status = qc_fail(&image->detail, QC_CORRUPT, "%u corruptions, %u errors left",
                         check->result.corruptions, check->result.check_errors);
    if (status != QC_OK) {
        qc_fail(&image->readonly_reason, status, "dirty image, repair failed: %s",
                image->detail.text);
        image->readonly_kind = QC_READONLY_DAMAGED;
    }
    return status;
}
