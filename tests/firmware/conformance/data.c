/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * What is written is what is read: 0 to 3 blocks at the start, the middle and the end of the disk,
 * in every way of calling, with the neighbours unharmed, before and after a flush and a reset; and
 * what was there is put back.
 */
#include "conformance.h"

#define PLACES_COUNT 3u /* start, middle, end */
#define COUNT_MAX    3u
/* The blocks looked at around a transfer: one on either side. */
#define AROUND_MAX (COUNT_MAX + 2u)

void fill(uint8_t *buffer, uint64_t seed, uint64_t lba, uint64_t count)
{
    uint64_t words = target.media->BlockSize / sizeof(uint64_t);

    for (uint64_t i = 0; i < count * words; i++) {
        uint64_t word = (seed << 48 ^ (lba * words + i)) * 0x9E3779B97F4A7C15u;

        for (unsigned byte = 0; byte < sizeof(word); byte++)
            buffer[i * sizeof(word) + byte] = (uint8_t)(word >> 8 * byte);
    }
}

bool is_filled(const uint8_t *buffer, uint64_t seed, uint64_t lba, uint64_t count)
{
    static uint8_t block[BLOCK_SIZE_MAX];

    for (uint64_t i = 0; i < count; i++) {
        fill(block, seed, lba + i, 1);
        if (!equal(buffer + i * target.media->BlockSize, block, target.media->BlockSize))
            return false;
    }
    return true;
}

bool is_zero(const uint8_t *buffer, uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes; i++) {
        if (buffer[i] != 0)
            return false;
    }
    return true;
}

/* The transfer, and the blocks around it as they are to be. */
struct spot {
    enum way way;
    uint64_t lba, count;
    uint64_t first, around_count;
};

static struct spot spot_at(enum way way, unsigned place, uint64_t count)
{
    uint64_t last = target.media->LastBlock;
    struct spot spot = {.way = way, .count = count};
    uint64_t end;

    if (place == 1)
        spot.lba = last / 2;
    else if (place == 2)
        spot.lba = last + 1 - (count > 0 ? count : 1);
    end = spot.lba + count < last ? spot.lba + count : last;
    spot.first = spot.lba > 0 ? spot.lba - 1 : 0;
    spot.around_count = end - spot.first + 1;
    return spot;
}

static EFI_STATUS at_spot(const struct spot *spot, enum action action, void *buffer)
{
    struct transfer call = {
        spot->way, action, target.media->MediaId, spot->lba, spot->count * target.media->BlockSize,
        buffer};

    return transfer(&call);
}

/* Whether the spot and its neighbours are as in want; read by Block I/O. */
static bool is_around(const struct spot *spot, const uint8_t *want)
{
    return read_blocks(spot->first, spot->around_count, buffer_b) == EFI_SUCCESS &&
           equal(buffer_b, want, spot->around_count * target.media->BlockSize);
}

static void try_read(const struct spot *spot, const uint8_t *around)
{
    size_t bytes = spot->count * target.media->BlockSize;
    const uint8_t *want = around + (spot->lba - spot->first) * target.media->BlockSize;

    agent.bs->SetMem(buffer_b, bytes + ALIGN_MAX, 0xA5);
    expect("reads", at_spot(spot, READ, buffer_b), EFI_SUCCESS);
    expect_that("what is there", equal(buffer_b, want, bytes));
    expect_that("and nothing behind the buffer",
                buffer_b[bytes] == 0xA5 && equal(buffer_b + bytes, buffer_b + bytes + 1, 511));
}

/* Writes the inverse of what is there and puts it back, as the certification tests do. */
static void try_write(const struct spot *spot, uint8_t *around)
{
    size_t off = (spot->lba - spot->first) * target.media->BlockSize;
    size_t bytes = spot->count * target.media->BlockSize;
    uint8_t *blocks = buffer_a;

    if (target.media->ReadOnly) {
        skip(6);
        return;
    }
    for (size_t i = 0; i < bytes; i++)
        blocks[i] = around[off + i] = (uint8_t)~around[off + i];
    expect("writes", at_spot(spot, WRITE, blocks), EFI_SUCCESS);
    expect_that("it is there, neighbours unharmed", is_around(spot, around));
    expect("flush", flush(spot->way), EFI_SUCCESS);
    expect_that("it is there after a flush", is_around(spot, around));
    for (size_t i = 0; i < bytes; i++)
        blocks[i] = around[off + i] = (uint8_t)~around[off + i];
    expect("writes it back", at_spot(spot, WRITE, blocks), EFI_SUCCESS);
    expect_that("all is as before", is_around(spot, around));
}

