/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * EFI_BLOCK_IO_MEDIA (UEFI 2.10, 13.9.1): fields that make sense together; and what is answered
 * when there is no medium, whatever else is wrong with a call.
 *
 * The medium of an image's container is taken away, or changed, by what the container's Media says,
 * which is where its users see it. Of a disk of the firmware's drivers nobody can take it away
 * here.
 */
#include "conformance.h"

#define REVISION1 0x00010000u
#define REVISION2 0x00020001u
#define REVISION3 0x0002001Fu

static bool is_power_of_two(uint64_t value)
{
    return value != 0 && (value & (value - 1)) == 0;
}

static void try_fields(uint64_t revision, const EFI_BLOCK_IO_MEDIA *media)
{
    expect_that("Revision is one of the specification",
                revision == REVISION1 || revision == REVISION2 || revision == REVISION3);
    expect_that("MediaPresent is set", media->MediaPresent);
    expect_that("BlockSize is not 0", media->BlockSize != 0);
    expect_that("IoAlign is 0 or a power of two",
                media->IoAlign == 0 || is_power_of_two(media->IoAlign));
    expect_that("LastBlock is not 0", media->LastBlock != 0);
    expect_that("booleans are 0 or 1", media->RemovableMedia <= 1 && media->MediaPresent <= 1 &&
                                           media->LogicalPartition <= 1 && media->ReadOnly <= 1 &&
                                           media->WriteCaching <= 1);
    if (revision < REVISION3) {
        skip(2);
        return;
    }
    expect_that("LogicalBlocksPerPhysicalBlock is 0 on a partition",
                !media->LogicalPartition || media->LogicalBlocksPerPhysicalBlock == 0);
    expect_that("OptimalTransferLengthGranularity is 0 on a partition",
                !media->LogicalPartition || media->OptimalTransferLengthGranularity == 0);
}

static void try_own_fields(uint64_t revision, const EFI_BLOCK_IO_MEDIA *media)
{
    of_kind(KIND_OWN);
    expect_that("Revision is 3", revision == REVISION3);
    expect_that("MediaId is not 0", media->MediaId != 0);
    expect_that("WriteCaching is for writable media", media->WriteCaching == !media->ReadOnly);
    expect_number("BlockSize", media->BlockSize, 512);
    expect_number("LogicalPartition", media->LogicalPartition, FALSE);
    expect_number("LowestAlignedLba", media->LowestAlignedLba, 0);
    expect_that("LogicalBlocksPerPhysicalBlock is not 0",
                media->LogicalBlocksPerPhysicalBlock != 0);
    expect_that("OptimalTransferLengthGranularity is not 0",
                media->OptimalTransferLengthGranularity != 0);
}

void group_media(unsigned number)
{
    group_begin(number, "Media");
    try_fields(target.block_io->Revision, target.media);
    try_own_fields(target.block_io->Revision, target.media);
    group_end();
}

/* Calls that are wrong in some way besides; all of them find no medium. */
static const struct {
    const char *name;
    uint32_t id_delta;
    bool is_past_end;
    int32_t bytes_delta;
    bool is_null;
} calls[] = {
    {"right arguments", 0, false, 0, false}, {"a wrong MediaId", 1, false, 0, false},
    {"LBA past the end", 0, true, 0, false}, {"an odd size", 0, false, 1, false},
    {"size 0", 0, false, -512, false},       {"Buffer NULL", 0, false, 0, true},
    {"all of it", 5, true, -1, true},
};

static void try_absent(enum way way, enum action action)
{
    about(way_name(way, action), "");
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        struct transfer call = {
            .way = way,
            .action = action,
            .media_id = target.media->MediaId + calls[i].id_delta,
            .lba = calls[i].is_past_end ? target.media->LastBlock + 1 : 0,
            .bytes = target.media->BlockSize + (uint64_t)(int64_t)calls[i].bytes_delta,
            .buffer = calls[i].is_null ? NULL : buffer_a,
        };

        expect(calls[i].name, transfer(&call), EFI_NO_MEDIA);
    }
}

static void try_all_absent(void)
{
    unsigned last = target.block_io2 != NULL ? WAY_EVENT : WAY_PLAIN;

    calls_begin();
    for (unsigned way = WAY_PLAIN; way <= last; way++) {
        try_absent((enum way)way, READ);
        try_absent((enum way)way, WRITE);
        about(way_label((enum way)way), "");
        expect("flush", flush((enum way)way), EFI_NO_MEDIA);
    }
    about("EraseBlocks", "");
    if (target.erase_block != NULL) {
        uint32_t media_id = target.media->MediaId;

        expect("right arguments", erase(WAY_EVENT, media_id, 0, 512), EFI_NO_MEDIA);
        expect("a wrong MediaId", erase(WAY_EVENT, media_id + 1, 0, 512), EFI_NO_MEDIA);
        expect("LBA past the end", erase(WAY_EVENT, media_id, -1ull, 512), EFI_NO_MEDIA);
    }
    calls_end();
}

/* What the disk holds by now is another disk's: nothing of it may be taken for the image's. */
static void try_changed(EFI_BLOCK_IO_MEDIA *below)
{
    EFI_STATUS status;

    about("another medium", "");
    below->MediaId++;
    status = read_blocks(0, 1, buffer_a);
    expect_that("a read finds it changed or gone",
                status == EFI_MEDIA_CHANGED || status == EFI_NO_MEDIA);
    status = write_blocks(0, 1, buffer_a);
    expect_that("a write finds it changed or gone",
                status == EFI_MEDIA_CHANGED || status == EFI_NO_MEDIA);
    below->MediaId--;
    expect_that("and it does not come back by itself", EFI_ERROR(read_blocks(0, 1, buffer_a)));
}

static void try_reconnect(void)
{
    about("the medium is back", "");
    expect("the disk can be disconnected",
           agent.bs->DisconnectController(agent.parent, agent.driver, NULL), EFI_SUCCESS);
    expect("and connected", agent.bs->ConnectController(agent.parent, NULL, NULL, TRUE),
           EFI_SUCCESS);
    expect_that("the image is there", target_find());
    if (target.handle != NULL)
        expect("and is read", read_blocks(0, 1, buffer_a), EFI_SUCCESS);
}

void group_no_media(unsigned number)
{
    EFI_BLOCK_IO_PROTOCOL *below = find_protocol(agent.parent, &guid_block_io);

    if (!target.is_ours || below == NULL) {
        group_absent(number, "no medium");
        return;
    }
    group_begin(number, "no medium");
    below->Media->MediaPresent = FALSE;
    try_all_absent();
    about("Media", "");
    expect_that("MediaPresent is not set", !target.media->MediaPresent);
    expect_that("BlockSize is not 0", target.media->BlockSize != 0);
    below->Media->MediaPresent = TRUE;
    try_reconnect();
    if (target.handle != NULL) {
        try_changed(below->Media);
        try_reconnect();
    }
    group_end();
}
