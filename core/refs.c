/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See refs.h. The order of the parts is that of their trust: header, active tables, snapshots,
 * refcount table, bitmaps, and last the refcount blocks, each of which must then stand alone in its
 * cluster.
 */
#include "refs.h"

#include "bytes.h"
#include "counts.h"

#define ENTRY_BYTES        8u
#define L1_RESERVED_MASK   UINT64_C(0x7f000000000001ff)
#define L2_RESERVED_MASK   UINT64_C(0x3f000000000001fe)
#define ROOT_RESERVED_MASK UINT64_C(0x1ff)
#define SNAPSHOT_EXTRA_MIN 16u /* of a version 3 image */

#define BITMAP_RESERVED_MASK UINT64_C(0xff000000000001fe)
#define BITMAP_ENTRY_BYTES   24u
#define BITMAP_BYTES_MAX     (512u * 1024 * 1024)
#define BITMAP_NAME_MAX      1023u
#define BITMAP_SHIFT_MIN     9u
#define BITMAP_SHIFT_MAX     31u
#define BITMAP_FLAGS_KNOWN   3u
#define BITMAP_TYPE_DIRTY    1u

bool qc_is_beyond(const struct qc_header *header, uint64_t disk_bytes, uint64_t host_off,
                  uint64_t len)
{
    uint64_t end = host_off + len; /* 61 and 26 bits at most */

    return len > 0 && end > disk_bytes && end - disk_bytes >= header->cluster_bytes;
}

/* One reference to len bytes at host_off. */
static void add(struct qc_refs *refs, uint64_t host_off, uint64_t len)
{
    unsigned cluster_bits = refs->image->top.header.cluster_bits;
    uint64_t end_cluster = qc_units(host_off + len, cluster_bits);

    if (len == 0)
        return;
    if (qc_is_beyond(&refs->image->top.header, refs->image->top.disk->size_bytes, host_off, len)) {
        refs->corruptions++;
        if (refs->beyond_end < end_cluster)
            refs->beyond_end = end_cluster;
        if (refs->is_wide)
            qc_tally_add(refs->tally, cluster_bits, host_off, len);
        return;
    }
    if (refs->end < end_cluster)
        refs->end = end_cluster;
    if (refs->clusters < end_cluster)
        refs->clusters = end_cluster;
    qc_tally_add(refs->tally, cluster_bits, host_off, len);
}

static qc_status visit_l1(struct qc_walk *walk, struct qc_walk_item *item)
{
    struct qc_refs *refs = walk->context;
    const struct qc_header *header = &walk->image->top.header;
    uint64_t corruptions = refs->corruptions;

    if (item->entry & L1_RESERVED_MASK)
        refs->corruptions++;
    if (!qc_is_aligned(item->host_off, header->cluster_bytes))
        refs->corruptions++;
    add(refs, item->host_off, header->cluster_bytes);
    if (refs->corruptions != corruptions || item->host_off == 0 ||
        (item->flaws & QC_FLAW_STRUCTURE))
        refs->needs_entries = true;
    if (refs->tables != NULL)
        qc_tally_add(refs->tables, header->cluster_bits, item->host_off, header->cluster_bytes);
    item->is_followed = true;
    refs->next_off = 0;
    if (refs->go_on != NULL && !refs->go_on(refs->context, refs->is_active ? item->index : 0))
        return QC_RANGE;
    return QC_OK;
}

static void visit_compressed(struct qc_refs *refs, const struct qc_walk_item *item)
{
    const struct qc_header *header = &refs->image->top.header;

    if (item->entry & QC_ENTRY_COPIED)
        refs->corruptions++;
    if ((header->incompatible & QC_INCOMPATIBLE_DATA_FILE) || item->bitmap != 0) {
        refs->corruptions++;
        return;
    }
    add(refs, item->host_off, item->host_len);
    if (refs->is_active) {
        refs->allocated++;
        refs->compressed++;
        refs->fragmented++;
    }
}

/* A cluster of its own, with data or kept for them. */
static void visit_standard(struct qc_refs *refs, const struct qc_walk_item *item)
{
    const struct qc_header *header = &refs->image->top.header;
    uint64_t host_off = item->entry & QC_ENTRY_OFFSET_MASK;

    if ((item->bitmap >> QC_SUBCLUSTERS) & item->bitmap & QC_SUBS_ALLOCATED)
        refs->corruptions++;
    if (!qc_is_aligned(host_off, header->cluster_bytes))
        refs->corruptions++;
    if (refs->is_active) {
        refs->allocated++;
        if (refs->next_off != 0 && host_off != refs->next_off)
            refs->fragmented++;
        refs->next_off = host_off + header->cluster_bytes;
    }
    if (!(header->incompatible & QC_INCOMPATIBLE_DATA_FILE))
        add(refs, host_off, header->cluster_bytes);
}

