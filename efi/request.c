/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * A request to an attached image, whichever protocol it comes through (UEFI 2.10, 13.9, 13.10,
 * 13.12): the task priority, one request at a time of all images together, its checks in the order
 * callers rely on, from blocks to bytes, completing, and what callers are told when the engine
 * fails.
 *
 * Promises: a request that comes while another runs, above TPL_CALLBACK, or after boot services
 * have ended fails and touches nothing. All blocks or an error; a stale MediaId is told before
 * anything else about a transfer is looked at. What was written is durable when a flush returns
 * success, and mostly long before: quiesce.c tells when. What was erased reads as zeros, nothing
 * beside it changes, and whole clusters let their space go. Errors are said once per image and
 * kind.
 *
 * Left to others: the medium (medium.c). All of a request is in this one file so that the way of a
 * read through it, which is the way of nearly all of a boot, is short: make bench counts it.
 */
#include "handover.h"
#include "say.h"

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
    /*
     * Callers above TPL_CALLBACK break the rules (7.1), and may have interrupted a request of this
     * image. All the way up tells where the caller is, and nothing comes in between; from there it
     * is down to where a request runs, which costs one change of priority less.
     */
    tpl = efi_boot->RaiseTPL(TPL_HIGH_LEVEL);
    if (tpl > TPL_CALLBACK || !request_claim()) {
        efi_boot->RestoreTPL(tpl);
        return EFI_DEVICE_ERROR;
    }
    efi_boot->RestoreTPL(TPL_CALLBACK);
    if (attached->is_due)
        quiesce_if_due(attached);
    *ret_tpl = tpl;
    return EFI_SUCCESS;
}

void request_follow_image(struct attached *attached)
{
    if (qc_readonly_reason(&attached->image)[0] != '\0' && !attached->media.ReadOnly) {
        attached->media.ReadOnly = TRUE;
        attached->media.WriteCaching = FALSE;
        handover_follow(attached);
    }
}

EFI_STATUS request_end(struct attached *attached, EFI_TPL tpl, EFI_STATUS status)
{
    request_follow_image(attached);
    request_release();
    efi_boot->RestoreTPL(tpl);
    return status;
}

/* As medium_check: nearly always there is only the image's own disk, and its medium is there. */
static EFI_STATUS check_medium(struct attached *attached)
{
    if (attached->media.MediaPresent && attached->bases_count == 0 &&
        !EFI_ERROR(efi_block_medium(&attached->block)))
        return EFI_SUCCESS;
    return medium_check(attached);
}

/* For size > 0. */
static EFI_STATUS check_range(const EFI_BLOCK_IO_MEDIA *media, const struct request *request)
{
    UINTN blocks_count = request->size / QC_SECTOR_BYTES;

    if (request->size % QC_SECTOR_BYTES != 0)
        return request->kind == REQUEST_ERASE ? EFI_INVALID_PARAMETER : EFI_BAD_BUFFER_SIZE;
    if (request->lba > media->LastBlock || blocks_count - 1 > media->LastBlock - request->lba)
        return EFI_INVALID_PARAMETER;
    return EFI_SUCCESS;
}

static EFI_STATUS check_buffer(const EFI_BLOCK_IO_MEDIA *media, const struct request *request)
{
    EFI_STATUS status;

    if (request->buffer == NULL)
        return EFI_INVALID_PARAMETER;
    status = check_range(media, request);
    if (EFI_ERROR(status))
        return status;
    if (media->IoAlign > 1 && ((uintptr_t)request->buffer & (media->IoAlign - 1)) != 0)
        return EFI_INVALID_PARAMETER;
    return EFI_SUCCESS;
}

static EFI_STATUS run_read(struct attached *attached, const struct request *request)
{
    EFI_STATUS status;
    qc_status why;

    if (request->media_id != attached->media.MediaId)
        return EFI_MEDIA_CHANGED;
    if (request->size == 0)
        return EFI_SUCCESS;
    status = check_buffer(&attached->media, request);
    if (EFI_ERROR(status))
        return status;
    why = qc_read(&attached->image, request->lba * QC_SECTOR_BYTES, request->buffer, request->size);
    return why == QC_OK ? EFI_SUCCESS : request_failed(attached, "read", why);
}

