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
/* Tables that may be named twice are asked for so many at a time, and so often. */
#define SUSPECTS_MAX 32u
#define ROUNDS_MAX   64u
/* But only while that reads not much more than so many bytes. */
#define ASKED_BYTES_MAX (8u << 20)
#define NAMES_MAX       2u
/* Of the L1 tables of all snapshots. */
#define SNAPSHOT_CLUSTERS_MAX (1u << 20)
/* L1 tables of so many snapshots are known, and of so many clusters: each look goes over them. */
#define SNAPSHOTS_KNOWN_MAX         1024u
#define SNAPSHOT_CLUSTERS_KNOWN_MAX 4096u

/* Half of the filter is for refcount blocks, half for L2 tables. */
enum half { HALF_BLOCKS, HALF_L2, HALVES };

static uint32_t bit_of(const struct qc_image *image, uint64_t cluster, enum half half,
                       unsigned hash)
{
    uint32_t half_bits = image->cache->filter_bytes * 8u / HALVES;
    uint64_t mixed =
        (cluster + 1) * (hash == 0 ? UINT64_C(0x9e3779b97f4a7c15) : UINT64_C(0xc2b2ae3d27d4eb4f));

    return half * half_bits + (uint32_t)((mixed >> 32) % half_bits);
}

static void add(struct qc_image *image, uint64_t cluster, enum half half)
{
    for (unsigned hash = 0; hash < HASHES; hash++) {
        uint32_t bit = bit_of(image, cluster, half, hash);

        image->cache->filter[bit / 8] |= (uint8_t)(1u << bit % 8);
    }
}

void qc_guard_add_block(struct qc_image *image, uint64_t cluster)
{
    add(image, cluster, HALF_BLOCKS);
}

void qc_guard_add_l2(struct qc_image *image, uint64_t cluster)
{
    add(image, cluster, HALF_L2);
}

static bool is_maybe(const struct qc_image *image, uint64_t cluster, enum half half)
{
    bool is_set = true;

    for (unsigned hash = 0; hash < HASHES; hash++) {
        uint32_t bit = bit_of(image, cluster, half, hash);

        is_set = is_set && (image->cache->filter[bit / 8] >> bit % 8 & 1) != 0;
    }
    return is_set;
}

/* Clusters that may be tables already, by the filter, and how often a table names each. */
struct suspects {
    uint32_t count;
    uint64_t clusters[SUSPECTS_MAX];
    uint8_t halves[SUSPECTS_MAX]; /* whose table is to tell */
    uint8_t names[SUSPECTS_MAX];
};

static void suspect(struct suspects *suspects, uint64_t cluster, enum half half)
{
    suspects->clusters[suspects->count] = cluster;
    suspects->halves[suspects->count] = (uint8_t)half;
    suspects->names[suspects->count++] = 0;
}

static void see_name(struct suspects *suspects, uint64_t cluster, enum half half)
{
    for (uint32_t i = 0; i < suspects->count; i++) {
        if (suspects->clusters[i] == cluster && suspects->halves[i] == half &&
            suspects->names[i] < NAMES_MAX)
            suspects->names[i]++;
    }
}

/* The L1 table, or the refcount table. */
static void table_of(const struct qc_image *image, enum half half, uint64_t *ret_off,
                     uint64_t *ret_bytes)
{
    const struct qc_header *header = &image->top.header;

    *ret_off = half == HALF_L2 ? header->l1_off : header->reftable_off;
    *ret_bytes = half == HALF_L2 ? QC_U(header->l1_entries) * 8
                                 : QC_U(header->reftable_clusters) << header->cluster_bits;
}

/*
 * Goes through a table of offsets from *entry_off on. With is_filling each cluster that it names
 * is added to the filter, and it stops where the suspects become too many (NULL: nowhere); else
 * names are counted.
 */
static qc_status walk_table(struct qc_image *image, enum half half, bool is_filling,
                            struct suspects *suspects, uint64_t *entry_off)
{
    uint8_t *staging = image->cache->staging;
    uint64_t table_off, table_bytes;

