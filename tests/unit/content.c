/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* See content.h. */
#include "content.h"

uint8_t expected[CONTENT_BYTES_MAX];
static size_t content_bytes;
static uint8_t *room; /* the last request's, so that one that fails leaks nothing */

static uint8_t *take_room(size_t bytes)
{
    free(room);
    room = malloc(bytes);
    assert_non_null(room);
    return room;
}

void content_begin(size_t bytes)
{
    assert_in_range(bytes, 1, CONTENT_BYTES_MAX);
    content_bytes = bytes;
    memset(expected, 0, sizeof(expected));
}

void fill(uint8_t *bytes, size_t len, unsigned salt)
{
    for (size_t i = 0; i < len; i++)
        bytes[i] = (uint8_t)(i * 31 + (i >> 8) * 7 + salt);
}

void write_ok(struct rig *rig, uint64_t guest_off, size_t len, unsigned salt)
{
    uint8_t *bytes = take_room(len);

    fill(bytes, len, salt);
    assert_true(guest_off <= content_bytes && len <= content_bytes - guest_off);
    memcpy(expected + guest_off, bytes, len);
    assert_int_equal(qc_write(&rig->image, guest_off, bytes, len), QC_OK);
}

void expect_content(struct rig *rig)
{
    uint8_t *bytes = take_room(content_bytes);

    memset(bytes, 0xa5, content_bytes);
    assert_int_equal(qc_read(&rig->image, 0, bytes, content_bytes), QC_OK);
    assert_memory_equal(bytes, expected, content_bytes);
}

void expect_durable(struct rig *rig)
{
    expect_content(rig);
    assert_int_equal(qc_settle(&rig->image), QC_OK);
    expect_content(rig);
    rig_open_ok(rig);
    expect_content(rig);
}
