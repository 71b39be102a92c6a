/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The verbs install and uninstall: the files of \EFI\qcow2\ and the two variables that start them.
 *
 * Promises: every step is said; what is there already is left as it is, so that a second install
 * changes nothing; a file that is replaced stays until the new one is whole; uninstall takes away
 * exactly what install brings. A configuration that says something is nobody's but the user's and
 * stays.
 */
#include "console.h"
#include "options.h"
#include "verbs.h"

#define COMMAND_NAME "qcow2.efi"
#define CONFIG_NAME  "qcow2.conf"
#define FOLDER       "\\EFI\\qcow2"
#define NEW_SUFFIX   ".new"
#define COPY_BYTES   (64u * 1024)
#define CONFIG_BYTES 16384u /* as much as the driver reads */

static const char *const names[] = {DRIVER_NAME, COMMAND_NAME, "qcow2.man", CONFIG_NAME};

#define NAMES_COUNT (sizeof(names) / sizeof(names[0]))

static uint8_t buf[COPY_BYTES];

/* The volume that is meant: the word, or the one that this program came from. */
static EFI_HANDLE find_volume(const struct request *request, char name[TEXT_BYTES_MAX])
{
    static struct target target;
    EFI_HANDLE volume = efi_loaded->DeviceHandle;

    if (request->words_count > 0) {
        size_t colon = text_find(request->words[0], ':');

        if (request->words[0][colon] == '\0' || request->words[0][colon + 1] != '\0')
            return fail("not a volume: ", request->words[0], ""), NULL;
        /* Any file of it will do. */
        if (!text_copy(name, TEXT_BYTES_MAX, request->words[0]) ||
            !text_add(name, TEXT_BYTES_MAX, FOLDER) || target_place(name, &target) != EXIT_GOOD)
            return NULL;
        volume = target.volume;
    }
    if (!target_map_name(firmware_path(volume), name))
        text_copy(name, TEXT_BYTES_MAX, "");
    return volume;
}

static EFI_STATUS copy_open(EFI_FILE_HANDLE from, EFI_FILE_HANDLE to)
{
    UINTN bytes = sizeof(buf);
    EFI_STATUS status = from->Read(from, &bytes, buf);

    while (!EFI_ERROR(status) && bytes > 0) {
        status = to->Write(to, &bytes, buf);
        bytes = sizeof(buf);
        if (!EFI_ERROR(status))
            status = from->Read(from, &bytes, buf);
    }
    return status;
}

static EFI_STATUS copy(const char *from_path, EFI_HANDLE volume, const char *path)
{
    EFI_FILE_HANDLE from, to;
    EFI_STATUS closed,
        status = files_open(efi_loaded->DeviceHandle, from_path, EFI_FILE_MODE_READ, &from);

    if (EFI_ERROR(status))
        return status;
    status = files_remove(volume, path);
    if (!EFI_ERROR(status))
        status = files_open(volume, path,
                            EFI_FILE_MODE_READ | EFI_FILE_MODE_WRITE | EFI_FILE_MODE_CREATE, &to);
    if (!EFI_ERROR(status)) {
        status = copy_open(from, to);
        closed = to->Close(to);
        status = EFI_ERROR(status) ? status : closed;
        if (EFI_ERROR(status))
            files_remove(volume, path);
    }
    from->Close(from);
    return status;
}

static void path_in_folder(char path[TEXT_BYTES_MAX], const char *name)
{
    text_copy(path, TEXT_BYTES_MAX, FOLDER "\\");
    text_add(path, TEXT_BYTES_MAX, name);
}

/* The firmware may start the old one at any time: it is there until the new one is. */
static EFI_STATUS update(const char *from_path, EFI_HANDLE volume, const char *path,
                         const char *name)
{
    static char new_path[TEXT_BYTES_MAX];
    EFI_STATUS status;

    path_in_folder(new_path, name);
    text_add(new_path, TEXT_BYTES_MAX, NEW_SUFFIX);
    status = copy(from_path, volume, new_path);
    if (EFI_ERROR(status))
        return status;
    status = files_replace(volume, new_path, path, name);
    if (EFI_ERROR(status) && !EFI_ERROR(files_look(volume, path)))
        files_remove(volume, new_path);
    return status;
}

static const char *why_not(EFI_STATUS status)
{
    switch (status) {
    case EFI_NOT_FOUND:
        return " has no source beside this program";
    case EFI_VOLUME_FULL:
        return " cannot be written: not enough free space on its volume";
    default:
        return " cannot be written";
    }
}

/* One file; the help and the sample may be missing beside the program. */
static int install_file(EFI_HANDLE volume, const char *where, const char *name)
{
    static char from[TEXT_BYTES_MAX], path[TEXT_BYTES_MAX];
    bool is_there;
    EFI_STATUS status;

    path_in_folder(path, name);
    if (!files_beside(from, name))
        return fail("the folder of this program is not known", "", "");
    is_there = !EFI_ERROR(files_look(volume, path));
    if (is_there && (text_same(name, CONFIG_NAME) ||
                     (volume == efi_loaded->DeviceHandle && text_same_name(from, path)))) {
        say(where, path, " is there already");
        return EXIT_GOOD;
    }
    status = update(from, volume, path, name);
    if (status == EFI_NOT_FOUND && !text_same(name, DRIVER_NAME) && !text_same(name, COMMAND_NAME))
        return EXIT_GOOD;
    if (EFI_ERROR(status))
        return fail(where, path, why_not(status));
    say(where, path, " copied");
    return EXIT_GOOD;
}

