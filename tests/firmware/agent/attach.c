/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Orders on images in files of a volume, through the driver's own protocol: attach them, let them
 * go, have it step aside; and what others do to such a file meanwhile.
 *
 * The volume is the one on the disk that select chose; `into` chooses a file's container instead,
 * so that the orders on images are about it, and `outer` the volume again.
 */
#include "agent.h"

#include "../../../efi/proto/qcow2_control.h"

#define SECTOR_BYTES  512u
#define ROUND_SECTORS 64u

static EFI_GUID guid_driver = QCOW2_DRIVER_GUID;
static EFI_HANDLE outer; /* the volume */
static EFI_HANDLE inner; /* the container chosen last */

static struct qcow2_control *find_control(void)
{
    return find_protocol(agent.driver, &guid_driver);
}

static void remember_outer(void)
{
    if (find_protocol(agent.parent, &guid_files) != NULL)
        outer = agent.parent;
}

static bool is_file_node(const EFI_DEVICE_PATH_PROTOCOL *node, const char *name)
{
    if (DevicePathType(node) != MEDIA_DEVICE_PATH || DevicePathSubType(node) != MEDIA_FILEPATH_DP)
        return false;
    const uint8_t *wide = (const uint8_t *)node + sizeof(*node);
    size_t i = 0;
    for (; name[i] != '\0'; i++)
        if (wide[2 * i] != (uint8_t)name[i] || wide[2 * i + 1] != 0)
            return false;
    return (size_t)DevicePathNodeLength(node) == sizeof(*node) + 2 * (i + 1);
}

static EFI_HANDLE find_container(const char *name)
{
    EFI_HANDLE *list;
    EFI_DEVICE_PATH_PROTOCOL *volume = find_protocol(outer, &guid_device_path);
    size_t count = find_handles(&guid_block_io, &list);
    for (size_t i = 0; volume != NULL && i < count; i++) {
        EFI_DEVICE_PATH_PROTOCOL *path = find_protocol(list[i], &guid_device_path);
        EFI_DEVICE_PATH_PROTOCOL *rest = path ? path_after(path, volume) : NULL;
        if (rest != NULL && is_file_node(rest, name) && IsDevicePathEnd(NextDevicePathNode(rest)))
            return list[i];
    }
    return NULL;
}

/* Every call of the protocol must leave the task priority as it was. */
static void answer(const char *order, EFI_STATUS status)
{
    say(order);
    say_status("status", status);
    say_number("tpl", current_tpl());
    say_end();
}

static EFI_STATUS attach(const char *name, bool is_readonly, EFI_HANDLE *ret_container)
{
    struct qcow2_options options = {.is_given = is_readonly, .is_readonly = is_readonly};
    return find_control()->attach_file(find_control(), outer, name, &options, ret_container);
}

/* attach NAME [readonly]: with \ between names. */
void order_attach(char **words)
{
    EFI_HANDLE container;
    remember_outer();
    answer("attach:", attach(words[1], words[2][0] != '\0', &container));
}

/* reattach [SNAPSHOT]: what lies on the chosen disk itself, with this state. */
void order_reattach(char **words)
{
    struct qcow2_options options = {.is_given = words[1][0] != '\0'};
    for (size_t i = 0; i + 1 < sizeof(options.snapshot) && words[1][i] != '\0'; i++)
        options.snapshot[i] = words[1][i];
    answer("reattach:", find_control()->attach_disk(find_control(), agent.parent, &options));
}

/* detach [NAME], as all below: without a name, what into chose last. */
static EFI_HANDLE named(const char *name)
{
    return name[0] == '\0' ? inner : find_container(name);
}

void order_detach(char **words)
{
    answer("detach:", find_control()->detach(find_control(), named(words[1])));
}

void order_pause(char **words)
{
    answer("pause:", find_control()->pause(find_control(), named(words[1])));
}

/* resume NAME [changed] */
void order_resume(char **words)
{
    EFI_HANDLE container = named(words[1]);
    answer("resume:", find_control()->resume(find_control(), container, words[2][0] != '\0'));
}

