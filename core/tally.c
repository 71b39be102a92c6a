/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See tally.h. The refcount table is read in pieces into the scratch's tables, the blocks in pieces
 * into the staging buffer; a piece that was changed goes back with one write, from its first
 * changed block to its last.
 */
#include "tally.h"

#include "bytes.h"
#include "counts.h"
#include "table.h"

#define ENTRY_BYTES        8u
#define ROOT_RESERVED_MASK UINT64_C(0x1ff)
#define WINDOW_UNIT        64u
#define NOWHERE_OFF        UINT64_C(0x7fffffffc0000000) /* no file reaches farther */

uint64_t qc_count_max(const struct qc_header *header)
{
    unsigned bits = 1u << header->refcount_order;

    return bits == 64 ? UINT64_MAX : (QC_U(1) << bits) - 1;
}

void qc_tally_begin(struct qc_tally *tally, const struct qc_scratch *scratch, uint32_t width,
                    uint64_t first, uint64_t end)
{
    uint64_t count = scratch->bytes_count / width & ~QC_U(WINDOW_UNIT - 1);

    tally->first = first;
    tally->count = first < end ? qc_min(count, end - first) : 0;
    tally->width = width;
    tally->limit = width == 4 ? UINT32_MAX : (UINT32_C(1) << 8 * width) - 1;
    tally->over_count = 0;
    tally->counters = scratch->bytes;
    __builtin_memset(tally->counters, 0, (size_t)tally->count * width);
}

static uint32_t load(const struct qc_tally *tally, uint64_t index)
{
    uint32_t counter = 0;

    if (tally->width == 1)
        return tally->counters[index];
    __builtin_memcpy(&counter, tally->counters + index * tally->width, tally->width);
    return counter;
}

static void store(struct qc_tally *tally, uint64_t index, uint32_t counter)
{
    /* The processor is little endian, here and in firmware: the low bytes come first. */
    __builtin_memcpy(tally->counters + index * tally->width, &counter, tally->width);
}

uint32_t qc_tally_get(const struct qc_tally *tally, uint64_t cluster)
{
    /* In front of the window the difference wraps and is too large as well. */
    return cluster - tally->first < tally->count ? load(tally, cluster - tally->first) : 0;
}

void qc_tally_add(struct qc_tally *tally, unsigned cluster_bits, uint64_t host_off, uint64_t len)
{
    uint64_t first = host_off >> cluster_bits;
    uint64_t end = len > 0 ? ((host_off + len - 1) >> cluster_bits) + 1 : first;

    if (first < tally->first)
        first = tally->first;
    end = qc_min(end, tally->first + tally->count);
    for (uint64_t cluster = first; cluster < end; cluster++) {
        uint32_t counter = load(tally, cluster - tally->first);

        if (counter >= tally->limit)
            tally->over_count++;
        else
            store(tally, cluster - tally->first, counter + 1);
    }
}

/* Where counts lie: the part of one refcount block that is in the staging buffer. */
struct part {
    uint64_t end;      /* the cluster behind the last that is counted here */
    uint64_t host_off; /* 0: nothing is */
    uint64_t index;    /* in the staging buffer, of the count of the first cluster asked for */
    uint32_t len;
    uint32_t from, to; /* bytes that were changed */
    bool is_writable;
    bool is_lost;
};

/* A piece of the refcount table in scratch->tables. */
struct roots {
    uint64_t first; /* index of its first entry */
    uint64_t count; /* 0: none is read */
};

static qc_status find_root(struct qc_image *image, const struct qc_scratch *scratch,
                           struct roots *roots, uint64_t block_index, uint64_t *ret_entry)
{
    const struct qc_header *header = &image->top.header;
    uint64_t entries = (QC_U(header->reftable_clusters) << header->cluster_bits) / ENTRY_BYTES;

    *ret_entry = 0;
    if (block_index >= entries)
        return QC_OK;
    if (block_index - roots->first >= roots->count) {
        uint64_t per_piece = scratch->tables_bytes / ENTRY_BYTES;
        uint64_t first = block_index - block_index % per_piece;
        uint64_t count = qc_min(per_piece, entries - first);
        qc_status status = qc_raw_read(image, header->reftable_off + first * ENTRY_BYTES,
                                       scratch->tables, (size_t)count * ENTRY_BYTES);

        roots->count = 0;
        if (status != QC_OK)
            return status;
        roots->first = first;
        roots->count = count;
    }
    *ret_entry = qc_be64(scratch->tables + (block_index - roots->first) * ENTRY_BYTES);
    return QC_OK;
}

