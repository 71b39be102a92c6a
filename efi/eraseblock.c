/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * EFI_ERASE_BLOCK_PROTOCOL (UEFI 2.10, 13.12) of an attached image: blocks that read as zeros
 * afterwards.
 *
 * Promises: the whole range reads as zeros and nothing beside it changes; whole clusters let their
 * space go. An erase is complete when the call returns, and its event is signalled by then; a call
 * that fails signals nothing. Volatile until FlushBlocks, as a write is.
 */
#include "driver.h"

static EFI_STATUS erase_checked(struct attached *attached, UINT32 media_id, EFI_LBA lba, UINTN size)
{
    EFI_STATUS status = request_check_medium(attached);
    qc_status why;

    if (EFI_ERROR(status))
        return status;
    if (attached->media.ReadOnly)
        return EFI_WRITE_PROTECTED;
    if (media_id != attached->media.MediaId)
        return EFI_MEDIA_CHANGED;
    if (size == 0)
        return EFI_SUCCESS;
    if (!request_is_inside(&attached->media, lba, size))
        return EFI_INVALID_PARAMETER;
    quiesce_before_change(attached);
    why = qc_zero(&attached->image, lba * QC_SECTOR_BYTES, size, true);
    if (why == QC_OK)
        why = quiesce_after_change(attached);
    return why == QC_OK ? EFI_SUCCESS : request_failed(attached, "erase", why);
}

static EFI_STATUS EFIAPI eraseblock_erase(EFI_ERASE_BLOCK_PROTOCOL *This, UINT32 media_id,
                                          EFI_LBA lba, EFI_ERASE_BLOCK_TOKEN *token, UINTN size)
{
    struct attached *attached = attached_by_erase_block(This);
    EFI_TPL tpl;
    EFI_STATUS status = request_begin(attached, &tpl);

    if (EFI_ERROR(status))
        return status;
    status = request_end(attached, tpl, erase_checked(attached, media_id, lba, size));
    if (!EFI_ERROR(status) && token != NULL && token->Event != NULL) {
        token->TransactionStatus = EFI_SUCCESS;
        efi_boot->SignalEvent(token->Event);
    }
    return status;
}

void eraseblock_init(struct attached *attached)
{
    attached->erase_block = (EFI_ERASE_BLOCK_PROTOCOL){
        .Revision = EFI_ERASE_BLOCK_PROTOCOL_REVISION,
        .EraseLengthGranularity = qc_info(&attached->image)->cluster_bytes / QC_SECTOR_BYTES,
        .EraseBlocks = eraseblock_erase,
    };
}
