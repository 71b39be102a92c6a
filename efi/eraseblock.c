/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * EFI_ERASE_BLOCK_PROTOCOL (UEFI 2.10, 13.12) of an attached image: blocks that read as zeros
 * afterwards.
 *
 * Promises: an erase is complete when the call returns, and its event is signalled by then; a call
 * that fails signals nothing. Volatile until FlushBlocks, as a write is.
 *
 * Left to others: checks, work and completing (request.c).
 */
#include "driver.h"

static EFI_STATUS EFIAPI eraseblock_erase(EFI_ERASE_BLOCK_PROTOCOL *This, UINT32 media_id,
                                          EFI_LBA lba, EFI_ERASE_BLOCK_TOKEN *token, UINTN size)
{
    struct request request = {
        .kind = REQUEST_ERASE, .media_id = media_id, .lba = lba, .size = size};

    if (token != NULL && token->Event != NULL) {
        request.event = token->Event;
        request.ret_transaction = &token->TransactionStatus;
    }
    return request_submit(attached_by_protocol(This), &request);
}

void eraseblock_init(struct attached *attached)
{
    attached->erase_block = (EFI_ERASE_BLOCK_PROTOCOL){
        .Revision = EFI_ERASE_BLOCK_PROTOCOL_REVISION,
        .EraseLengthGranularity = qc_info(&attached->image)->cluster_bytes / QC_SECTOR_BYTES,
        .EraseBlocks = eraseblock_erase,
    };
}
