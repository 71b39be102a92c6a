/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Orders that change the image: writes of a content that the test knows too, flushes, erases, and
 * what single calls of the image's Erase Block protocol must answer.
 */
#include "agent.h"

#include "../../../efi/proto/erase_block.h"

#define SECTOR_BYTES  512u
#define WORD_BYTES    8u
#define PATTERN_PRIME 0x9E3779B97F4A7C15u

static EFI_GUID guid_erase_block = EFI_ERASE_BLOCK_PROTOCOL_GUID;

void pattern(uint8_t *buf, uint64_t seed, uint64_t first_sector, size_t sectors_count)
{
    uint64_t words_count = sectors_count * SECTOR_BYTES / WORD_BYTES;
    for (uint64_t i = 0; i < words_count; i++) {
        uint64_t word =
            (seed << 48 ^ (first_sector * SECTOR_BYTES / WORD_BYTES + i)) * PATTERN_PRIME;
        agent.bs->CopyMem(buf + i * WORD_BYTES, &word, WORD_BYTES);
    }
}

/* write child|parent LBA COUNT SEED [OFF]: from a buffer OFF times as far off as the disk allows.
 */
void order_write(char **words)
{
    EFI_BLOCK_IO_PROTOCOL *blocks = find_named(words[1]);
    uint64_t lba = number(words[2]);
    size_t len;
    say("write:");
    uint8_t *buf = find_room(blocks, words[3], words[5], &len);
    if (buf != NULL) {
        pattern(buf, number(words[4]), lba * blocks->Media->BlockSize / SECTOR_BYTES,
                len / SECTOR_BYTES);
        say_status("status", way_write(blocks, blocks->Media->MediaId, lba, len, buf));
    }
    say_end();
}

void order_flush(char **words)
{
    EFI_BLOCK_IO_PROTOCOL *blocks = find_named(words[1]);
    say("flush:");
    say_status("status", blocks == NULL ? EFI_NOT_FOUND : way_flush(blocks));
    if (flush_count != 0)
        say_number("downflushes", flush_count);
    say_end();
}

void order_reset(char **words)
{
    EFI_BLOCK_IO_PROTOCOL *blocks = find_named(words[1]);
    say("reset:");
    say_status("status", blocks == NULL ? EFI_NOT_FOUND : way_reset(blocks, FALSE));
    say_end();
}

static EFI_ERASE_BLOCK_PROTOCOL *find_eraser(void)
{
    EFI_HANDLE child = NULL;
    find_child(&child);
    return find_protocol(child, &guid_erase_block);
}

static void EFIAPI on_erased(EFI_EVENT event, void *context)
{
    (void)event;
    ++*(uint64_t *)context;
}

/* erase LBA COUNT [event]: blocking, or with an event whose signals are counted. */
void order_erase(char **words)
{
    EFI_ERASE_BLOCK_PROTOCOL *eraser = find_eraser();
    EFI_BLOCK_IO_PROTOCOL *blocks = find_child(NULL);
    EFI_ERASE_BLOCK_TOKEN token = {NULL, EFI_NOT_READY};
    uint64_t signals_count = 0;
    say("erase:");
    if (eraser == NULL || blocks == NULL) {
        say(" none");
    } else {
        if (words[3][0] == 'e')
            agent.bs->CreateEvent(EVT_NOTIFY_SIGNAL, TPL_CALLBACK, on_erased, &signals_count,
                                  &token.Event);
        say_status("status", eraser->EraseBlocks(eraser, blocks->Media->MediaId, number(words[1]),
                                                 &token, number(words[2]) * SECTOR_BYTES));
        say_status("transaction", token.TransactionStatus);
        say_number("signals", signals_count);
        say_number("granularity", eraser->EraseLengthGranularity);
        if (token.Event != NULL)
            agent.bs->CloseEvent(token.Event);
    }
    say_end();
}

/* Wrong arguments to EraseBlocks, several at once included: none signals, none erases. */
void order_checkwrites(char **words)
{
    EFI_ERASE_BLOCK_PROTOCOL *eraser = find_eraser();
    EFI_BLOCK_IO_PROTOCOL *blocks = find_child(NULL);
    EFI_ERASE_BLOCK_TOKEN token = {NULL, EFI_NOT_READY};
    uint64_t signals_count = 0;
    (void)words;
    if (eraser == NULL || blocks == NULL) {
        say("check eraser FAIL\n");
        return;
    }
    EFI_BLOCK_IO_MEDIA *media = blocks->Media;
    uint32_t id = media->MediaId;
    bool kept = media->ReadOnly;
    agent.bs->CreateEvent(EVT_NOTIFY_SIGNAL, TPL_CALLBACK, on_erased, &signals_count, &token.Event);
    judge("erase-id", eraser->EraseBlocks(eraser, id + 1, 0, &token, 512),
          kept ? EFI_WRITE_PROTECTED : EFI_MEDIA_CHANGED);
    judge("erase-id-past", eraser->EraseBlocks(eraser, id + 1, media->LastBlock + 1, &token, 512),
          kept ? EFI_WRITE_PROTECTED : EFI_MEDIA_CHANGED);
    judge("erase-past", eraser->EraseBlocks(eraser, id, media->LastBlock + 1, &token, 512),
          kept ? EFI_WRITE_PROTECTED : EFI_INVALID_PARAMETER);
    judge("erase-across", eraser->EraseBlocks(eraser, id, media->LastBlock, &token, 1024),
          kept ? EFI_WRITE_PROTECTED : EFI_INVALID_PARAMETER);
    judge("erase-odd", eraser->EraseBlocks(eraser, id, 0, &token, 513),
          kept ? EFI_WRITE_PROTECTED : EFI_INVALID_PARAMETER);
    judge("erase-this", eraser->EraseBlocks(NULL, id, 0, &token, 512), EFI_INVALID_PARAMETER);
    judge("erase-silent", signals_count == 0 ? EFI_SUCCESS : EFI_NOT_READY, EFI_SUCCESS);
    judge("erase-nothing", eraser->EraseBlocks(eraser, id, 0, &token, 0),
          kept ? EFI_WRITE_PROTECTED : EFI_SUCCESS);
    judge("erase-no-token", eraser->EraseBlocks(eraser, id, 0, NULL, 0),
          kept ? EFI_WRITE_PROTECTED : EFI_SUCCESS);
    agent.bs->CloseEvent(token.Event);
}
