/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The boot program: loads the driver, connects everything, starts the loader inside an image.
 *
 * It is meant to lie on an EFI system partition as \EFI\BOOT\BOOTX64.EFI (BOOTAA64.EFI on Arm),
 * with the driver beside it or in \EFI\qcow2\ of the same volume. It starts the file of that same
 * name of the first volume inside a qcow2 image that has one.
 *
 * Promises: each failure is one line on the console and an error status, so that the firmware goes
 * on with its next boot option; a copy of it inside an image starts nothing, so there is no circle.
 * Nothing is allocated; what the firmware returns is freed.
 */
#include <efi.h>
#include <stdbool.h>
#include <stddef.h>

#include "../path.h"

/* Of the processor that this program, and what it may start, is made for (UEFI 2.10, 3.5.1.1). */
#ifdef __aarch64__
#define DRIVER_NAME L"qcow2aa64.efi"
#define LOADER_NAME L"BOOTAA64.EFI"
#else
#define DRIVER_NAME L"qcow2x64.efi"
#define LOADER_NAME L"BOOTX64.EFI"
#endif
#define DRIVER_FOLDER  L"\\EFI\\qcow2\\"
#define LOADER_FILE    L"\\EFI\\BOOT\\" LOADER_NAME
#define FILE_CHARS_MAX 256u
#define HANDLES_MAX    4096u

static EFI_GUID guid_device_path = EFI_DEVICE_PATH_PROTOCOL_GUID;
static EFI_GUID guid_driver = QCOW2_DRIVER_GUID;
static EFI_GUID guid_file_system = EFI_SIMPLE_FILE_SYSTEM_PROTOCOL_GUID;
static EFI_GUID guid_loaded_image = EFI_LOADED_IMAGE_PROTOCOL_GUID;
static EFI_GUID guid_to_text = EFI_DEVICE_PATH_TO_TEXT_PROTOCOL_GUID;

static EFI_SYSTEM_TABLE *efi_system;
static EFI_BOOT_SERVICES *efi_boot;
static EFI_HANDLE self;
static EFI_LOADED_IMAGE_PROTOCOL *self_loaded;
static EFI_HANDLE handles[HANDLES_MAX];

EFI_STATUS EFIAPI efi_main(EFI_HANDLE image_handle, EFI_SYSTEM_TABLE *system);

/* ---- console ----------------------------------------------------------------------------------
 */

static void print(const CHAR16 *text)
{
    if (efi_system->ConOut != NULL)
        efi_system->ConOut->OutputString(efi_system->ConOut, (CHAR16 *)text);
}

static void say(const CHAR16 *a, const CHAR16 *b, const CHAR16 *c)
{
    print(L"qcow2: ");
    print(a);
    print(b);
    print(c);
    print(L"\r\n");
}

static const CHAR16 *reason(EFI_STATUS status)
{
    switch (status) {
    case EFI_NOT_FOUND:
        return L" not found";
    case EFI_ACCESS_DENIED:
    case EFI_SECURITY_VIOLATION:
        return L": refused by Secure Boot";
    case EFI_UNSUPPORTED:
    case EFI_LOAD_ERROR:
        return L": not a program for this machine";
    case EFI_DEVICE_ERROR:
    case EFI_VOLUME_CORRUPTED:
        return L": cannot be read";
    default:
        return L": firmware error";
    }
}

/* Says it, and returns status, so that failing is one expression. */
static EFI_STATUS fail(EFI_STATUS status, const CHAR16 *what)
{
    say(what, reason(status), L"");
    return status;
}

static void say_with_path(const CHAR16 *what, const EFI_DEVICE_PATH *path, const CHAR16 *end)
{
    EFI_DEVICE_PATH_TO_TEXT_PROTOCOL *to_text;
    CHAR16 *text = NULL;

    if (!EFI_ERROR(efi_boot->LocateProtocol(&guid_to_text, NULL, (void **)&to_text)))
        text = to_text->ConvertDevicePathToText(path, TRUE, TRUE);
    say(what, text != NULL ? text : L"an image", end);
    if (text != NULL)
        efi_boot->FreePool(text);
}

/* ---- files ------------------------------------------------------------------------------------
 */

static EFI_STATUS get_protocol(EFI_HANDLE handle, EFI_GUID *guid, void **ret_protocol)
{
    return efi_boot->OpenProtocol(handle, guid, ret_protocol, self, NULL,
                                  EFI_OPEN_PROTOCOL_GET_PROTOCOL);
}

