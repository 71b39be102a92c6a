/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * EFI_COMPONENT_NAME2_PROTOCOL and its predecessor (UEFI 2.10, 11.5): what tools call the driver,
 * its containers and its images. A child's name tells what a user knows the image by: its entry in
 * the configuration, its size, and what is special about it.
 *
 * The two differ in how they write languages, RFC 4646 here and ISO 639-2 there; the rest is
 * shared.
 */
#include "driver.h"
#include "say.h"

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

/* Each name in its slot, made anew each time: what it says may have changed. */
static CHAR16 *write_name(CHAR16 name[ATTACHED_NAME_CHARS], const struct say_text *text)
{
    size_t len = text->len < ATTACHED_NAME_CHARS ? text->len : ATTACHED_NAME_CHARS - 1;

    for (size_t i = 0; i < len; i++)
        name[i] = (CHAR16)text->bytes[i];
    name[len] = 0;
    return name;
}

static void add_entry(struct say_text *text, const struct attached *attached)
{
    if (attached->entry != NULL) {
        say_add(text, " ");
        say_add(text, attached->entry->name);
    }
}

static CHAR16 *container_name(struct attached *attached)
{
    struct say_text text = {0};

    say_add(&text, "container of qcow2 image");
    add_entry(&text, attached);
    return write_name(attached->container_name, &text);
}

static CHAR16 *child_name(struct attached *attached)
{
    struct say_text text = {0};

    say_add(&text, "qcow2 image");
    add_entry(&text, attached);
    say_add(&text, ", ");
    say_add_size(&text, qc_size(&attached->image), 1);
    if (!attached->media.MediaPresent)
        say_add(&text, ", medium gone");
    else if (attached->media.ReadOnly)
        say_add(&text, ", read-only");
    return write_name(attached->child_name, &text);
}

static EFI_STATUS controller_name(EFI_HANDLE controller, EFI_HANDLE child, const CHAR8 *language,
                                  const char *spoken, CHAR16 **ret_name)
{
    struct attached *attached = attached_by_container(controller);

    if (controller == NULL || language == NULL || ret_name == NULL)
        return EFI_INVALID_PARAMETER;
    if (!is_same((const char *)language, spoken))
        return EFI_UNSUPPORTED;
    if (base_is(controller) && child == NULL)
        *ret_name = base_is_data_file(controller) ? L"data file of a qcow2 disk image"
                                                  : L"base of qcow2 disk images";
    else if (attached != NULL && child == NULL)
        *ret_name = container_name(attached);
    else if (attached != NULL && child == attached->child)
        *ret_name = child_name(attached);
    else
        return EFI_UNSUPPORTED;
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
