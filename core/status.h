/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * What a call of the engine, or of a disk below it, can answer.
 *
 * Promises: one small enumeration that every layer passes on unchanged, so that a front end maps it
 * once to its own world (EFI_STATUS, errno). The sentence that explains an answer is qc_detail's.
 */
#ifndef QC_STATUS_H
#define QC_STATUS_H

typedef enum qc_status {
    QC_OK = 0,
    QC_FOREIGN,     /* not a qcow2 image at all: nothing to say, leave it to others */
    QC_IO,          /* the disk below failed */
    QC_CORRUPT,     /* the image breaks the format */
    QC_UNSUPPORTED, /* legal, but not implemented or over a named limit */
    QC_REFUSED,     /* legal, but the front end's policy forbids it */
    QC_RANGE,       /* the request lies outside the guest disk */
    QC_READONLY,    /* the image does not take writes; qc_detail says why */
    QC_NOSPACE,     /* no cluster is free and the disk does not grow */
} qc_status;

/* For a function that shall not lie in its caller's frame: others that the caller calls go deep. */
#define QC_APART __attribute__((noinline))

#endif
