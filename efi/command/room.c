/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* See room.h. */
#include "room.h"

#include "../../drivers/efi_block.h"
#include "../../drivers/fat.h"
#include "target.h"

#define PAGE_BYTES       (64u * 1024)
#define PAGE_BYTES_FAT12 (8u * 1024)
#define RUNS_MAX         1024u /* as many as the driver takes */
#define TRIES_MAX        8u
#define PAD_NAME         "qcow2-0.pad"
#define PAD_DIGIT        4u /* from its end */

static EFI_STATUS told(qc_status status)
{
    switch (status) {
    case QC_OK:
        return EFI_SUCCESS;
    case QC_RANGE:
        return EFI_NOT_FOUND;
    case QC_CORRUPT:
        return EFI_VOLUME_CORRUPTED;
    case QC_IO:
        return EFI_DEVICE_ERROR;
    default:
        return EFI_UNSUPPORTED;
    }
}

/*
 * How long a file in this one's place must be so that the next one begins on a page, in the longest
 * of these runs that is not the first one's: that was not long enough, or is not on a page.
 */
static uint64_t skip(const struct qc_fat *fat, const struct qc_run *runs, size_t count,
                     const struct room *room)
{
    uint64_t longest = 0, skip_bytes = room->bytes;

    for (size_t i = room->before == 0 ? 1 : 0; i < count; i++) {
        uint64_t end = i + 1 < count ? runs[i + 1].file_off : room->bytes;
        uint64_t before = (runs[i].host_off - fat->root_off) % room->page_bytes;

        if (end - runs[i].file_off <= longest)
            continue;
        longest = end - runs[i].file_off;
        skip_bytes = runs[i].file_off + (room->page_bytes - before) % room->page_bytes;
    }
    return skip_bytes > 0 ? skip_bytes : room->page_bytes;
}

EFI_STATUS room_look(EFI_HANDLE volume, const char *path, struct room *ret_room)
{
    static _Alignas(EFI_BLOCK_IO_ALIGN_MAX) uint8_t buf[QC_FAT_BUFFER_BYTES];
    static struct efi_block block;
    static struct qc_run runs[RUNS_MAX];
    struct qc_fat_file file;
    struct qc_fat fat;
    size_t runs_count;
    void *block_io;
    qc_status status;
    EFI_STATUS flushed = files_flush(volume);

    if (EFI_ERROR(flushed))
        return flushed;
    if (EFI_ERROR(firmware_protocol(volume, &guid_block_io, &block_io)) ||
        !efi_block_fits(block_io))
        return EFI_UNSUPPORTED;
    efi_block_init(&block, block_io);
    status = qc_fat_open(&fat, &block.disk, buf);
    if (status == QC_OK)
        *ret_room = (struct room){
            .page_bytes = fat.width == 12 ? PAGE_BYTES_FAT12 : PAGE_BYTES,
        };
    if (status == QC_OK)
        status = qc_fat_find(&fat, path, &file);
    if (status == QC_OK)
        status = qc_fat_extents(&fat, &file, runs, RUNS_MAX, &runs_count);
    if (status != QC_OK)
        return told(status);
    ret_room->bytes = file.size_bytes;
    if (runs_count > 0)
        ret_room->before = (runs[0].host_off - fat.root_off) % ret_room->page_bytes;
    ret_room->skip_bytes = skip(&fat, runs, runs_count, ret_room);
    ret_room->is_owner = runs_count > 0 && qc_fat_owns_pages(&fat, &file, runs, runs_count);
    return EFI_SUCCESS;
}

EFI_STATUS room_resize(EFI_HANDLE volume, const char *path, uint64_t bytes)
{
    uint64_t now_bytes, used_bytes;
    UINTN one = 1;
    uint8_t zero = 0;
    EFI_FILE_HANDLE file;
    EFI_STATUS closed,
        status = files_open(volume, path, EFI_FILE_MODE_READ | EFI_FILE_MODE_WRITE, &file);

    if (EFI_ERROR(status))
        return status;
    status = files_size(file, &now_bytes, &used_bytes);
    if (!EFI_ERROR(status) && now_bytes < bytes) {
        status = file->SetPosition(file, bytes - 1);
        if (!EFI_ERROR(status))
            status = file->Write(file, &one, &zero);
    } else if (!EFI_ERROR(status) && now_bytes > bytes) {
        status = files_shorten(file, bytes);
    }
    closed = file->Close(file);
    return EFI_ERROR(status) ? status : closed;
}

/* Makes an empty file, and then one of that many bytes. */
static EFI_STATUS make(EFI_HANDLE volume, const char *path, uint64_t bytes)
{
    EFI_FILE_HANDLE file;
    EFI_STATUS status = files_remove(volume, path);

    if (!EFI_ERROR(status))
        status = files_open(volume, path,
                            EFI_FILE_MODE_READ | EFI_FILE_MODE_WRITE | EFI_FILE_MODE_CREATE, &file);
    if (EFI_ERROR(status))
        return status;
    status = file->Close(file);
    if (!EFI_ERROR(status))
        status = room_resize(volume, path, bytes);
    if (EFI_ERROR(status))
        files_remove(volume, path);
    return status;
}

/* A try that fails tells where the free places are: a filler leads to the longest of them. */
static EFI_STATUS try_places(EFI_HANDLE volume, const char *path, uint64_t bytes,
                             char pads[TRIES_MAX][TEXT_BYTES_MAX])
{
    struct room room;

    for (unsigned i = 0; i < TRIES_MAX; i++) {
        EFI_STATUS status = make(volume, path, bytes);

        if (!EFI_ERROR(status))
            status = room_look(volume, path, &room);
        if (EFI_ERROR(status))
            return status;
        if (room.is_owner)
            return EFI_SUCCESS;
        status = files_remove(volume, path);
        if (!EFI_ERROR(status))
            status = make(volume, pads[i], room.skip_bytes);
        if (EFI_ERROR(status))
            return status;
    }
    return EFI_NOT_FOUND;
}

EFI_STATUS room_make(EFI_HANDLE volume, const char *path, uint64_t bytes)
{
    static char pads[TRIES_MAX][TEXT_BYTES_MAX];
    EFI_STATUS status;

    for (unsigned i = 0; i < TRIES_MAX; i++) {
        size_t end;

        if (!target_beside(pads[i], path, PAD_NAME))
            return EFI_BAD_BUFFER_SIZE;
        end = text_find(pads[i], '\0');
        pads[i][end - PAD_DIGIT - 1] = (char)('0' + i);
        files_remove(volume, pads[i]);
    }
    status = try_places(volume, path, bytes, pads);
    for (unsigned i = 0; i < TRIES_MAX; i++)
        files_remove(volume, pads[i]);
    if (EFI_ERROR(status))
        files_remove(volume, path);
    return status;
}
