/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Compressed clusters of a state, read without the engine and without its decoders.
 *
 * Promises: any bytes have an answer; what comes out is whole or told to be bad. Only what the
 * bases hold is understood: raw deflate (RFC 1951) in stored blocks and in fixed codes.
 */
#ifndef CRASH_UNPACK_H
#define CRASH_UNPACK_H

#include <stddef.h>

#include "view.h"

/* Decodes exactly out_bytes; false where the stream is bad, short or long. */
bool unpack(const uint8_t *bytes, size_t bytes_count, uint8_t *out, size_t out_bytes);

/*
 * The hash of one sector of the compressed cluster that the entry names, which decides every unit
 * that its bytes lie in; 0 where they are bad.
 */
uint64_t unpack_hash(struct view *view, uint64_t entry, unsigned cluster_bits, unsigned sector);

#endif
