/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * A file's Block I/O, and how it is found; see filedisk.h for what they promise.
 */
#include "filedisk.h"

struct file filedisks[FILES_MAX];
static _Alignas(EFI_BLOCK_IO_ALIGN_MAX) uint8_t fat_buffer[QC_FAT_BUFFER_BYTES];

/* ---- its Block I/O -------------------------------------------------------------------------- */

/* The volume may have been taken away without a word: nobody asks those who only look at it. */
bool filedisk_has_volume(struct file *file)
{
    void *block_io;

    return !EFI_ERROR(efi_boot->OpenProtocol(file->volume, &guid_block_io, &block_io,
                                             driver_binding.DriverBindingHandle, NULL,
                                             EFI_OPEN_PROTOCOL_GET_PROTOCOL)) &&
           block_io == file->below.parent && !EFI_ERROR(efi_block_medium(&file->below));
}

static bool is_here(struct file *file)
{
    if (!filedisk_has_volume(file))
        file->media.MediaPresent = FALSE;
    return file->media.MediaPresent;
}

static EFI_STATUS check(struct file *file, UINT32 media_id, EFI_LBA lba, UINTN size, void *buffer)
{
    UINTN blocks_count = size / file->media.BlockSize;

    if (!is_here(file))
        return EFI_NO_MEDIA;
    if (media_id != file->media.MediaId)
        return EFI_MEDIA_CHANGED;
    if (size % file->media.BlockSize != 0)
        return EFI_BAD_BUFFER_SIZE;
    if (buffer == NULL || lba > file->media.LastBlock ||
        blocks_count > file->media.LastBlock - lba + 1 ||
        (file->media.IoAlign > 1 && ((uintptr_t)buffer & (file->media.IoAlign - 1)) != 0))
        return EFI_INVALID_PARAMETER;
    return EFI_SUCCESS;
}

static EFI_STATUS answer(struct file *file, qc_status status)
{
    if (status == QC_OK)
        return EFI_SUCCESS;
    return is_here(file) ? EFI_DEVICE_ERROR : EFI_NO_MEDIA;
}

EFI_STATUS filedisk_verify(struct file *file)
{
    EFI_TPL tpl;
    qc_status status;

    if (!is_here(file))
        return EFI_NO_MEDIA;
    /* All files share the walk's buffer, and a caller of this Block I/O may be interrupted. */
    tpl = efi_boot->RaiseTPL(TPL_CALLBACK);
    status = qc_fat_verify_entry(&file->fat, &file->file);
    efi_boot->RestoreTPL(tpl);
    if (status == QC_REFUSED) {
        file->media.MediaPresent = FALSE;
        return EFI_NO_MEDIA;
    }
    return answer(file, status);
}

/* The same, of the files below an image too: where one has gone, this disk fails like its medium.
 */
static EFI_STATUS verify_all(struct file *file)
{
    const struct attached *attached = attached_by_container(file->container);
    EFI_STATUS status = filedisk_verify(file);

    for (unsigned i = 0; attached != NULL && i < attached->bases_count && !EFI_ERROR(status); i++) {
        if (attached->base_numbers[i] >= BASE_FILES_FIRST)
            status = filedisk_verify(&filedisks[attached->base_numbers[i] - BASE_FILES_FIRST]);
    }
    return status;
}

static EFI_STATUS EFIAPI file_reset(EFI_BLOCK_IO_PROTOCOL *This, BOOLEAN is_extended)
{
    (void)This;
    (void)is_extended;
    return EFI_SUCCESS;
}

static EFI_STATUS EFIAPI file_read(EFI_BLOCK_IO_PROTOCOL *This, UINT32 media_id, EFI_LBA lba,
                                   UINTN size, void *buffer)
{
    struct file *file = (void *)This;
    struct qc_disk *disk = &file->extents.disk;
    EFI_STATUS status = check(file, media_id, lba, size, buffer);

    if (!EFI_ERROR(status) && size != 0 && lba == 0)
        status = verify_all(file);
    if (EFI_ERROR(status) || size == 0)
        return status;
    return answer(file, disk->ops->read(disk, lba * disk->block_bytes, buffer, size));
}

static EFI_STATUS EFIAPI file_write(EFI_BLOCK_IO_PROTOCOL *This, UINT32 media_id, EFI_LBA lba,
                                    UINTN size, void *buffer)
{
    struct file *file = (void *)This;
    struct qc_disk *disk = &file->extents.disk;
    EFI_STATUS status = check(file, media_id, lba, size, buffer);

    if (!EFI_ERROR(status) && file->media.ReadOnly)
        status = EFI_WRITE_PROTECTED;
    if (!EFI_ERROR(status) && size != 0 && !file->is_verified)
        status = verify_all(file);
    if (EFI_ERROR(status) || size == 0)
        return status;
    file->is_verified = file->has_written = true;
    return answer(file, disk->ops->write(disk, lba * disk->block_bytes, buffer, size));
}

/* After the flush: what it made durable lies in clusters that were the file's a moment ago. */
static EFI_STATUS EFIAPI file_flush(EFI_BLOCK_IO_PROTOCOL *This)
{
    struct file *file = (void *)This;
    struct qc_disk *disk = &file->below.disk;
    EFI_STATUS status;

    if (!is_here(file))
        return EFI_NO_MEDIA;
    status = answer(file, file->media.ReadOnly ? QC_OK : disk->ops->flush(disk));
    file->is_verified = false;
    return EFI_ERROR(status) ? status : verify_all(file);
}

