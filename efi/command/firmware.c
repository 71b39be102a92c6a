/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* See firmware.h. */
#include "firmware.h"

#include "../proto/qcow2.h"

EFI_SYSTEM_TABLE *efi_system;
EFI_BOOT_SERVICES *efi_boot;
EFI_SHELL_PROTOCOL *efi_shell;
EFI_HANDLE efi_self;
EFI_LOADED_IMAGE_PROTOCOL *efi_loaded;
EFI_HANDLE efi_handles[HANDLES_MAX];

EFI_GUID guid_block_io = EFI_BLOCK_IO_PROTOCOL_GUID;
EFI_GUID guid_device_path = EFI_DEVICE_PATH_PROTOCOL_GUID;
EFI_GUID guid_driver = QCOW2_DRIVER_GUID;
EFI_GUID guid_file_info = EFI_FILE_INFO_ID;
EFI_GUID guid_file_system = EFI_SIMPLE_FILE_SYSTEM_PROTOCOL_GUID;

static EFI_GUID guid_loaded_image = EFI_LOADED_IMAGE_PROTOCOL_GUID;
static EFI_GUID guid_to_text = EFI_DEVICE_PATH_TO_TEXT_PROTOCOL_GUID;

EFI_STATUS firmware_init(EFI_HANDLE self, EFI_SYSTEM_TABLE *system)
{
    efi_system = system;
    efi_boot = system->BootServices;
    efi_self = self;
    return firmware_protocol(self, &guid_loaded_image, (void **)&efi_loaded);
}

EFI_STATUS firmware_protocol(EFI_HANDLE handle, EFI_GUID *guid, void **ret_protocol)
{
    return efi_boot->OpenProtocol(handle, guid, ret_protocol, efi_self, NULL,
                                  EFI_OPEN_PROTOCOL_GET_PROTOCOL);
}

EFI_STATUS firmware_locate(EFI_GUID *guid, size_t *ret_count)
{
    UINTN bytes = sizeof(efi_handles);
    EFI_STATUS status = efi_boot->LocateHandle(guid != NULL ? ByProtocol : AllHandles, guid, NULL,
                                               &bytes, efi_handles);

    if (EFI_ERROR(status))
        return status;
    *ret_count = bytes / sizeof(efi_handles[0]);
    return EFI_SUCCESS;
}

EFI_DEVICE_PATH *firmware_path(EFI_HANDLE handle)
{
    void *path;

    return handle == NULL || EFI_ERROR(firmware_protocol(handle, &guid_device_path, &path)) ? NULL
                                                                                            : path;
}

void firmware_path_text(const EFI_DEVICE_PATH *path, char text[TEXT_BYTES_MAX])
{
    EFI_DEVICE_PATH_TO_TEXT_PROTOCOL *to_text;
    CHAR16 *wide = NULL;

    if (path != NULL &&
        !EFI_ERROR(efi_boot->LocateProtocol(&guid_to_text, NULL, (void **)&to_text)))
        wide = to_text->ConvertDevicePathToText(path, TRUE, TRUE);
    if (wide == NULL || !text_narrow(text, TEXT_BYTES_MAX, wide))
        text_copy(text, TEXT_BYTES_MAX, "a device");
    if (wide != NULL)
        efi_boot->FreePool(wide);
}

const char *firmware_reason(EFI_STATUS status)
{
    switch (status) {
    case EFI_NOT_FOUND:
        return " not found";
    case EFI_ACCESS_DENIED:
    case EFI_SECURITY_VIOLATION:
        return ": refused by Secure Boot";
    case EFI_UNSUPPORTED:
    case EFI_LOAD_ERROR:
        return ": not a program for this machine";
    case EFI_DEVICE_ERROR:
    case EFI_VOLUME_CORRUPTED:
        return ": cannot be read";
    default:
        return ": firmware error";
    }
}
