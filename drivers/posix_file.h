/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * A qc_disk over a file descriptor of a POSIX system: a regular file or a block device.
 *
 * Promises: the size is taken once, when the disk is made; reads and writes are whole or fail; a
 * regular file grows, and what it grew by is reserved where its file system can do that, so that a
 * write into new space does not meet a full host. A host without room is QC_NOSPACE.
 * Left to others: opening and closing the descriptor, and keeping other writers away from the file.
 */
#ifndef POSIX_FILE_H
#define POSIX_FILE_H

#include "../core/disk.h"

struct posix_file {
    struct qc_disk disk; /* first: what the engine is given */
    int fd;
};

/*
 * Makes file a disk over fd, which must be open for reading and stay so; it takes writes if fd was
 * opened for them. Returns 0, or an errno value: EINVAL where fd is neither a regular file nor a
 * block device, else what the system said.
 */
int posix_file_init(struct posix_file *file, int fd);

#endif
