/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The files of an image: its own, and those that it and the layers below it name.
 *
 * Promises: a name leads only to files below the folder of the file that has it, never through a
 * symbolic link; what lies below the image is opened for reading only, its own data file as it is
 * itself; no file has two parts to play.
 *
 * Left to others: what the files hold, and when they are needed (core/).
 */
#ifndef CHAIN_H
#define CHAIN_H

#include "../../core/qcow2.h"
#include "../../drivers/posix_file.h"

/* Starts as zeros. */
struct chain {
    struct qc_bases bases;                      /* first: what the engine is given */
    struct posix_file files[2 * QC_LAYERS_MAX]; /* layers and data files as they were opened */
    unsigned files_count;
    int flags;  /* of open(), for the image's own files */
    int folder; /* of the layer opened last: the names in it are looked up there */
};

/*
 * Opens the image's own file, files[0], with these flags of open(). Returns 0, or an errno value of
 * posix_file_init or open.
 */
int chain_open(struct chain *chain, const char *file_name, int flags);

/* Closes what was opened. */
void chain_close(struct chain *chain);

#endif
