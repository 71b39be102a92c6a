/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See file.h. A file's disk is built in three parts: the volume's disk, the file's runs on it, and
 * a Block I/O of its own around them, on which everything that is done with a partition is done
 * too.
 */
#include "file.h"

#include "../drivers/extents.h"
#include "../drivers/fat.h"
#include "say.h"

#define NODE_BYTES_MAX (sizeof(EFI_DEVICE_PATH) + FILE_PATH_MAX * sizeof(CHAR16))

struct file {
    EFI_BLOCK_IO_PROTOCOL block_io; /* first, so that a protocol's pointer is its file's */
    EFI_BLOCK_IO_MEDIA media;
    EFI_HANDLE volume;      /* NULL: the slot is free */
    EFI_HANDLE container;   /* NULL: it is a layer or a data file */
    unsigned users_count;   /* images that it is a layer or the data file of */
    bool is_data;           /* it is a data file */
    struct efi_block below; /* the volume */
    struct efi_block block; /* the file, for images above it */
    struct qc_fat fat;
    struct qc_fat_file file;
    struct qc_extents extents;
    struct qc_run runs[FILE_RUNS_MAX];
    struct config_entry entry;
    char name[FILE_PATH_MAX];
    uint8_t path[PATH_BYTES_MAX + NODE_BYTES_MAX + PATH_END_BYTES];
};

static struct file files[FILES_MAX];
static _Alignas(EFI_BLOCK_IO_ALIGN_MAX) uint8_t fat_buffer[QC_FAT_BUFFER_BYTES];

static struct file *file_of(EFI_HANDLE container)
{
    for (unsigned i = 0; i < FILES_MAX; i++) {
        if (container != NULL && files[i].volume != NULL && files[i].container == container)
            return &files[i];
    }
    return NULL;
}

bool file_is(EFI_HANDLE container)
{
    return file_of(container) != NULL;
}

EFI_HANDLE file_any(void)
{
    for (unsigned i = 0; i < FILES_MAX; i++) {
        if (files[i].volume != NULL && files[i].container != NULL)
            return files[i].container;
    }
    return NULL;
}

const struct config_entry *file_entry(EFI_HANDLE container)
{
    struct file *file = file_of(container);

    return file != NULL ? &file->entry : NULL;
}

/* ---- its Block I/O -------------------------------------------------------------------------- */

/* The volume may have been taken away without a word: nobody asks those who only look at it. */
static bool is_here(struct file *file)
{
    void *block_io;

    if (EFI_ERROR(efi_boot->OpenProtocol(file->volume, &guid_block_io, &block_io,
                                         driver_binding.DriverBindingHandle, NULL,
                                         EFI_OPEN_PROTOCOL_GET_PROTOCOL)) ||
        block_io != file->below.parent || EFI_ERROR(efi_block_medium(&file->below)))
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
    if (EFI_ERROR(status) || size == 0)
        return status;
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
    if (EFI_ERROR(status) || qc_fat_verify_entry(&file->fat, &file->file) != QC_REFUSED)
        return status;
    file->media.MediaPresent = FALSE;
    return EFI_NO_MEDIA;
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
        if (files[i].volume == volume && files[i].file.entry_off == found->entry_off)
            return &files[i];
    }
    return NULL;
}

static struct file *find_free(void)
{
    for (unsigned i = 0; i < FILES_MAX; i++) {
        if (files[i].volume == NULL)
            return &files[i];
    }
    return NULL;
}

static qc_status refuse(struct qc_detail *detail, qc_status status, const char *why)
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
        return refuse(detail, QC_UNSUPPORTED, "no FAT volume that files can be used on");
    status = qc_fat_find(&file->fat, path, &file->file);
    if (status == QC_OK)
        status = qc_fat_extents(&file->fat, &file->file, file->runs, FILE_RUNS_MAX, &runs_count);
    if (status == QC_OK && file->file.size_bytes == 0)
        status = QC_FOREIGN;
    if (status != QC_OK)
        return refuse(detail, status,
                      status == QC_RANGE         ? "the file is not found"
                      : status == QC_UNSUPPORTED ? "the file lies in too many pieces"
                      : status == QC_CORRUPT     ? "the volume is damaged"
                      : status == QC_IO          ? "the volume cannot be read"
                                                 : "the file is no image");
    size_bytes = (file->file.size_bytes + block_mask) & ~block_mask;
    qc_extents_init(&file->extents, &file->below.disk, file->runs, runs_count, size_bytes);
    if (size_bytes != file->file.size_bytes ||
        !qc_fat_owns_pages(&file->fat, &file->file, file->runs, runs_count))
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

static size_t length_of(const char *path)
{
    size_t len = 0;

    while (len < FILE_PATH_MAX && path[len] != '\0')
        len++;
    return len;
}

