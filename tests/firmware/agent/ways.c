/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The ways to the image's blocks: Block I/O, and Block I/O 2 without a token, with an idle one, and
 * with one whose event is signalled. The order "way" chooses; all orders on the child follow it.
 *
 * Promises: with an event, a success is passed on only if it was signalled exactly once, with
 * TransactionStatus set by then; an error only if nothing was signalled. Otherwise the answer is
 * EFI_ABORTED, which no disk gives.
 */
#include "agent.h"

static enum { WAY_PLAIN, WAY_NO_TOKEN, WAY_NO_EVENT, WAY_EVENT } way;

static EFI_GUID guid_block_io2 = EFI_BLOCK_IO2_PROTOCOL_GUID;

struct signals {
    EFI_BLOCK_IO2_TOKEN token;
    uint64_t count;
    EFI_STATUS status; /* TransactionStatus as the last signal found it */
};

/* way plain|without|idle|event */
void order_way(char **words)
{
    way = words[1][0] == 'w'   ? WAY_NO_TOKEN
          : words[1][0] == 'i' ? WAY_NO_EVENT
          : words[1][0] == 'e' ? WAY_EVENT
                               : WAY_PLAIN;
    say("way:\n");
}

/* NULL where the plain way is meant: by choice, or because these are not the child's blocks. */
static EFI_BLOCK_IO2_PROTOCOL *blocks2_of(const EFI_BLOCK_IO_PROTOCOL *blocks)
{
    EFI_HANDLE child = NULL;
    const EFI_BLOCK_IO_PROTOCOL *childs = find_child(&child);

    return way == WAY_PLAIN || (blocks != NULL && blocks != childs)
               ? NULL
               : find_protocol(child, &guid_block_io2);
}

static void EFIAPI on_signal(EFI_EVENT event, void *context)
{
    struct signals *signals = context;
    (void)event;
    signals->count++;
    signals->status = signals->token.TransactionStatus;
}

/* The token for a call, NULL for none. The level is one that interrupts every legal caller. */
static EFI_BLOCK_IO2_TOKEN *begin(struct signals *signals)
{
    *signals = (struct signals){{NULL, EFI_NOT_READY}, 0, EFI_NOT_READY};
    if (way == WAY_NO_TOKEN)
        return NULL;
    if (way == WAY_EVENT)
        agent.bs->CreateEvent(EVT_NOTIFY_SIGNAL, TPL_NOTIFY, on_signal, signals,
                              &signals->token.Event);
    return &signals->token;
}

static EFI_STATUS end(struct signals *signals, EFI_STATUS status)
{
    if (signals->token.Event == NULL)
        return status;
    agent.bs->CloseEvent(signals->token.Event);
    if (status == EFI_SUCCESS)
        return signals->count == 1 && signals->status == EFI_SUCCESS ? status : EFI_ABORTED;
    return signals->count == 0 ? status : EFI_ABORTED;
}

EFI_STATUS way_read(EFI_BLOCK_IO_PROTOCOL *blocks, uint32_t id, uint64_t lba, size_t len, void *buf)
{
    EFI_BLOCK_IO2_PROTOCOL *blocks2 = blocks2_of(blocks);
    struct signals signals;
    if (blocks2 == NULL)
        return (blocks != NULL ? blocks : find_child(NULL))->ReadBlocks(blocks, id, lba, len, buf);
    EFI_BLOCK_IO2_TOKEN *token = begin(&signals);
    return end(&signals,
               blocks2->ReadBlocksEx(blocks != NULL ? blocks2 : NULL, id, lba, token, len, buf));
}

EFI_STATUS way_write(EFI_BLOCK_IO_PROTOCOL *blocks, uint32_t id, uint64_t lba, size_t len,
                     void *buf)
{
    EFI_BLOCK_IO2_PROTOCOL *blocks2 = blocks2_of(blocks);
    struct signals signals;
    if (blocks2 == NULL)
        return (blocks != NULL ? blocks : find_child(NULL))->WriteBlocks(blocks, id, lba, len, buf);
    EFI_BLOCK_IO2_TOKEN *token = begin(&signals);
    return end(&signals,
               blocks2->WriteBlocksEx(blocks != NULL ? blocks2 : NULL, id, lba, token, len, buf));
}

EFI_STATUS way_flush(EFI_BLOCK_IO_PROTOCOL *blocks)
{
    EFI_BLOCK_IO2_PROTOCOL *blocks2 = blocks2_of(blocks);
    struct signals signals;
    if (blocks2 == NULL)
        return (blocks != NULL ? blocks : find_child(NULL))->FlushBlocks(blocks);
    EFI_BLOCK_IO2_TOKEN *token = begin(&signals);
    return end(&signals, blocks2->FlushBlocksEx(blocks != NULL ? blocks2 : NULL, token));
}

