/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See job.h. Trees are walked once for each window of counts; most images need one (ledger.h).
 */
#include "job.h"

#include "alloc.h"
#include "bytes.h"
#include "change.h"
#include "commit.h"
#include "guard.h"
#include "seeded.h"

#define HEADER_INCOMPATIBLE_OFF 72u
#define ENTRY_BYTES             8u

uint64_t qc_job_clusters(const struct qc_job *job, uint64_t bytes)
{
    return qc_units(bytes, job->image->top.header.cluster_bits);
}

static struct qc_tree disk_tree(const struct qc_image *image)
{
    return (struct qc_tree){image->top.header.l1_off, image->top.header.l1_entries};
}

/* The epoch is empty: its records lie in the same pages. */
static void borrow(struct qc_job *job)
{
    qc_scratch_borrow(job->image, &job->scratch);
    job->held = job->scratch.bytes;
    job->scratch.bytes += QC_JOB_HELD_BYTES;
    job->scratch.bytes_count -= QC_JOB_HELD_BYTES;
    job->is_borrowed = true;
    job->is_loaded = false;
}

static void give_back(struct qc_job *job)
{
    if (job->is_borrowed)
        qc_scratch_return(job->image);
    job->is_borrowed = false;
}

/* ---- walking trees --------------------------------------------------------------------------- */

static qc_status load(struct qc_job *job, uint64_t first)
{
    qc_status status = QC_OK;

    if (!job->is_loaded || job->ledger.first != first)
        status = qc_ledger_load(&job->ledger, first);
    job->is_loaded = status == QC_OK;
    return status;
}

static qc_status refuse(struct qc_walk *walk, const struct qc_walk_item *item)
{
    return qc_fail(&walk->image->detail, QC_CORRUPT, "bad table entry %x", item->entry);
}

static qc_status raise_l1(struct qc_walk *walk, struct qc_walk_item *item)
{
    struct qc_job *job = walk->context;

    if (item->flaws != 0)
        return refuse(walk, item);
    if (!job->is_trial)
        item->entry &= ~QC_ENTRY_COPIED;
    if (item->index < QC_JOB_HELD_BYTES / ENTRY_BYTES)
        qc_put_be64(job->held + item->index * ENTRY_BYTES, item->entry);
    return item->host_off == 0 ? QC_OK
                               : qc_ledger_add(&job->ledger, item->host_off, item->host_len);
}

static qc_status raise_l2(struct qc_walk *walk, struct qc_walk_item *item)
{
    struct qc_job *job = walk->context;

    if (item->flaws != 0)
        return refuse(walk, item);
    if (!job->is_trial && !(item->entry & QC_ENTRY_COMPRESSED))
        item->entry &= ~QC_ENTRY_COPIED;
    return qc_ledger_add(&job->ledger, item->host_off, item->host_len);
}

static void trim_pending(struct qc_job *job)
{
    struct qc_disk *disk = job->image->top.disk;

    if (job->trim_bytes > 0 && disk->ops->trim != NULL)
        disk->ops->trim(disk, job->trim_off, job->trim_bytes);
    job->trim_bytes = 0;
}

/*
 * Drops a reference, and lets go what that freed: the pointer that led here is durably gone. With
 * several windows the tables are needed again, and nothing is trimmed.
 */
static qc_status drop(struct qc_job *job, uint64_t host_off, uint64_t len)
{
    uint32_t cluster_bytes = job->image->top.header.cluster_bytes;
    uint64_t off = host_off & ~QC_U(cluster_bytes - 1);
    qc_status status = qc_ledger_drop(&job->ledger, host_off, len);

    if (status != QC_OK || job->is_trial || !qc_ledger_is_whole(&job->ledger))
        return status;
    for (; off < host_off + len; off += cluster_bytes) {
        if (qc_ledger_get(&job->ledger, off >> job->image->top.header.cluster_bits) != 0 ||
            !qc_is_inside(off, cluster_bytes, job->image->top.disk->size_bytes))
            continue;
        if (off != job->trim_off + job->trim_bytes) {
            trim_pending(job);
            job->trim_off = off;
        }
        job->trim_bytes += cluster_bytes;
    }
    return QC_OK;
}

