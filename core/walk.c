/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See walk.h. One loop over an L1 table in pieces that lie in the scratch, and for each entry that
 * is followed one over its L2 table in pieces that lie in the staging buffer. A piece that was
 * changed goes back with one write, from its first changed block to its last.
 */
#include "walk.h"

#include "blank.h"
#include "bytes.h"
#include "table.h"

#define ENTRY_BYTES      8u
#define L1_RESERVED_MASK UINT64_C(0x7f000000000001ff)
#define L2_RESERVED_MASK UINT64_C(0x3f000000000001fe)
#define TABLES_PER_PAGES 8u /* the tables' share of the scratch */
#define TABLES_PAGES_MAX 16u

void qc_scratch_borrow(struct qc_image *image, struct qc_scratch *ret_scratch)
{
    struct qc_cache *cache = image->cache;
    uint32_t tables_pages =
        (uint32_t)qc_min(cache->pages_count / TABLES_PER_PAGES, TABLES_PAGES_MAX - 1) + 1;

    qc_cache_reset(cache);
    qc_blank_forget_all(image);
    ret_scratch->tables = cache->pages;
    ret_scratch->tables_bytes = tables_pages * QC_PAGE_BYTES;
    ret_scratch->bytes = cache->pages + ret_scratch->tables_bytes;
    ret_scratch->bytes_count = (size_t)(cache->pages_count - tables_pages) * QC_PAGE_BYTES;
}

void qc_scratch_return(struct qc_image *image)
{
    qc_cache_reset(image->cache);
}

qc_status qc_raw_read(struct qc_image *image, uint64_t host_off, uint8_t *buf, size_t len)
{
    struct qc_disk *disk = image->top.disk;
    size_t here = 0;
    qc_status status;

    if (host_off < disk->size_bytes)
        here = (size_t)qc_min(len, disk->size_bytes - host_off);
    __builtin_memset(buf + here, 0, len - here);
    if (here == 0)
        return QC_OK;
    status = disk->ops->read(disk, host_off, buf, here);
    if (status != QC_OK)
        return qc_fail(&image->detail, status, "table at %x cannot be read", host_off);
    return QC_OK;
}

qc_status qc_raw_write(struct qc_image *image, uint64_t host_off, const uint8_t *buf, size_t len)
{
    struct qc_disk *disk = image->top.disk;
    qc_status status;

    if (!qc_is_inside(host_off, len, disk->size_bytes))
        return qc_fail(&image->detail, QC_RANGE, "table at %x lies outside the disk", host_off);
    image->is_unflushed = true;
    status = disk->ops->write(disk, host_off, buf, len);
    if (status != QC_OK)
        return qc_fail(&image->detail, status, "table at %x cannot be written", host_off);
    return QC_OK;
}

qc_status qc_raw_patch_header(struct qc_image *image, uint32_t host_off, const uint8_t *bytes,
                              uint32_t bytes_count)
{
    uint8_t *staging = image->cache->staging;
    uint32_t block_bytes = image->top.disk->block_bytes;
    qc_status status = qc_raw_read(image, 0, staging, block_bytes);

    if (status != QC_OK)
        return status;
    __builtin_memcpy(staging + host_off, bytes, bytes_count);
    return qc_raw_write(image, 0, staging, block_bytes);
}

/* A part of a table in memory, and which of its bytes were changed. */
struct piece {
    uint8_t *bytes;
    uint64_t host_off;
    uint32_t len;
    uint32_t from, to; /* changed; from == to: none */
};

static void note_change(struct piece *piece, uint32_t off, uint32_t len)
{
    if (piece->from == piece->to)
        piece->from = off;
    piece->to = off + len; /* ascending */
}

/* Writes the blocks that were changed. Whole blocks of a table are in memory, where it has them. */
static qc_status store_piece(struct qc_image *image, const struct piece *piece)
{
    uint32_t block_mask = image->top.disk->block_bytes - 1;
    uint32_t from = piece->from & ~block_mask;
    uint64_t to = (piece->to + block_mask) & ~QC_U(block_mask);

    if (piece->from == piece->to)
        return QC_OK;
    to = qc_min(to, image->top.disk->size_bytes - piece->host_off);
    return qc_raw_write(image, piece->host_off + from, piece->bytes + from, (size_t)(to - from));
}

