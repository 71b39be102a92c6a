/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * EFI_DRIVER_DIAGNOSTICS2_PROTOCOL of our driver (UEFI 2.10, 11.4): the answers to missing
 * arguments and to what is not the driver's, and a diagnosis of each type that finds nothing wrong
 * and changes nothing.
 */
#include "conformance.h"

#include "../../../efi/proto/driver_diagnostics2.h"

#define LANGUAGE_BYTES_MAX 16u
#define NO_TYPE            ((EFI_DRIVER_DIAGNOSTIC_TYPE)99)

static EFI_GUID guid_diagnostics2 = EFI_DRIVER_DIAGNOSTICS2_PROTOCOL_GUID;
static EFI_DRIVER_DIAGNOSTICS2_PROTOCOL *diagnostics;
static CHAR8 spoken[LANGUAGE_BYTES_MAX];

/* Where a diagnosis puts what it has to say; each is missing in turn. */
struct outs {
    EFI_GUID **error_type;
    UINTN *bytes;
    CHAR16 **buffer;
};

static EFI_STATUS run(EFI_HANDLE disk, EFI_HANDLE child, EFI_DRIVER_DIAGNOSTIC_TYPE type,
                      CHAR8 *language, const struct outs *outs)
{
    return diagnostics->RunDiagnostics(diagnostics, disk, child, type, language, outs->error_type,
                                       outs->bytes, outs->buffer);
}

static void learn_language(void)
{
    size_t len = 0;

    while (len < sizeof(spoken) - 1 && diagnostics->SupportedLanguages[len] != '\0' &&
           diagnostics->SupportedLanguages[len] != ';') {
        spoken[len] = diagnostics->SupportedLanguages[len];
        len++;
    }
    spoken[len] = '\0';
    expect_that("SupportedLanguages names one", len > 0);
}

static void try_errors(void)
{
    EFI_DRIVER_DIAGNOSTIC_TYPE standard = EfiDriverDiagnosticTypeStandard;
    EFI_HANDLE disk = agent.parent, child = target.handle;
    CHAR8 unknown[] = "xx";
    EFI_GUID *error_type = NULL;
    UINTN bytes = 0;
    CHAR16 *buffer = NULL;
    struct outs all = {&error_type, &bytes, &buffer};
    struct outs no_type = {NULL, &bytes, &buffer};
    struct outs no_bytes = {&error_type, NULL, &buffer};
    struct outs no_buffer = {&error_type, &bytes, NULL};

    about("RunDiagnostics", "");
    expect("ControllerHandle NULL", run(NULL, NULL, standard, spoken, &all), EFI_INVALID_PARAMETER);
    expect("Language NULL", run(disk, child, standard, NULL, &all), EFI_INVALID_PARAMETER);
    expect("ErrorType NULL", run(disk, child, standard, spoken, &no_type), EFI_INVALID_PARAMETER);
    expect("BufferSize NULL", run(disk, child, standard, spoken, &no_bytes), EFI_INVALID_PARAMETER);
    expect("Buffer NULL", run(disk, child, standard, spoken, &no_buffer), EFI_INVALID_PARAMETER);
    expect("Language NULL, without a child", run(disk, NULL, standard, NULL, &all),
           EFI_INVALID_PARAMETER);
    expect("an unknown language", run(disk, child, standard, unknown, &all), EFI_UNSUPPORTED);
    expect("a foreign controller", run(agent.image, NULL, standard, spoken, &all), EFI_UNSUPPORTED);
    expect("a foreign controller and child", run(agent.image, agent.image, standard, spoken, &all),
           EFI_UNSUPPORTED);
    expect("a foreign child", run(disk, agent.image, standard, spoken, &all), EFI_UNSUPPORTED);
    expect("our child as the controller", run(child, NULL, standard, spoken, &all),
           EFI_UNSUPPORTED);
    expect("an unknown type", run(disk, child, NO_TYPE, spoken, &all), EFI_UNSUPPORTED);
    expect_that("refused calls leave no buffer", buffer == NULL);
}

static void try_type(const char *name, EFI_DRIVER_DIAGNOSTIC_TYPE type, EFI_HANDLE child,
                     bool is_optional)
{
    EFI_GUID *error_type = NULL;
    UINTN bytes = 0;
    CHAR16 *buffer = NULL;
    struct outs outs = {&error_type, &bytes, &buffer};
    EFI_STATUS status = run(agent.parent, child, type, spoken, &outs);

    about(name, child != NULL ? "of the image" : "of the disk");
    expect("answers", is_optional && status == EFI_UNSUPPORTED ? EFI_SUCCESS : status, EFI_SUCCESS);
    expect_that("a buffer has a size, and no buffer none", (buffer != NULL) == (bytes != 0));
    if (buffer == NULL) {
        skip(1);
        return;
    }
    expect("its buffer can be freed", agent.bs->FreePool(buffer), EFI_SUCCESS);
}

static void try_types(void)
{
    uint64_t lba = target.media->LastBlock / 2;

    read_blocks(lba, 8, buffer_a);
    try_type("a standard diagnosis", EfiDriverDiagnosticTypeStandard, target.handle, false);
    try_type("a standard diagnosis", EfiDriverDiagnosticTypeStandard, NULL, true);
    try_type("an extended diagnosis", EfiDriverDiagnosticTypeExtended, target.handle, true);
    try_type("a diagnosis for manufacturing", EfiDriverDiagnosticTypeManufacturing, target.handle,
             true);
    about("after the diagnoses", "");
    expect("a read", read_blocks(lba, 8, buffer_b), EFI_SUCCESS);
    expect_that("the data is as before", equal(buffer_a, buffer_b, 8 * target.media->BlockSize));
}

void group_diagnostics(unsigned number)
{
    diagnostics = target.is_ours ? find_protocol(agent.driver, &guid_diagnostics2) : NULL;
    if (diagnostics == NULL) {
        group_absent(number, "Driver Diagnostics 2");
        return;
    }
    group_begin(number, "Driver Diagnostics 2");
    learn_language();
    try_errors();
    try_types();
    group_end();
}
