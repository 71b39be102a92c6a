/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Boot#### and Driver#### variables (UEFI 2.10, 3.1): ours, by the file that they start.
 *
 * Promises: no other variable is changed, but for the two orders, in which the others keep theirs.
 */
#ifndef COMMAND_OPTIONS_H
#define COMMAND_OPTIONS_H

#include "firmware.h"

#define OPTIONS_NAME_BYTES 16u /* "Driver0000" */

struct options_kind {
    const char *name; /* "Driver", "Boot" */
    uint32_t attributes;
    bool is_first; /* in its order; else last */
};

extern const struct options_kind options_driver, options_boot;

/*
 * Finds the option that starts this file, a path as files_path makes it. The name is empty where
 * there is none.
 */
EFI_STATUS options_find(const struct options_kind *kind, const EFI_DEVICE_PATH *file,
                        char name[OPTIONS_NAME_BYTES]);
/* Adds one by the description "qcow2", with a free number. */
EFI_STATUS options_add(const struct options_kind *kind, const EFI_DEVICE_PATH *file,
                       char name[OPTIONS_NAME_BYTES]);
/* Takes one away, and out of its order. */
EFI_STATUS options_remove(const struct options_kind *kind, const char *name);

#endif
