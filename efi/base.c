/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Bases: the partitions that the configuration names as the layer below an image.
 *
 * Such a partition is made ours like a container, but gets no child: nobody mounts what lies on it,
 * and it is only read. It serves every image above it, and goes only after they have gone.
 *
 * Promises: what an image says of its base is never followed; only `base` in the configuration is,
 * from partition to partition. A base that appears after the image that wants it, on a disk that is
 * connected later, brings that image back; one that goes takes its images with it.
 *
 * Left to others: opening and closing the partition's protocols (binding.c).
 */
#include "driver.h"
#include "say.h"

#define BASES_MAX   CONFIG_ENTRIES_MAX
#define HANDLES_MAX 1024u

/* By the number that the configuration gives a base. */
static struct {
    EFI_HANDLE container; /* NULL: not here */
    struct efi_block block;
} bases[BASES_MAX];

/* Containers of images whose base is not here. One that finds no room has to be connected anew. */
static struct {
    EFI_HANDLE container; /* NULL: free */
    unsigned base;
} waiting[CONFIG_ENTRIES_MAX];

static void wait_for(EFI_HANDLE container, unsigned base)
{
    unsigned i = 0;

    while (i < CONFIG_ENTRIES_MAX && waiting[i].container != NULL &&
           waiting[i].container != container)
        i++;
    if (i < CONFIG_ENTRIES_MAX) {
        waiting[i].container = container;
        waiting[i].base = base;
    }
}

void base_wake(void)
{
    /* In the middle of another image's opening; that one's Start() comes here at its end. */
    if (request_is_running())
        return;
    for (unsigned i = 0; i < CONFIG_ENTRIES_MAX; i++) {
        EFI_HANDLE container = waiting[i].container;

        if (container == NULL || bases[waiting[i].base].container == NULL)
            continue;
        waiting[i].container = NULL;
        efi_boot->ConnectController(container, NULL, NULL, TRUE);
    }
}

EFI_STATUS base_start(EFI_HANDLE container, EFI_BLOCK_IO_PROTOCOL *parent,
                      const EFI_DEVICE_PATH *path)
{
    struct say_text text = {0};
    struct config_guid guid;
    unsigned number = BASES_MAX;
    size_t path_bytes = 0;

    if (path_partition(path, &guid))
        number = config_base_number(&config, &guid);
    if (number == BASES_MAX)
        return EFI_NOT_FOUND;
    if (bases[number].container != NULL)
        return EFI_ACCESS_DENIED;
    bases[number].container = container;
    efi_block_init(&bases[number].block, parent);
    bases[number].block.disk.readonly = true;
    say_add(&text, "a base in the configuration: only read, and no disk of its own");
    path_measure(path, &path_bytes);
    say_once(say_digest(SAY_DIGEST_START, path, path_bytes), path, &text);
    return EFI_SUCCESS;
}

static unsigned number_of(EFI_HANDLE container)
{
    unsigned number = 0;

    while (number < BASES_MAX && (container == NULL || bases[number].container != container))
        number++;
    return number;
}

bool base_is(EFI_HANDLE container)
{
    return number_of(container) < BASES_MAX;
}

EFI_HANDLE base_any(void)
{
    for (unsigned i = 0; i < BASES_MAX; i++) {
        if (bases[i].container != NULL)
            return bases[i].container;
    }
    return NULL;
}

static bool is_above(const struct attached *attached, unsigned number)
{
    for (unsigned i = 0; attached->container != NULL && i < attached->bases_count; i++) {
        if (attached->base_numbers[i] == number)
            return true;
    }
    return false;
}

EFI_STATUS base_stop(EFI_HANDLE container)
{
    unsigned number = number_of(container);

    for (unsigned i = 0; i < ATTACHED_MAX; i++) {
        struct attached *attached = attached_slot(i);
        EFI_HANDLE above = attached->container;

        if (!is_above(attached, number))
            continue;
        efi_boot->DisconnectController(above, driver_binding.DriverBindingHandle, NULL);
        if (attached->container == above)
            return EFI_DEVICE_ERROR;
        wait_for(above, number);
    }
    bases[number].container = NULL;
    return EFI_SUCCESS;
}

