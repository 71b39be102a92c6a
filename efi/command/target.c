/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See target.h. Whether two paths are one file is asked of the volume itself: a file has a short
 * name and a long one, and letters of either case.
 */
#include "target.h"

#include "../../drivers/efi_block.h"
#include "../../drivers/fat.h"
#include "../path.h"
#include "console.h"
#include "files.h"

#define LISTED_MAX 64u

/* ---- names of the shell --------------------------------------------------------------------- */

bool target_map_name(const EFI_DEVICE_PATH *path, char name[TEXT_BYTES_MAX])
{
    static const char *const kinds[] = {"fs", "blk", ""};
    static char all[TEXT_BYTES_MAX];
    EFI_DEVICE_PATH *at = (EFI_DEVICE_PATH *)path;
    const CHAR16 *names = efi_shell != NULL ? efi_shell->GetMapFromDevicePath(&at) : NULL;

    if (names == NULL || !text_narrow(all, sizeof(all), names))
        return false;
    for (unsigned kind = 0; kind < sizeof(kinds) / sizeof(kinds[0]); kind++) {
        for (size_t start = 0, len; all[start] != '\0'; start += len + (all[start + len] == ';')) {
            len = text_find(all + start, ';');
            if (!text_same_part(all + start, text_find(kinds[kind], '\0'), kinds[kind]) || len == 0)
                continue;
            __builtin_memcpy(name, all + start, len);
            name[len] = '\0';
            return name[len - 1] == ':' || text_add(name, TEXT_BYTES_MAX, ":");
        }
    }
    return false;
}

/* The handle that the shell knows by a name, if it has the protocol. */
static EFI_HANDLE mapped(const char *name, EFI_GUID *guid)
{
    static CHAR16 wide[TEXT_BYTES_MAX];
    EFI_DEVICE_PATH *path;
    EFI_HANDLE handle;

    if (!text_widen(wide, TEXT_BYTES_MAX, name))
        return NULL;
    path = (EFI_DEVICE_PATH *)efi_shell->GetDevicePathFromMap(wide);
    if (path == NULL || EFI_ERROR(efi_boot->LocateDevicePath(guid, &path, &handle)) ||
        !IsDevicePathEnd(path))
        return NULL;
    return handle;
}

/* ---- attached images ------------------------------------------------------------------------ */

/* Where a container's file lies: the volume's handle and the path; false for disks. */
static bool split_container(EFI_HANDLE container, EFI_HANDLE *ret_volume, char *path)
{
    EFI_DEVICE_PATH *at = firmware_path(container);
    static CHAR16 wide[TEXT_BYTES_MAX];
    size_t bytes;

    if (at == NULL || EFI_ERROR(efi_boot->LocateDevicePath(&guid_file_system, &at, ret_volume)) ||
        DevicePathType(at) != MEDIA_DEVICE_PATH || at->SubType != MEDIA_FILEPATH_DP)
        return false;
    bytes = (size_t)DevicePathNodeLength(at) - sizeof(*at);
    if (bytes > sizeof(wide) - sizeof(wide[0]))
        return false;
    __builtin_memset(wide, 0, sizeof(wide));
    __builtin_memcpy(wide, at + 1, bytes);
    return text_narrow(path, TEXT_BYTES_MAX, wide);
}

void target_of(const struct qcow2_listed *listed, struct target *ret_target)
{
    static char path[TEXT_BYTES_MAX];
    const EFI_DEVICE_PATH *container = firmware_path(listed->container);
    EFI_HANDLE volume;

    *ret_target =
        (struct target){.container = listed->container, .is_attached = true, .listed = *listed};
    if (listed->is_file && split_container(listed->container, &volume, path)) {
        ret_target->volume = volume;
        if (path[0] != '\\')
            text_copy(ret_target->path, TEXT_BYTES_MAX, "\\");
        text_add(ret_target->path, TEXT_BYTES_MAX, path);
        if (target_map_name(firmware_path(volume), ret_target->name) &&
            text_add(ret_target->name, TEXT_BYTES_MAX, ret_target->path))
            return;
    } else if (container != NULL && target_map_name(container, ret_target->name)) {
        return;
    }
    firmware_path_text(container, ret_target->name);
}

bool target_is_below(const EFI_DEVICE_PATH *path, const EFI_DEVICE_PATH *start)
{
    size_t path_bytes, start_bytes;

    return path != NULL && start != NULL && path_measure(path, &path_bytes) &&
           path_measure(start, &start_bytes) && start_bytes <= path_bytes &&
           __builtin_memcmp(path, start, start_bytes) == 0;
}

/* Whether two paths of a volume are one file. */
static bool is_same_file(EFI_HANDLE volume, const char *a, const char *b)
{
    static _Alignas(EFI_BLOCK_IO_ALIGN_MAX) uint8_t buf[QC_FAT_BUFFER_BYTES];
    static struct efi_block block;
    struct qc_fat_file file_a, file_b;
    struct qc_fat fat;
    void *block_io;

    if (text_same_name(a, b))
        return true;
    if (EFI_ERROR(firmware_protocol(volume, &guid_block_io, &block_io)) ||
        !efi_block_fits(block_io))
        return false;
    efi_block_init(&block, block_io);
    return qc_fat_open(&fat, &block.disk, buf) == QC_OK && qc_fat_find(&fat, a, &file_a) == QC_OK &&
           qc_fat_find(&fat, b, &file_b) == QC_OK && file_a.entry_off == file_b.entry_off;
}

