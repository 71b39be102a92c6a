/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * What this project adds to the firmware's name space: two GUIDs and one device path node.
 *
 * The node is a Vendor-Defined Media node (UEFI 2.10, 10.3.5.3). It follows the container's path,
 * and what lies inside the image follows it: .../VenMedia(89F7...,0100)/HD(1,GPT,...)/\EFI\...
 * It says nothing that can change while the image stays where it is. No digest of the header, above
 * all: a snapshot or a new size changes the header, and a Boot#### entry that names a file in the
 * image must outlive that.
 */
#ifndef EFI_PROTO_QCOW2_H
#define EFI_PROTO_QCOW2_H

#include <efi.h>
#include <stdint.h>

#define QCOW2_MEDIA_GUID                                                                           \
    {                                                                                              \
        0x89f74f3b, 0x8085, 0x416e,                                                                \
        {                                                                                          \
            0xa5, 0x3a, 0x6e, 0x61, 0xf7, 0xff, 0xc4, 0xac                                         \
        }                                                                                          \
    }

/* Lies on the image handle of the one driver that is loaded; a second copy sees it and leaves. */
#define QCOW2_DRIVER_GUID                                                                          \
    {                                                                                              \
        0x2eb89fc8, 0x0190, 0x4d4d,                                                                \
        {                                                                                          \
            0x89, 0xa6, 0x4c, 0x05, 0x20, 0x41, 0x03, 0x69                                         \
        }                                                                                          \
    }

#define QCOW2_NODE_VERSION  1
#define QCOW2_NODE_RAW_DISK 0 /* the image starts at byte 0 of the disk or partition */

struct qcow2_node {
    EFI_DEVICE_PATH header;
    EFI_GUID guid;
    uint8_t version;
    uint8_t kind;
} __attribute__((packed));
_Static_assert(sizeof(struct qcow2_node) == 22, "attributes must not be defined away");

#define QCOW2_NODE                                                                                 \
    {                                                                                              \
        {MEDIA_DEVICE_PATH, MEDIA_VENDOR_DP, {sizeof(struct qcow2_node), 0}}, QCOW2_MEDIA_GUID,    \
            QCOW2_NODE_VERSION, QCOW2_NODE_RAW_DISK                                                \
    }

#endif
