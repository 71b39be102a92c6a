/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Device paths (UEFI 2.10, chapter 10): nodes of the type, subtype and length that the
 * specification gives them, up to an end node; and where an image lies in them.
 */
#include "conformance.h"

#include "../../../efi/proto/qcow2.h"

#define NODES_MAX 64u
#define ANY_MORE  0x8000u /* at least so long */

/* Lengths in bytes; a node that is not here is only asked to be a node. */
static const struct {
    uint8_t type, subtype;
    uint16_t bytes;
} nodes[] = {
    {HARDWARE_DEVICE_PATH, HW_PCI_DP, 6},
    {HARDWARE_DEVICE_PATH, HW_PCCARD_DP, 5},
    {HARDWARE_DEVICE_PATH, HW_MEMMAP_DP, 24},
    {HARDWARE_DEVICE_PATH, HW_VENDOR_DP, 20 | ANY_MORE},
    {HARDWARE_DEVICE_PATH, HW_CONTROLLER_DP, 8},
    {ACPI_DEVICE_PATH, ACPI_DP, 12},
    {ACPI_DEVICE_PATH, EXPANDED_ACPI_DP, 19 | ANY_MORE},
    {ACPI_DEVICE_PATH, ACPI_ADR_DP, 8 | ANY_MORE},
    {MESSAGING_DEVICE_PATH, MSG_ATAPI_DP, 8},
    {MESSAGING_DEVICE_PATH, MSG_SCSI_DP, 8},
    {MESSAGING_DEVICE_PATH, MSG_FIBRECHANNEL_DP, 24},
    {MESSAGING_DEVICE_PATH, MSG_1394_DP, 16},
    {MESSAGING_DEVICE_PATH, MSG_USB_DP, 6},
    {MESSAGING_DEVICE_PATH, MSG_SATA_DP, 10},
    {MESSAGING_DEVICE_PATH, MSG_USB_CLASS_DP, 11},
    {MESSAGING_DEVICE_PATH, MSG_MAC_ADDR_DP, 37},
    {MESSAGING_DEVICE_PATH, MSG_UART_DP, 19},
    {MESSAGING_DEVICE_PATH, MSG_VENDOR_DP, 20 | ANY_MORE},
    {MESSAGING_DEVICE_PATH, 23 /* NVM Express namespace */, 16},
    {MEDIA_DEVICE_PATH, MEDIA_HARDDRIVE_DP, 42},
    {MEDIA_DEVICE_PATH, MEDIA_CDROM_DP, 24},
    {MEDIA_DEVICE_PATH, MEDIA_VENDOR_DP, 20 | ANY_MORE},
    {MEDIA_DEVICE_PATH, MEDIA_FILEPATH_DP, 6 | ANY_MORE},
    {MEDIA_DEVICE_PATH, MEDIA_PROTOCOL_DP, 20},
    {MEDIA_DEVICE_PATH, MEDIA_PIWG_FW_FILE_DP, 20},
    {MEDIA_DEVICE_PATH, MEDIA_PIWG_FW_VOL_DP, 20},
    {MEDIA_DEVICE_PATH, MEDIA_RELATIVE_OFFSET_RANGE_DP, 24},
    {BBS_DEVICE_PATH, BBS_BBS_DP, 8 | ANY_MORE},
};

static bool is_type(uint8_t type)
{
    return type == HARDWARE_DEVICE_PATH || type == ACPI_DEVICE_PATH ||
           type == MESSAGING_DEVICE_PATH || type == MEDIA_DEVICE_PATH || type == BBS_DEVICE_PATH;
}

static bool is_node(const EFI_DEVICE_PATH *node)
{
    unsigned bytes = (unsigned)DevicePathNodeLength(node);

    if (!is_type(DevicePathType(node)) || bytes < sizeof(*node))
        return false;
    for (size_t i = 0; i < sizeof(nodes) / sizeof(nodes[0]); i++) {
        unsigned least = nodes[i].bytes & ~ANY_MORE;

        if (nodes[i].type == DevicePathType(node) && nodes[i].subtype == node->SubType)
            return nodes[i].bytes & ANY_MORE ? bytes >= least : bytes == least;
    }
    return true;
}

/* Bytes in front of the end node, 0 where a node is wrong or there is no end. */
static size_t path_bytes(const EFI_DEVICE_PATH *path)
{
    size_t off = 0;

    for (unsigned i = 0; i < NODES_MAX; i++) {
        const EFI_DEVICE_PATH *node = (const void *)((const uint8_t *)path + off);

        if (IsDevicePathEndType(node))
            return node->SubType == END_ENTIRE_DEVICE_PATH_SUBTYPE &&
                           DevicePathNodeLength(node) == sizeof(*node)
                       ? off
                       : 0;
        if (!is_node(node))
            return 0;
        off += (size_t)DevicePathNodeLength(node);
    }
    return 0;
}

/* The paths of all handles on which our node stands, the partitions in images for example. */
static unsigned wrong_paths_inside(const EFI_DEVICE_PATH *inside)
{
    size_t bytes = path_bytes(inside);
    EFI_HANDLE *list;
    size_t count = find_handles(&guid_device_path, &list);
    unsigned wrong_count = 0;

    for (size_t i = 0; i < count; i++) {
        EFI_DEVICE_PATH *path = find_protocol(list[i], &guid_device_path);

        if (path != NULL && equal(path, inside, bytes))
            wrong_count += path_bytes(path) == 0;
    }
    return wrong_count;
}

static void try_image_node(const EFI_DEVICE_PATH *path)
{
    static const struct qcow2_node ours = QCOW2_NODE;
    const EFI_DEVICE_PATH *below = find_protocol(agent.parent, &guid_device_path);
    size_t bytes = path_bytes(path), below_bytes = path_bytes(below);

    expect_that("begins with the path of the disk below",
                bytes > below_bytes && equal(path, below, below_bytes));
    expect_number("bytes of what comes behind it", bytes - below_bytes, sizeof(ours));
    expect_that("which is the vendor-defined media node of the driver",
                equal((const uint8_t *)path + below_bytes, &ours, sizeof(ours)));
    expect_number("wrong paths inside the image", wrong_paths_inside(path), 0);
}

/* LocateDevicePath finds the handle again, and nothing is left of the path behind it. */
static void try_locate(EFI_DEVICE_PATH *path)
{
    EFI_HANDLE found = NULL;
    EFI_STATUS status = agent.bs->LocateDevicePath(&guid_block_io, &path, &found);

    expect("LocateDevicePath", status, EFI_SUCCESS);
    expect_that("finds this handle", found == target.handle);
    expect_that("with the whole path", status == EFI_SUCCESS && IsDevicePathEnd(path));
}

void group_path(unsigned number)
{
    EFI_DEVICE_PATH *path = find_protocol(target.handle, &guid_device_path);

    if (path == NULL) {
        group_absent(number, "Device Path");
        return;
    }
    group_begin(number, "Device Path");
    expect_that("nodes of the right lengths, and an end", path_bytes(path) > 0);
    try_locate(path);
    if (target.is_ours)
        try_image_node(path);
    else
        skip(4);
    group_end();
}
