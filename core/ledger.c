/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See ledger.h. The counts are handled in units: as many as lie in one page of a refcount block, or
 * in all of a smaller one. Units that neighbour each other on the disk are transferred together.
 *
 * A window starts with the narrowest counters that let it hold everything; where the counts turn
 * out to be too large for them it is loaded again, with wider ones and fewer clusters. Twice the
 * largest count must fit, because no tree can refer to a cluster more often than it is counted.
 */
#include "ledger.h"

#include "bytes.h"
#include "counts.h"
#include "table.h"

#define ENTRY_BYTES        8u
#define ROOT_RESERVED_MASK UINT64_C(0x1ff)
#define UNIT_CHANGED       UINT64_C(1)

/* Clusters that compressed data may touch behind the disk's end: its length is told in sectors. */
#define TAIL_CLUSTERS 2u

static uint32_t unit_bytes(const struct qc_ledger *ledger)
{
    return (uint32_t)qc_min(QC_PAGE_BYTES, ledger->image->top.header.cluster_bytes);
}

/* Counts in a unit. */
static uint64_t unit_counts(const struct qc_ledger *ledger)
{
    return QC_U(unit_bytes(ledger)) << 3 >> ledger->image->top.header.refcount_order;
}

static uint64_t units_count(const struct qc_ledger *ledger)
{
    return ledger->count / unit_counts(ledger);
}

/* Memory for a unit: its counters and its place. */
static uint64_t unit_memory(const struct qc_ledger *ledger)
{
    return (unit_counts(ledger) << ledger->order >> 3) + sizeof(ledger->units[0]);
}

static uint64_t limit_of(unsigned order)
{
    return UINT64_MAX >> (64 - (1u << order));
}

void qc_ledger_init(struct qc_ledger *ledger, struct qc_image *image,
                    const struct qc_scratch *scratch, uint64_t extra_clusters)
{
    const struct qc_header *header = &image->top.header;
    uint64_t reach = (QC_U(header->reftable_clusters) << header->cluster_bits) / ENTRY_BYTES
                     << qc_block_reach_bits(image);
    uint64_t end = qc_units(image->top.disk->size_bytes, header->cluster_bits) + TAIL_CLUSTERS;

    *ledger = (struct qc_ledger){.image = image, .scratch = scratch};
    ledger->end = qc_min(end + extra_clusters, reach);
    ledger->end = (ledger->end + unit_counts(ledger) - 1) & ~(unit_counts(ledger) - 1);
    ledger->order = header->refcount_order;
    while (ledger->order > 0 &&
           ledger->end / unit_counts(ledger) * unit_memory(ledger) > scratch->bytes_count)
        ledger->order--;
}

/* The refcount block that counts the first cluster of a unit; 0: none. */
static qc_status find_block(struct qc_ledger *ledger, uint64_t block_index, uint64_t *piece_first,
                            uint64_t *ret_block_off)
{
    struct qc_image *image = ledger->image;
    const struct qc_header *header = &image->top.header;
    uint64_t piece_entries = ledger->scratch->tables_bytes / ENTRY_BYTES;
    uint64_t first = block_index - block_index % piece_entries, block_off;

    if (first != *piece_first) {
        uint64_t table_bytes = QC_U(header->reftable_clusters) << header->cluster_bits;
        uint64_t len = qc_min(piece_entries * ENTRY_BYTES, table_bytes - first * ENTRY_BYTES);
        qc_status status = qc_raw_read(image, header->reftable_off + first * ENTRY_BYTES,
                                       ledger->scratch->tables, (size_t)len);

        if (status != QC_OK)
            return status;
        *piece_first = first;
    }
    block_off = qc_be64(ledger->scratch->tables + (block_index - first) * ENTRY_BYTES);
    if ((block_off & ROOT_RESERVED_MASK) != 0 || !qc_is_aligned(block_off, header->cluster_bytes) ||
        !qc_is_inside(block_off, header->cluster_bytes, image->top.disk->size_bytes) ||
        (block_off != 0 && qc_is_header_structure(image, 0, block_off >> header->cluster_bits)))
        return qc_fail(&image->detail, QC_CORRUPT, "bad refcount block at %x", block_off);
    *ret_block_off = block_off;
    return QC_OK;
}

