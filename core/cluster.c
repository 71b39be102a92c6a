/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* See cluster.h. */
#include "cluster.h"

#include "alloc.h"
#include "bytes.h"
#include "counts.h"
#include "guard.h"
#include "map.h"
#include "seeded.h"
#include "table.h"

/* *ret_l2_off is 0 where the table is the epoch's own. */
static qc_status l2_is_ours(struct qc_image *image, uint64_t guest_off, bool *ret_is_ours,
                            uint64_t *ret_l2_off)
{
    uint64_t l2_off, count;
    bool is_block = false;
    qc_status status;

    *ret_is_ours = true;
    *ret_l2_off = 0;
    if (qc_epoch_find(&image->epoch, QC_RECORD_L1, qc_l1_index(image, guest_off)) != NULL)
        return QC_OK;
    status = qc_map_durable_l2(image, 0, guest_off, &l2_off);
    if (status == QC_OK && l2_off != 0)
        status = qc_guard_check_l2(image, l2_off >> image->top.header.cluster_bits, &is_block);
    if (status == QC_OK && is_block)
        return qc_fail(&image->detail, qc_marked(image), "cluster %x is metadata", l2_off);
    if (status == QC_OK && l2_off != 0)
        status = qc_count_get(image, l2_off >> image->top.header.cluster_bits, &count);
    if (status != QC_OK)
        return status;
    if (l2_off != 0 && count == 0)
        return qc_fail(&image->detail, QC_CORRUPT, "refcount out of range at %x", l2_off);
    *ret_l2_off = l2_off;
    *ret_is_ours = l2_off != 0 && (count == 1 || QC_SEED(no_l2_cow));
    return QC_OK;
}

/* What is written must lie in the disk whole; a read may find less. */
static qc_status check_inside(struct qc_image *image, uint64_t guest_off,
                              const struct qc_cluster *cluster)
{
    uint64_t disk_bytes = image->top.disk->size_bytes;

    if (!cluster->has_host || qc_has_data_file(&image->top) ||
        qc_is_inside(cluster->host_off, image->top.header.cluster_bytes, disk_bytes))
        return QC_OK;
    if (cluster->host_off < disk_bytes)
        return qc_fail(&image->detail, QC_UNSUPPORTED, "cluster %x ends behind the disk",
                       cluster->host_off);
    return qc_fail(&image->detail, QC_CORRUPT, "bad L2 entry %x at guest %x", cluster->entry.word,
                   guest_off);
}

/* Which host clusters an entry refers to. */
static void set_held(const struct qc_image *image, const struct qc_extent *extent,
                     struct qc_cluster *cluster)
{
    unsigned cluster_bits = image->top.header.cluster_bits;
    uint64_t last;

    if (extent->kind == QC_EXTENT_COMPRESSED) {
        cluster->held_first = extent->host_off >> cluster_bits;
        last = (extent->host_off + extent->packed_bytes - 1) >> cluster_bits;
        cluster->held_count = (uint8_t)(last - cluster->held_first + 1);
        if (QC_SEED(packed_one_count))
            cluster->held_count = 1;
        if (QC_SEED(packed_in_place)) {
            cluster->has_host = true;
            cluster->host_off = cluster->held_first << cluster_bits;
        }
        return;
    }
    cluster->host_off = extent->host_off;
    cluster->has_host = extent->kind == QC_EXTENT_DATA || extent->host_off != 0;
    /* What lies in a data file is not counted. */
    if (cluster->has_host && !qc_has_data_file(&image->top)) {
        cluster->held_first = cluster->host_off >> cluster_bits;
        cluster->held_count = 1;
    }
}

/* The count of one host cluster that an entry holds: what contradicts the entry is damage. */
static qc_status look_at_held(struct qc_image *image, uint64_t guest_off, uint64_t host_cluster,
                              const struct qc_cluster *cluster, uint64_t *ret_count)
{
    uint64_t host_off = host_cluster << image->top.header.cluster_bits;
    bool is_compressed = cluster->kind == QC_EXTENT_COMPRESSED;
    bool is_table;
    qc_status status = qc_guard_check(image, host_cluster, &is_table);

    if (status == QC_OK && is_table)
        return qc_fail(&image->detail, qc_marked(image), "cluster %x is metadata", host_off);
    if (status == QC_OK)
        status = qc_count_get(image, host_cluster, ret_count);
    if (status != QC_OK)
        return status;
    if (is_compressed && *ret_count == 0)
        return qc_fail(&image->detail, QC_CORRUPT, "refcount out of range at %x", host_off);
    if (!is_compressed &&
        (*ret_count == 0 || (*ret_count > 1 && (cluster->entry.word & QC_ENTRY_COPIED))))
        return qc_fail(&image->detail, QC_CORRUPT, "COPIED flag wrong at guest %x", guest_off);
    return QC_OK;
}

/*
 * What is written in place must belong to one guest cluster alone. The count says so; that it does
 * not lie is seen as far as the entry's neighbours tell, which are in memory anyway.
 */
