/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The firmware as the program sees it: its tables, the shell if one started it, handles, paths.
 *
 * Promises: nothing is allocated; what the firmware returns is freed before the call ends.
 */
#ifndef COMMAND_FIRMWARE_H
#define COMMAND_FIRMWARE_H

#include <efi.h>
#include <efishell.h>
#include <stdbool.h>
#include <stddef.h>

#include "text.h"

#define HANDLES_MAX 4096u

extern EFI_SYSTEM_TABLE *efi_system;
extern EFI_BOOT_SERVICES *efi_boot;
extern EFI_SHELL_PROTOCOL *efi_shell; /* NULL: no shell started the program */
extern EFI_HANDLE efi_self;
extern EFI_LOADED_IMAGE_PROTOCOL *efi_loaded; /* of this program */
extern EFI_HANDLE efi_handles[HANDLES_MAX];   /* what firmware_locate found */

extern EFI_GUID guid_block_io, guid_device_path, guid_driver, guid_file_info, guid_file_system;

/* Fills the variables above. */
EFI_STATUS firmware_init(EFI_HANDLE self, EFI_SYSTEM_TABLE *system);
EFI_STATUS firmware_protocol(EFI_HANDLE handle, EFI_GUID *guid, void **ret_protocol);
/* All handles, or those with a protocol, into efi_handles. */
EFI_STATUS firmware_locate(EFI_GUID *guid, size_t *ret_count);
/* The path of a handle; NULL where it has none. */
EFI_DEVICE_PATH *firmware_path(EFI_HANDLE handle);
/* A path as text; "a device" where the firmware cannot. */
void firmware_path_text(const EFI_DEVICE_PATH *path, char text[TEXT_BYTES_MAX]);
/* What an error of the firmware means, for the end of a line: " not found". */
const char *firmware_reason(EFI_STATUS status);

#endif
