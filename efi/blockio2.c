/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * EFI_BLOCK_IO2_PROTOCOL (UEFI 2.10, 13.10) of an attached image: Block I/O, with a token.
 *
 * Promises: without a token, or an event in it, a call is as Block I/O's. With one, the request is
 * done when the call returns, TransactionStatus is set and then the event signalled; a call that
 * returns an error does neither. A flush is behind every request that came before it.
 *
 * Left to others: checks, work and completing (request.c), the media (blockio.c).
 */
#include "driver.h"

static EFI_STATUS submit(EFI_BLOCK_IO2_PROTOCOL *This, EFI_BLOCK_IO2_TOKEN *token,
                         struct request *request)
{
    if (token != NULL && token->Event != NULL) {
        request->event = token->Event;
        request->ret_transaction = &token->TransactionStatus;
    }
    return request_submit(attached_by_protocol(This), request);
}

static EFI_STATUS EFIAPI blockio2_read(EFI_BLOCK_IO2_PROTOCOL *This, UINT32 media_id, EFI_LBA lba,
                                       EFI_BLOCK_IO2_TOKEN *token, UINTN size, void *buffer)
{
    struct request request = {
        .kind = REQUEST_READ, .media_id = media_id, .lba = lba, .size = size, .buffer = buffer};

    return submit(This, token, &request);
}

static EFI_STATUS EFIAPI blockio2_write(EFI_BLOCK_IO2_PROTOCOL *This, UINT32 media_id, EFI_LBA lba,
                                        EFI_BLOCK_IO2_TOKEN *token, UINTN size, void *buffer)
{
    struct request request = {
        .kind = REQUEST_WRITE, .media_id = media_id, .lba = lba, .size = size, .buffer = buffer};

    return submit(This, token, &request);
}

static EFI_STATUS EFIAPI blockio2_flush(EFI_BLOCK_IO2_PROTOCOL *This, EFI_BLOCK_IO2_TOKEN *token)
{
    struct request request = {.kind = REQUEST_FLUSH};

    return submit(This, token, &request);
}

static EFI_STATUS EFIAPI blockio2_reset(EFI_BLOCK_IO2_PROTOCOL *This, BOOLEAN extended)
{
    struct request request = {.kind = REQUEST_RESET};

    (void)extended;
    return submit(This, NULL, &request);
}

void blockio2_init(struct attached *attached)
{
    attached->block_io2 = (EFI_BLOCK_IO2_PROTOCOL){
        .Media = &attached->media,
        .Reset = blockio2_reset,
        .ReadBlocksEx = blockio2_read,
        .WriteBlocksEx = blockio2_write,
        .FlushBlocksEx = blockio2_flush,
    };
}
