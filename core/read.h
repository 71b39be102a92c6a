/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* Reading guest bytes, for a range that was checked: run by run, each in one request. */
#ifndef QC_READ_H
#define QC_READ_H

#include "qcow2.h"

/* Errors as qc_read, with a line in the image's detail. */
qc_status qc_read_runs(struct qc_image *image, uint64_t guest_off, void *buf, uint64_t len);

#endif
