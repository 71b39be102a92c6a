/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Console lines: the text, the memory of what was said, and the firmware's name for a device.
 *
 * Left to others: what a line's digest is made of (attach.c).
 */
#include "say.h"

#include <stdbool.h>

#include "driver.h"

void say_add(struct say_text *text, const char *words)
{
    for (; *words != '\0' && text->len < SAY_BYTES - 1; words++)
        text->bytes[text->len++] = *words;
    text->bytes[text->len] = '\0';
}

void say_add_number(struct say_text *text, uint64_t value)
{
    char digits[21]; /* UINT64_MAX has 20 */
    size_t first = sizeof(digits) - 1;

    digits[first] = '\0';
    do {
        digits[--first] = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    say_add(text, &digits[first]);
}

void say_add_size(struct say_text *text, uint64_t bytes, unsigned tenths)
{
    static const char *const units[] = {" B", " KiB", " MiB", " GiB", " TiB", " PiB"};
    unsigned unit = 0;

    while (unit + 1 < sizeof(units) / sizeof(units[0]) && bytes >> (10 * (unit + 1)) != 0)
        unit++;
    say_add_number(text, bytes >> (10 * unit));
    if (tenths != 0 && unit != 0) {
        say_add(text, ".");
        say_add_number(text, ((bytes >> (10 * (unit - 1))) & 1023) * 10 / 1024);
    }
    say_add(text, units[unit]);
}

uint64_t say_digest(uint64_t digest, const void *bytes, size_t bytes_count)
{
    const uint8_t *byte = bytes;

    for (size_t i = 0; i < bytes_count; i++)
        digest = (digest ^ byte[i]) * UINT64_C(0x100000001b3);
    return digest;
}

/* Whether the digest is new; then it is remembered. */
static bool is_new(uint64_t digest)
{
    static uint64_t said[SAY_REMEMBERED];
    static unsigned said_count; /* of all time; the ring's next place is its remainder */
    unsigned remembered = said_count < SAY_REMEMBERED ? said_count : SAY_REMEMBERED;

    for (unsigned i = 0; i < remembered; i++) {
        if (said[i] == digest)
            return false;
    }
    said[said_count % SAY_REMEMBERED] = digest;
    said_count++;
    return true;
}

static void print(CHAR16 *text)
{
    if (efi_system->ConOut != NULL)
        efi_system->ConOut->OutputString(efi_system->ConOut, text);
}

static void print_path(const EFI_DEVICE_PATH *path)
{
    static EFI_GUID to_text_guid = EFI_DEVICE_PATH_TO_TEXT_PROTOCOL_GUID;
    EFI_DEVICE_PATH_TO_TEXT_PROTOCOL *to_text;
    CHAR16 *text;

    if (EFI_ERROR(efi_boot->LocateProtocol(&to_text_guid, NULL, (void **)&to_text)))
        return;
    text = to_text->ConvertDevicePathToText(path, TRUE, TRUE);
    if (text == NULL)
        return;
    print(text);
    print(L": ");
    efi_boot->FreePool(text);
}

void say_line(const EFI_DEVICE_PATH *path, const struct say_text *text)
{
    static CHAR16 wide[SAY_BYTES];

    for (size_t i = 0; i <= text->len; i++)
        wide[i] = (CHAR16)text->bytes[i];
    print(L"qcow2: ");
    print_path(path);
    print(wide);
    print(L"\r\n");
}

void say_once(uint64_t digest, const EFI_DEVICE_PATH *path, const struct say_text *text)
{
    if (is_new(digest))
        say_line(path, text);
}
