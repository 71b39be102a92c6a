/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Secure Boot (UEFI 2.10, 3.3 and 32): what the configuration may not do while it is on.
 *
 * Firmware verifies what it starts, and nothing verifies the configuration: who can write a file on
 * the volume that the driver comes from can write it. So while Secure Boot is on the configuration
 * may only take away: readonly, snapshot and `backing no` act, and `base` and `data` make no image
 * out of other partitions: such an image is refused, as it is without them. The partitions they
 * name stay hidden and are not written, so that what was a layer yesterday is not a disk today.
 * `file` makes no disk of a file; the command, which the firmware verifies, may.
 *
 * The driver itself loads no code: what an image holds is started by others, through LoadImage,
 * which verifies it wherever it lies.
 *
 * Promises: where the firmware does not tell whether Secure Boot is on, it is taken to be on; where
 * it has no such variable, it is off.
 */
#include "driver.h"

/* The variable's one byte, 0 where there is no such variable. */
static uint8_t byte_of(CHAR16 *name, uint8_t if_unclear)
{
    static EFI_GUID guid_global = EFI_GLOBAL_VARIABLE;
    uint8_t value;
    UINTN bytes = sizeof(value);
    EFI_STATUS status =
        efi_system->RuntimeServices->GetVariable(name, &guid_global, NULL, &bytes, &value);

    if (status == EFI_NOT_FOUND)
        return 0;
    return EFI_ERROR(status) || bytes != sizeof(value) ? if_unclear : value;
}

/* In setup mode no key is enrolled that anything could be verified against. */
static bool is_on(void)
{
    return byte_of(L"SecureBoot", 1) != 0 && byte_of(L"SetupMode", 0) == 0;
}

bool secureboot_narrow(struct config *settings)
{
    if (!is_on())
        return false;
    for (unsigned i = 0; i < settings->entries_count; i++)
        settings->is_narrowed |= settings->entries[i].has_base || settings->entries[i].has_data ||
                                 settings->entries[i].has_file;
    return settings->is_narrowed;
}
