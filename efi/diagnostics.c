/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * EFI_DRIVER_DIAGNOSTICS2_PROTOCOL (UEFI 2.10, 11.4): the image as the controller that is tested.
 *
 * Standard looks whether the image is marked corrupt and whether its ends can be read, tables and
 * all: a few reads. Extended and Manufacturing check the whole image, as `qemu-img check` does.
 *
 * Promises: nothing is repaired; an image in use may be tested. The result is a line on the
 * console, and EFI_DEVICE_ERROR where something is wrong; space that is only lost is not wrong.
 *
 * Left to others: what a check finds (core/check.c). No buffer is returned: it would have to be
 * allocated, and the shell's drvdiag frees it unread, and ErrorType with it.
 */
#include "driver.h"
#include "say.h"

#define SPOKEN "en"

static bool is_spoken(const CHAR8 *language)
{
    return language[0] == SPOKEN[0] && language[1] == SPOKEN[1] && language[2] == '\0';
}

/* Whether the sector at guest_off can be read, through all layers. */
static qc_status try_read(struct attached *attached, uint64_t guest_off)
{
    static uint8_t sector[QC_SECTOR_BYTES];

    return qc_read(&attached->image, guest_off, sector, sizeof(sector));
}

static EFI_STATUS run_standard(struct attached *attached, struct say_text *result)
{
    qc_status why = QC_OK;

    if (qc_info(&attached->image)->incompatible & QC_INCOMPATIBLE_CORRUPT) {
        say_add(result, "failed, marked corrupt");
        return EFI_DEVICE_ERROR;
    }
    why = try_read(attached, 0);
    if (why == QC_OK)
        why = try_read(attached, qc_size(&attached->image) - QC_SECTOR_BYTES);
    if (why != QC_OK) {
        say_add(result, "failed, ");
        say_add(result, qc_detail(&attached->image));
        return EFI_DEVICE_ERROR;
    }
    say_add(result, "passed");
    return EFI_SUCCESS;
}

static void add_figure(struct say_text *text, const char *what, uint64_t count)
{
    say_add(text, what);
    say_add_number(text, count);
}

static EFI_STATUS run_extended(struct attached *attached, struct say_text *result)
{
    struct qc_check_result found;
    qc_status why = qc_check(&attached->image, QC_FIX_NOTHING, NULL, NULL, &found);
    bool has_passed;

    if (why != QC_OK) {
        say_add(result, "not done, ");
        say_add(result, qc_detail(&attached->image));
        return why == QC_UNSUPPORTED ? EFI_UNSUPPORTED : EFI_DEVICE_ERROR;
    }
    has_passed = found.corruptions + found.check_errors == 0;
    say_add(result, has_passed ? "passed" : "failed");
    add_figure(result, ", corruptions ", found.corruptions);
    add_figure(result, ", errors ", found.check_errors);
    add_figure(result, ", leaked clusters ", found.leaks);
    add_figure(result, ", allocated ", found.allocated_clusters);
    add_figure(result, " of ", found.total_clusters);
    return has_passed ? EFI_SUCCESS : EFI_DEVICE_ERROR;
}

static EFI_STATUS run(struct attached *attached, bool is_standard)
{
    struct say_text result = {0};
    EFI_TPL tpl;
    EFI_STATUS status = request_begin(attached, &tpl);

    if (EFI_ERROR(status))
        return EFI_DEVICE_ERROR;
    say_add(&result, is_standard ? "test: " : "check: ");
    if (EFI_ERROR(medium_check(attached))) {
        say_add(&result, "failed, no medium");
        status = EFI_DEVICE_ERROR;
    } else {
        status = is_standard ? run_standard(attached, &result) : run_extended(attached, &result);
    }
    say_line((const EFI_DEVICE_PATH *)attached->path, &result);
    return request_end(attached, tpl, status);
}

static EFI_STATUS EFIAPI diagnostics_run(EFI_DRIVER_DIAGNOSTICS2_PROTOCOL *This,
                                         EFI_HANDLE controller, EFI_HANDLE child,
                                         EFI_DRIVER_DIAGNOSTIC_TYPE type, CHAR8 *language,
                                         EFI_GUID **ret_error_type, UINTN *ret_bytes,
                                         CHAR16 **ret_buffer)
{
    struct attached *attached = attached_by_container(controller);

    if (This == NULL || controller == NULL || language == NULL || ret_error_type == NULL ||
        ret_bytes == NULL || ret_buffer == NULL)
        return EFI_INVALID_PARAMETER;
    /* A container that has no child was claimed, and its image never opened. */
    if (!is_spoken(language) || type > EfiDriverDiagnosticTypeManufacturing || attached == NULL ||
        attached->child == NULL || (child != NULL && child != attached->child))
        return EFI_UNSUPPORTED;
    *ret_error_type = NULL;
    *ret_bytes = 0;
    *ret_buffer = NULL;
    return run(attached, type == EfiDriverDiagnosticTypeStandard);
}

EFI_DRIVER_DIAGNOSTICS2_PROTOCOL driver_diagnostics2 = {
    .RunDiagnostics = diagnostics_run,
    .SupportedLanguages = (CHAR8 *)SPOKEN,
};