static qc_status visit_l2(struct qc_walk *walk, struct qc_walk_item *item)
{
    struct qc_refs *refs = walk->context;
    const struct qc_header *header = &walk->image->top.header;
    uint64_t corruptions = refs->corruptions;

    if (item->entry & QC_ENTRY_COMPRESSED) {
        visit_compressed(refs, item);
    } else {
        if (item->entry & L2_RESERVED_MASK)
            refs->corruptions++;
        if ((item->entry & QC_ENTRY_OFFSET_MASK) != 0 ||
            ((header->incompatible & QC_INCOMPATIBLE_DATA_FILE) &&
             (item->entry & QC_ENTRY_COPIED) && !(item->entry & QC_ENTRY_ZERO)))
            visit_standard(refs, item);
        else if (item->bitmap & QC_SUBS_ALLOCATED)
            refs->corruptions++;
    }
    if (refs->corruptions != corruptions || (item->flaws & QC_FLAW_STRUCTURE))
        refs->needs_entries = true;
    return QC_OK;
}

static qc_status count_l1(struct qc_refs *refs, uint64_t l1_off, uint32_t l1_entries)
{
    struct qc_walk walk = {.image = refs->image,
                           .scratch = refs->scratch,
                           .l1_off = l1_off,
                           .l1_entries = l1_entries,
                           .visit_l1 = visit_l1,
                           .visit_l2 = visit_l2,
                           .context = refs};

    add(refs, l1_off, QC_U(l1_entries) * ENTRY_BYTES);
    return qc_walk_run(&walk);
}

qc_status qc_snapshot_place(struct qc_image *image, uint64_t *host_off,
                            struct qc_snapshot_place *ret_place)
{
    uint8_t head[QC_SNAPSHOT_HEAD_BYTES];
    uint64_t off = (*host_off + 7) & ~QC_U(7);
    qc_status status = qc_raw_read(image, off, head, sizeof(head));

    if (status != QC_OK)
        return status;
    ret_place->host_off = off;
    ret_place->l1_off = qc_be64(head);
    ret_place->l1_entries = qc_be32(head + 8);
    ret_place->strings_bytes = (qc_be32(head + 12) >> 16) + (qc_be32(head + 12) & 0xffff);
    ret_place->extra_bytes = qc_be32(head + 36);
    *host_off = off + sizeof(head) + ret_place->extra_bytes + ret_place->strings_bytes;
    return QC_OK;
}

bool qc_is_place_walkable(const struct qc_header *header, const struct qc_snapshot_place *place)
{
    return qc_is_aligned(place->l1_off, header->cluster_bytes) &&
           place->l1_entries <= QC_L1_BYTES_MAX / ENTRY_BYTES && place->l1_off < QC_HOST_BYTES_MAX;
}

bool qc_is_place_whole(const struct qc_header *header, uint64_t disk_bytes,
                       const struct qc_snapshot_place *place)
{
    return qc_is_place_walkable(header, place) &&
           !qc_is_beyond(header, disk_bytes, place->l1_off, QC_U(place->l1_entries) * ENTRY_BYTES);
}

/* Whether the table can be read at all, and which entries are short. */
static qc_status check_snapshots(struct qc_refs *refs)
{
    const struct qc_header *header = &refs->image->top.header;
    uint64_t off = header->snapshots_off;

    /* Those over the limit cannot be looked at: they are damage once they are to go. */
    if (header->snapshots_over > 0 && !refs->is_lenient) {
        refs->check_errors++;
        return QC_OK;
    }
    refs->corruptions += header->snapshots_over;
    for (uint32_t i = 0; i < header->snapshots_count; i++) {
        struct qc_snapshot_place place;
        qc_status status = qc_snapshot_place(refs->image, &off, &place);

        if (status != QC_OK)
            return status;
        if (place.extra_bytes > QC_SNAPSHOT_EXTRA_BYTES_MAX ||
            off - header->snapshots_off > QC_SNAPSHOT_TABLE_BYTES_MAX) {
            refs->check_errors++;
            refs->needs_snapshots = true;
            break;
        }
        if (header->version >= 3 && place.extra_bytes < SNAPSHOT_EXTRA_MIN) {
            refs->corruptions++;
            refs->needs_snapshots = true;
        }
    }
    return QC_OK;
}

