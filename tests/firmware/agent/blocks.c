/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Orders on Block I/O and on what stands above it: reads with a checksum, a file of the volume
 * inside, the media fields, the device path, and how often the disk below was read meanwhile.
 */
#include "agent.h"

#define CRC_POLYNOMIAL 0xEDB88320u

static EFI_GUID guid_to_text = EFI_DEVICE_PATH_TO_TEXT_PROTOCOL_GUID;

_Alignas(4096) uint8_t agent_buffer[AGENT_BUFFER_BYTES + AGENT_SLACK_BYTES];

static EFI_BLOCK_READ parent_read;
static uint64_t read_count;
static uint64_t read_bytes;
static EFI_BLOCK_WRITE parent_write;
static uint64_t write_count;
static EFI_BLOCK_FLUSH parent_flush;
uint64_t flush_count;

uint32_t crc32_more(uint32_t crc, const uint8_t *bytes, size_t len)
{
    static uint32_t table[256];
    if (table[1] == 0) {
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t value = i;
            for (unsigned bit = 0; bit < 8; bit++)
                value = value >> 1 ^ (value & 1 ? CRC_POLYNOMIAL : 0);
            table[i] = value;
        }
    }
    crc = ~crc;
    for (size_t i = 0; i < len; i++)
        crc = crc >> 8 ^ table[(crc ^ bytes[i]) & 0xFF];
    return ~crc;
}

uint8_t *find_room(EFI_BLOCK_IO_PROTOCOL *blocks, const char *count, const char *times,
                   size_t *ret_len)
{
    if (blocks == NULL) {
        say(" none");
        return NULL;
    }
    size_t align = blocks->Media->IoAlign > 1 ? blocks->Media->IoAlign : 1;
    size_t len = number(count) * blocks->Media->BlockSize;
    if (len > AGENT_BUFFER_BYTES) {
        say(" toolong");
        return NULL;
    }
    *ret_len = len;
    return agent_buffer + number(times) * align % AGENT_SLACK_BYTES;
}

/* read child|parent LBA COUNT [OFF]: into a buffer OFF times as far off as the disk allows. */
void order_read(char **words)
{
    EFI_BLOCK_IO_PROTOCOL *blocks = find_named(words[1]);
    size_t len;
    say("read:");
    uint8_t *buf = find_room(blocks, words[3], words[4], &len);
    if (buf != NULL) {
        EFI_STATUS status = way_read(blocks, blocks->Media->MediaId, number(words[2]), len, buf);
        say_status("status", status);
        say_hex("crc", status == EFI_SUCCESS ? crc32_more(0, buf, len) : 0);
    }
    say_end();
}

/* The whole disk in requests of the given number of blocks, as one checksum. */
void order_sum(char **words)
{
    EFI_BLOCK_IO_PROTOCOL *blocks = find_named(words[1]);
    uint64_t step = number(words[2]);
    uint32_t crc = 0;
    EFI_STATUS status = blocks == NULL ? EFI_NOT_FOUND : EFI_SUCCESS;
    uint64_t lba = 0;
    uint64_t count = blocks == NULL ? 0 : blocks->Media->LastBlock + 1;
    while (status == EFI_SUCCESS && lba < count) {
        uint64_t now = step < count - lba ? step : count - lba;
        size_t len = now * blocks->Media->BlockSize;
        if (now == 0 || len > AGENT_BUFFER_BYTES) {
            status = EFI_INVALID_PARAMETER;
            break;
        }
        status = way_read(blocks, blocks->Media->MediaId, lba, len, agent_buffer);
        if (status == EFI_SUCCESS) {
            crc = crc32_more(crc, agent_buffer, len);
            lba += now;
        }
    }
    say("sum:");
    say_status("status", status);
    say_number("blocks", lba);
    say_hex("crc", crc);
    say_end();
}

