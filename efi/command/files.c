/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* See files.h. */
#include "files.h"

#include "../path.h"

#define INFO_BYTES_MAX (sizeof(EFI_FILE_INFO) + TEXT_BYTES_MAX * sizeof(CHAR16))

/* A file's information ends with its name, of any length. */
static union {
    EFI_FILE_INFO info;
    uint8_t bytes[INFO_BYTES_MAX];
} about;

static CHAR16 wide_path[TEXT_BYTES_MAX];

static EFI_STATUS open_root(EFI_HANDLE volume, EFI_FILE_HANDLE *ret_root)
{
    EFI_FILE_IO_INTERFACE *file_system;

    if (volume == NULL ||
        EFI_ERROR(firmware_protocol(volume, &guid_file_system, (void **)&file_system)))
        return EFI_NOT_FOUND;
    return file_system->OpenVolume(file_system, ret_root);
}

static EFI_STATUS open_with(EFI_HANDLE volume, const char *path, uint64_t mode, uint64_t attributes,
                            EFI_FILE_HANDLE *ret_file)
{
    EFI_FILE_HANDLE root;
    EFI_STATUS status = open_root(volume, &root);

    if (EFI_ERROR(status))
        return status;
    status = EFI_NOT_FOUND;
    if (text_widen(wide_path, TEXT_BYTES_MAX, path))
        status = root->Open(root, ret_file, wide_path, mode, attributes);
    root->Close(root);
    return status;
}

EFI_STATUS files_open(EFI_HANDLE volume, const char *path, uint64_t mode, EFI_FILE_HANDLE *ret_file)
{
    return open_with(volume, path, mode, 0, ret_file);
}

EFI_STATUS files_look(EFI_HANDLE volume, const char *path)
{
    EFI_FILE_HANDLE file;
    EFI_STATUS status = files_open(volume, path, EFI_FILE_MODE_READ, &file);

    if (!EFI_ERROR(status))
        file->Close(file);
    return status;
}

static EFI_STATUS get_info(EFI_FILE_HANDLE file)
{
    UINTN bytes = sizeof(about);

    return file->GetInfo(file, &guid_file_info, &bytes, &about);
}

EFI_STATUS files_size(EFI_FILE_HANDLE file, uint64_t *ret_bytes, uint64_t *ret_used_bytes)
{
    EFI_STATUS status = get_info(file);

    if (EFI_ERROR(status))
        return status;
    if ((about.info.Attribute & EFI_FILE_DIRECTORY) != 0)
        return EFI_UNSUPPORTED;
    *ret_bytes = about.info.FileSize;
    *ret_used_bytes = about.info.PhysicalSize;
    return EFI_SUCCESS;
}

EFI_STATUS files_shorten(EFI_FILE_HANDLE file, uint64_t bytes)
{
    EFI_STATUS status = get_info(file);

    if (EFI_ERROR(status))
        return status;
    about.info.FileSize = bytes;
    return file->SetInfo(file, &guid_file_info, (UINTN)about.info.Size, &about);
}

EFI_STATUS files_free_bytes(EFI_HANDLE volume, uint64_t *ret_bytes)
{
    static EFI_GUID guid = EFI_FILE_SYSTEM_INFO_ID;
    static union {
        EFI_FILE_SYSTEM_INFO info;
        uint8_t bytes[INFO_BYTES_MAX];
    } volume_info;
    UINTN bytes = sizeof(volume_info);
    EFI_FILE_HANDLE root;
    EFI_STATUS status = open_root(volume, &root);

    if (EFI_ERROR(status))
        return status;
    status = root->GetInfo(root, &guid, &bytes, &volume_info);
    root->Close(root);
    if (!EFI_ERROR(status))
        *ret_bytes = volume_info.info.FreeSpace;
    return status;
}

EFI_STATUS files_flush(EFI_HANDLE volume)
{
    EFI_FILE_HANDLE root;
    EFI_STATUS status = open_root(volume, &root);

    if (EFI_ERROR(status))
        return status;
    status = root->Flush(root);
    root->Close(root);
    return status;
}

EFI_STATUS files_remove(EFI_HANDLE volume, const char *path)
{
    EFI_FILE_HANDLE file;
    EFI_STATUS status = files_open(volume, path, EFI_FILE_MODE_READ | EFI_FILE_MODE_WRITE, &file);

    if (EFI_ERROR(status))
        return status == EFI_NOT_FOUND ? EFI_SUCCESS : status;
    return file->Delete(file) == EFI_SUCCESS ? EFI_SUCCESS : EFI_DEVICE_ERROR;
}

EFI_STATUS files_rename(EFI_HANDLE volume, const char *path, const char *name)
{
    EFI_FILE_HANDLE file;
    EFI_STATUS closed,
        status = files_open(volume, path, EFI_FILE_MODE_READ | EFI_FILE_MODE_WRITE, &file);

    if (EFI_ERROR(status))
        return status;
    status = get_info(file);
    if (!EFI_ERROR(status) && !text_widen(about.info.FileName, TEXT_BYTES_MAX, name))
        status = EFI_BAD_BUFFER_SIZE;
    if (!EFI_ERROR(status)) {
        size_t chars = 0;

        while (about.info.FileName[chars++] != 0)
            continue;
        about.info.Size = SIZE_OF_EFI_FILE_INFO + chars * sizeof(CHAR16);
        status = file->SetInfo(file, &guid_file_info, about.info.Size, &about);
    }
    closed = file->Close(file);
    return EFI_ERROR(status) ? status : closed;
}

