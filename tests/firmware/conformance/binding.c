/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * EFI_DRIVER_BINDING_PROTOCOL of our driver (UEFI 2.10, 11.1) and what it says of itself: answers
 * about disks that are its own, free, or others', with and without a rest of a device path; starts
 * and stops without end; structures that tools can put their own functions into.
 */
#include "conformance.h"

#include "../../../efi/proto/qcow2.h"
#include "../../../efi/proto/supported_version.h"

#define VERSION_MIN 0x10u /* of independent vendors' drivers */
#define VERSION_MAX 0xFFFFFFEFu
#define ROUNDS      3u
#define PATH_BYTES  64u

static EFI_GUID guid_binding = EFI_DRIVER_BINDING_PROTOCOL_GUID;
static EFI_GUID guid_version = EFI_DRIVER_SUPPORTED_EFI_VERSION_PROTOCOL_GUID;
static EFI_DRIVER_BINDING_PROTOCOL *binding;

/* Who has a protocol open as asked; any agent where ours_only is not set. */
static unsigned opens_count(EFI_HANDLE handle, EFI_GUID *protocol, uint32_t attributes,
                            EFI_HANDLE for_whom, bool ours_only)
{
    EFI_OPEN_PROTOCOL_INFORMATION_ENTRY *entries;
    unsigned found_count = 0;
    UINTN count;

    if (agent.bs->OpenProtocolInformation(handle, protocol, &entries, &count) != EFI_SUCCESS)
        return 0;
    for (UINTN i = 0; i < count; i++) {
        found_count += (!ours_only || entries[i].AgentHandle == agent.driver) &&
                       (entries[i].Attributes & attributes) != 0 &&
                       (for_whom == NULL || entries[i].ControllerHandle == for_whom);
    }
    agent.bs->FreePool(entries);
    return found_count;
}

bool is_opened(EFI_HANDLE handle, EFI_GUID *protocol, uint32_t attributes, EFI_HANDLE for_whom)
{
    return opens_count(handle, protocol, attributes, for_whom, true) > 0;
}

static unsigned all_opens(EFI_HANDLE handle)
{
    return opens_count(handle, &guid_disk_io, UINT32_MAX, NULL, false) +
           opens_count(handle, &guid_block_io, UINT32_MAX, NULL, false) +
           opens_count(handle, &guid_device_path, UINT32_MAX, NULL, false);
}

static void try_structure(void)
{
    EFI_LOADED_IMAGE *image = find_protocol(binding->ImageHandle, &guid_loaded_image);

    expect_that("Version is in the range of independent vendors",
                binding->Version >= VERSION_MIN && binding->Version <= VERSION_MAX);
    expect_that("DriverBindingHandle has the binding",
                find_protocol(binding->DriverBindingHandle, &guid_binding) == binding);
    expect_that("ImageHandle is a loaded image", image != NULL);
    expect_that("which can be unloaded", image != NULL && image->Unload != NULL);
    expect_number("its code type", image != NULL ? image->ImageCodeType : 0, EfiBootServicesCode);
}

/* A rest of a device path: one node and the end. */
static EFI_DEVICE_PATH *rest_of(const void *node, size_t node_bytes)
{
    static const EFI_DEVICE_PATH end = {
        END_DEVICE_PATH_TYPE, END_ENTIRE_DEVICE_PATH_SUBTYPE, {sizeof(end), 0}};
    static uint8_t rest[PATH_BYTES];

    agent.bs->CopyMem(rest, (void *)(uintptr_t)node, node_bytes);
    agent.bs->CopyMem(rest + node_bytes, (void *)(uintptr_t)&end, sizeof(end));
    return (EFI_DEVICE_PATH *)rest;
}

/* is_free: nobody has the disk; else our driver has. */
static void try_supported(bool is_free)
{
    static const struct qcow2_node ours = QCOW2_NODE;
    static const struct {
        EFI_DEVICE_PATH header;
        uint8_t rest[38];
    } partition = {{MEDIA_DEVICE_PATH, MEDIA_HARDDRIVE_DP, {42, 0}}, {1}};
    struct qcow2_node other = ours;
    EFI_HANDLE disk = agent.parent;
    EFI_STATUS want = is_free ? EFI_SUCCESS : EFI_ALREADY_STARTED;
    unsigned opens_before = all_opens(disk);

    about("Supported", is_free ? "of a free disk" : "of the driver's own disk");
    expect("nothing asked for", binding->Supported(binding, disk, NULL), want);
    expect("an end node", binding->Supported(binding, disk, rest_of(&ours, 0)), want);
    expect("our node", binding->Supported(binding, disk, rest_of(&ours, sizeof(ours))), want);
    expect("a partition's node",
           binding->Supported(binding, disk, rest_of(&partition, sizeof(partition))),
           EFI_UNSUPPORTED);
    other.version++;
    expect("our node of another version",
           binding->Supported(binding, disk, rest_of(&other, sizeof(other))), EFI_UNSUPPORTED);
    other = ours;
    other.guid.Data1++;
    expect("another vendor's node",
           binding->Supported(binding, disk, rest_of(&other, sizeof(other))), EFI_UNSUPPORTED);
    expect_number("protocols that are open", all_opens(disk), opens_before);
}

