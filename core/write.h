/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* Writing, for those who zero parts of clusters. */
#ifndef QC_WRITE_H
#define QC_WRITE_H

#include "qcow2.h"

/* So many clusters are changed in one step at most. */
#define QC_STEP_CLUSTERS_MAX 16u

/* The loop of qc_write, for a range that was checked. */
qc_status qc_write_sectors(struct qc_image *image, uint64_t guest_off, const void *buf,
                           uint64_t len);

#endif
