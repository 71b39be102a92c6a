/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Looks one run of the guest disk up. In one layer the walk goes slice by slice: an L1 entry, then
 * as many L2 entries as its slice holds; the run grows while entries say the same and, for data,
 * while each cluster lies right behind the one before it. In the image itself a record of the epoch
 * hides the entry of the disk. What a layer does not have is asked of the next one below.
 */
#include "map.h"

#include "blank.h"
#include "bytes.h"
#include "seeded.h"
#include "sure.h"
#include "table.h"

#define WORD_BYTES 8u
/* A hole in an overlay is not followed farther at a time: what lies below may end it at once. */
#define CHAIN_CLUSTERS_MAX 4096u

#define L1_RESERVED_MASK UINT64_C(0x7f000000000001ff)
#define L2_RESERVED_MASK UINT64_C(0x3f000000000001fe)

/* Guest bytes of one layer, whole sectors: QEMU rounds an image's size down, a raw disk's up. */
static uint64_t layer_size(const struct qc_layer *layer)
{
    if (layer->is_raw)
        return (layer->disk->size_bytes + QC_SECTOR_BYTES - 1) & ~QC_U(QC_SECTOR_BYTES - 1);
    return layer->header.guest_bytes & ~QC_U(QC_SECTOR_BYTES - 1);
}

uint64_t qc_size(const struct qc_image *image)
{
    return layer_size(&image->top);
}

uint64_t qc_l1_index(const struct qc_image *image, uint64_t guest_off)
{
    return guest_off >> qc_l2_reach_bits(&image->top.header);
}

qc_status qc_map_durable_l2(struct qc_image *image, unsigned depth, uint64_t guest_off,
                            uint64_t *ret_l2_off)
{
    const struct qc_layer *layer = &image->layers[depth];
    const struct qc_header *header = &layer->header;
    const uint8_t *entries;
    uint32_t entries_count;
    uint64_t entry, l2_off;
    qc_status status = qc_table_entries(
        image, depth, header->l1_off, QC_U(header->l1_entries) * WORD_BYTES,
        guest_off >> qc_l2_reach_bits(header), QC_HEAT_TOP, &entries, &entries_count);

    if (status != QC_OK)
        return status;
    entry = qc_be64(entries);
    l2_off = entry & QC_ENTRY_OFFSET_MASK;
    if (!qc_is_aligned(l2_off, header->cluster_bytes) ||
        (l2_off != 0 && qc_is_header_structure(image, depth, l2_off >> header->cluster_bits)))
        return qc_fail(&image->detail, depth == 0 ? qc_marked(image) : QC_CORRUPT,
                       "bad L1 entry %x at guest %x", entry, guest_off);
    if ((entry & L1_RESERVED_MASK) != 0 ||
        !qc_is_inside(l2_off, header->cluster_bytes, layer->disk->size_bytes))
        return qc_fail(&image->detail, QC_CORRUPT, "bad L1 entry %x at guest %x", entry, guest_off);
    *ret_l2_off = l2_off;
    return QC_OK;
}

/* The new L2 table that the epoch has for a guest offset, or NULL; only the image itself has any.
 */
static const struct qc_record *new_l2(const struct qc_image *image, unsigned depth,
                                      uint64_t guest_off)
{
    if (depth != 0 || image->epoch.kind_counts[QC_RECORD_L1] == 0)
        return NULL;
    return qc_epoch_find(&image->epoch, QC_RECORD_L1, qc_l1_index(image, guest_off));
}

/* The table to look entries up in: what a new table is a copy of, as long as it is not durable. */
static qc_status readable_l2(struct qc_image *image, unsigned depth, uint64_t guest_off,
                             uint64_t *ret_l2_off)
{
    const struct qc_record *l1 = new_l2(image, depth, guest_off);

    if (l1 == NULL)
        return qc_map_durable_l2(image, depth, guest_off, ret_l2_off);
    *ret_l2_off = (l1->flags & QC_RECORD_NEW) ? l1->place : l1->value;
    return QC_OK;
}

/* The key of the record for the first word of a cluster's entry; the second word's is the next. */
static uint64_t key_of(const struct qc_layer *layer, uint64_t guest_cluster)
{
    return guest_cluster << qc_l2_words_bits(&layer->header);
}

