/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The boot program: loads the driver, connects everything, starts the loader inside an image.
 *
 * It is meant to lie on an EFI system partition as \EFI\BOOT\BOOTX64.EFI (BOOTAA64.EFI on Arm),
 * with the driver beside it or in \EFI\qcow2\ of the same volume. It starts the file of that same
 * name of the first volume inside a qcow2 image that has one.
 *
 * Promises: each failure is one line on the console and an error status, so that the firmware goes
 * on with its next boot option; a copy of it inside an image starts nothing, so there is no circle.
 */
#include "boot.h"

#include "../path.h"
#include "console.h"
#include "driver.h"
#include "files.h"

#define LOADER_FILE "\\EFI\\BOOT\\" LOADER_NAME

static EFI_STATUS connect_all(void)
{
    size_t count;
    EFI_STATUS status = firmware_locate(NULL, &count);

    if (EFI_ERROR(status)) {
        fail("list of all devices", firmware_reason(status), "");
        return status;
    }
    /* Most handles are no controllers, and say so. */
    for (size_t i = 0; i < count; i++)
        efi_boot->ConnectController(efi_handles[i], NULL, NULL, TRUE);
    return EFI_SUCCESS;
}

static EFI_STATUS start_loader(void)
{
    static char where[TEXT_BYTES_MAX];
    size_t count = 0;
    EFI_STATUS answer = EFI_NOT_FOUND;

    firmware_locate(&guid_file_system, &count);
    for (size_t i = 0; i < count; i++) {
        EFI_HANDLE image;
        const EFI_DEVICE_PATH *path = firmware_path(efi_handles[i]);
        EFI_STATUS status;

        if (path == NULL || !path_is_in_image(path))
            continue;
        status = files_load(efi_handles[i], LOADER_FILE, &image);
        if (status == EFI_NOT_FOUND)
            continue;
        firmware_path_text(path, where);
        if (!EFI_ERROR(status)) {
            say("starting " LOADER_FILE " from ", where, "");
            return files_start(image);
        }
        say(LOADER_FILE " from ", where, firmware_reason(status));
        answer = status;
    }
    if (answer == EFI_NOT_FOUND)
        say("no volume of a qcow2 image has " LOADER_FILE, "", "");
    return answer;
}

/* A copy of this program that lies inside an image would start itself, or its like, for ever. */
static bool is_inside_image(void)
{
    const EFI_DEVICE_PATH *path = firmware_path(efi_loaded->DeviceHandle);

    return path != NULL && path_is_in_image(path);
}

EFI_STATUS boot_run(void)
{
    EFI_STATUS status;

    if (is_inside_image()) {
        say("the boot program does not start from inside an image", "", "");
        return EFI_UNSUPPORTED;
    }
    status = driver_start();
    if (EFI_ERROR(status))
        return status;
    status = connect_all();
    if (EFI_ERROR(status))
        return status;
    return start_loader();
}