/* The table that was walked last is not needed any more. */
static qc_status drop_l2(struct qc_job *job)
{
    uint64_t l2_off = job->l2_off;

    job->l2_off = 0;
    return l2_off == 0 ? QC_OK : drop(job, l2_off, job->image->top.header.cluster_bytes);
}

static qc_status lower_l1(struct qc_walk *walk, struct qc_walk_item *item)
{
    struct qc_job *job = walk->context;
    qc_status status = drop_l2(job);

    job->l2_off = item->host_off;
    return status == QC_OK && item->flaws != 0 ? refuse(walk, item) : status;
}

static qc_status lower_l2(struct qc_walk *walk, struct qc_walk_item *item)
{
    if (item->flaws != 0)
        return refuse(walk, item);
    return drop(walk->context, item->host_off, item->host_len);
}

/* COPIED says that the count is 1. What is flawed is left as it is. */
static qc_status set_copied(struct qc_walk *walk, struct qc_walk_item *item)
{
    struct qc_job *job = walk->context;
    uint64_t cluster = item->host_off >> job->image->top.header.cluster_bits;

    if (item->flaws != 0 || item->host_off == 0 || (item->entry & QC_ENTRY_COMPRESSED) ||
        !qc_ledger_has(&job->ledger, cluster))
        return QC_OK;
    item->entry &= ~QC_ENTRY_COPIED;
    if (qc_ledger_get(&job->ledger, cluster) == 1)
        item->entry |= QC_ENTRY_COPIED;
    return QC_OK;
}

static struct qc_walk walk_of(struct qc_job *job, const struct qc_tree *tree)
{
    return (struct qc_walk){.image = job->image,
                            .scratch = &job->scratch,
                            .l1_off = tree->l1_off,
                            .l1_entries = tree->l1_entries,
                            .context = job};
}

static qc_status raise_walk(struct qc_job *job, const struct qc_tree *tree)
{
    struct qc_walk walk = walk_of(job, tree);

    walk.visit_l1 = raise_l1;
    walk.visit_l2 = raise_l2;
    __builtin_memset(job->held, 0, QC_JOB_HELD_BYTES);
    return qc_walk_run(&walk);
}

static qc_status lower_walk(struct qc_job *job, const struct qc_tree *tree)
{
    struct qc_walk walk = walk_of(job, tree);
    qc_status status;

    walk.visit_l1 = lower_l1;
    walk.visit_l2 = lower_l2;
    status = qc_walk_run(&walk);
    return status == QC_OK ? drop_l2(job) : status;
}

/* ---- the steps ------------------------------------------------------------------------------- */

qc_status qc_job_raise(struct qc_job *job, const struct qc_tree *tree)
{
    struct qc_image *image = job->image;

    for (uint64_t first = 0; first < job->ledger.end; first += job->ledger.count) {
        qc_status status = load(job, first);

        if (status == QC_OK && tree != NULL)
            status = raise_walk(job, tree);
        /* A count of 2 with the flag would be damage to whoever opens the image after a cut. */
        if (status == QC_OK && image->is_unflushed && !QC_SEED(late_uncopy))
            status = qc_flush_disk(image);
        qc_ledger_take(&job->ledger, job->run_first, job->run_count);
        if (status == QC_OK)
            status = qc_ledger_store(&job->ledger);
        if (status != QC_OK)
            return status;
    }
    return QC_OK;
}

/* Drops a reference of all of a tree that nothing names any more; puts COPIED right in the disk's.
 */
qc_status qc_job_lower(struct qc_job *job, const struct qc_tree *tree, bool sets_copied)
{
    for (uint64_t first = 0; first < job->ledger.end; first += job->ledger.count) {
        struct qc_tree disk = disk_tree(job->image);
        struct qc_walk flags = walk_of(job, &disk);
        qc_status status = load(job, first);

        flags.visit_l1 = set_copied;
        flags.visit_l2 = set_copied;
        if (status == QC_OK)
            status = lower_walk(job, tree);
        trim_pending(job);
        if (status == QC_OK)
            status = qc_ledger_store(&job->ledger);
        if (status == QC_OK && !QC_SEED(early_copied))
            status = qc_flush_disk(job->image);
        if (status == QC_OK && sets_copied)
            status = qc_walk_run(&flags);
        if (status != QC_OK)
            return status;
    }
    return QC_OK;
}

