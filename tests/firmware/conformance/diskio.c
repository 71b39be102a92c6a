/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The firmware's Disk I/O and Disk I/O 2 above the handle (UEFI 2.10, 13.7 and 13.8): bytes at any
 * offset, which it makes of whole blocks, so that the blocks' rest must survive.
 */
#include "conformance.h"

#define SEED         41u
#define AREA_BLOCKS  8u
#define PATTERN_BYTE 0x5Au

static EFI_GUID guid_disk_io2 = EFI_DISK_IO2_PROTOCOL_GUID;
static EFI_DISK_IO_PROTOCOL *disk_io;
static EFI_DISK_IO2_PROTOCOL *disk_io2;

/* Offsets and lengths within the area; blocks of 512 bytes or more. */
static const struct {
    const char *name;
    uint32_t off, bytes;
} ranges[] = {
    {"nothing", 3, 0},
    {"one byte", 1, 1},
    {"the last byte of a block", 511, 1},
    {"two bytes across blocks", 511, 2},
    {"a block", 512, 512},
    {"a block's length, askew", 700, 512},
    {"three blocks, askew", 300, 1536},
};

static EFI_STATUS at(bool is_io2, enum action action, uint64_t off, size_t bytes, void *buffer)
{
    uint32_t media_id = target.media->MediaId;

    if (is_io2)
        return action == READ ? disk_io2->ReadDiskEx(disk_io2, media_id, off, NULL, bytes, buffer)
                              : disk_io2->WriteDiskEx(disk_io2, media_id, off, NULL, bytes, buffer);
    return action == READ ? disk_io->ReadDisk(disk_io, media_id, off, bytes, buffer)
                          : disk_io->WriteDisk(disk_io, media_id, off, bytes, buffer);
}

static void try_range(bool is_io2, size_t i)
{
    uint64_t lba = target.media->LastBlock / 2;
    uint64_t off = lba * target.media->BlockSize + ranges[i].off;
    size_t area_bytes = AREA_BLOCKS * target.media->BlockSize;

    about(is_io2 ? "Disk I/O 2" : "Disk I/O", ranges[i].name);
    fill(buffer_a, SEED, lba, AREA_BLOCKS);
    expect("filled", write_blocks(lba, AREA_BLOCKS, buffer_a), EFI_SUCCESS);
    expect("read", at(is_io2, READ, off, ranges[i].bytes, buffer_b), EFI_SUCCESS);
    expect_that("what is there", equal(buffer_b, buffer_a + ranges[i].off, ranges[i].bytes));
    agent.bs->SetMem(buffer_a + ranges[i].off, ranges[i].bytes, PATTERN_BYTE);
    expect("written", at(is_io2, WRITE, off, ranges[i].bytes, buffer_a + ranges[i].off),
           EFI_SUCCESS);
    expect_that("it is there, neighbours unharmed",
                read_blocks(lba, AREA_BLOCKS, buffer_b) == EFI_SUCCESS &&
                    equal(buffer_a, buffer_b, area_bytes));
}

static void try_all(bool is_io2)
{
    if (target.media->ReadOnly || target.media->BlockSize * AREA_BLOCKS > BLOCKS_BYTES_MAX) {
        skip(5 * sizeof(ranges) / sizeof(ranges[0]));
        return;
    }
    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++)
        try_range(is_io2, i);
}

void group_disk_io(unsigned number)
{
    disk_io = find_protocol(target.handle, &guid_disk_io);
    disk_io2 = find_protocol(target.handle, &guid_disk_io2);
    if (disk_io == NULL) {
        group_absent(number, "Disk I/O");
        return;
    }
    group_begin(number, "Disk I/O");
    try_all(false);
    expect_that("Disk I/O 2 is there where Block I/O 2 is",
                (disk_io2 != NULL) == (target.block_io2 != NULL));
    if (disk_io2 != NULL)
        try_all(true);
    else
        skip(5 * sizeof(ranges) / sizeof(ranges[0]));
    group_end();
}
