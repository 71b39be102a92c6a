/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Files that the driver can write: on FAT volumes, with whole pages of the firmware's file system
 * driver to themselves (drivers/fat.h, qc_fat_owns_pages).
 *
 * That driver takes the next free clusters for a file. So a file is put on a page by filling what
 * lies before that page with another file, which is removed afterwards; where free space is in
 * pieces, the place of a file that was no good tells how far to fill.
 *
 * Promises: what is found out is read from the disk after a flush, never believed; fillers are gone
 * afterwards, whatever happens.
 */
#ifndef COMMAND_ROOM_H
#define COMMAND_ROOM_H

#include "files.h"

#define ROOM_FILE_BYTES_MAX UINT64_C(0xffff0000) /* whole pages below FAT's 4 GiB */

struct room {
    uint64_t bytes;      /* of the file */
    uint64_t page_bytes; /* of the volume */
    uint64_t before;     /* bytes between a page's begin and the file's */
    uint64_t skip_bytes; /* of a filler in its place, for a better one behind it */
    bool is_owner;       /* no page is shared */
};

/* EFI_UNSUPPORTED: no FAT volume; EFI_NOT_FOUND, EFI_DEVICE_ERROR, EFI_VOLUME_CORRUPTED. */
EFI_STATUS room_look(EFI_HANDLE volume, const char *path, struct room *ret_room);
/*
 * Makes a file of bytes, a multiple of page_bytes, whose content is whatever was there; one that is
 * there already is replaced. EFI_VOLUME_FULL; EFI_NOT_FOUND where no such place was found.
 */
EFI_STATUS room_make(EFI_HANDLE volume, const char *path, uint64_t bytes);
/* Makes a file longer or shorter; what is new is whatever was there. */
EFI_STATUS room_resize(EFI_HANDLE volume, const char *path, uint64_t bytes);

#endif
