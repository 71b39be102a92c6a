/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Compressed bytes made by hand: as much of raw deflate (RFC 1951) as tests need to build
 * compressed clusters of a known place and length without a library.
 *
 * Promises: every decoder takes the streams, and a stream ends exactly where its length says.
 */
#ifndef SIM_DEFLATE_H
#define SIM_DEFLATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DEFLATE_STORED_MAX   65535u /* bytes of one stored block */
#define DEFLATE_STORED_EXTRA 5u     /* what a stored block adds */
#define DEFLATE_REPEAT_MAX   96u    /* what deflate_repeat needs for up to 1 KiB */

/* One stored block of len bytes, at most DEFLATE_STORED_MAX. Returns the length of what it put. */
size_t deflate_stored(uint8_t *out, const uint8_t *bytes, size_t len, bool is_last);

/* The bytes of word as they lie in memory, again and again: len of them, a multiple of 8, at least
 * 16. Returns the length of what it put. */
size_t deflate_repeat(uint8_t *out, uint64_t word, size_t len, bool is_last);

#endif
