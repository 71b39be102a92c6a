/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Formats the sentence of an error into its fixed room. What does not fit is cut; what is not plain
 * ASCII becomes '?', because the sentence goes to a firmware console and may quote the image.
 */
#include "detail.h"

#include <stdarg.h>
#include <stddef.h>

#define DIGITS_MAX 20 /* 2^64 - 1 in decimal */

struct sink {
    char *text;
    size_t used;
};

static inline __attribute__((always_inline)) void put(struct sink *sink, char c)
{
    if (sink->used + 1 >= QC_DETAIL_BYTES)
        return;
    sink->text[sink->used++] = c >= ' ' && c <= '~' ? c : '?';
}

static inline __attribute__((always_inline)) void put_string(struct sink *sink, const char *s)
{
    for (size_t i = 0; i < QC_DETAIL_BYTES && s[i] != '\0'; i++)
        put(sink, s[i]);
}

static __attribute__((noinline)) void put_number(struct sink *sink, uint64_t value, unsigned base)
{
    char digits[DIGITS_MAX];
    size_t count = 0;

    do {
        digits[count++] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value != 0); /* 20 digits of 64 bits at most */
    if (base == 16)
        put_string(sink, "0x");
    while (count > 0)
        put(sink, digits[--count]);
}

qc_status qc_fail(struct qc_detail *detail, qc_status status, const char *format, ...)
{
    struct sink sink = {detail->text, 0};
    va_list args;

    va_start(args, format);
    for (size_t i = 0; i < QC_DETAIL_BYTES && format[i] != '\0'; i++) {
        if (format[i] != '%') {
            put(&sink, format[i]);
            continue;
        }
        i++;
        if (format[i] == 's')
            put_string(&sink, va_arg(args, const char *));
        else
            put_number(&sink, va_arg(args, uint64_t), format[i] == 'x' ? 16 : 10);
    }
    va_end(args);
    sink.text[sink.used] = '\0';
    return status;
}