/* Finds the place of every unit of the window. */
static qc_status place_units(struct qc_ledger *ledger)
{
    uint64_t per_block = ledger->image->top.header.cluster_bytes / unit_bytes(ledger);
    uint64_t first_unit = ledger->first / unit_counts(ledger);
    uint64_t piece_first = UINT64_MAX, block_off = 0;

    for (uint64_t i = 0; i < units_count(ledger); i++) {
        uint64_t unit = first_unit + i;
        qc_status status = QC_OK;

        if (i == 0 || unit % per_block == 0)
            status = find_block(ledger, unit / per_block, &piece_first, &block_off);
        if (status != QC_OK)
            return status;
        ledger->units[i] = block_off == 0 ? 0 : block_off + unit % per_block * unit_bytes(ledger);
    }
    return QC_OK;
}

/* How many units from the first on can be transferred together; changed ones only, or all. */
static uint64_t transfer_of(const struct qc_ledger *ledger, uint64_t first, bool is_changed_only)
{
    uint64_t max = qc_min(ledger->image->cache->staging_bytes / unit_bytes(ledger),
                          units_count(ledger) - first);
    uint64_t run = 1;

    /* Bit 0 is the same for all of a run of changed units, and for all when none is changed yet. */
    while (run < max &&
           ledger->units[first + run] == ledger->units[first] + run * unit_bytes(ledger))
        run++;
    return is_changed_only && !(ledger->units[first] & UNIT_CHANGED) ? 0 : run;
}

static qc_status load_counts(struct qc_ledger *ledger)
{
    struct qc_image *image = ledger->image;
    unsigned stored_order = image->top.header.refcount_order;
    uint64_t per_unit = unit_counts(ledger), run;

    ledger->largest = 0;
    __builtin_memset(ledger->counts, 0, (size_t)(ledger->count << ledger->order >> 3));
    for (uint64_t unit = 0; unit < units_count(ledger); unit += run) {
        qc_status status;

        run = 1;
        if (ledger->units[unit] == 0)
            continue;
        run = transfer_of(ledger, unit, false);
        status = qc_raw_read(image, ledger->units[unit], image->cache->staging,
                             (size_t)(run * unit_bytes(ledger)));
        if (status != QC_OK)
            return status;
        for (uint64_t i = 0; i < run * per_unit; i++) {
            uint64_t count = qc_count_load(image->cache->staging, i, stored_order);

            if (count > ledger->largest)
                ledger->largest = count;
            qc_count_store(ledger->counts, unit * per_unit + i, ledger->order, count);
        }
    }
    return QC_OK;
}

bool qc_ledger_is_near_limit(const struct qc_ledger *ledger)
{
    return ledger->largest > limit_of(ledger->order) / 2;
}

qc_status qc_ledger_load(struct qc_ledger *ledger, uint64_t first)
{
    /* Each round but the last widens the counters. */
    for (;; ledger->order++) {
        uint64_t units_max = ledger->scratch->bytes_count / unit_memory(ledger);
        qc_status status;

        ledger->first = first;
        ledger->count = qc_min(units_max * unit_counts(ledger), ledger->end - first);
        ledger->units = (uint64_t *)(void *)ledger->scratch->bytes;
        ledger->counts = (uint8_t *)(ledger->units + units_count(ledger));
        status = place_units(ledger);
        if (status == QC_OK)
            status = load_counts(ledger);
        if (status != QC_OK)
            return status;
        if (ledger->order == ledger->image->top.header.refcount_order ||
            !qc_ledger_is_near_limit(ledger))
            return QC_OK;
    }
}

qc_status qc_ledger_store(struct qc_ledger *ledger)
{
    struct qc_image *image = ledger->image;
    unsigned stored_order = image->top.header.refcount_order;
    uint64_t per_unit = unit_counts(ledger), run;

    for (uint64_t unit = 0; unit < units_count(ledger); unit += run) {
        qc_status status;

        run = transfer_of(ledger, unit, true);
        if (run == 0) {
            run = 1;
            continue;
        }
        for (uint64_t i = 0; i < run * per_unit; i++)
            qc_count_store(image->cache->staging, i, stored_order,
                           qc_count_load(ledger->counts, unit * per_unit + i, ledger->order));
        status = qc_raw_write(image, ledger->units[unit] & ~UNIT_CHANGED, image->cache->staging,
                              (size_t)(run * unit_bytes(ledger)));
        if (status != QC_OK)
            return status;
    }
    for (uint64_t unit = 0; unit < units_count(ledger); unit++)
        ledger->units[unit] &= ~UNIT_CHANGED;
    return QC_OK;
}

