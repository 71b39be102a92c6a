/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Who has which file: as a container with a handle of its own, or below an image; see file.h.
 * What makes a disk of a file is in filedisk.c.
 */
#include "filedisk.h"
#include "say.h"
#include "utf8.h"

static EFI_GUID guid_file_system = EFI_SIMPLE_FILE_SYSTEM_PROTOCOL_GUID;

static struct file *file_of(EFI_HANDLE container)
{
    for (unsigned i = 0; i < FILES_MAX; i++) {
        if (container != NULL && filedisks[i].volume != NULL && filedisks[i].container == container)
            return &filedisks[i];
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
        if (filedisks[i].volume != NULL && filedisks[i].container != NULL)
            return filedisks[i].container;
    }
    return NULL;
}

const struct config_entry *file_entry(EFI_HANDLE container)
{
    struct file *file = file_of(container);

    return file != NULL ? &file->entry : NULL;
}

const char *file_readonly_reason(EFI_HANDLE container)
{
    const struct file *file = file_of(container);

    if (file == NULL || !file->extents.disk.readonly || file->below.disk.readonly)
        return NULL;
    return file->shares_pages ? "its file shares pages with other files: read-only; qcow2 reserve "
                                "makes it writable"
                              : "its file ends within a block: read-only";
}

/* ---- the firmware's own driver on the volume ------------------------------------------------ */

/*
 * What that driver has in memory of the file, and not written, would later land on what is written
 * here. Nobody may be inside of it: so at TPL_APPLICATION only, and from no request.
 */
static bool flush_volume(EFI_HANDLE volume)
{
    EFI_FILE_IO_INTERFACE *file_system;
    EFI_FILE_HANDLE root;
    EFI_STATUS status;

    if (EFI_ERROR(efi_boot->OpenProtocol(volume, &guid_file_system, (void **)&file_system,
                                         driver_binding.DriverBindingHandle, NULL,
                                         EFI_OPEN_PROTOCOL_GET_PROTOCOL)))
        return true;
    status = file_system->OpenVolume(file_system, &root);
    if (EFI_ERROR(status))
        return false;
    status = root->Flush(root);
    root->Close(root);
    return !EFI_ERROR(status) || status == EFI_WRITE_PROTECTED || status == EFI_ACCESS_DENIED;
}

/* The driver that has the volume, NULL where none has. */
static EFI_HANDLE driver_of(EFI_HANDLE volume)
{
    EFI_OPEN_PROTOCOL_INFORMATION_ENTRY *entries;
    EFI_HANDLE found = NULL;
    UINTN count;

    if (EFI_ERROR(efi_boot->OpenProtocolInformation(volume, &guid_disk_io, &entries, &count)))
        return NULL;
    for (UINTN i = 0; i < count; i++) {
        if ((entries[i].Attributes & EFI_OPEN_PROTOCOL_BY_DRIVER) != 0)
            found = entries[i].AgentHandle;
    }
    efi_boot->FreePool(entries);
    return found;
}

/*
 * Pages of the file that the driver of the volume read earlier are old by now, and nothing but a
 * new start makes it forget them: a copy of the file would be of old content, and whoever appends
 * to it would write old pages back. Files that others have open on the volume are closed by this.
 */
static void refresh_volume(EFI_HANDLE volume)
{
    EFI_HANDLE driver = driver_of(volume);

    if (driver == NULL || !flush_volume(volume))
        return;
    efi_boot->DisconnectController(volume, driver, NULL);
    efi_boot->ConnectController(volume, NULL, NULL, FALSE);
}

/* ---- containers ----------------------------------------------------------------------------- */

/* Takes those away whose file has gone: the path, or the place of their entry, may be used anew. */
static void sweep(void)
{
    for (unsigned i = 0; i < FILES_MAX; i++) {
        struct file *file = &filedisks[i];

        if (file->volume == NULL || file->container == NULL ||
            filedisk_verify(file) != EFI_NO_MEDIA)
            continue;
        efi_boot->DisconnectController(file->container, NULL, NULL);
        if (attached_by_container(file->container) == NULL)
            file_close(file->container);
    }
}

