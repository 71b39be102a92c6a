/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See shared.h. Clusters of shared tables are remembered in the guard's filter, which the guard
 * fills again before the next change. Taking one too many for shared leaves a flaw, or copies a
 * table for nothing, no more.
 */
#include "shared.h"

#include "bytes.h"

#define SHARED_HASHES 2u

static uint32_t shared_bit(const struct qc_image *image, uint64_t cluster, unsigned hash)
{
    uint64_t mixed =
        (cluster + 1) * (hash == 0 ? UINT64_C(0x9e3779b97f4a7c15) : UINT64_C(0xc2b2ae3d27d4eb4f));

    return (uint32_t)((mixed >> 32) % (image->cache->filter_bytes * 8u));
}

static void note_shared(struct qc_image *image, uint64_t cluster)
{
    for (unsigned hash = 0; hash < SHARED_HASHES; hash++) {
        uint32_t bit = shared_bit(image, cluster, hash);

        image->cache->filter[bit / 8] |= (uint8_t)(1u << bit % 8);
    }
}

bool qc_is_shared(const struct qc_image *image, uint64_t cluster)
{
    for (unsigned hash = 0; hash < SHARED_HASHES; hash++) {
        uint32_t bit = shared_bit(image, cluster, hash);

        if (!(image->cache->filter[bit / 8] >> bit % 8 & 1))
            return false;
    }
    return true;
}

bool qc_is_l1_shared(const struct qc_image *image, uint64_t l1_off, uint32_t l1_entries)
{
    unsigned cluster_bits = image->top.header.cluster_bits;
    uint64_t clusters = qc_units(QC_U(l1_entries) * 8, cluster_bits);

    /* The header's own table is what the header says it is: who else claims it is wrong. */
    if (l1_off == image->top.header.l1_off)
        return false;

    for (uint64_t i = 0; i < clusters; i++) {
        if (qc_is_shared(image, (l1_off >> cluster_bits) + i))
            return true;
    }
    return false;
}

/* An L1 table's clusters belong to it alone, or none of its entries is changed. */
static void judge_l1(struct qc_repair *repair, uint64_t l1_off, uint32_t l1_entries)
{
    unsigned cluster_bits = repair->image->top.header.cluster_bits;
    uint64_t first = l1_off >> cluster_bits;
    uint64_t clusters = qc_units(QC_U(l1_entries) * 8, cluster_bits);

    for (uint64_t i = 0; i < clusters; i++) {
        if (first + i - repair->tally.first < repair->tally.count &&
            qc_tally_get(&repair->tally, first + i) != 1)
            note_shared(repair->image, first + i);
    }
}

qc_status qc_for_each_l1(struct qc_repair *repair,
                         qc_status (*visit)(struct qc_repair *repair, uint64_t l1_off,
                                            uint32_t l1_entries))
{
    const struct qc_header *header = &repair->image->top.header;
    uint64_t off = header->snapshots_off;
    qc_status status = visit(repair, header->l1_off, header->l1_entries);

    for (uint32_t i = 0; i < header->snapshots_count && status == QC_OK; i++) {
        struct qc_snapshot_place place;

        status = qc_snapshot_place(repair->image, &off, &place);
        if (status != QC_OK)
            return status;
        if (qc_is_place_walkable(header, &place))
            status = visit(repair, place.l1_off, place.l1_entries);
    }
    return status;
}

static qc_status judge_each(struct qc_repair *repair, uint64_t l1_off, uint32_t l1_entries)
{
    judge_l1(repair, l1_off, l1_entries);
    return QC_OK;
}

/* Whether the refcount structures, or the snapshot table, share clusters with anything. */
static void judge_structures(struct qc_repair *repair)
{
    const struct qc_header *header = &repair->image->top.header;
    uint64_t first = header->snapshots_off >> header->cluster_bits;
    uint64_t clusters = qc_units(repair->refs.snapshots_bytes, header->cluster_bits);

    repair->needs_rebuild = repair->needs_rebuild || repair->refs.needs_rebuild;
    for (uint64_t i = 0; i < clusters; i++)
        repair->needs_snapshots =
            repair->needs_snapshots || qc_tally_get(&repair->tally, first + i) > 1;
    first = header->reftable_off >> header->cluster_bits;
    for (uint64_t i = 0; i < header->reftable_clusters; i++)
        repair->needs_rebuild =
            repair->needs_rebuild || qc_tally_get(&repair->tally, first + i) > 1;
}

/* An L2 table is ours to change where L1 entries, and nothing else, refer to it. */
qc_status qc_judge_window(struct qc_repair *repair)
{
    for (uint64_t i = 0; i < repair->tally.count; i++) {
        uint64_t cluster = repair->tally.first + i;
        uint32_t as_table = qc_tally_get(&repair->tables, cluster);

        if (as_table != 0 && as_table != qc_tally_get(&repair->tally, cluster))
            note_shared(repair->image, cluster);
    }
    judge_structures(repair);
    return qc_for_each_l1(repair, judge_each);
}

