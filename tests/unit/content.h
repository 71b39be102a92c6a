/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * What the guest of a small image is to see, kept beside the image as it is written.
 *
 * Promises: what is read and written lies in memory of exactly that length. Left to others: the
 * images, and what erasing makes of expected.
 */
#ifndef UNIT_CONTENT_H
#define UNIT_CONTENT_H

#include "support.h"

#define CONTENT_BYTES_MAX (768u * 1024)

extern uint8_t expected[CONTENT_BYTES_MAX];

/* From here on so many bytes are looked at, from the guest's first; zeros are expected. */
void content_begin(size_t bytes);

/* Bytes that are different from their neighbours, and with each salt. */
void fill(uint8_t *bytes, size_t len, unsigned salt);

/* Writes such bytes, which goes well, and expects them. */
void write_ok(struct rig *rig, uint64_t guest_off, size_t len, unsigned salt);

void expect_content(struct rig *rig);

/* The guest sees the same now, after a flush, and when the disk is opened anew. */
void expect_durable(struct rig *rig);

#endif
