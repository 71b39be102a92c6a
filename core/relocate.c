/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See relocate.h. A place is found by looking window by window for clusters that nothing refers to,
 * one behind the other: not even a damaged entry may name what becomes a table here, which is why
 * references behind the disk's end are looked at as well.
 *
 * The new refcount structures lie in one piece: blocks first, for all clusters up to the last one
 * in use, then their table.
 */
#include "relocate.h"

#include "bytes.h"
#include "counts.h"

#define HEADER_POINTERS_OFF   48u /* refcount table, its clusters, snapshots, their table */
#define HEADER_POINTERS_BYTES 24u

#define WINDOWS_BEHIND_MAX 4u  /* how far behind the disk's end a place is looked for */
#define PLAN_ROUNDS_MAX    64u /* each at least halves what is missing */

#define EXTRA_MIN_V3 16u
#define EXTRA_BYTES  24u /* what an entry that is too short gets */
#define COPY_BYTES   256u

qc_status qc_repair_go_on(const struct qc_repair *repair, uint64_t l1_index)
{
    return repair->go_on(repair->context, l1_index) ? QC_OK : QC_RANGE;
}

/* Tells up the window that starts at first. */
static qc_status count(struct qc_repair *repair, uint64_t first, uint64_t end, bool wants_tables,
                       bool is_wide)
{
    const struct qc_header *header = &repair->image->top.header;
    size_t half_bytes = repair->scratch->bytes_count / 2 & ~(size_t)(QC_PAGE_BYTES - 1);

    repair->halves[0] = repair->halves[1] = *repair->scratch;
    if (wants_tables) {
        repair->halves[0].bytes_count = repair->halves[1].bytes_count = half_bytes;
        repair->halves[1].bytes += half_bytes;
        qc_tally_begin(&repair->tables, &repair->halves[1], repair->findings->width, first, end);
    }
    qc_tally_begin(&repair->tally, &repair->halves[0], repair->findings->width, first, end);
    repair->refs = (struct qc_refs){.image = repair->image,
                                    .scratch = repair->scratch,
                                    .tally = &repair->tally,
                                    .tables = wants_tables ? &repair->tables : NULL,
                                    .is_wide = is_wide,
                                    .is_lenient = true,
                                    .copies_off = repair->copies_first << header->cluster_bits,
                                    .copies_bytes = repair->copies_count << header->cluster_bits,
                                    .go_on = repair->go_on,
                                    .context = repair->context};
    return qc_refs_count(&repair->refs);
}

qc_status qc_repair_windows(struct qc_repair *repair, qc_status (*action)(struct qc_repair *repair),
                            bool wants_tables)
{
    const struct qc_refs *refs = &repair->refs;
    uint64_t end =
        qc_units(repair->image->top.disk->size_bytes, repair->image->top.header.cluster_bits) + 1;
    bool is_counted = false;

    /* What is counted already is so without tables. */
    if (wants_tables)
        repair->is_counted = false;
    if (repair->is_counted)
        return action(repair);
    for (uint64_t first = 0; first < end; first += repair->tally.count) {
        qc_status status = count(repair, first, end, wants_tables, false);

        if (status != QC_OK)
            return status;
        end = qc_min(refs->clusters, refs->end > refs->stored_end ? refs->end : refs->stored_end);
        repair->tally.count = qc_min(repair->tally.count, end - first);
        is_counted = first == 0 && repair->tally.count == end && !wants_tables;
        status = action(repair);
        if (status != QC_OK)
            return status;
    }
    repair->is_counted = is_counted;
    return QC_OK;
}

/* How many clusters are wanted, if they start at first; 0: more than can be. */
typedef uint64_t wanted_from(const struct qc_repair *repair, uint64_t first);

