/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Block I/O 2 beyond single transfers: several tokens under way, what a flush promises about those
 * before it, and flushes of media that cannot be written (UEFI 2.10, 13.10).
 */
#include "conformance.h"

#define WRITES_COUNT 4u
#define TOKENS_COUNT (WRITES_COUNT + 1) /* the last is the flush */
#define POLL_US      1000u
#define POLLS_MAX    5000u

static struct {
    EFI_BLOCK_IO2_TOKEN token;
    unsigned signals_count;
    unsigned place; /* in the order of signals, from 1 */
    EFI_STATUS status_then;
} requests[TOKENS_COUNT];
static unsigned signals_count;

static void EFIAPI on_signal(EFI_EVENT event, void *context)
{
    size_t i = (size_t)(uintptr_t)context;

    (void)event;
    requests[i].signals_count++;
    requests[i].place = ++signals_count;
    requests[i].status_then = requests[i].token.TransactionStatus;
}

/* All writes and the flush are handed over before any signal is waited for. */
static EFI_STATUS start(uint64_t lba)
{
    EFI_BLOCK_IO2_PROTOCOL *io = target.block_io2;
    size_t block_bytes = target.media->BlockSize;
    EFI_STATUS worst = EFI_SUCCESS;

    for (size_t i = 0; i < TOKENS_COUNT; i++) {
        EFI_BLOCK_IO2_TOKEN *token = &requests[i].token;
        EFI_STATUS status;

        token->TransactionStatus = EFI_NOT_READY;
        if (i == WRITES_COUNT)
            status = io->FlushBlocksEx(io, token);
        else
            status = io->WriteBlocksEx(io, target.media->MediaId, lba + i, token, block_bytes,
                                       buffer_a + i * block_bytes);
        worst = EFI_ERROR(status) ? status : worst;
    }
    return worst;
}

static void judge_requests(uint64_t lba)
{
    unsigned wrong_count = 0, failed_count = 0, late_count = 0;

    for (size_t i = 0; i < TOKENS_COUNT; i++) {
        wrong_count += requests[i].signals_count != 1;
        failed_count += requests[i].status_then != EFI_SUCCESS;
        late_count += requests[i].place > requests[WRITES_COUNT].place;
    }
    expect_number("tokens that are not signalled once", wrong_count, 0);
    expect_number("tokens without success when signalled", failed_count, 0);
    expect_number("writes that end behind the flush behind them", late_count, 0);
    expect("a read behind it", read_blocks(lba, WRITES_COUNT, buffer_b), EFI_SUCCESS);
    expect_that("all was written",
                equal(buffer_a, buffer_b, WRITES_COUNT * target.media->BlockSize));
}

static void try_several(void)
{
    uint64_t lba = target.media->LastBlock / 5;
    size_t events_count = 0;

    about("four writes and a flush", "");
    if (target.media->ReadOnly) {
        skip(6);
        return;
    }
    signals_count = 0;
    agent.bs->SetMem(requests, sizeof(requests), 0);
    while (events_count < TOKENS_COUNT &&
           agent.bs->CreateEvent(EVT_NOTIFY_SIGNAL, TPL_CALLBACK, on_signal,
                                 (void *)(uintptr_t)events_count,
                                 &requests[events_count].token.Event) == EFI_SUCCESS)
        events_count++;
    fill(buffer_a, 21, lba, WRITES_COUNT);
    if (events_count == TOKENS_COUNT) {
        expect("are accepted", start(lba), EFI_SUCCESS);
        for (unsigned i = 0; i < POLLS_MAX && signals_count < TOKENS_COUNT; i++)
            agent.bs->Stall(POLL_US);
        judge_requests(lba);
    } else {
        expect_that("there are events for them", false);
    }
    for (size_t i = 0; i < events_count; i++)
        agent.bs->CloseEvent(requests[i].token.Event);
}

static void try_flush(enum way way)
{
    const EFI_BLOCK_IO_MEDIA *media = target.media;

    about("FlushBlocksEx", way_label(way));
    expect("answers", flush(way),
           media->ReadOnly && media->WriteCaching ? EFI_WRITE_PROTECTED : EFI_SUCCESS);
}

static void try_this(void)
{
    EFI_BLOCK_IO2_PROTOCOL *io = target.block_io2;
    uint32_t media_id = target.media->MediaId;
    UINTN bytes = target.media->BlockSize;

    if (!target.is_ours) {
        skip(4);
        return;
    }
    about("This NULL", "");
    expect("Reset", io->Reset(NULL, FALSE), EFI_INVALID_PARAMETER);
    expect("ReadBlocksEx", io->ReadBlocksEx(NULL, media_id, 0, NULL, bytes, buffer_a),
           EFI_INVALID_PARAMETER);
    expect("WriteBlocksEx", io->WriteBlocksEx(NULL, media_id, 0, NULL, bytes, buffer_a),
           EFI_INVALID_PARAMETER);
    expect("FlushBlocksEx", io->FlushBlocksEx(NULL, NULL), EFI_INVALID_PARAMETER);
}

void group_tokens(unsigned number)
{
    if (target.block_io2 == NULL) {
        group_absent(number, "Block I/O 2, tokens");
        return;
    }
    group_begin(number, "Block I/O 2, tokens");
    expect_that("Media is as Block I/O has it",
                equal(target.media, target.block_io2->Media, sizeof(*target.media)));
    calls_begin();
    try_flush(WAY_NO_TOKEN);
    try_flush(WAY_NO_EVENT);
    try_flush(WAY_EVENT);
    calls_end();
    calls_judge();
    try_several();
    try_this();
    group_end();
}
