/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Orders on the driver model: load and unload the driver, connect and disconnect controllers, call
 * the binding directly, count what is open and what exists, ask for names.
 */
#include "agent.h"

#include "../../../efi/proto/erase_block.h"

#define PATH_BYTES_MAX 512u

static EFI_GUID guid_binding = EFI_DRIVER_BINDING_PROTOCOL_GUID;
static EFI_GUID guid_name2 = EFI_COMPONENT_NAME2_PROTOCOL_GUID;

/* The device path of a file beside the agent, in static memory. name uses backslashes. */
static EFI_DEVICE_PATH_PROTOCOL *file_path(const char *name)
{
    static uint8_t bytes[PATH_BYTES_MAX];
    EFI_LOADED_IMAGE *self = find_protocol(agent.image, &guid_loaded_image);
    const uint8_t *volume = find_protocol(self->DeviceHandle, &guid_device_path);
    size_t at = 0;
    size_t name_chars = 0;

    while (!IsDevicePathEnd((const EFI_DEVICE_PATH_PROTOCOL *)(volume + at)))
        at += DevicePathNodeLength((const EFI_DEVICE_PATH_PROTOCOL *)(volume + at));
    while (name[name_chars] != '\0')
        name_chars++;
    size_t node_bytes = sizeof(EFI_DEVICE_PATH_PROTOCOL) + 2 * (name_chars + 1);
    if (at + node_bytes + sizeof(EFI_DEVICE_PATH_PROTOCOL) > sizeof(bytes))
        return NULL;
    agent.bs->CopyMem(bytes, (void *)volume, at);
    uint8_t *node = bytes + at;
    node[0] = MEDIA_DEVICE_PATH;
    node[1] = MEDIA_FILEPATH_DP;
    node[2] = (uint8_t)node_bytes;
    node[3] = (uint8_t)(node_bytes >> 8);
    for (size_t i = 0; i <= name_chars; i++) {
        node[4 + 2 * i] = (uint8_t)name[i];
        node[5 + 2 * i] = 0;
    }
    node += node_bytes;
    node[0] = END_DEVICE_PATH_TYPE;
    node[1] = END_ENTIRE_DEVICE_PATH_SUBTYPE;
    node[2] = sizeof(EFI_DEVICE_PATH_PROTOCOL);
    node[3] = 0;
    return (EFI_DEVICE_PATH_PROTOCOL *)bytes;
}

void order_load(char **words)
{
    EFI_HANDLE image = NULL;
    EFI_STATUS status =
        agent.bs->LoadImage(FALSE, agent.image, file_path(words[1]), NULL, 0, &image);
    say("load:");
    say_status("load", status);
    if (status == EFI_SUCCESS) {
        EFI_LOADED_IMAGE *loaded = find_protocol(image, &guid_loaded_image);
        /* Known before the driver runs, so that watch can tell whose calls it sees. */
        agent.driver_base = (uint64_t)(uintptr_t)loaded->ImageBase;
        agent.driver_bytes = loaded->ImageSize;
        status = agent.bs->StartImage(image, NULL, NULL);
        say_status("start", status);
        if (status == EFI_SUCCESS)
            agent.driver = image;
    }
    say_end();
}

void order_unload(char **words)
{
    (void)words;
    EFI_STATUS status = agent.bs->UnloadImage(agent.driver);
    if (status == EFI_SUCCESS)
        agent.driver = NULL;
    say_answer("unload:", status);
}

void order_connect(char **words)
{
    (void)words;
    /* find_handles' list is shared, and connecting may look for handles too. */
    static EFI_HANDLE all[AGENT_HANDLES_MAX];
    EFI_HANDLE *list;
    size_t count = find_handles(NULL, &list);
    agent.bs->CopyMem(all, list, count * sizeof(all[0]));
    for (size_t i = 0; i < count; i++)
        agent.bs->ConnectController(all[i], NULL, NULL, TRUE);
    say("connect:");
    say_number("handles", count);
    say_end();
}

void order_disconnect(char **words)
{
    (void)words;
    say("disconnect:");
    say_status("status", agent.bs->DisconnectController(agent.parent, NULL, NULL));
    say_end();
}

void order_reconnect(char **words)
{
    uint64_t count = number(words[1]);
    EFI_STATUS worst = EFI_SUCCESS;
    for (uint64_t i = 0; i < count; i++) {
        EFI_STATUS off = agent.bs->DisconnectController(agent.parent, NULL, NULL);
        EFI_STATUS on = agent.bs->ConnectController(agent.parent, NULL, NULL, TRUE);
        worst = off != EFI_SUCCESS ? off : on != EFI_SUCCESS ? on : worst;
    }
    say("reconnect:");
    say_status("worst", worst);
    say_end();
}

void order_select(char **words)
{
    agent.parent = find_disk(number(words[1]), number(words[2]));
    say("select:");
    say_number("found", agent.parent != NULL);
    say_number("child", find_child(NULL) != NULL);
    say_end();
}