EFI_STATUS way_reset(EFI_BLOCK_IO_PROTOCOL *blocks, bool extended)
{
    EFI_BLOCK_IO2_PROTOCOL *blocks2 = blocks2_of(blocks);
    if (blocks2 == NULL)
        return (blocks != NULL ? blocks : find_child(NULL))->Reset(blocks, extended);
    return blocks2->Reset(blocks != NULL ? blocks2 : NULL, extended);
}

static struct {
    EFI_BLOCK_IO2_PROTOCOL *blocks;
    EFI_BLOCK_IO2_TOKEN token;
    uint64_t next, end;
    EFI_STATUS status;
} chain;

/* As a client does that keeps one request on its way: the end of each begins the next. */
static void EFIAPI on_link(EFI_EVENT event, void *context)
{
    (void)event;
    (void)context;
    if (chain.next == chain.end || chain.status != EFI_SUCCESS)
        return;
    uint64_t at = chain.next++;
    chain.status = chain.blocks->ReadBlocksEx(chain.blocks, chain.blocks->Media->MediaId, at,
                                              &chain.token, 512, agent_buffer + at * 512);
}

/* chain COUNT: the first sectors, each read from the notification of the one before it. */
void order_chain(char **words)
{
    EFI_HANDLE child = NULL;
    find_child(&child);
    chain.blocks = find_protocol(child, &guid_block_io2);
    chain.next = 0;
    chain.end = number(words[1]);
    chain.status = EFI_SUCCESS;
    say("chain:");
    if (chain.blocks == NULL || chain.end > AGENT_BUFFER_BYTES / 512) {
        say(" none");
    } else {
        agent.bs->CreateEvent(EVT_NOTIFY_SIGNAL, TPL_CALLBACK, on_link, NULL, &chain.token.Event);
        on_link(NULL, NULL);
        agent.bs->CloseEvent(chain.token.Event);
        say_status("status", chain.status);
        say_number("done", chain.next);
        say_hex("crc", crc32_more(0, agent_buffer, chain.end * 512));
    }
    say_end();
}

/* layers: which protocols the image, and what stands on it, has. */
void order_layers(char **words)
{
    static EFI_GUID guid_disk_io2 = EFI_DISK_IO2_PROTOCOL_GUID;
    EFI_HANDLE child = NULL, volume = find_volume();
    EFI_BLOCK_IO_PROTOCOL *blocks = find_child(&child);
    EFI_BLOCK_IO2_PROTOCOL *blocks2 = find_protocol(child, &guid_block_io2);
    (void)words;
    say("layers:");
    say_number("blockio2", blocks2 != NULL);
    say_number("media", blocks2 != NULL && blocks2->Media == blocks->Media);
    say_number("diskio2", find_protocol(child, &guid_disk_io2) != NULL);
    say_number("volume2", find_protocol(volume, &guid_block_io2) != NULL);
    say_number("volumedisk2", find_protocol(volume, &guid_disk_io2) != NULL);
    say_end();
}

/*
 * disk2 OFF BYTES SEED: written to the child by Disk I/O 2 at a byte offset, with an event each;
 * then flushed, and read back.
 */
void order_disk2(char **words)
{
    static EFI_GUID guid_disk_io2 = EFI_DISK_IO2_PROTOCOL_GUID;
    uint64_t off = number(words[1]), len = number(words[2]);
    uint8_t *back = agent_buffer + AGENT_BUFFER_BYTES / 2;
    EFI_HANDLE child = NULL;
    EFI_BLOCK_IO_PROTOCOL *blocks = find_child(&child);
    EFI_DISK_IO2_PROTOCOL *disk = find_protocol(child, &guid_disk_io2);
    EFI_DISK_IO2_TOKEN token = {NULL, EFI_NOT_READY};
    UINTN index;
    say("disk2:");
    if (disk == NULL || len > AGENT_BUFFER_BYTES / 2) {
        say(" none");
    } else {
        uint32_t id = blocks->Media->MediaId;
        pattern(agent_buffer, number(words[3]), 0, len / 512 + 1);
        agent.bs->SetMem(back, len, 0);
        agent.bs->CreateEvent(0, 0, NULL, NULL, &token.Event);
        EFI_STATUS status = disk->WriteDiskEx(disk, id, off, &token, len, agent_buffer);
        say_status("write", status);
        if (status == EFI_SUCCESS)
            agent.bs->WaitForEvent(1, &token.Event, &index);
        say_status("written", token.TransactionStatus);
        status = disk->FlushDiskEx(disk, &token);
        say_status("flush", status);
        if (status == EFI_SUCCESS)
            agent.bs->WaitForEvent(1, &token.Event, &index);
        say_status("flushed", token.TransactionStatus);
        status = disk->ReadDiskEx(disk, id, off, &token, len, back);
        say_status("read", status);
        if (status == EFI_SUCCESS)
            agent.bs->WaitForEvent(1, &token.Event, &index);
        say_number("equal", equal(agent_buffer, back, len));
        agent.bs->CloseEvent(token.Event);
    }
    say_end();
}
