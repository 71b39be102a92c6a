/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Event groups that gnu-efi lacks. The first two are UEFI 2.10, 7.1; the third is EDK2's own, which
 * its WaitForEvent signals whenever none of the events that it waits for is there.
 */
#ifndef EFI_PROTO_EVENT_GROUPS_H
#define EFI_PROTO_EVENT_GROUPS_H

#define EFI_EVENT_GROUP_READY_TO_BOOT_GUID                                                         \
    {                                                                                              \
        0x7ce88fb3, 0x4bd7, 0x4679,                                                                \
        {                                                                                          \
            0x87, 0xa8, 0xa8, 0xd8, 0xde, 0xe5, 0x0d, 0x2b                                         \
        }                                                                                          \
    }

#define EFI_EVENT_GROUP_BEFORE_EXIT_BOOT_SERVICES_GUID                                             \
    {                                                                                              \
        0x8be0e274, 0x3970, 0x4b44,                                                                \
        {                                                                                          \
            0x80, 0xc5, 0x1a, 0xb9, 0x50, 0x2f, 0x3b, 0xfc                                         \
        }                                                                                          \
    }

#define EDK2_EVENT_GROUP_IDLE_LOOP_GUID                                                            \
    {                                                                                              \
        0x3c8d294c, 0x5fc3, 0x4451,                                                                \
        {                                                                                          \
            0xbb, 0x31, 0xc4, 0xc0, 0x32, 0x29, 0x5e, 0x6c                                         \
        }                                                                                          \
    }

#endif