/* Handles without Disk I/O are never ours; those that others have are not now; nothing changes. */
static void try_foreign(void)
{
    static EFI_HANDLE all[AGENT_HANDLES_MAX];
    unsigned wrong_count = 0, changed_count = 0;
    EFI_HANDLE *list;
    size_t count = find_handles(NULL, &list);

    agent.bs->CopyMem(all, list, count * sizeof(all[0]));
    for (size_t i = 0; i < count; i++) {
        /* Asked first: HandleProtocol is an opening, too. */
        bool has_disk_io = find_protocol(all[i], &guid_disk_io) != NULL;
        unsigned opens_before = all_opens(all[i]);
        EFI_STATUS status = binding->Supported(binding, all[i], NULL);

        if (!has_disk_io)
            wrong_count += status != EFI_UNSUPPORTED;
        else if (is_opened(all[i], &guid_disk_io, EFI_OPEN_PROTOCOL_BY_DRIVER, NULL))
            wrong_count += status != EFI_ALREADY_STARTED;
        else if (opens_count(all[i], &guid_disk_io, EFI_OPEN_PROTOCOL_BY_DRIVER, NULL, false) > 0)
            wrong_count += status != EFI_ACCESS_DENIED;
        changed_count += all_opens(all[i]) != opens_before;
    }
    about("Supported", "of all handles");
    expect_number("wrong answers", wrong_count, 0);
    expect_number("handles whose protocols were opened or closed", changed_count, 0);
    about("Supported", "");
    expect("of our own child", binding->Supported(binding, target.handle, NULL), EFI_UNSUPPORTED);
}

/* Called without the firmware's ConnectController, which only comes with NULL or a whole path. */
static void try_start(void)
{
    static const struct qcow2_node ours = QCOW2_NODE;
    EFI_HANDLE disk = agent.parent, child;

    about("Start", "");
    expect("of the driver's own disk", binding->Start(binding, disk, NULL), EFI_ALREADY_STARTED);
    expect("the disk is disconnected", agent.bs->DisconnectController(disk, agent.driver, NULL),
           EFI_SUCCESS);
    expect_that("no child is left", !target_find());
    try_supported(true);
    about("Start", "with an end node");
    expect("starts", binding->Start(binding, disk, rest_of(&ours, 0)), EFI_SUCCESS);
    expect_that("without a child", !target_find());
    expect("stops", binding->Stop(binding, disk, 0, NULL), EFI_SUCCESS);
    about("Start", "with our node");
    expect("starts", binding->Start(binding, disk, rest_of(&ours, sizeof(ours))), EFI_SUCCESS);
    expect_that("with a child", target_find());
    expect_that(
        "that the disk is opened for",
        target.handle != NULL &&
            is_opened(disk, &guid_disk_io, EFI_OPEN_PROTOCOL_BY_CHILD_CONTROLLER, target.handle));
    child = target.handle;
    about("Stop", "");
    expect_that("not the disk before its child", EFI_ERROR(binding->Stop(binding, disk, 0, NULL)));
    expect_that("not a foreign child", EFI_ERROR(binding->Stop(binding, disk, 1, &agent.image)));
    expect_that("not a foreign disk", EFI_ERROR(binding->Stop(binding, agent.image, 0, NULL)));
    expect("the child", binding->Stop(binding, disk, 1, &child), EFI_SUCCESS);
    expect_that("which is gone", !target_find());
    expect("the disk", binding->Stop(binding, disk, 0, NULL), EFI_SUCCESS);
    expect_that("which is free",
                !is_opened(disk, &guid_disk_io, EFI_OPEN_PROTOCOL_BY_DRIVER, NULL));
    expect("and starts again", agent.bs->ConnectController(disk, NULL, NULL, TRUE), EFI_SUCCESS);
    expect_that("with a child", target_find());
}

