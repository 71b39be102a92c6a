/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * What the tables of one layer say, place by place: for those who draw a map of an image.
 *
 * Promises: unlike qc_map it also tells the host cluster that an entry keeps while nothing is read
 * from it, and which layer says nothing at all. Nothing is changed.
 *
 * Left to others: putting the layers together.
 */
#ifndef QC_PLOT_H
#define QC_PLOT_H

#include <stdbool.h>
#include <stdint.h>

#include "status.h"

struct qc_image;

/* One run of the guest disk of which a layer says one thing. Neither data nor zero: it has none. */
struct qc_plot {
    uint64_t len;      /* bytes, at least 1 */
    bool is_data;      /* it is read from this layer */
    bool is_zero;      /* it reads as zeros, whatever lies below */
    bool has_place;    /* of the guest's own bytes, so not where they are compressed; */
    uint64_t host_off; /* there, on the disk that holds the layer's guest data */
};

/* Bytes of the disk that the layer at depth presents, a multiple of QC_SECTOR_BYTES. */
uint64_t qc_plot_bytes(const struct qc_image *image, unsigned depth);

/*
 * The run at guest_off of the layer at depth, at most max_len bytes and never over more than one L2
 * table. What is not committed would be left out, so the image must have been flushed:
 * QC_UNSUPPORTED. QC_RANGE outside the layer or for a depth that is not there; other errors as
 * qc_map.
 */
qc_status qc_plot(struct qc_image *image, unsigned depth, uint64_t guest_off, uint64_t max_len,
                  struct qc_plot *ret_plot);

#endif
