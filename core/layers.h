/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Opening the layers of an image: its own header, and one by one what it says lies below.
 *
 * Promises: a layer below is only ever read; at most QC_LAYERS_MAX layers; nothing is opened that
 * the front end did not hand out, and no format is guessed from a disk's bytes.
 *
 * Left to others: finding a layer (the front end's qc_bases).
 */
#ifndef QC_LAYERS_H
#define QC_LAYERS_H

#include "qcow2.h"

/* Opens image->top, whose disk is set, and all layers below it. Errors as qc_open. */
qc_status qc_layers_open(struct qc_image *image, const struct qc_open_options *options);

#endif