/* Finds a place for as many clusters as wanted. */
static qc_status find_place(struct qc_repair *repair, wanted_from *wanted, uint64_t *ret_first,
                            uint64_t *ret_count)
{
    struct qc_disk *disk = repair->image->top.disk;
    unsigned cluster_bits = repair->image->top.header.cluster_bits;
    bool can_grow = disk->ops->grow != NULL;
    uint64_t disk_end = disk->size_bytes >> cluster_bits;
    uint64_t end = can_grow ? QC_HOST_BYTES_MAX >> cluster_bits : disk_end;
    uint64_t first = 0, run = 0, need = 0;
    unsigned windows_behind = 0;

    for (uint64_t at = 0; at < end && windows_behind < WINDOWS_BEHIND_MAX;
         at += repair->tally.count) {
        qc_status status = count(repair, at, end, false, true);

        if (status != QC_OK)
            return status;
        /* What names a place behind the end, and stays, must not find one there. */
        if (!repair->findings->may_drop && repair->refs.beyond_end > 0)
            end = disk_end;
        windows_behind += at >= disk_end;
        for (uint64_t i = 0; i < repair->tally.count && at + i < end; i++) {
            if (qc_tally_get(&repair->tally, at + i) != 0) {
                run = 0;
                continue;
            }
            if (run++ == 0) {
                first = at + i;
                need = wanted(repair, first);
            }
            if (need == 0)
                return QC_NOSPACE;
            if (run < need)
                continue;
            *ret_first = first;
            *ret_count = need;
            if (!can_grow || (first + need) << cluster_bits <= disk->size_bytes)
                return QC_OK;
            return disk->ops->grow(disk, (first + need) << cluster_bits);
        }
    }
    return QC_NOSPACE;
}

static qc_status take_place(struct qc_repair *repair, wanted_from *wanted, uint64_t *ret_first,
                            uint64_t *ret_count)
{
    qc_status status = find_place(repair, wanted, ret_first, ret_count);

    repair->is_counted = false;
    if (status == QC_NOSPACE)
        return qc_fail(&repair->image->detail, status, "no space for new tables");
    return status;
}

static uint64_t wanted_fixed(const struct qc_repair *repair, uint64_t first)
{
    (void)first;
    return repair->wanted;
}

qc_status qc_relocate_place(struct qc_repair *repair, uint64_t clusters, uint64_t *ret_first)
{
    repair->wanted = clusters;
    return take_place(repair, wanted_fixed, ret_first, &clusters);
}

/* Blocks that count all clusters below end. */
static uint64_t blocks_for(const struct qc_repair *repair, uint64_t end)
{
    return qc_units(end, qc_block_reach_bits(repair->image));
}

static uint64_t table_for(const struct qc_repair *repair, uint64_t blocks)
{
    return qc_units(blocks * 8, repair->image->top.header.cluster_bits);
}

static uint64_t wanted_counts(const struct qc_repair *repair, uint64_t first)
{
    uint64_t want = 1;

    for (unsigned round = 0; round < PLAN_ROUNDS_MAX; round++) {
        uint64_t end = repair->refs.end > first + want ? repair->refs.end : first + want;
        uint64_t blocks = blocks_for(repair, end);

        if (blocks * 8 > QC_REFTABLE_BYTES_MAX)
            return 0;
        if (blocks + table_for(repair, blocks) <= want)
            return want;
        want = blocks + table_for(repair, blocks);
    }
    return 0;
}

static qc_status write_zeros(struct qc_image *image, uint64_t host_off, uint64_t len)
{
    uint64_t piece = qc_min(image->cache->staging_bytes, len);
    qc_status status = QC_OK;

    __builtin_memset(image->cache->staging, 0, piece);
    for (uint64_t done = 0; done < len && status == QC_OK; done += piece) {
        piece = qc_min(piece, len - done);
        status = qc_raw_write(image, host_off + done, image->cache->staging, (size_t)piece);
    }
    return status;
}

/* The table: one block behind the other. */
static qc_status write_roots(struct qc_repair *repair, uint64_t first_block, uint64_t blocks,
                             uint64_t table_off, uint64_t table_bytes)
{
    struct qc_image *image = repair->image;
    uint64_t len;

    for (uint64_t done = 0; done < table_bytes; done += len) {
        qc_status status;

        len = qc_min(image->cache->staging_bytes, table_bytes - done);
        for (uint64_t off = 0; off < len; off += 8) {
            uint64_t index = (done + off) / 8;
            uint64_t host_off = (first_block + index) << image->top.header.cluster_bits;

            qc_put_be64(image->cache->staging + off, index < blocks ? host_off : 0);
        }
        status = qc_raw_write(image, table_off + done, image->cache->staging, (size_t)len);
        if (status != QC_OK)
            return status;
    }
    return QC_OK;
}

