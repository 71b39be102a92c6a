/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * A file of a FAT volume as a disk: the volume's disk, the file's runs on it, and a Block I/O of
 * its own around them, on which everything that is done with a partition is done too.
 *
 * Promises: nothing outside of the runs is read or written. The directory is asked whether the file
 * is still where it was before the first write behind each flush, after each flush, and whenever
 * the first block is read, which is how an attach begins; the file's layers and its data file with
 * it. From the moment it is not, the disk has no medium.
 *
 * Left to others: handles, names and who uses what (file.c).
 */
#ifndef EFI_FILEDISK_H
#define EFI_FILEDISK_H

#include "../drivers/extents.h"
#include "../drivers/fat.h"
#include "file.h"

#define NODE_BYTES_MAX (sizeof(EFI_DEVICE_PATH) + FILE_PATH_MAX * sizeof(CHAR16))

struct file {
    EFI_BLOCK_IO_PROTOCOL block_io; /* first, so that a protocol's pointer is its file's */
    EFI_BLOCK_IO_MEDIA media;
    EFI_HANDLE volume;      /* NULL: the slot is free */
    EFI_HANDLE container;   /* NULL: it is a layer or a data file */
    unsigned users_count;   /* images that it is a layer or the data file of */
    bool is_data;           /* it is a data file */
    bool is_verified;       /* since the last flush */
    bool has_written;       /* since the file system driver was last connected */
    bool shares_pages;      /* with other files: only read */
    struct efi_block below; /* the volume */
    struct efi_block block; /* the file, for images above it */
    struct qc_fat fat;
    struct qc_fat_file file;
    struct qc_extents extents;
    struct qc_run runs[FILE_RUNS_MAX];
    struct config_entry entry;
    char name[FILE_PATH_MAX];
    uint8_t path[PATH_BYTES_MAX + NODE_BYTES_MAX + PATH_END_BYTES];
};

extern struct file filedisks[FILES_MAX];

/*
 * Finds the file on the volume, and takes a slot for it, which has no container and no users. The
 * same file is one slot: where it is open already, *ret_file is that one. detail tells why not:
 * QC_RANGE (no such file), QC_UNSUPPORTED (no such volume, too many runs, path too long),
 * QC_NOSPACE (no free slot), QC_REFUSED (a folder), QC_FOREIGN (empty), QC_CORRUPT, QC_IO. A slot
 * is given back by setting its volume to NULL.
 */
qc_status filedisk_take(EFI_HANDLE volume, const char *path, struct file **ret_file,
                        struct qc_detail *detail);
/* EFI_NO_MEDIA, now and ever after, once the file is not any more where it was. One read. */
EFI_STATUS filedisk_verify(struct file *file);
/* Whether its volume is still there. Nothing is read. */
bool filedisk_has_volume(struct file *file);
/* Characters of a path, its terminator left out; FILE_PATH_MAX where it is longer. */
size_t filedisk_length(const char *path);
/* Puts why into detail; returns status. */
qc_status filedisk_refuse(struct qc_detail *detail, qc_status status, const char *why);

#endif
