/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Loads the driver, connects everything, and runs all groups on each handle that the fw_cfg file
 * "opt/qcow2/targets" names: "image SLOT" is the child of the image on the disk of that PCI device
 * number, "parent SLOT" that disk's own handle. Then it ends the machine; the exit code says
 * whether all was tried.
 *
 * What these disks held is lost. A group that finds its handle gone ends the handle's turn.
 */
#include "conformance.h"

#define TARGETS_BYTES 64u /* the file's length; the rest of it is spaces */
#define WORDS_MAX     8u
#define PATH_BYTES    512u
#define EXIT_GOOD     0x10u
#define EXIT_BAD      0x11u

struct agent agent;
struct target target;
_Alignas(ALIGN_MAX) uint8_t buffer_a[BLOCKS_BYTES_MAX + ALIGN_MAX];
_Alignas(ALIGN_MAX) uint8_t buffer_b[BLOCKS_BYTES_MAX + ALIGN_MAX];
EFI_GUID guid_block_io2 = EFI_BLOCK_IO2_PROTOCOL_GUID;
EFI_GUID guid_erase_block = EFI_ERASE_BLOCK_PROTOCOL_GUID;

static void (*const groups[])(unsigned number) = {
    group_media,       group_arguments, group_data,    group_arguments2, group_data2,
    group_tokens,      group_erase,     group_path,    group_disk_io,    group_names,
    group_diagnostics, group_version,   group_binding, group_no_media,
};

bool target_find(void)
{
    target.handle = target.is_ours ? NULL : agent.parent;
    target.block_io = find_protocol(agent.parent, &guid_block_io);
    if (target.is_ours)
        target.block_io = find_child(&target.handle);
    if (target.block_io == NULL) {
        target.handle = NULL;
        return false;
    }
    target.media = target.block_io->Media;
    target.block_io2 = find_protocol(target.handle, &guid_block_io2);
    target.erase_block = find_protocol(target.handle, &guid_erase_block);
    return true;
}

/* The device path of a file on the volume that this program was loaded from. */
static EFI_DEVICE_PATH *file_path(const char *name, size_t name_bytes)
{
    static uint8_t path[PATH_BYTES];
    EFI_LOADED_IMAGE *self = find_protocol(agent.image, &guid_loaded_image);
    const uint8_t *volume = find_protocol(self->DeviceHandle, &guid_device_path);
    size_t node_bytes = sizeof(EFI_DEVICE_PATH) + 2 * name_bytes;
    size_t at = 0;

    while (!IsDevicePathEnd((const EFI_DEVICE_PATH *)(volume + at)) && at < PATH_BYTES)
        at += (size_t)DevicePathNodeLength((const EFI_DEVICE_PATH *)(volume + at));
    if (at + node_bytes + sizeof(EFI_DEVICE_PATH) > PATH_BYTES)
        return NULL;
    agent.bs->CopyMem(path, (void *)(uintptr_t)volume, at);
    path[at] = MEDIA_DEVICE_PATH;
    path[at + 1] = MEDIA_FILEPATH_DP;
    path[at + 2] = (uint8_t)node_bytes;
    for (size_t i = 0; i < name_bytes; i++)
        path[at + 4 + 2 * i] = (uint8_t)name[i];
    at += node_bytes;
    path[at] = END_DEVICE_PATH_TYPE;
    path[at + 1] = END_ENTIRE_DEVICE_PATH_SUBTYPE;
    path[at + 2] = sizeof(EFI_DEVICE_PATH);
    return (EFI_DEVICE_PATH *)path;
}

static bool load_driver(void)
{
    static const char name[] = "\\EFI\\BOOT\\qcow2x64.efi";
    EFI_HANDLE image = NULL;
    EFI_STATUS status =
        agent.bs->LoadImage(FALSE, agent.image, file_path(name, sizeof(name)), NULL, 0, &image);

    if (status == EFI_SUCCESS)
        status = agent.bs->StartImage(image, NULL, NULL);
    agent.driver = image;
    if (status != EFI_SUCCESS) {
        say("the driver is not loaded:");
        say_status("status", status);
        say_end();
    }
    return status == EFI_SUCCESS;
}

static void connect_all(void)
{
    static EFI_HANDLE all[AGENT_HANDLES_MAX];
    EFI_HANDLE *list;
    size_t count = find_handles(NULL, &list);

    agent.bs->CopyMem(all, list, count * sizeof(all[0]));
    for (size_t i = 0; i < count; i++)
        agent.bs->ConnectController(all[i], NULL, NULL, TRUE);
}

/* Whether the disk can be tried at all. */
static bool is_fit(void)
{
    const EFI_BLOCK_IO_MEDIA *media = target.media;

    return media->BlockSize >= 512 && media->BlockSize <= BLOCK_SIZE_MAX &&
           media->IoAlign <= ALIGN_MAX && media->LastBlock >= BLOCK_COUNT_MIN;
}

static bool run_groups(const char *kind, uint64_t slot)
{
    target.is_ours = kind[0] == 'i';
    agent.parent = find_disk(slot, 0);
    if (agent.parent == NULL || !target_find() || !is_fit()) {
        say("no handle to look at, or too small a disk\n");
        return false;
    }
    handle_begin(kind);
    for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]) && target.handle != NULL; i++)
        groups[i]((unsigned)i + 1);
    handle_end();
    /* What is written lies on the disk when the machine ends. */
    return agent.bs->DisconnectController(agent.parent, NULL, NULL) == EFI_SUCCESS &&
           target.handle != NULL;
}

static uint64_t number_of(const char *word)
{
    uint64_t value = 0;

    for (size_t i = 0; word[i] >= '0' && word[i] <= '9'; i++)
        value = value * 10 + (uint64_t)(word[i] - '0');
    return value;
}

/* Words, each ended by a space; pairs of a kind and a slot. */
static size_t split(char *text, char **words)
{
    size_t count = 0;

    for (size_t i = 0; i < TARGETS_BYTES && count < WORDS_MAX; i++) {
        if (text[i] == ' ')
            text[i] = '\0';
        else if (i == 0 || text[i - 1] == '\0')
            words[count++] = text + i;
    }
    return count;
}

EFI_STATUS EFIAPI efi_main(EFI_HANDLE image, EFI_SYSTEM_TABLE *st)
{
    static char targets[TARGETS_BYTES + 1];
    char *words[WORDS_MAX];
    bool all_tried = true;
    size_t count;

    agent.image = image;
    agent.st = st;
    agent.bs = st->BootServices;
    agent.bs->SetWatchdogTimer(0, 0, 0, NULL);
    if (!port_file("opt/qcow2/targets", targets, TARGETS_BYTES) || !load_driver())
        port_exit(EXIT_BAD);
    connect_all();
    count = split(targets, words);
    for (size_t i = 0; i + 1 < count; i += 2)
        all_tried = run_groups(words[i], number_of(words[i + 1])) && all_tried;
    judge_end();
    port_exit(all_tried && count > 0 ? EXIT_GOOD : EXIT_BAD);
}
