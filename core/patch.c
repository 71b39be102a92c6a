/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See patch.h. Invariant 2 of ordering inside a table: none is needed, because entries never
 * straddle a block and a torn write leaves each block old or new.
 */
#include "patch.h"

#include "blank.h"
#include "bytes.h"
#include "counts.h"
#include "map.h"
#include "seeded.h"
#include "sure.h"
#include "table.h"
#include "window.h"

/* Blocks of one table this close together are written with what lies between them. */
#define GAP_BYTES_MAX 3584u

uint64_t qc_reftable_off(const struct qc_image *image)
{
    return image->grown_reftable.clusters != 0 ? image->grown_reftable.host_off
                                               : image->top.header.reftable_off;
}

static uint64_t place_of(const struct qc_image *image, const struct qc_record *record)
{
    /* An L1 record keeps its table's source in place; its own place follows from its key. */
    if (qc_record_kind(record) == QC_RECORD_L1)
        return image->top.header.l1_off + qc_record_key(record) * 8;
    return record->place;
}

/* The number of the first record of this kind with a place not below, in the sorted epoch. */
static uint32_t lower_bound(const struct qc_image *image, enum qc_record_kind kind, uint64_t place)
{
    uint32_t low = 0, high = image->epoch.records_count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const struct qc_record *record = qc_epoch_at(&image->epoch, middle);
        enum qc_record_kind middle_kind = qc_record_kind(record);

        if (middle_kind < kind || (middle_kind == kind && place_of(image, record) < place))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Puts one record's value into the staging buffer, which stands for the disk from window_off on. */
static void apply(struct qc_image *image, const struct qc_record *record, uint64_t window_off)
{
    uint8_t *bytes = image->cache->staging;
    unsigned order = image->top.header.refcount_order;
    uint64_t block_counts = QC_U(1) << qc_block_reach_bits(image);
    uint64_t index = qc_record_key(record) & (block_counts - 1);
    uint64_t place = place_of(image, record);

    switch (qc_record_kind(record)) {
    case QC_RECORD_COUNT:
        /* Count the counts from the window's start on: it is a multiple of whole bytes. */
        index -= (window_off - (place - (index << order >> 3))) << 3 >> order;
        if (QC_SEED(early_drop) || (QC_SEED(net_count) && (record->flags & QC_RECORD_RAISED)))
            qc_count_store(bytes, index, order, record->value - record->u.lost);
        else
            qc_count_store(bytes, index, order, record->value);
        break;
    case QC_RECORD_L1:
        qc_put_be64(bytes + (place - window_off), record->value | QC_ENTRY_COPIED);
        break;
    case QC_RECORD_ROOT:
    case QC_RECORD_ENTRY:
        qc_put_be64(bytes + (place - window_off), record->value);
        break;
    }
}

/* Whether a record goes into a table that exists, and is due. */
static bool is_due(const struct qc_image *image, const struct qc_record *record)
{
    const struct qc_record *root;

    switch (qc_record_kind(record)) {
    case QC_RECORD_COUNT:
        root = qc_epoch_find(&image->epoch, QC_RECORD_ROOT,
                             qc_record_key(record) >> qc_block_reach_bits(image));
        return (record->flags & QC_RECORD_WRITE) &&
               (root == NULL || !(root->flags & QC_RECORD_NEW));
    case QC_RECORD_ENTRY:
        return !(record->flags & (QC_RECORD_IN_NEW | QC_RECORD_SEEDED));
    default:
        return true;
    }
}

/* The table in which a record's place lies. */
static void table_of(const struct qc_image *image, const struct qc_record *record,
                     struct qc_window *ret_window)
{
    const struct qc_header *header = &image->top.header;
    uint32_t grown = image->grown_reftable.clusters;

    switch (qc_record_kind(record)) {
    case QC_RECORD_L1:
        ret_window->table_off = header->l1_off;
        ret_window->table_bytes = QC_U(header->l1_entries) * 8;
        break;
    case QC_RECORD_ROOT:
        ret_window->table_off = qc_reftable_off(image);
        ret_window->table_bytes = QC_U(grown != 0 ? grown : header->reftable_clusters)
                                  << header->cluster_bits;
        break;
    default:
        ret_window->table_off = record->place & ~QC_U(header->cluster_bytes - 1);
        ret_window->table_bytes = header->cluster_bytes;
        break;
    }
}

qc_status qc_patch_tables(struct qc_image *image, enum qc_record_kind kind)
{
    uint64_t block_bytes = image->top.disk->block_bytes;
    uint32_t end = lower_bound(image, (enum qc_record_kind)(kind + 1), 0);

    for (uint32_t i = lower_bound(image, kind, 0), next; i < end; i = next) {
        const struct qc_record *record = qc_epoch_at(&image->epoch, i);
        struct qc_window window;
        uint64_t window_end;
        qc_status status;

        next = i + 1;
        if (!is_due(image, record))
            continue;
        table_of(image, record, &window);
        window.host_off = place_of(image, record) & ~(block_bytes - 1);
        window_end = window.host_off + block_bytes;
        for (; next < end; next++) {
            const struct qc_record *other = qc_epoch_at(&image->epoch, next);
            uint64_t block = place_of(image, other) & ~(block_bytes - 1);

            if (!is_due(image, other))
                continue;
            if (block > window_end + GAP_BYTES_MAX ||
                block + block_bytes - window.host_off > image->cache->staging_bytes ||
                block >= window.table_off + window.table_bytes)
                break;
            window_end = block + block_bytes;
        }
        window.len = (uint32_t)(window_end - window.host_off);
        status = qc_window_load(image, &window);
        if (status != QC_OK)
            return status;
        for (uint32_t k = i; k < next; k++) {
            record = qc_epoch_at(&image->epoch, k);
            if (!is_due(image, record))
                continue;
            apply(image, record, window.host_off);
            qc_blank_written(image, place_of(image, record));
        }
        status = qc_window_store(image, &window);
        if (status != QC_OK)
            return status;
    }
    return QC_OK;
}

/* Puts the records of a kind that lie in len bytes of the disk into the staging buffer. */
static void apply_all(struct qc_image *image, enum qc_record_kind kind, uint64_t host_off,
                      uint64_t len)
{
    for (uint32_t i = lower_bound(image, kind, host_off); i < image->epoch.records_count; i++) {
        const struct qc_record *record = qc_epoch_at(&image->epoch, i);

        if (qc_record_kind(record) != kind || record->place >= host_off + len)
            break;
        apply(image, record, host_off);
    }
}

/* Fills len bytes of the staging buffer: from a disk's place as far as base_len, then zeros. */
static qc_status fill(struct qc_image *image, uint8_t *bytes, uint64_t base_off, uint64_t base_len,
                      uint64_t len)
{
    qc_status status = QC_OK;

    if (base_len > 0)
        status = image->top.disk->ops->read(image->top.disk, base_off, bytes, base_len);
    if (status != QC_OK)
        return qc_fail(&image->detail, status, "table at %x cannot be read", base_off);
    __builtin_memset(bytes + base_len, 0, len - base_len);
    return QC_OK;
}

qc_status qc_patch_new_table(struct qc_image *image, enum qc_record_kind kind, uint64_t table_off,
                             uint64_t table_bytes, uint64_t base_off, uint64_t base_bytes)
{
    struct qc_window window = {.table_off = table_off, .table_bytes = table_bytes};

    for (uint64_t off = 0; off < table_bytes; off += window.len) {
        uint64_t base_len;
        qc_status status;

        window.host_off = table_off + off;
        window.len = (uint32_t)qc_min(image->cache->staging_bytes, table_bytes - off);
        base_len = off < base_bytes ? qc_min(window.len, base_bytes - off) : 0;
        status = fill(image, image->cache->staging, base_off + off, base_len, window.len);
        if (status != QC_OK)
            return status;
        apply_all(image, kind, window.host_off, window.len);
        status = qc_window_store(image, &window);
        if (status != QC_OK)
            return status;
    }
    return QC_OK;
}

/* Writes the tables of the L1 records from number first to end - 1, which lie side by side. */
static qc_status write_side_by_side(struct qc_image *image, uint32_t first, uint32_t end)
{
    uint64_t table_bytes = image->top.header.cluster_bytes;
    uint64_t host_off = qc_epoch_at(&image->epoch, first)->value;
    uint64_t len = (end - first) * table_bytes;
    qc_status status = QC_OK;

    if (len > image->cache->staging_bytes)
        qc_cache_reset(image->cache);
    for (uint32_t i = first; status == QC_OK && i < end; i++) {
        const struct qc_record *l1 = qc_epoch_at(&image->epoch, i);

        qc_table_forget(image, l1->value);
        status = fill(image, image->cache->staging + (i - first) * table_bytes, l1->place,
                      l1->place != 0 ? table_bytes : 0, table_bytes);
    }
    if (status != QC_OK)
        return status;
    apply_all(image, QC_RECORD_ENTRY, host_off, len);
    status = qc_sure(image, qc_is_inside(host_off, len, image->top.disk->size_bytes),
                     "tables outside the disk");
    if (status != QC_OK)
        return status;
    image->is_unflushed = true;
    status =
        image->top.disk->ops->write(image->top.disk, host_off, image->cache->staging, (size_t)len);
    if (status != QC_OK)
        return qc_fail(&image->detail, status, "table at %x cannot be written", host_off);
    return QC_OK;
}

qc_status qc_patch_new_l2(struct qc_image *image)
{
    uint64_t table_bytes = image->top.header.cluster_bytes;
    uint64_t max = qc_cache_wide_bytes(image->cache) / table_bytes;
    uint32_t end = image->epoch.records_count;
    qc_status status = QC_OK;

    for (uint32_t i = end - image->epoch.kind_counts[QC_RECORD_L1], next;
         status == QC_OK && i < end; i = next) {
        const struct qc_record *l1 = qc_epoch_at(&image->epoch, i);

        next = i + 1;
        if (!(l1->flags & QC_RECORD_NEW))
            continue;
        while (next < end && next - i < max &&
               (qc_epoch_at(&image->epoch, next)->flags & QC_RECORD_NEW) &&
               qc_epoch_at(&image->epoch, next)->value == l1->value + (next - i) * table_bytes)
            next++;
        if (max > 0)
            status = write_side_by_side(image, i, next);
        else
            status = qc_patch_new_table(image, QC_RECORD_ENTRY, l1->value, table_bytes, l1->place,
                                        l1->place != 0 ? table_bytes : 0);
    }
    return status;
}

qc_status qc_patch_header(struct qc_image *image, uint32_t host_off, const uint8_t *bytes,
                          uint32_t bytes_count)
{
    struct qc_window window = {.table_bytes = image->top.header.cluster_bytes,
                               .len = image->top.disk->block_bytes};
    qc_status status = qc_window_load(image, &window);

    if (status != QC_OK)
        return status;
    __builtin_memcpy(image->cache->staging + host_off, bytes, bytes_count);
    return qc_window_store(image, &window);
}

qc_status qc_write_data(struct qc_image *image, uint64_t host_off, const void *buf, uint64_t len)
{
    struct qc_disk *disk = image->top.data;
    bool is_data_place = qc_is_inside(host_off, len, disk->size_bytes) &&
                         (qc_has_data_file(&image->top) ||
                          host_off >= image->top.header.cluster_bytes || QC_SEED(no_guard));
    qc_status status = qc_sure(image, is_data_place, "data outside the disk or on the header");

    if (status != QC_OK)
        return status;
    image->is_unflushed = true;
    image->is_data_unflushed = true;
    status = disk->ops->write(disk, host_off, buf, len);
    if (status != QC_OK)
        return qc_fail(&image->detail, status, "data at %x cannot be written", host_off);
    return QC_OK;
}

qc_status qc_write_zeros(struct qc_image *image, uint64_t host_off, uint64_t len)
{
    uint8_t *zeros = image->cache->staging;
    uint64_t piece = qc_min(len, image->cache->staging_bytes);
    qc_status status = QC_OK;

    __builtin_memset(zeros, 0, piece);
    for (; status == QC_OK && len > 0; len -= piece, host_off += piece) {
        piece = qc_min(len, image->cache->staging_bytes);
        status = qc_write_data(image, host_off, zeros, piece);
    }
    return status;
}