/* The same file is one slot: where it is open already, *ret_file is that one. */
static qc_status take(EFI_HANDLE volume, const char *path, struct file **ret_file,
                      struct qc_detail *detail)
{
    struct file *file = find_free(), *open;
    void *parent;
    qc_status status;

    if (length_of(path) == FILE_PATH_MAX)
        return refuse(detail, QC_UNSUPPORTED, "the file's path is longer than 255 bytes");
    if (file == NULL)
        return refuse(detail, QC_NOSPACE, "no more files can be attached");
    if (EFI_ERROR(efi_boot->OpenProtocol(volume, &guid_block_io, &parent,
                                         driver_binding.DriverBindingHandle, NULL,
                                         EFI_OPEN_PROTOCOL_GET_PROTOCOL)) ||
        !efi_block_fits(parent))
        return refuse(detail, QC_UNSUPPORTED, "no volume that files can be used on");
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
    file->is_data = false;
    copy_name(file->name, path);
    *ret_file = file;
    return QC_OK;
}

/* ---- as a container ------------------------------------------------------------------------- */

/* One character of UTF-8, of those that a path node can have; 0 where it is none. */
static CHAR16 next_char(const char **text)
{
    const uint8_t *bytes = (const uint8_t *)*text;
    unsigned count = bytes[0] < 0x80 ? 1 : (bytes[0] & 0xe0) == 0xc0 ? 2 : 3;
    uint32_t point = count == 1 ? bytes[0] : bytes[0] & (0x3fu >> (count - 1));

    if (bytes[0] >= 0xf0)
        return 0;
    for (unsigned i = 1; i < count; i++) {
        if ((bytes[i] & 0xc0) != 0x80)
            return 0;
        point = point << 6 | (bytes[i] & 0x3f);
    }
    *text += count;
    return (CHAR16)point;
}

/* The volume's path, a File Path node (10.3.5.4) and the end node. */
static bool make_path(struct file *file, const EFI_DEVICE_PATH *volume)
{
    static const EFI_DEVICE_PATH end = PATH_END_NODE_INIT;
    EFI_DEVICE_PATH node = {MEDIA_DEVICE_PATH, MEDIA_FILEPATH_DP, {0, 0}};
    const char *text = file->name;
    size_t start, off;

    if (!path_measure(volume, &start))
        return false;
    __builtin_memcpy(file->path, volume, start);
    off = start + sizeof(node);
    /* A name has no more characters than bytes. */
    for (CHAR16 c = 1; c != 0; off += sizeof(c)) {
        c = next_char(&text);
        __builtin_memcpy(file->path + off, &c, sizeof(c));
    }
    SetDevicePathNodeLength(&node, off - start);
    __builtin_memcpy(file->path + start, &node, sizeof(node));
    __builtin_memcpy(file->path + off, &end, sizeof(end));
    return off <= PATH_BYTES_MAX;
}

static EFI_STATUS told(qc_status status)
{
    switch (status) {
    case QC_RANGE:
        return EFI_NOT_FOUND;
    case QC_NOSPACE:
        return EFI_OUT_OF_RESOURCES;
    case QC_REFUSED:
        return EFI_ACCESS_DENIED;
    case QC_CORRUPT:
        return EFI_VOLUME_CORRUPTED;
    case QC_IO:
        return EFI_DEVICE_ERROR;
    default:
        return EFI_UNSUPPORTED;
    }
}

/* Says why, with the file's name, and returns status. */
static EFI_STATUS say_refused(EFI_STATUS status, const EFI_DEVICE_PATH *volume, const char *path,
                              const char *why)
{
    struct say_text text = {0};

    say_add(&text, path);
    say_add(&text, ": refused: ");
    say_add(&text, why);
    say_line(volume, &text);
    return status;
}

EFI_STATUS file_open(EFI_HANDLE volume, const char *path, const struct config_entry *entry,
                     EFI_HANDLE *ret_container)
{
    struct file *file;
    struct qc_detail detail;
    void *volume_path;
    qc_status why;
    EFI_STATUS status = efi_boot->OpenProtocol(volume, &guid_device_path, &volume_path,
                                               driver_binding.DriverBindingHandle, NULL,
                                               EFI_OPEN_PROTOCOL_GET_PROTOCOL);

    if (EFI_ERROR(status))
        return status;
    if (path_is_in_image(volume_path))
        return say_refused(EFI_UNSUPPORTED, volume_path, path, "it lies inside an image");
    why = take(volume, path, &file, &detail);
    if (why != QC_OK)
        return say_refused(told(why), volume_path, path, detail.text);
    if (file->container != NULL)
        return EFI_ALREADY_STARTED;
    if (file->users_count > 0)
        return say_refused(EFI_ACCESS_DENIED, volume_path, path, "it is part of another image");
    file->entry = *entry;
    if (!make_path(file, volume_path)) {
        file->volume = NULL;
        return say_refused(EFI_UNSUPPORTED, volume_path, path, "its path is too long");
    }
    status = efi_boot->InstallMultipleProtocolInterfaces(
        &file->container, &guid_block_io, &file->block_io, &guid_device_path, file->path, NULL);
    if (EFI_ERROR(status)) {
        file->volume = NULL;
        return say_refused(status, volume_path, path, "the firmware takes no new disk");
    }
    *ret_container = file->container;
    return EFI_SUCCESS;
}

