/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Orders on the files of the volume inside the image, all through the firmware's own file system
 * driver: the most demanding writer that an image has here. And one on the volume that the agent
 * and the driver come from. How files are opened, on whichever volume, is here too.
 */
#include "agent.h"

#define NAME_CHARS_MAX 128u
#define SECTOR_BYTES   512u
#define COPY_BYTES     (64u * 1024)
#define END_OF_FILE    UINT64_MAX

static void widen(CHAR16 *wide, const char *name)
{
    size_t i = 0;
    for (; name[i] != '\0' && i < NAME_CHARS_MAX - 1; i++)
        wide[i] = (CHAR16)name[i];
    wide[i] = 0;
}

EFI_STATUS open_root(EFI_HANDLE volume, EFI_FILE_HANDLE *ret_root)
{
    EFI_FILE_IO_INTERFACE *files = find_protocol(volume, &guid_files);
    return files == NULL ? EFI_NO_MEDIA : files->OpenVolume(files, ret_root);
}

static EFI_STATUS open_of(EFI_HANDLE volume, const char *name, uint64_t mode,
                          EFI_FILE_HANDLE *ret_file)
{
    CHAR16 wide[NAME_CHARS_MAX];
    EFI_FILE_HANDLE root;
    EFI_STATUS status = open_root(volume, &root);
    widen(wide, name);
    if (status != EFI_SUCCESS)
        return status;
    status = root->Open(root, ret_file, wide, mode, 0);
    root->Close(root);
    return status;
}

EFI_STATUS open_file(const char *name, uint64_t mode, EFI_FILE_HANDLE *ret_file)
{
    return open_of(find_volume(), name, mode, ret_file);
}

EFI_STATUS open_own(const char *name, uint64_t mode, EFI_FILE_HANDLE *ret_file)
{
    return open_of(agent.parent, name, mode, ret_file);
}

EFI_STATUS change_info(EFI_FILE_HANDLE file, const char *new_name, uint64_t size_bytes)
{
    static uint8_t bytes[sizeof(EFI_FILE_INFO) + 2 * NAME_CHARS_MAX];
    static EFI_GUID guid_info = EFI_FILE_INFO_ID;
    EFI_FILE_INFO *info = (EFI_FILE_INFO *)(void *)bytes;
    UINTN len = sizeof(bytes);
    EFI_STATUS status = file->GetInfo(file, &guid_info, &len, bytes);
    if (new_name != NULL)
        widen(info->FileName, new_name);
    else
        info->FileSize = size_bytes;
    info->Size = sizeof(bytes);
    if (status == EFI_SUCCESS)
        status = file->SetInfo(file, &guid_info, sizeof(bytes), bytes);
    EFI_STATUS closed = file->Close(file);
    return status == EFI_SUCCESS ? closed : status;
}

/* put NAME BYTES SEED: a new file with the pattern as its content. */
void order_put(char **words)
{
    EFI_FILE_HANDLE file;
    UINTN len = number(words[2]);
    EFI_STATUS status = len > AGENT_BUFFER_BYTES ? EFI_BAD_BUFFER_SIZE : EFI_SUCCESS;
    if (status == EFI_SUCCESS)
        status = open_file(words[1], FILE_CREATE, &file);
    if (status == EFI_SUCCESS) {
        pattern(agent_buffer, number(words[3]), 0, (len + SECTOR_BYTES - 1) / SECTOR_BYTES);
        status = file->Write(file, &len, agent_buffer);
        EFI_STATUS closed = file->Close(file);
        status = status == EFI_SUCCESS ? closed : status;
    }
    say_answer("put:", status);
}

/* rename NAME NEWNAME: within its folder. */
void order_rename(char **words)
{
    EFI_FILE_HANDLE file;
    EFI_STATUS status = open_file(words[1], FILE_CHANGE, &file);
    if (status == EFI_SUCCESS)
        status = change_info(file, words[2], 0);
    say_answer("rename:", status);
}

void order_delete(char **words)
{
    EFI_FILE_HANDLE file;
    EFI_STATUS status = open_file(words[1], FILE_CHANGE, &file);
    if (status == EFI_SUCCESS)
        status = file->Delete(file);
    say_answer("delete:", status);
}

/* copy SOURCE TARGET: in pieces that are no whole clusters of anything. */
void order_copy(char **words)
{
    EFI_FILE_HANDLE source, target;
    UINTN len = 1;
    EFI_STATUS status = open_file(words[1], FILE_READ, &source);
    if (status == EFI_SUCCESS) {
        status = open_file(words[2], FILE_CREATE, &target);
        if (status == EFI_SUCCESS) {
            while (status == EFI_SUCCESS && len != 0) {
                len = COPY_BYTES - 1;
                status = source->Read(source, &len, agent_buffer);
                if (status == EFI_SUCCESS && len != 0)
                    status = target->Write(target, &len, agent_buffer);
            }
            EFI_STATUS closed = target->Close(target);
            status = status == EFI_SUCCESS ? closed : status;
        }
        source->Close(source);
    }
    say_answer("copy:", status);
}

static EFI_STATUS append_line(EFI_FILE_HANDLE file, char **words)
{
    uint8_t *line = agent_buffer;
    UINTN len = 0;
    if (words[1][0] == '#') {
        len = number(words[2]) % AGENT_BUFFER_BYTES;
        agent.bs->SetMem(line, len, '#');
    } else {
        for (size_t i = 1; i < AGENT_WORDS_MAX && words[i][0] != '\0'; i++) {
            for (size_t j = 0; words[i][j] != '\0'; j++)
                line[len++] = (uint8_t)words[i][j];
            line[len++] = ' ';
        }
    }
    line[len++] = '\n';
    EFI_STATUS status = file->SetPosition(file, END_OF_FILE);
    return status == EFI_SUCCESS ? file->Write(file, &len, line) : status;
}

/*
 * config WORDS, or config # BYTES for a long comment: one more line of the driver's configuration,
 * which is read when it is loaded.
 */
void order_config(char **words)
{
    EFI_LOADED_IMAGE *self = find_protocol(agent.image, &guid_loaded_image);
    EFI_FILE_HANDLE root, folder, file;
    EFI_STATUS status = open_root(self->DeviceHandle, &root);
    if (status == EFI_SUCCESS) {
        status = root->Open(root, &folder, L"EFI\\qcow2", FILE_CREATE, EFI_FILE_DIRECTORY);
        if (status == EFI_SUCCESS) {
            status = folder->Open(folder, &file, L"qcow2.conf", FILE_CREATE, 0);
            if (status == EFI_SUCCESS) {
                status = append_line(file, words);
                file->Close(file);
            }
            folder->Close(folder);
        }
        root->Close(root);
    }
    say_answer("config:", status);
}
