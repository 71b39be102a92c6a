/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* EFI Reset Notification Protocol (UEFI 2.10, 8.5), which gnu-efi lacks. */
#ifndef EFI_PROTO_RESET_NOTIFICATION_H
#define EFI_PROTO_RESET_NOTIFICATION_H

#include <efi.h>

#define EFI_RESET_NOTIFICATION_PROTOCOL_GUID                                                       \
    {                                                                                              \
        0x9da34ae0, 0xeaf9, 0x4bbf,                                                                \
        {                                                                                          \
            0x8e, 0xc3, 0xfd, 0x60, 0x22, 0x6c, 0x44, 0xbe                                         \
        }                                                                                          \
    }

typedef struct EFI_RESET_NOTIFICATION_PROTOCOL EFI_RESET_NOTIFICATION_PROTOCOL;

/* Functions are called at the level that ResetSystem was called at, the oldest first. */
struct EFI_RESET_NOTIFICATION_PROTOCOL {
    EFI_STATUS(EFIAPI *RegisterResetNotify)
    (EFI_RESET_NOTIFICATION_PROTOCOL *This, EFI_RESET_SYSTEM ResetFunction);
    EFI_STATUS(EFIAPI *UnregisterResetNotify)
    (EFI_RESET_NOTIFICATION_PROTOCOL *This, EFI_RESET_SYSTEM ResetFunction);
};

#endif
