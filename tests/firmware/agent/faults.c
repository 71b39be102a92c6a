/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Orders that make the world around the driver do something: the disk below fails, an event group
 * is signalled, somebody writes at the last moment.
 */
#include "agent.h"

#include "../../../efi/proto/event_groups.h"

static EFI_BLOCK_WRITE real_write;
static EFI_BLOCK_FLUSH real_flush;

static EFI_STATUS EFIAPI failing_write(EFI_BLOCK_IO_PROTOCOL *self, UINT32 media_id, EFI_LBA lba,
                                       UINTN len, VOID *buf)
{
    (void)self;
    (void)media_id;
    (void)lba;
    (void)len;
    (void)buf;
    return EFI_DEVICE_ERROR;
}

static EFI_STATUS EFIAPI failing_flush(EFI_BLOCK_IO_PROTOCOL *self)
{
    (void)self;
    return EFI_DEVICE_ERROR;
}

/* fault write, fault flush, fault none: what the disk below refuses from now on. */
void order_fault(char **words)
{
    EFI_BLOCK_IO_PROTOCOL *blocks = find_protocol(agent.parent, &guid_block_io);
    say("fault:");
    if (blocks == NULL) {
        say(" none");
    } else {
        if (real_write == NULL) {
            real_write = blocks->WriteBlocks;
            real_flush = blocks->FlushBlocks;
        }
        blocks->WriteBlocks = words[1][0] == 'w' ? failing_write : real_write;
        blocks->FlushBlocks = words[1][0] == 'f' ? failing_flush : real_flush;
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
    say("signal:");
    say_status("status", status);
    say_end();
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
