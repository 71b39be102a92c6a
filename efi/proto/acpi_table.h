/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* EFI ACPI Table Protocol (UEFI 2.10, 20.2), which gnu-efi lacks. */
#ifndef EFI_PROTO_ACPI_TABLE_H
#define EFI_PROTO_ACPI_TABLE_H

#include <efi.h>

#define EFI_ACPI_TABLE_PROTOCOL_GUID                                                               \
    {                                                                                              \
        0xffe06bdd, 0x6107, 0x46a6,                                                                \
        {                                                                                          \
            0x7b, 0xb2, 0x5a, 0x9c, 0x7e, 0xc5, 0x27, 0x5c                                         \
        }                                                                                          \
    }

typedef struct EFI_ACPI_TABLE_PROTOCOL EFI_ACPI_TABLE_PROTOCOL;

/* A table is copied when it is installed; the key takes it away again. */
struct EFI_ACPI_TABLE_PROTOCOL {
    EFI_STATUS(EFIAPI *InstallAcpiTable)
    (EFI_ACPI_TABLE_PROTOCOL *This, void *table, UINTN table_bytes, UINTN *ret_key);
    EFI_STATUS(EFIAPI *UninstallAcpiTable)(EFI_ACPI_TABLE_PROTOCOL *This, UINTN key);
};

#endif
