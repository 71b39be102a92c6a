/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * All sequences of operations up to a length, each cut in its last operation.
 *
 * Promises: sequences come in order of length where length_step says so, so that the first
 * violation is among the shortest; each prefix's own cuts were made when it was itself a sequence.
 */
#ifndef CRASH_SEQUENCES_H
#define CRASH_SEQUENCES_H

#include "cuts.h"

#define SEQUENCE_OPS_MAX 8u
#define ALPHABET_MAX     40u

/* Operations worth combining on a base: the plain ones, and with failures among them. */
const char *alphabet_plain(const struct base *base);
const char *alphabet_faulty(const struct base *base);

/* With changes of snapshots; NULL: none are to be tried on this base. */
const char *alphabet_bulk(const struct base *base);

/*
 * Runs all sequences of 1 to length operations of the alphabet. False where a violation was found;
 * cutter->found then tells it, and ret_ops is its sequence (room for SEQUENCE_OPS_MAX *
 * OP_CHARS_MAX characters).
 */
bool sequences_run(struct cutter *cutter, const struct base *base, uint32_t unit_bytes,
                   const char *alphabet, unsigned length, char *ret_ops);

/* Runs one sequence and cuts each of its operations, or only the last. */
bool sequence_run(struct cutter *cutter, const struct base *base, uint32_t unit_bytes,
                  const char *ops, bool is_last_only);

#endif
