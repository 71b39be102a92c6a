/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * What writing, zeroing and discarding share: what a guest cluster is at this moment, making its L2
 * table our own, and pointing it at something else.
 *
 * Promises: a cluster is called ours only where its count is 1 and its L2 table's is too, whatever
 * the COPIED flags say; counts that contradict an entry are damage, found before anything is
 * written.
 */
#ifndef QC_CLUSTER_H
#define QC_CLUSTER_H

#include "map.h"

/* Host clusters that compressed data, at most two clusters long, can touch. */
#define QC_HELD_CLUSTERS_MAX 3u

struct qc_cluster {
    struct qc_l2_entry entry; /* in force; 0: unallocated */
    uint64_t host_off;        /* of the cluster it keeps for itself, on the disk of guest data */
    uint64_t held_first;      /* host clusters that it holds a reference of, each one; */
    enum qc_extent_kind kind; /* what its entry says of the whole, as qc_map_parse */
    uint8_t held_count;       /* 0: none, more than 1 only where it is compressed */
    bool has_host;            /* it keeps a cluster for itself */
    bool is_ours; /* its count is 1 and so is its L2 table's: it may be changed in place */
};

/* Looks a guest cluster up for writing; counts that contradict the entry are QC_CORRUPT. */
qc_status qc_cluster_look(struct qc_image *image, uint64_t guest_off,
                          struct qc_cluster *ret_cluster);

/*
 * Reads the counts of what a cluster holds, so that dropping it needs no disk. Room for
 * QC_HELD_CLUSTERS_MAX records is reserved.
 */
qc_status qc_cluster_prepare(struct qc_image *image, const struct qc_cluster *cluster);

/* Drops the references of a cluster that was prepared in this step. */
void qc_cluster_drop(struct qc_image *image, const struct qc_cluster *cluster);

/*
 * Makes sure that the L2 table for guest_off exists and is shared with nobody: a step of its own.
 */
qc_status qc_own_l2(struct qc_image *image, uint64_t guest_off);

/* Records that an entry takes. */
#define QC_ENTRY_RECORDS 2u

/*
 * Points a guest cluster at something else, within a step that reserved QC_ENTRY_RECORDS for it: a
 * new entry that holds all its bytes already. Returns the record of its first word.
 */
struct qc_record *qc_set_entry(struct qc_image *image, uint64_t guest_off,
                               const struct qc_l2_entry *entry);

#endif