static qc_status count_snapshots(struct qc_refs *refs)
{
    const struct qc_header *header = &refs->image->top.header;
    uint64_t off = header->snapshots_off;

    refs->snapshots_bytes = 0;
    if (header->snapshots_count == 0) /* their place may be anywhere then */
        return QC_OK;
    if (header->incompatible & QC_INCOMPATIBLE_DATA_FILE)
        refs->corruptions++;
    for (uint32_t i = 0; i < header->snapshots_count; i++) {
        struct qc_snapshot_place place;
        qc_status status = qc_snapshot_place(refs->image, &off, &place);

        if (status != QC_OK)
            return status;
        if (!qc_is_place_whole(header, refs->image->top.disk->size_bytes, &place))
            refs->needs_snapshots = true;
        if (!qc_is_place_walkable(header, &place)) {
            /* QEMU looks no further where there are no entries. */
            if (place.l1_entries > 0 || !qc_is_aligned(place.l1_off, header->cluster_bytes))
                refs->corruptions++;
            continue;
        }
        status = count_l1(refs, place.l1_off, place.l1_entries);
        if (status != QC_OK)
            return status;
    }
    /* What a length out of all bounds adds to the table is not looked for on the disk. */
    if (refs->is_lenient)
        off = qc_min(off, refs->image->top.disk->size_bytes);
    refs->snapshots_bytes = off - header->snapshots_off;
    add(refs, header->snapshots_off, refs->snapshots_bytes);
    return QC_OK;
}

static void count_bitmap_entry(struct qc_refs *refs, uint64_t entry)
{
    const struct qc_header *header = &refs->image->top.header;
    uint64_t host_off = entry & QC_ENTRY_OFFSET_MASK;

    if ((entry & BITMAP_RESERVED_MASK) ||
        (host_off != 0 && ((entry & 1) || !qc_is_aligned(entry, header->cluster_bytes))))
        refs->corruptions++;
    else if (host_off != 0)
        add(refs, host_off, header->cluster_bytes);
}

/* One bitmap's table of clusters. */
static qc_status count_bitmap(struct qc_refs *refs, uint64_t table_off, uint32_t entries)
{
    uint32_t per_piece = refs->scratch->tables_bytes / ENTRY_BYTES;

    add(refs, table_off, QC_U(entries) * ENTRY_BYTES);
    for (uint32_t done = 0; done < entries; done += per_piece) {
        uint32_t here = (uint32_t)qc_min(per_piece, entries - done);
        qc_status status = qc_raw_read(refs->image, table_off + QC_U(done) * ENTRY_BYTES,
                                       refs->scratch->tables, here * ENTRY_BYTES);

        if (status != QC_OK)
            return status;
        for (uint32_t i = 0; i < here; i++)
            count_bitmap_entry(refs, qc_be64(refs->scratch->tables + i * ENTRY_BYTES));
    }
    return QC_OK;
}

/* "Bitmap directory": whether an entry's fields fit together. */
static bool is_bitmap_valid(const struct qc_image *image, const uint8_t *entry)
{
    uint64_t table_off = qc_be64(entry);
    uint64_t bytes = QC_U(qc_be32(entry + 8)) << image->top.header.cluster_bits;
    uint32_t shift = entry[17];
    uint32_t name_bytes = qc_be32(entry + 16) & 0xffff;

    return bytes != 0 && bytes <= BITMAP_BYTES_MAX && table_off != 0 &&
           qc_is_aligned(table_off, image->top.header.cluster_bytes) &&
           table_off < QC_HOST_BYTES_MAX && shift >= BITMAP_SHIFT_MIN &&
           shift <= BITMAP_SHIFT_MAX && (qc_be32(entry + 12) & ~BITMAP_FLAGS_KNOWN) == 0 &&
           name_bytes <= BITMAP_NAME_MAX && entry[16] == BITMAP_TYPE_DIRTY &&
           (bytes << 3) << shift >= qc_size(image);
}

/* The directory's entry at *off, which goes on behind it. */
static qc_status next_bitmap(struct qc_image *image, uint64_t *off, uint8_t *entry,
                             bool *ret_is_valid)
{
    const struct qc_header *header = &image->top.header;
    uint64_t len;
    qc_status status = qc_raw_read(image, *off, entry, BITMAP_ENTRY_BYTES);

    if (status != QC_OK)
        return status;
    len = QC_U(BITMAP_ENTRY_BYTES) + (qc_be32(entry + 16) & 0xffff) + qc_be32(entry + 20);
    *off += (len + 7) & ~QC_U(7);
    *ret_is_valid =
        *off <= header->bitmap_dir_off + header->bitmap_dir_bytes && is_bitmap_valid(image, entry);
    return QC_OK;
}

/* How many the directory is to have; none where another program wrote the image since. */
static uint32_t bitmaps_count(const struct qc_image *image)
{
    const struct qc_header *header = &image->top.header;

    return header->autoclear & QC_AUTOCLEAR_BITMAPS ? header->bitmaps_count : 0;
}

