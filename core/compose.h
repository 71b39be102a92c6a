/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * What a write does to the bytes around it: which of them must come along into a new cluster, and
 * writing all of it with as few requests as possible.
 *
 * Promises rule R1: what is not copied here is known to be zeros, or keeps its own mark that says
 * where its bytes are (subclusters); "what was there" is asked of the logical mapping, the epoch
 * first.
 */
#ifndef QC_COMPOSE_H
#define QC_COMPOSE_H

#include "cluster.h"

/* One turn of the loop that writes: what is left of the request, cut to what the step covers. */
struct qc_piece {
    uint64_t guest_off;
    uint64_t len;
    const uint8_t *buf;
};

/* What lies before and behind a piece in its first and last cluster. */
struct qc_rest {
    uint64_t head, tail; /* bytes that go to the disk with the piece, or are filled later */
    bool is_head_copied, is_tail_copied;
};

/* For clusters taken anew: olds are what the piece's clusters were until now, count of them. */
qc_status qc_find_rest(struct qc_image *image, const struct qc_piece *piece,
                       const struct qc_cluster *olds, uint64_t count, struct qc_rest *ret_rest);

/* For a cluster that is ours and has subclusters: what completes those that the piece begins. */
void qc_find_sub_rest(const struct qc_image *image, const struct qc_piece *piece,
                      const struct qc_cluster *cluster, struct qc_rest *ret_rest);

/* Writes the piece to host_off, and what is copied before and behind it. */
qc_status qc_write_composed(struct qc_image *image, const struct qc_piece *piece,
                            const struct qc_rest *rest, uint64_t host_off);

/*
 * The second word of the entry of the piece's cluster number index of count, after the piece and
 * its rest were written; bits is what it was, without what the cluster no longer has.
 */
uint64_t qc_written_bits(const struct qc_image *image, const struct qc_piece *piece,
                         const struct qc_rest *rest, uint64_t index, uint64_t count, uint64_t bits);

/* Whether a write of len bytes from in_cluster on finds all its bytes in the cluster's own. */
bool qc_is_plain(const struct qc_image *image, const struct qc_cluster *cluster,
                 uint64_t in_cluster, uint64_t len);

#endif
