/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Report lines: plain text, " key=value" pairs, and the names of the status codes that Block I/O
 * and the driver model use. Everything goes to the debug console port, where this firmware is mute.
 */
#include "agent.h"

#define DIGITS_MAX    20u
#define WIDE_TEXT_MAX 1024u

static const struct {
    EFI_STATUS status;
    const char *name;
} names[] = {
    {EFI_SUCCESS, "SUCCESS"},
    {EFI_LOAD_ERROR, "LOAD_ERROR"},
    {EFI_INVALID_PARAMETER, "INVALID_PARAMETER"},
    {EFI_UNSUPPORTED, "UNSUPPORTED"},
    {EFI_BAD_BUFFER_SIZE, "BAD_BUFFER_SIZE"},
    {EFI_BUFFER_TOO_SMALL, "BUFFER_TOO_SMALL"},
    {EFI_NOT_READY, "NOT_READY"},
    {EFI_DEVICE_ERROR, "DEVICE_ERROR"},
    {EFI_WRITE_PROTECTED, "WRITE_PROTECTED"},
    {EFI_OUT_OF_RESOURCES, "OUT_OF_RESOURCES"},
    {EFI_VOLUME_CORRUPTED, "VOLUME_CORRUPTED"},
    {EFI_NO_MEDIA, "NO_MEDIA"},
    {EFI_MEDIA_CHANGED, "MEDIA_CHANGED"},
    {EFI_NOT_FOUND, "NOT_FOUND"},
    {EFI_ACCESS_DENIED, "ACCESS_DENIED"},
    {EFI_ALREADY_STARTED, "ALREADY_STARTED"},
};

void say(const char *text)
{
    for (size_t i = 0; text[i] != '\0'; i++)
        port_put(text[i]);
}

static void say_key(const char *key)
{
    say(" ");
    say(key);
    say("=");
}

static void say_digits(uint64_t value, unsigned base)
{
    char digits[DIGITS_MAX + 1];
    size_t at = DIGITS_MAX;
    digits[at] = '\0';
    do {
        digits[--at] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value != 0 && at > 0);
    say(&digits[at]);
}

void say_number(const char *key, uint64_t value)
{
    say_key(key);
    say_digits(value, 10);
}

void say_hex(const char *key, uint64_t value)
{
    say_key(key);
    say_digits(value, 16);
}

void say_status(const char *key, EFI_STATUS status)
{
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (names[i].status == status) {
            say_key(key);
            say(names[i].name);
            return;
        }
    }
    say_hex(key, status);
}

void say_wide(const char *key, const CHAR16 *text)
{
    say_key(key);
    for (size_t i = 0; text != NULL && i < WIDE_TEXT_MAX && text[i] != 0; i++)
        port_put(text[i] >= ' ' && text[i] < 0x7F ? (char)text[i] : '?');
}

void say_end(void)
{
    say("\n");
}

void say_answer(const char *order, EFI_STATUS status)
{
    say(order);
    say_status("status", status);
    say_end();
}
