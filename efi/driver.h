/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * What the files of the driver share: the firmware's tables, the driver's own protocols, and the
 * images that are attached.
 *
 * An attached image is a slot of a static array. A slot is taken from the moment a container is
 * ours (Disk I/O opened BY_DRIVER) until Stop() gives the container back; it has a child handle
 * unless the firmware asked for none. The array is also the answer to "is this handle ours?".
 */
#ifndef EFI_DRIVER_H
#define EFI_DRIVER_H

#include <efi.h>
#include <stdbool.h>
#include <stdint.h>

#include "../core/qcow2.h"
#include "../drivers/efi_block.h"
#include "path.h"

#define ATTACHED_MAX 6u
#ifndef QC_CACHE_KIB
#define QC_CACHE_KIB 1024
#endif
#define POOL_BYTES (QC_CACHE_KIB * 1024u)
_Static_assert(POOL_BYTES >= QC_POOL_BYTES_MIN && POOL_BYTES <= QC_POOL_BYTES_MAX,
               "QC_CACHE_KIB is out of range");

struct attached {
    _Alignas(QC_PAGE_BYTES) uint8_t pool[POOL_BYTES];
    struct efi_block block;
    struct qc_cache cache;
    struct qc_image image;
    EFI_BLOCK_IO_PROTOCOL block_io;
    EFI_BLOCK_IO_MEDIA media;
    EFI_HANDLE container; /* NULL: the slot is free */
    EFI_HANDLE child;     /* NULL: no child was asked for */
    uint64_t digest;      /* of the container's path and first sector, for say_once */
    bool is_busy;         /* a request is running */
    bool is_stopping;     /* the child is being taken away */
    uint8_t path[PATH_BYTES_MAX + sizeof(struct qcow2_node) + PATH_END_BYTES];
};

/* entry.c */
extern EFI_SYSTEM_TABLE *efi_system;
extern EFI_BOOT_SERVICES *efi_boot;
extern EFI_GUID guid_block_io, guid_device_path, guid_disk_io;
EFI_STATUS EFIAPI efi_main(EFI_HANDLE image_handle, EFI_SYSTEM_TABLE *system);

/* binding.c, name.c. Writable: tools that wrap a driver patch these structures in place. */
extern EFI_DRIVER_BINDING_PROTOCOL driver_binding;
extern EFI_COMPONENT_NAME_PROTOCOL component_name;
extern EFI_COMPONENT_NAME2_PROTOCOL component_name2;

/* attach.c */

/*
 * Attaches the image on a container that is ours by now; with_child false only claims it.
 * EFI_UNSUPPORTED without a word where no image is. Any other error was said on the console:
 * EFI_VOLUME_CORRUPTED, EFI_UNSUPPORTED (legal, not implemented), EFI_DEVICE_ERROR,
 * EFI_OUT_OF_RESOURCES (no free slot). Only when the first block cannot be read nothing is said.
 */
EFI_STATUS attach_start(EFI_HANDLE container, EFI_BLOCK_IO_PROTOCOL *parent,
                        const EFI_DEVICE_PATH *path, bool with_child);
/* Takes the child away. On an error all is as before. */
EFI_STATUS attach_stop_child(struct attached *attached);
/* Frees the slot of a container that has no child. */
void attach_release(struct attached *attached);
/* Slots by what they belong to; NULL where it is none of ours (or NULL). */
struct attached *attached_by_container(EFI_HANDLE container);
struct attached *attached_by_block_io(const EFI_BLOCK_IO_PROTOCOL *block_io);
/* Any attached image, NULL when there is none. */
struct attached *attached_any(void);

/* blockio.c */

/* Fills media and block_io of a slot whose image is open. */
void blockio_init(struct attached *attached);

#endif
