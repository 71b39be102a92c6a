/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* What the program is when no shell started it, and the verb boot: see boot.c. */
#ifndef COMMAND_BOOT_H
#define COMMAND_BOOT_H

#include "../config.h"
#include "driver.h"

#define BOOT_LOADER_FILE "\\EFI\\BOOT\\" LOADER_NAME

extern struct config boot_settings;

/* Returns only on an error, or when what it started returned. */
EFI_STATUS boot_run(void);
/*
 * Starts the loader of the first volume that has it, of those on a disk, NULL: of those inside any
 * image. Errors were said.
 */
EFI_STATUS boot_loader(const EFI_DEVICE_PATH *disk, const char *loader);

#endif