static void try_way(enum way way)
{
    static const char *const spots[PLACES_COUNT][COUNT_MAX + 1] = {
        {"0 blocks at the start", "1 block at the start", "2 blocks at the start",
         "3 blocks at the start"},
        {"0 blocks in the middle", "1 block in the middle", "2 blocks in the middle",
         "3 blocks in the middle"},
        {"0 blocks at the end", "1 block at the end", "2 blocks at the end", "3 blocks at the end"},
    };
    static _Alignas(ALIGN_MAX) uint8_t around[AROUND_MAX * BLOCK_SIZE_MAX];

    for (unsigned place = 0; place < PLACES_COUNT; place++) {
        for (unsigned count = 0; count <= COUNT_MAX; count++) {
            struct spot spot = spot_at(way, place, count);

            read_blocks(spot.first, spot.around_count, around);
            about(way_label(way), spots[place][count]);
            try_read(&spot, around);
            try_write(&spot, around);
        }
    }
}

/* Reset may fail, but it must not lose what was written. */
static void try_reset(BOOLEAN is_extended, bool is_io2)
{
    uint64_t lba = target.media->LastBlock / 3;
    EFI_STATUS status;

    about(is_extended ? "Reset(TRUE)" : "Reset(FALSE)", "");
    if (!target.media->ReadOnly) {
        fill(buffer_a, 5u + is_extended, lba, COUNT_MAX);
        expect("a write before it", write_blocks(lba, COUNT_MAX, buffer_a), EFI_SUCCESS);
    } else {
        skip(1);
        read_blocks(lba, COUNT_MAX, buffer_a);
    }
    status = is_io2 ? target.block_io2->Reset(target.block_io2, is_extended)
                    : target.block_io->Reset(target.block_io, is_extended);
    expect_that("success or a device error", !EFI_ERROR(status) || status == EFI_DEVICE_ERROR);
    of_kind(KIND_OWN);
    expect("success", status, EFI_SUCCESS);
    of_kind(KIND_NONE);
    expect("a read behind it", read_blocks(lba, COUNT_MAX, buffer_b), EFI_SUCCESS);
    expect_that("nothing is lost", equal(buffer_a, buffer_b, COUNT_MAX * target.media->BlockSize));
}

/* More than any bounce buffer, at an odd place, then in pieces. */
static void try_long(enum way way)
{
    uint64_t lba = target.media->LastBlock / 4 + 3;
    uint64_t count = BLOCKS_BYTES_MAX / target.media->BlockSize;
    struct transfer call = {way, WRITE, target.media->MediaId, lba, BLOCKS_BYTES_MAX, buffer_a};

    about(way_label(way), "512 KiB at once");
    if (target.media->ReadOnly) {
        skip(3);
        return;
    }
    fill(buffer_a, 9, lba, count);
    expect("writes", transfer(&call), EFI_SUCCESS);
    call.action = READ;
    call.buffer = buffer_b;
    expect("reads", transfer(&call), EFI_SUCCESS);
    expect_that("what was written", equal(buffer_a, buffer_b, BLOCKS_BYTES_MAX));
}

void group_data(unsigned number)
{
    group_begin(number, "Block I/O, data");
    try_way(WAY_PLAIN);
    try_long(WAY_PLAIN);
    try_reset(FALSE, false);
    try_reset(TRUE, false);
    group_end();
}

void group_data2(unsigned number)
{
    static const enum way ways[] = {WAY_NO_TOKEN, WAY_NO_EVENT, WAY_EVENT};

    if (target.block_io2 == NULL) {
        group_absent(number, "Block I/O 2, data");
        return;
    }
    group_begin(number, "Block I/O 2, data");
    calls_begin();
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        try_way(ways[i]);
        try_long(ways[i]);
    }
    try_reset(FALSE, true);
    try_reset(TRUE, true);
    calls_end();
    calls_judge();
    group_end();
}
