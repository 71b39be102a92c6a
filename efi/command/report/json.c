/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* See json.h. The escaping is RFC 8259's, section 7. */
#include "json.h"

#define SPACES_PER_LEVEL 4u
#define TAIL_BYTES_MAX   5u /* of one character, in the longest form that QEMU passes over */
#define REPLACEMENT      UINT32_C(0xfffd)
#define CODE_POINT_MAX   UINT32_C(0x10ffff)
#define SURROGATE_FIRST  UINT32_C(0xd800)
#define SURROGATE_LOW    UINT32_C(0xdc00)
#define SURROGATE_LAST   UINT32_C(0xdfff)
#define PLANE            UINT32_C(0x10000)

static void start_item(struct json *json, const char *key)
{
    if (json->has_before)
        out_text(json->out, ",");
    if (json->depth > 0)
        out_text(json->out, "\n");
    out_spaces(json->out, json->depth * SPACES_PER_LEVEL);
    json->has_before = true;
    if (key != NULL) {
        out_text(json->out, "\"");
        out_text(json->out, key);
        out_text(json->out, "\": ");
    }
}

void json_open(struct json *json, const char *key, char bracket)
{
    start_item(json, key);
    json->out->put(json->out, &bracket, 1);
    json->depth++;
    json->has_before = false;
}

void json_close(struct json *json, char bracket)
{
    json->depth--;
    json->has_before = true;
    out_text(json->out, "\n");
    out_spaces(json->out, json->depth * SPACES_PER_LEVEL);
    json->out->put(json->out, &bracket, 1);
    if (json->depth == 0)
        out_text(json->out, "\n");
}

/* How a character may be written at all: neither half of a pair nor one that is none. */
static bool is_character(uint32_t code)
{
    return code <= CODE_POINT_MAX && (code < SURROGATE_FIRST || code > SURROGATE_LAST) &&
           (code < 0xfdd0 || code > 0xfdef) && (code & 0xfffe) != 0xfffe;
}

/* The character at text and how many bytes it takes; REPLACEMENT for bytes that are none. */
static uint32_t next_character(const char *text, unsigned *ret_count)
{
    static const uint32_t lowest[TAIL_BYTES_MAX] = {0x80, 0x800, 0x10000, 0x200000, 0x4000000};
    uint32_t byte = (uint8_t)text[0], code;
    unsigned tail = 0;

    *ret_count = 1;
    if (byte < 0x80)
        return byte;
    if (byte >= 0xfe || (byte & 0x40) == 0)
        return REPLACEMENT;
    while (byte & (0x40u >> tail))
        tail++;
    code = byte & ((0x40u >> tail) - 1);
    for (unsigned i = 1; i <= tail; i++) {
        uint32_t more = (uint8_t)text[i];

        if ((more & 0xc0) != 0x80)
            return REPLACEMENT;
        code = code << 6 | (more & 0x3f);
        *ret_count = i + 1;
    }
    /* Longer than need be; but for 0, which text that ends with one has no other way to say. */
    if (code < lowest[tail - 1] && (code != 0 || tail != 1))
        return REPLACEMENT;
    return is_character(code) ? code : REPLACEMENT;
}

static void put_escape(struct out *out, uint32_t unit)
{
    static const char digits[] = "0123456789abcdef";
    const char escape[] = {'\\',
                           'u',
                           digits[unit >> 12 & 15],
                           digits[unit >> 8 & 15],
                           digits[unit >> 4 & 15],
                           digits[unit & 15]};

    out->put(out, escape, sizeof(escape));
}

static void put_character(struct out *out, uint32_t code)
{
    const char escape[] = {'\\', (char)code};

    if (code == '"' || code == '\\') {
        out->put(out, escape, sizeof(escape));
    } else if (code >= PLANE) {
        put_escape(out, SURROGATE_FIRST + ((code - PLANE) >> 10));
        put_escape(out, SURROGATE_LOW + ((code - PLANE) & 0x3ff));
    } else if (code < ' ' || code > '~') {
        put_escape(out, code);
    } else {
        out->put(out, &escape[1], 1);
    }
}

void json_string(struct json *json, const char *key, const char *text)
{
    unsigned count;

    start_item(json, key);
    out_text(json->out, "\"");
    for (; *text != '\0'; text += count)
        put_character(json->out, next_character(text, &count));
    out_text(json->out, "\"");
}

void json_uint(struct json *json, const char *key, uint64_t value)
{
    start_item(json, key);
    out_uint(json->out, value);
}

void json_int(struct json *json, const char *key, uint64_t value)
{
    char text[OUT_NUMBER_BYTES];

    start_item(json, key);
    number_int(text, value);
    out_text(json->out, text);
}

void json_bool(struct json *json, const char *key, bool value)
{
    start_item(json, key);
    out_text(json->out, value ? "true" : "false");
}