EFI_STATUS files_replace(EFI_HANDLE volume, const char *new_path, const char *path,
                         const char *name)
{
    EFI_STATUS status = files_flush(volume);

    if (!EFI_ERROR(status))
        status = files_remove(volume, path);
    return EFI_ERROR(status) ? status : files_rename(volume, new_path, name);
}

EFI_STATUS files_make_folder(EFI_HANDLE volume, const char *path)
{
    EFI_FILE_HANDLE folder;
    EFI_STATUS status =
        open_with(volume, path, EFI_FILE_MODE_READ | EFI_FILE_MODE_WRITE | EFI_FILE_MODE_CREATE,
                  EFI_FILE_DIRECTORY, &folder);

    if (!EFI_ERROR(status))
        folder->Close(folder);
    return status;
}

const EFI_DEVICE_PATH *files_path(const EFI_DEVICE_PATH *volume, const char *path)
{
    static const EFI_DEVICE_PATH end = PATH_END_NODE_INIT;
    static uint8_t
        made[PATH_BYTES_MAX + sizeof(EFI_DEVICE_PATH) + sizeof(wide_path) + PATH_END_BYTES];
    EFI_DEVICE_PATH node = {MEDIA_DEVICE_PATH, MEDIA_FILEPATH_DP, {0, 0}};
    size_t off, chars = 0;

    if (!path_measure(volume, &off) || !text_widen(wide_path, TEXT_BYTES_MAX, path))
        return NULL;
    while (wide_path[chars++] != 0)
        continue;
    SetDevicePathNodeLength(&node, sizeof(node) + chars * sizeof(CHAR16));
    __builtin_memcpy(made, volume, off);
    __builtin_memcpy(made + off, &node, sizeof(node));
    off += sizeof(node);
    __builtin_memcpy(made + off, wide_path, chars * sizeof(CHAR16));
    off += chars * sizeof(CHAR16);
    __builtin_memcpy(made + off, &end, sizeof(end));
    return (const EFI_DEVICE_PATH *)made;
}

EFI_STATUS files_load(EFI_HANDLE volume, const char *path, EFI_HANDLE *ret_image)
{
    const EFI_DEVICE_PATH *volume_path, *file_path;
    EFI_HANDLE image = NULL;
    EFI_STATUS status = files_look(volume, path);

    if (EFI_ERROR(status))
        return status;
    volume_path = firmware_path(volume);
    if (volume_path == NULL)
        return EFI_DEVICE_ERROR;
    file_path = files_path(volume_path, path);
    if (file_path == NULL)
        return EFI_BAD_BUFFER_SIZE;
    status = efi_boot->LoadImage(FALSE, efi_self, (EFI_DEVICE_PATH *)file_path, NULL, 0, &image);
    if (status == EFI_SECURITY_VIOLATION && image != NULL)
        efi_boot->UnloadImage(image); /* loaded all the same, for others to decide */
    if (EFI_ERROR(status))
        /* The file was there a moment ago, so this "not found" means its content. */
        return status == EFI_NOT_FOUND ? EFI_DEVICE_ERROR : status;
    *ret_image = image;
    return EFI_SUCCESS;
}

EFI_STATUS files_start(EFI_HANDLE image)
{
    UINTN exit_bytes = 0;
    CHAR16 *exit_data = NULL;
    EFI_STATUS status = efi_boot->StartImage(image, &exit_bytes, &exit_data);

    if (exit_data != NULL)
        efi_boot->FreePool(exit_data);
    return status;
}

/* Appends the characters in front of a terminator, of which there may be none within max. */
static bool append(CHAR16 *file, size_t *chars, const void *text, size_t max)
{
    for (size_t i = 0; i < max; i++) {
        CHAR16 c;

        /* Nodes of a path lie at any address. */
        __builtin_memcpy(&c, (const char *)text + i * sizeof(c), sizeof(c));
        if (c == 0)
            break;
        if (*chars + 1 >= TEXT_BYTES_MAX)
            return false;
        file[(*chars)++] = c;
    }
    file[*chars] = 0;
    return true;
}

bool files_beside(char path[TEXT_BYTES_MAX], const char *name)
{
    const EFI_DEVICE_PATH *self = efi_loaded->FilePath;
    size_t off = 0, chars = 0;

    if (self == NULL)
        return false;
    do {
        const EFI_DEVICE_PATH *node = path_at(self, off);

        if (DevicePathType(node) == MEDIA_DEVICE_PATH && node->SubType == MEDIA_FILEPATH_DP &&
            !append(wide_path, &chars, node + 1,
                    ((size_t)DevicePathNodeLength(node) - sizeof(*node)) / sizeof(CHAR16)))
            return false;
    } while (path_step(self, &off));
    while (chars > 0 && wide_path[chars - 1] != L'\\')
        chars--;
    wide_path[chars] = 0;
    return text_narrow(path, TEXT_BYTES_MAX, wide_path) && text_add(path, TEXT_BYTES_MAX, name);
}