static qc_status count_bitmaps(struct qc_refs *refs)
{
    const struct qc_header *header = &refs->image->top.header;
    uint64_t off = header->bitmap_dir_off, corruptions = refs->corruptions;
    uint32_t count = bitmaps_count(refs->image);
    uint8_t entry[BITMAP_ENTRY_BYTES];
    qc_status status = QC_OK;

    if (count > 0)
        add(refs, off, header->bitmap_dir_bytes);
    for (uint32_t i = 0; i < count && status == QC_OK; i++) {
        bool is_valid;

        status = next_bitmap(refs->image, &off, entry, &is_valid);
        if (status == QC_OK && !is_valid) {
            refs->corruptions++;
            refs->check_errors++;
            break;
        }
        if (status == QC_OK)
            status = count_bitmap(refs, qc_be64(entry), qc_be32(entry + 8));
    }
    refs->needs_bitmaps = refs->corruptions != corruptions;
    return status;
}

qc_status qc_refs_look_at_bitmaps(struct qc_image *image, uint32_t reads_max)
{
    const struct qc_header *header = &image->top.header;
    uint64_t off = header->bitmap_dir_off;
    uint32_t count = bitmaps_count(image);
    uint8_t entry[BITMAP_ENTRY_BYTES];
    qc_status status = QC_OK;

    for (uint32_t i = 0; i < count && i < reads_max && status == QC_OK; i++) {
        bool is_valid;

        status = next_bitmap(image, &off, entry, &is_valid);
        /* Extra data is for those who know it. */
        if (status == QC_OK &&
            (!is_valid || qc_be32(entry + 20) != 0 ||
             (i == count - 1 && off != header->bitmap_dir_off + header->bitmap_dir_bytes)))
            return qc_fail(&image->detail, QC_CORRUPT, "bitmap %u of the directory invalid",
                           QC_U(i));
    }
    return status;
}

/* An entry of the refcount table. */
static void count_block(struct qc_refs *refs, uint64_t root)
{
    const struct qc_header *header = &refs->image->top.header;
    uint64_t cluster = root >> header->cluster_bits;

    if ((root & ROOT_RESERVED_MASK) != 0 || !qc_is_aligned(root, header->cluster_bytes) ||
        cluster >= refs->clusters) {
        refs->corruptions++;
        refs->needs_rebuild = true;
        return;
    }
    add(refs, root, header->cluster_bytes);
    if (cluster - refs->tally->first < refs->tally->count &&
        qc_tally_get(refs->tally, cluster) != 1) {
        refs->corruptions_in_window++;
        refs->needs_rebuild = true;
    }
}

static qc_status count_blocks(struct qc_refs *refs)
{
    const struct qc_header *header = &refs->image->top.header;
    uint64_t table_bytes = QC_U(header->reftable_clusters) << header->cluster_bits;
    uint64_t len;

    add(refs, header->reftable_off, table_bytes);
    for (uint64_t done = 0; done < table_bytes; done += len) {
        qc_status status;

        len = qc_min(refs->scratch->tables_bytes, table_bytes - done);
        status = qc_raw_read(refs->image, header->reftable_off + done, refs->scratch->tables,
                             (size_t)len);
        if (status != QC_OK)
            return status;
        for (uint64_t off = 0; off < len; off += ENTRY_BYTES) {
            uint64_t root = qc_be64(refs->scratch->tables + off);

            if (root == 0)
                continue;
            count_block(refs, root);
            refs->stored_end = ((done + off) / ENTRY_BYTES + 1) << qc_block_reach_bits(refs->image);
        }
    }
    return QC_OK;
}

qc_status qc_refs_count(struct qc_refs *refs)
{
    const struct qc_header *header = &refs->image->top.header;
    qc_status status;

    refs->clusters = qc_units(refs->image->top.disk->size_bytes, header->cluster_bits);
    refs->end = refs->beyond_end = refs->stored_end = 0;
    refs->corruptions = refs->check_errors = refs->corruptions_in_window = 0;
    refs->allocated = refs->fragmented = refs->compressed = 0;
    refs->needs_rebuild = refs->needs_entries = refs->needs_snapshots = refs->needs_bitmaps = false;
    status = check_snapshots(refs);
    if (status != QC_OK || (refs->check_errors > 0 && !refs->is_lenient))
        return status;
    add(refs, 0, header->cluster_bytes);
    add(refs, refs->copies_off, refs->copies_bytes);
    refs->is_active = true;
    status = count_l1(refs, header->l1_off, header->l1_entries);
    refs->is_active = false;
    if (status == QC_OK)
        status = count_snapshots(refs);
    if (status == QC_OK)
        status = count_bitmaps(refs);
    if (status == QC_OK)
        status = count_blocks(refs);
    return status;
}