    table_of(image, half, &table_off, &table_bytes);
    for (uint64_t len; *entry_off < table_bytes;) {
        uint64_t from = table_off + *entry_off;
        qc_status status;

        len = qc_min(image->cache->staging_bytes, table_bytes - *entry_off);
        status = image->top.disk->ops->read(image->top.disk, from, staging, len);
        if (status != QC_OK)
            return qc_fail(&image->detail, status, "table at %x cannot be read", from);
        for (uint64_t i = 0; i < len; i += 8, *entry_off += 8) {
            uint64_t cluster =
                (qc_be64(staging + i) & QC_ENTRY_OFFSET_MASK) >> image->top.header.cluster_bits;

            if (cluster == 0)
                continue;
            if (!is_filling) {
                see_name(suspects, cluster, half);
                continue;
            }
            if (suspects != NULL && suspects->count > SUSPECTS_MAX - HALVES)
                return QC_OK;
            if (suspects != NULL && is_maybe(image, cluster, half))
                suspect(suspects, cluster, half);
            if (suspects != NULL && half == HALF_BLOCKS && is_maybe(image, cluster, HALF_L2))
                suspect(suspects, cluster, HALF_L2);
            add(image, cluster, half);
            image->tables_count++;
        }
    }
    return QC_OK;
}

/* Asks the tables of the suspects; half is the one they were met in. */
static qc_status judge(struct qc_image *image, enum half half, struct suspects *suspects)
{
    qc_status status = QC_OK;

    for (unsigned asked = 0; status == QC_OK && asked < HALVES; asked++) {
        uint64_t entry_off = 0;
        bool is_asked = false;

        for (uint32_t i = 0; i < suspects->count; i++)
            is_asked |= suspects->halves[i] == asked;
        if (is_asked)
            status = walk_table(image, (enum half)asked, false, suspects, &entry_off);
    }
    for (uint32_t i = 0; status == QC_OK && i < suspects->count; i++) {
        uint64_t host_off = suspects->clusters[i] << image->top.header.cluster_bits;

        if (suspects->halves[i] != half && suspects->names[i] > 0)
            status = qc_fail(&image->detail, qc_marked(image), "cluster %x is metadata", host_off);
        else if (suspects->names[i] > 1)
            status = qc_fail(&image->detail, QC_CORRUPT, "table %x is named twice", host_off);
    }
    return status;
}

/* Adds every cluster that a table of offsets names, and looks for those that are named again. */
static qc_status add_table(struct qc_image *image, enum half half)
{
    uint64_t table_off, table_bytes, other_bytes, entry_off = 0;
    uint32_t rounds_max;
    qc_status status = QC_OK;

    table_of(image, half, &table_off, &table_bytes);
    table_of(image, half == HALF_L2 ? HALF_BLOCKS : HALF_L2, &table_off, &other_bytes);
    rounds_max = (uint32_t)qc_min(ROUNDS_MAX, 1 + ASKED_BYTES_MAX / (table_bytes + other_bytes));
    for (uint32_t round = 0; status == QC_OK && round < rounds_max && entry_off < table_bytes;
         round++) {
        struct suspects suspects;

        suspects.count = 0;
        status = walk_table(image, half, true, &suspects, &entry_off);
        if (status == QC_OK && suspects.count > 0 && !QC_SEED(no_guard))
            status = judge(image, half, &suspects);
    }
    /* Enough was asked: the rest is added, and no more. */
    return status == QC_OK ? walk_table(image, half, true, NULL, &entry_off) : status;
}

/* Bytes of the snapshot's entry at host_off, whose head this is. */
static qc_status measure_entry(struct qc_image *image, uint64_t host_off, const uint8_t *head,
                               uint64_t *ret_bytes, uint64_t *tables_count)
{
    unsigned cluster_bits = image->top.header.cluster_bits;
    uint64_t l1_off = qc_be64(head), l1_bytes = QC_U(qc_be32(head + 8)) * 8;
    uint32_t strings_bytes = (qc_be32(head + 12) >> 16) + (qc_be32(head + 12) & 0xffff);
    uint32_t extra_bytes = qc_be32(head + 36);
    uint64_t bytes = QC_U(QC_SNAPSHOT_ENTRY_BYTES_MIN) + extra_bytes + strings_bytes;

    if (extra_bytes > QC_SNAPSHOT_EXTRA_BYTES_MAX)
        return qc_fail(&image->detail, QC_UNSUPPORTED, "snapshot has %u bytes of extra data",
                       QC_U(extra_bytes));
    if (!qc_is_inside(host_off, bytes, image->top.disk->size_bytes))
        return qc_fail(&image->detail, QC_CORRUPT, "snapshot table ends behind the disk");
    *tables_count += qc_units(l1_bytes, cluster_bits);
    if (l1_bytes > QC_L1_BYTES_MAX || *tables_count > SNAPSHOT_CLUSTERS_MAX)
        return qc_fail(&image->detail, QC_UNSUPPORTED, "L1 tables of snapshots too large");
    for (uint64_t off = 0; *tables_count <= SNAPSHOT_CLUSTERS_KNOWN_MAX && off < l1_bytes;
         off += image->top.header.cluster_bytes)
        add(image, (l1_off + off) >> cluster_bits, HALF_L2);
    *ret_bytes = bytes;
    return QC_OK;
}

