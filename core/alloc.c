/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * First fit from a hint upward, once around. A range of clusters that no refcount block counts yet
 * gets one as a step of its own, so that whoever takes clusters afterwards finds the counts' home
 * made. Invariant 4 is kept by qc_counts_find_free: what is in quarantine is not free.
 *
 * Rule R10: a new block lies in the range it counts itself. Where the refcount table must grow, the
 * new blocks and the new table lie together at the first range behind the old table's reach, and
 * all become visible by one write of the header.
 */
#include "alloc.h"

#include "bytes.h"
#include "commit.h"
#include "counts.h"
#include "guard.h"
#include "seeded.h"
#include "sure.h"
#include "table.h"

#define GROW_BYTES_MIN (1024u * 1024) /* a file is made longer in steps of this */
#define STEP_TRIES_MAX 4u

/* Clusters that are set aside for tables at a time: twice as many as before, up to both. */
#define FOR_TABLES_MIN       2u
#define FOR_TABLES_MAX       16u
#define FOR_TABLES_BYTES_MAX (1u << QC_CLUSTER_BITS_MAX) /* at least one of the largest */

/* Makes the disk long enough for clusters below end. */
static qc_status grow_to(struct qc_image *image, uint64_t end)
{
    struct qc_disk *disk = image->top.disk;
    uint64_t end_bytes = end << image->top.header.cluster_bits;
    uint64_t step = qc_min(GROW_BYTES_MIN, UINT64_MAX - end_bytes);

    if (end_bytes <= disk->size_bytes)
        return QC_OK;
    if (disk->ops->grow == NULL)
        return QC_NOSPACE;
    if (disk->ops->grow(disk, (end_bytes + step) & ~QC_U(image->top.header.cluster_bytes - 1)) ==
        QC_OK)
        return QC_OK;
    /* The last bytes of a full host: just what is needed. */
    return disk->ops->grow(disk, end_bytes) == QC_OK ? QC_OK : QC_NOSPACE;
}

static void take(struct qc_image *image, uint64_t cluster)
{
    uint64_t end_off = (cluster + 1) << image->top.header.cluster_bits;

    qc_count_take(image, cluster);
    qc_table_forget(image, cluster << image->top.header.cluster_bits);
    if (image->virgin_off < end_off)
        image->virgin_off = end_off;
}

/* Clusters that are free by their counts and tables all the same: the counts lie. */
static qc_status refuse_tables(struct qc_image *image, uint64_t first, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        bool is_table;
        qc_status status = qc_guard_check(image, first + i, &is_table);

        if (status == QC_OK && is_table)
            status = qc_fail(&image->detail, qc_marked(image), "free cluster %x is metadata",
                             (first + i) << image->top.header.cluster_bits);
        if (status != QC_OK)
            return status;
    }
    return qc_believe_counts(image);
}

static void add_block(struct qc_image *image, uint64_t block_index, uint64_t cluster)
{
    struct qc_record *root = qc_epoch_add(&image->epoch, QC_RECORD_ROOT, block_index);

    root->value = cluster << image->top.header.cluster_bits;
    root->flags = QC_RECORD_NEW;
    take(image, cluster);
    qc_guard_add_block(image, cluster);
    if (QC_SEED(block_uncounted)) {
        struct qc_record *count = qc_epoch_find(&image->epoch, QC_RECORD_COUNT, cluster);

        count->value = 0;
        count->flags = QC_RECORD_QUARANTINE;
    }
}

static uint64_t reftable_entries(const struct qc_image *image)
{
    uint32_t clusters = image->grown_reftable.clusters != 0 ? image->grown_reftable.clusters
                                                            : image->top.header.reftable_clusters;

    return (QC_U(clusters) << image->top.header.cluster_bits) / 8;
}

/*
 * The size of a grown refcount table and how many blocks count it and themselves, from block_index
 * on. False where the format's limit is reached.
 */
static bool plan_growth(const struct qc_image *image, uint64_t block_index, uint64_t *ret_clusters,
                        uint64_t *ret_blocks)
{
    uint64_t entries_per_cluster = image->top.header.cluster_bytes / 8;
    uint64_t clusters_max = QC_REFTABLE_BYTES_MAX >> image->top.header.cluster_bits;
    uint64_t old = reftable_entries(image) / entries_per_cluster;
    uint64_t clusters = qc_min(old + old / 2 + 1, clusters_max);
    /* Of what a block counts one cluster is its own. */
    uint64_t others = (QC_U(1) << qc_block_reach_bits(image)) - 1;
    uint64_t blocks = (clusters + others - 1) / others;

    *ret_clusters = clusters;
    *ret_blocks = blocks;
    return block_index + blocks <= clusters * entries_per_cluster;
}

