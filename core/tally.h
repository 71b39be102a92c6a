/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Counts told up over a window of host clusters, and the pass that holds them against the stored
 * ones.
 *
 * Promises: memory is the scratch's and no more, so a large image takes several windows, each one
 * a walk of its own; a pass reads each refcount block of the window once and writes each that
 * changed once, in whole blocks; a counter stops at its largest value and says so.
 *
 * Left to others: which references there are (check.c, snapshot.c), and flushes.
 */
#ifndef QC_TALLY_H
#define QC_TALLY_H

#include "walk.h"

struct qc_tally {
    uint64_t first;      /* host cluster */
    uint64_t count;      /* of clusters; 0: none */
    uint32_t width;      /* bytes of a counter: 1, 2 or 4 */
    uint32_t limit;      /* a counter's largest value; to be lowered where wanted */
    uint64_t over_count; /* references that were lost on counters at their limit */
    uint8_t *counters;
};

/*
 * A window of zeros from the host cluster first on: as many clusters as the scratch holds, none at
 * end or behind. first is a multiple of 64. The narrower, the larger the window: start with 1 and
 * begin again with a wider one where over_count comes out above 0.
 */
void qc_tally_begin(struct qc_tally *tally, const struct qc_scratch *scratch, uint32_t width,
                    uint64_t first, uint64_t end);

/* Adds one reference to every cluster that [host_off, host_off + len) touches in the window. */
void qc_tally_add(struct qc_tally *tally, unsigned cluster_bits, uint64_t host_off, uint64_t len);

/* The counter of a cluster in the window; 0 outside it. */
uint32_t qc_tally_get(const struct qc_tally *tally, uint64_t cluster);

/* One stored count. */
struct qc_stored {
    uint64_t cluster;
    uint32_t counted; /* the window's counter */
    uint64_t stored;  /* the visitor may change it where has_block; it fits the image's width */
    bool has_block;   /* false: no refcount block is there that may be written */
    bool is_lost; /* what names its block is unaligned: nothing is known of stored, which is 0 */
};

/*
 * Calls visit for each cluster of the window, ascending, and writes what it changed. It may not use
 * the staging buffer or scratch->tables. QC_IO, or what visit answered.
 */
qc_status qc_tally_pass(struct qc_image *image, const struct qc_scratch *scratch,
                        struct qc_tally *tally,
                        qc_status (*visit)(void *context, struct qc_stored *item), void *context);

/* Sets the counters to the stored counts, or to their largest value where that is less. */
qc_status qc_tally_load(struct qc_image *image, const struct qc_scratch *scratch,
                        struct qc_tally *tally);

/* The largest count that the image's width can hold. */
uint64_t qc_count_max(const struct qc_header *header);

#endif
