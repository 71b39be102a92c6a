/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * What the driver does for the command (proto/qcow2_control.h).
 *
 * Promises: nothing here is on the way of a request; a call that fails leaves what was attached
 * before attached. While an image is paused its child answers errors and writes nothing, so that
 * what the command changes is not changed twice.
 */
#include "file.h"

/* What was said of disks and partitions; of a file its own slot holds it. */
static struct {
    EFI_HANDLE container; /* NULL: free */
    struct config_entry entry;
} said[ATTACHED_MAX];

const struct config_entry *control_entry(EFI_HANDLE container)
{
    for (unsigned i = 0; i < ATTACHED_MAX; i++) {
        if (container != NULL && said[i].container == container)
            return &said[i].entry;
    }
    return NULL;
}

static void forget(EFI_HANDLE container)
{
    for (unsigned i = 0; i < ATTACHED_MAX; i++) {
        if (said[i].container == container)
            said[i].container = NULL;
    }
}

/* Puts what the options say on top of what the configuration says. */
static void put_options(struct config_entry *entry, const struct qcow2_options *options)
{
    size_t len = 0;

    if (!options->is_given)
        return;
    entry->is_readonly = options->is_readonly;
    entry->is_backing_off = options->is_backing_off;
    while (len < CONFIG_TEXT_BYTES_MAX && options->snapshot[len] != '\0')
        len++;
    __builtin_memset(entry->snapshot, 0, sizeof(entry->snapshot));
    __builtin_memcpy(entry->snapshot, options->snapshot, len);
}

/* What the configuration says of a container: its base above all, which no option tells. */
static void take_configured(EFI_HANDLE container, struct config_entry *entry)
{
    const struct config_entry *configured = NULL;
    struct config_guid guid;
    void *path;

    if (!EFI_ERROR(efi_boot->OpenProtocol(container, &guid_device_path, &path,
                                          driver_binding.DriverBindingHandle, NULL,
                                          EFI_OPEN_PROTOCOL_GET_PROTOCOL)) &&
        path_partition(path, &guid))
        configured = config_entry_of(&config, &guid);
    __builtin_memset(entry, 0, sizeof(*entry));
    if (configured != NULL)
        *entry = *configured;
}

static bool is_attached(EFI_HANDLE container)
{
    const struct attached *attached = attached_by_container(container);

    return attached != NULL && attached->child != NULL;
}

/*
 * An image that stands aside is let go as one whose medium has gone: what those above still hold
 * back must not be written, and the firmware's Disk I/O goes only where a reset succeeds.
 */
static EFI_STATUS disconnect(EFI_HANDLE container)
{
    struct attached *attached = attached_by_container(container);

    if (attached != NULL && attached->is_paused) {
        attached->media.MediaPresent = FALSE;
        attached->is_paused = attached->is_gone = false;
    }
    efi_boot->DisconnectController(container, NULL, NULL);
    return attached_by_container(container) == NULL ? EFI_SUCCESS : EFI_DEVICE_ERROR;
}

static EFI_STATUS EFIAPI control_attach_file(struct qcow2_control *This, EFI_HANDLE volume,
                                             const char *path, const struct qcow2_options *options,
                                             EFI_HANDLE *ret_container)
{
    static struct config_entry entry;
    EFI_HANDLE container;
    EFI_STATUS status;

    (void)This;
    if (volume == NULL || path == NULL || options == NULL || ret_container == NULL)
        return EFI_INVALID_PARAMETER;
    __builtin_memset(&entry, 0, sizeof(entry));
    put_options(&entry, options);
    status = file_open(volume, path, &entry, &container);
    if (EFI_ERROR(status))
        return status;
    efi_boot->ConnectController(container, NULL, NULL, TRUE);
    if (!is_attached(container)) {
        efi_boot->DisconnectController(container, NULL, NULL);
        file_close(container);
        return EFI_UNSUPPORTED;
    }
    *ret_container = container;
    return EFI_SUCCESS;
}

