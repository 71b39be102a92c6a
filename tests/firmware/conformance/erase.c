/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * EFI_ERASE_BLOCK_PROTOCOL (UEFI 2.10, 13.12): the order of errors, and ranges that read as zeros
 * afterwards with their neighbours as they were, whatever their length and place.
 */
#include "conformance.h"

#define SEED 33u

static void try_errors(enum way way)
{
    const EFI_BLOCK_IO_MEDIA *media = target.media;
    uint64_t last = media->LastBlock, bytes = media->BlockSize;
    bool is_protected = media->ReadOnly;
    EFI_STATUS stale = is_protected ? EFI_WRITE_PROTECTED : EFI_MEDIA_CHANGED;
    EFI_STATUS range = is_protected ? EFI_WRITE_PROTECTED : EFI_INVALID_PARAMETER;

    about("EraseBlocks", way_label(way));
    of_kind(is_protected ? KIND_NONE : KIND_MEDIA_ID);
    expect("MediaId+1", erase(way, media->MediaId + 1, 0, bytes), stale);
    expect("MediaId-1", erase(way, media->MediaId - 1, 0, bytes), stale);
    expect("MediaId+1 and LBA past the end", erase(way, media->MediaId + 1, last + 1, bytes),
           stale);
    expect("MediaId+1 and odd size", erase(way, media->MediaId + 1, 0, bytes + 1), stale);
    expect("MediaId+5 and size 0", erase(way, media->MediaId + 5, 0, 0), stale);
    of_kind(KIND_NONE);
    expect("LBA LastBlock+1", erase(way, media->MediaId, last + 1, bytes), range);
    expect("LBA LastBlock+100", erase(way, media->MediaId, last + 100, bytes), range);
    expect("1 block across the end", erase(way, media->MediaId, last, 2 * bytes), range);
    expect("100 blocks across the end", erase(way, media->MediaId, last, 101 * bytes), range);
    expect("LBA 2^64-1", erase(way, media->MediaId, -1ull, bytes), range);
    of_kind(is_protected ? KIND_NONE : KIND_WRAP);
    expect("LBAs that wrap to 0", erase(way, media->MediaId, -1ull, 2 * bytes), range);
    of_kind(KIND_NONE);
    expect("size near 2^64", erase(way, media->MediaId, 0, -bytes), range);
    of_kind(KIND_OWN);
    expect("odd size", erase(way, media->MediaId, 0, bytes + 1), range);
    expect("size 0", erase(way, media->MediaId, 0, 0),
           is_protected ? EFI_WRITE_PROTECTED : EFI_SUCCESS);
    of_kind(KIND_NONE);
}

/* lba: of the range; what is filled around it has a block more on either side. */
static void try_range(const char *name, enum way way, uint64_t lba, uint64_t count)
{
    size_t block_bytes = target.media->BlockSize;
    uint64_t around_count = count + 2;

    about(name, way_label(way));
    if (target.media->ReadOnly || around_count * block_bytes > BLOCKS_BYTES_MAX) {
        skip(5);
        return;
    }
    fill(buffer_a, SEED, lba - 1, around_count);
    expect("filled", write_blocks(lba - 1, around_count, buffer_a), EFI_SUCCESS);
    expect("erased", erase(way, target.media->MediaId, lba, count * block_bytes), EFI_SUCCESS);
    agent.bs->SetMem(buffer_b, around_count * block_bytes, 0xA5);
    expect("read", read_blocks(lba - 1, around_count, buffer_b), EFI_SUCCESS);
    expect_that("the middle is zeros", is_zero(buffer_b + block_bytes, count * block_bytes));
    expect_that("the ends are kept",
                is_filled(buffer_b, SEED, lba - 1, 1) &&
                    is_filled(buffer_b + (count + 1) * block_bytes, SEED, lba + count, 1));
}

static void try_ranges(enum way way)
{
    uint64_t unit = target.erase_block->EraseLengthGranularity;
    uint64_t lba = (target.media->LastBlock / 2 / unit - 8) * unit;

    try_range("one unit", way, lba, unit);
    try_range("two units", way, lba, 2 * unit);
    try_range("one block", way, lba + 1, 1);
    try_range("less than a unit", way, lba + 1, unit > 2 ? unit - 2 : 1);
    try_range("a unit and a block", way, lba, unit + 1);
    try_range("two units, across three", way, lba + unit / 2, 2 * unit);
    try_range("erased twice", way, lba, 2 * unit);
}

/* What was erased takes writes, and stays zero where none came. */
static void try_write_behind(void)
{
    uint64_t lba = target.media->LastBlock / 2;
    size_t block_bytes = target.media->BlockSize;

    about("a write into what was erased", "");
    if (target.media->ReadOnly) {
        skip(4);
        return;
    }
    fill(buffer_a, SEED + 1, lba, 3);
    write_blocks(lba, 3, buffer_a);
    expect("erase", erase(WAY_NO_EVENT, target.media->MediaId, lba, 3 * block_bytes), EFI_SUCCESS);
    expect("write", write_blocks(lba + 1, 1, buffer_a + block_bytes), EFI_SUCCESS);
    expect("flush", flush(WAY_PLAIN), EFI_SUCCESS);
    expect_that("is there, zeros beside it",
                read_blocks(lba, 3, buffer_b) == EFI_SUCCESS && is_zero(buffer_b, block_bytes) &&
                    is_filled(buffer_b + block_bytes, SEED + 1, lba + 1, 1) &&
                    is_zero(buffer_b + 2 * block_bytes, block_bytes));
}

void group_erase(unsigned number)
{
    EFI_ERASE_BLOCK_PROTOCOL *io = target.erase_block;

    if (io == NULL) {
        group_absent(number, "Erase Block");
        return;
    }
    group_begin(number, "Erase Block");
    expect_number("Revision", io->Revision, EFI_ERASE_BLOCK_PROTOCOL_REVISION);
    expect_that("EraseLengthGranularity is not 0", io->EraseLengthGranularity != 0);
    if (io->EraseLengthGranularity != 0) {
        calls_begin();
        try_errors(WAY_NO_EVENT);
        try_errors(WAY_EVENT);
        try_ranges(WAY_NO_EVENT);
        try_ranges(WAY_EVENT);
        calls_end();
        if (!target.media->ReadOnly)
            calls_judge();
        try_write_behind();
    }
    if (target.is_ours) {
        about("EraseBlocks", "");
        expect("without a token", erase(WAY_NO_TOKEN, target.media->MediaId, 8, 512),
               target.media->ReadOnly ? EFI_WRITE_PROTECTED : EFI_SUCCESS);
        expect("This NULL", io->EraseBlocks(NULL, target.media->MediaId, 0, NULL, 512),
               EFI_INVALID_PARAMETER);
    }
    group_end();
}
