/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * WHAT: from the word that was typed to a file or a disk, and whether its image is attached.
 *
 * A file is `fsN:\path` or a path from the shell's current folder; a disk is any name that the
 * shell's `map` knows. A name that lies inside an attached image (its volumes, its disk) stands for
 * that image.
 */
#ifndef COMMAND_TARGET_H
#define COMMAND_TARGET_H

#include "driver.h"

struct target {
    char name[TEXT_BYTES_MAX]; /* as `list` prints it */
    EFI_HANDLE volume;         /* of a file; NULL: it is a disk or partition */
    char path[TEXT_BYTES_MAX]; /* of a file, from the volume's root */
    EFI_HANDLE container;      /* of a disk or partition, and of a file that is attached */
    bool is_attached;
    struct qcow2_listed listed; /* where it is */
};

/* EXIT_GOOD, or an error that was said. */
int target_find(const char *what, struct target *ret_target);
/* The same of a file, which need not be there. */
int target_place(const char *what, struct target *ret_target);
/* Whether what was placed is an attached image; then it becomes that one. */
bool target_is_attached(struct target *target);
/* Whether an attached image has a file, which is none itself, as one of its layers. */
bool target_is_layer(const struct target *target);
/* What an attached image is called. */
void target_of(const struct qcow2_listed *listed, struct target *ret_target);
/* Whether a path, which may be NULL, begins with another. */
bool target_is_below(const EFI_DEVICE_PATH *path, const EFI_DEVICE_PATH *start);
/* The shell's name for a device, "fs0:" before "blk1:"; false where it has none. */
bool target_map_name(const EFI_DEVICE_PATH *path, char name[TEXT_BYTES_MAX]);
/* A file beside another: path with another last part. False where it is too long. */
bool target_beside(char beside[TEXT_BYTES_MAX], const char *path, const char *name);
/* The last part of a path. */
const char *target_last(const char *path);

#endif
