/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Finds and reads the configuration: \EFI\qcow2\qcow2.conf of the volume the driver comes from.
 *
 * Promises: it is read once, when the driver is loaded, which is the last moment at which that is
 * safe: from Start() or a request on, a file system's driver may be waiting for this very call. A
 * volume or a file that is not there is no matter; each line that is skipped is one on the console,
 * CONFIG_BAD_KEPT of them at most.
 *
 * Left to others: what the lines mean (config.c). A driver that was not loaded from a volume has no
 * configuration.
 */
#include "driver.h"
#include "say.h"

#define CONFIG_FILE L"\\EFI\\qcow2\\qcow2.conf"

struct config config;

static void say_of_file(const EFI_DEVICE_PATH *volume, const struct say_text *words)
{
    struct say_text text = {0};

    say_add(&text, "qcow2.conf ");
    say_add(&text, words->bytes);
    say_once(say_digest(SAY_DIGEST_START, text.bytes, text.len), volume, &text);
}

static void say_bad_lines(const EFI_DEVICE_PATH *volume)
{
    for (unsigned i = 0; i < config.bad_count && i < CONFIG_BAD_KEPT; i++) {
        struct say_text text = {0};

        say_add(&text, "line ");
        say_add_number(&text, config.bad[i].line);
        say_add(&text, " skipped: ");
        say_add(&text, config.bad[i].reason);
        say_of_file(volume, &text);
    }
    if (config.bad_count > CONFIG_BAD_KEPT) {
        struct say_text text = {0};

        say_add_number(&text, config.bad_count - CONFIG_BAD_KEPT);
        say_add(&text, " more lines skipped");
        say_of_file(volume, &text);
    }
}

/* As much of the file as there is, up to max bytes. */
static EFI_STATUS read_all(EFI_FILE_HANDLE file, char *buf, size_t max, size_t *ret_len)
{
    size_t len = 0;

    /* Every round but the last reads something. */
    while (len < max) {
        UINTN part = max - len;
        EFI_STATUS status = file->Read(file, &part, buf + len);

        if (EFI_ERROR(status))
            return status;
        if (part == 0)
            break;
        len += part;
    }
    *ret_len = len;
    return EFI_SUCCESS;
}

static EFI_STATUS read_file(EFI_FILE_IO_INTERFACE *file_system, char *buf, size_t max,
                            size_t *ret_len)
{
    EFI_FILE_HANDLE root, file;
    EFI_STATUS status = file_system->OpenVolume(file_system, &root);

    if (EFI_ERROR(status))
        return status;
    status = root->Open(root, &file, CONFIG_FILE, EFI_FILE_MODE_READ, 0);
    if (!EFI_ERROR(status)) {
        status = read_all(file, buf, max, ret_len);
        file->Close(file);
    }
    root->Close(root);
    return status;
}

void settings_load(EFI_HANDLE image_handle, EFI_HANDLE volume)
{
    static EFI_GUID guid_file_system = EFI_SIMPLE_FILE_SYSTEM_PROTOCOL_GUID;
    static char bytes[CONFIG_FILE_BYTES_MAX + 1];
    void *file_system, *path;
    struct say_text text = {0};
    size_t len;
    EFI_STATUS status;

    if (volume == NULL ||
        EFI_ERROR(efi_boot->OpenProtocol(volume, &guid_file_system, &file_system, image_handle,
                                         NULL, EFI_OPEN_PROTOCOL_GET_PROTOCOL)) ||
        EFI_ERROR(efi_boot->OpenProtocol(volume, &guid_device_path, &path, image_handle, NULL,
                                         EFI_OPEN_PROTOCOL_GET_PROTOCOL)))
        return;
    status = read_file(file_system, bytes, sizeof(bytes), &len);
    if (status == EFI_NOT_FOUND)
        return;
    if (EFI_ERROR(status) || len > CONFIG_FILE_BYTES_MAX) {
        say_add(&text, EFI_ERROR(status) ? "cannot be read" : "is not used: larger than 16 KiB");
        say_of_file(path, &text);
        return;
    }
    config_parse(&config, bytes, len);
    say_bad_lines(path);
    if (secureboot_narrow(&config)) {
        say_add(&text, "base, data and file are not followed: Secure Boot is on");
        say_of_file(path, &text);
    }
}
