/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The smoke test: what the driver is for, once, on a machine of any architecture.
 *
 * An EFI application that needs nothing of the machine but its console. It loads the driver, the
 * file "driver.efi" beside it, connects everything, and of every image that appears reads the whole
 * disk, writes a stretch of known content, flushes, and reads the whole disk again. What it saw is
 * on the console, "smoke: key value ..." a line, for the test to judge; then it switches the
 * machine off, whatever happened.
 *
 * Promises: nothing is allocated; it writes nothing but SECTORS_COUNT sectors of each image, at
 * SECTOR_FIRST.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <efi.h>

#include "../../../efi/path.h"

#define DRIVER_FILE   L"\\EFI\\BOOT\\driver.efi"
#define HANDLES_MAX   512u
#define SECTOR_BYTES  512u
#define SECTOR_FIRST  1001u /* in the middle of a cluster, and over the end of one */
#define SECTORS_COUNT 300u
#define PIECE_BYTES   (SECTORS_COUNT * SECTOR_BYTES)
#define WORD_FACTOR   UINT64_C(0x9E3779B97F4A7C15)
#define CRC_POLYNOM   UINT32_C(0xEDB88320)
#define LINE_CHARS    100u

static EFI_SYSTEM_TABLE *st;
static EFI_BOOT_SERVICES *bs;
static EFI_GUID guid_block_io = EFI_BLOCK_IO_PROTOCOL_GUID;
static EFI_GUID guid_device_path = EFI_DEVICE_PATH_PROTOCOL_GUID;
static EFI_GUID guid_loaded_image = EFI_LOADED_IMAGE_PROTOCOL_GUID;
static EFI_HANDLE handles[HANDLES_MAX];
/* Words, so that a pattern of words fits. */
static uint64_t piece[PIECE_BYTES / sizeof(uint64_t)];

EFI_STATUS EFIAPI efi_main(EFI_HANDLE image, EFI_SYSTEM_TABLE *system);

/* "smoke: TEXT VALUE", the value in hexadecimal digits, as status codes are known. */
static void say(const char *text, uint64_t value)
{
    CHAR16 line[LINE_CHARS];
    size_t len = 0;

    for (const char *from = "smoke: "; *from != '\0'; from++)
        line[len++] = (CHAR16)*from;
    for (; *text != '\0' && len < LINE_CHARS / 2; text++)
        line[len++] = (CHAR16)*text;
    line[len++] = ' ';
    for (unsigned shift = 64; shift > 0; shift -= 4)
        line[len++] = (CHAR16) "0123456789abcdef"[value >> (shift - 4) & 15];
    line[len++] = '\r';
    line[len++] = '\n';
    line[len] = 0;
    st->ConOut->OutputString(st->ConOut, line);
}

static void *get_protocol(EFI_HANDLE handle, EFI_GUID *guid)
{
    void *protocol;

    return EFI_ERROR(bs->HandleProtocol(handle, guid, &protocol)) ? NULL : protocol;
}

static size_t find(EFI_GUID *guid)
{
    UINTN bytes = sizeof(handles);
    EFI_STATUS status =
        bs->LocateHandle(guid != NULL ? ByProtocol : AllHandles, guid, NULL, &bytes, handles);

    return EFI_ERROR(status) ? 0 : bytes / sizeof(handles[0]);
}

/* ---- the driver ---------------------------------------------------------------------------- */

/* The path of the driver's file: the volume's path with a File Path node and the end node. */
static EFI_DEVICE_PATH *driver_path(EFI_HANDLE volume)
{
    static const EFI_DEVICE_PATH end = PATH_END_NODE_INIT;
    static const CHAR16 file[] = DRIVER_FILE;
    static uint8_t path[PATH_BYTES_MAX + sizeof(EFI_DEVICE_PATH) + sizeof(file) + PATH_END_BYTES];
    EFI_DEVICE_PATH node = {MEDIA_DEVICE_PATH, MEDIA_FILEPATH_DP, {0, 0}};
    const EFI_DEVICE_PATH *below = get_protocol(volume, &guid_device_path);
    size_t off;

    if (below == NULL || !path_measure(below, &off))
        return NULL;
    SetDevicePathNodeLength(&node, sizeof(node) + sizeof(file));
    __builtin_memcpy(path, below, off);
    __builtin_memcpy(path + off, &node, sizeof(node));
    __builtin_memcpy(path + off + sizeof(node), file, sizeof(file));
    __builtin_memcpy(path + off + sizeof(node) + sizeof(file), &end, sizeof(end));
    return (EFI_DEVICE_PATH *)path;
}