static EFI_STATUS find_file(EFI_HANDLE volume, const CHAR16 *file)
{
    EFI_FILE_IO_INTERFACE *file_system;
    EFI_FILE_HANDLE root, opened;
    EFI_STATUS status = get_protocol(volume, &guid_file_system, (void **)&file_system);

    if (EFI_ERROR(status))
        return EFI_NOT_FOUND;
    status = file_system->OpenVolume(file_system, &root);
    if (EFI_ERROR(status))
        return status;
    status = root->Open(root, &opened, (CHAR16 *)file, EFI_FILE_MODE_READ, 0);
    if (!EFI_ERROR(status))
        opened->Close(opened);
    root->Close(root);
    return status;
}

/* The path of a file: its volume's path with a File Path node (10.3.5.4) and the end node. */
static const EFI_DEVICE_PATH *file_path(const EFI_DEVICE_PATH *volume, const CHAR16 *file)
{
    static const EFI_DEVICE_PATH end = PATH_END_NODE_INIT;
    static uint8_t path[PATH_BYTES_MAX + sizeof(EFI_DEVICE_PATH) + FILE_CHARS_MAX * sizeof(CHAR16) +
                        PATH_END_BYTES];
    EFI_DEVICE_PATH node = {MEDIA_DEVICE_PATH, MEDIA_FILEPATH_DP, {0, 0}};
    size_t off, chars = 0;

    if (!path_measure(volume, &off))
        return NULL;
    while (chars < FILE_CHARS_MAX && file[chars] != 0)
        chars++;
    if (chars == FILE_CHARS_MAX)
        return NULL;
    chars++;
    SetDevicePathNodeLength(&node, sizeof(node) + chars * sizeof(CHAR16));
    __builtin_memcpy(path, volume, off);
    __builtin_memcpy(path + off, &node, sizeof(node));
    off += sizeof(node);
    __builtin_memcpy(path + off, file, chars * sizeof(CHAR16));
    off += chars * sizeof(CHAR16);
    __builtin_memcpy(path + off, &end, sizeof(end));
    return (const EFI_DEVICE_PATH *)path;
}

/* EFI_NOT_FOUND where the volume has no such file. */
static EFI_STATUS load(EFI_HANDLE volume, const CHAR16 *file, EFI_HANDLE *ret_image)
{
    void *volume_path;
    const EFI_DEVICE_PATH *path;
    EFI_HANDLE image = NULL;
    EFI_STATUS status = find_file(volume, file);

    if (EFI_ERROR(status))
        return status;
    status = get_protocol(volume, &guid_device_path, &volume_path);
    if (EFI_ERROR(status))
        return status;
    path = file_path(volume_path, file);
    if (path == NULL)
        return EFI_BAD_BUFFER_SIZE;
    status = efi_boot->LoadImage(FALSE, self, (EFI_DEVICE_PATH *)path, NULL, 0, &image);
    if (status == EFI_SECURITY_VIOLATION && image != NULL)
        efi_boot->UnloadImage(image); /* loaded all the same, for others to decide */
    if (EFI_ERROR(status))
        /* The file was there a moment ago, so this "not found" means its content. */
        return status == EFI_NOT_FOUND ? EFI_DEVICE_ERROR : status;
    *ret_image = image;
    return EFI_SUCCESS;
}

static EFI_STATUS start(EFI_HANDLE image)
{
    UINTN exit_bytes = 0;
    CHAR16 *exit_data = NULL;
    EFI_STATUS status = efi_boot->StartImage(image, &exit_bytes, &exit_data);

    if (exit_data != NULL)
        efi_boot->FreePool(exit_data);
    return status;
}

/* ---- the driver -------------------------------------------------------------------------------
 */

/* Appends the characters in front of a terminator, of which there may be none within max. */
static bool append(CHAR16 *file, size_t *chars, const void *text, size_t max)
{
    for (size_t i = 0; i < max; i++) {
        CHAR16 c;

        /* Nodes of a path lie at any address. */
        __builtin_memcpy(&c, (const char *)text + i * sizeof(c), sizeof(c));
        if (c == 0)
            break;
        if (*chars + 1 >= FILE_CHARS_MAX)
            return false;
        file[(*chars)++] = c;
    }
    file[*chars] = 0;
    return true;
}

