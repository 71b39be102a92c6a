/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The driver's way in and out of the firmware.
 *
 * Promises: loading installs protocols on the image handle, reads the configuration where there is
 * one, and touches no other device; a second copy answers EFI_ALREADY_STARTED and leaves nothing.
 * Unloading gives every container back first; if one cannot be given back, the driver stays loaded
 * and whole.
 */
#include "file.h"
#include "proto/supported_version.h"

EFI_SYSTEM_TABLE *efi_system;
EFI_BOOT_SERVICES *efi_boot;
EFI_GUID guid_block_io = EFI_BLOCK_IO_PROTOCOL_GUID;
EFI_GUID guid_block_io2 = EFI_BLOCK_IO2_PROTOCOL_GUID;
EFI_GUID guid_device_path = EFI_DEVICE_PATH_PROTOCOL_GUID;
EFI_GUID guid_disk_io = EFI_DISK_IO_PROTOCOL_GUID;
EFI_GUID guid_erase_block = EFI_ERASE_BLOCK_PROTOCOL_GUID;

static EFI_GUID guid_loaded_image = EFI_LOADED_IMAGE_PROTOCOL_GUID;
static EFI_GUID guid_driver_binding = EFI_DRIVER_BINDING_PROTOCOL_GUID;
static EFI_GUID guid_component_name = EFI_COMPONENT_NAME_PROTOCOL_GUID;
static EFI_GUID guid_component_name2 = EFI_COMPONENT_NAME2_PROTOCOL_GUID;
static EFI_GUID guid_driver_diagnostics2 = EFI_DRIVER_DIAGNOSTICS2_PROTOCOL_GUID;
static EFI_GUID guid_supported_version = EFI_DRIVER_SUPPORTED_EFI_VERSION_PROTOCOL_GUID;
static EFI_GUID guid_driver = QCOW2_DRIVER_GUID;

static EFI_DRIVER_SUPPORTED_EFI_VERSION_PROTOCOL supported_version = {
    .Length = sizeof(supported_version), .FirmwareVersion = 2u << 16 | 100, /* 2.10 */
};

static EFI_STATUS EFIAPI driver_unload(EFI_HANDLE image_handle)
{
    EFI_STATUS status;

    /* Each round frees a slot or ends the loop. */
    for (struct attached *attached; (attached = attached_any()) != NULL;) {
        efi_boot->DisconnectController(attached->container, image_handle, NULL);
        if (attached->container != NULL)
            return EFI_DEVICE_ERROR;
    }
    for (EFI_HANDLE file; (file = file_any()) != NULL;) {
        efi_boot->DisconnectController(file, NULL, NULL);
        if (EFI_ERROR(file_close(file)))
            return EFI_DEVICE_ERROR;
    }
    for (EFI_HANDLE base; (base = base_any()) != NULL;) {
        efi_boot->DisconnectController(base, image_handle, NULL);
        if (base_is(base))
            return EFI_DEVICE_ERROR;
    }
    status = efi_boot->UninstallMultipleProtocolInterfaces(
        image_handle, &guid_driver_binding, &driver_binding, &guid_component_name2,
        &component_name2, &guid_component_name, &component_name, &guid_driver_diagnostics2,
        &driver_diagnostics2, &guid_supported_version, &supported_version, &guid_driver, &control,
        NULL);
    if (!EFI_ERROR(status))
        quiesce_unload();
    return status;
}

EFI_STATUS EFIAPI efi_main(EFI_HANDLE image_handle, EFI_SYSTEM_TABLE *system)
{
    EFI_LOADED_IMAGE_PROTOCOL *loaded_image;
    void *other_driver;
    EFI_STATUS status;

    efi_system = system;
    efi_boot = system->BootServices;
    if (!EFI_ERROR(efi_boot->LocateProtocol(&guid_driver, NULL, &other_driver)))
        return EFI_ALREADY_STARTED;
    status = efi_boot->OpenProtocol(image_handle, &guid_loaded_image, (void **)&loaded_image,
                                    image_handle, NULL, EFI_OPEN_PROTOCOL_GET_PROTOCOL);
    if (EFI_ERROR(status))
        return status;
    settings_load(image_handle, loaded_image->DeviceHandle);
    status = quiesce_load();
    if (EFI_ERROR(status))
        return status;
    loaded_image->Unload = driver_unload;
    driver_binding.ImageHandle = image_handle;
    driver_binding.DriverBindingHandle = image_handle;
    status = efi_boot->InstallMultipleProtocolInterfaces(
        &image_handle, &guid_driver_binding, &driver_binding, &guid_component_name2,
        &component_name2, &guid_component_name, &component_name, &guid_driver_diagnostics2,
        &driver_diagnostics2, &guid_supported_version, &supported_version, &guid_driver, &control,
        NULL);
    if (EFI_ERROR(status))
        quiesce_unload();
    else
        file_open_configured(loaded_image->DeviceHandle);
    return status;
}
