/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The frame of every request to an attached image: the task priority, one request at a time of
 * all images together, completing, and what callers are told when the engine fails.
 *
 * Promises: a request that comes while another runs, above TPL_CALLBACK, or after boot services
 * have ended fails and touches nothing. Errors are said once per image and kind.
 *
 * Left to others: what a request does (transfer.c).
 */
#include "driver.h"
#include "say.h"

static EFI_TPL tpl_now(void)
{
    EFI_TPL tpl = efi_boot->RaiseTPL(TPL_HIGH_LEVEL);

    efi_boot->RestoreTPL(tpl);
    return tpl;
}

/*
 * Of all images at once. Nothing that follows the rules comes in between, but a disk's driver that
 * finds its medium gone stops its users from within our request, and they write back.
 */
static bool is_running;

bool request_claim(void)
{
    if (is_running)
        return false;
    is_running = true;
    return true;
}

void request_release(void)
{
    is_running = false;
}

bool request_is_running(void)
{
    return is_running;
}

EFI_STATUS request_begin(struct attached *attached, EFI_TPL *ret_tpl)
{
    EFI_TPL tpl;

    if (attached == NULL)
        return EFI_INVALID_PARAMETER;
    if (attached->is_gone)
        return EFI_DEVICE_ERROR;
    /* Callers up here break the rules (7.1), and may have interrupted a request of this image. */
    if (tpl_now() > TPL_CALLBACK)
        return EFI_DEVICE_ERROR;
    tpl = efi_boot->RaiseTPL(TPL_CALLBACK);
    if (!request_claim()) {
        efi_boot->RestoreTPL(tpl);
        return EFI_DEVICE_ERROR;
    }
    quiesce_if_due(attached);
    *ret_tpl = tpl;
    return EFI_SUCCESS;
}

void request_follow_image(struct attached *attached)
{
    if (qc_readonly_reason(&attached->image)[0] != '\0') {
        attached->media.ReadOnly = TRUE;
        attached->media.WriteCaching = FALSE;
    }
}

EFI_STATUS request_end(struct attached *attached, EFI_TPL tpl, EFI_STATUS status)
{
    request_follow_image(attached);
    request_release();
    efi_boot->RestoreTPL(tpl);
    return status;
}

EFI_STATUS request_submit(struct attached *attached, const struct request *request)
{
    EFI_TPL tpl;
    EFI_STATUS status = request_begin(attached, &tpl);

    if (EFI_ERROR(status))
        return status;
    status = request_end(attached, tpl, transfer_run(attached, request));
    /* Outside of the frame: who is notified may well come with the next request. */
    if (!EFI_ERROR(status) && request->event != NULL) {
        *request->ret_transaction = EFI_SUCCESS;
        efi_boot->SignalEvent(request->event);
    }
    return status;
}

EFI_STATUS request_failed(struct attached *attached, const char *what, qc_status why)
{
    EFI_STATUS medium = medium_check(attached);
    const EFI_DEVICE_PATH *path = (const EFI_DEVICE_PATH *)attached->path;
    struct say_text text = {0};

    if (why == QC_READONLY)
        return EFI_WRITE_PROTECTED;
    if (why == QC_IO && EFI_ERROR(medium))
        return medium;
    say_add(&text, what);
    say_add(&text, " error: ");
    say_add(&text, qc_detail(&attached->image));
    if (!attached->media.ReadOnly && qc_readonly_reason(&attached->image)[0] != '\0')
        say_add(&text, "; no more writes are taken");
    say_once(say_digest(say_digest(attached->digest, what, 1), &why, sizeof(why)), path, &text);
    return EFI_DEVICE_ERROR;
}