static const EFI_DEVICE_PATH *option_path(EFI_HANDLE volume, const char *name)
{
    char path[sizeof(FOLDER) + 32];

    text_copy(path, sizeof(path), FOLDER "\\");
    text_add(path, sizeof(path), name);
    return firmware_path(volume) != NULL ? files_path(firmware_path(volume), path) : NULL;
}

static int install_option(const struct options_kind *kind, EFI_HANDLE volume, const char *name)
{
    const EFI_DEVICE_PATH *file = option_path(volume, name);
    char option[OPTIONS_NAME_BYTES] = "";
    EFI_STATUS status = file == NULL ? EFI_BAD_BUFFER_SIZE : options_find(kind, file, option);

    if (!EFI_ERROR(status) && option[0] != '\0') {
        say(option, " is there already", "");
        return EXIT_GOOD;
    }
    if (!EFI_ERROR(status))
        status = options_add(kind, file, option);
    if (EFI_ERROR(status))
        return fail("the firmware does not keep a variable ", kind->name, "####");
    say(option, " starts " FOLDER "\\", name);
    return EXIT_GOOD;
}

int verb_install(const struct request *request)
{
    static char where[TEXT_BYTES_MAX];
    EFI_HANDLE volume = find_volume(request, where);
    int status = EXIT_GOOD;

    if (volume == NULL)
        return EXIT_FAILED;
    if (EFI_ERROR(files_make_folder(volume, "\\EFI")) ||
        EFI_ERROR(files_make_folder(volume, FOLDER)))
        return fail(where, FOLDER " cannot be made", "");
    for (unsigned i = 0; i < NAMES_COUNT && status == EXIT_GOOD; i++)
        status = install_file(volume, where, names[i]);
    if (status == EXIT_GOOD)
        status = install_option(&options_driver, volume, DRIVER_NAME);
    if (status == EXIT_GOOD)
        status = install_option(&options_boot, volume, COMMAND_NAME);
    return status;
}

/* ---- uninstall ------------------------------------------------------------------------------ */

/* Whether a configuration says something: a line that is neither empty nor a comment. */
static bool says_something(EFI_HANDLE volume, const char *path)
{
    UINTN bytes = CONFIG_BYTES;
    EFI_FILE_HANDLE file;
    bool is_comment = false;
    EFI_STATUS status = files_open(volume, path, EFI_FILE_MODE_READ, &file);

    if (EFI_ERROR(status))
        return true;
    status = file->Read(file, &bytes, buf);
    file->Close(file);
    if (EFI_ERROR(status) || bytes == CONFIG_BYTES)
        return true;
    for (UINTN i = 0; i < bytes; i++) {
        if (buf[i] == '\n') {
            is_comment = false;
        } else if (buf[i] == '#') {
            is_comment = true;
        } else if (!is_comment && buf[i] != ' ' && buf[i] != '\t' && buf[i] != '\r') {
            return true;
        }
    }
    return false;
}

static int uninstall_option(const struct options_kind *kind, EFI_HANDLE volume, const char *name)
{
    const EFI_DEVICE_PATH *file = option_path(volume, name);
    char option[OPTIONS_NAME_BYTES] = "";
    EFI_STATUS status = file == NULL ? EFI_BAD_BUFFER_SIZE : options_find(kind, file, option);

    if (!EFI_ERROR(status) && option[0] == '\0')
        return EXIT_GOOD;
    if (!EFI_ERROR(status))
        status = options_remove(kind, option);
    if (EFI_ERROR(status))
        return fail(kind->name, "####: the firmware does not change the variable", "");
    say(option, " removed", "");
    return EXIT_GOOD;
}

static int uninstall_file(EFI_HANDLE volume, const char *where, const char *name)
{
    static char path[TEXT_BYTES_MAX];

    path_in_folder(path, name);
    if (EFI_ERROR(files_look(volume, path)))
        return EXIT_GOOD;
    if (text_same(name, CONFIG_NAME) && says_something(volume, path)) {
        say(where, path, " stays: it is your configuration");
        return EXIT_GOOD;
    }
    if (EFI_ERROR(files_remove(volume, path)))
        return fail(where, path, " cannot be removed");
    say(where, path, " removed");
    return EXIT_GOOD;
}

int verb_uninstall(const struct request *request)
{
    static char where[TEXT_BYTES_MAX];
    EFI_HANDLE volume = find_volume(request, where);
    int status;

    if (volume == NULL)
        return EXIT_FAILED;
    status = uninstall_option(&options_driver, volume, DRIVER_NAME);
    if (status == EXIT_GOOD)
        status = uninstall_option(&options_boot, volume, COMMAND_NAME);
    for (unsigned i = 0; i < NAMES_COUNT && status == EXIT_GOOD; i++)
        status = uninstall_file(volume, where, names[i]);
    /* Unless something of others is in it. */
    if (status == EXIT_GOOD)
        files_remove(volume, FOLDER);
    return status;
}