/*
 * The one partition of this GUID outside of images. EFI_NOT_FOUND, or EFI_ABORTED where there are
 * several: copies of a disk have the GUIDs of the original.
 */
static EFI_STATUS find_partition(const struct config_guid *wanted, EFI_HANDLE *ret_handle)
{
    static EFI_HANDLE handles[HANDLES_MAX];
    UINTN bytes = sizeof(handles);
    EFI_HANDLE found = NULL;

    if (EFI_ERROR(efi_boot->LocateHandle(ByProtocol, &guid_block_io, NULL, &bytes, handles)))
        return EFI_NOT_FOUND;
    for (size_t i = 0; i < bytes / sizeof(handles[0]); i++) {
        struct config_guid guid;
        void *path;

        if (EFI_ERROR(efi_boot->OpenProtocol(handles[i], &guid_device_path, &path,
                                             driver_binding.DriverBindingHandle, NULL,
                                             EFI_OPEN_PROTOCOL_GET_PROTOCOL)) ||
            !path_partition(path, &guid) || path_is_in_image(path) ||
            __builtin_memcmp(&guid, wanted, sizeof(guid)) != 0)
            continue;
        if (found != NULL)
            return EFI_ABORTED;
        found = handles[i];
    }
    *ret_handle = found;
    return found != NULL ? EFI_SUCCESS : EFI_NOT_FOUND;
}

/* Puts the base into its place, where it may be by now. */
static qc_status fetch(const struct attached *attached, const struct config_guid *guid,
                       unsigned number, struct qc_detail *detail)
{
    EFI_HANDLE container;
    EFI_STATUS status = find_partition(guid, &container);

    if (status == EFI_ABORTED)
        return qc_fail(detail, QC_REFUSED, "backing name refused: several partitions are the base");
    if (EFI_ERROR(status)) {
        wait_for(attached->container, number);
        return qc_fail(detail, QC_REFUSED, "backing name refused: the base is not found");
    }
    /* Its own Start() may still come. Connecting it now makes it ours before it is anyone's. */
    if (bases[number].container == NULL)
        efi_boot->ConnectController(container, NULL, NULL, FALSE);
    if (bases[number].container != container)
        return qc_fail(detail, QC_REFUSED, "backing name refused: the base is in use by others");
    return QC_OK;
}

/*
 * Where both the image and the configuration tell a base's format, they tell the same. Where none
 * does, the engine refuses it.
 */
static qc_status agree_on_format(const struct config_entry *entry, struct qc_base *base)
{
    if (base->format == QC_FORMAT_NONE)
        base->format = entry->base_format;
    if (entry->base_format != QC_FORMAT_NONE && entry->base_format != base->format)
        return qc_fail(&base->detail, QC_REFUSED,
                       "backing name refused: image and configuration differ on the format");
    return QC_OK;
}

static qc_status base_find(struct qc_bases *finder, struct qc_base *base)
{
    struct attached *attached =
        (void *)((uint8_t *)finder - offsetof(struct attached, bases_finder));
    const struct config_entry *entry = attached->entry;
    unsigned number;
    qc_status status;

    /* A base's own entry tells what is below it. */
    if (base->depth > 1) {
        number = attached->base_numbers[attached->bases_count - 1];
        entry = config_entry_of(&config, &config.entries[number].base);
    }
    if (entry == NULL || !entry->has_base)
        return qc_fail(&base->detail, QC_REFUSED,
                       "backing name refused: no base in the configuration");
    number = config_base_number(&config, &entry->base);
    if (is_above(attached, number))
        return qc_fail(&base->detail, QC_REFUSED,
                       "backing name refused: the base lies above itself");
    status = agree_on_format(entry, base);
    if (status == QC_OK)
        status = fetch(attached, &entry->base, number, &base->detail);
    if (status != QC_OK)
        return status;
    attached->base_numbers[attached->bases_count++] = (uint8_t)number;
    base->disk = &bases[number].block.disk;
    return QC_OK;
}

void base_init(struct attached *attached)
{
    attached->bases_finder.find = base_find;
    attached->bases_count = 0;
}
