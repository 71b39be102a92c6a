/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * EFI_DRIVER_BINDING_PROTOCOL (UEFI 2.10, 11.1): which containers are ours, and when.
 *
 * A bus driver: it opens Disk I/O of a container BY_DRIVER, so that no partition or file system
 * driver takes the same bytes for something else, and makes one child handle for the image inside.
 * Data does not go through Disk I/O.
 *
 * Promises: Supported() changes nothing and reads nothing; a failed Start() leaves nothing; Start()
 * and Stop() may follow each other without end. Whether there is an image is Start()'s to find out.
 */
#include "driver.h"

/* Asked before the firmware's own partition and file system drivers, which use 0xA and 0xB. */
#define BINDING_VERSION 0x20

static EFI_STATUS get_protocol(EFI_HANDLE container, EFI_GUID *guid, void **ret_protocol)
{
    return efi_boot->OpenProtocol(container, guid, ret_protocol, driver_binding.DriverBindingHandle,
                                  container, EFI_OPEN_PROTOCOL_GET_PROTOCOL);
}

static void container_close(EFI_HANDLE container)
{
    EFI_HANDLE agent = driver_binding.DriverBindingHandle;

    efi_boot->CloseProtocol(container, &guid_device_path, agent, container);
    efi_boot->CloseProtocol(container, &guid_block_io, agent, container);
    efi_boot->CloseProtocol(container, &guid_disk_io, agent, container);
}

/*
 * Makes the container ours. EFI_ALREADY_STARTED, EFI_ACCESS_DENIED and EFI_UNSUPPORTED come as
 * OpenProtocol gives them. EFI_UNSUPPORTED also where no image can be: no medium, odd blocks, or a
 * disk that is itself inside an image.
 */
static EFI_STATUS container_open(EFI_HANDLE container, EFI_BLOCK_IO_PROTOCOL **ret_parent,
                                 EFI_DEVICE_PATH **ret_path)
{
    void *disk_io, *parent, *path;
    EFI_STATUS status;

    status = efi_boot->OpenProtocol(container, &guid_disk_io, &disk_io,
                                    driver_binding.DriverBindingHandle, container,
                                    EFI_OPEN_PROTOCOL_BY_DRIVER);
    if (EFI_ERROR(status))
        return status;
    if (EFI_ERROR(get_protocol(container, &guid_block_io, &parent)) ||
        EFI_ERROR(get_protocol(container, &guid_device_path, &path)) || !efi_block_fits(parent) ||
        path_is_in_image(path)) {
        container_close(container);
        return EFI_UNSUPPORTED;
    }
    *ret_parent = parent;
    *ret_path = path;
    return EFI_SUCCESS;
}

/* What may be asked for: everything (NULL), nothing (End), or exactly our one child. */
static bool remaining_fits(const EFI_DEVICE_PATH *remaining)
{
    static const struct qcow2_node ours = QCOW2_NODE;

    return remaining == NULL || IsDevicePathEnd(remaining) ||
           (DevicePathNodeLength(remaining) == sizeof(ours) &&
            __builtin_memcmp(remaining, &ours, sizeof(ours)) == 0);
}

static EFI_STATUS EFIAPI binding_supported(EFI_DRIVER_BINDING_PROTOCOL *This, EFI_HANDLE container,
                                           EFI_DEVICE_PATH *remaining)
{
    EFI_BLOCK_IO_PROTOCOL *parent;
    EFI_DEVICE_PATH *path;
    EFI_STATUS status;

    (void)This;
    if (!remaining_fits(remaining))
        return EFI_UNSUPPORTED;
    status = container_open(container, &parent, &path);
    if (!EFI_ERROR(status))
        container_close(container);
    return status;
}

static EFI_STATUS EFIAPI binding_start(EFI_DRIVER_BINDING_PROTOCOL *This, EFI_HANDLE container,
                                       EFI_DEVICE_PATH *remaining)
{
    EFI_TPL tpl = efi_boot->RaiseTPL(TPL_CALLBACK);
    EFI_BLOCK_IO_PROTOCOL *parent;
    EFI_DEVICE_PATH *path;
    EFI_STATUS status;

    (void)This;
    status = container_open(container, &parent, &path);
    if (EFI_ERROR(status))
        goto out;
    status = base_start(container, parent, path);
    if (status == EFI_NOT_FOUND)
        status =
            attach_start(container, parent, path, remaining == NULL || !IsDevicePathEnd(remaining));
    if (EFI_ERROR(status))
        container_close(container);
out:
    efi_boot->RestoreTPL(tpl);
    base_wake();
    return status;
}

static EFI_STATUS stop_base(EFI_HANDLE container)
{
    EFI_STATUS status = base_stop(container);

    if (!EFI_ERROR(status))
        container_close(container);
    return status;
}

static EFI_STATUS EFIAPI binding_stop(EFI_DRIVER_BINDING_PROTOCOL *This, EFI_HANDLE container,
                                      UINTN children_count, EFI_HANDLE *children)
{
    struct attached *attached = attached_by_container(container);

    (void)This;
    /*
     * A disk that sees a new medium in the middle of a request, or of an image's opening, may stop
     * its users at once. What that works on must not go while it is still on the stack.
     */
    if (request_is_running())
        return EFI_DEVICE_ERROR;
    if (base_is(container))
        return stop_base(container);
    if (attached == NULL)
        return EFI_DEVICE_ERROR;
    if (children_count == 0) {
        if (attached->child != NULL)
            return EFI_DEVICE_ERROR;
        container_close(container);
        attach_release(attached);
        return EFI_SUCCESS;
    }
    if (children_count != 1 || children == NULL || attached->child == NULL ||
        children[0] != attached->child)
        return EFI_DEVICE_ERROR;
    return attach_stop_child(attached);
}

EFI_DRIVER_BINDING_PROTOCOL driver_binding = {
    .Supported = binding_supported,
    .Start = binding_start,
    .Stop = binding_stop,
    .Version = BINDING_VERSION,
};