qc_status qc_map_place_entry(struct qc_image *image, struct qc_record *record)
{
    const struct qc_header *header = &image->top.header;
    uint64_t key = qc_record_key(record);
    uint64_t guest_off = key >> qc_l2_words_bits(header) << header->cluster_bits;
    const struct qc_record *l1 = new_l2(image, 0, guest_off);
    uint64_t l2_off = l1 != NULL ? l1->value : 0;
    qc_status status = QC_OK;

    if (l1 == NULL)
        status = qc_map_durable_l2(image, 0, guest_off, &l2_off);
    /* Or its place would be the header. */
    if (status == QC_OK)
        status = qc_sure(image, l2_off != 0, "an entry without an L2 table");
    record->place = l2_off + (key & (header->cluster_bytes / WORD_BYTES - 1)) * WORD_BYTES;
    record->flags &= (uint8_t)~QC_RECORD_IN_NEW;
    if (l1 != NULL && (l1->flags & QC_RECORD_NEW))
        record->flags |= QC_RECORD_IN_NEW;
    return status;
}

/*
 * "Compressed Clusters Descriptor": the low bits are a byte offset, the rest counts the sectors
 * that the data touches behind the first one.
 */
static qc_status parse_compressed(const struct qc_layer *layer, uint64_t entry,
                                  struct qc_extent *ret_extent)
{
    unsigned sectors_bits = layer->header.cluster_bits - 8;
    unsigned off_bits = 62 - sectors_bits;
    uint64_t host_off = entry & ((QC_U(1) << off_bits) - 1);
    uint64_t sectors = (entry >> off_bits) & ((QC_U(1) << sectors_bits) - 1);

    if (host_off == 0 || host_off >= QC_HOST_BYTES_MAX || host_off >= layer->disk->size_bytes)
        return QC_CORRUPT;
    *ret_extent = (struct qc_extent){.kind = QC_EXTENT_COMPRESSED, .host_off = host_off};
    ret_extent->packed_bytes =
        (uint32_t)((sectors + 1) * QC_SECTOR_BYTES - (host_off & (QC_SECTOR_BYTES - 1)));
    return QC_OK;
}

qc_status qc_map_parse(const struct qc_layer *layer, uint64_t word, struct qc_extent *ret_extent)
{
    uint64_t host_off = word & QC_ENTRY_OFFSET_MASK;
    bool is_zero = (word & QC_ENTRY_ZERO) != 0;
    bool is_own_file = qc_has_data_file(layer);

    /* Bit 62 first: in a compressed entry bit 0 is part of the offset. */
    if ((word & QC_ENTRY_COMPRESSED) && !(QC_SEED(packed_zero_flag) && is_zero))
        return is_own_file ? QC_CORRUPT : parse_compressed(layer, word, ret_extent);
    if (QC_SEED(packed_zero_flag))
        word &= ~QC_ENTRY_COMPRESSED;
    if ((word & L2_RESERVED_MASK) != 0 || !qc_is_aligned(host_off, layer->header.cluster_bytes) ||
        (is_zero && (layer->header.version < 3 || qc_has_subclusters(&layer->header))))
        return QC_CORRUPT;
    *ret_extent = (struct qc_extent){.kind = QC_EXTENT_DATA, .host_off = host_off};
    if (is_zero && !(QC_SEED(zero_flag) && host_off != 0))
        ret_extent->kind = QC_EXTENT_ZERO;
    /* In a data file of its own the guest's first cluster lies at 0: the flag tells it from none.
     */
    else if (host_off == 0 && !(is_own_file && (word & QC_ENTRY_COPIED)))
        ret_extent->kind = QC_EXTENT_UNALLOCATED;
    else if (!is_own_file && host_off >= layer->disk->size_bytes)
        return QC_CORRUPT;
    return QC_OK;
}

/* As qc_map_parse, and what only the second word and the guest offset can prove wrong. */
static qc_status parse_entry(const struct qc_layer *layer, const struct qc_l2_entry *entry,
                             uint64_t guest_off, struct qc_extent *ret_extent)
{
    qc_status status = qc_map_parse(layer, entry->word, ret_extent);
    uint64_t cluster_off = guest_off & ~QC_U(layer->header.cluster_bytes - 1);

    if (status != QC_OK)
        return status;
    /* "External data file": guest and host offsets are the same there. */
    if (qc_has_data_file(layer) && ret_extent->host_off != cluster_off &&
        (ret_extent->host_off != 0 || ret_extent->kind == QC_EXTENT_DATA))
        return QC_CORRUPT;
    if (!qc_has_subclusters(&layer->header) || ret_extent->kind == QC_EXTENT_COMPRESSED)
        return QC_OK;
    if ((entry->bits & entry->bits >> QC_SUBCLUSTERS & QC_SUBS_ALLOCATED) != 0 ||
        (ret_extent->kind == QC_EXTENT_UNALLOCATED && (entry->bits & QC_SUBS_ALLOCATED) != 0))
        return QC_CORRUPT;
    return QC_OK;
}

