/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Files of FAT volumes as containers, and as the layers and data files of images in them.
 *
 * A file's extents are looked up once, by our own walk of the FAT; from then on it is a disk made
 * of parts of the volume's disk. The firmware's file system driver is never entered on the way of
 * a request: it has one lock for all volumes, and the request may come from inside of it. It is
 * told to write what it holds back before a file is looked up, and to forget what it knows
 * afterwards.
 *
 * Promises: nothing outside of the file's own clusters is read or written. It is written only where
 * it shares no page with anything else, now or later: EDK2's driver writes whole pages back, stale
 * bytes of a file's neighbours included. The directory entry is looked at again at each flush: a
 * file that was moved, removed or rewritten meanwhile is a medium that has gone.
 *
 * Left to others: growing a file (the command does, before it attaches one).
 */
#ifndef EFI_FILE_H
#define EFI_FILE_H

#include "driver.h"

#define FILES_MAX     12u
#define FILE_RUNS_MAX 1024u
#define FILE_PATH_MAX 256u /* bytes of a path, its terminator included */

/*
 * Makes a container for a file. EFI_SUCCESS: *ret_container has Block I/O and a device path, and is
 * to be connected. Errors as attach_file of qcow2_control.h; the reason was said.
 */
EFI_STATUS file_open(EFI_HANDLE volume, const char *path, const struct config_entry *entry,
                     EFI_HANDLE *ret_container);
/*
 * Takes a container that is connected to nothing away again. If it was written, the firmware's
 * driver of its volume is started anew: files that others have open there are closed.
 */
EFI_STATUS file_close(EFI_HANDLE container);
/* Whether a handle is a container made here, and any there is, NULL where none is. */
bool file_is(EFI_HANDLE container);
EFI_HANDLE file_any(void);
/* Whether an attached image is in a file of a volume, or has it as a layer or its data file. */
bool file_is_used(EFI_HANDLE volume, const char *path);
/* What is said of how the image in a file is attached; NULL: nothing. */
const struct config_entry *file_entry(EFI_HANDLE container);
/* Why a file that was made a container is only read; NULL where that is not the file's doing. */
const char *file_readonly_reason(EFI_HANDLE container);
/* Makes the containers of all files in the configuration, which lies on this volume. */
void file_open_configured(EFI_HANDLE volume);

/*
 * The disk that an image in a file names, as its next layer or data file: by a name below the
 * folder of who names it, on the same volume. *number says which file it is, for the next two.
 */
qc_status file_find_base(struct attached *attached, struct qc_base *base, unsigned *ret_number);
struct efi_block *file_block(unsigned number);
/* Gives back what file_find_base gave. */
void file_release_base(unsigned number);

#endif
