/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Writes JSON as qemu-img lays it out: a field a line, four spaces a level.
 *
 * Promises: valid JSON in ASCII whatever a string holds: what is no UTF-8 becomes U+FFFD, as in
 * QEMU.
 */
#ifndef JSON_H
#define JSON_H

#include <stdbool.h>

#include "out.h"

/* Starts as zeros, but for out. */
struct json {
    struct out *out;
    unsigned depth;
    bool has_before; /* on this level: a comma is due */
};

/* Everything takes a key, NULL inside a list and at the top. */
void json_open(struct json *json, const char *key, char bracket);
void json_close(struct json *json, char bracket);
void json_string(struct json *json, const char *key, const char *text);
void json_uint(struct json *json, const char *key, uint64_t value);
void json_int(struct json *json, const char *key, uint64_t value); /* as a signed number */
void json_bool(struct json *json, const char *key, bool value);

#endif
