/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* EFI Driver Supported EFI Version Protocol (UEFI 2.10, 11.12), which gnu-efi lacks. */
#ifndef EFI_PROTO_SUPPORTED_VERSION_H
#define EFI_PROTO_SUPPORTED_VERSION_H

#include <efi.h>

#define EFI_DRIVER_SUPPORTED_EFI_VERSION_PROTOCOL_GUID                                             \
    {                                                                                              \
        0x5c198761, 0x16a8, 0x4e69,                                                                \
        {                                                                                          \
            0x97, 0x2c, 0x89, 0xd6, 0x79, 0x54, 0xf8, 0x1d                                         \
        }                                                                                          \
    }

typedef struct {
    UINT32 Length;          /* bytes of this structure */
    UINT32 FirmwareVersion; /* major << 16 | minor * 10 of the specification that is followed */
} EFI_DRIVER_SUPPORTED_EFI_VERSION_PROTOCOL;

#endif