/*
 * Whether a bad entry is of the kind that the corrupt mark is for: it says a place that cannot be,
 * or states of subclusters that exclude each other. Reserved bits may come to mean something, and a
 * file may have lost its end; an image is not closed to others for these.
 */
static bool is_marking(const struct qc_layer *layer, const struct qc_l2_entry *entry)
{
    uint64_t host_off = entry->word & QC_ENTRY_OFFSET_MASK;
    uint64_t reserved_mask =
        L2_RESERVED_MASK | (qc_has_subclusters(&layer->header) ? QC_ENTRY_ZERO : 0);

    if (entry->word & QC_ENTRY_COMPRESSED)
        return qc_has_data_file(layer);
    return !qc_is_aligned(host_off, layer->header.cluster_bytes) ||
           ((entry->word & reserved_mask) == 0 &&
            (qc_has_data_file(layer) || host_off < layer->disk->size_bytes));
}

static qc_status refuse_entry(struct qc_image *image, unsigned depth,
                              const struct qc_l2_entry *entry, uint64_t guest_off)
{
    qc_status status = QC_CORRUPT;

    if (depth == 0 && is_marking(&image->top, entry))
        status = qc_marked(image);
    if (entry->word & QC_ENTRY_COMPRESSED)
        return qc_fail(&image->detail, status, "bad compressed cluster at guest %x", guest_off);
    return qc_fail(&image->detail, status, "bad L2 entry %x at guest %x", entry->word, guest_off);
}

/* The record of the epoch that hides a cluster's entry, or NULL. */
static const struct qc_record *hiding_record(const struct qc_image *image, unsigned depth,
                                             uint64_t guest_cluster)
{
    if (depth != 0 || image->epoch.kind_counts[QC_RECORD_ENTRY] == 0)
        return NULL;
    return qc_epoch_find(&image->epoch, QC_RECORD_ENTRY, key_of(&image->top, guest_cluster));
}

/* Takes an entry out of its table, or out of the record that hides it; words is NULL where no table
 * is. */
static struct qc_l2_entry take_entry(const struct qc_image *image, const struct qc_layer *layer,
                                     const uint8_t *words, const struct qc_record *record)
{
    bool has_bits = qc_has_subclusters(&layer->header);
    struct qc_l2_entry entry = {0, 0};

    if (record != NULL) {
        entry.word = record->value;
        if (has_bits)
            entry.bits =
                qc_epoch_find(&image->epoch, QC_RECORD_ENTRY, qc_record_key(record) + 1)->value;
    } else if (words != NULL) {
        entry.word = qc_be64(words);
        if (has_bits)
            entry.bits = qc_be64(words + WORD_BYTES);
    }
    return entry;
}

/* The words of an L2 table from word_index on, as many as are at hand; none is read in vain. */
static QC_APART qc_status find_words(struct qc_image *image, unsigned depth, uint64_t l2_off,
                                     uint64_t word_index, const uint8_t **ret_words,
                                     uint32_t *ret_words_count)
{
    static const uint8_t zeros[QC_SECTOR_BYTES];
    uint64_t host_off = l2_off + word_index * WORD_BYTES;
    uint32_t in_sector = (uint32_t)host_off & (QC_SECTOR_BYTES - 1);

    if (depth == 0 && qc_blank_covers(image, host_off, WORD_BYTES)) {
        *ret_words = zeros + in_sector;
        *ret_words_count = (QC_SECTOR_BYTES - in_sector) / WORD_BYTES;
        return QC_OK;
    }
    return qc_table_entries(image, depth, l2_off, image->layers[depth].header.cluster_bytes,
                            word_index, QC_HEAT_PASSING, ret_words, ret_words_count);
}

static bool is_partly_written(const struct qc_image *image, const struct qc_record *record)
{
    return record != NULL && (record->flags & QC_RECORD_FRESH) &&
           (record->u.written.from != 0 ||
            record->u.written.to != image->top.header.cluster_bytes / QC_SECTOR_BYTES);
}

/*
 * How many clusters from the first on continue its run, at most max_count; a bad entry, or a
 * cluster that is written only in part, ends the run before it. words is NULL where no table is.
 */