static void init_block_io(struct file *file)
{
    const EFI_BLOCK_IO_MEDIA *below = file->below.parent->Media;

    file->media = (EFI_BLOCK_IO_MEDIA){
        .MediaId = file->media.MediaId + 1,
        .MediaPresent = TRUE,
        .ReadOnly = file->extents.disk.readonly,
        .WriteCaching = below->WriteCaching,
        .BlockSize = below->BlockSize,
        .IoAlign = below->IoAlign,
        .LastBlock = file->extents.disk.size_bytes / below->BlockSize - 1,
        .LogicalBlocksPerPhysicalBlock = 1,
    };
    file->block_io = (EFI_BLOCK_IO_PROTOCOL){
        .Revision = EFI_BLOCK_IO_PROTOCOL_REVISION3,
        .Media = &file->media,
        .Reset = file_reset,
        .ReadBlocks = file_read,
        .WriteBlocks = file_write,
        .FlushBlocks = file_flush,
    };
}

/* ---- finding it ----------------------------------------------------------------------------- */

static struct file *find_open(EFI_HANDLE volume, const struct qc_fat_file *found)
{
    for (unsigned i = 0; i < FILES_MAX; i++) {
        if (filedisks[i].volume == volume && filedisks[i].file.entry_off == found->entry_off)
            return &filedisks[i];
    }
    return NULL;
}

static struct file *find_free(void)
{
    for (unsigned i = 0; i < FILES_MAX; i++) {
        if (filedisks[i].volume == NULL)
            return &filedisks[i];
    }
    return NULL;
}

qc_status filedisk_refuse(struct qc_detail *detail, qc_status status, const char *why)
{
    return qc_fail(detail, status, "%s", why);
}

/*
 * Looks the file up, and fills all of the slot but its handle. Its last sector may reach behind its
 * end: such a file is only read.
 */
static qc_status place(struct file *file, EFI_BLOCK_IO_PROTOCOL *parent, const char *path,
                       struct qc_detail *detail)
{
    uint64_t block_mask, size_bytes;
    size_t runs_count;
    qc_status status;

    efi_block_init(&file->below, parent);
    block_mask = file->below.disk.block_bytes - 1;
    if (qc_fat_open(&file->fat, &file->below.disk, fat_buffer) != QC_OK ||
        parent->Media->IoAlign > file->fat.cluster_bytes)
        return filedisk_refuse(detail, QC_UNSUPPORTED, "no FAT volume that files can be used on");
    status = qc_fat_find(&file->fat, path, &file->file);
    if (status == QC_OK)
        status = qc_fat_extents(&file->fat, &file->file, file->runs, FILE_RUNS_MAX, &runs_count);
    if (status == QC_OK && file->file.size_bytes == 0)
        status = QC_FOREIGN;
    if (status != QC_OK)
        return filedisk_refuse(detail, status,
                               status == QC_RANGE         ? "the file is not found"
                               : status == QC_UNSUPPORTED ? "the file lies in too many pieces"
                               : status == QC_CORRUPT     ? "the volume is damaged"
                               : status == QC_IO          ? "the volume cannot be read"
                                                          : "the file is no image");
    size_bytes = (file->file.size_bytes + block_mask) & ~block_mask;
    qc_extents_init(&file->extents, &file->below.disk, file->runs, runs_count, size_bytes);
    file->shares_pages = !qc_fat_owns_pages(&file->fat, &file->file, file->runs, runs_count);
    if (size_bytes != file->file.size_bytes || file->shares_pages)
        file->extents.disk.readonly = true;
    return QC_OK;
}

static void copy_name(char *name, const char *path)
{
    size_t i = 0;

    for (; i + 1 < FILE_PATH_MAX && path[i] != '\0'; i++)
        name[i] = path[i] == '/' ? '\\' : path[i];
    name[i] = '\0';
}

size_t filedisk_length(const char *path)
{
    size_t len = 0;

    while (len < FILE_PATH_MAX && path[len] != '\0')
        len++;
    return len;
}

qc_status filedisk_take(EFI_HANDLE volume, const char *path, struct file **ret_file,
                        struct qc_detail *detail)
{
    struct file *file = find_free(), *open;
    void *parent;
    qc_status status;

    if (filedisk_length(path) == FILE_PATH_MAX)
        return filedisk_refuse(detail, QC_UNSUPPORTED, "the file's path is longer than 255 bytes");
    if (file == NULL)
        return filedisk_refuse(detail, QC_NOSPACE, "no more files can be attached");
    if (EFI_ERROR(efi_boot->OpenProtocol(volume, &guid_block_io, &parent,
                                         driver_binding.DriverBindingHandle, NULL,
                                         EFI_OPEN_PROTOCOL_GET_PROTOCOL)) ||
        !efi_block_fits(parent))
        return filedisk_refuse(detail, QC_UNSUPPORTED, "no volume that files can be used on");
    status = place(file, parent, path, detail);
    if (status != QC_OK)
        return status;
    open = find_open(volume, &file->file);
    if (open != NULL) {
        *ret_file = open;
        return QC_OK;
    }
    init_block_io(file);
    efi_block_init(&file->block, &file->block_io);
    file->volume = volume;
    file->container = NULL;
    file->users_count = 0;
    file->is_data = file->is_verified = file->has_written = false;
    copy_name(file->name, path);
    *ret_file = file;
    return QC_OK;
}