qc_status qc_relocate_counts(struct qc_repair *repair)
{
    struct qc_image *image = repair->image;
    unsigned cluster_bits = image->top.header.cluster_bits;
    uint64_t first, want, blocks, table, end;
    qc_status status = take_place(repair, wanted_counts, &first, &want);

    if (status != QC_OK)
        return status;
    end = repair->refs.end > first + want ? repair->refs.end : first + want;
    blocks = blocks_for(repair, end);
    table = table_for(repair, blocks);
    status = write_zeros(image, first << cluster_bits, blocks << cluster_bits);
    if (status == QC_OK)
        status = write_roots(repair, first, blocks, (first + blocks) << cluster_bits,
                             table << cluster_bits);
    if (status != QC_OK)
        return status;
    image->top.header.reftable_off = (first + blocks) << cluster_bits;
    image->top.header.reftable_clusters = (uint32_t)table;
    return QC_OK;
}

/* ---- the snapshot table ---- */

/* Bytes of extra data that an entry will have. */
static uint32_t extra_for(const struct qc_repair *repair, const struct qc_snapshot_place *place)
{
    if (repair->image->top.header.version >= 3 && place->extra_bytes < EXTRA_MIN_V3)
        return EXTRA_BYTES;
    return (uint32_t)qc_min(place->extra_bytes, QC_SNAPSHOT_EXTRA_BYTES_MAX);
}

/* How many entries stay, and the bytes of their table. */
static QC_APART qc_status measure(struct qc_repair *repair, uint32_t *ret_count,
                                  uint64_t *ret_bytes)
{
    const struct qc_header *header = &repair->image->top.header;
    uint64_t off = header->snapshots_off, bytes = 0;
    uint32_t i;

    for (i = 0; i < header->snapshots_count; i++) {
        struct qc_snapshot_place place;
        qc_status status = qc_snapshot_place(repair->image, &off, &place);
        uint64_t end;

        if (status != QC_OK)
            return status;
        end = ((bytes + 7) & ~QC_U(7)) + QC_SNAPSHOT_HEAD_BYTES + extra_for(repair, &place) +
              place.strings_bytes;
        if (end > QC_SNAPSHOT_TABLE_BYTES_MAX)
            break;
        bytes = end;
    }
    *ret_count = i;
    *ret_bytes = bytes;
    return QC_OK;
}

/* Bytes on their way into a table; they gather in the staging buffer. */
struct stream {
    struct qc_image *image;
    uint64_t host_off;
    uint32_t fill;
};

static qc_status put(struct stream *stream, const uint8_t *bytes, uint32_t len)
{
    struct qc_cache *cache = stream->image->cache;

    for (uint32_t done = 0; done < len;) {
        uint32_t part = (uint32_t)qc_min(len - done, cache->staging_bytes - stream->fill);
        qc_status status = QC_OK;

        __builtin_memcpy(cache->staging + stream->fill, bytes + done, part);
        stream->fill += part;
        done += part;
        if (stream->fill == cache->staging_bytes) {
            status = qc_raw_write(stream->image, stream->host_off, cache->staging, stream->fill);
            stream->host_off += stream->fill;
            stream->fill = 0;
        }
        if (status != QC_OK)
            return status;
    }
    return QC_OK;
}

static qc_status copy(struct stream *stream, uint64_t from_off, uint32_t len)
{
    uint8_t bytes[COPY_BYTES];
    qc_status status = QC_OK;

    for (uint32_t done = 0; done < len && status == QC_OK; done += sizeof(bytes)) {
        uint32_t part = (uint32_t)qc_min(sizeof(bytes), len - done);

        status = qc_raw_read(stream->image, from_off + done, bytes, part);
        if (status == QC_OK)
            status = put(stream, bytes, part);
    }
    return status;
}

/* Zeros to the next multiple, which is a power of two. */
static qc_status pad(struct stream *stream, uint32_t multiple)
{
    static const uint8_t zero[1];
    qc_status status = QC_OK;

    while (status == QC_OK && (stream->fill & (multiple - 1)) != 0)
        status = put(stream, zero, sizeof(zero));
    return status;
}

