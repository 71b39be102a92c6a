/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * EFI_BLOCK_IO_PROTOCOL (UEFI 2.10, 13.9) of an attached image: the checks, in the order callers
 * rely on, and from blocks to bytes.
 *
 * Promises: all blocks or an error; a stale MediaId is told before anything else about a request is
 * looked at. What was written is durable when FlushBlocks returns success, and mostly long before:
 * quiesce.c tells when. ReadOnly follows the image, which may stop taking writes at any request.
 *
 * Left to others: the frame of a request (request.c).
 */
#include "driver.h"

#define BLOCK_BYTES QC_SECTOR_BYTES

static EFI_STATUS check_request(struct attached *attached, UINT32 media_id, bool is_write)
{
    EFI_STATUS status = request_check_medium(attached);

    if (EFI_ERROR(status))
        return status;
    if (media_id != attached->media.MediaId)
        return EFI_MEDIA_CHANGED;
    if (is_write && attached->media.ReadOnly)
        return EFI_WRITE_PROTECTED;
    return EFI_SUCCESS;
}

/* For size > 0. */
static EFI_STATUS check_range(const EFI_BLOCK_IO_MEDIA *media, EFI_LBA lba, UINTN size,
                              const void *buffer)
{
    if (buffer == NULL)
        return EFI_INVALID_PARAMETER;
    if (size % BLOCK_BYTES != 0)
        return EFI_BAD_BUFFER_SIZE;
    if (!request_is_inside(media, lba, size))
        return EFI_INVALID_PARAMETER;
    if (media->IoAlign > 1 && ((uintptr_t)buffer & (media->IoAlign - 1)) != 0)
        return EFI_INVALID_PARAMETER;
    return EFI_SUCCESS;
}

static EFI_STATUS read_checked(struct attached *attached, UINT32 media_id, EFI_LBA lba, UINTN size,
                               void *buffer)
{
    EFI_STATUS status = check_request(attached, media_id, false);
    qc_status why;

    if (EFI_ERROR(status) || size == 0)
        return status;
    status = check_range(&attached->media, lba, size, buffer);
    if (EFI_ERROR(status))
        return status;
    why = qc_read(&attached->image, lba * BLOCK_BYTES, buffer, size);
    return why == QC_OK ? EFI_SUCCESS : request_failed(attached, "read", why);
}

static EFI_STATUS EFIAPI blockio_read(EFI_BLOCK_IO_PROTOCOL *This, UINT32 media_id, EFI_LBA lba,
                                      UINTN size, void *buffer)
{
    struct attached *attached = attached_by_block_io(This);
    EFI_TPL tpl;
    EFI_STATUS status = request_begin(attached, &tpl);

    if (EFI_ERROR(status))
        return status;
    return request_end(attached, tpl, read_checked(attached, media_id, lba, size, buffer));
}

static EFI_STATUS write_checked(struct attached *attached, UINT32 media_id, EFI_LBA lba, UINTN size,
                                const void *buffer)
{
    EFI_STATUS status = check_request(attached, media_id, true);
    qc_status why;

    if (EFI_ERROR(status) || size == 0)
        return status;
    status = check_range(&attached->media, lba, size, buffer);
    if (EFI_ERROR(status))
        return status;
    quiesce_before_change(attached);
    why = qc_write(&attached->image, lba * BLOCK_BYTES, buffer, size);
    if (why == QC_OK)
        why = quiesce_after_change(attached);
    return why == QC_OK ? EFI_SUCCESS : request_failed(attached, "write", why);
}

static EFI_STATUS EFIAPI blockio_write(EFI_BLOCK_IO_PROTOCOL *This, UINT32 media_id, EFI_LBA lba,
                                       UINTN size, void *buffer)
{
    struct attached *attached = attached_by_block_io(This);
    EFI_TPL tpl;
    EFI_STATUS status = request_begin(attached, &tpl);

    if (EFI_ERROR(status))
        return status;
    return request_end(attached, tpl, write_checked(attached, media_id, lba, size, buffer));
}

static EFI_STATUS flush_checked(struct attached *attached)
{
    EFI_STATUS status = request_check_medium(attached);
    qc_status why;

    if (EFI_ERROR(status))
        return status;
    why = quiesce_flush(attached);
    if (why == QC_OK)
        return EFI_SUCCESS;
    /* What was not durable when the image stopped taking writes never will be. */
    return why == QC_READONLY ? EFI_DEVICE_ERROR : request_failed(attached, "flush", why);
}

static EFI_STATUS EFIAPI blockio_flush(EFI_BLOCK_IO_PROTOCOL *This)
{
    struct attached *attached = attached_by_block_io(This);
    EFI_TPL tpl;
    EFI_STATUS status = request_begin(attached, &tpl);

    if (EFI_ERROR(status))
        return status;
    return request_end(attached, tpl, flush_checked(attached));
}

/* There is no device of our own to reset: what was written is made durable, as if that were done.
 */
static EFI_STATUS EFIAPI blockio_reset(EFI_BLOCK_IO_PROTOCOL *This, BOOLEAN extended)
{
    struct attached *attached = attached_by_block_io(This);
    EFI_TPL tpl;
    EFI_STATUS status = request_begin(attached, &tpl);

    (void)extended;
    if (EFI_ERROR(status))
        return status;
    if (!EFI_ERROR(request_check_medium(attached)))
        status = flush_checked(attached);
    return request_end(attached, tpl, EFI_ERROR(status) ? EFI_DEVICE_ERROR : EFI_SUCCESS);
}

/* In our blocks; what the parent says of itself is in its own blocks, 0 if it says nothing. */
static UINT32 blocks_per_physical_block(const EFI_BLOCK_IO_PROTOCOL *parent)
{
    UINT32 parents_own = parent->Revision >= EFI_BLOCK_IO_PROTOCOL_REVISION2
                             ? parent->Media->LogicalBlocksPerPhysicalBlock
                             : 0;

    return parent->Media->BlockSize / BLOCK_BYTES * (parents_own > 0 ? parents_own : 1);
}

void blockio_init(struct attached *attached)
{
    static UINT32 media_ids_given;
    const EFI_BLOCK_IO_PROTOCOL *parent = attached->block.parent;
    bool is_readonly = qc_readonly_reason(&attached->image)[0] != '\0';

    attached->block_io = (EFI_BLOCK_IO_PROTOCOL){
        .Revision = EFI_BLOCK_IO_PROTOCOL_REVISION3,
        .Media = &attached->media,
        .Reset = blockio_reset,
        .ReadBlocks = blockio_read,
        .WriteBlocks = blockio_write,
        .FlushBlocks = blockio_flush,
    };
    attached->media = (EFI_BLOCK_IO_MEDIA){
        /* Never 0, and new each time, so that no request of an earlier life fits. */
        .MediaId = ++media_ids_given,
        .RemovableMedia = parent->Media->RemovableMedia,
        .MediaPresent = TRUE,
        .LogicalPartition = FALSE,
        .ReadOnly = is_readonly,
        .WriteCaching = !is_readonly, /* until FlushBlocks */
        .BlockSize = BLOCK_BYTES,
        .IoAlign = parent->Media->IoAlign, /* buffers go down as they come */
        .LastBlock = qc_size(&attached->image) / BLOCK_BYTES - 1,
        .LowestAlignedLba = 0,
        .LogicalBlocksPerPhysicalBlock = blocks_per_physical_block(parent),
        .OptimalTransferLengthGranularity = qc_info(&attached->image)->cluster_bytes / BLOCK_BYTES,
    };
}