void qc_packed_span(const struct qc_header *header, uint64_t entry, uint64_t *ret_host_off,
                    uint32_t *ret_len)
{
    unsigned sectors_bits = header->cluster_bits - 8;
    unsigned off_bits = 62 - sectors_bits;
    uint64_t host_off = entry & ((QC_U(1) << off_bits) - 1);
    uint64_t sectors = (entry >> off_bits) & ((QC_U(1) << sectors_bits) - 1);

    *ret_host_off = host_off;
    *ret_len = (uint32_t)((sectors + 1) * QC_SECTOR_BYTES - (host_off & (QC_SECTOR_BYTES - 1)));
}

/* What is wrong with the place that an item names. */
static void check_place(const struct qc_image *image, struct qc_walk_item *item)
{
    const struct qc_header *header = &image->top.header;

    if (item->host_off >= image->top.disk->size_bytes)
        item->flaws |= QC_FLAW_OUTSIDE;
    if (qc_is_header_structure(image, 0, item->host_off >> header->cluster_bits))
        item->flaws |= QC_FLAW_STRUCTURE;
}

static void parse_l1(const struct qc_image *image, struct qc_walk_item *item)
{
    const struct qc_header *header = &image->top.header;

    item->host_off = item->entry & QC_ENTRY_OFFSET_MASK;
    item->host_len = header->cluster_bytes;
    if (item->entry & L1_RESERVED_MASK)
        item->flaws |= QC_FLAW_RESERVED;
    if (!qc_is_aligned(item->host_off, header->cluster_bytes))
        item->flaws |= QC_FLAW_UNALIGNED;
    if (item->host_off != 0)
        check_place(image, item);
    item->is_followed = item->flaws == 0 && item->host_off != 0;
}

/* Whether the parts of an entry that is not compressed go together. */
static bool is_contradictory(const struct qc_header *header, const struct qc_walk_item *item)
{
    uint64_t allocated = item->bitmap & QC_SUBS_ALLOCATED;

    if (!qc_has_subclusters(header))
        return header->version < 3 && (item->entry & QC_ENTRY_ZERO);
    return (allocated & (item->bitmap >> QC_SUBCLUSTERS)) != 0 ||
           (allocated != 0 && (item->entry & QC_ENTRY_OFFSET_MASK) == 0 &&
            !(header->incompatible & QC_INCOMPATIBLE_DATA_FILE));
}

static void parse_l2(const struct qc_image *image, struct qc_walk_item *item)
{
    const struct qc_header *header = &image->top.header;
    bool has_data_file = (header->incompatible & QC_INCOMPATIBLE_DATA_FILE) != 0;
    uint64_t reserved = L2_RESERVED_MASK | (qc_has_subclusters(header) ? QC_ENTRY_ZERO : 0);

    if (item->entry & QC_ENTRY_COMPRESSED) {
        qc_packed_span(header, item->entry, &item->host_off, &item->host_len);
        if ((item->entry & QC_ENTRY_COPIED) || item->bitmap != 0 || has_data_file ||
            item->host_off == 0 || item->host_off >= QC_HOST_BYTES_MAX)
            item->flaws |= QC_FLAW_INVALID;
        check_place(image, item);
        return;
    }
    if (item->entry & reserved)
        item->flaws |= QC_FLAW_RESERVED;
    if (is_contradictory(header, item))
        item->flaws |= QC_FLAW_INVALID;
    item->host_off = item->entry & QC_ENTRY_OFFSET_MASK;
    item->host_len = header->cluster_bytes;
    if (!qc_is_aligned(item->host_off, header->cluster_bytes))
        item->flaws |= QC_FLAW_UNALIGNED;
    if (has_data_file)
        item->host_off = 0;
    if (item->host_off != 0)
        check_place(image, item);
    else
        item->host_len = 0;
}

