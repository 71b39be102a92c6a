/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * EFI_BLOCK_IO_PROTOCOL (UEFI 2.10, 13.9) of an attached image: the checks, in the order callers
 * rely on, and from blocks to bytes.
 *
 * Promises: all blocks or an error; a stale MediaId is told before anything else about a request is
 * looked at; a request that comes while another runs, or above TPL_CALLBACK, fails and touches
 * nothing. Errors of reading are said once per image and kind.
 *
 * Nothing here is ever dirty: images are read-only, so there is nothing to flush or to reset.
 */
#include "driver.h"
#include "say.h"

#define BLOCK_BYTES QC_SECTOR_BYTES

static EFI_TPL tpl_now(void)
{
    EFI_TPL tpl = efi_boot->RaiseTPL(TPL_HIGH_LEVEL);

    efi_boot->RestoreTPL(tpl);
    return tpl;
}

/*
 * Begins a request: nothing interrupts it then, and no other begins before request_end(). Callers
 * above TPL_CALLBACK break the rules (7.1), and may have interrupted a request of this very image.
 */
static EFI_STATUS request_begin(const EFI_BLOCK_IO_PROTOCOL *This, struct attached **ret_attached,
                                EFI_TPL *ret_tpl)
{
    struct attached *attached = attached_by_block_io(This);
    EFI_TPL tpl;

    if (attached == NULL)
        return EFI_INVALID_PARAMETER;
    if (tpl_now() > TPL_CALLBACK)
        return EFI_DEVICE_ERROR;
    tpl = efi_boot->RaiseTPL(TPL_CALLBACK);
    if (attached->is_busy) {
        efi_boot->RestoreTPL(tpl);
        return EFI_DEVICE_ERROR;
    }
    attached->is_busy = true;
    *ret_attached = attached;
    *ret_tpl = tpl;
    return EFI_SUCCESS;
}

static EFI_STATUS request_end(struct attached *attached, EFI_TPL tpl, EFI_STATUS status)
{
    attached->is_busy = false;
    efi_boot->RestoreTPL(tpl);
    return status;
}

/* The image goes with the medium it was opened on, and does not come back by itself. */
static EFI_STATUS check_medium(struct attached *attached)
{
    const EFI_BLOCK_IO_MEDIA *below = attached->block.parent->Media;

    if (!attached->media.MediaPresent)
        return EFI_NO_MEDIA;
    if (below->MediaPresent && below->MediaId == attached->block.media_id)
        return EFI_SUCCESS;
    attached->media.MediaPresent = FALSE;
    return below->MediaPresent ? EFI_MEDIA_CHANGED : EFI_NO_MEDIA;
}

static EFI_STATUS check_request(struct attached *attached, UINT32 media_id, bool is_write)
{
    EFI_STATUS status = check_medium(attached);

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
    if (lba > media->LastBlock || size / BLOCK_BYTES - 1 > media->LastBlock - lba)
        return EFI_INVALID_PARAMETER;
    if (media->IoAlign > 1 && ((uintptr_t)buffer & (media->IoAlign - 1)) != 0)
        return EFI_INVALID_PARAMETER;
    return EFI_SUCCESS;
}

static EFI_STATUS read_failed(struct attached *attached, qc_status why)
{
    EFI_STATUS below = attached->block.last_status;
    const EFI_DEVICE_PATH *path = (const EFI_DEVICE_PATH *)attached->path;
    struct say_text text = {0};

    if (why == QC_IO && (below == EFI_NO_MEDIA || below == EFI_MEDIA_CHANGED)) {
        attached->media.MediaPresent = FALSE;
        return below;
    }
    say_add(&text, "read error: ");
    say_add(&text, qc_detail(&attached->image));
    say_once(say_digest(attached->digest, &why, sizeof(why)), path, &text);
    return EFI_DEVICE_ERROR;
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
    return why == QC_OK ? EFI_SUCCESS : read_failed(attached, why);
}

static EFI_STATUS EFIAPI blockio_read(EFI_BLOCK_IO_PROTOCOL *This, UINT32 media_id, EFI_LBA lba,
                                      UINTN size, void *buffer)
{
    struct attached *attached;
    EFI_TPL tpl;
    EFI_STATUS status = request_begin(This, &attached, &tpl);

    if (EFI_ERROR(status))
        return status;
    return request_end(attached, tpl, read_checked(attached, media_id, lba, size, buffer));
}

static EFI_STATUS EFIAPI blockio_write(EFI_BLOCK_IO_PROTOCOL *This, UINT32 media_id, EFI_LBA lba,
                                       UINTN size, void *buffer)
{
    struct attached *attached;
    EFI_TPL tpl;
    EFI_STATUS status = request_begin(This, &attached, &tpl);

    (void)lba;
    (void)size;
    (void)buffer;
    if (EFI_ERROR(status))
        return status;
    /* Always an error: every image is ReadOnly. */
    return request_end(attached, tpl, check_request(attached, media_id, true));
}

static EFI_STATUS EFIAPI blockio_flush(EFI_BLOCK_IO_PROTOCOL *This)
{
    struct attached *attached;
    EFI_TPL tpl;
    EFI_STATUS status = request_begin(This, &attached, &tpl);

    if (EFI_ERROR(status))
        return status;
    return request_end(attached, tpl, check_medium(attached));
}

static EFI_STATUS EFIAPI blockio_reset(EFI_BLOCK_IO_PROTOCOL *This, BOOLEAN extended)
{
    (void)extended;
    return attached_by_block_io(This) != NULL ? EFI_SUCCESS : EFI_INVALID_PARAMETER;
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
        .ReadOnly = TRUE,
        .WriteCaching = FALSE,
        .BlockSize = BLOCK_BYTES,
        .IoAlign = parent->Media->IoAlign, /* buffers go down as they come */
        .LastBlock = qc_size(&attached->image) / BLOCK_BYTES - 1,
        .LowestAlignedLba = 0,
        .LogicalBlocksPerPhysicalBlock = blocks_per_physical_block(parent),
        .OptimalTransferLengthGranularity = qc_info(&attached->image)->cluster_bytes / BLOCK_BYTES,
    };
}