/* Puts the new blocks and the table behind each other, and drops the old table. */
static QC_APART qc_status move_reftable(struct qc_image *image, uint64_t block_index,
                                        uint64_t blocks, uint64_t clusters)
{
    uint64_t first = block_index << qc_block_reach_bits(image);
    uint64_t old_first = image->top.header.reftable_off >> image->top.header.cluster_bits;
    uint64_t old_clusters = image->top.header.reftable_clusters, count;
    qc_status status;

    for (uint64_t i = 0; i < old_clusters; i++) {
        status = qc_count_prepare(image, old_first + i, &count);
        if (status == QC_OK && count == 0)
            status = qc_fail(&image->detail, QC_CORRUPT, "refcount out of range at %x",
                             (old_first + i) << image->top.header.cluster_bits);
        if (status != QC_OK)
            return status;
    }
    status = refuse_tables(image, first, blocks + clusters);
    if (status != QC_OK)
        return status;
    for (uint64_t i = 0; i < blocks; i++)
        add_block(image, block_index + i, first + i);
    for (uint64_t i = 0; i < clusters; i++)
        take(image, first + blocks + i);
    for (uint64_t i = 0; i < old_clusters; i++)
        qc_count_drop(image, old_first + i);
    image->grown_reftable.host_off = (first + blocks) << image->top.header.cluster_bits;
    image->grown_reftable.clusters = (uint32_t)clusters;
    image->grown_reftable.is_new = true;
    return QC_OK;
}

static QC_APART qc_status grow_reftable(struct qc_image *image, uint64_t block_index)
{
    uint64_t first = block_index << qc_block_reach_bits(image);
    uint64_t clusters, blocks;
    qc_status status;

    if (!plan_growth(image, block_index, &clusters, &blocks))
        return qc_fail(&image->detail, QC_NOSPACE, "no space: the refcount table is full");
    status = grow_to(image, first + blocks + clusters);
    if (status == QC_OK)
        status = qc_epoch_reserve(
            image, (uint32_t)(2 * blocks + clusters + image->top.header.reftable_clusters));
    return status == QC_OK ? move_reftable(image, block_index, blocks, clusters) : status;
}

/* Makes a home for the counts of a range that has none; cluster is the first wanted of it. */
static qc_status provide_block(struct qc_image *image, uint64_t block_index, uint64_t cluster)
{
    qc_status status;

    if (block_index >= reftable_entries(image)) {
        /* One growth an epoch: the second would be a copy of a table that is not there yet. */
        status = image->grown_reftable.clusters != 0 ? qc_commit(image) : QC_OK;
        return status == QC_OK ? grow_reftable(image, block_index) : status;
    }
    status = grow_to(image, cluster + 1);
    if (status == QC_OK)
        status = qc_epoch_reserve(image, 2);
    if (status == QC_OK)
        status = refuse_tables(image, cluster, 1);
    if (status == QC_OK)
        add_block(image, block_index, cluster);
    return status;
}

/*
 * Moves the hint to a free cluster in [from, end) that a block counts and the disk holds; makes the
 * block and the room where they are missing. QC_NOSPACE where there is none.
 */
static qc_status find_free(struct qc_image *image, uint64_t from, uint64_t end)
{
    unsigned reach_bits = qc_block_reach_bits(image);

    for (uint64_t cluster = from; cluster < end;) {
        uint64_t block_index = cluster >> reach_bits;
        uint64_t range_end = qc_min(end, (block_index + 1) << reach_bits);
        uint64_t block_off, first, count;
        qc_status status = qc_block_find(image, block_index, &block_off);

        if (status == QC_OK && block_off == 0) {
            status = provide_block(image, block_index, cluster);
            if (status == QC_OK)
                continue; /* the same range, which now has its block */
        }
        if (status == QC_OK)
            status = qc_counts_find_free(image, cluster, range_end, 1, &first, &count);
        if (status == QC_OK && count > 0) {
            image->free_hint = first;
            return grow_to(image, first + 1);
        }
        if (status != QC_OK)
            return status;
        cluster = range_end;
    }
    return QC_NOSPACE;
}

