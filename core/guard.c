/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See guard.h. The filter only ever gains bits: a table that was given up is found to be none by
 * looking, which costs time and no safety.
 */
#include "guard.h"

#include "bytes.h"
#include "map.h"
#include "seeded.h"
#include "table.h"

#define HASHES 2u

static uint32_t bit_of(const struct qc_image *image, uint64_t cluster, unsigned hash)
{
    uint64_t mixed =
        (cluster + 1) * (hash == 0 ? UINT64_C(0x9e3779b97f4a7c15) : UINT64_C(0xc2b2ae3d27d4eb4f));

    return (uint32_t)((mixed >> 32) % (image->cache->filter_bytes * 8u));
}

void qc_guard_add(struct qc_image *image, uint64_t cluster)
{
    for (unsigned hash = 0; hash < HASHES; hash++) {
        uint32_t bit = bit_of(image, cluster, hash);

        image->cache->filter[bit / 8] |= (uint8_t)(1u << bit % 8);
    }
}

static bool is_maybe(const struct qc_image *image, uint64_t cluster)
{
    bool is_set = true;

    for (unsigned hash = 0; hash < HASHES; hash++) {
        uint32_t bit = bit_of(image, cluster, hash);

        is_set = is_set && (image->cache->filter[bit / 8] >> bit % 8 & 1) != 0;
    }
    return is_set;
}

/* Adds every cluster that a table of offsets names. */
static qc_status add_table(struct qc_image *image, uint64_t table_off, uint64_t table_bytes)
{
    uint8_t *staging = image->cache->staging;

    for (uint64_t off = 0, len; off < table_bytes; off += len) {
        qc_status status;

        len = qc_min(image->cache->staging_bytes, table_bytes - off);
        status = image->disk->ops->read(image->disk, table_off + off, staging, len);
        if (status != QC_OK)
            return qc_fail(&image->detail, status, "table at %x cannot be read", table_off + off);
        for (uint64_t i = 0; i < len; i += 8) {
            uint64_t host_off = qc_be64(staging + i) & QC_ENTRY_OFFSET_MASK;

            if (host_off != 0)
                qc_guard_add(image, host_off >> image->header.cluster_bits);
        }
    }
    return QC_OK;
}

qc_status qc_guard_prepare(struct qc_image *image)
{
    const struct qc_header *header = &image->header;
    qc_status status = add_table(image, header->l1_off, QC_U(header->l1_entries) * 8);

    if (status != QC_OK)
        return status;
    return add_table(image, header->reftable_off,
                     QC_U(header->reftable_clusters) << header->cluster_bits);
}

static qc_status find_in_table(struct qc_image *image, uint64_t table_off, uint64_t table_bytes,
                               uint64_t cluster, bool *ret_is_table)
{
    const uint8_t *entries;
    uint32_t entries_count;

    for (uint64_t index = 0; index < table_bytes / 8; index += entries_count) {
        qc_status status = qc_table_entries(image, table_off, table_bytes, index, QC_HEAT_PASSING,
                                            &entries, &entries_count);

        if (status != QC_OK)
            return status;
        for (uint32_t i = 0; i < entries_count; i++) {
            uint64_t host_off = qc_be64(entries + i * 8u) & QC_ENTRY_OFFSET_MASK;

            if (host_off != 0 && host_off >> image->header.cluster_bits == cluster)
                *ret_is_table = true;
        }
    }
    return QC_OK;
}

qc_status qc_guard_check(struct qc_image *image, uint64_t cluster, bool *ret_is_table)
{
    const struct qc_header *header = &image->header;
    qc_status status;

    *ret_is_table = qc_is_header_structure(image, cluster);
    if (*ret_is_table || !is_maybe(image, cluster) || QC_SEED(no_guard))
        return QC_OK;
    for (uint32_t i = 0; i < image->epoch.records_count; i++) {
        const struct qc_record *record = qc_epoch_at(&image->epoch, i);
        enum qc_record_kind kind = qc_record_kind(record);

        if ((kind == QC_RECORD_L1 || kind == QC_RECORD_ROOT) &&
            record->value >> header->cluster_bits == cluster)
            *ret_is_table = true;
    }
    status =
        find_in_table(image, header->l1_off, QC_U(header->l1_entries) * 8, cluster, ret_is_table);
    if (status == QC_OK)
        status = find_in_table(image, header->reftable_off,
                               QC_U(header->reftable_clusters) << header->cluster_bits, cluster,
                               ret_is_table);
    return status;
}
