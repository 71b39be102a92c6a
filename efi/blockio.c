/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * EFI_BLOCK_IO_PROTOCOL (UEFI 2.10, 13.9) of an attached image, and what its media fields say.
 *
 * Promises: every call blocks. ReadOnly follows the image, which may stop taking writes at any
 * request.
 *
 * Left to others: everything about a request (request.c).
 */
#include "driver.h"

static EFI_STATUS EFIAPI blockio_read(EFI_BLOCK_IO_PROTOCOL *This, UINT32 media_id, EFI_LBA lba,
                                      UINTN size, void *buffer)
{
    struct request request = {
        .kind = REQUEST_READ, .media_id = media_id, .lba = lba, .size = size, .buffer = buffer};

    return request_submit(attached_by_protocol(This), &request);
}

static EFI_STATUS EFIAPI blockio_write(EFI_BLOCK_IO_PROTOCOL *This, UINT32 media_id, EFI_LBA lba,
                                       UINTN size, void *buffer)
{
    struct request request = {
        .kind = REQUEST_WRITE, .media_id = media_id, .lba = lba, .size = size, .buffer = buffer};

    return request_submit(attached_by_protocol(This), &request);
}

static EFI_STATUS EFIAPI blockio_flush(EFI_BLOCK_IO_PROTOCOL *This)
{
    struct request request = {.kind = REQUEST_FLUSH};

    return request_submit(attached_by_protocol(This), &request);
}

static EFI_STATUS EFIAPI blockio_reset(EFI_BLOCK_IO_PROTOCOL *This, BOOLEAN extended)
{
    struct request request = {.kind = REQUEST_RESET};

    (void)extended;
    return request_submit(attached_by_protocol(This), &request);
}

/* In our blocks; what the parent says of itself is in its own blocks, 0 if it says nothing. */
static UINT32 blocks_per_physical_block(const EFI_BLOCK_IO_PROTOCOL *parent)
{
    UINT32 parents_own = parent->Revision >= EFI_BLOCK_IO_PROTOCOL_REVISION2
                             ? parent->Media->LogicalBlocksPerPhysicalBlock
                             : 0;

    return parent->Media->BlockSize / QC_SECTOR_BYTES * (parents_own > 0 ? parents_own : 1);
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
        .BlockSize = QC_SECTOR_BYTES,
        .IoAlign = parent->Media->IoAlign, /* buffers go down as they come */
        .LastBlock = qc_size(&attached->image) / QC_SECTOR_BYTES - 1,
        .LowestAlignedLba = 0,
        .LogicalBlocksPerPhysicalBlock = blocks_per_physical_block(parent),
        .OptimalTransferLengthGranularity =
            qc_info(&attached->image)->cluster_bytes / QC_SECTOR_BYTES,
    };
}
