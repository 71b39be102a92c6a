/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Texts: UTF-8 in the command, UCS-2 at its borders with the firmware.
 *
 * Promises: nothing is written past max, and every text ends; what does not fit is false, and the
 * text is empty then. Characters outside of UCS-2 become question marks.
 */
#ifndef COMMAND_TEXT_H
#define COMMAND_TEXT_H

#include <efi.h>
#include <stdbool.h>
#include <stddef.h>

#define TEXT_BYTES_MAX 512u /* of a name or a path, its end included */

/* max counts bytes, the end included. */
bool text_copy(char *to, size_t max, const char *from);
bool text_add(char *to, size_t max, const char *more);
bool text_same(const char *a, const char *b);
/* As file systems compare: ASCII letters are the same in either case. */
bool text_same_name(const char *a, const char *b);
/* The same, of the first len bytes of a and all of b. */
bool text_same_part(const char *a, size_t len, const char *b);
/* The first place of c, or of the end where there is none. */
size_t text_find(const char *text, char c);

/* max counts characters, the end included. */
bool text_widen(CHAR16 *to, size_t max, const char *from);
bool text_narrow(char *to, size_t max, const CHAR16 *from);

#endif