/* Whether the first block is an image's: nobody else shall mount what else is in a file. */
static bool holds_image(struct file *file)
{
    static _Alignas(EFI_BLOCK_IO_ALIGN_MAX) uint8_t first[EFI_BLOCK_BYTES_MAX];
    struct qc_disk *disk = &file->extents.disk;
    struct qc_header header;
    struct qc_detail detail;

    return disk->ops->read(disk, 0, first, disk->block_bytes) == QC_OK &&
           qc_header_parse(first, QC_HEADER_BYTES_MAX, &header, &detail) != QC_FOREIGN;
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
        c = utf8_next(&text);
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

#define PATH_SAID_MAX 128u /* so that the reason has room behind it */

/* Says why, with the file's name, and returns status. */
static EFI_STATUS say_refused(EFI_STATUS status, const EFI_DEVICE_PATH *volume, const char *path,
                              const char *why)
{
    struct say_text text = {0};

    for (size_t i = 0; i < PATH_SAID_MAX && path[i] != '\0'; i++)
        say_add(&text, (const char[]){(path[i] & 0x80) != 0 ? '?' : path[i], '\0'});
    say_add(&text, ": refused: ");
    say_add(&text, why);
    say_line(volume, &text);
    return status;
}

static EFI_STATUS install(struct file *file, const EFI_DEVICE_PATH *volume_path, const char *path)
{
    EFI_STATUS status;

    if (!make_path(file, volume_path))
        return say_refused(EFI_UNSUPPORTED, volume_path, path, "its path is too long");
    status = efi_boot->InstallMultipleProtocolInterfaces(
        &file->container, &guid_block_io, &file->block_io, &guid_device_path, file->path, NULL);
    if (EFI_ERROR(status))
        return say_refused(status, volume_path, path, "the firmware takes no new disk");
    return EFI_SUCCESS;
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
    sweep();
    if (!flush_volume(volume))
        return say_refused(EFI_DEVICE_ERROR, volume_path, path, "its volume cannot be written");
    why = filedisk_take(volume, path, &file, &detail);
    /* One that holds no image, for want of a base perhaps, or that nobody connected, is made anew.
     */
    if (why == QC_OK && file->container != NULL && attached_by_container(file->container) == NULL &&
        !EFI_ERROR(file_close(file->container)))
        why = filedisk_take(volume, path, &file, &detail);
    if (why != QC_OK)
        return say_refused(told(why), volume_path, path, detail.text);
    if (file->container != NULL)
        return EFI_ALREADY_STARTED;
    if (file->users_count > 0)
        return say_refused(EFI_ACCESS_DENIED, volume_path, path, "it is part of another image");
    if (!holds_image(file)) {
        file->volume = NULL;
        return say_refused(EFI_UNSUPPORTED, volume_path, path, "the file is no image");
    }
    file->entry = *entry;
    status = install(file, volume_path, path);
    if (EFI_ERROR(status)) {
        file->volume = NULL;
        return status;
    }
    *ret_container = file->container;
    return EFI_SUCCESS;
}

bool file_is_used(EFI_HANDLE volume, const char *path)
{
    struct file *file;
    struct qc_detail detail;
    qc_status status = filedisk_take(volume, path, &file, &detail);

    if (status != QC_OK)
        return status == QC_NOSPACE;
    if (file->container != NULL || file->users_count > 0)
        return true;
    file->volume = NULL;
    return false;
}

EFI_STATUS file_close(EFI_HANDLE container)
{
    struct file *file = file_of(container);
    EFI_HANDLE volume;
    EFI_STATUS status;
    bool is_stale;

    if (file == NULL)
        return EFI_NOT_FOUND;
    status = efi_boot->UninstallMultipleProtocolInterfaces(
        container, &guid_block_io, &file->block_io, &guid_device_path, file->path, NULL);
    if (EFI_ERROR(status))
        return status;
    volume = file->volume;
    is_stale = file->has_written && filedisk_has_volume(file);
    file->volume = NULL;
    if (is_stale)
        refresh_volume(volume);
    return EFI_SUCCESS;
}

/* Of several entries for one file the first counts. */
static bool is_first(unsigned number)
{
    const struct config_entry *entry = &config.entries[number];
    unsigned i = 0;

    while (i < number &&
           (!config.entries[i].has_file ||
            __builtin_memcmp(config.entries[i].file, entry->file, sizeof(entry->file)) != 0))
        i++;
    return i == number;
}

void file_open_configured(EFI_HANDLE volume)
{
    for (unsigned i = 0; volume != NULL && !config.is_narrowed && i < config.entries_count; i++) {
        EFI_HANDLE container;

        if (config.entries[i].has_file && is_first(i))
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
        else if (number >= BASE_FILES_FIRST && !filedisks[number - BASE_FILES_FIRST].is_data)
            file = &filedisks[number - BASE_FILES_FIRST];
    }
    return file;
}

/* The name, behind the folder of who names it. False where it is too long. */
static bool join(char *path, const struct file *namer, const char *name)
{
    size_t folder = 0, len = filedisk_length(name);

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
        if (attached->base_numbers[i] == BASE_FILES_FIRST + (size_t)(file - filedisks))
            return true;
    }
    return file->container != NULL && file->container == attached->container;
}

