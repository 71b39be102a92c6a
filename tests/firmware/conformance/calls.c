/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * One request in each of the ways that a caller has, and what became of its event.
 *
 * A request with an event ends when its event was signalled, once, with TransactionStatus set by
 * then (UEFI 2.10, 13.10.2); a call that fails at once signals nothing. What went wrong with events
 * is counted here, whoever asks for the transfer; tokens.c judges the counts.
 */
#include "conformance.h"

#define POLL_US    1000u
#define POLLS_MAX  10000u
#define SETTLE_US  2000u
#define CALL_EMPTY EFI_NOT_READY /* what TransactionStatus holds before it is set */

/* What was seen of events that were signalled, since calls_begin(). */
static struct {
    uint32_t due;       /* calls that promised a signal */
    uint32_t seen;      /* signals */
    uint32_t unset;     /* TransactionStatus was not set by then */
    uint32_t on_errors; /* came though the call itself had failed */
    uint32_t polls;     /* of all waits together: who never signals does not take all day */
} signals;

/* The tokens of both protocols: event and status. */
_Static_assert(sizeof(EFI_BLOCK_IO2_TOKEN) == sizeof(EFI_ERASE_BLOCK_TOKEN), "one shape");
static EFI_BLOCK_IO2_TOKEN token;
static EFI_ERASE_BLOCK_TOKEN erase_token;
static EFI_EVENT event;
static EFI_STATUS *awaited; /* the status that the signal is about */

static void EFIAPI on_signal(EFI_EVENT which, void *context)
{
    (void)which;
    (void)context;
    signals.seen++;
    signals.unset += *awaited == CALL_EMPTY;
}

void calls_begin(void)
{
    agent.bs->SetMem(&signals, sizeof(signals), 0);
    awaited = &token.TransactionStatus;
    agent.bs->CreateEvent(EVT_NOTIFY_SIGNAL, TPL_CALLBACK, on_signal, NULL, &event);
}

void calls_end(void)
{
    /* A second signal of the last request is counted too. */
    agent.bs->Stall(SETTLE_US);
    agent.bs->CloseEvent(event);
}

void calls_judge(void)
{
    about("events", "");
    expect_that("some were due", signals.due > 0);
    expect_number("each is signalled once", signals.seen, signals.due);
    expect_number("signalled before TransactionStatus is set", signals.unset, 0);
    expect_number("signalled though the call failed", signals.on_errors, 0);
}

const char *way_label(enum way way)
{
    static const char *const labels[] = {[WAY_PLAIN] = "Block I/O",
                                         [WAY_NO_TOKEN] = "without a token",
                                         [WAY_NO_EVENT] = "without an event",
                                         [WAY_EVENT] = "with an event"};

    return labels[way];
}

const char *way_name(enum way way, enum action action)
{
    static const char *const names[][2] = {
        [WAY_PLAIN] = {"ReadBlocks", "WriteBlocks"},
        [WAY_NO_TOKEN] = {"ReadBlocksEx without a token", "WriteBlocksEx without a token"},
        [WAY_NO_EVENT] = {"ReadBlocksEx without an event", "WriteBlocksEx without an event"},
        [WAY_EVENT] = {"ReadBlocksEx with an event", "WriteBlocksEx with an event"},
    };

    return names[way][action];
}

/* What a call with an event ended with. seen_before: signals when it was made. */
static EFI_STATUS await(EFI_STATUS status, const EFI_STATUS *ended, uint32_t seen_before)
{
    if (EFI_ERROR(status)) {
        signals.on_errors += signals.seen != seen_before;
        signals.seen = seen_before;
        return status;
    }
    signals.due++;
    for (; signals.polls < POLLS_MAX && signals.seen == seen_before; signals.polls++)
        agent.bs->Stall(POLL_US);
    return signals.seen == seen_before ? EFI_TIMEOUT : *ended;
}

static EFI_STATUS call_ex(const struct transfer *call, EFI_BLOCK_IO2_TOKEN *its_token)
{
    EFI_BLOCK_IO2_PROTOCOL *io = target.block_io2;

    if (call->action == READ)
        return io->ReadBlocksEx(io, call->media_id, call->lba, its_token, call->bytes,
                                call->buffer);
    return io->WriteBlocksEx(io, call->media_id, call->lba, its_token, call->bytes, call->buffer);
}

static EFI_BLOCK_IO2_TOKEN *new_token(enum way way)
{
    token.Event = way == WAY_EVENT ? event : NULL;
    token.TransactionStatus = CALL_EMPTY;
    awaited = &token.TransactionStatus;
    return way == WAY_NO_TOKEN ? NULL : &token;
}

EFI_STATUS transfer(const struct transfer *call)
{
    EFI_BLOCK_IO_PROTOCOL *io = target.block_io;
    uint32_t seen_before = signals.seen;
    EFI_STATUS status;

    if (call->way != WAY_PLAIN) {
        status = call_ex(call, new_token(call->way));
        return call->way == WAY_EVENT ? await(status, &token.TransactionStatus, seen_before)
                                      : status;
    }
    if (call->action == READ)
        return io->ReadBlocks(io, call->media_id, call->lba, call->bytes, call->buffer);
    return io->WriteBlocks(io, call->media_id, call->lba, call->bytes, call->buffer);
}

EFI_STATUS flush(enum way way)
{
    uint32_t seen_before = signals.seen;
    EFI_STATUS status;

    if (way == WAY_PLAIN)
        return target.block_io->FlushBlocks(target.block_io);
    status = target.block_io2->FlushBlocksEx(target.block_io2, new_token(way));
    return way == WAY_EVENT ? await(status, &token.TransactionStatus, seen_before) : status;
}

EFI_STATUS erase(enum way way, uint32_t media_id, uint64_t lba, uint64_t bytes)
{
    EFI_ERASE_BLOCK_PROTOCOL *io = target.erase_block;
    uint32_t seen_before = signals.seen;
    EFI_STATUS status;

    erase_token.Event = way == WAY_EVENT ? event : NULL;
    erase_token.TransactionStatus = CALL_EMPTY;
    awaited = &erase_token.TransactionStatus;
    status = io->EraseBlocks(io, media_id, lba, way == WAY_NO_TOKEN ? NULL : &erase_token, bytes);
    return way == WAY_EVENT ? await(status, &erase_token.TransactionStatus, seen_before) : status;
}

EFI_STATUS read_blocks(uint64_t lba, uint64_t count, void *buffer)
{
    EFI_BLOCK_IO_PROTOCOL *io = target.block_io;

    return io->ReadBlocks(io, target.media->MediaId, lba, count * target.media->BlockSize, buffer);
}

EFI_STATUS write_blocks(uint64_t lba, uint64_t count, void *buffer)
{
    EFI_BLOCK_IO_PROTOCOL *io = target.block_io;

    return io->WriteBlocks(io, target.media->MediaId, lba, count * target.media->BlockSize, buffer);
}
