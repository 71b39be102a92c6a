/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Walks the header extensions: a list of (type, length, data padded to 8) in the first cluster,
 * ended by type 0, by the backing name or by the cluster.
 *
 * Promises: at most QC_EXTENSIONS_MAX of them are looked at, so a hostile list cannot hold the
 * firmware up; nothing is read outside the first cluster. The bytes come through the cache, a page
 * at a time, because a cluster of 2 MiB is larger than any buffer here.
 */
#include "header.h"

#include "bytes.h"
#include "cache.h"

#define EXT_END            UINT32_C(0)
#define EXT_BACKING_FORMAT UINT32_C(0xe2792aca)
#define EXT_FEATURE_NAMES  UINT32_C(0x6803f857)
#define EXT_BITMAPS        UINT32_C(0x23852875)
#define EXT_LUKS_HEADER    UINT32_C(0x0537be77)
#define EXT_DATA_FILE      UINT32_C(0x44415441)

#define EXT_HEAD_BYTES     8u
#define BITMAPS_BYTES      24u
#define LUKS_HEADER_BYTES  16u
#define FORMAT_BYTES_MAX   (QC_FORMAT_NAME_BYTES - 1) /* what QEMU keeps */
#define FEATURE_BYTES      48u
#define FEATURES_MAX       192u /* 64 bits of three kinds */
#define FEATURE_NAME_BYTES 46u
#define INCOMPATIBLE_KIND  0u

struct walk {
    struct qc_header *header;
    struct qc_cache *cache;
    struct qc_disk *disk;
    unsigned depth;
    struct qc_detail *detail;
    uint64_t area_end; /* host offset */
};

/* Copies len bytes of the first cluster out of the cache; they may lie in several pages. */
static qc_status fetch(struct walk *walk, uint64_t host_off, uint8_t *buf, uint32_t len)
{
    for (uint32_t done = 0; done < len;) {
        uint64_t page_off = (host_off + done) & ~QC_U(QC_PAGE_BYTES - 1);
        uint32_t page_bytes = (uint32_t)qc_min(QC_PAGE_BYTES, walk->disk->size_bytes - page_off);
        uint32_t skip = (uint32_t)(host_off + done - page_off);
        uint32_t part;
        const uint8_t *page;
        qc_status status = qc_cache_get(walk->cache, walk->disk, walk->depth, page_off, page_bytes,
                                        QC_HEAT_PASSING, &page);

        if (status != QC_OK)
            return qc_fail(walk->detail, status, "header extensions cannot be read");
        part = (uint32_t)qc_min(len - done, page_bytes - skip);
        __builtin_memcpy(buf + done, page + skip, part);
        done += part;
    }
    return QC_OK;
}

static qc_status check_bitmaps(struct walk *walk, uint64_t data_off)
{
    uint8_t data[BITMAPS_BYTES];
    uint64_t dir_bytes, dir_off;
    qc_status status;

    /* Without the bit another program wrote the image since: the extension says nothing. */
    if (!(walk->header->autoclear & QC_AUTOCLEAR_BITMAPS))
        return QC_OK;
    status = fetch(walk, data_off, data, sizeof(data));
    if (status != QC_OK)
        return status;
    dir_bytes = qc_be64(data + 8);
    dir_off = qc_be64(data + 16);
    if (qc_be32(data) == 0 || qc_be32(data) > QC_BITMAPS_MAX || qc_be32(data + 4) != 0 ||
        dir_bytes == 0 || dir_bytes > QC_BITMAP_DIR_BYTES_MAX || dir_off == 0 ||
        !qc_is_aligned(dir_off, walk->header->cluster_bytes) ||
        !qc_is_inside(dir_off, dir_bytes, walk->disk->size_bytes))
        return qc_fail(walk->detail, QC_CORRUPT, "header extension %x invalid", QC_U(EXT_BITMAPS));
    walk->header->bitmaps_count = qc_be32(data);
    walk->header->bitmap_dir_off = dir_off;
    walk->header->bitmap_dir_bytes = dir_bytes;
    return QC_OK;
}