/* Reads the counts from a cluster on, as far as one piece of one block tells them. */
static qc_status load_part(struct qc_image *image, uint64_t cluster, uint64_t root,
                           struct part *ret_part)
{
    const struct qc_header *header = &image->top.header;
    unsigned order = header->refcount_order;
    unsigned reach_bits = qc_block_reach_bits(image);
    uint64_t index = cluster & ((QC_U(1) << reach_bits) - 1);
    uint64_t off = (index << order >> 3) & ~QC_U(image->top.disk->block_bytes - 1);
    uint64_t block_off = root & ~ROOT_RESERVED_MASK;
    struct part part = {.end = ((cluster >> reach_bits) + 1) << reach_bits};

    part.is_lost = !qc_is_aligned(block_off, header->cluster_bytes) || block_off >= NOWHERE_OFF;
    if (block_off != 0 && !part.is_lost) {
        part.host_off = block_off + off;
        part.index = index - (off << 3 >> order);
        part.len = (uint32_t)qc_min(image->cache->staging_bytes, header->cluster_bytes - off);
        part.end = qc_min(part.end, cluster + ((QC_U(part.len) << 3 >> order) - part.index));
        part.is_writable =
            (root & ROOT_RESERVED_MASK) == 0 &&
            qc_is_inside(block_off, header->cluster_bytes, image->top.disk->size_bytes) &&
            !qc_is_header_structure(image, 0, block_off >> header->cluster_bits);
    }
    *ret_part = part;
    if (part.host_off == 0)
        return QC_OK;
    return qc_raw_read(image, part.host_off, image->cache->staging, part.len);
}

static void change(struct qc_image *image, struct part *part, uint64_t index, uint64_t count)
{
    unsigned order = image->top.header.refcount_order;
    uint32_t from = (uint32_t)(index << order >> 3);
    uint32_t to = (uint32_t)(((index + 1) << order) + 7) >> 3;

    qc_count_store(image->cache->staging, index, order, count);
    if (part->from == part->to)
        part->from = from;
    part->to = to; /* ascending */
}

static qc_status store_part(struct qc_image *image, const struct part *part)
{
    uint32_t block_mask = image->top.disk->block_bytes - 1;
    uint32_t from = part->from & ~block_mask;
    uint32_t to = (part->to + block_mask) & ~block_mask;

    if (part->from == part->to)
        return QC_OK;
    return qc_raw_write(image, part->host_off + from, image->cache->staging + from, to - from);
}

qc_status qc_tally_pass(struct qc_image *image, const struct qc_scratch *scratch,
                        struct qc_tally *tally,
                        qc_status (*visit)(void *context, struct qc_stored *item), void *context)
{
    unsigned order = image->top.header.refcount_order;
    uint64_t end = tally->first + tally->count;
    struct roots roots = {0, 0};

    for (uint64_t cluster = tally->first; cluster < end;) {
        uint64_t root, index;
        struct part part = {0};
        qc_status status =
            find_root(image, scratch, &roots, cluster >> qc_block_reach_bits(image), &root);

        if (status == QC_OK)
            status = load_part(image, cluster, root, &part);
        if (status != QC_OK)
            return status;
        part.end = qc_min(part.end, end);
        for (index = part.index; cluster < part.end; cluster++, index++) {
            struct qc_stored item = {.cluster = cluster,
                                     .counted = load(tally, cluster - tally->first),
                                     .has_block = part.is_writable,
                                     .is_lost = part.is_lost};
            uint64_t stored;

            if (part.host_off != 0)
                item.stored = qc_count_load(image->cache->staging, index, order);
            stored = item.stored;
            status = visit(context, &item);
            if (status != QC_OK)
                return status;
            if (item.stored != stored && part.is_writable)
                change(image, &part, index, item.stored);
        }
        status = store_part(image, &part);
        if (status != QC_OK)
            return status;
    }
    return QC_OK;
}

static qc_status keep_stored(void *context, struct qc_stored *item)
{
    struct qc_tally *tally = context;

    store(tally, item->cluster - tally->first, (uint32_t)qc_min(item->stored, tally->limit));
    return QC_OK;
}

qc_status qc_tally_load(struct qc_image *image, const struct qc_scratch *scratch,
                        struct qc_tally *tally)
{
    return qc_tally_pass(image, scratch, tally, keep_stored, tally);
}
