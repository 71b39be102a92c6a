/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * What the command says of an image: info, map, check and the list of snapshots, in the words and
 * fields of qemu-img 7.2.
 *
 * Promises: the same image gives the same text, line by line, and the same JSON, field by field
 * (their order is free), as qemu-img prints on its standard output; dates are in UTC. No firmware
 * is needed, nothing is allocated, no number is a floating one. Names are passed on as the image
 * has them: in text byte by byte, in JSON escaped.
 *
 * Left to others: opening the image, finding what lies below it, where the output goes (and what a
 * console must not be sent), and saying an error's reason.
 */
#ifndef REPORT_H
#define REPORT_H

#include "../../../core/qcow2.h"
#include "out.h"

#define REPORT_UNKNOWN UINT64_MAX

enum report_form { REPORT_TEXT, REPORT_JSON };

/* An open image and the names that its files go by. */
struct report_image {
    struct qc_image *image;
    const char *names[QC_LAYERS_MAX];      /* [0] the image's own, then the layers' below, as they
                                              were found; NULL: not known */
    const char *data_names[QC_LAYERS_MAX]; /* of the layers' external data files, likewise */
    uint64_t used_bytes;     /* that the image's file takes on its volume, or REPORT_UNKNOWN */
    struct qc_detail detail; /* why an answer is not QC_OK, or an exit status is 1 */
    char text[QC_BACKING_NAME_BYTES_MAX + 1]; /* the report's own, for names out of the image */
};

/*
 * `info`: the header, names, snapshots, bitmaps. For the layers below open each on its own; QEMU
 * puts an empty line between them, and brackets and commas around the JSON. Errors as qc_read, and
 * QC_UNSUPPORTED for bitmaps with data that nobody knows; part may have been said.
 */
qc_status report_info(struct out *out, struct report_image *subject, enum report_form form);

/* The same of a raw layer, of which there is nothing else to say. */
void report_info_raw(struct out *out, const char *name, uint64_t guest_bytes, uint64_t used_bytes,
                     enum report_form form);

/*
 * `map`: where the guest disk's bytes lie, in all layers that are open. Errors as qc_plot; QC_RANGE
 * where progress (which may be NULL) stopped it; as text QC_UNSUPPORTED from the first compressed
 * cluster on. Part has been said then.
 */
qc_status report_map(struct out *out, struct report_image *subject, enum report_form form,
                     qc_check_progress *progress, void *context);

/*
 * `check`: runs qc_check and tells what it found. Answers qemu-img's exit status: 0 nothing wrong
 * is left, 1 not checked to the end, 2 corruptions, 3 leaks. What could not be checked at all says
 * nothing but the detail.
 */
int report_check(struct out *out, struct report_image *subject, enum report_form form,
                 enum qc_check_fix fix, qc_check_progress *progress, void *context);

/* `snapshot -l`: a table, or nothing where there are none. Errors as qc_snapshot_next. */
qc_status report_snapshots(struct out *out, struct report_image *subject);

#endif
