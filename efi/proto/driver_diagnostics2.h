/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* EFI Driver Diagnostics 2 Protocol (UEFI 2.10, 11.4), which gnu-efi lacks. */
#ifndef EFI_PROTO_DRIVER_DIAGNOSTICS2_H
#define EFI_PROTO_DRIVER_DIAGNOSTICS2_H

#include <efi.h>

#define EFI_DRIVER_DIAGNOSTICS2_PROTOCOL_GUID                                                      \
    {                                                                                              \
        0x4d330321, 0x025f, 0x4aac,                                                                \
        {                                                                                          \
            0x90, 0xd8, 0x5e, 0xd9, 0x00, 0x17, 0x3b, 0x63                                         \
        }                                                                                          \
    }

typedef enum {
    EfiDriverDiagnosticTypeStandard, /* every driver has this one */
    EfiDriverDiagnosticTypeExtended,
    EfiDriverDiagnosticTypeManufacturing,
    EfiDriverDiagnosticTypeCancel,
} EFI_DRIVER_DIAGNOSTIC_TYPE;

typedef struct EFI_DRIVER_DIAGNOSTICS2_PROTOCOL EFI_DRIVER_DIAGNOSTICS2_PROTOCOL;

struct EFI_DRIVER_DIAGNOSTICS2_PROTOCOL {
    /*
     * ChildHandle NULL: the controller itself. Buffer: text, then data that ErrorType tells the
     * format of; what is not NULL is the caller's to free. EFI_INVALID_PARAMETER, EFI_UNSUPPORTED
     * (controller, type or language), EFI_DEVICE_ERROR (it did not pass).
     */
    EFI_STATUS(EFIAPI *RunDiagnostics)
    (EFI_DRIVER_DIAGNOSTICS2_PROTOCOL *This, EFI_HANDLE ControllerHandle, EFI_HANDLE ChildHandle,
     EFI_DRIVER_DIAGNOSTIC_TYPE DiagnosticType, CHAR8 *Language, EFI_GUID **ErrorType,
     UINTN *BufferSize, CHAR16 **Buffer);
    CHAR8 *SupportedLanguages; /* RFC 4646 */
};

#endif
