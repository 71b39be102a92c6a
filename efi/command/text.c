/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* See text.h. */
#include "text.h"

static char small(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static size_t length(const char *text)
{
    size_t len = 0;

    while (text[len] != '\0')
        len++;
    return len;
}

bool text_copy(char *to, size_t max, const char *from)
{
    to[0] = '\0';
    return text_add(to, max, from);
}

bool text_add(char *to, size_t max, const char *more)
{
    size_t len = length(to), more_len = length(more);

    if (more_len >= max - len) {
        to[0] = '\0';
        return false;
    }
    __builtin_memcpy(to + len, more, more_len + 1);
    return true;
}

bool text_same(const char *a, const char *b)
{
    size_t i = 0;

    while (a[i] != '\0' && a[i] == b[i])
        i++;
    return a[i] == b[i];
}

bool text_same_name(const char *a, const char *b)
{
    return text_same_part(a, length(a), b);
}

bool text_same_part(const char *a, size_t len, const char *b)
{
    size_t i = 0;

    while (i < len && b[i] != '\0' && small(a[i]) == small(b[i]))
        i++;
    return i == len && b[i] == '\0';
}

size_t text_find(const char *text, char c)
{
    size_t i = 0;

    while (text[i] != '\0' && text[i] != c)
        i++;
    return i;
}

CHAR16 text_next(const char **text)
{
    const unsigned char *bytes = (const unsigned char *)*text;
    unsigned first = bytes[0];
    unsigned more = first < 0xc0 ? 0 : first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
    unsigned point = more == 0 ? first : first & (0x3fu >> more);

    if (first == 0)
        return 0;
    if (first >= 0x80 && (more == 0 || first >= 0xf8)) {
        *text += 1;
        return L'?';
    }
    for (unsigned i = 1; i <= more; i++) {
        if ((bytes[i] & 0xc0) != 0x80) {
            *text += i;
            return L'?';
        }
        point = point << 6 | (bytes[i] & 0x3f);
    }
    *text += more + 1;
    return more == 3 || point == 0 ? L'?' : (CHAR16)point;
}

bool text_widen(CHAR16 *to, size_t max, const char *from)
{
    for (size_t i = 0; i < max; i++) {
        to[i] = text_next(&from);
        if (to[i] == 0)
            return true;
    }
    to[0] = 0;
    return false;
}

bool text_narrow(char *to, size_t max, const CHAR16 *from)
{
    size_t len = 0;

    for (; *from != 0; from++) {
        unsigned c = *from;
        size_t bytes = c < 0x80 ? 1 : c < 0x800 ? 2 : 3;

        if (bytes >= max - len) {
            to[0] = '\0';
            return false;
        }
        if (bytes == 1)
            to[len] = (char)c;
        else
            to[len] = (char)(bytes == 2 ? 0xc0 | c >> 6 : 0xe0 | c >> 12);
        for (size_t i = 1; i < bytes; i++)
            to[len + i] = (char)(0x80 | (c >> 6 * (bytes - 1 - i) & 0x3f));
        len += bytes;
    }
    to[len] = '\0';
    return true;
}
