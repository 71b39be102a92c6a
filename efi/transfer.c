/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * What a request does: its checks, in the order callers rely on, and from blocks to bytes. The same
 * for every protocol that an image has (UEFI 2.10, 13.9, 13.10, 13.12).
 *
 * Promises: all blocks or an error; a stale MediaId is told before anything else about a transfer
 * is looked at. What was written is durable when a flush returns success, and mostly long before:
 * quiesce.c tells when. What was erased reads as zeros, nothing beside it changes, and whole
 * clusters let their space go.
 *
 * Left to others: the frame of a request (request.c), the medium (medium.c).
 */
#include "driver.h"

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

EFI_STATUS transfer_run(struct attached *attached, const struct request *request)
{
    EFI_STATUS status = medium_check(attached);

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