/* The name of a file in the folder this program was started from. */
static bool name_beside(CHAR16 *file, const CHAR16 *name)
{
    const EFI_DEVICE_PATH *path = self_loaded->FilePath;
    size_t off = 0, chars = 0;

    do {
        const EFI_DEVICE_PATH *node = path_at(path, off);

        if (DevicePathType(node) == MEDIA_DEVICE_PATH && node->SubType == MEDIA_FILEPATH_DP &&
            !append(file, &chars, node + 1,
                    ((size_t)DevicePathNodeLength(node) - sizeof(*node)) / sizeof(CHAR16)))
            return false;
    } while (path_step(path, &off));
    while (chars > 0 && file[chars - 1] != L'\\')
        chars--;
    return append(file, &chars, name, FILE_CHARS_MAX);
}

static EFI_STATUS load_driver(void)
{
    static CHAR16 beside[FILE_CHARS_MAX];
    EFI_HANDLE volume = self_loaded->DeviceHandle, driver;
    EFI_STATUS status = EFI_NOT_FOUND;
    void *loaded_driver;

    /* A Driver#### variable may have been faster; then no file is needed. */
    if (!EFI_ERROR(efi_boot->LocateProtocol(&guid_driver, NULL, &loaded_driver)))
        return EFI_SUCCESS;
    if (volume != NULL && self_loaded->FilePath != NULL && name_beside(beside, DRIVER_NAME))
        status = load(volume, beside, &driver);
    if (status == EFI_NOT_FOUND && volume != NULL)
        status = load(volume, DRIVER_FOLDER DRIVER_NAME, &driver);
    if (!EFI_ERROR(status))
        status = start(driver);
    if (EFI_ERROR(status))
        return fail(status, L"driver " DRIVER_NAME);
    return EFI_SUCCESS;
}

/* ---- the image's loader -----------------------------------------------------------------------
 */

/* All handles, or those with a protocol, into handles. */
static EFI_STATUS locate(EFI_GUID *guid, size_t *ret_count)
{
    UINTN bytes = sizeof(handles);
    EFI_STATUS status =
        efi_boot->LocateHandle(guid != NULL ? ByProtocol : AllHandles, guid, NULL, &bytes, handles);

    if (EFI_ERROR(status))
        return status;
    *ret_count = bytes / sizeof(handles[0]);
    return EFI_SUCCESS;
}

static EFI_STATUS connect_all(void)
{
    size_t count;
    EFI_STATUS status = locate(NULL, &count);

    if (EFI_ERROR(status))
        return fail(status, L"list of all devices");
    /* Most handles are no controllers, and say so. */
    for (size_t i = 0; i < count; i++)
        efi_boot->ConnectController(handles[i], NULL, NULL, TRUE);
    return EFI_SUCCESS;
}

static EFI_STATUS start_loader(void)
{
    size_t count = 0;
    EFI_STATUS answer = EFI_NOT_FOUND;

    locate(&guid_file_system, &count);
    for (size_t i = 0; i < count; i++) {
        EFI_HANDLE image;
        void *path;
        EFI_STATUS status = get_protocol(handles[i], &guid_device_path, &path);

        if (EFI_ERROR(status) || !path_is_in_image(path))
            continue;
        status = load(handles[i], LOADER_FILE, &image);
        if (!EFI_ERROR(status)) {
            say_with_path(L"starting " LOADER_FILE L" from ", path, L"");
            return start(image);
        }
        if (status != EFI_NOT_FOUND) {
            say_with_path(LOADER_FILE L" from ", path, reason(status));
            answer = status;
        }
    }
    if (answer == EFI_NOT_FOUND)
        say(L"no volume of a qcow2 image has ", LOADER_FILE, L"");
    return answer;
}

/* A copy of this program that lies inside an image would start itself, or its like, for ever. */
static bool is_inside_image(void)
{
    void *path;

    return self_loaded->DeviceHandle != NULL &&
           !EFI_ERROR(get_protocol(self_loaded->DeviceHandle, &guid_device_path, &path)) &&
           path_is_in_image(path);
}

EFI_STATUS EFIAPI efi_main(EFI_HANDLE image_handle, EFI_SYSTEM_TABLE *system)
{
    EFI_STATUS status;

    efi_system = system;
    efi_boot = system->BootServices;
    self = image_handle;
    status = get_protocol(self, &guid_loaded_image, (void **)&self_loaded);
    if (EFI_ERROR(status))
        return fail(status, L"this program");
    if (is_inside_image()) {
        say(L"the boot program does not start from inside an image", L"", L"");
        return EFI_UNSUPPORTED;
    }
    status = load_driver();
    if (EFI_ERROR(status))
        return status;
    status = connect_all();
    if (EFI_ERROR(status))
        return status;
    return start_loader();
}
