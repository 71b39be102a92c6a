/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * EFI_COMPONENT_NAME2_PROTOCOL and EFI_COMPONENT_NAME_PROTOCOL of our driver (UEFI 2.10, 11.5):
 * what is answered to missing arguments, unknown languages, and controllers and children that are
 * the driver's or not, on every handle there is.
 */
#include "conformance.h"

#define LANGUAGE_BYTES_MAX 16u
#define LANGUAGES_MAX      16u

static EFI_GUID guid_name = EFI_COMPONENT_NAME_PROTOCOL_GUID;
static EFI_GUID guid_name2 = EFI_COMPONENT_NAME2_PROTOCOL_GUID;

/* Both protocols have one shape; they differ in how languages are written. */
static EFI_COMPONENT_NAME2_PROTOCOL *names;

static bool is_text(const CHAR16 *text)
{
    return text != NULL && text[0] != 0;
}

/* The next language of the list at *list: up to a semicolon, or of three letters. */
static bool next_language(const CHAR8 **list, bool is_iso639, CHAR8 *language)
{
    size_t len = 0;

    while (len < LANGUAGE_BYTES_MAX - 1 && (*list)[len] != '\0' && (*list)[len] != ';' &&
           !(is_iso639 && len == 3)) {
        language[len] = (*list)[len];
        len++;
    }
    language[len] = '\0';
    *list += len;
    if (**list == ';')
        (*list)++;
    return len > 0;
}

static void try_languages(bool is_iso639)
{
    const CHAR8 *list = names->SupportedLanguages;
    unsigned languages_count = 0, wrong_count = 0;
    CHAR8 language[LANGUAGE_BYTES_MAX];
    CHAR16 *text;

    while (languages_count < LANGUAGES_MAX && next_language(&list, is_iso639, language)) {
        languages_count++;
        text = NULL;
        wrong_count +=
            names->GetDriverName(names, language, &text) != EFI_SUCCESS || !is_text(text);
        text = NULL;
        wrong_count +=
            names->GetControllerName(names, agent.parent, NULL, language, &text) != EFI_SUCCESS ||
            !is_text(text);
    }
    expect_that("SupportedLanguages names one", languages_count > 0);
    expect_number("of its languages are not spoken", wrong_count, 0);
}

static void try_driver_name(CHAR8 *spoken)
{
    CHAR8 unknown[] = "xx";
    CHAR16 *text = NULL;

    expect("a language", names->GetDriverName(names, spoken, &text), EFI_SUCCESS);
    expect_that("a name comes", is_text(text));
    expect("Language NULL", names->GetDriverName(names, NULL, &text), EFI_INVALID_PARAMETER);
    expect("DriverName NULL", names->GetDriverName(names, spoken, NULL), EFI_INVALID_PARAMETER);
    expect("an unknown language", names->GetDriverName(names, unknown, &text), EFI_UNSUPPORTED);
}

static void try_controller_name(CHAR8 *spoken)
{
    CHAR8 unknown[] = "xx";
    CHAR16 *text = NULL, *child_text = NULL;
    EFI_HANDLE disk = agent.parent;

    expect("the disk", names->GetControllerName(names, disk, NULL, spoken, &text), EFI_SUCCESS);
    expect_that("a name comes", is_text(text));
    expect("the image", names->GetControllerName(names, disk, target.handle, spoken, &child_text),
           EFI_SUCCESS);
    expect_that("a name comes", is_text(child_text));
    expect("ControllerHandle NULL", names->GetControllerName(names, NULL, NULL, spoken, &text),
           EFI_INVALID_PARAMETER);
    expect("Language NULL", names->GetControllerName(names, disk, NULL, NULL, &text),
           EFI_INVALID_PARAMETER);
    expect("Language NULL, with a child",
           names->GetControllerName(names, disk, target.handle, NULL, &text),
           EFI_INVALID_PARAMETER);
    expect("ControllerName NULL", names->GetControllerName(names, disk, NULL, spoken, NULL),
           EFI_INVALID_PARAMETER);
    expect("ControllerName NULL, with a child",
           names->GetControllerName(names, disk, target.handle, spoken, NULL),
           EFI_INVALID_PARAMETER);
    expect("an unknown language", names->GetControllerName(names, disk, NULL, unknown, &text),
           EFI_UNSUPPORTED);
    expect("a foreign controller",
           names->GetControllerName(names, agent.image, NULL, spoken, &text), EFI_UNSUPPORTED);
    expect("our child as the controller",
           names->GetControllerName(names, target.handle, NULL, spoken, &text), EFI_UNSUPPORTED);
    expect("a foreign child", names->GetControllerName(names, disk, agent.image, spoken, &text),
           EFI_UNSUPPORTED);
    expect("the disk as its own child", names->GetControllerName(names, disk, disk, spoken, &text),
           EFI_UNSUPPORTED);
}

/* Every handle as the controller, and as the disk's child; who is ours, the firmware knows. */
static void try_all_handles(CHAR8 *spoken)
{
    static EFI_HANDLE all[AGENT_HANDLES_MAX];
    unsigned wrong_count = 0, wrong_children_count = 0;
    EFI_HANDLE *list;
    size_t count = find_handles(NULL, &list);

    agent.bs->CopyMem(all, list, count * sizeof(all[0]));
    for (size_t i = 0; i < count; i++) {
        bool is_managed = is_opened(all[i], &guid_disk_io, EFI_OPEN_PROTOCOL_BY_DRIVER, NULL);
        bool is_child =
            is_opened(agent.parent, &guid_disk_io, EFI_OPEN_PROTOCOL_BY_CHILD_CONTROLLER, all[i]);
        CHAR16 *text = NULL;

        wrong_count += names->GetControllerName(names, all[i], NULL, spoken, &text) !=
                       (is_managed ? EFI_SUCCESS : EFI_UNSUPPORTED);
        wrong_children_count +=
            names->GetControllerName(names, agent.parent, all[i], spoken, &text) !=
            (is_child ? EFI_SUCCESS : EFI_UNSUPPORTED);
    }
    expect_that("there are handles", count > 0);
    expect_number("wrong answers about handles as controllers", wrong_count, 0);
    expect_number("wrong answers about handles as children", wrong_children_count, 0);
}

static void try_names(EFI_GUID *protocol, const char *subject, bool is_iso639)
{
    const CHAR8 *list;
    CHAR8 spoken[LANGUAGE_BYTES_MAX];

    about(subject, "");
    names = find_protocol(agent.driver, protocol);
    expect_that("is installed", names != NULL);
    if (names == NULL)
        return;
    list = names->SupportedLanguages;
    next_language(&list, is_iso639, spoken);
    try_languages(is_iso639);
    about(subject, "GetDriverName");
    try_driver_name(spoken);
    about(subject, "GetControllerName");
    try_controller_name(spoken);
    try_all_handles(spoken);
}

void group_names(unsigned number)
{
    if (!target.is_ours) {
        group_absent(number, "Component Name");
        return;
    }
    group_begin(number, "Component Name");
    try_names(&guid_name2, "Component Name 2", false);
    try_names(&guid_name, "Component Name", true);
    group_end();
}
