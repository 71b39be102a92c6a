/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* EFI Erase Block Protocol (UEFI 2.10, 13.12), which gnu-efi lacks. */
#ifndef EFI_PROTO_ERASE_BLOCK_H
#define EFI_PROTO_ERASE_BLOCK_H

#include <efi.h>

#define EFI_ERASE_BLOCK_PROTOCOL_GUID                                                              \
    {                                                                                              \
        0x95a9a93e, 0xa86e, 0x4926,                                                                \
        {                                                                                          \
            0xaa, 0xef, 0x99, 0x18, 0xe7, 0x72, 0xd9, 0x87                                         \
        }                                                                                          \
    }

#define EFI_ERASE_BLOCK_PROTOCOL_REVISION (2u << 16 | 60)

typedef struct {
    EFI_EVENT Event;              /* NULL: the call blocks */
    EFI_STATUS TransactionStatus; /* valid once Event was signalled */
} EFI_ERASE_BLOCK_TOKEN;

typedef struct EFI_ERASE_BLOCK_PROTOCOL EFI_ERASE_BLOCK_PROTOCOL;

struct EFI_ERASE_BLOCK_PROTOCOL {
    UINT64 Revision;
    UINT32 EraseLengthGranularity; /* in blocks; other lengths work, but cost more */
    /* Size is in bytes. EFI_NO_MEDIA, EFI_WRITE_PROTECTED, EFI_MEDIA_CHANGED,
     * EFI_INVALID_PARAMETER, EFI_DEVICE_ERROR. */
    EFI_STATUS(EFIAPI *EraseBlocks)
    (EFI_ERASE_BLOCK_PROTOCOL *This, UINT32 MediaId, EFI_LBA LBA, EFI_ERASE_BLOCK_TOKEN *Token,
     UINTN Size);
};

#endif