/* One entry, with as much extra data as it shall have. */
static QC_APART qc_status put_entry(struct qc_repair *repair, struct stream *stream,
                                    const struct qc_snapshot_place *place)
{
    uint8_t head[QC_SNAPSHOT_HEAD_BYTES], extra[EXTRA_BYTES];
    uint32_t extra_bytes = extra_for(repair, place);
    uint64_t extra_off = place->host_off + QC_SNAPSHOT_HEAD_BYTES;
    qc_status status = qc_raw_read(repair->image, place->host_off, head, sizeof(head));

    if (status == QC_OK)
        status = qc_raw_read(repair->image, extra_off, extra, sizeof(extra));
    if (status != QC_OK)
        return status;
    qc_put_be32(head + 36, extra_bytes);
    if (repair->findings->may_drop &&
        !qc_is_place_whole(&repair->image->top.header, repair->disk_bytes, place))
        __builtin_memset(head, 0, 8 + 4); /* its L1 table and the entries of it */
    status = put(stream, head, sizeof(head));
    if (status == QC_OK && extra_bytes <= place->extra_bytes) {
        status = copy(stream, extra_off, extra_bytes);
    } else if (status == QC_OK) {
        /* Size of the VM state, of the disk, and the count of instructions, which is not kept. */
        if (place->extra_bytes < 8)
            qc_put_be64(extra, qc_be32(head + 32));
        qc_put_be64(extra + 8, qc_size(repair->image));
        qc_put_be64(extra + 16, UINT64_MAX);
        status = put(stream, extra, sizeof(extra));
    }
    if (status == QC_OK)
        status = copy(stream, extra_off + place->extra_bytes, place->strings_bytes);
    return status == QC_OK ? pad(stream, 8) : status;
}

qc_status qc_relocate_snapshots(struct qc_repair *repair)
{
    struct qc_header *header = &repair->image->top.header;
    uint64_t off = header->snapshots_off, bytes, first = 0;
    struct stream stream = {.image = repair->image};
    uint32_t snapshots_count;
    qc_status status = measure(repair, &snapshots_count, &bytes);

    if (status == QC_OK && bytes > 0)
        status = qc_relocate_place(repair, qc_units(bytes, header->cluster_bits), &first);
    stream.host_off = first << header->cluster_bits;
    for (uint32_t i = 0; status == QC_OK && i < snapshots_count; i++) {
        struct qc_snapshot_place place;

        status = qc_snapshot_place(repair->image, &off, &place);
        if (status == QC_OK)
            status = put_entry(repair, &stream, &place);
    }
    if (status == QC_OK)
        status = pad(&stream, repair->image->top.disk->block_bytes);
    if (status == QC_OK && stream.fill > 0)
        status = qc_raw_write(repair->image, stream.host_off, repair->image->cache->staging,
                              stream.fill);
    if (status != QC_OK)
        return status;
    header->snapshots_count = snapshots_count;
    header->snapshots_off = first << header->cluster_bits;
    repair->is_counted = false;
    return QC_OK;
}

static void put_pointers(const struct qc_header *header, uint8_t *pointers)
{
    qc_put_be64(pointers, header->reftable_off);
    qc_put_be32(pointers + 8, header->reftable_clusters);
    qc_put_be32(pointers + 12, header->snapshots_count + header->snapshots_over);
    qc_put_be64(pointers + 16, header->snapshots_off);
}

qc_status qc_relocate_switch(struct qc_repair *repair)
{
    const struct qc_header *header = &repair->image->top.header;
    uint8_t pointers[HEADER_POINTERS_BYTES], old_pointers[HEADER_POINTERS_BYTES];
    qc_status status;

    put_pointers(header, pointers);
    put_pointers(&repair->header, old_pointers);
    if (__builtin_memcmp(pointers, old_pointers, sizeof(pointers)) == 0)
        return QC_OK;
    status = qc_raw_patch_header(repair->image, HEADER_POINTERS_OFF, pointers, sizeof(pointers));
    if (status == QC_OK)
        repair->header = *header;
    return status;
}

void qc_relocate_undo(struct qc_repair *repair)
{
    struct qc_header *header = &repair->image->top.header;

    header->reftable_off = repair->header.reftable_off;
    header->reftable_clusters = repair->header.reftable_clusters;
    header->snapshots_count = repair->header.snapshots_count;
    header->snapshots_over = repair->header.snapshots_over;
    header->snapshots_off = repair->header.snapshots_off;
}