static uint64_t clusters_end(const struct qc_image *image)
{
    /* A disk that does not grow has only the clusters that lie in it whole. */
    if (image->top.disk->ops->grow == NULL)
        return image->top.disk->size_bytes >> image->top.header.cluster_bits;
    return QC_HOST_BYTES_MAX >> image->top.header.cluster_bits;
}

static qc_status make_ready(struct qc_image *image)
{
    uint64_t hint = image->free_hint;
    qc_status status = find_free(image, hint, clusters_end(image));

    /* Below the hint there may be some whose count a commit has lowered meanwhile. */
    if (status == QC_NOSPACE)
        status = find_free(
            image, 0, qc_min(hint, image->top.disk->size_bytes >> image->top.header.cluster_bits));
    return status;
}

qc_status qc_step_begin(struct qc_image *image, uint32_t records_count, bool wants_cluster)
{
    for (unsigned i = 0; i < STEP_TRIES_MAX; i++) {
        qc_status status = wants_cluster ? make_ready(image) : QC_OK;

        if (status == QC_NOSPACE && image->quarantine_count > 0)
            status = qc_commit(image); /* and look again at what that released */
        else if (status == QC_OK && qc_epoch_has_room(&image->epoch, records_count))
            return QC_OK;
        else if (status == QC_OK)
            status = qc_epoch_reserve(image, records_count);
        if (status == QC_NOSPACE)
            return qc_fail(&image->detail, status, "no space");
        if (status != QC_OK)
            return status;
    }
    return qc_sure(image, false, "a step finds no room");
}

qc_status qc_alloc_take(struct qc_image *image, uint64_t max_count, uint64_t *ret_first,
                        uint64_t *ret_count, bool *ret_is_clean)
{
    unsigned cluster_bits = image->top.header.cluster_bits;
    uint64_t hint = image->free_hint;
    uint64_t range_end = ((hint >> qc_block_reach_bits(image)) + 1) << qc_block_reach_bits(image);
    uint64_t end = qc_min(range_end, image->top.disk->size_bytes >> cluster_bits);
    uint64_t first, count;
    qc_status status =
        qc_counts_find_free(image, hint, qc_min(end, hint + max_count), max_count, &first, &count);

    if (status == QC_OK)
        status = qc_sure(image, count > 0, "what was free is not");
    if (status != QC_OK)
        return status;
    if (QC_SEED(first_cluster)) {
        *ret_first = 0;
        *ret_count = 1;
        *ret_is_clean = false;
        take(image, 0);
        return QC_OK;
    }
    status = refuse_tables(image, first, count);
    if (status != QC_OK)
        return status;
    *ret_is_clean = image->virgin_off <= first << cluster_bits;
    for (uint64_t i = 0; i < count; i++)
        take(image, first + i);
    image->free_hint = first + count;
    *ret_first = first;
    *ret_count = count;
    return QC_OK;
}

/* Sets free clusters aside, the first that qc_step_begin found among them. */
static qc_status set_aside(struct qc_image *image)
{
    uint64_t hint = image->free_hint;
    uint64_t range_end = ((hint >> qc_block_reach_bits(image)) + 1) << qc_block_reach_bits(image);
    uint64_t max = qc_min(FOR_TABLES_MAX, FOR_TABLES_BYTES_MAX >> image->top.header.cluster_bits);
    uint64_t wanted = image->for_tables.count == 0 ? FOR_TABLES_MIN : 2 * image->for_tables.count;
    uint64_t first, count;
    qc_status status;

    wanted = qc_min(wanted, max);
    range_end = qc_min(range_end, clusters_end(image));
    status =
        qc_counts_find_free(image, hint, qc_min(range_end, hint + wanted), wanted, &first, &count);
    if (status == QC_OK)
        status = qc_sure(image, count > 0, "what was free is not");
    if (status != QC_OK)
        return status;
    image->for_tables.next = first;
    image->for_tables.end = image->free_hint = first + count;
    image->for_tables.count = wanted;
    return QC_OK;
}