/* A layer is only read, so that many may have it; who may be written is one image's alone. */
static qc_status check_use(const struct attached *attached, const struct file *file, bool is_data,
                           struct qc_detail *detail)
{
    if (is_used_by(attached, file))
        return filedisk_refuse(detail, QC_REFUSED,
                               "backing name refused: the base lies above itself");
    if (file->container != NULL || (file->users_count > 0 && (is_data || file->is_data)))
        return filedisk_refuse(detail, QC_REFUSED,
                               "backing name refused: the file is in use by others");
    return QC_OK;
}

qc_status file_find_base(struct attached *attached, struct qc_base *base, unsigned *ret_number)
{
    static char path[FILE_PATH_MAX];
    const struct file *namer = namer_of(attached);
    struct file *file;
    qc_status status;

    if (namer == NULL || config.is_narrowed)
        return filedisk_refuse(&base->detail, QC_REFUSED,
                               "backing name refused: no base in the configuration");
    status = qc_name_check(base->name, &base->detail);
    if (status != QC_OK)
        return status;
    if (!join(path, namer, base->name))
        return filedisk_refuse(&base->detail, QC_REFUSED,
                               "backing name refused: its path is too long");
    status = filedisk_take(namer->volume, path, &file, &base->detail);
    if (status == QC_OK)
        status = check_use(attached, file, base->is_data_file, &base->detail);
    if (status != QC_OK)
        return status;
    file->is_data = base->is_data_file;
    file->users_count++;
    file->block.disk.readonly |= file->media.ReadOnly || !base->is_data_file || base->depth > 0;
    *ret_number = BASE_FILES_FIRST + (unsigned)(file - filedisks);
    return QC_OK;
}

struct efi_block *file_block(unsigned number)
{
    return &filedisks[number - BASE_FILES_FIRST].block;
}

void file_release_base(unsigned number)
{
    struct file *file = &filedisks[number - BASE_FILES_FIRST];

    if (--file->users_count > 0)
        return;
    /* Closing the container of an image on the same volume refreshes it. */
    for (unsigned i = 0; i < FILES_MAX && file->has_written; i++) {
        if (filedisks[i].volume == file->volume && filedisks[i].container != NULL)
            filedisks[i].has_written = true;
    }
    file->volume = NULL;
}