void order_handles(char **words)
{
    (void)words;
    EFI_HANDLE *list;
    say("handles:");
    say_number("all", find_handles(NULL, &list));
    say_number("blockio", find_handles(&guid_block_io, &list));
    say_number("children", find_children_count());
    say_end();
}

/* Who has the parent's protocols open; after unload it must be as before load. */
void order_opens(char **words)
{
    (void)words;
    EFI_GUID *protocols[] = {&guid_disk_io, &guid_block_io, &guid_device_path};
    uint64_t all = 0;
    uint64_t ours = 0;
    uint64_t by_driver = 0;
    for (size_t i = 0; i < sizeof(protocols) / sizeof(protocols[0]); i++) {
        EFI_OPEN_PROTOCOL_INFORMATION_ENTRY *entries;
        UINTN count;
        if (agent.bs->OpenProtocolInformation(agent.parent, protocols[i], &entries, &count) !=
            EFI_SUCCESS)
            continue;
        for (UINTN j = 0; j < count; j++) {
            /* HandleProtocol and a plain GetProtocol never close: only owners are counted. */
            bool owner = entries[j].Attributes &
                         (EFI_OPEN_PROTOCOL_BY_DRIVER | EFI_OPEN_PROTOCOL_BY_CHILD_CONTROLLER);
            bool own = agent.driver != NULL && entries[j].AgentHandle == agent.driver;
            all += owner;
            ours += owner && own;
            by_driver += own && (entries[j].Attributes & EFI_OPEN_PROTOCOL_BY_DRIVER) != 0;
        }
        agent.bs->FreePool(entries);
    }
    say("opens:");
    say_number("all", all);
    say_number("ours", ours);
    say_number("bydriver", by_driver);
    say_end();
}

/* The binding's own answers, which ConnectController does not pass on. */
void order_start(char **words)
{
    (void)words;
    EFI_DRIVER_BINDING *binding = find_protocol(agent.driver, &guid_binding);
    say("start:");
    if (binding == NULL) {
        say(" nobinding");
    } else {
        EFI_STATUS status = binding->Supported(binding, agent.parent, NULL);
        say_status("supported", status);
        if (status == EFI_SUCCESS) {
            status = binding->Start(binding, agent.parent, NULL);
            say_status("started", status);
            say_number("child", find_child(NULL) != NULL);
        }
    }
    say_end();
}

/* The binding's own answer to taking the child away. */
void order_stop(char **words)
{
    EFI_DRIVER_BINDING *binding = find_protocol(agent.driver, &guid_binding);
    EFI_HANDLE child = NULL;
    EFI_STATUS status = EFI_NOT_FOUND;
    (void)words;
    if (binding != NULL && find_child(&child) != NULL)
        status = binding->Stop(binding, agent.parent, 1, &child);
    say_answer("stop:", status);
}

/* hold, hold end: the agent has the child's Erase Block open as a driver that never lets go. */
void order_hold(char **words)
{
    static EFI_GUID guid_erase_block = EFI_ERASE_BLOCK_PROTOCOL_GUID;
    EFI_HANDLE child = NULL;
    void *protocol;
    find_child(&child);
    say("hold:");
    if (words[1][0] == 'e')
        say_status("status", agent.bs->CloseProtocol(child, &guid_erase_block, agent.image, child));
    else
        say_status("status",
                   agent.bs->OpenProtocol(child, &guid_erase_block, &protocol, agent.image, child,
                                          EFI_OPEN_PROTOCOL_BY_DRIVER));
    say_end();
}

static void say_name(const char *key, EFI_STATUS status, CHAR16 **text)
{
    say("names:");
    if (status == EFI_SUCCESS)
        say_wide(key, *text);
    else
        say_status(key, status);
    say_end();
}

void order_names(char **words)
{
    (void)words;
    EFI_COMPONENT_NAME2_PROTOCOL *names = find_protocol(agent.driver, &guid_name2);
    EFI_HANDLE disk = agent.parent;
    EFI_HANDLE child = NULL;
    CHAR8 *english = (CHAR8 *)"en";
    CHAR8 *klingon = (CHAR8 *)"tlh";
    CHAR16 *text = NULL;

    find_child(&child);
    if (names == NULL) {
        say("names: none\n");
        return;
    }
    say_name("driver", names->GetDriverName(names, english, &text), &text);
    say_name("disk", names->GetControllerName(names, disk, NULL, english, &text), &text);
    say_name("child", names->GetControllerName(names, disk, child, english, &text), &text);
    say_name("nolanguage", names->GetDriverName(names, NULL, &text), &text);
    say_name("nobuffer", names->GetDriverName(names, english, NULL), &text);
    say_name("klingon", names->GetDriverName(names, klingon, &text), &text);
    say_name("nodisk", names->GetControllerName(names, NULL, NULL, english, &text), &text);
    say_name("foreign", names->GetControllerName(names, agent.image, NULL, english, &text), &text);
    say_name("notchild", names->GetControllerName(names, disk, agent.image, english, &text), &text);
}