/* Whether what was set aside can be used still: nothing but this remembers it. */
static qc_status find_set_aside(struct qc_image *image, uint64_t *ret_count)
{
    uint64_t next = image->for_tables.next, block_off;
    qc_status status = QC_OK;

    *ret_count = 0;
    if (next == image->for_tables.end)
        return QC_OK;
    status = qc_block_find(image, next >> qc_block_reach_bits(image), &block_off);
    if (status == QC_OK && block_off != 0 && grow_to(image, next + 1) == QC_OK)
        status = qc_counts_find_free(image, next, next + 1, 1, &next, ret_count);
    return status;
}

qc_status qc_alloc_table(struct qc_image *image, uint64_t *ret_cluster)
{
    uint64_t count;
    qc_status status = find_set_aside(image, &count);

    if (status == QC_OK && count == 0)
        status = set_aside(image);
    if (status == QC_OK)
        status = refuse_tables(image, image->for_tables.next, 1);
    if (status != QC_OK)
        return status;
    *ret_cluster = image->for_tables.next++;
    take(image, *ret_cluster);
    return QC_OK;
}

/*
 * Makes the block for the range that begins at cluster, up to which a run has come. At the range's
 * start it would end every run there: it takes the run's own first cluster, which a block that is
 * durably named counts (rule R10). A growing refcount table has its place behind the run.
 */
static qc_status provide_block_for_run(struct qc_image *image, uint64_t cluster, uint64_t *first,
                                       uint64_t *run)
{
    unsigned reach_bits = qc_block_reach_bits(image);
    qc_status status = QC_OK;

    if (*run < 2 || cluster >> reach_bits >= reftable_entries(image))
        return provide_block(image, cluster >> reach_bits, cluster);
    if (qc_epoch_find(&image->epoch, QC_RECORD_ROOT, *first >> reach_bits) != NULL)
        status = qc_commit(image);
    if (status == QC_OK)
        status = provide_block(image, cluster >> reach_bits, *first);
    if (status == QC_OK) {
        ++*first;
        --*run;
    }
    return status;
}

/* Finds count free clusters one behind the other; makes the blocks that count them. */
static qc_status find_run(struct qc_image *image, uint64_t count, uint64_t *ret_first)
{
    unsigned reach_bits = qc_block_reach_bits(image);
    uint64_t end = clusters_end(image), first = 0, run = 0;

    for (uint64_t cluster = 0; cluster < end && run < count;) {
        uint64_t range_end = qc_min(end, ((cluster >> reach_bits) + 1) << reach_bits);
        uint64_t block_off, found, found_count;
        qc_status status = qc_block_find(image, cluster >> reach_bits, &block_off);

        if (status == QC_OK && block_off == 0) {
            status = provide_block_for_run(image, cluster, &first, &run);
            if (status == QC_OK)
                continue; /* the same range, which now has its block */
        }
        if (status == QC_OK)
            status =
                qc_counts_find_free(image, cluster, range_end, count - run, &found, &found_count);
        if (status != QC_OK)
            return status;
        if (found_count == 0) {
            run = 0;
            cluster = range_end;
            continue;
        }
        if (run == 0 || found != cluster) {
            first = found;
            run = 0;
        }
        run += found_count;
        cluster = found + found_count;
    }
    *ret_first = first;
    return run == count ? grow_to(image, first + count) : QC_NOSPACE;
}

qc_status qc_alloc_run(struct qc_image *image, uint64_t count, uint64_t *ret_first)
{
    uint64_t first;
    qc_status status = find_run(image, count, &first);

    if (status == QC_NOSPACE)
        return qc_fail(&image->detail, status, "no space");
    if (status == QC_OK)
        status = refuse_tables(image, first, count);
    for (uint64_t i = 0; status == QC_OK && i < count; i++) {
        status = qc_epoch_reserve(image, 1);
        if (status == QC_OK)
            take(image, first + i);
    }
    if (status == QC_OK)
        *ret_first = first;
    return status;
}

qc_status qc_free_run(struct qc_image *image, uint64_t first, uint64_t count)
{
    qc_status status = QC_OK;

    for (uint64_t i = 0; status == QC_OK && i < count; i++) {
        uint64_t old_count;

        status = qc_epoch_reserve(image, 1);
        if (status == QC_OK)
            status = qc_count_prepare(image, first + i, &old_count);
        if (status == QC_OK && old_count == 0)
            status = qc_fail(&image->detail, QC_CORRUPT, "refcount out of range at %x",
                             (first + i) << image->top.header.cluster_bits);
        if (status == QC_OK)
            qc_count_drop(image, first + i);
    }
    return status;
}
