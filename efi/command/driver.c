/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* See driver.h. */
#include "driver.h"

#include "console.h"
#include "files.h"

EFI_STATUS driver_start(void)
{
    static char beside[TEXT_BYTES_MAX];
    EFI_HANDLE volume = efi_loaded->DeviceHandle, driver;
    EFI_STATUS status = EFI_NOT_FOUND;
    void *loaded_driver;

    /* A Driver#### variable may have been faster; then no file is needed. */
    if (!EFI_ERROR(efi_boot->LocateProtocol(&guid_driver, NULL, &loaded_driver)))
        return EFI_SUCCESS;
    if (volume != NULL && files_beside(beside, DRIVER_NAME))
        status = files_load(volume, beside, &driver);
    if (status == EFI_NOT_FOUND && volume != NULL)
        status = files_load(volume, DRIVER_FOLDER DRIVER_NAME, &driver);
    if (!EFI_ERROR(status))
        status = files_start(driver);
    if (EFI_ERROR(status))
        fail("driver " DRIVER_NAME, firmware_reason(status), "");
    return status;
}

struct qcow2_control *driver_control(void)
{
    struct qcow2_control *control;

    if (EFI_ERROR(efi_boot->LocateProtocol(&guid_driver, NULL, (void **)&control)) ||
        control == NULL || control->revision < QCOW2_CONTROL_REVISION)
        return NULL;
    return control;
}