void order_list(char **words)
{
    struct qcow2_listed listed;
    UINTN count = 0;
    (void)words;
    while (find_control()->list(find_control(), count, &listed) == EFI_SUCCESS) {
        say("list:");
        say_number("file", listed.is_file);
        say_number("readonly", listed.is_readonly);
        say_number("bytes", listed.virtual_bytes);
        say(" reason=");
        say(listed.reason);
        say_end();
        count++;
    }
    say("listed:");
    say_number("count", count);
    say_end();
}

void order_into(char **words)
{
    inner = agent.parent = named(words[1]);
    say("into:");
    say_number("found", agent.parent != NULL);
    say_number("child", find_child(NULL) != NULL);
    say_end();
}

void order_outer(char **words)
{
    (void)words;
    agent.parent = outer;
    say("outer:");
    say_number("found", find_protocol(outer, &guid_files) != NULL);
    say_end();
}

/* Writes the round's number into the neighbour, at a place of the round's own. */
static EFI_STATUS touch(const char *name, uint64_t round)
{
    static uint8_t sector[SECTOR_BYTES];
    EFI_FILE_HANDLE file;
    UINTN len = sizeof(sector);
    agent.parent = outer;
    EFI_STATUS status = open_own(name, FILE_CHANGE, &file);
    if (status != EFI_SUCCESS)
        return status;
    pattern(sector, round, 0, 1);
    status = file->SetPosition(file, (round - 1) * SECTOR_BYTES);
    if (status == EFI_SUCCESS)
        status = file->Write(file, &len, sector);
    EFI_STATUS closed = file->Close(file);
    return status == EFI_SUCCESS ? closed : status;
}

/* Reads back what the round before wrote, and writes this one's. */
static EFI_STATUS exchange(EFI_HANDLE container, uint64_t round)
{
    static _Alignas(4096) uint8_t found[ROUND_SECTORS * SECTOR_BYTES];
    static _Alignas(4096) uint8_t wanted[ROUND_SECTORS * SECTOR_BYTES];
    agent.parent = container;
    EFI_BLOCK_IO_PROTOCOL *blocks = find_child(NULL);
    if (blocks == NULL)
        return EFI_NOT_FOUND;
    UINT32 id = blocks->Media->MediaId;
    EFI_STATUS status = blocks->ReadBlocks(blocks, id, 0, sizeof(found), found);
    if (status != EFI_SUCCESS)
        return status;
    pattern(wanted, round - 1, 0, ROUND_SECTORS);
    if (round > 1 && !equal(found, wanted, sizeof(found)))
        return EFI_CRC_ERROR;
    pattern(wanted, round, 0, ROUND_SECTORS);
    return blocks->WriteBlocks(blocks, id, 0, sizeof(wanted), wanted);
}

/*
 * rounds NAME NEIGHBOUR COUNT: attach, read, write, let go, with writes of the neighbour in
 * between. Stops at the first failure, or where the task priority is not what it was.
 */
void order_rounds(char **words)
{
    uint64_t count = number(words[3]), round = 0;
    EFI_STATUS status = EFI_SUCCESS;
    EFI_TPL tpl = current_tpl();
    remember_outer();
    while (status == EFI_SUCCESS && round < count && current_tpl() == tpl) {
        EFI_HANDLE container;
        round++;
        status = attach(words[1], false, &container);
        if (status != EFI_SUCCESS || current_tpl() != tpl)
            break;
        status = exchange(container, round);
        if (status == EFI_SUCCESS)
            status = touch(words[2], round);
        EFI_STATUS detached = find_control()->detach(find_control(), container);
        status = status == EFI_SUCCESS ? detached : status;
    }
    agent.parent = outer;
    say("rounds:");
    say_number("done", round);
    say_status("status", status);
    say_number("tpl", current_tpl());
    say_end();
}

/* Changes what the file system driver says of a file: its name, or its size. */
static EFI_STATUS set_info(const char *name, const char *new_name, uint64_t size_bytes)
{
    EFI_FILE_HANDLE file;
    EFI_STATUS status = open_own(name, FILE_CHANGE, &file);
    return status == EFI_SUCCESS ? change_info(file, new_name, size_bytes) : status;
}

/* move NAME NEWNAME */
void order_move(char **words)
{
    answer("move:", set_info(words[1], words[2], 0));
}

/* cut NAME BYTES: to a new size. */
void order_cut(char **words)
{
    answer("cut:", set_info(words[1], NULL, number(words[2])));
}