static void load_driver(EFI_HANDLE self)
{
    EFI_LOADED_IMAGE *loaded = get_protocol(self, &guid_loaded_image);
    EFI_DEVICE_PATH *path = driver_path(loaded->DeviceHandle);
    EFI_HANDLE driver = NULL;
    EFI_STATUS status = bs->LoadImage(FALSE, self, path, NULL, 0, &driver);

    say("load", status);
    if (!EFI_ERROR(status))
        say("start", bs->StartImage(driver, NULL, NULL));
}

static void connect_all(void)
{
    static EFI_HANDLE all[HANDLES_MAX];
    size_t count = find(NULL);

    __builtin_memcpy(all, handles, count * sizeof(all[0]));
    for (size_t i = 0; i < count; i++)
        bs->ConnectController(all[i], NULL, NULL, TRUE);
}

/* ---- an image ------------------------------------------------------------------------------- */

/* Whether a path ends in the driver's node: the image itself, not a partition of it. */
static bool is_image(const EFI_DEVICE_PATH *path)
{
    size_t off = 0, last = 0;

    for (size_t next = 0; path_step(path, &next); off = next)
        last = off;
    return off > 0 && path_is_image_node(path_at(path, last));
}

/* As zlib has it, continued from crc. */
static uint32_t crc32_more(uint32_t crc, const uint8_t *bytes, size_t len)
{
    crc = ~crc;
    for (size_t i = 0; i < len; i++) {
        crc ^= bytes[i];
        for (unsigned bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (CRC_POLYNOM & (UINT32_C(0) - (crc & 1)));
    }
    return ~crc;
}

static void say_content(EFI_BLOCK_IO_PROTOCOL *disk)
{
    uint64_t left = disk->Media->LastBlock + 1;
    EFI_LBA lba = 0;
    uint32_t crc = 0;

    while (left > 0) {
        uint64_t count = left < SECTORS_COUNT ? left : SECTORS_COUNT;
        EFI_STATUS status =
            disk->ReadBlocks(disk, disk->Media->MediaId, lba, (UINTN)count * SECTOR_BYTES, piece);

        if (EFI_ERROR(status)) {
            say("read", status);
            return;
        }
        crc = crc32_more(crc, (const uint8_t *)piece, (size_t)count * SECTOR_BYTES);
        lba += count;
        left -= count;
    }
    say("crc", crc);
}

static void try_image(EFI_BLOCK_IO_PROTOCOL *disk, uint64_t number)
{
    say("image", number);
    say("sectors", disk->Media->LastBlock + 1);
    say_content(disk);
    for (size_t i = 0; i < PIECE_BYTES / sizeof(piece[0]); i++)
        piece[i] = (number << 32 | i) * WORD_FACTOR;
    say("write", disk->WriteBlocks(disk, disk->Media->MediaId, SECTOR_FIRST, PIECE_BYTES, piece));
    say("flush", disk->FlushBlocks(disk));
    say_content(disk);
}

static void try_images(void)
{
    size_t count = find(&guid_block_io);
    uint64_t number = 0;

    for (size_t i = 0; i < count; i++) {
        const EFI_DEVICE_PATH *path = get_protocol(handles[i], &guid_device_path);
        EFI_BLOCK_IO_PROTOCOL *disk = get_protocol(handles[i], &guid_block_io);

        if (path != NULL && disk != NULL && disk->Media->BlockSize == SECTOR_BYTES &&
            is_image(path))
            try_image(disk, ++number);
    }
    say("images", number);
}

EFI_STATUS EFIAPI efi_main(EFI_HANDLE image, EFI_SYSTEM_TABLE *system)
{
    st = system;
    bs = st->BootServices;
    load_driver(image);
    connect_all();
    try_images();
    st->RuntimeServices->ResetSystem(EfiResetShutdown, EFI_SUCCESS, 0, NULL);
    return EFI_DEVICE_ERROR;
}