EFI_STATUS file_close(EFI_HANDLE container)
{
    struct file *file = file_of(container);
    EFI_STATUS status;

    if (file == NULL)
        return EFI_NOT_FOUND;
    status = efi_boot->UninstallMultipleProtocolInterfaces(
        container, &guid_block_io, &file->block_io, &guid_device_path, file->path, NULL);
    if (!EFI_ERROR(status))
        file->volume = NULL;
    return status;
}

void file_open_configured(EFI_HANDLE volume)
{
    for (unsigned i = 0; volume != NULL && i < config.entries_count; i++) {
        EFI_HANDLE container;

        if (config.entries[i].has_file)
            (void)file_open(volume, config.entries[i].file, &config.entries[i], &container);
    }
}

/* ---- as a layer, or a data file ------------------------------------------------------------- */

/* The file that names the next one: the lowest layer found, or the image itself; NULL: no file. */
static const struct file *namer_of(const struct attached *attached)
{
    const struct file *file = file_of(attached->container);

    for (unsigned i = 0; i < attached->bases_count; i++) {
        unsigned number = attached->base_numbers[i];

        if (number < BASE_FILES_FIRST && !base_is_data_number(number))
            file = NULL;
        else if (number >= BASE_FILES_FIRST && !files[number - BASE_FILES_FIRST].is_data)
            file = &files[number - BASE_FILES_FIRST];
    }
    return file;
}

/* The name, behind the folder of who names it. False where it is too long. */
static bool join(char *path, const struct file *namer, const char *name)
{
    size_t folder = 0, len = length_of(name);

    for (size_t i = 0; namer->name[i] != '\0'; i++) {
        if (namer->name[i] == '\\')
            folder = i + 1;
    }
    if (folder + len >= FILE_PATH_MAX)
        return false;
    __builtin_memcpy(path, namer->name, folder);
    __builtin_memcpy(path + folder, name, len + 1);
    return true;
}

static bool is_used_by(const struct attached *attached, const struct file *file)
{
    for (unsigned i = 0; i < attached->bases_count; i++) {
        if (attached->base_numbers[i] == BASE_FILES_FIRST + (size_t)(file - files))
            return true;
    }
    return file->container != NULL && file->container == attached->container;
}

/* A layer is only read, so that many may have it; who may be written is one image's alone. */
static qc_status check_use(const struct attached *attached, const struct file *file, bool is_data,
                           struct qc_detail *detail)
{
    if (is_used_by(attached, file))
        return refuse(detail, QC_REFUSED, "backing name refused: the base lies above itself");
    if (file->container != NULL || (file->users_count > 0 && (is_data || file->is_data)))
        return refuse(detail, QC_REFUSED, "backing name refused: the file is in use by others");
    return QC_OK;
}

qc_status file_find_base(struct attached *attached, struct qc_base *base, unsigned *ret_number)
{
    static char path[FILE_PATH_MAX];
    const struct file *namer = namer_of(attached);
    struct file *file;
    qc_status status;

    if (namer == NULL || config.is_narrowed)
        return refuse(&base->detail, QC_REFUSED,
                      "backing name refused: no base in the configuration");
    status = qc_name_check(base->name, &base->detail);
    if (status != QC_OK)
        return status;
    if (!join(path, namer, base->name))
        return refuse(&base->detail, QC_REFUSED, "backing name refused: its path is too long");
    status = take(namer->volume, path, &file, &base->detail);
    if (status == QC_OK)
        status = check_use(attached, file, base->is_data_file, &base->detail);
    if (status != QC_OK)
        return status;
    file->is_data = base->is_data_file;
    file->users_count++;
    file->block.disk.readonly |= file->media.ReadOnly || !base->is_data_file || base->depth > 0;
    *ret_number = BASE_FILES_FIRST + (unsigned)(file - files);
    return QC_OK;
}

struct efi_block *file_block(unsigned number)
{
    return &files[number - BASE_FILES_FIRST].block;
}

void file_release_base(unsigned number)
{
    struct file *file = &files[number - BASE_FILES_FIRST];

    if (--file->users_count == 0)
        file->volume = NULL;
}
