/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* See console.h. Pages are the shell's own doing: its console counts lines and asks. */
#include "console.h"

#include "../utf8.h"
#include "firmware.h"

#define BUFFER_CHARS     128u
#define PROGRESS_COLUMNS 60u
#define PROGRESS_100NS   (5u * 1000 * 1000)

static CHAR16 buffer[BUFFER_CHARS + 1];
static size_t buffered;
static char unfinished[4]; /* the first bytes of a character, terminated */
static size_t unfinished_len;
static bool is_interrupted, has_pages_on, is_progress_shown;
static EFI_EVENT progress_timer; /* NULL: no progress is shown */

static void send(void)
{
    buffer[buffered] = 0;
    if (buffered > 0 && efi_system->ConOut != NULL)
        efi_system->ConOut->OutputString(efi_system->ConOut, buffer);
    buffered = 0;
}

static void put_char(CHAR16 c)
{
    if (buffered + 2 > BUFFER_CHARS)
        send();
    if (c == L'\n')
        buffer[buffered++] = L'\r';
    else if (c < L' ' || (c >= 0x7f && c < 0xa0))
        c = L'?';
    buffer[buffered++] = c;
}

/* How many bytes a character has that begins with this one. */
static size_t char_bytes(unsigned char first)
{
    return first < 0xc0 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
}

static void put_byte(char byte)
{
    const char *text = unfinished;

    if (unfinished_len == 0 && (unsigned char)byte < 0x80) {
        put_char((CHAR16)byte);
        return;
    }
    if (unfinished_len == sizeof(unfinished) - 1) { /* beyond UCS-2 */
        put_char(L'?');
        unfinished_len = 0;
        return;
    }
    unfinished[unfinished_len++] = byte;
    unfinished[unfinished_len] = '\0';
    if (unfinished_len < char_bytes((unsigned char)unfinished[0]) && (byte & 0x80) != 0)
        return;
    while (*text != '\0')
        put_char(utf8_next(&text));
    unfinished_len = 0;
}

static void console_put(struct out *out, const char *utf8, size_t len)
{
    (void)out;
    console_progress_end();
    for (size_t i = 0; i < len; i++)
        put_byte(utf8[i]);
    send();
}

struct out console = {console_put};

void say(const char *a, const char *b, const char *c)
{
    out_text(&console, "qcow2: ");
    out_text(&console, a);
    out_text(&console, b);
    out_text(&console, c);
    out_text(&console, "\n");
}

int fail(const char *a, const char *b, const char *c)
{
    say(a, b, c);
    return EXIT_FAILED;
}

int fail_interrupted(void)
{
    say("interrupted", "", "");
    return EXIT_ABORTED;
}

/* Whether it is a screen: what the shell puts in its place for a file has no colours. */
static bool is_screen(void)
{
    SIMPLE_TEXT_OUTPUT_INTERFACE *screen = efi_system->ConOut;

    return screen != NULL &&
           !EFI_ERROR(screen->SetAttribute(screen, (UINTN)screen->Mode->Attribute));
}

void console_begin(bool has_pages, bool has_progress)
{
    has_pages_on = has_pages && efi_shell != NULL;
    if (has_pages_on)
        efi_shell->EnablePageBreak();
    if (!has_progress || !is_screen() ||
        EFI_ERROR(efi_boot->CreateEvent(EVT_TIMER, TPL_CALLBACK, NULL, NULL, &progress_timer)))
        return;
    efi_boot->SetTimer(progress_timer, TimerPeriodic, PROGRESS_100NS);
}

void console_end(void)
{
    console_progress_end();
    if (has_pages_on)
        efi_shell->DisablePageBreak();
    if (progress_timer != NULL)
        efi_boot->CloseEvent(progress_timer);
    progress_timer = NULL;
}

bool console_is_interrupted(void)
{
    /* A look takes the signal away. */
    if (!is_interrupted && efi_shell != NULL && efi_shell->ExecutionBreak != NULL)
        is_interrupted = efi_boot->CheckEvent(efi_shell->ExecutionBreak) == EFI_SUCCESS;
    return is_interrupted;
}

bool console_progress(void *context, uint64_t done, uint64_t total)
{
    if (context != NULL && total > 0 && progress_timer != NULL &&
        efi_boot->CheckEvent(progress_timer) == EFI_SUCCESS) {
        uint64_t unit = total / 100 + (total % 100 != 0);

        is_progress_shown = false; /* it is written over */
        buffer[buffered++] = L'\r';
        out_text(&console, "qcow2: ");
        out_text(&console, context);
        out_text(&console, ": ");
        out_uint(&console, done / unit);
        out_text(&console, "% ");
        is_progress_shown = true;
    }
    return !console_is_interrupted();
}

void console_progress_end(void)
{
    if (!is_progress_shown)
        return;
    is_progress_shown = false;
    buffer[buffered++] = L'\r';
    out_spaces(&console, PROGRESS_COLUMNS);
    buffer[buffered++] = L'\r';
    send();
}