/*
 * How long the snapshot table is only its entries tell: it is read once, in pieces, and the L1
 * tables that it names are added to the filter. A table whose
 * end nobody can tell cannot be kept safe, and then there is no change.
 */
qc_status qc_guard_measure_snapshots(struct qc_image *image, uint32_t reads_max)
{
    struct qc_disk *disk = image->top.disk;
    uint8_t *staging = image->cache->staging;
    uint64_t first_off = image->top.header.snapshots_off, off = first_off, len;
    uint64_t piece_off = 0, piece_bytes = 0, tables_count = 0;

    for (uint32_t i = 0; i < image->top.header.snapshots_count; i++, off += len) {
        qc_status status = QC_OK;

        off = (off + 7) & ~QC_U(7);
        if (off - first_off > QC_SNAPSHOT_TABLE_BYTES_MAX)
            return qc_fail(&image->detail, QC_UNSUPPORTED, "snapshot table too large: %u bytes",
                           off - first_off);
        if (!qc_is_inside(off, QC_SNAPSHOT_ENTRY_BYTES_MIN, disk->size_bytes))
            return qc_fail(&image->detail, QC_CORRUPT, "snapshot table ends behind the disk");
        if (!qc_is_inside(off - piece_off, QC_SNAPSHOT_ENTRY_BYTES_MIN, piece_bytes)) {
            piece_off = off;
            piece_bytes = qc_min(image->cache->staging_bytes, disk->size_bytes - off);
            if (reads_max-- == 0)
                return QC_OK;
            status = disk->ops->read(disk, off, staging, (size_t)piece_bytes);
        }
        if (status != QC_OK)
            return qc_fail(&image->detail, status, "table at %x cannot be read", off);
        status = measure_entry(image, off, staging + (off - piece_off), &len, &tables_count);
        if (status != QC_OK)
            return status;
    }
    image->snapshots_bytes = off - first_off;
    image->snapshot_tables_count = image->top.header.snapshots_count + (uint32_t)tables_count;
    return QC_OK;
}

qc_status qc_guard_prepare(struct qc_image *image)
{
    qc_status status;

    image->tables_count = 0;
    status = add_table(image, HALF_L2);

    if (status == QC_OK && image->snapshots_bytes == 0)
        status = qc_guard_measure_snapshots(image, UINT32_MAX);
    return status == QC_OK ? add_table(image, HALF_BLOCKS) : status;
}

static qc_status find_in_table(struct qc_image *image, enum half half, uint64_t cluster,
                               bool *ret_is_table)
{
    const uint8_t *entries;
    uint32_t entries_count;
    uint64_t table_off, table_bytes;

    table_of(image, half, &table_off, &table_bytes);
    for (uint64_t index = 0; index < table_bytes / 8; index += entries_count) {
        qc_status status = qc_table_entries(image, 0, table_off, table_bytes, index,
                                            QC_HEAT_PASSING, &entries, &entries_count);

        if (status != QC_OK)
            return status;
        for (uint32_t i = 0; i < entries_count; i++) {
            uint64_t host_off = qc_be64(entries + i * 8u) & QC_ENTRY_OFFSET_MASK;

            if (host_off != 0 && host_off >> image->top.header.cluster_bits == cluster)
                *ret_is_table = true;
        }
    }
    return QC_OK;
}

/* Bytes of the snapshot table, from wherever they lie in its slices. */
static qc_status peek(struct qc_image *image, uint64_t off, uint8_t *bytes, uint32_t len)
{
    for (uint32_t done = 0, part; done < len; done += part) {
        uint64_t slice_off = (off + done) & ~QC_U(QC_PAGE_BYTES - 1);
        uint32_t in_slice = (uint32_t)(off + done - slice_off);
        const uint8_t *slice;
        qc_status status =
            qc_table_slice(image, 0, image->top.header.snapshots_off, image->snapshots_bytes,
                           slice_off, QC_HEAT_PASSING, &slice);

        if (status != QC_OK)
            return status;
        part = (uint32_t)qc_min(len - done, QC_PAGE_BYTES - in_slice);
        __builtin_memcpy(bytes + done, slice + in_slice, part);
    }
    return QC_OK;
}

