/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* See out.h. */
#include "out.h"

#include <stdbool.h>

#define DIGITS_MAX    20u
#define HEX_DIGITS    16u
#define DOUBLE_BITS   53u
#define SIZE_DIGITS   3u
#define UNIT_BITS     10u
#define UNITS_MAX     6u
#define UNIT_FROM     1000u
#define ZEROS_MIN     7u   /* at the end of a double that has UNITS_MAX units */
#define HALVES        200u /* of a hundredth, in one */
#define HALVES_BINARY 25u  /* as many, and every multiple, are a binary fraction */
#define HUNDREDTHS    100u

size_t out_length(const char *text)
{
    size_t length = 0;

    while (text[length] != '\0')
        length++;
    return length;
}

void out_text(struct out *out, const char *text)
{
    out->put(out, text, out_length(text));
}

void out_uint(struct out *out, uint64_t value)
{
    char text[OUT_NUMBER_BYTES];

    number_uint(text, value, 1);
    out_text(out, text);
}

void out_spaces(struct out *out, size_t count)
{
    static const char spaces[] = "                ";

    while (count > 0) {
        size_t part = count < sizeof(spaces) - 1 ? count : sizeof(spaces) - 1;

        out->put(out, spaces, part);
        count -= part;
    }
}

void out_right(struct out *out, const char *text, size_t width)
{
    size_t length = out_length(text);

    out_spaces(out, length < width ? width - length : 0);
    out->put(out, text, length);
}

void out_left(struct out *out, const char *text, size_t width)
{
    size_t length = out_length(text);

    out->put(out, text, length);
    out_spaces(out, length < width ? width - length : 0);
}

void number_uint(char text[OUT_NUMBER_BYTES], uint64_t value, unsigned digits_min)
{
    char digits[DIGITS_MAX];
    unsigned count = 0;

    do {
        digits[count++] = (char)('0' + value % 10);
        value /= 10;
    } while (count < DIGITS_MAX && (value != 0 || count < digits_min));
    for (unsigned i = 0; i < count; i++)
        text[i] = digits[count - 1 - i];
    text[count] = '\0';
}

void number_int(char text[OUT_NUMBER_BYTES], uint64_t value)
{
    bool is_negative = value >> 63 != 0;

    text[0] = '-';
    number_uint(text + is_negative, is_negative ? 0 - value : value, 1);
}

void number_hex(char text[OUT_NUMBER_BYTES], uint64_t value)
{
    unsigned count = 0;

    if (value == 0) {
        text[count++] = '0';
    } else {
        unsigned digits = HEX_DIGITS - (unsigned)__builtin_clzll(value) / 4;

        text[count++] = '0';
        text[count++] = 'x';
        while (digits > 0)
            text[count++] = "0123456789abcdef"[value >> 4 * --digits & 15];
    }
    text[count] = '\0';
}

/* The nearest number that a double can be; of two, the even one. */
static uint64_t to_double(uint64_t value)
{
    unsigned bits = value == 0 ? 0 : 64 - (unsigned)__builtin_clzll(value);
    uint64_t unit, rest;

    if (bits <= DOUBLE_BITS)
        return value;
    unit = UINT64_C(1) << (bits - DOUBLE_BITS);
    rest = value & (unit - 1);
    value -= rest;
    if (rest > unit / 2 || (rest == unit / 2 && (value & unit) != 0))
        value = value > UINT64_MAX - unit ? UINT64_MAX - (unit - 1) : value + unit;
    return value;
}

/* count / 10^decimals, without zeros at its end. */
static char *put_decimal(char *text, uint64_t count, unsigned decimals)
{
    uint64_t power = 1;

    while (decimals > 0 && count % 10 == 0) {
        count /= 10;
        decimals--;
    }
    for (unsigned i = 0; i < decimals; i++)
        power *= 10;
    number_uint(text, count / power, 1);
    text += out_length(text);
    if (decimals > 0) {
        *text++ = '.';
        number_uint(text, count % power, decimals);
        text += decimals;
    }
    return text;
}

void number_size(char text[OUT_NUMBER_BYTES], uint64_t bytes)
{
    static const char prefixes[UNITS_MAX][3] = {"Ki", "Mi", "Gi", "Ti", "Pi", "Ei"};
    uint64_t value = to_double(bytes), whole, rest, scaled, power = 1, half;
    unsigned units = 0, bits, decimals = 0;

    while (units < UNITS_MAX && value >> UNIT_BITS * units >= UNIT_FROM)
        units++;
    bits = UNIT_BITS * units;
    if (units == UNITS_MAX) { /* room to multiply */
        value >>= ZEROS_MIN;
        bits -= ZEROS_MIN;
    }
    whole = value >> bits;
    rest = value & ((UINT64_C(1) << bits) - 1);
    for (uint64_t above = whole; units > 0 && decimals < SIZE_DIGITS; decimals++, power *= 10) {
        if (above >= 100)
            break;
        above = above == 0 ? 1 : above * 10;
    }
    rest *= power;
    scaled = whole * power + (rest >> bits);
    half = bits > 0 ? UINT64_C(1) << (bits - 1) : 0;
    rest &= (UINT64_C(1) << bits) - 1;
    if (units > 0 && (rest > half || (rest == half && (scaled & 1) != 0)))
        scaled++;
    if (decimals == 0 && scaled == UNIT_FROM) { /* three digits do not hold it */
        text = put_decimal(text, 1, 0);
        for (const char *exponent = "e+03"; *exponent != '\0'; exponent++)
            *text++ = *exponent;
    } else {
        text = put_decimal(text, scaled, decimals);
    }
    *text++ = ' ';
    if (units > 0) {
        *text++ = prefixes[units - 1][0];
        *text++ = prefixes[units - 1][1];
    }
    *text++ = 'B';
    *text = '\0';
}

/* Whether the double nearest to halves / HALVES, which is none itself, lies above it. */
static bool is_double_above(uint64_t halves)
{
    uint64_t quotient = halves / HALVES, rest = halves % HALVES;

    while (quotient >> (DOUBLE_BITS - 1) == 0) {
        rest *= 2;
        quotient = quotient * 2 + (rest >= HALVES);
        rest %= HALVES;
    }
    return rest * 2 > HALVES;
}

void number_percent(char text[OUT_NUMBER_BYTES], uint64_t part, uint64_t whole)
{
    uint64_t scaled = part * HUNDREDTHS * HUNDREDTHS;
    uint64_t count = scaled / whole, rest = scaled % whole;
    bool is_up = rest > whole - rest;

    if (rest != 0 && rest == whole - rest) {
        uint64_t halves = 2 * count + 1;

        is_up = halves % HALVES_BINARY == 0 ? (count & 1) != 0 : is_double_above(halves);
    }
    count += is_up;
    number_uint(text, count / HUNDREDTHS, 1);
    text += out_length(text);
    *text++ = '.';
    number_uint(text, count % HUNDREDTHS, 2);
}