/*
 * Lowers in the window alone, where nothing was raised: what a tree has too few counts for shows
 * even where the other tree's would make up for it.
 */
static qc_status try_to_lower(struct qc_job *job)
{
    const struct qc_tree *tree = &job->lowered;
    qc_status status = load(job, job->ledger.first);

    job->is_trial = true;
    if (status == QC_OK)
        status = lower_walk(job, tree);
    if (status == QC_OK)
        status = drop(job, tree->l1_off, QC_U(tree->l1_entries) * ENTRY_BYTES);
    if (status == QC_OK)
        status = drop(job, job->image->top.header.snapshots_off, job->table_bytes);
    job->is_trial = false;
    job->is_loaded = false;
    return status;
}

/*
 * Looks at all counts: finds run_count free clusters, and tries on paper where a count might not
 * hold what tree adds, and what will be lowered always: then the way back is gone.
 */
static qc_status look(struct qc_job *job, const struct qc_tree *tree)
{
    qc_ledger_init(&job->ledger, job->image, &job->scratch, job->run_count);
    for (uint64_t first = 0; first < job->ledger.end; first += job->ledger.count) {
        qc_status status = load(job, first);

        if (status == QC_OK && job->run_first == 0 && job->run_count > 0)
            job->run_first = qc_ledger_find_run(&job->ledger, job->run_count);
        if (status == QC_OK && tree != NULL && qc_ledger_is_near_limit(&job->ledger)) {
            job->is_trial = true;
            status = raise_walk(job, tree);
            job->is_trial = false;
            job->is_loaded = false;
        }
        if (status == QC_OK && job->lowered.l1_entries + job->table_bytes > 0)
            status = try_to_lower(job);
        if (status != QC_OK)
            return status;
    }
    return QC_OK;
}

/* A leak at worst. What went wrong before is what is told. */
static QC_APART void free_run(struct qc_job *job)
{
    struct qc_detail why = job->image->detail;

    if (job->run_first != 0)
        (void)qc_free_run(job->image, job->run_first, job->run_count);
    job->image->detail = why;
}

/* Clusters that the blocks in use do not count: the epoch takes them, and makes blocks. */
static qc_status provide_run(struct qc_job *job)
{
    qc_status status;

    give_back(job);
    status = qc_alloc_run(job->image, job->run_count, &job->run_first);
    if (status == QC_OK)
        status = qc_settle(job->image);
    if (status != QC_OK) {
        free_run(job);
        return status;
    }
    borrow(job);
    qc_ledger_init(&job->ledger, job->image, &job->scratch, job->run_count);
    return QC_OK;
}

/* No table may lie where the new ones go, whatever the counts say. */
static qc_status check_run(struct qc_job *job)
{
    qc_status status = QC_OK;

    give_back(job);
    for (uint64_t i = 0; i < job->run_count && status == QC_OK; i++) {
        bool is_table = false;

        status = qc_guard_check(job->image, job->run_first + i, &is_table);
        if (status == QC_OK && is_table)
            status = qc_fail(&job->image->detail, QC_CORRUPT, "free cluster %x is metadata",
                             (job->run_first + i) << job->image->top.header.cluster_bits);
    }
    borrow(job);
    return status;
}

/* The disk is made long enough for the run. */
static qc_status reach_run(struct qc_job *job)
{
    struct qc_disk *disk = job->image->top.disk;
    uint64_t end = (job->run_first + job->run_count) << job->image->top.header.cluster_bits;

    if (end > disk->size_bytes && (disk->ops->grow == NULL || disk->ops->grow(disk, end) != QC_OK))
        return qc_fail(&job->image->detail, QC_NOSPACE, "no space");
    if (job->image->virgin_off < end)
        job->image->virgin_off = end;
    return QC_OK;
}

qc_status qc_job_switch(struct qc_job *job, uint32_t host_off, const uint8_t *bytes,
                        uint32_t bytes_count)
{
    qc_status status = qc_raw_patch_header(job->image, host_off, bytes, bytes_count);

    if (QC_SEED(no_switch_flush))
        return status;
    return status == QC_OK ? qc_flush_disk(job->image) : status;
}

