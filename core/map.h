/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * From guest offsets to extents: the epoch first, else L1 and L2 through the cache.
 *
 * Promises: no entry of the disk is followed before it is checked (reserved bits, alignment, inside
 * the disk); an extent that is returned lies inside the guest disk and, where it is data, starts
 * inside the host disk. Format: QEMU's docs/interop/qcow2, "Cluster mapping".
 */
#ifndef QC_MAP_H
#define QC_MAP_H

#include "bytes.h"
#include "qcow2.h"

#define QC_ENTRY_OFFSET_MASK UINT64_C(0x00fffffffffffe00)
#define QC_ENTRY_COPIED      (UINT64_C(1) << 63)
#define QC_ENTRY_COMPRESSED  (UINT64_C(1) << 62)
#define QC_ENTRY_ZERO        (UINT64_C(1) << 0)

/* Bits of an entry's second word, for subcluster number sub. */
#define QC_SUB_ALLOCATED(sub) (UINT64_C(1) << (sub))
#define QC_SUB_ZERO(sub)      (UINT64_C(1) << (QC_SUBCLUSTERS + (sub)))
#define QC_SUBS_ALLOCATED     UINT64_C(0x00000000ffffffff)
#define QC_SUBS_ZERO          UINT64_C(0xffffffff00000000)

/*
 * The run at guest_off (inside the guest disk), at most max_len bytes (at least 1, inside the guest
 * disk too), as all layers together tell it, merged over every neighbouring cluster that continues
 * it.
 */
qc_status qc_map_run(struct qc_image *image, uint64_t guest_off, uint64_t max_len,
                     struct qc_extent *ret_extent);

/*
 * The place on the disk of len bytes at guest_off, where it is known without looking any table up:
 * they lie in one cluster, whose slice was looked at before, and nothing has changed since. Says
 * what qc_map_run would; false where that has to be asked.
 */
static inline bool qc_map_known(struct qc_image *image, uint64_t guest_off, uint64_t len,
                                uint64_t *ret_host_off)
{
    const uint32_t *records = image->epoch.kind_counts;
    unsigned cluster_bits = image->top.header.cluster_bits;
    uint64_t cluster_mask = image->top.header.cluster_bytes - 1;
    uint64_t in_cluster = guest_off & cluster_mask, guest_cluster = guest_off >> cluster_bits;
    unsigned slice_bits = image->slice_clusters_bits;
    const uint8_t *words;
    uint64_t word, host_off;

    /* A len of 0 is the largest of all here. */
    if (slice_bits == 0 || (records[QC_RECORD_ENTRY] | records[QC_RECORD_L1]) != 0 ||
        len - 1 > cluster_mask - in_cluster)
        return false;
    if (!qc_cache_tagged(image->cache, guest_cluster >> slice_bits, &words))
        return false;
    word = qc_be64(words + (guest_cluster & ((QC_U(1) << slice_bits) - 1)) * sizeof(word));
    host_off = word & ~QC_ENTRY_COPIED;
    if (host_off == 0 || (host_off & (cluster_mask | ~QC_ENTRY_OFFSET_MASK)) != 0 ||
        !qc_is_inside(host_off, in_cluster + len, image->top.disk->size_bytes))
        return false;
    *ret_host_off = host_off + in_cluster;
    return true;
}

/* The same as the layer at depth alone tells it: UNALLOCATED is what lies below. */
qc_status qc_map_layer(struct qc_image *image, unsigned depth, uint64_t guest_off, uint64_t max_len,
                       struct qc_extent *ret_extent);

/* An L2 entry as it stands in its table; bits is its second word, 0 where there is none. */
struct qc_l2_entry {
    uint64_t word;
    uint64_t bits; /* subclusters: low half allocated, high half read as zeros */
};

/*
 * What an entry's first word says of its whole cluster: QC_OK or QC_CORRUPT, without a line. With
 * subclusters DATA means only that there is a host cluster. len is not set.
 */
qc_status qc_map_parse(const struct qc_layer *layer, uint64_t word, struct qc_extent *ret_extent);

/*
 * The image's own L2 entry in force for the cluster at guest_off, checked; 0 where no L2 table is.
 * ret_extent: what its first word says, as qc_map_parse.
 */
qc_status qc_map_entry(struct qc_image *image, uint64_t guest_off, struct qc_l2_entry *ret_entry,
                       struct qc_extent *ret_extent);

/* The L2 table that a layer's disk names for guest_off, checked; 0 where there is none. */
qc_status qc_map_durable_l2(struct qc_image *image, unsigned depth, uint64_t guest_off,
                            uint64_t *ret_l2_off);

/* Sets place and QC_RECORD_IN_NEW of an ENTRY record. */
qc_status qc_map_place_entry(struct qc_image *image, struct qc_record *record);

/* The index in the image's own L1 table that covers guest_off. */
uint64_t qc_l1_index(const struct qc_image *image, uint64_t guest_off);

#endif
