/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* The driver: finding it, or starting it; and the names of what belongs to one processor. */
#ifndef COMMAND_DRIVER_H
#define COMMAND_DRIVER_H

#include "../proto/qcow2_control.h"
#include "firmware.h"

/* Of the processor that this program, and what it may start, is made for (UEFI 2.10, 3.5.1.1). */
#ifdef __aarch64__
#define DRIVER_NAME "qcow2aa64.efi"
#define LOADER_NAME "BOOTAA64.EFI"
#else
#define DRIVER_NAME "qcow2x64.efi"
#define LOADER_NAME "BOOTX64.EFI"
#endif
#define DRIVER_FOLDER "\\EFI\\qcow2\\"

/* Starts it unless it runs: from the folder of this program, or from \EFI\qcow2\ of the same
 * volume. An error was said. */
EFI_STATUS driver_start(void);
/* What the driver that runs does for the command; NULL where none runs, or one that is too old. */
struct qcow2_control *driver_control(void);

#endif