static QC_APART uint64_t count_run(const struct qc_image *image, uint64_t guest_cluster,
                                   const uint8_t *words, uint64_t max_count,
                                   const struct qc_extent *first)
{
    const struct qc_layer *layer = &image->layers[first->depth];
    unsigned cluster_bits = layer->header.cluster_bits;
    uint64_t run = 1;

    if (first->kind == QC_EXTENT_COMPRESSED)
        return 1;
    if (words == NULL && new_l2(image, first->depth, guest_cluster << cluster_bits) == NULL)
        return max_count; /* no table and no new one: nothing can be here */
    if (qc_has_subclusters(&layer->header))
        return 1;
    for (; run < max_count; run++) {
        const struct qc_record *record = hiding_record(image, first->depth, guest_cluster + run);
        struct qc_l2_entry entry =
            take_entry(image, layer, words != NULL ? words + run * WORD_BYTES : NULL, record);
        struct qc_extent next;

        if (is_partly_written(image, record) ||
            parse_entry(layer, &entry, (guest_cluster + run) << cluster_bits, &next) != QC_OK ||
            next.kind != first->kind)
            break;
        if (first->kind == QC_EXTENT_DATA && !QC_SEED(merge_gap) &&
            next.host_off != first->host_off + (run << cluster_bits))
            break;
    }
    return run;
}

/* The part of a fresh cluster around in_cluster that was written, or that was not. */
static void map_in_fresh(const struct qc_image *image, const struct qc_record *record,
                         uint64_t in_cluster, struct qc_extent *ret_extent)
{
    uint64_t from = QC_U(record->u.written.from) * QC_SECTOR_BYTES;
    uint64_t to = QC_U(record->u.written.to) * QC_SECTOR_BYTES;
    uint64_t end = in_cluster < from ? from
                   : in_cluster < to ? to
                                     : image->top.header.cluster_bytes;

    *ret_extent = (struct qc_extent){.kind = QC_EXTENT_ZERO, .len = end - in_cluster};
    if (in_cluster >= from && in_cluster < to) {
        ret_extent->kind = QC_EXTENT_DATA;
        ret_extent->host_off = (record->value & QC_ENTRY_OFFSET_MASK) + in_cluster;
    }
}

static enum qc_extent_kind sub_kind(uint64_t bits, unsigned sub)
{
    if (bits & QC_SUB_ALLOCATED(sub))
        return QC_EXTENT_DATA;
    return (bits & QC_SUB_ZERO(sub)) ? QC_EXTENT_ZERO : QC_EXTENT_UNALLOCATED;
}

/* The subclusters around in_cluster that are alike: run stands for their whole cluster. */
static void map_in_subclusters(const struct qc_layer *layer, uint64_t bits, uint64_t in_cluster,
                               struct qc_extent *run)
{
    unsigned sub_bits = layer->header.cluster_bits - QC_SUBCLUSTER_BITS;
    unsigned sub = (unsigned)(in_cluster >> sub_bits), end = sub + 1;

    run->kind = sub_kind(bits, sub);
    while (end < QC_SUBCLUSTERS && sub_kind(bits, end) == run->kind)
        end++;
    run->len = (QC_U(end) << sub_bits) - in_cluster;
}

/*
 * The run at guest_off as far as one slice of one table tells it; at least to the end of the
 * cluster, or of its part that is alike, unless max_len ends before. After an error ret_extent may
 * hold anything.
 */
static qc_status map_in_slice(struct qc_image *image, unsigned depth, uint64_t guest_off,
                              uint64_t max_len, struct qc_extent *ret_extent)
{
    const struct qc_layer *layer = &image->layers[depth];
    unsigned cluster_bits = layer->header.cluster_bits;
    unsigned words_bits = qc_l2_words_bits(&layer->header);
    uint64_t guest_cluster = guest_off >> cluster_bits;
    uint64_t table_words = layer->header.cluster_bytes / WORD_BYTES;
    uint64_t word_index = ((guest_cluster + QC_SEED(l2_lookup)) << words_bits) & (table_words - 1);
    uint64_t in_cluster = guest_off & (layer->header.cluster_bytes - 1);
    uint64_t max_count = qc_units(in_cluster + max_len, cluster_bits);
    const struct qc_record *record = hiding_record(image, depth, guest_cluster);
    struct qc_l2_entry entry;
    const uint8_t *words = NULL;
    uint32_t words_count = (uint32_t)(table_words - word_index);
    uint64_t l2_off;
    qc_status status = readable_l2(image, depth, guest_off, &l2_off);

    if (status == QC_OK && l2_off != 0)
        status = find_words(image, depth, l2_off, word_index, &words, &words_count);
    if (status != QC_OK)
        return status;
    if (is_partly_written(image, record)) {
        map_in_fresh(image, record, in_cluster, ret_extent);
        ret_extent->len = qc_min(ret_extent->len, max_len);
        return QC_OK;
    }
    entry = take_entry(image, layer, words, record);
    if (parse_entry(layer, &entry, guest_off, ret_extent) != QC_OK)
        return refuse_entry(image, depth, &entry, guest_off);
    if (image->slice_clusters_bits != 0 && l2_off != 0 && record == NULL &&
        ret_extent->kind == QC_EXTENT_DATA)
        qc_cache_tag(image->cache, l2_off + (word_index * WORD_BYTES & ~QC_U(QC_PAGE_BYTES - 1)),
                     guest_cluster >> image->slice_clusters_bits);
    ret_extent->depth = depth;
    ret_extent->len = (count_run(image, guest_cluster, words,
                                 qc_min(words_count >> words_bits, max_count), ret_extent)
                       << cluster_bits) -
                      in_cluster;
    if (qc_has_subclusters(&layer->header) &&
        (ret_extent->kind == QC_EXTENT_DATA ||
         (ret_extent->kind == QC_EXTENT_UNALLOCATED && entry.bits != 0)))
        map_in_subclusters(layer, entry.bits, in_cluster, ret_extent);
    ret_extent->len = qc_min(ret_extent->len, max_len);
    if (ret_extent->kind == QC_EXTENT_DATA)
        ret_extent->host_off += in_cluster;
    return QC_OK;
}

