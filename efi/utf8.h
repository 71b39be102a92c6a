/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * UTF-8, which names have here, from and to the UCS-2 of the firmware (UEFI 2.10, 2.3.1).
 *
 * Promises: nothing is read behind the byte that ends a text. Halves of a surrogate pair are
 * written one by one, as if each were a character.
 */
#ifndef EFI_UTF8_H
#define EFI_UTF8_H

#include <efi.h>
#include <stddef.h>

#define UTF8_BYTES_MAX 3u /* of a character in UCS-2 */

/* Writes a character; how many bytes it has. */
static inline size_t utf8_put(char out[UTF8_BYTES_MAX], CHAR16 c)
{
    size_t count = c < 0x80 ? 1 : c < 0x800 ? 2 : UTF8_BYTES_MAX;

    out[0] = (char)(count == 1 ? c : count == 2 ? 0xc0 | c >> 6 : 0xe0 | c >> 12);
    for (size_t i = 1; i < count; i++)
        out[i] = (char)(0x80 | (c >> 6 * (count - 1 - i) & 0x3f));
    return count;
}

/*
 * The next character, 0 at the end; *text is moved on. What is no UTF-8 (a character in more bytes
 * than it needs among it, so that no name is spelled in two ways), or lies outside of UCS-2,
 * becomes a question mark.
 */
static inline CHAR16 utf8_next(const char **text)
{
    const unsigned char *bytes = (const unsigned char *)*text;
    unsigned first = bytes[0], i = 1;
    unsigned more = first < 0xc0 || first >= 0xf8 ? 0 : first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
    unsigned point = first & (0x3fu >> more);

    if (first < 0x80) {
        *text += first != 0;
        return (CHAR16)first;
    }
    for (; i <= more && (bytes[i] & 0xc0) == 0x80; i++)
        point = point << 6 | (bytes[i] & 0x3f);
    *text += i;
    return more % 3 == 0 || i <= more || point < 1u << (3 + 4 * more) ? L'?' : (CHAR16)point;
}

#endif
