/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * What the driver does for the command: attaching files, letting go of them, and stepping aside
 * while the command works on an image itself. It is the interface of QCOW2_DRIVER_GUID.
 *
 * A container is the handle that an image lies on: a disk, a partition, or one that the driver made
 * for a file of a FAT volume. Its Block I/O holds the image's own bytes, its device path tells what
 * it is.
 *
 * Promises: callers look at revision first; a later one only adds at the end. Every call is made at
 * TPL_APPLICATION and never from within Block I/O.
 */
#ifndef EFI_PROTO_QCOW2_CONTROL_H
#define EFI_PROTO_QCOW2_CONTROL_H

#include <efi.h>

#include "qcow2.h"

#define QCOW2_CONTROL_REVISION   0x00010000u
#define QCOW2_CONTROL_TEXT_BYTES 256u

/* How an image is attached. Zeros: as the configuration, or else the image, says. */
struct qcow2_options {
    BOOLEAN is_given; /* the rest counts, instead of the configuration */
    BOOLEAN is_readonly;
    BOOLEAN is_backing_off;
    char snapshot[QCOW2_CONTROL_TEXT_BYTES]; /* id or name; "": the disk as it is now */
};

struct qcow2_listed {
    EFI_HANDLE container;
    EFI_HANDLE child; /* NULL: there is none */
    BOOLEAN is_file;  /* the container was made for a file */
    BOOLEAN is_readonly;
    UINT64 virtual_bytes;
    char reason[QCOW2_CONTROL_TEXT_BYTES]; /* why it takes no writes; "" while it does */
};

struct qcow2_control {
    UINT32 revision;
    /*
     * Attaches a file of a volume that is FAT; path from the root, UTF-8, with \ between names.
     * EFI_NOT_FOUND, EFI_UNSUPPORTED (no FAT volume, no image), EFI_ALREADY_STARTED,
     * EFI_OUT_OF_RESOURCES, EFI_ACCESS_DENIED (it is a layer of another image), EFI_DEVICE_ERROR,
     * EFI_VOLUME_CORRUPTED; the reason was said on the console. The container is connected.
     */
    EFI_STATUS(EFIAPI *attach_file)
    (struct qcow2_control *This, EFI_HANDLE volume, const char *path,
     const struct qcow2_options *options, EFI_HANDLE *ret_container);
    /* Attaches what lies on a disk or partition, anew if it is attached. Errors as above. */
    EFI_STATUS(EFIAPI *attach_disk)
    (struct qcow2_control *This, EFI_HANDLE container, const struct qcow2_options *options);
    /* Lets go of an image; a file's container is no more. EFI_DEVICE_ERROR: it could not be
     * flushed, or somebody does not let go of it, and all is as before. */
    EFI_STATUS(EFIAPI *detach)(struct qcow2_control *This, EFI_HANDLE container);
    /* The attached images, by numbers from 0. EFI_NOT_FOUND: there are no more. */
    EFI_STATUS(EFIAPI *list)
    (struct qcow2_control *This, UINTN number, struct qcow2_listed *ret_listed);
    /*
     * Steps aside: all is flushed and counts are lowered; until resume() every call of the child
     * answers EFI_DEVICE_ERROR, and the caller has the container's Block I/O for itself.
     */
    EFI_STATUS(EFIAPI *pause)(struct qcow2_control *This, EFI_HANDLE container);
    /* Ends that. After a change the image is attached anew, with a child of its own. */
    EFI_STATUS(EFIAPI *resume)
    (struct qcow2_control *This, EFI_HANDLE container, BOOLEAN is_changed);
    /*
     * EFI_ALREADY_STARTED: an attached image is in this file, or below in it, so that nobody else
     * may change it. EFI_NOT_FOUND: none is.
     */
    EFI_STATUS(EFIAPI *look_file)
    (struct qcow2_control *This, EFI_HANDLE volume, const char *path);
};

#endif