bool qc_ledger_is_whole(const struct qc_ledger *ledger)
{
    return ledger->first == 0 && ledger->count == ledger->end;
}

bool qc_ledger_has(const struct qc_ledger *ledger, uint64_t cluster)
{
    return cluster - ledger->first < ledger->count;
}

uint64_t qc_ledger_get(const struct qc_ledger *ledger, uint64_t cluster)
{
    return qc_count_load(ledger->counts, cluster - ledger->first, ledger->order);
}

static void set(struct qc_ledger *ledger, uint64_t cluster, uint64_t count)
{
    uint64_t index = cluster - ledger->first;

    qc_count_store(ledger->counts, index, ledger->order, count);
    ledger->units[index / unit_counts(ledger)] |= UNIT_CHANGED;
}

/* Adds or drops a reference of what is in use. */
static qc_status change(struct qc_ledger *ledger, uint64_t host_off, uint64_t len, bool is_drop)
{
    struct qc_detail *detail = &ledger->image->detail;
    unsigned cluster_bits = ledger->image->top.header.cluster_bits;
    uint64_t end = len == 0 ? 0 : ((host_off + len - 1) >> cluster_bits) + 1;

    for (uint64_t cluster = host_off >> cluster_bits; cluster < end; cluster++) {
        uint64_t count;

        if (cluster < ledger->end && !qc_ledger_has(ledger, cluster))
            continue;
        count = cluster < ledger->end ? qc_ledger_get(ledger, cluster) : 0;
        if (count == 0)
            return qc_fail(detail, QC_CORRUPT, "refcount out of range at %x",
                           cluster << cluster_bits);
        if (!is_drop && count == limit_of(ledger->order))
            return qc_fail(detail,
                           ledger->order == ledger->image->top.header.refcount_order
                               ? QC_UNSUPPORTED
                               : QC_CORRUPT,
                           "refcount of %u at %x cannot grow", count, cluster << cluster_bits);
        set(ledger, cluster, is_drop ? count - 1 : count + 1);
    }
    return QC_OK;
}

qc_status qc_ledger_add(struct qc_ledger *ledger, uint64_t host_off, uint64_t len)
{
    return change(ledger, host_off, len, false);
}

qc_status qc_ledger_drop(struct qc_ledger *ledger, uint64_t host_off, uint64_t len)
{
    return change(ledger, host_off, len, true);
}

void qc_ledger_take(struct qc_ledger *ledger, uint64_t first, uint64_t count)
{
    for (uint64_t cluster = first; cluster < first + count; cluster++) {
        if (qc_ledger_has(ledger, cluster) && qc_ledger_get(ledger, cluster) == 0)
            set(ledger, cluster, 1);
    }
}

/* Whether a block, or what the header names, lies there, whatever the counts say. */
static bool is_table(const struct qc_ledger *ledger, uint64_t first, uint64_t count)
{
    unsigned cluster_bits = ledger->image->top.header.cluster_bits;
    bool is_any = false;

    for (uint64_t unit = 0; unit < units_count(ledger); unit++) {
        uint64_t cluster = ledger->units[unit] >> cluster_bits;

        is_any = is_any || (ledger->units[unit] != 0 && cluster - first < count);
    }
    for (uint64_t i = 0; i < count; i++)
        is_any = is_any || qc_is_header_structure(ledger->image, 0, first + i);
    return is_any;
}

uint64_t qc_ledger_find_run(const struct qc_ledger *ledger, uint64_t count)
{
    const struct qc_disk *disk = ledger->image->top.disk;
    unsigned cluster_bits = ledger->image->top.header.cluster_bits;
    uint64_t end = ledger->first + ledger->count, run = 0;

    /* A disk that does not grow has only the clusters that lie in it whole. */
    if (disk->ops->grow == NULL)
        end = qc_min(end, disk->size_bytes >> cluster_bits);
    for (uint64_t cluster = ledger->first; cluster < end; cluster++) {
        uint64_t unit = (cluster - ledger->first) / unit_counts(ledger);

        if (ledger->units[unit] != 0 && qc_ledger_get(ledger, cluster) == 0)
            run++;
        else
            run = 0;
        if (run == count && !is_table(ledger, cluster + 1 - count, count))
            return cluster + 1 - count;
        if (run == count)
            run = 0;
    }
    return 0;
}
