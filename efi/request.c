/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The frame of every request to an attached image: the task priority, one request at a time of
 * all images together, the medium, the range, and what callers are told when the engine fails.
 *
 * Promises: a request that comes while another runs, above TPL_CALLBACK, or after boot services
 * have ended fails and touches nothing. Errors are said once per image and kind.
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

/* The image goes with the medium it was opened on, and does not come back by itself. */
EFI_STATUS request_check_medium(struct attached *attached)
{
    const EFI_BLOCK_IO_MEDIA *below = attached->block.parent->Media;

    if (!attached->media.MediaPresent)
        return EFI_NO_MEDIA;
    if (below->MediaPresent && below->MediaId == attached->block.media_id)
        return EFI_SUCCESS;
    attached->media.MediaPresent = FALSE;
    return below->MediaPresent ? EFI_MEDIA_CHANGED : EFI_NO_MEDIA;
}

bool request_is_inside(const EFI_BLOCK_IO_MEDIA *media, EFI_LBA lba, UINTN size)
{
    return size % media->BlockSize == 0 && lba <= media->LastBlock &&
           size / media->BlockSize - 1 <= media->LastBlock - lba;
}

EFI_STATUS request_failed(struct attached *attached, const char *what, qc_status why)
{
    EFI_STATUS below = attached->block.last_status;
    const EFI_DEVICE_PATH *path = (const EFI_DEVICE_PATH *)attached->path;
    struct say_text text = {0};

    if (why == QC_READONLY)
        return EFI_WRITE_PROTECTED;
    if (why == QC_IO && (below == EFI_NO_MEDIA || below == EFI_MEDIA_CHANGED)) {
        attached->media.MediaPresent = FALSE;
        return below;
    }
    say_add(&text, what);
    say_add(&text, " error: ");
    say_add(&text, qc_detail(&attached->image));
    if (!attached->media.ReadOnly && qc_readonly_reason(&attached->image)[0] != '\0')
        say_add(&text, "; no more writes are taken");
    say_once(say_digest(say_digest(attached->digest, what, 1), &why, sizeof(why)), path, &text);
    return EFI_DEVICE_ERROR;
}