static qc_status mark(struct qc_job *job, bool is_dirty)
{
    struct qc_header *header = &job->image->top.header;
    uint64_t incompatible = header->incompatible & ~QC_INCOMPATIBLE_DIRTY;
    uint8_t field[8];
    qc_status status;

    job->is_changing = true;
    if (header->version < 3 || QC_SEED(no_mark))
        return QC_OK;
    if (is_dirty)
        incompatible |= QC_INCOMPATIBLE_DIRTY;
    qc_put_be64(field, incompatible);
    status = qc_job_switch(job, HEADER_INCOMPATIBLE_OFF, field, sizeof(field));
    if (status == QC_OK)
        header->incompatible = incompatible;
    return status;
}

qc_status qc_job_prepare(struct qc_job *job, const struct qc_tree *tree, uint64_t run_count,
                         bool is_walked)
{
    qc_status status;

    job->run_count = run_count;
    borrow(job);
    status = look(job, tree);
    if (status == QC_OK && run_count > 0 && job->run_first == 0)
        status = provide_run(job);
    else if (status == QC_OK && run_count > 0 && !is_walked)
        status = check_run(job);
    if (status == QC_OK && run_count > 0)
        status = reach_run(job);
    return status == QC_OK ? mark(job, true) : status;
}

qc_status qc_job_copy_l1(struct qc_job *job, const struct qc_tree *tree, uint64_t host_off)
{
    struct qc_image *image = job->image;
    uint8_t *staging = image->cache->staging;
    uint64_t from_bytes = QC_U(tree->l1_entries) * ENTRY_BYTES;
    uint64_t bytes = qc_job_clusters(job, from_bytes) << image->top.header.cluster_bits;

    for (uint64_t off = 0, len; off < bytes; off += len) {
        uint64_t from_len = off < from_bytes ? from_bytes - off : 0, held_len;
        qc_status status = QC_OK;

        len = qc_min(bytes - off, image->cache->staging_bytes);
        from_len = qc_min(from_len, len);
        held_len = off == 0 ? qc_min(from_len, QC_JOB_HELD_BYTES) : 0;
        __builtin_memset(staging + from_len, 0, (size_t)(len - from_len));
        if (off == 0)
            __builtin_memcpy(staging, job->held, (size_t)held_len);
        if (from_len > held_len)
            status = qc_raw_read(image, tree->l1_off + off + held_len, staging + held_len,
                                 (size_t)(from_len - held_len));
        for (uint64_t i = 0; i < from_len; i += ENTRY_BYTES)
            qc_put_be64(staging + i, qc_be64(staging + i) & ~QC_ENTRY_COPIED);
        if (status == QC_OK)
            status = qc_raw_write(image, host_off + off, staging, (size_t)len);
        if (status != QC_OK)
            return status;
    }
    return QC_OK;
}

qc_status qc_job_free(struct qc_job *job, uint64_t host_off, uint64_t bytes)
{
    qc_status status = QC_OK;

    give_back(job);
    if (bytes > 0)
        status = qc_free_run(job->image, host_off >> job->image->top.header.cluster_bits,
                             qc_job_clusters(job, bytes));
    return status == QC_OK ? qc_settle(job->image) : status;
}

qc_status qc_job_begin(struct qc_job *job, struct qc_image *image)
{
    qc_status status = qc_begin_change(image, 0, QC_SECTOR_BYTES);

    *job = (struct qc_job){.image = image};
    if (status == QC_OK && qc_has_data_file(&image->top))
        status = qc_fail(&image->detail, QC_UNSUPPORTED,
                         "snapshots of an external data file are not supported");
    if (status == QC_OK)
        status = qc_believe_counts(image);
    if (status == QC_OK && QC_SEED(bulk_unsettled))
        return qc_flush(image);
    return status == QC_OK ? qc_settle(image) : status;
}

qc_status qc_job_end(struct qc_job *job, qc_status status)
{
    struct qc_image *image = job->image;

    /* Past the cache, and then it is empty: it may hold the header as it was. */
    if (status == QC_OK) {
        borrow(job);
        status = mark(job, false);
    }
    give_back(job);
    image->free_hint = 0;
    if (status != QC_OK && job->is_changing && image->readonly_reason.text[0] == '\0')
        qc_fail(&image->readonly_reason, status, "a change of snapshots broke off: read-only");
    return qc_note_damage(image, status);
}
