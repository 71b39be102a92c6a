/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Orders on the files of the volume that lies on the chosen disk itself, through the firmware's own
 * file system driver, in parts: what this driver keeps in memory, and when it writes it back, is
 * what they are for. The files of the volume inside an image are files.c's.
 */
#include "agent.h"

#define SECTOR_BYTES 512u

static EFI_FILE_HANDLE held; /* by edit, until sync */

/*
 * edit NAME OFF BYTES SEED [held]: writes the pattern there, in a new file if need be. With held
 * the file stays open and nothing is flushed until sync.
 */
void order_edit(char **words)
{
    EFI_FILE_HANDLE file;
    UINTN len = number(words[3]);
    EFI_STATUS status = len > AGENT_BUFFER_BYTES ? EFI_BAD_BUFFER_SIZE : EFI_SUCCESS;
    if (status == EFI_SUCCESS)
        status = open_own(words[1], FILE_CREATE, &file);
    if (status == EFI_SUCCESS) {
        pattern(agent_buffer, number(words[4]), 0, (len + SECTOR_BYTES - 1) / SECTOR_BYTES);
        status = file->SetPosition(file, number(words[2]));
        if (status == EFI_SUCCESS)
            status = file->Write(file, &len, agent_buffer);
        if (words[5][0] != '\0') {
            held = file;
        } else {
            EFI_STATUS closed = file->Close(file);
            status = status == EFI_SUCCESS ? closed : status;
        }
    }
    say_answer("edit:", status);
}

/* sync: closes the file that edit held, which flushes its volume. */
void order_sync(char **words)
{
    (void)words;
    EFI_STATUS status = held == NULL ? EFI_NOT_STARTED : held->Close(held);
    held = NULL;
    say_answer("sync:", status);
}

/* settle: flushes the volume through its root, as who is about to attach a file of it would. */
void order_settle(char **words)
{
    EFI_FILE_HANDLE root;
    (void)words;
    EFI_STATUS status = open_root(agent.parent, &root);
    if (status == EFI_SUCCESS) {
        status = root->Flush(root);
        root->Close(root);
    }
    say_answer("settle:", status);
}

/* peek NAME OFF BYTES: as the file system driver has it. */
void order_peek(char **words)
{
    EFI_FILE_HANDLE file;
    UINTN len = number(words[3]) % (AGENT_BUFFER_BYTES + 1);
    uint32_t crc = 0;
    EFI_STATUS status = open_own(words[1], FILE_READ, &file);
    if (status == EFI_SUCCESS) {
        status = file->SetPosition(file, number(words[2]));
        if (status == EFI_SUCCESS)
            status = file->Read(file, &len, agent_buffer);
        if (status == EFI_SUCCESS)
            crc = crc32_more(0, agent_buffer, len);
        file->Close(file);
    }
    say("peek:");
    say_status("status", status);
    say_number("bytes", len);
    say_hex("crc", crc);
    say_end();
}

/* remove NAME */
void order_remove(char **words)
{
    EFI_FILE_HANDLE file;
    EFI_STATUS status = open_own(words[1], FILE_CHANGE, &file);
    if (status == EFI_SUCCESS)
        status = file->Delete(file);
    say_answer("remove:", status);
}
