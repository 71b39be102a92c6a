/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Finds handles by what their device paths say, never by their order, which changes with every
 * reconnect: the disk on a PCI slot, its partition, the image's child on it, the volume inside.
 */
#include "agent.h"

#include "../../../efi/proto/qcow2.h"

#define PATH_NODES_MAX 64u

EFI_GUID guid_block_io = EFI_BLOCK_IO_PROTOCOL_GUID;
EFI_GUID guid_device_path = EFI_DEVICE_PATH_PROTOCOL_GUID;
EFI_GUID guid_disk_io = EFI_DISK_IO_PROTOCOL_GUID;
EFI_GUID guid_files = EFI_SIMPLE_FILE_SYSTEM_PROTOCOL_GUID;
EFI_GUID guid_loaded_image = EFI_LOADED_IMAGE_PROTOCOL_GUID;

static EFI_GUID guid_image_node = QCOW2_MEDIA_GUID;

bool equal(const void *left, const void *right, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (((const uint8_t *)left)[i] != ((const uint8_t *)right)[i])
            return false;
    return true;
}

size_t find_handles(EFI_GUID *protocol, EFI_HANDLE **ret_list)
{
    static EFI_HANDLE list[AGENT_HANDLES_MAX];
    UINTN bytes = sizeof(list);
    EFI_STATUS status =
        agent.bs->LocateHandle(protocol ? ByProtocol : AllHandles, protocol, NULL, &bytes, list);
    *ret_list = list;
    return status == EFI_SUCCESS ? bytes / sizeof(list[0]) : 0;
}

void *find_protocol(EFI_HANDLE handle, EFI_GUID *protocol)
{
    void *interface = NULL;
    if (handle == NULL || agent.bs->HandleProtocol(handle, protocol, &interface) != EFI_SUCCESS)
        return NULL;
    return interface;
}

static bool is_image_node(const EFI_DEVICE_PATH_PROTOCOL *node)
{
    return DevicePathType(node) == MEDIA_DEVICE_PATH &&
           DevicePathSubType(node) == MEDIA_VENDOR_DP &&
           equal((const uint8_t *)node + sizeof(*node), &guid_image_node, sizeof(guid_image_node));
}

/* Bytes of the path before its end node. */
static size_t path_bytes(const EFI_DEVICE_PATH_PROTOCOL *path)
{
    size_t bytes = 0;
    for (size_t i = 0; i < PATH_NODES_MAX; i++) {
        const EFI_DEVICE_PATH_PROTOCOL *node = (const void *)((const uint8_t *)path + bytes);
        if (IsDevicePathEnd(node))
            break;
        bytes += DevicePathNodeLength(node);
    }
    return bytes;
}

EFI_DEVICE_PATH_PROTOCOL *path_after(EFI_DEVICE_PATH_PROTOCOL *path,
                                     EFI_DEVICE_PATH_PROTOCOL *prefix)
{
    size_t bytes = path_bytes(prefix);
    if (path_bytes(path) < bytes || !equal(path, prefix, bytes))
        return NULL;
    return (void *)((uint8_t *)path + bytes);
}

/* True for the path of PCI device slot's disk (part 0) or partition, with no image or file in it.
 */
static bool path_matches(EFI_DEVICE_PATH_PROTOCOL *path, uint64_t slot, uint64_t part)
{
    bool on_slot = false;
    uint64_t found_part = 0;
    EFI_DEVICE_PATH_PROTOCOL *node = path;
    for (size_t i = 0; i < PATH_NODES_MAX && !IsDevicePathEnd(node); i++) {
        if (DevicePathType(node) == HARDWARE_DEVICE_PATH && DevicePathSubType(node) == HW_PCI_DP) {
            on_slot = ((PCI_DEVICE_PATH *)node)->Device == slot;
        } else if (DevicePathType(node) == MEDIA_DEVICE_PATH &&
                   DevicePathSubType(node) == MEDIA_HARDDRIVE_DP) {
            uint32_t number;
            agent.bs->CopyMem(&number, (uint8_t *)node + sizeof(*node), sizeof(number));
            found_part = number;
        } else if (is_image_node(node) || (DevicePathType(node) == MEDIA_DEVICE_PATH &&
                                           DevicePathSubType(node) == MEDIA_FILEPATH_DP)) {
            return false;
        }
        node = NextDevicePathNode(node);
    }
    return on_slot && found_part == part;
}

EFI_HANDLE find_disk(uint64_t slot, uint64_t part)
{
    EFI_HANDLE *list;
    size_t count = find_handles(&guid_block_io, &list);
    for (size_t i = 0; i < count; i++) {
        EFI_DEVICE_PATH_PROTOCOL *path = find_protocol(list[i], &guid_device_path);
        if (path != NULL && path_matches(path, slot, part))
            return list[i];
    }
    return NULL;
}

EFI_BLOCK_IO_PROTOCOL *find_child(EFI_HANDLE *ret_handle)
{
    EFI_HANDLE *list;
    EFI_DEVICE_PATH_PROTOCOL *parent = find_protocol(agent.parent, &guid_device_path);
    size_t count = find_handles(&guid_block_io, &list);
    for (size_t i = 0; parent != NULL && i < count; i++) {
        EFI_DEVICE_PATH_PROTOCOL *path = find_protocol(list[i], &guid_device_path);
        EFI_DEVICE_PATH_PROTOCOL *rest = path ? path_after(path, parent) : NULL;
        if (rest != NULL && is_image_node(rest) && IsDevicePathEnd(NextDevicePathNode(rest))) {
            if (ret_handle != NULL)
                *ret_handle = list[i];
            return find_protocol(list[i], &guid_block_io);
        }
    }
    return NULL;
}

EFI_BLOCK_IO_PROTOCOL *find_named(const char *which)
{
    return which[0] == 'p' ? find_protocol(agent.parent, &guid_block_io) : find_child(NULL);
}

size_t find_children_count(void)
{
    EFI_HANDLE *list;
    size_t children_count = 0;
    size_t count = find_handles(&guid_block_io, &list);
    for (size_t i = 0; i < count; i++) {
        EFI_DEVICE_PATH_PROTOCOL *node = find_protocol(list[i], &guid_device_path);
        for (size_t j = 0; node != NULL && j < PATH_NODES_MAX && !IsDevicePathEnd(node); j++) {
            EFI_DEVICE_PATH_PROTOCOL *next = NextDevicePathNode(node);
            children_count += is_image_node(node) && IsDevicePathEnd(next);
            node = next;
        }
    }
    return children_count;
}

EFI_HANDLE find_volume(void)
{
    EFI_HANDLE child;
    EFI_HANDLE *list;
    if (find_child(&child) == NULL)
        return NULL;
    EFI_DEVICE_PATH_PROTOCOL *inside = find_protocol(child, &guid_device_path);
    size_t count = find_handles(&guid_files, &list);
    for (size_t i = 0; i < count; i++) {
        EFI_DEVICE_PATH_PROTOCOL *path = find_protocol(list[i], &guid_device_path);
        if (path != NULL && path_after(path, inside) != NULL)
            return list[i];
    }
    return NULL;
}