static EFI_STATUS EFIAPI control_attach_disk(struct qcow2_control *This, EFI_HANDLE container,
                                             const struct qcow2_options *options)
{
    static struct config_entry before;
    const bool was_attached = attached_by_container(container) != NULL;
    EFI_HANDLE was_said = control_entry(container) != NULL ? container : NULL;
    unsigned i = 0;

    (void)This;
    if (container == NULL || options == NULL)
        return EFI_INVALID_PARAMETER;
    while (i < ATTACHED_MAX && said[i].container != was_said)
        i++;
    if (i == ATTACHED_MAX)
        return EFI_OUT_OF_RESOURCES;
    if (was_attached && EFI_ERROR(disconnect(container)))
        return EFI_DEVICE_ERROR;
    before = said[i].entry;
    take_configured(container, &said[i].entry);
    put_options(&said[i].entry, options);
    said[i].container = container;
    efi_boot->ConnectController(container, NULL, NULL, TRUE);
    if (is_attached(container))
        return EFI_SUCCESS;
    said[i].entry = before;
    said[i].container = was_said;
    if (was_attached)
        efi_boot->ConnectController(container, NULL, NULL, TRUE);
    return EFI_UNSUPPORTED;
}

static EFI_STATUS EFIAPI control_detach(struct qcow2_control *This, EFI_HANDLE container)
{
    EFI_STATUS status;

    (void)This;
    if (attached_by_container(container) == NULL && !file_is(container))
        return EFI_NOT_FOUND;
    status = disconnect(container);
    if (EFI_ERROR(status))
        return status;
    forget(container);
    return file_is(container) ? file_close(container) : EFI_SUCCESS;
}

static EFI_STATUS EFIAPI control_list(struct qcow2_control *This, UINTN number,
                                      struct qcow2_listed *ret_listed)
{
    (void)This;
    for (unsigned i = 0; i < ATTACHED_MAX; i++) {
        const struct attached *attached = attached_slot(i);
        const char *reason = attach_readonly_reason(attached);

        if (attached->container == NULL || attached->child == NULL || number-- > 0)
            continue;
        *ret_listed = (struct qcow2_listed){
            .container = attached->container,
            .child = attached->child,
            .is_file = file_is(attached->container),
            .is_readonly = attached->media.ReadOnly,
            .virtual_bytes = qc_size(&attached->image),
        };
        for (size_t k = 0; k + 1 < sizeof(ret_listed->reason) && reason[k] != '\0'; k++)
            ret_listed->reason[k] = reason[k];
        return EFI_SUCCESS;
    }
    return EFI_NOT_FOUND;
}

static EFI_STATUS EFIAPI control_pause(struct qcow2_control *This, EFI_HANDLE container)
{
    struct attached *attached = attached_by_container(container);
    EFI_STATUS status;

    (void)This;
    if (attached == NULL || attached->child == NULL || attached->is_paused)
        return EFI_NOT_FOUND;
    status = quiesce_settle(attached);
    if (!EFI_ERROR(status))
        attached->is_paused = attached->is_gone = true;
    return status;
}

static EFI_STATUS EFIAPI control_resume(struct qcow2_control *This, EFI_HANDLE container,
                                        BOOLEAN is_changed)
{
    struct attached *attached = attached_by_container(container);

    (void)This;
    if (attached == NULL || !attached->is_paused)
        return EFI_NOT_FOUND;
    if (!is_changed) {
        attached->is_paused = attached->is_gone = false;
        return EFI_SUCCESS;
    }
    if (EFI_ERROR(disconnect(container)))
        return EFI_DEVICE_ERROR;
    efi_boot->ConnectController(container, NULL, NULL, TRUE);
    return is_attached(container) ? EFI_SUCCESS : EFI_DEVICE_ERROR;
}

static EFI_STATUS EFIAPI control_look_file(struct qcow2_control *This, EFI_HANDLE volume,
                                           const char *path)
{
    (void)This;
    if (volume == NULL || path == NULL)
        return EFI_INVALID_PARAMETER;
    return file_is_used(volume, path) ? EFI_ALREADY_STARTED : EFI_NOT_FOUND;
}

struct qcow2_control control = {
    .revision = QCOW2_CONTROL_REVISION,
    .attach_file = control_attach_file,
    .attach_disk = control_attach_disk,
    .detach = control_detach,
    .list = control_list,
    .pause = control_pause,
    .resume = control_resume,
    .look_file = control_look_file,
};