void qc_forget_shared(struct qc_image *image)
{
    __builtin_memset(image->cache->filter, 0, image->cache->filter_bytes);
}

/* ---- copies ---- */

enum step { STEP_COUNT, STEP_COPY, STEP_SWITCH };

/* A way through all shared tables, which is the same in each step. */
struct way {
    struct qc_repair *repair;
    enum step step;
    uint64_t number; /* of clusters passed so far */
    uint64_t l1_off; /* of the tree */
    bool is_active;
};

static qc_status copy_clusters(struct qc_repair *repair, uint64_t from_off, uint64_t to_off,
                               uint64_t bytes)
{
    struct qc_image *image = repair->image;
    qc_status status = QC_OK;

    for (uint64_t done = 0, len; done < bytes && status == QC_OK; done += len) {
        len = qc_min(image->cache->staging_bytes, bytes - done);
        status = qc_raw_read(image, from_off + done, image->cache->staging, (size_t)len);
        if (status == QC_OK)
            status = qc_raw_write(image, to_off + done, image->cache->staging, (size_t)len);
    }
    return status;
}

static qc_status pass_l2(struct qc_walk *walk, struct qc_walk_item *item)
{
    struct way *way = walk->context;
    struct qc_repair *repair = way->repair;
    unsigned cluster_bits = walk->image->top.header.cluster_bits;
    uint64_t copy_off = (repair->copies_first + way->number) << cluster_bits;

    item->is_followed = false;
    if (item->flaws != 0 || item->host_off == 0 ||
        !qc_is_shared(walk->image, item->host_off >> cluster_bits))
        return QC_OK;
    way->number++;
    if (way->step == STEP_COPY)
        return copy_clusters(repair, item->host_off, copy_off, item->host_len);
    if (way->step == STEP_SWITCH)
        item->entry = copy_off | (way->is_active ? QC_ENTRY_COPIED : 0);
    return QC_OK;
}

static qc_status pass_tree(struct way *way, uint64_t l1_off, uint32_t l1_entries)
{
    struct qc_walk walk = {.image = way->repair->image,
                           .scratch = way->repair->scratch,
                           .l1_off = l1_off,
                           .l1_entries = l1_entries,
                           .visit_l1 = pass_l2,
                           .context = way};

    return qc_walk_run(&walk);
}

/* A snapshot's L1 table; its entry in the snapshot table begins with the offset. */
static qc_status pass_l1(struct way *way, const struct qc_snapshot_place *place)
{
    struct qc_repair *repair = way->repair;
    struct qc_image *image = repair->image;
    unsigned cluster_bits = image->top.header.cluster_bits;
    uint64_t clusters = qc_units(QC_U(place->l1_entries) * 8, cluster_bits);
    uint64_t copy_off = (repair->copies_first + way->number) << cluster_bits;
    uint64_t block_off = place->host_off & ~QC_U(image->top.disk->block_bytes - 1);
    qc_status status = QC_OK;

    way->number += clusters;
    if (way->step == STEP_COPY)
        return copy_clusters(repair, place->l1_off, copy_off, clusters << cluster_bits);
    if (way->step != STEP_SWITCH)
        return QC_OK;
    status = qc_raw_read(image, block_off, image->cache->staging, image->top.disk->block_bytes);
    if (status != QC_OK)
        return status;
    /* Entries begin at multiples of 8: the offset never crosses a block. */
    qc_put_be64(image->cache->staging + (place->host_off - block_off), copy_off);
    return qc_raw_write(image, block_off, image->cache->staging, image->top.disk->block_bytes);
}

static qc_status pass_all(struct way *way)
{
    struct qc_image *image = way->repair->image;
    const struct qc_header *header = &image->top.header;
    uint64_t off = header->snapshots_off;
    qc_status status;

    way->is_active = true;
    status = pass_tree(way, header->l1_off, header->l1_entries);
    way->is_active = false;
    for (uint32_t i = 0; i < header->snapshots_count && status == QC_OK; i++) {
        struct qc_snapshot_place place;

        status = qc_snapshot_place(image, &off, &place);
        if (status != QC_OK || !qc_is_place_walkable(header, &place))
            continue;
        if (qc_is_l1_shared(image, place.l1_off, place.l1_entries))
            status = pass_l1(way, &place);
        else
            status = pass_tree(way, place.l1_off, place.l1_entries);
    }
    return status;
}

qc_status qc_unshare_copy(struct qc_repair *repair)
{
    struct way way = {.repair = repair, .step = STEP_COUNT};
    qc_status status = pass_all(&way);

    repair->copies_count = 0;
    if (status != QC_OK || way.number == 0)
        return status;
    status = qc_relocate_place(repair, way.number, &repair->copies_first);
    if (status != QC_OK)
        return status;
    repair->copies_count = way.number;
    way = (struct way){.repair = repair, .step = STEP_COPY};
    return pass_all(&way);
}

qc_status qc_unshare_switch(struct qc_repair *repair)
{
    struct way way = {.repair = repair, .step = STEP_SWITCH};

    repair->is_counted = false;
    return pass_all(&way);
}
