/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Orders on Driver Diagnostics 2 (UEFI 2.10, 11.4): a run on the chosen disk, and what calls with
 * wrong arguments must answer.
 */
#include "agent.h"

#include "../../../efi/proto/driver_diagnostics2.h"

static EFI_GUID guid_diagnostics = EFI_DRIVER_DIAGNOSTICS2_PROTOCOL_GUID;

static EFI_DRIVER_DIAGNOSTIC_TYPE type_of(const char *word)
{
    return word[0] == 's'   ? EfiDriverDiagnosticTypeStandard
           : word[0] == 'e' ? EfiDriverDiagnosticTypeExtended
           : word[0] == 'm' ? EfiDriverDiagnosticTypeManufacturing
                            : EfiDriverDiagnosticTypeCancel;
}

/* diagnose standard|extended|manufacturing|cancel [child]: the container, or the child by name. */
void order_diagnose(char **words)
{
    EFI_DRIVER_DIAGNOSTICS2_PROTOCOL *diagnostics = find_protocol(agent.driver, &guid_diagnostics);
    EFI_HANDLE child = NULL;
    EFI_GUID *type = &guid_diagnostics;
    UINTN bytes = 1;
    CHAR16 *text = L"";
    find_child(&child);
    say("diagnose:");
    if (diagnostics == NULL) {
        say(" none");
    } else {
        say_status("status", diagnostics->RunDiagnostics(
                                 diagnostics, agent.parent, words[2][0] == 'c' ? child : NULL,
                                 type_of(words[1]), (CHAR8 *)"en", &type, &bytes, &text));
        /* The caller frees what is returned, so nothing static may be. */
        say_number("returned", type != NULL || bytes != 0 || text != NULL);
    }
    say_end();
}

/* Each argument that may not be missing, each that may not be anything. */
void order_checkdiagnose(char **words)
{
    EFI_DRIVER_DIAGNOSTICS2_PROTOCOL *it = find_protocol(agent.driver, &guid_diagnostics);
    EFI_DRIVER_DIAGNOSTIC_TYPE any = EfiDriverDiagnosticTypeStandard;
    EFI_HANDLE disk = agent.parent;
    CHAR8 *en = (CHAR8 *)"en";
    EFI_GUID *type;
    UINTN bytes;
    CHAR16 *text;
    (void)words;
    if (it == NULL) {
        say("check diagnostics FAIL\n");
        return;
    }
    judge("no-controller", it->RunDiagnostics(it, NULL, NULL, any, en, &type, &bytes, &text),
          EFI_INVALID_PARAMETER);
    judge("no-language", it->RunDiagnostics(it, disk, NULL, any, NULL, &type, &bytes, &text),
          EFI_INVALID_PARAMETER);
    judge("no-type", it->RunDiagnostics(it, disk, NULL, any, en, NULL, &bytes, &text),
          EFI_INVALID_PARAMETER);
    judge("no-size", it->RunDiagnostics(it, disk, NULL, any, en, &type, NULL, &text),
          EFI_INVALID_PARAMETER);
    judge("no-buffer", it->RunDiagnostics(it, disk, NULL, any, en, &type, &bytes, NULL),
          EFI_INVALID_PARAMETER);
    judge("klingon", it->RunDiagnostics(it, disk, NULL, any, (CHAR8 *)"tlh", &type, &bytes, &text),
          EFI_UNSUPPORTED);
    judge("longer", it->RunDiagnostics(it, disk, NULL, any, (CHAR8 *)"eng", &type, &bytes, &text),
          EFI_UNSUPPORTED);
    judge("foreign", it->RunDiagnostics(it, agent.image, NULL, any, en, &type, &bytes, &text),
          EFI_UNSUPPORTED);
    judge("not-child", it->RunDiagnostics(it, disk, agent.image, any, en, &type, &bytes, &text),
          EFI_UNSUPPORTED);
    judge(
        "cancel",
        it->RunDiagnostics(it, disk, NULL, EfiDriverDiagnosticTypeCancel, en, &type, &bytes, &text),
        EFI_UNSUPPORTED);
    judge("right", it->RunDiagnostics(it, disk, NULL, any, en, &type, &bytes, &text), EFI_SUCCESS);
    judge("languages", equal(it->SupportedLanguages, "en", 3) ? EFI_SUCCESS : EFI_NOT_FOUND,
          EFI_SUCCESS);
}
