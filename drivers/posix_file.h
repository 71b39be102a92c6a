/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * A qc_disk over a file descriptor of a POSIX system: a regular file or a block device.
 *
 * Promises: the size is taken once, when the disk is made; reads and writes are whole or fail; a
 * regular file grows, and what it grew by is reserved where its file system can do that, so that a
 * write into new space does not meet a full host. A host without room is QC_NOSPACE.
 * Left to others: closing the descriptor, opening it where the name is the user's own, and keeping
 * other writers away from the file.
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

/*
 * Makes file a disk over the file that name, a path out of an image without "..", has below a
 * folder, opened with these flags of open(). No part of name may be a symbolic link, so that it
 * cannot lead out.
 * ret_folder is a descriptor of the folder in which the file lies; both are the caller's to close.
 * Returns 0, or an errno value: ELOOP for a symbolic link, those of posix_file_init and openat.
 */
int posix_file_open_below(struct posix_file *file, int folder, const char *name, int flags,
                          int *ret_folder);

#endif
