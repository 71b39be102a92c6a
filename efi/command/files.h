/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Files of volumes through the firmware's file system drivers, and programs started from them.
 *
 * Promises: paths are UTF-8 from the volume's root, with \ between names; whatever is opened here
 * and not handed out is closed again.
 */
#ifndef COMMAND_FILES_H
#define COMMAND_FILES_H

#include <stdint.h>

#include "firmware.h"

/* mode: EFI_FILE_MODE_*. Errors as EFI_FILE_PROTOCOL.Open; EFI_NOT_FOUND where there is no file
 * system. */
EFI_STATUS files_open(EFI_HANDLE volume, const char *path, uint64_t mode,
                      EFI_FILE_HANDLE *ret_file);
/* EFI_NOT_FOUND where the volume has no such file. */
EFI_STATUS files_look(EFI_HANDLE volume, const char *path);
/* Bytes of an open file, and what it takes on its volume. */
EFI_STATUS files_size(EFI_FILE_HANDLE file, uint64_t *ret_bytes, uint64_t *ret_used_bytes);
EFI_STATUS files_shorten(EFI_FILE_HANDLE file, uint64_t bytes);
/* Bytes that are free on a volume. */
EFI_STATUS files_free_bytes(EFI_HANDLE volume, uint64_t *ret_bytes);
/* Writes what the firmware holds back of a volume. */
EFI_STATUS files_flush(EFI_HANDLE volume);
/* EFI_SUCCESS too where there was none. */
EFI_STATUS files_remove(EFI_HANDLE volume, const char *path);
/* Within its folder; name is the new last part of the path. */
EFI_STATUS files_rename(EFI_HANDLE volume, const char *path, const char *name);
/*
 * Makes what was written durable, and gives it the place of path, which goes where there is one;
 * name is the last part of path. A file that cannot take the place stays where it is.
 */
EFI_STATUS files_replace(EFI_HANDLE volume, const char *new_path, const char *path,
                         const char *name);
/* Makes a folder that is not there yet. */
EFI_STATUS files_make_folder(EFI_HANDLE volume, const char *path);

/* The path of a file: its volume's path with a File Path node (UEFI 2.10, 10.3.5.4). One at a
 * time; NULL where it is too long. */
const EFI_DEVICE_PATH *files_path(const EFI_DEVICE_PATH *volume, const char *path);
/* Loads a program; EFI_NOT_FOUND where the volume has no such file. */
EFI_STATUS files_load(EFI_HANDLE volume, const char *path, EFI_HANDLE *ret_image);
EFI_STATUS files_start(EFI_HANDLE image);
/* The path of a file in the folder this program was started from; false where there is none. */
bool files_beside(char path[TEXT_BYTES_MAX], const char *name);

#endif
