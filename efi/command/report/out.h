/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Where a report goes, and how it writes numbers: as C's printf does in qemu-img.
 *
 * Promises: integers all the way; rounding is that of a double where QEMU uses one.
 */
#ifndef OUT_H
#define OUT_H

#include <stddef.h>
#include <stdint.h>

struct out {
    /* Takes len bytes, which need not end a character or a line. */
    void (*put)(struct out *out, const char *utf8, size_t len);
};

#define OUT_NUMBER_BYTES 32u /* every number below, with its end */

size_t out_length(const char *text);
void out_text(struct out *out, const char *text);
void out_uint(struct out *out, uint64_t value);

/* As many spaces. */
void out_spaces(struct out *out, size_t count);

/* The text with spaces in front, or behind, up to width bytes; longer ones as they are. */
void out_right(struct out *out, const char *text, size_t width);
void out_left(struct out *out, const char *text, size_t width);

/* At least so many digits, 1 to 20. */
void number_uint(char text[OUT_NUMBER_BYTES], uint64_t value, unsigned digits_min);

/* As a signed number of 64 bits. */
void number_int(char text[OUT_NUMBER_BYTES], uint64_t value);

/* Hexadecimal, with 0x but for 0. */
void number_hex(char text[OUT_NUMBER_BYTES], uint64_t value);

/* Bytes in the largest unit that leaves less than 1000, with three digits: "1.5 MiB". */
void number_size(char text[OUT_NUMBER_BYTES], uint64_t bytes);

/* part of whole in percent with two decimals: "2.34". part is below 2^47, whole not 0. */
void number_percent(char text[OUT_NUMBER_BYTES], uint64_t part, uint64_t whole);

#endif