qc_status qc_map_layer(struct qc_image *image, unsigned depth, uint64_t guest_off, uint64_t max_len,
                       struct qc_extent *ret_extent)
{
    struct qc_extent run, next;
    qc_status status;

    if (image->layers[depth].is_raw) {
        *ret_extent = (struct qc_extent){
            .kind = QC_EXTENT_DATA, .depth = depth, .len = max_len, .host_off = guest_off};
        return QC_OK;
    }
    status = map_in_slice(image, depth, guest_off, max_len, &run);
    if (status != QC_OK)
        return status;
    while (run.len < max_len && run.kind != QC_EXTENT_COMPRESSED) {
        if (map_in_slice(image, depth, guest_off + run.len, max_len - run.len, &next) != QC_OK) {
            qc_detail_clear(&image->detail); /* an error of whoever asks for what follows */
            image->is_to_be_marked = false;
            break;
        }
        if (next.kind != run.kind ||
            (run.kind == QC_EXTENT_DATA && next.host_off != run.host_off + run.len))
            break;
        run.len += next.len;
    }
    *ret_extent = run;
    return QC_OK;
}

qc_status qc_map_run(struct qc_image *image, uint64_t guest_off, uint64_t max_len,
                     struct qc_extent *ret_extent)
{
    struct qc_extent run = {.kind = QC_EXTENT_UNALLOCATED, .len = max_len};

    if (image->layers_count > 1)
        run.len = qc_min(max_len, QC_U(CHAIN_CLUSTERS_MAX) << image->top.header.cluster_bits);
    for (unsigned depth = 0; depth < image->layers_count; depth++) {
        uint64_t size = layer_size(&image->layers[depth]);
        qc_status status;

        /* Behind the end of a shorter layer there is nothing, whatever lies below that one. */
        if (guest_off >= size && QC_SEED(below_past_end))
            continue;
        if (guest_off >= size)
            break;
        status = qc_map_layer(image, depth, guest_off, qc_min(run.len, size - guest_off), &run);
        /* Damage below is no reason to take no more writes: nothing is written there. */
        if (status == QC_CORRUPT && depth > 0)
            status = QC_IO;
        if (status != QC_OK)
            return status;
        if (run.kind != QC_EXTENT_UNALLOCATED)
            break;
    }
    *ret_extent = run;
    return QC_OK;
}

qc_status qc_map_entry(struct qc_image *image, uint64_t guest_off, struct qc_l2_entry *ret_entry,
                       struct qc_extent *ret_extent)
{
    const struct qc_header *header = &image->top.header;
    uint64_t guest_cluster = guest_off >> header->cluster_bits;
    uint64_t table_words = header->cluster_bytes / WORD_BYTES;
    const struct qc_record *record = hiding_record(image, 0, guest_cluster);
    const uint8_t *words = NULL;
    uint32_t words_count;
    uint64_t l2_off;
    qc_status status = QC_OK;

    if (record == NULL) {
        status = readable_l2(image, 0, guest_off, &l2_off);
        if (status == QC_OK && l2_off != 0)
            status =
                find_words(image, 0, l2_off, key_of(&image->top, guest_cluster) & (table_words - 1),
                           &words, &words_count);
    }
    if (status != QC_OK)
        return status;
    *ret_entry = take_entry(image, &image->top, words, record);
    if (parse_entry(&image->top, ret_entry, guest_off, ret_extent) != QC_OK)
        return refuse_entry(image, 0, ret_entry, guest_off);
    return QC_OK;
}