/* A file of the volume inside the image, through the firmware's own file system driver. */
void order_file(char **words)
{
    EFI_FILE_HANDLE file;
    uint32_t crc = 0;
    uint64_t total = 0;
    EFI_STATUS status = open_file(words[1], FILE_READ, &file);
    if (status == EFI_SUCCESS) {
        UINTN len;
        do {
            len = AGENT_BUFFER_BYTES;
            status = file->Read(file, &len, agent_buffer);
            if (status == EFI_SUCCESS) {
                crc = crc32_more(crc, agent_buffer, len);
                total += len;
            }
        } while (status == EFI_SUCCESS && len != 0);
        file->Close(file);
    }
    say("file:");
    say_status("status", status);
    say_number("bytes", total);
    say_hex("crc", crc);
    say_end();
}

void order_media(char **words)
{
    EFI_BLOCK_IO_PROTOCOL *blocks = find_named(words[1]);
    say("media:");
    if (blocks == NULL) {
        say(" none");
    } else {
        EFI_BLOCK_IO_MEDIA *media = blocks->Media;
        say_hex("revision", blocks->Revision);
        say_number("id", media->MediaId);
        say_number("removable", media->RemovableMedia);
        say_number("present", media->MediaPresent);
        say_number("logical", media->LogicalPartition);
        say_number("readonly", media->ReadOnly);
        say_number("caching", media->WriteCaching);
        say_number("block", media->BlockSize);
        say_number("align", media->IoAlign);
        say_number("last", media->LastBlock);
        say_number("lowest", media->LowestAlignedLba);
        say_number("perphysical", media->LogicalBlocksPerPhysicalBlock);
        say_number("granularity", media->OptimalTransferLengthGranularity);
    }
    say_end();
}

void order_path(char **words)
{
    (void)words;
    EFI_HANDLE child = NULL;
    EFI_DEVICE_PATH_TO_TEXT_PROTOCOL *to_text = NULL;
    find_child(&child);
    EFI_DEVICE_PATH_PROTOCOL *path = find_protocol(child, &guid_device_path);
    agent.bs->LocateProtocol(&guid_to_text, NULL, (void **)&to_text);
    say("path:");
    if (path == NULL || to_text == NULL) {
        say(" none");
    } else {
        CHAR16 *text = to_text->ConvertDevicePathToText(path, FALSE, FALSE);
        say_wide("text", text);
        agent.bs->FreePool(text);
    }
    say_end();
}

static EFI_STATUS EFIAPI counted_read(EFI_BLOCK_IO_PROTOCOL *self, UINT32 media_id, EFI_LBA lba,
                                      UINTN len, VOID *buf)
{
    read_count++;
    read_bytes += len;
    return parent_read(self, media_id, lba, len, buf);
}

static EFI_STATUS EFIAPI counted_write(EFI_BLOCK_IO_PROTOCOL *self, UINT32 media_id, EFI_LBA lba,
                                       UINTN len, VOID *buf)
{
    write_count++;
    return parent_write(self, media_id, lba, len, buf);
}

static EFI_STATUS EFIAPI counted_flush(EFI_BLOCK_IO_PROTOCOL *self)
{
    flush_count++;
    return parent_flush(self);
}

/* count begin: notes reads, writes and flushes of the parent from now on; count end: says how many.
 */
void order_count(char **words)
{
    EFI_BLOCK_IO_PROTOCOL *blocks = find_protocol(agent.parent, &guid_block_io);
    say("count:");
    if (blocks == NULL) {
        say(" none");
    } else if (words[1][0] == 'b') {
        read_count = 0;
        read_bytes = 0;
        write_count = 0;
        flush_count = 0;
        parent_read = blocks->ReadBlocks;
        parent_write = blocks->WriteBlocks;
        parent_flush = blocks->FlushBlocks;
        blocks->ReadBlocks = counted_read;
        blocks->WriteBlocks = counted_write;
        blocks->FlushBlocks = counted_flush;
    } else {
        blocks->ReadBlocks = parent_read;
        blocks->WriteBlocks = parent_write;
        blocks->FlushBlocks = parent_flush;
        say_number("reads", read_count);
        say_number("bytes", read_bytes);
        say_number("flushes", flush_count);
        say_end();
        say("counted:");
        say_number("writes", write_count);
        flush_count = 0;
    }
    say_end();
}