static qc_status look_for_twin(struct qc_image *image, uint64_t guest_off, uint64_t l2_off,
                               const struct qc_cluster *cluster)
{
    const struct qc_header *header = &image->top.header;
    uint64_t key = guest_off >> header->cluster_bits << qc_l2_words_bits(header);
    uint32_t names_count;
    qc_status status;

    if (qc_epoch_find(&image->epoch, QC_RECORD_ENTRY, key) != NULL || QC_SEED(no_guard))
        return QC_OK;
    status = qc_guard_count_names(image, l2_off, key & (header->cluster_bytes / 8 - 1),
                                  cluster->host_off, &names_count);
    if (status == QC_OK && names_count > 1)
        return qc_fail(&image->detail, QC_CORRUPT, "cluster %x is named twice", cluster->host_off);
    return status;
}

qc_status qc_cluster_look(struct qc_image *image, uint64_t guest_off,
                          struct qc_cluster *ret_cluster)
{
    struct qc_cluster cluster = {0};
    struct qc_extent extent;
    uint64_t count = 0, l2_off = 0;
    bool is_l2_ours = false, is_dropped;
    qc_status status = qc_map_entry(image, guest_off, &cluster.entry, &extent);

    if (status != QC_OK)
        return status;
    cluster.kind = extent.kind;
    set_held(image, &extent, &cluster);
    status = check_inside(image, guest_off, &cluster);
    for (uint32_t i = 0; status == QC_OK && i < cluster.held_count; i++)
        status = look_at_held(image, guest_off, cluster.held_first + i, &cluster, &count);
    if (status == QC_OK && cluster.has_host)
        status = l2_is_ours(image, guest_off, &is_l2_ours, &l2_off);
    is_dropped = cluster.held_count > 0 && qc_count_is_dropped(image, cluster.held_first);
    if (status == QC_OK && is_l2_ours && l2_off != 0 && count == 1 && !is_dropped)
        status = look_for_twin(image, guest_off, l2_off, &cluster);
    if (status == QC_OK)
        status = qc_believe_counts(image);
    if (status != QC_OK)
        return status;
    cluster.is_ours = cluster.has_host && is_l2_ours && !is_dropped &&
                      (count == 1 || qc_has_data_file(&image->top) || QC_SEED(no_cow));
    *ret_cluster = cluster;
    return QC_OK;
}

qc_status qc_cluster_prepare(struct qc_image *image, const struct qc_cluster *cluster)
{
    uint64_t count;
    qc_status status = QC_OK;

    for (uint32_t i = 0; status == QC_OK && i < cluster->held_count; i++)
        status = qc_count_prepare(image, cluster->held_first + i, &count);
    return status;
}

void qc_cluster_drop(struct qc_image *image, const struct qc_cluster *cluster)
{
    for (uint32_t i = 0; i < cluster->held_count; i++)
        qc_count_drop(image, cluster->held_first + i);
}

qc_status qc_own_l2(struct qc_image *image, uint64_t guest_off)
{
    struct qc_record *l1;
    uint64_t old_off, count, first;
    bool is_ours;
    uint64_t l2_off;
    qc_status status = l2_is_ours(image, guest_off, &is_ours, &l2_off);

    if (status != QC_OK || is_ours)
        return status;
    status = qc_step_begin(image, 3, true);
    if (status == QC_OK)
        status = qc_map_durable_l2(image, 0, guest_off, &old_off);
    if (status == QC_OK && old_off != 0)
        status = qc_count_prepare(image, old_off >> image->top.header.cluster_bits, &count);
    if (status == QC_OK)
        status = qc_alloc_table(image, &first);
    if (status != QC_OK)
        return status;
    l1 = qc_epoch_add(&image->epoch, QC_RECORD_L1, qc_l1_index(image, guest_off));
    l1->value = first << image->top.header.cluster_bits;
    l1->place = old_off;
    l1->flags = QC_RECORD_NEW;
    qc_guard_add_l2(image, first);
    if (QC_SEED(l2_uncounted))
        qc_epoch_find(&image->epoch, QC_RECORD_COUNT, first)->value = 0;
    if (old_off != 0)
        qc_count_drop(image, old_off >> image->top.header.cluster_bits);
    return QC_OK;
}

struct qc_record *qc_set_entry(struct qc_image *image, uint64_t guest_off,
                               const struct qc_l2_entry *entry)
{
    const struct qc_header *header = &image->top.header;
    uint64_t key = guest_off >> header->cluster_bits << qc_l2_words_bits(header);
    struct qc_record *record;

    if (qc_has_subclusters(header)) {
        record = qc_epoch_add(&image->epoch, QC_RECORD_ENTRY, key + 1);
        record->value = entry->bits;
        record->flags = 0;
    }
    record = qc_epoch_add(&image->epoch, QC_RECORD_ENTRY, key);
    record->value = entry->word;
    record->flags = QC_SEED(cancel_equal) && entry->word == 0 ? QC_RECORD_SEEDED : 0;
    record->u.written.from = record->u.written.to = 0;
    return record;
}