/* Shows the visitor every entry of a piece of an L2 table; first is the piece's first cluster. */
static qc_status visit_piece(struct qc_walk *walk, struct piece *piece, uint64_t first)
{
    const struct qc_header *header = &walk->image->top.header;
    uint32_t entry_bytes = ENTRY_BYTES << qc_l2_words_bits(header);

    for (uint32_t off = 0; off < piece->len; off += entry_bytes) {
        struct qc_walk_item item = {.index = first + off / entry_bytes};
        uint64_t entry = qc_be64(piece->bytes + off);
        uint64_t bitmap = qc_has_subclusters(header) ? qc_be64(piece->bytes + off + 8) : 0;
        qc_status status;

        if (entry == 0 && bitmap == 0)
            continue;
        item.entry = entry;
        item.bitmap = bitmap;
        parse_l2(walk->image, &item);
        status = walk->visit_l2(walk, &item);
        if (status != QC_OK)
            return status;
        if (item.entry == entry && item.bitmap == bitmap)
            continue;
        qc_put_be64(piece->bytes + off, item.entry);
        if (qc_has_subclusters(header))
            qc_put_be64(piece->bytes + off + 8, item.bitmap);
        note_change(piece, off, entry_bytes);
    }
    return QC_OK;
}

static qc_status walk_l2(struct qc_walk *walk, const struct qc_walk_item *l1)
{
    struct qc_image *image = walk->image;
    const struct qc_header *header = &image->top.header;
    uint32_t entry_bytes = ENTRY_BYTES << qc_l2_words_bits(header);
    uint64_t first = l1->index << (qc_l2_reach_bits(header) - header->cluster_bits);

    for (uint32_t off = 0; off < header->cluster_bytes;) {
        struct piece piece = {.bytes = image->cache->staging, .host_off = l1->host_off + off};
        qc_status status;

        piece.len = (uint32_t)qc_min(image->cache->staging_bytes, header->cluster_bytes - off);
        status = qc_raw_read(image, piece.host_off, piece.bytes, piece.len);
        if (status == QC_OK)
            status = visit_piece(walk, &piece, first + off / entry_bytes);
        if (status == QC_OK && l1->flaws == 0 && l1->host_off != 0)
            status = store_piece(image, &piece);
        if (status != QC_OK)
            return status;
        off += piece.len;
    }
    return QC_OK;
}

/* One entry of the L1 table, and what hangs on it. */
static qc_status walk_entry(struct qc_walk *walk, struct piece *piece, uint32_t off, uint64_t index)
{
    struct qc_walk_item item = {.index = index, .entry = qc_be64(piece->bytes + off)};
    uint64_t entry = item.entry;
    qc_status status;

    if (entry == 0)
        return QC_OK;
    parse_l1(walk->image, &item);
    status = walk->visit_l1(walk, &item);
    if (status == QC_OK && item.entry != entry) {
        qc_put_be64(piece->bytes + off, item.entry);
        note_change(piece, off, ENTRY_BYTES);
    }
    if (status == QC_OK && item.is_followed)
        status = walk_l2(walk, &item);
    return status;
}

qc_status qc_walk_run(struct qc_walk *walk)
{
    struct qc_image *image = walk->image;
    uint64_t table_bytes = QC_U(walk->l1_entries) * ENTRY_BYTES;
    uint32_t block_mask = image->top.disk->block_bytes - 1;
    uint64_t done = 0;

    while (done < table_bytes) {
        struct piece piece = {.bytes = walk->scratch->tables, .host_off = walk->l1_off + done};
        uint32_t len = (uint32_t)qc_min(walk->scratch->tables_bytes, table_bytes - done);
        qc_status status;

        /* To the end of the last block, which a change writes whole. */
        piece.len = (len + block_mask) & ~block_mask;
        status = qc_raw_read(image, piece.host_off, piece.bytes, piece.len);
        for (uint32_t off = 0; off < len && status == QC_OK; off += ENTRY_BYTES)
            status = walk_entry(walk, &piece, off, (done + off) / ENTRY_BYTES);
        if (status == QC_OK)
            status = store_piece(image, &piece);
        if (status != QC_OK)
            return status;
        done += len;
    }
    return QC_OK;
}
