/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * A file as a disk for the engine, through the firmware's own file system driver (UEFI 2.10, 13.5).
 *
 * Promises: coherent with whoever else uses that driver; grows with zeros until the volume is full
 * or the file has FILE_DISK_BYTES_MAX.
 *
 * Left to others: that the file is not attached at the same time.
 */
#ifndef COMMAND_FILE_DISK_H
#define COMMAND_FILE_DISK_H

#include "../../core/qcow2.h"
#include "files.h"

#define FILE_DISK_BYTES_MAX UINT64_C(0xfffffe00) /* FAT's, in whole sectors */

struct file_disk {
    struct qc_disk disk; /* first: what the engine is given */
    EFI_FILE_HANDLE file;
    uint64_t used_bytes; /* that the file took on its volume when it was opened */
};

EFI_STATUS file_disk_open(struct file_disk *disk, EFI_HANDLE volume, const char *path,
                          bool is_readonly);
/* What was written is durable after a good answer. */
EFI_STATUS file_disk_close(struct file_disk *disk);

#endif
