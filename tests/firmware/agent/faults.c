/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Orders that make the world around the driver do something: the disk below fails, an event group
 * is signalled, somebody writes at the last moment.
 */
#include "agent.h"

#include "../../../efi/proto/event_groups.h"

#define SECTOR_BYTES 512u

static EFI_BLOCK_WRITE real_write;
static EFI_BLOCK_FLUSH real_flush;
static EFI_BLOCK_READ real_read;

/* What the failing functions answer. */
static EFI_STATUS fault;

static EFI_STATUS EFIAPI failing_transfer(EFI_BLOCK_IO_PROTOCOL *self, UINT32 media_id, EFI_LBA lba,
                                          UINTN len, VOID *buf)
{
    (void)self;
    (void)media_id;
    (void)lba;
    (void)len;
    (void)buf;
    return fault;
}

/* The first block can be read, and nothing else. */
static EFI_STATUS EFIAPI first_block_read(EFI_BLOCK_IO_PROTOCOL *self, UINT32 media_id, EFI_LBA lba,
                                          UINTN len, VOID *buf)
{
    return lba == 0 && len == self->Media->BlockSize ? real_read(self, media_id, lba, len, buf)
                                                     : EFI_NO_MEDIA;
}

static EFI_STATUS EFIAPI failing_flush(EFI_BLOCK_IO_PROTOCOL *self)
{
    (void)self;
    return fault;
}

/*
 * fault read|write|flush: what the disk below refuses; all: everything, as when it is unplugged;
 * changed, empty: everything, because its medium went; late: the same, told after the first block.
 * none: nothing any more.
 */
void order_fault(char **words)
{
    EFI_BLOCK_IO_PROTOCOL *blocks = find_protocol(agent.parent, &guid_block_io);
    char kind = words[1][0];
    bool is_all = kind == 'a' || kind == 'c' || kind == 'e';
    say("fault:");
    if (blocks == NULL) {
        say(" none");
    } else {
        if (real_write == NULL) {
            real_read = blocks->ReadBlocks;
            real_write = blocks->WriteBlocks;
            real_flush = blocks->FlushBlocks;
        }
        fault = kind == 'c' ? EFI_MEDIA_CHANGED : kind == 'e' ? EFI_NO_MEDIA : EFI_DEVICE_ERROR;
        blocks->ReadBlocks = is_all || kind == 'r' ? failing_transfer
                             : kind == 'l'         ? first_block_read
                                                   : real_read;
        blocks->WriteBlocks = is_all || kind == 'w' ? failing_transfer : real_write;
        blocks->FlushBlocks = is_all || kind == 'f' ? failing_flush : real_flush;
    }
    say_end();
}

/* below gone|back|changed: what the disk below says of its medium from now on. */
void order_below(char **words)
{
    EFI_BLOCK_IO_PROTOCOL *blocks = find_protocol(agent.parent, &guid_block_io);
    say("below:");
    if (blocks == NULL) {
        say(" none");
    } else {
        blocks->Media->MediaPresent = words[1][0] != 'g';
        blocks->Media->MediaId += words[1][0] == 'c';
    }
    say_end();
}

static void EFIAPI on_signal(EFI_EVENT event, void *context)
{
    (void)event;
    (void)context;
}

/* signal ready, signal before: as the boot manager and ExitBootServices signal these groups. */
void order_signal(char **words)
{
    static EFI_GUID ready = EFI_EVENT_GROUP_READY_TO_BOOT_GUID;
    static EFI_GUID before = EFI_EVENT_GROUP_BEFORE_EXIT_BOOT_SERVICES_GUID;
    EFI_EVENT event;
    EFI_STATUS status = agent.bs->CreateEventEx(EVT_NOTIFY_SIGNAL, TPL_CALLBACK, on_signal, NULL,
                                                words[1][0] == 'r' ? &ready : &before, &event);
    if (status == EFI_SUCCESS) {
        status = agent.bs->SignalEvent(event);
        agent.bs->CloseEvent(event);
    }
    say_answer("signal:", status);
}

static EFI_CLOSE_PROTOCOL real_close;
static uint64_t late_seed;

/* Once: whoever lets a protocol go first is the driver, in the middle of taking its child away. */
static EFI_STATUS EFIAPI writing_close(EFI_HANDLE handle, EFI_GUID *protocol, EFI_HANDLE owner,
                                       EFI_HANDLE controller)
{
    EFI_BLOCK_IO_PROTOCOL *blocks = find_child(NULL);
    agent.bs->CloseProtocol = real_close;
    pattern(agent_buffer, late_seed, 0, 1);
    say("latewrite:");
    say_status("status", blocks->WriteBlocks(blocks, blocks->Media->MediaId, 0, 512, agent_buffer));
    say_end();
    return real_close(handle, protocol, owner, controller);
}

/* latewrite SEED: sector 0 is written while the child is being taken away. */
void order_latewrite(char **words)
{
    late_seed = number(words[1]);
    real_close = agent.bs->CloseProtocol;
    agent.bs->CloseProtocol = writing_close;
}

static EFI_BLOCK_IO_PROTOCOL *other_image;
static EFI_HANDLE stopped;
static uint64_t reads_left;
static EFI_STATUS back_status;

/* Once, behind the read itself: another image is read, or the driver told to let the disk go. */
static EFI_STATUS EFIAPI calling_back_read(EFI_BLOCK_IO_PROTOCOL *self, UINT32 media_id,
                                           EFI_LBA lba, UINTN len, VOID *buf)
{
    static _Alignas(4096) uint8_t sector[SECTOR_BYTES];
    EFI_STATUS status = real_read(self, media_id, lba, len, buf);
    if (--reads_left > 0)
        return status;
    self->ReadBlocks = real_read;
    back_status = stopped != NULL
                      ? agent.bs->DisconnectController(stopped, agent.driver, NULL)
                      : other_image->ReadBlocks(other_image, other_image->Media->MediaId, 0,
                                                SECTOR_BYTES, sector);
    return status;
}

static void call_back(uint64_t reads_count)
{
    EFI_BLOCK_IO_PROTOCOL *blocks = find_protocol(agent.parent, &guid_block_io);
    back_status = EFI_NOT_STARTED;
    reads_left = reads_count;
    if (blocks != NULL && reads_count > 0 && (stopped != NULL || other_image != NULL)) {
        real_read = blocks->ReadBlocks;
        blocks->ReadBlocks = calling_back_read;
    }
}

/* reenter SLOT PART: the next read of the disk below calls the image of another one meanwhile. */
void order_reenter(char **words)
{
    EFI_HANDLE chosen = agent.parent;
    agent.parent = find_disk(number(words[1]), number(words[2]));
    other_image = find_child(NULL);
    agent.parent = chosen;
    stopped = NULL;
    call_back(1);
}

/* interrupt COUNT: so many reads of the disk below from now on, the driver has to let it go. */
void order_interrupt(char **words)
{
    stopped = agent.parent;
    call_back(number(words[1]));
}

/* answered: what the call in the middle of the read was answered. */
void order_answered(char **words)
{
    (void)words;
    say_answer("answered:", back_status);
}