/* Whether a cluster is part of a snapshot's L1 table. */
static qc_status find_in_snapshots(struct qc_image *image, uint64_t cluster, bool *ret_is_table)
{
    unsigned cluster_bits = image->top.header.cluster_bits;
    uint32_t known_count = (uint32_t)qc_min(image->top.header.snapshots_count, SNAPSHOTS_KNOWN_MAX);
    uint64_t off = 0;

    /* Each entry that was measured is within these bytes. */
    for (uint32_t i = 0; i < known_count; i++) {
        uint8_t head[QC_SNAPSHOT_ENTRY_BYTES_MIN];
        qc_status status;

        off = (off + 7) & ~QC_U(7);
        if (!qc_is_inside(off, sizeof(head), image->snapshots_bytes))
            break;
        status = peek(image, off, head, sizeof(head));
        if (status != QC_OK)
            return status;
        if (cluster - (qc_be64(head) >> cluster_bits) <
            qc_units(QC_U(qc_be32(head + 8)) * 8, cluster_bits))
            *ret_is_table = true;
        off += sizeof(head) + (qc_be32(head + 12) >> 16) + (qc_be32(head + 12) & 0xffff) +
               QC_U(qc_be32(head + 36));
    }
    return QC_OK;
}

/* Looks for a cluster among the tables of one half: those of the epoch, then those of the disk. */
static qc_status find(struct qc_image *image, uint64_t cluster, enum half half, bool *ret_is_table)
{
    const struct qc_header *header = &image->top.header;
    enum qc_record_kind kind = half == HALF_L2 ? QC_RECORD_L1 : QC_RECORD_ROOT;

    if (!is_maybe(image, cluster, half) || QC_SEED(no_guard))
        return QC_OK;
    for (uint32_t i = 0; i < image->epoch.records_count; i++) {
        const struct qc_record *record = qc_epoch_at(&image->epoch, i);

        if (qc_record_kind(record) == kind && record->value >> header->cluster_bits == cluster)
            *ret_is_table = true;
    }
    if (half == HALF_L2 && !*ret_is_table) {
        qc_status status = find_in_snapshots(image, cluster, ret_is_table);

        if (status != QC_OK)
            return status;
    }
    return find_in_table(image, half, cluster, ret_is_table);
}

qc_status qc_guard_check(struct qc_image *image, uint64_t cluster, bool *ret_is_table)
{
    qc_status status;

    *ret_is_table = qc_is_header_structure(image, 0, cluster);
    if (*ret_is_table)
        return QC_OK;
    status = find(image, cluster, HALF_L2, ret_is_table);
    return status == QC_OK ? find(image, cluster, HALF_BLOCKS, ret_is_table) : status;
}

qc_status qc_guard_check_l2(struct qc_image *image, uint64_t cluster, bool *ret_is_block)
{
    *ret_is_block = false;
    return find(image, cluster, HALF_BLOCKS, ret_is_block);
}

qc_status qc_believe_counts(struct qc_image *image)
{
    if (image->lying_off == 0)
        return QC_OK;
    return qc_fail(&image->detail, QC_CORRUPT, "refcount out of range at %x", image->lying_off);
}

qc_status qc_guard_count_names(struct qc_image *image, uint64_t l2_off, uint64_t word_index,
                               uint64_t host_off, uint32_t *ret_names_count)
{
    const struct qc_header *header = &image->top.header;
    uint64_t first = word_index & ~QC_U(QC_PAGE_BYTES / 8 - 1);
    uint32_t step = 1u << qc_l2_words_bits(header), entries_count, names_count = 0;
    const uint8_t *entries;
    qc_status status = qc_table_entries(image, 0, l2_off, header->cluster_bytes, first,
                                        QC_HEAT_PASSING, &entries, &entries_count);

    if (status != QC_OK)
        return status;
    for (uint32_t i = 0; i < entries_count; i += step) {
        uint64_t word = qc_be64(entries + i * 8u);

        if ((word & (QC_ENTRY_OFFSET_MASK | QC_ENTRY_COMPRESSED)) == host_off)
            names_count++;
    }
    *ret_names_count = names_count;
    return QC_OK;
}
