/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* See file_disk.h. */
#include "file_disk.h"

#define BLOCK_BYTES 512u /* a file has none of its own */
#define ZEROS_BYTES (64u * 1024)

static struct file_disk *of(struct qc_disk *disk)
{
    return (struct file_disk *)disk;
}

static qc_status disk_read(struct qc_disk *disk, uint64_t host_off, void *buf, size_t len)
{
    EFI_FILE_HANDLE file = of(disk)->file;
    UINTN part = len;

    if (EFI_ERROR(file->SetPosition(file, host_off)) || EFI_ERROR(file->Read(file, &part, buf)) ||
        part != len)
        return QC_IO;
    return QC_OK;
}

static qc_status write_part(struct qc_disk *disk, uint64_t host_off, const void *buf, size_t len)
{
    EFI_FILE_HANDLE file = of(disk)->file;
    UINTN part = len;
    EFI_STATUS status = file->SetPosition(file, host_off);

    if (!EFI_ERROR(status))
        status = file->Write(file, &part, (void *)buf);
    if (status == EFI_VOLUME_FULL)
        return QC_NOSPACE;
    return EFI_ERROR(status) || part != len ? QC_IO : QC_OK;
}

static qc_status disk_flush(struct qc_disk *disk)
{
    EFI_FILE_HANDLE file = of(disk)->file;

    return disk->readonly || !EFI_ERROR(file->Flush(file)) ? QC_OK : QC_IO;
}

/* What the driver takes for a file holds whatever was there before. */
static qc_status disk_grow(struct qc_disk *disk, uint64_t size_bytes)
{
    static uint8_t zeros[ZEROS_BYTES]; /* a constant would lie in the program's file */

    if (size_bytes > FILE_DISK_BYTES_MAX)
        return QC_NOSPACE;
    while (disk->size_bytes < size_bytes) {
        uint64_t left = size_bytes - disk->size_bytes;
        size_t part = left < ZEROS_BYTES ? (size_t)left : ZEROS_BYTES;
        qc_status status = write_part(disk, disk->size_bytes, zeros, part);

        if (status != QC_OK)
            return status;
        disk->size_bytes += part;
    }
    return QC_OK;
}

EFI_STATUS file_disk_open(struct file_disk *disk, EFI_HANDLE volume, const char *path,
                          bool is_readonly)
{
    static const struct qc_disk_ops ops = {disk_read, write_part, disk_flush, disk_grow, NULL};
    uint64_t size_bytes = 0;
    EFI_STATUS status = files_open(
        volume, path, EFI_FILE_MODE_READ | (is_readonly ? 0 : EFI_FILE_MODE_WRITE), &disk->file);

    if (EFI_ERROR(status)) {
        disk->file = NULL;
        return status;
    }
    status = files_size(disk->file, &size_bytes, &disk->used_bytes);
    if (EFI_ERROR(status)) {
        disk->file->Close(disk->file);
        disk->file = NULL;
        return status;
    }
    disk->disk = (struct qc_disk){&ops, size_bytes, BLOCK_BYTES, is_readonly};
    return EFI_SUCCESS;
}

EFI_STATUS file_disk_close(struct file_disk *disk)
{
    EFI_FILE_HANDLE file = disk->file;
    EFI_STATUS status = EFI_SUCCESS, closed;

    if (file == NULL)
        return EFI_SUCCESS;
    if (!disk->disk.readonly)
        status = file->Flush(file);
    closed = file->Close(file);
    disk->file = NULL;
    return EFI_ERROR(status) ? status : closed;
}
