/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * One line on the console about one medium, once or each time.
 *
 * A line is `qcow2: <device path>: <sentence>`. The firmware connects its devices many times over;
 * what was said about a medium is remembered by a digest, and not said again.
 *
 * Promises: no line is cut except by SAY_BYTES; at most SAY_REMEMBERED lines are remembered, then
 * the oldest is forgotten. Called at TPL_CALLBACK or below, one call at a time.
 */
#ifndef EFI_SAY_H
#define EFI_SAY_H

#include <efi.h>
#include <stddef.h>
#include <stdint.h>

#define SAY_BYTES      224u
#define SAY_REMEMBERED 64u

/* A sentence that is being put together; start with {0}. Plain ASCII, always terminated. */
struct say_text {
    char bytes[SAY_BYTES];
    size_t len;
};

void say_add(struct say_text *text, const char *words);
void say_add_number(struct say_text *text, uint64_t value);
/* A size in the largest binary unit that is not larger, tenths (cut, not rounded) if asked for. */
void say_add_size(struct say_text *text, uint64_t bytes, unsigned tenths);

#define SAY_DIGEST_START UINT64_C(0xcbf29ce484222325)
/* Continues a digest (FNV-1a, 64 bits). */
uint64_t say_digest(uint64_t digest, const void *bytes, size_t bytes_count);

void say_line(const EFI_DEVICE_PATH *path, const struct say_text *text);
/* Says it, unless a line with the same digest is remembered. */
void say_once(uint64_t digest, const EFI_DEVICE_PATH *path, const struct say_text *text);

#endif