static EFI_STATUS run_write(struct attached *attached, const struct request *request)
{
    EFI_STATUS status;
    qc_status why;

    if (request->media_id != attached->media.MediaId)
        return EFI_MEDIA_CHANGED;
    if (attached->media.ReadOnly)
        return EFI_WRITE_PROTECTED;
    if (request->size == 0)
        return EFI_SUCCESS;
    status = check_buffer(&attached->media, request);
    if (EFI_ERROR(status))
        return status;
    quiesce_before_change(attached);
    why =
        qc_write(&attached->image, request->lba * QC_SECTOR_BYTES, request->buffer, request->size);
    if (why == QC_OK)
        why = quiesce_after_change(attached);
    return why == QC_OK ? EFI_SUCCESS : request_failed(attached, "write", why);
}

/* The protocol's tests want to hear of protection before they hear of a stale MediaId. */
static EFI_STATUS run_erase(struct attached *attached, const struct request *request)
{
    EFI_STATUS status;
    qc_status why;

    if (attached->media.ReadOnly)
        return EFI_WRITE_PROTECTED;
    if (request->media_id != attached->media.MediaId)
        return EFI_MEDIA_CHANGED;
    if (request->size == 0)
        return EFI_SUCCESS;
    status = check_range(&attached->media, request);
    if (EFI_ERROR(status))
        return status;
    quiesce_before_change(attached);
    why = qc_zero(&attached->image, request->lba * QC_SECTOR_BYTES, request->size, true);
    if (why == QC_OK)
        why = quiesce_after_change(attached);
    return why == QC_OK ? EFI_SUCCESS : request_failed(attached, "erase", why);
}

static EFI_STATUS run_flush(struct attached *attached)
{
    qc_status why = quiesce_flush(attached);

    if (why == QC_OK)
        return EFI_SUCCESS;
    /* What was not durable when the image stopped taking writes never will be. */
    return why == QC_READONLY ? EFI_DEVICE_ERROR : request_failed(attached, "flush", why);
}

/*
 * There is no device of our own to reset: what was written is made durable. The firmware's Disk I/O
 * does not go without a good answer. So an image that takes no more writes has one, for it works as
 * far as it can; and one that is being taken away, which has nothing left that is not durable.
 */
static EFI_STATUS run_reset(struct attached *attached)
{
    qc_status why = attached->is_stopping ? QC_OK : quiesce_flush(attached);

    if (why == QC_OK || why == QC_READONLY)
        return EFI_SUCCESS;
    request_failed(attached, "flush", why);
    return EFI_DEVICE_ERROR;
}

/* What a request does, within its frame. */
static EFI_STATUS run(struct attached *attached, const struct request *request)
{
    EFI_STATUS status = check_medium(attached);

    /* A device without a medium can be reset. */
    if (EFI_ERROR(status))
        return request->kind == REQUEST_RESET ? EFI_SUCCESS : status;
    switch (request->kind) {
    case REQUEST_READ:
        return run_read(attached, request);
    case REQUEST_WRITE:
        return run_write(attached, request);
    case REQUEST_ERASE:
        return run_erase(attached, request);
    case REQUEST_FLUSH:
        return run_flush(attached);
    case REQUEST_RESET:
        return run_reset(attached);
    }
    return EFI_UNSUPPORTED;
}

EFI_STATUS request_submit(struct attached *attached, const struct request *request)
{
    EFI_TPL tpl;
    EFI_STATUS status = request_begin(attached, &tpl);

    /* Whoever takes a paused image away asks for this first. */
    if (EFI_ERROR(status) && attached != NULL && attached->is_paused &&
        request->kind == REQUEST_RESET)
        return EFI_SUCCESS;
    if (EFI_ERROR(status))
        return status;
    status = run(attached, request);
    request_follow_image(attached);
    request_release();
    /*
     * Behind the request, so that who is notified may come with the next; before anything else
     * runs, because what waits for the processor may give the token up.
     */
    if (!EFI_ERROR(status) && request->event != NULL) {
        *request->ret_transaction = EFI_SUCCESS;
        efi_boot->SignalEvent(request->event);
    }
    efi_boot->RestoreTPL(tpl);
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