/* Looks the name of an incompatible bit up in the image's own feature name table. */
static qc_status refuse_feature(struct walk *walk, unsigned bit, uint64_t table_off, uint32_t len)
{
    uint32_t features_count = (uint32_t)qc_min(len / FEATURE_BYTES, FEATURES_MAX);
    uint8_t feature[FEATURE_BYTES + 1];

    for (uint32_t i = 0; i < features_count; i++) {
        qc_status status = fetch(walk, table_off + i * FEATURE_BYTES, feature, FEATURE_BYTES);

        if (status != QC_OK)
            return status;
        if (feature[0] == INCOMPATIBLE_KIND && feature[1] == bit) {
            feature[2 + FEATURE_NAME_BYTES] = '\0';
            return qc_fail(walk->detail, QC_UNSUPPORTED, "unknown incompatible feature bit %u (%s)",
                           QC_U(bit), (const char *)feature + 2);
        }
    }
    return qc_fail(walk->detail, QC_UNSUPPORTED, "unknown incompatible feature bit %u", QC_U(bit));
}

/* The number of a type that may come only once, or -1. */
static int known_number(uint32_t type)
{
    static const uint32_t known[] = {EXT_BACKING_FORMAT, EXT_FEATURE_NAMES, EXT_BITMAPS,
                                     EXT_LUKS_HEADER, EXT_DATA_FILE};

    for (unsigned i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (known[i] == type)
            return (int)i;
    }
    return -1;
}

static bool is_length_valid(const struct walk *walk, uint32_t type, uint32_t len)
{
    switch (type) {
    case EXT_BITMAPS:
        return len == BITMAPS_BYTES;
    case EXT_LUKS_HEADER:
        /* A pointer to a LUKS header where there is no encryption. */
        return len == LUKS_HEADER_BYTES && walk->header->crypt_method != 0;
    case EXT_BACKING_FORMAT:
        return len <= FORMAT_BYTES_MAX;
    case EXT_DATA_FILE:
        return len <= QC_BACKING_NAME_BYTES_MAX;
    default:
        return true;
    }
}

/* Checks what one extension says, and keeps it. */
static qc_status take_extension(struct walk *walk, uint32_t type, uint64_t data_off, uint32_t len)
{
    if (type == EXT_BITMAPS)
        return check_bitmaps(walk, data_off);
    if (type == EXT_DATA_FILE) {
        walk->header->data_name_off = data_off;
        walk->header->data_name_bytes = len;
    }
    if (type == EXT_BACKING_FORMAT)
        return fetch(walk, data_off, (uint8_t *)walk->header->backing_format, len);
    return QC_OK;
}

qc_status qc_extensions_check(struct qc_header *header, struct qc_cache *cache,
                              struct qc_disk *disk, unsigned depth, struct qc_detail *detail)
{
    uint64_t unknown = header->incompatible & ~QC_INCOMPATIBLE_KNOWN;
    uint64_t off = header->header_bytes;
    unsigned seen = 0;
    struct walk walk = {header, cache, disk, depth, detail, 0};

    walk.area_end = header->backing_off != 0 ? header->backing_off : header->cluster_bytes;
    walk.area_end = qc_min(walk.area_end, disk->size_bytes);
    for (unsigned i = 0; off < walk.area_end; i++) {
        uint8_t head[EXT_HEAD_BYTES];
        uint32_t type, len;
        qc_status status;
        int number;

        if (!qc_is_inside(off, EXT_HEAD_BYTES, walk.area_end))
            return qc_fail(detail, QC_CORRUPT, "header extension at %x cut off", off);
        status = fetch(&walk, off, head, sizeof(head));
        if (status != QC_OK)
            return status;
        type = qc_be32(head);
        len = qc_be32(head + 4);
        number = known_number(type);
        off += EXT_HEAD_BYTES;
        /* The end has no data, but QEMU looks at its length too. */
        if (type == EXT_END && qc_is_inside(off, len, walk.area_end))
            break;
        if (i >= QC_EXTENSIONS_MAX)
            return qc_fail(detail, QC_UNSUPPORTED, "more than %u header extensions",
                           QC_U(QC_EXTENSIONS_MAX));
        if (!qc_is_inside(off, len, walk.area_end) || !is_length_valid(&walk, type, len) ||
            (number >= 0 && (seen & (1u << number))))
            return qc_fail(detail, QC_CORRUPT, "header extension %x invalid", QC_U(type));
        if (number >= 0)
            seen |= 1u << number;
        if (type == EXT_FEATURE_NAMES && unknown != 0)
            return refuse_feature(&walk, (unsigned)__builtin_ctzll(unknown), off, len);
        status = take_extension(&walk, type, off, len);
        if (status != QC_OK)
            return status;
        off += (QC_U(len) + 7) & ~QC_U(7);
    }
    if (unknown != 0)
        return refuse_feature(&walk, (unsigned)__builtin_ctzll(unknown), 0, 0);
    return QC_OK;
}
