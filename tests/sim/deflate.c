/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See deflate.h. Repetition is a stored block of one word, and a block of fixed codes that copies
 * from 8 bytes back in lengths of 258 and of 3 to 10, whose codes need no table.
 */
#include "deflate.h"

#include <string.h>

#define LENGTH_MAX       258u
#define LENGTH_SMALL_MAX 10u
#define LENGTH_MIN       3u

struct bits {
    uint8_t *out;
    size_t count;
};

/* Numbers go out lowest bit first. */
static void put_number(struct bits *bits, unsigned value, unsigned width)
{
    for (unsigned i = 0; i < width; i++, bits->count++) {
        if (bits->count % 8 == 0)
            bits->out[bits->count / 8] = 0;
        bits->out[bits->count / 8] |= (uint8_t)((value >> i & 1) << bits->count % 8);
    }
}

/* Codes go out highest bit first. */
static void put_code(struct bits *bits, unsigned code, unsigned width)
{
    while (width > 0)
        put_number(bits, code >> --width & 1, 1);
}

static void put_copy(struct bits *bits, unsigned len)
{
    if (len == LENGTH_MAX)
        put_code(bits, 0xc5, 8); /* 285 */
    else
        put_code(bits, len - LENGTH_MIN + 1, 7); /* 257 to 264 */
    put_code(bits, 5, 5);                        /* 7 back, and one bit more */
    put_number(bits, 1, 1);
}

size_t deflate_stored(uint8_t *out, const uint8_t *bytes, size_t len, bool is_last)
{
    out[0] = is_last;
    out[1] = (uint8_t)len;
    out[2] = (uint8_t)(len >> 8);
    out[3] = (uint8_t)~out[1];
    out[4] = (uint8_t)~out[2];
    memcpy(out + DEFLATE_STORED_EXTRA, bytes, len);
    return DEFLATE_STORED_EXTRA + len;
}

size_t deflate_repeat(uint8_t *out, uint64_t word, size_t len, bool is_last)
{
    uint8_t bytes[sizeof(word)];
    struct bits bits = {.out = out};

    memcpy(bytes, &word, sizeof(word));
    bits.count = 8 * deflate_stored(out, bytes, sizeof(bytes), false);
    put_number(&bits, is_last, 1);
    put_number(&bits, 1, 2); /* fixed codes */
    for (size_t left = len - sizeof(word), part; left > 0; left -= part) {
        part = left >= LENGTH_MAX + LENGTH_MIN || left == LENGTH_MAX ? LENGTH_MAX : left;
        if (part != LENGTH_MAX && part > LENGTH_SMALL_MAX)
            part = part - LENGTH_SMALL_MAX >= LENGTH_MIN ? LENGTH_SMALL_MAX : LENGTH_MIN;
        put_copy(&bits, (unsigned)part);
    }
    put_code(&bits, 0, 7); /* the block's end */
    if (is_last)
        return (bits.count + 7) / 8;
    /* An empty stored block leaves what follows at whole bytes. */
    put_number(&bits, 0, 3);
    bits.count = (bits.count + 7) / 8 * 8;
    put_number(&bits, 0xffff0000, 32);
    return bits.count / 8;
}
