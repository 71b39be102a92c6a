/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Device paths (UEFI 2.10, chapter 10): measured and searched, never built from strings.
 *
 * Promises: no walk goes further than PATH_BYTES_MAX, whatever the nodes say about their length.
 */
#ifndef EFI_PATH_H
#define EFI_PATH_H

#include <efi.h>
#include <stdbool.h>
#include <stddef.h>

#include "config.h"
#include "proto/qcow2.h"

#define PATH_BYTES_MAX       1024u
#define PATH_END_BYTES       sizeof(EFI_DEVICE_PATH)
#define PATH_PARTITION_BYTES 42u /* of a Hard Drive node; the structure has padding */
#define PATH_END_NODE_INIT                                                                         \
    {                                                                                              \
        END_DEVICE_PATH_TYPE, END_ENTIRE_DEVICE_PATH_SUBTYPE,                                      \
        {                                                                                          \
            4, 0                                                                                   \
        }                                                                                          \
    }

static inline const EFI_DEVICE_PATH *path_at(const EFI_DEVICE_PATH *path, size_t off)
{
    return (const EFI_DEVICE_PATH *)((const char *)path + off);
}

/*
 * The node behind *off, false at the end node or where the path is malformed or longer than
 * PATH_BYTES_MAX. Starts at off 0; a loop over it ends after PATH_BYTES_MAX / 4 nodes at most.
 */
static inline bool path_step(const EFI_DEVICE_PATH *path, size_t *off)
{
    const EFI_DEVICE_PATH *node = path_at(path, *off);
    size_t node_bytes = (size_t)DevicePathNodeLength(node);

    if (IsDevicePathEnd(node) || node_bytes < sizeof(*node) || node_bytes > PATH_BYTES_MAX - *off)
        return false;
    *off += node_bytes;
    return true;
}

/* Bytes in front of the end node; false if there is no end node within PATH_BYTES_MAX. */
static inline bool path_measure(const EFI_DEVICE_PATH *path, size_t *ret_bytes)
{
    size_t bytes = 0;

    while (path_step(path, &bytes))
        continue;
    if (!IsDevicePathEnd(path_at(path, bytes)))
        return false;
    *ret_bytes = bytes;
    return true;
}

/* Whether a node is ours, of any version and kind. */
static inline bool path_is_image_node(const EFI_DEVICE_PATH *node)
{
    static const struct qcow2_node ours = QCOW2_NODE;

    return DevicePathType(node) == MEDIA_DEVICE_PATH && node->SubType == MEDIA_VENDOR_DP &&
           (size_t)DevicePathNodeLength(node) >= sizeof(node[0]) + sizeof(ours.guid) &&
           __builtin_memcmp(node + 1, &ours.guid, sizeof(ours.guid)) == 0;
}

/* Whether something lies inside an image: it has our node on its way. */
static inline bool path_is_in_image(const EFI_DEVICE_PATH *path)
{
    size_t off = 0;

    do {
        if (path_is_image_node(path_at(path, off)))
            return true;
    } while (path_step(path, &off));
    return false;
}

/* The GUID of the partition that the path ends at; false where it ends at none, or has an MBR's. */
static inline bool path_partition(const EFI_DEVICE_PATH *path, struct config_guid *ret_guid)
{
    HARDDRIVE_DEVICE_PATH node = {0};
    size_t off = 0, last = 0;

    for (size_t next = 0; path_step(path, &next); off = next)
        last = off;
    if (!IsDevicePathEnd(path_at(path, off)) || off - last != PATH_PARTITION_BYTES)
        return false;
    __builtin_memcpy(&node, path_at(path, last), PATH_PARTITION_BYTES);
    if (DevicePathType(&node.Header) != MEDIA_DEVICE_PATH ||
        node.Header.SubType != MEDIA_HARDDRIVE_DP || node.SignatureType != SIGNATURE_TYPE_GUID)
        return false;
    __builtin_memcpy(ret_guid, node.Signature, sizeof(*ret_guid));
    return true;
}

/*
 * Whether a FlushBlocks of this disk reaches it. EDK2's drivers for ATA, SATA and USB disks answer
 * success and send nothing; nothing but the path tells which driver it is.
 */
static inline bool path_takes_flush(const EFI_DEVICE_PATH *path)
{
    size_t off = 0;

    do {
        const EFI_DEVICE_PATH *node = path_at(path, off);

        if (DevicePathType(node) == MESSAGING_DEVICE_PATH &&
            (node->SubType == MSG_ATAPI_DP || node->SubType == MSG_SATA_DP ||
             node->SubType == MSG_USB_DP))
            return false;
    } while (path_step(path, &off));
    return true;
}

#endif
