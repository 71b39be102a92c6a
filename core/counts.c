/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Counts as records over counts in the cache.
 *
 * A record that was only prepared changes nothing: its `now` is the durable count, and the commit
 * writes it only once a reference was added or a lowered count is due.
 */
#include "counts.h"

#include "bytes.h"
#include "seeded.h"
#include "sure.h"
#include "table.h"

#define ROOT_RESERVED_MASK UINT64_C(0x1ff)

unsigned qc_block_reach_bits(const struct qc_image *image)
{
    return image->top.header.cluster_bits + 3 - image->top.header.refcount_order;
}

uint64_t qc_count_load(const uint8_t *bytes, uint64_t index, unsigned refcount_order)
{
    uint64_t count = 0;

    if (refcount_order < 3) {
        unsigned shift = (unsigned)(index << refcount_order) & 7;

        return (bytes[(index << refcount_order) >> 3] >> shift) &
               ((1u << (1u << refcount_order)) - 1);
    }
    for (unsigned i = 0; i < 1u << (refcount_order - 3); i++)
        count = count << 8 | bytes[(index << (refcount_order - 3)) + i];
    return count;
}

void qc_count_store(uint8_t *bytes, uint64_t index, unsigned refcount_order, uint64_t count)
{
    if (refcount_order < 3) {
        unsigned shift = (unsigned)(index << refcount_order) & 7;
        unsigned mask = ((1u << (1u << refcount_order)) - 1) << shift;
        uint8_t *byte = &bytes[(index << refcount_order) >> 3];

        *byte = (uint8_t)((*byte & ~mask) | ((unsigned)count << shift & mask));
        return;
    }
    for (unsigned i = 1u << (refcount_order - 3); i > 0; i--, count >>= 8)
        bytes[(index << (refcount_order - 3)) + i - 1] = (uint8_t)count;
}

qc_status qc_block_find(struct qc_image *image, uint64_t block_index, uint64_t *ret_block_off)
{
    const struct qc_header *header = &image->top.header;
    const struct qc_record *root = qc_epoch_find(&image->epoch, QC_RECORD_ROOT, block_index);
    uint64_t table_bytes = QC_U(header->reftable_clusters) << header->cluster_bits;
    const uint8_t *entries;
    uint32_t entries_count;
    uint64_t block_off;
    qc_status status;

    if (root != NULL) {
        *ret_block_off = root->value;
        return QC_OK;
    }
    *ret_block_off = 0;
    if (block_index >= table_bytes / 8)
        return QC_OK;
    status = qc_table_entries(image, 0, header->reftable_off, table_bytes, block_index, QC_HEAT_TOP,
                              &entries, &entries_count);
    if (status != QC_OK)
        return status;
    block_off = qc_be64(entries);
    if (!qc_is_aligned(block_off & ~ROOT_RESERVED_MASK, header->cluster_bytes) ||
        (block_off != 0 && qc_is_header_structure(image, 0, block_off >> header->cluster_bits)))
        return qc_fail(&image->detail, qc_marked(image), "bad refcount block at %x", block_off);
    if ((block_off & ROOT_RESERVED_MASK) != 0 ||
        !qc_is_inside(block_off, header->cluster_bytes, image->top.disk->size_bytes))
        return qc_fail(&image->detail, QC_CORRUPT, "bad refcount block at %x", block_off);
    *ret_block_off = block_off;
    return QC_OK;
}

/*
 * The durable counts of the slice that counts this cluster: *ret_index is the cluster's number in
 * it. *ret_slice is NULL where every count is 0, because no block exists or it is new.
 */
static qc_status durable_slice(struct qc_image *image, uint64_t cluster, const uint8_t **ret_slice,
                               uint64_t *ret_index, uint64_t *ret_counts_count)
{
    unsigned order = image->top.header.refcount_order;
    uint64_t block_index = cluster >> qc_block_reach_bits(image);
    uint64_t index = cluster & ((QC_U(1) << qc_block_reach_bits(image)) - 1);
    uint64_t slice_bytes = qc_min(QC_PAGE_BYTES, image->top.header.cluster_bytes);
    uint64_t counts_count = (slice_bytes << 3) >> order;
    const struct qc_record *root = qc_epoch_find(&image->epoch, QC_RECORD_ROOT, block_index);
    uint64_t block_off;
    qc_status status = qc_block_find(image, block_index, &block_off);

    if (status != QC_OK)
        return status;
    *ret_slice = NULL;
    *ret_index = index & (counts_count - 1);
    *ret_counts_count = counts_count;
    if (block_off == 0 || (root != NULL && (root->flags & QC_RECORD_NEW)))
        return QC_OK;
    return qc_table_slice(image, 0, block_off, image->top.header.cluster_bytes,
                          (index << order >> 3) & ~(slice_bytes - 1), QC_HEAT_PASSING, ret_slice);
}

