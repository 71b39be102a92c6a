/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * EFI_COMPONENT_NAME2_PROTOCOL and its predecessor (UEFI 2.10, 11.5): what tools call the driver,
 * its containers and its images.
 *
 * The two differ in how they write languages, RFC 4646 here and ISO 639-2 there; the rest is
 * shared.
 */
#include "driver.h"

static bool is_same(const char *a, const char *b)
{
    for (; *a == *b; a++, b++) {
        if (*a == '\0')
            return true;
    }
    return false;
}

static EFI_STATUS driver_name(const CHAR8 *language, const char *spoken, CHAR16 **ret_name)
{
    if (language == NULL || ret_name == NULL)
        return EFI_INVALID_PARAMETER;
    if (!is_same((const char *)language, spoken))
        return EFI_UNSUPPORTED;
    *ret_name = L"qcow2 disk image driver";
    return EFI_SUCCESS;
}

static EFI_STATUS controller_name(EFI_HANDLE controller, EFI_HANDLE child, const CHAR8 *language,
                                  const char *spoken, CHAR16 **ret_name)
{
    const struct attached *attached;

    if (controller == NULL || language == NULL || ret_name == NULL)
        return EFI_INVALID_PARAMETER;
    attached = attached_by_container(controller);
    if (base_is(controller) && child == NULL && is_same((const char *)language, spoken)) {
        *ret_name = base_is_data_file(controller) ? L"data file of a qcow2 disk image"
                                                  : L"base of qcow2 disk images";
        return EFI_SUCCESS;
    }
    if (attached == NULL || (child != NULL && child != attached->child) ||
        !is_same((const char *)language, spoken))
        return EFI_UNSUPPORTED;
    *ret_name = child == NULL ? L"qcow2 container" : L"qcow2 disk image";
    return EFI_SUCCESS;
}

#define SPOKEN  "en"
#define SPOKEN2 "eng"

static EFI_STATUS EFIAPI name2_driver(EFI_COMPONENT_NAME2_PROTOCOL *This, CHAR8 *language,
                                      CHAR16 **ret_name)
{
    (void)This;
    return driver_name(language, SPOKEN, ret_name);
}

static EFI_STATUS EFIAPI name2_controller(EFI_COMPONENT_NAME2_PROTOCOL *This, EFI_HANDLE controller,
                                          EFI_HANDLE child, CHAR8 *language, CHAR16 **ret_name)
{
    (void)This;
    return controller_name(controller, child, language, SPOKEN, ret_name);
}

static EFI_STATUS EFIAPI name_driver(EFI_COMPONENT_NAME_PROTOCOL *This, CHAR8 *language,
                                     CHAR16 **ret_name)
{
    (void)This;
    return driver_name(language, SPOKEN2, ret_name);
}

static EFI_STATUS EFIAPI name_controller(EFI_COMPONENT_NAME_PROTOCOL *This, EFI_HANDLE controller,
                                         EFI_HANDLE child, CHAR8 *language, CHAR16 **ret_name)
{
    (void)This;
    return controller_name(controller, child, language, SPOKEN2, ret_name);
}

EFI_COMPONENT_NAME2_PROTOCOL component_name2 = {
    .GetDriverName = name2_driver,
    .GetControllerName = name2_controller,
    .SupportedLanguages = (CHAR8 *)SPOKEN,
};

EFI_COMPONENT_NAME_PROTOCOL component_name = {
    .GetDriverName = name_driver,
    .GetControllerName = name_controller,
    .SupportedLanguages = (CHAR8 *)SPOKEN2,
};
