/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* What the program is when no shell started it: see boot.c. */
#ifndef COMMAND_BOOT_H
#define COMMAND_BOOT_H

#include <efi.h>

/* Returns only on an error, or when what it started returned. */
EFI_STATUS boot_run(void);

#endif