static uint64_t true_count(const struct qc_record *record)
{
    return record->value - record->u.lost;
}

qc_status qc_count_get(struct qc_image *image, uint64_t cluster, uint64_t *ret_count)
{
    const struct qc_record *record = qc_epoch_find(&image->epoch, QC_RECORD_COUNT, cluster);
    const uint8_t *slice;
    uint64_t index, counts_count;
    qc_status status;

    if (record != NULL) {
        *ret_count = true_count(record);
        return QC_OK;
    }
    status = durable_slice(image, cluster, &slice, &index, &counts_count);
    if (status != QC_OK)
        return status;
    *ret_count = slice == NULL ? 0 : qc_count_load(slice, index, image->top.header.refcount_order);
    return QC_OK;
}

bool qc_count_is_dropped(const struct qc_image *image, uint64_t cluster)
{
    const struct qc_record *record = qc_epoch_find(&image->epoch, QC_RECORD_COUNT, cluster);

    return record != NULL && record->u.lost > 0;
}

qc_status qc_count_prepare(struct qc_image *image, uint64_t cluster, uint64_t *ret_count)
{
    qc_status status = qc_count_get(image, cluster, ret_count);

    if (status == QC_OK && qc_epoch_find(&image->epoch, QC_RECORD_COUNT, cluster) == NULL)
        qc_epoch_add(&image->epoch, QC_RECORD_COUNT, cluster)->value = *ret_count;
    return status;
}

void qc_count_take(struct qc_image *image, uint64_t cluster)
{
    struct qc_record *record = qc_epoch_add(&image->epoch, QC_RECORD_COUNT, cluster);

    if (QC_SEED(drop_issued) && (record->flags & QC_RECORD_WRITE)) {
        record->value++;
        record->flags = QC_RECORD_RAISED;
        return;
    }
    record->value++;
    record->flags |= QC_RECORD_WRITE | QC_RECORD_RAISED;
    image->is_raised = true;
}

void qc_count_drop(struct qc_image *image, uint64_t cluster)
{
    struct qc_record *record = qc_epoch_find(&image->epoch, QC_RECORD_COUNT, cluster);

    if (QC_HAS_SURES && (record == NULL || record->u.lost >= record->value)) {
        image->epoch.fault = "a reference was dropped that was not counted";
        return;
    }
    record->u.lost++;
    if (QC_SEED(early_drop))
        record->flags |= QC_RECORD_WRITE;
    if (true_count(record) > 0)
        return;
    if (QC_SEED(early_trim) && image->top.disk->ops->trim != NULL)
        image->top.disk->ops->trim(image->top.disk, cluster << image->top.header.cluster_bits,
                                   image->top.header.cluster_bytes);
    if (!QC_SEED(no_quarantine))
        record->flags |= QC_RECORD_QUARANTINE;
    image->quarantine_count++;
    qc_table_forget(image, cluster << image->top.header.cluster_bits);
}

qc_status qc_counts_find_free(struct qc_image *image, uint64_t first, uint64_t end,
                              uint64_t max_count, uint64_t *ret_first, uint64_t *ret_count)
{
    const uint8_t *slice = NULL;
    uint64_t index = 0, counts_count = 0, run = 0;

    for (uint64_t cluster = first; cluster < end && run < max_count; cluster++, index++) {
        const struct qc_record *record = qc_epoch_find(&image->epoch, QC_RECORD_COUNT, cluster);
        bool is_free;

        if (index == counts_count) {
            qc_status status = durable_slice(image, cluster, &slice, &index, &counts_count);

            if (status != QC_OK)
                return status;
        }
        if (record != NULL)
            is_free = true_count(record) == 0 && !(record->flags & QC_RECORD_QUARANTINE);
        else
            is_free =
                slice == NULL || qc_count_load(slice, index, image->top.header.refcount_order) == 0;
        if (is_free && run++ == 0)
            *ret_first = cluster;
        if (!is_free && run > 0)
            break;
    }
    *ret_count = run;
    return QC_OK;
}
