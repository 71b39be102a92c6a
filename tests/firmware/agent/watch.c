/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Looks over the driver's shoulder: boot services are hooked in their table, so that everything
 * allocated or created between "watch begin" and "watch end" and not given back is known, and who
 * asked for it; the console's OutputString is hooked, so that a test can read what was printed.
 *
 * Left to others: the firmware's core allocates without its own table and is not seen.
 */
#include "agent.h"

#define HELD_MAX          2048u
#define CONSOLE_CHARS_MAX 16384u

enum held_kind { HELD_NOTHING, HELD_POOL, HELD_PAGES, HELD_EVENT };

static struct {
    uint64_t address;
    enum held_kind kind;
    bool ours; /* the driver itself asked for it */
} held[HELD_MAX];

static uint64_t held_lost; /* did not fit; a test with any is void */
static size_t handles_before;
static EFI_BOOT_SERVICES real;

static char console[CONSOLE_CHARS_MAX];
static size_t console_count;
static EFI_TEXT_OUTPUT_STRING real_output;

static void hold(enum held_kind kind, uint64_t address, const void *caller)
{
    uint64_t from = (uint64_t)(uintptr_t)caller - agent.driver_base;
    for (size_t i = 0; i < HELD_MAX; i++) {
        if (held[i].kind == HELD_NOTHING) {
            held[i].kind = kind;
            held[i].address = address;
            held[i].ours = from < agent.driver_bytes;
            return;
        }
    }
    held_lost++;
}

static void drop(enum held_kind kind, uint64_t address)
{
    for (size_t i = 0; i < HELD_MAX; i++) {
        if (held[i].kind == kind && held[i].address == address) {
            held[i].kind = HELD_NOTHING;
            return;
        }
    }
}

static EFI_STATUS EFIAPI hook_pool(EFI_MEMORY_TYPE type, UINTN size, VOID **ret_buffer)
{
    EFI_STATUS status = real.AllocatePool(type, size, ret_buffer);
    if (status == EFI_SUCCESS)
        hold(HELD_POOL, (uint64_t)(uintptr_t)*ret_buffer, __builtin_return_address(0));
    return status;
}

static EFI_STATUS EFIAPI hook_free_pool(VOID *buffer)
{
    drop(HELD_POOL, (uint64_t)(uintptr_t)buffer);
    return real.FreePool(buffer);
}

static EFI_STATUS EFIAPI hook_pages(EFI_ALLOCATE_TYPE how, EFI_MEMORY_TYPE type, UINTN count,
                                    EFI_PHYSICAL_ADDRESS *ret_address)
{
    EFI_STATUS status = real.AllocatePages(how, type, count, ret_address);
    if (status == EFI_SUCCESS)
        hold(HELD_PAGES, *ret_address, __builtin_return_address(0));
    return status;
}

static EFI_STATUS EFIAPI hook_free_pages(EFI_PHYSICAL_ADDRESS address, UINTN count)
{
    drop(HELD_PAGES, address);
    return real.FreePages(address, count);
}

static EFI_STATUS EFIAPI hook_event(UINT32 type, EFI_TPL tpl, EFI_EVENT_NOTIFY notify,
                                    VOID *context, EFI_EVENT *ret_event)
{
    EFI_STATUS status = real.CreateEvent(type, tpl, notify, context, ret_event);
    if (status == EFI_SUCCESS)
        hold(HELD_EVENT, (uint64_t)(uintptr_t)*ret_event, __builtin_return_address(0));
    return status;
}

static EFI_STATUS EFIAPI hook_event_ex(UINT32 type, EFI_TPL tpl, EFI_EVENT_NOTIFY notify,
                                       const VOID *context, const EFI_GUID *group,
                                       EFI_EVENT *ret_event)
{
    EFI_STATUS status = real.CreateEventEx(type, tpl, notify, context, group, ret_event);
    if (status == EFI_SUCCESS)
        hold(HELD_EVENT, (uint64_t)(uintptr_t)*ret_event, __builtin_return_address(0));
    return status;
}

static EFI_STATUS EFIAPI hook_close_event(EFI_EVENT event)
{
    drop(HELD_EVENT, (uint64_t)(uintptr_t)event);
    return real.CloseEvent(event);
}

static void begin(void)
{
    EFI_HANDLE *list;
    handles_before = find_handles(NULL, &list);
    real = *agent.bs;
    agent.bs->AllocatePool = hook_pool;
    agent.bs->FreePool = hook_free_pool;
    agent.bs->AllocatePages = hook_pages;
    agent.bs->FreePages = hook_free_pages;
    agent.bs->CreateEvent = hook_event;
    agent.bs->CreateEventEx = hook_event_ex;
    agent.bs->CloseEvent = hook_close_event;
}

static void end(void)
{
    EFI_HANDLE *list;
    uint64_t ours[HELD_EVENT + 1] = {0};
    uint64_t others = 0;
    agent.bs->AllocatePool = real.AllocatePool;
    agent.bs->FreePool = real.FreePool;
    agent.bs->AllocatePages = real.AllocatePages;
    agent.bs->FreePages = real.FreePages;
    agent.bs->CreateEvent = real.CreateEvent;
    agent.bs->CreateEventEx = real.CreateEventEx;
    agent.bs->CloseEvent = real.CloseEvent;
    for (size_t i = 0; i < HELD_MAX; i++) {
        if (held[i].kind != HELD_NOTHING && held[i].ours)
            ours[held[i].kind]++;
        else if (held[i].kind != HELD_NOTHING)
            others++;
        held[i].kind = HELD_NOTHING;
    }
    say("watch:");
    say_number("pool", ours[HELD_POOL]);
    say_number("pages", ours[HELD_PAGES]);
    say_number("events", ours[HELD_EVENT]);
    say_number("others", others);
    say_number("lost", held_lost);
    say_number("handlesbefore", handles_before);
    say_number("handlesafter", find_handles(NULL, &list));
    say_end();
}

void order_watch(char **words)
{
    if (words[1][0] == 'b')
        begin();
    else
        end();
}

EFI_TPL current_tpl(void)
{
    EFI_TPL tpl = agent.bs->RaiseTPL(TPL_HIGH_LEVEL);
    agent.bs->RestoreTPL(tpl);
    return tpl;
}

void order_tpl(char **words)
{
    (void)words;
    say("tpl:");
    say_number("tpl", current_tpl());
    say_end();
}

static EFI_STATUS EFIAPI hook_output(SIMPLE_TEXT_OUTPUT_INTERFACE *self, CHAR16 *text)
{
    for (size_t i = 0; text[i] != 0 && console_count < CONSOLE_CHARS_MAX; i++)
        if (text[i] != '\r')
            console[console_count++] = text[i] < 0x7F ? (char)text[i] : '?';
    return real_output(self, text);
}

void watch_console(void)
{
    real_output = agent.st->ConOut->OutputString;
    agent.st->ConOut->OutputString = hook_output;
}

/* What was printed since the last such order, each line behind "console| ". */
void order_console(char **words)
{
    (void)words;
    bool fresh = true;
    for (size_t i = 0; i < console_count; i++) {
        if (fresh)
            say("console| ");
        port_put(console[i]);
        fresh = console[i] == '\n';
    }
    if (!fresh)
        say_end();
    console_count = 0;
}
