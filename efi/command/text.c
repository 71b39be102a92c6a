/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* See text.h. */
#include "text.h"

#include "../utf8.h"

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

bool text_widen(CHAR16 *to, size_t max, const char *from)
{
    for (size_t i = 0; i < max; i++) {
        to[i] = utf8_next(&from);
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
        char bytes[UTF8_BYTES_MAX];
        size_t count = utf8_put(bytes, *from);

        if (count >= max - len) {
            to[0] = '\0';
            return false;
        }
        __builtin_memcpy(to + len, bytes, count);
        len += count;
    }
    to[len] = '\0';
    return true;
}
