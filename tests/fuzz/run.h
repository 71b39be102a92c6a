/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * One recipe, run: the image is made, opened, used as the items say and looked at, while oracles
 * watch.
 *
 * Promises: a broken one of these ends the process with a line.
 *   a  No write lands on a cluster that was in use at the open and that nothing refers to, nor
 *      does the guest's data land on a table, nor any write in the header but on known fields.
 *   b  A refused image, one that is read-only and a reading call get no write.
 *   c  Opening makes at most 64 reads.
 *   d  No operation makes more than FUZZ_CALLS_MAX calls below.
 *   e  What was acknowledged reads back, as long as the tables were consistent.
 *   f  What was consistent at the open is so at the end, and nothing was leaked without a failure.
 *   g  The engine's check and owners.c agree on what is consistent; a repair that says that nothing
 *      is left leaves nothing.
 */
#ifndef FUZZ_RUN_H
#define FUZZ_RUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Nothing but reading, whatever the recipe says. Whether the image was opened. */
bool run_reads(const uint8_t *input, size_t len);

bool run_all(const uint8_t *input, size_t len);

#endif
