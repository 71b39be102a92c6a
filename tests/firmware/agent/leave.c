/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Orders about time and about leaving: pauses with and without WaitForEvent, reads of the disk
 * below while timers fire, the end of boot services, the end of the machine.
 */
#include "agent.h"

#include "../../../efi/proto/erase_block.h"

#define US_PER_MS     1000u
#define UNITS_PER_MS  10000u
#define MAP_BYTES     (64u * 1024)
#define MAP_TRIES     4u
#define EXIT_GOOD     0x10u
#define READS_MIN     10u
#define HAMMER_BLOCKS 8u

/* A pause in which nothing runs but timers: the way of callers that poll. */
void order_stall(char **words)
{
    for (uint64_t i = 0; i < number(words[1]); i++)
        agent.bs->Stall(US_PER_MS);
    say("stall:\n");
}

/* A pause in WaitForEvent: the way of menus. */
void order_wait(char **words)
{
    EFI_EVENT timer;
    UINTN index;
    EFI_STATUS status = agent.bs->CreateEvent(EVT_TIMER, 0, NULL, NULL, &timer);
    if (status == EFI_SUCCESS) {
        agent.bs->SetTimer(timer, TimerRelative, number(words[1]) * UNITS_PER_MS);
        status = agent.bs->WaitForEvent(1, &timer, &index);
        agent.bs->CloseEvent(timer);
    }
    say_answer("wait:", status);
}

static void EFIAPI on_deadline(EFI_EVENT event, void *context)
{
    (void)event;
    *(volatile bool *)context = true;
}

/*
 * hammer MS SLOT: reads the whole disk on SLOT directly, at TPL_APPLICATION and without a pause:
 * most timers then fire while the disk's driver waits for its device.
 */
void order_hammer(char **words)
{
    EFI_HANDLE disk = find_disk(number(words[2]), 0);
    EFI_BLOCK_IO_PROTOCOL *blocks = find_protocol(disk, &guid_block_io);
    volatile bool is_over = false;
    uint64_t reads_count = 0;
    EFI_STATUS status = EFI_NOT_FOUND;
    EFI_EVENT timer;
    if (blocks != NULL) {
        agent.bs->CreateEvent(EVT_TIMER | EVT_NOTIFY_SIGNAL, TPL_CALLBACK, on_deadline,
                              (void *)&is_over, &timer);
        agent.bs->SetTimer(timer, TimerRelative, number(words[1]) * UNITS_PER_MS);
        status = EFI_SUCCESS;
        while (!is_over && status == EFI_SUCCESS) {
            status =
                blocks->ReadBlocks(blocks, blocks->Media->MediaId, 0,
                                   (UINTN)HAMMER_BLOCKS * blocks->Media->BlockSize, agent_buffer);
            reads_count++;
        }
        agent.bs->CloseEvent(timer);
    }
    say("hammer:");
    say_status("status", status);
    say_number("some", reads_count >= READS_MIN);
    say_end();
}

static EFI_STATUS exit_boot_services(void)
{
    static uint8_t map[MAP_BYTES];
    EFI_STATUS status = EFI_NOT_READY;
    for (unsigned i = 0; i < MAP_TRIES && status != EFI_SUCCESS; i++) {
        UINTN map_bytes = sizeof(map), key, entry_bytes;
        UINT32 version;
        status = agent.bs->GetMemoryMap(&map_bytes, (EFI_MEMORY_DESCRIPTOR *)(void *)map, &key,
                                        &entry_bytes, &version);
        if (status == EFI_SUCCESS)
            status = agent.bs->ExitBootServices(agent.image, key);
    }
    return status;
}

/*
 * Ends boot services, calls the image's protocols once more each, shows what is still told of it,
 * and ends the machine.
 */
void order_exit(char **words)
{
    static EFI_GUID guid_erase_block = EFI_ERASE_BLOCK_PROTOCOL_GUID;
    static EFI_GUID guid_block_io2 = EFI_BLOCK_IO2_PROTOCOL_GUID;
    EFI_HANDLE child = NULL;
    EFI_BLOCK_IO_PROTOCOL *blocks = find_child(&child);
    EFI_ERASE_BLOCK_PROTOCOL *eraser = find_protocol(child, &guid_erase_block);
    EFI_BLOCK_IO2_PROTOCOL *blocks2 = find_protocol(child, &guid_block_io2);
    (void)words;
    if (blocks == NULL || eraser == NULL || blocks2 == NULL) {
        say("exit: none\n");
        return;
    }
    uint32_t id = blocks->Media->MediaId;
    EFI_STATUS status = exit_boot_services();
    say("exit:");
    say_status("status", status);
    say_status("read", blocks->ReadBlocks(blocks, id, 0, 512, agent_buffer));
    say_status("write", blocks->WriteBlocks(blocks, id, 0, 512, agent_buffer));
    say_status("flush", blocks->FlushBlocks(blocks));
    say_status("reset", blocks->Reset(blocks, FALSE));
    say_status("erase", eraser->EraseBlocks(eraser, id, 0, NULL, 512));
    say("\nexit2:");
    say_status("read", blocks2->ReadBlocksEx(blocks2, id, 0, NULL, 512, agent_buffer));
    say_status("write", blocks2->WriteBlocksEx(blocks2, id, 0, NULL, 512, agent_buffer));
    say_status("flush", blocks2->FlushBlocksEx(blocks2, NULL));
    say_end();
    say_variable(0);
    say("END\n");
    port_exit(EXIT_GOOD);
}

/* Ends the machine by ResetSystem, the way a user's "reset" goes. */
void order_shutdown(char **words)
{
    (void)words;
    say("shutdown:\nEND\n");
    agent.st->RuntimeServices->ResetSystem(EfiResetShutdown, EFI_SUCCESS, 0, NULL);
}