static void try_rounds(void)
{
    unsigned wrong_count = 0, same_id_count = 0;
    EFI_HANDLE *list;
    size_t handles_count = find_handles(NULL, &list);
    uint64_t lba = target.media->LastBlock / 2;

    about("Stop and Start", "");
    read_blocks(lba, 4, buffer_a);
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint32_t media_id = target.media->MediaId;

        wrong_count += agent.bs->DisconnectController(agent.parent, NULL, NULL) != EFI_SUCCESS;
        wrong_count += agent.bs->ConnectController(agent.parent, NULL, NULL, TRUE) != EFI_SUCCESS;
        if (!target_find())
            break;
        same_id_count += target.media->MediaId == media_id;
    }
    expect_number("errors", wrong_count, 0);
    expect_that("the child is there", target.handle != NULL);
    if (target.handle == NULL)
        return;
    expect_number("MediaIds that are the same again", same_id_count, 0);
    expect_number("handles in all", find_handles(NULL, &list), handles_count);
    expect("a read", read_blocks(lba, 4, buffer_b), EFI_SUCCESS);
    expect_that("the data is as before", equal(buffer_a, buffer_b, 4 * target.media->BlockSize));
}

static EFI_DRIVER_BINDING_PROTOCOL real;
static struct {
    unsigned supported, start, stop;
} calls;

static EFI_STATUS EFIAPI proxy_supported(EFI_DRIVER_BINDING_PROTOCOL *self, EFI_HANDLE disk,
                                         EFI_DEVICE_PATH *rest)
{
    calls.supported++;
    return real.Supported(self, disk, rest);
}

static EFI_STATUS EFIAPI proxy_start(EFI_DRIVER_BINDING_PROTOCOL *self, EFI_HANDLE disk,
                                     EFI_DEVICE_PATH *rest)
{
    calls.start++;
    return real.Start(self, disk, rest);
}

static EFI_STATUS EFIAPI proxy_stop(EFI_DRIVER_BINDING_PROTOCOL *self, EFI_HANDLE disk,
                                    UINTN children_count, EFI_HANDLE *children)
{
    calls.stop++;
    return real.Stop(self, disk, children_count, children);
}

/* A structure in memory that cannot be written would end the machine here. */
static void try_proxies(void)
{
    real = *binding;
    agent.bs->SetMem(&calls, sizeof(calls), 0);
    binding->Supported = proxy_supported;
    binding->Start = proxy_start;
    binding->Stop = proxy_stop;
    about("functions that are replaced in place", "");
    expect("disconnect", agent.bs->DisconnectController(agent.parent, NULL, NULL), EFI_SUCCESS);
    expect("connect", agent.bs->ConnectController(agent.parent, NULL, NULL, TRUE), EFI_SUCCESS);
    expect_that("Supported is called", calls.supported > 0);
    expect_number("Start is called", calls.start, 1);
    expect_number("Stop is called, for the child and for the disk", calls.stop, 2);
    *binding = real;
    expect_that("the image is there", target_find());
    if (target.handle != NULL)
        expect("and is read", read_blocks(0, 1, buffer_a), EFI_SUCCESS);
}

void group_binding(unsigned number)
{
    binding = target.is_ours ? find_protocol(agent.driver, &guid_binding) : NULL;
    if (binding == NULL) {
        group_absent(number, "Driver Binding");
        return;
    }
    group_begin(number, "Driver Binding");
    try_structure();
    expect_number("how often the driver has the disk",
                  opens_count(agent.parent, &guid_disk_io, EFI_OPEN_PROTOCOL_BY_DRIVER, NULL, true),
                  1);
    try_supported(false);
    try_foreign();
    try_start();
    if (target.handle != NULL)
        try_rounds();
    if (target.handle != NULL)
        try_proxies();
    group_end();
}

void group_version(unsigned number)
{
    const EFI_DRIVER_SUPPORTED_EFI_VERSION_PROTOCOL *version =
        target.is_ours ? find_protocol(agent.driver, &guid_version) : NULL;

    if (version == NULL) {
        group_absent(number, "Driver Supported EFI Version");
        return;
    }
    group_begin(number, "Driver Supported EFI Version");
    expect_number("Length", version->Length, sizeof(*version));
    expect_that("FirmwareVersion is of UEFI 2", version->FirmwareVersion >> 16 == 2);
    group_end();
}
