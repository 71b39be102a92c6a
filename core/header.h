/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The image header and its extensions: parsed once at open, checked before anything else trusts it.
 *
 * Promises: after qc_header_check every offset in struct qc_header is aligned, lies inside the disk
 * with the bytes that are used behind it, and overlaps no other table of the header; every shift
 * and product made of its fields fits 64 bits. What the format forbids is QC_CORRUPT, what is legal
 * but not implemented QC_UNSUPPORTED.
 *
 * Left to others: entries of the tables (map.c), and everything an image may say about itself that
 * only its use can prove wrong. Format: QEMU's docs/interop/qcow2, "Header" and "Header
 * extensions".
 */
#ifndef QC_HEADER_H
#define QC_HEADER_H

#include <stdbool.h>
#include <stdint.h>

#include "detail.h"
#include "disk.h"
#include "status.h"

struct qc_cache;

#define QC_HEADER_V2_BYTES          72u
#define QC_HEADER_V3_BYTES          104u
#define QC_HEADER_BYTES_MAX         112u /* what is known of a v3 header */
#define QC_CLUSTER_BITS_MIN         9u
#define QC_CLUSTER_BITS_MAX         21u
#define QC_BACKING_NAME_BYTES_MAX   1023u
#define QC_FORMAT_NAME_BYTES        16u
#define QC_COMPRESSION_DEFLATE      0u
#define QC_COMPRESSION_ZSTD         1u
#define QC_L1_BYTES_MAX             (32u * 1024 * 1024)
#define QC_REFTABLE_BYTES_MAX       (8u * 1024 * 1024)
#define QC_SNAPSHOTS_MAX            65536u
#define QC_SNAPSHOT_ENTRY_BYTES_MIN 40u
#define QC_GUEST_BYTES_MAX          (UINT64_C(1) << 56)
#define QC_HOST_BYTES_MAX           (UINT64_C(1) << 56)
#define QC_EXTENSIONS_MAX           32u
#define QC_BITMAPS_MAX              65535u
#define QC_BITMAP_DIR_BYTES_MAX     (64u * 1024 * 1024)

#define QC_INCOMPATIBLE_DIRTY       (UINT64_C(1) << 0)
#define QC_INCOMPATIBLE_CORRUPT     (UINT64_C(1) << 1)
#define QC_INCOMPATIBLE_DATA_FILE   (UINT64_C(1) << 2)
#define QC_INCOMPATIBLE_COMPRESSION (UINT64_C(1) << 3)
#define QC_INCOMPATIBLE_EXTENDED_L2 (UINT64_C(1) << 4)
#define QC_INCOMPATIBLE_KNOWN       UINT64_C(0x1f)
#define QC_SUBCLUSTER_BITS          5u
#define QC_SUBCLUSTERS              32u /* of a cluster, with extended L2 entries */
#define QC_AUTOCLEAR_BITMAPS        (UINT64_C(1) << 0)
#define QC_AUTOCLEAR_RAW_DATA       (UINT64_C(1) << 1)

struct qc_header {
    uint32_t version;       /* 2 or 3 */
    uint32_t cluster_bits;  /* QC_CLUSTER_BITS_MIN to QC_CLUSTER_BITS_MAX */
    uint32_t cluster_bytes; /* 1 << cluster_bits */
    uint32_t header_bytes;
    uint64_t guest_bytes; /* as stored; qc_size rounds it down to whole sectors */
    uint64_t backing_off; /* 0: none */
    uint32_t backing_bytes;
    uint32_t crypt_method;
    uint64_t l1_off;
    uint32_t l1_entries;
    uint32_t refcount_order; /* a count has 1 << refcount_order bits */
    uint64_t reftable_off;
    uint32_t reftable_clusters;
    uint32_t snapshots_count; /* at most QC_SNAPSHOTS_MAX; */
    uint32_t snapshots_over;  /* what the header says above that, 0 unless opened for a check */
    uint64_t snapshots_off;
    uint64_t incompatible;
    uint64_t compatible;
    uint64_t autoclear;
    uint32_t compression_type;
    char backing_format[QC_FORMAT_NAME_BYTES]; /* "" where the image does not say */
    uint64_t data_name_off;                    /* of the external data file's name; 0: none */
    uint32_t data_name_bytes;
    uint32_t bitmaps_count;  /* that count while their autoclear bit is set; 0: none */
    uint64_t bitmap_dir_off; /* of their directory */
    uint64_t bitmap_dir_bytes;
};

/* Whether L2 entries have a second word, which tells of subclusters. */
static inline bool qc_has_subclusters(const struct qc_header *header)
{
    return (header->incompatible & QC_INCOMPATIBLE_EXTENDED_L2) != 0;
}

/* An L2 entry has 1 << so many 8-byte words. */
static inline unsigned qc_l2_words_bits(const struct qc_header *header)
{
    return qc_has_subclusters(header) ? 1 : 0;
}

/* Guest bytes that one L2 table, of one cluster, maps; as a power of two. */
static inline unsigned qc_l2_reach_bits(const struct qc_header *header)
{
    return 2 * header->cluster_bits - 3 - qc_l2_words_bits(header);
}

/*
 * Takes the fields out of the image's first bytes; QC_HEADER_BYTES_MAX of them, fewer where the
 * disk is shorter. QC_FOREIGN: no qcow2 magic, or shorter than any header. QC_UNSUPPORTED: a
 * version of which not even the fields are known. QC_CORRUPT: impossible header length or cluster
 * size.
 */
qc_status qc_header_parse(const uint8_t *bytes, uint32_t bytes_count, struct qc_header *ret_header,
                          struct qc_detail *detail);

/*
 * Checks every field against the format, the limits above and the disk's size. is_for_check lets
 * two things pass that a repair can put right: a refcount table of 0 clusters, and more snapshots
 * than there may be, of which those over the limit are only told in snapshots_over.
 */
qc_status qc_header_check(struct qc_header *header, uint64_t disk_bytes, bool is_for_check,
                          struct qc_detail *detail);

/*
 * Walks the header extensions of the layer at this depth and checks each, reading them through the
 * cache. Unknown ones are passed over. Keeps what they say in the header. Also names the first
 * unknown incompatible feature bit, which it refuses.
 */
qc_status qc_extensions_check(struct qc_header *header, struct qc_cache *cache,
                              struct qc_disk *disk, unsigned depth, struct qc_detail *detail);

#endif