static bool is_target(const struct target *target, const struct target *attached)
{
    if (target->volume != NULL)
        return attached->volume == target->volume &&
               is_same_file(target->volume, target->path, attached->path);
    return target->container == attached->container ||
           target_is_below(firmware_path(target->container), firmware_path(attached->listed.child));
}

/* Looks among the attached images: by name where there is one, else by place. */
static bool find_attached(const char *name, struct target *target)
{
    static struct target attached;
    struct qcow2_control *control = driver_control();
    struct qcow2_listed listed;

    for (UINTN i = 0;
         control != NULL && i < LISTED_MAX && !EFI_ERROR(control->list(control, i, &listed)); i++) {
        target_of(&listed, &attached);
        if (name != NULL ? text_same_name(name, attached.name) : is_target(target, &attached)) {
            *target = attached;
            return true;
        }
    }
    return false;
}

bool target_is_attached(struct target *target)
{
    return find_attached(NULL, target);
}

bool target_is_layer(const struct target *target)
{
    struct qcow2_control *control = driver_control();

    return control != NULL && target->volume != NULL && !target->is_attached &&
           control->look_file(control, target->volume, target->path) == EFI_ALREADY_STARTED;
}

/* ---- files ---------------------------------------------------------------------------------- */

/* Appends the parts of more to path; "." and ".." and / mean what they do everywhere. */
static bool add_parts(char path[TEXT_BYTES_MAX], const char *more)
{
    size_t len = text_find(path, '\0');

    while (*more != '\0') {
        size_t part = 0;

        while (more[part] != '\0' && more[part] != '\\' && more[part] != '/')
            part++;
        if (text_same_part(more, part, "..")) {
            while (len > 0 && path[len - 1] != '\\')
                len--;
            len -= len > 0;
        } else if (part > 0 && !text_same_part(more, part, ".")) {
            if (part + 1 >= TEXT_BYTES_MAX - len)
                return false;
            path[len++] = '\\';
            __builtin_memcpy(path + len, more, part);
            len += part;
        }
        path[len] = '\0';
        more += part + (more[part] != '\0');
    }
    return true;
}

/* The current folder of a volume, of the current one where map is empty, as "FS0:\folder". */
static bool current_folder(const char *map, char folder[TEXT_BYTES_MAX])
{
    static CHAR16 wide[TEXT_BYTES_MAX];
    const CHAR16 *found = NULL;

    if (map[0] == '\0')
        found = efi_shell->GetCurDir(NULL);
    else if (text_widen(wide, TEXT_BYTES_MAX, map))
        found = efi_shell->GetCurDir(wide);
    return found != NULL && text_narrow(folder, TEXT_BYTES_MAX, found);
}

static int not_found(const char *what)
{
    return fail(what, " not found", "");
}

int target_place(const char *what, struct target *ret_target)
{
    static char map[TEXT_BYTES_MAX], folder[TEXT_BYTES_MAX];
    size_t colon = text_find(what, ':');
    const char *path = what[colon] == ':' ? what + colon + 1 : what;

    map[0] = folder[0] = '\0';
    if (what[colon] == ':') {
        __builtin_memcpy(map, what, colon + 1);
        map[colon + 1] = '\0';
    }
    *ret_target = (struct target){0};
    if (path[0] != '\\' && path[0] != '/' && !current_folder(map, folder) && map[0] == '\0')
        return not_found(what);
    if (path[0] == '\\' || path[0] == '/')
        current_folder("", folder);
    colon = text_find(folder, ':');
    if (map[0] == '\0') {
        if (folder[colon] != ':')
            return not_found(what);
        __builtin_memcpy(map, folder, colon + 1);
        map[colon + 1] = '\0';
    }
    ret_target->volume = mapped(map, &guid_file_system);
    if (ret_target->volume == NULL)
        return not_found(what);
    if (path[0] != '\\' && path[0] != '/' && folder[colon] == ':' &&
        !add_parts(ret_target->path, folder + colon + 1))
        return not_found(what);
    if (!add_parts(ret_target->path, path) || ret_target->path[0] == '\0' ||
        !text_copy(ret_target->name, TEXT_BYTES_MAX, map) ||
        !text_add(ret_target->name, TEXT_BYTES_MAX, ret_target->path))
        return not_found(what);
    return EXIT_GOOD;
}

int target_find(const char *what, struct target *ret_target)
{
    size_t colon = text_find(what, ':');
    int status;

    if (find_attached(what, ret_target))
        return EXIT_GOOD;
    if (what[colon] == ':' && what[colon + 1] == '\0') {
        *ret_target = (struct target){.container = mapped(what, &guid_block_io)};
        if (ret_target->container == NULL)
            return not_found(what);
        text_copy(ret_target->name, TEXT_BYTES_MAX, what);
        target_is_attached(ret_target);
        return EXIT_GOOD;
    }
    status = target_place(what, ret_target);
    if (status != EXIT_GOOD)
        return status;
    if (EFI_ERROR(files_look(ret_target->volume, ret_target->path)))
        return not_found(what);
    target_is_attached(ret_target);
    return EXIT_GOOD;
}

const char *target_last(const char *path)
{
    size_t last = 0;

    for (size_t i = 0; path[i] != '\0'; i++) {
        if (path[i] == '\\' || path[i] == '/' || path[i] == ':')
            last = i + 1;
    }
    return path + last;
}

bool target_beside(char beside[TEXT_BYTES_MAX], const char *path, const char *name)
{
    size_t folder = (size_t)(target_last(path) - path);

    __builtin_memcpy(beside, path, folder);
    beside[folder] = '\0';
    return text_add(beside, TEXT_BYTES_MAX, name);
}
