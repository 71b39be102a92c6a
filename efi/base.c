/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Bases: the partitions that the configuration names as the layer below an image, or as its
 * external data file.
 *
 * Such a partition is made ours like a container, but gets no child: nobody mounts what lies on it.
 * A layer is only read, serves every image above it, and goes only after they have gone. A data
 * file is one image's alone, which may write it, or a layer's; in all else it is as a layer.
 *
 * Promises: what an image says of its base is never followed; only `base` and `data` in the
 * configuration are, from partition to partition. A base that appears after the image that wants
 * it, on a disk that is connected later, brings that image back; one that goes takes its images
 * with it.
 *
 * Left to others: opening and closing the partition's protocols (binding.c).
 */
#include "file.h"
#include "say.h"

/* Layers by the number that the configuration gives them; data files behind them by theirs. */
#define DATA_FIRST  CONFIG_ENTRIES_MAX
#define BASES_MAX   BASE_FILES_FIRST
#define HANDLES_MAX 1024u

static struct {
    EFI_HANDLE container; /* NULL: not here */
    struct efi_block block;
    bool takes_flush;
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

/* BASES_MAX: the configuration says nothing of this partition. */
static unsigned number_for(const struct config_guid *guid)
{
    unsigned number = config_base_number(&config, guid);

    return number < DATA_FIRST ? number : DATA_FIRST + config_data_number(&config, guid);
}

/* The data file of a layer is as little written as the layer. */
static bool is_written(unsigned number)
{
    const struct config_entry *entry;

    if (number < DATA_FIRST || config.is_narrowed)
        return false;
    entry = &config.entries[number - DATA_FIRST];
    return config_is_written(entry) &&
           config_base_number(&config, &entry->partition) == CONFIG_ENTRIES_MAX;
}

/*
 * What a partition says of its medium may be older than that is. In the middle of an image's
 * opening nothing is read here; that will show.
 */
static bool takes_first_read(struct efi_block *block)
{
    if (request_claim()) {
        efi_block_probe(block);
        request_release();
    }
    return !EFI_ERROR(efi_block_medium(block));
}

EFI_STATUS base_start(EFI_HANDLE container, EFI_BLOCK_IO_PROTOCOL *parent,
                      const EFI_DEVICE_PATH *path)
{
    struct say_text text = {0};
    struct config_guid guid;
    unsigned number = BASES_MAX;
    size_t path_bytes = 0;

    if (path_partition(path, &guid))
        number = number_for(&guid);
    if (number == BASES_MAX)
        return EFI_NOT_FOUND;
    if (bases[number].container != NULL)
        return EFI_ACCESS_DENIED;
    efi_block_init(&bases[number].block, parent);
    if (!takes_first_read(&bases[number].block))
        return EFI_NO_MEDIA;
    bases[number].container = container;
    bases[number].block.disk.readonly |= !is_written(number);
    bases[number].takes_flush = path_takes_flush(path);
    say_add(&text, number < DATA_FIRST
                       ? "a base in the configuration: only read, and no disk of its own"
                       : "a data file in the configuration: no disk of its own");
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

bool base_is_data_file(EFI_HANDLE container)
{
    return base_is_data_number(number_of(container));
}

bool base_is_data_number(unsigned number)
{
    return number >= DATA_FIRST && number < BASES_MAX;
}

static struct efi_block *block_of(unsigned number)
{
    return number < BASES_MAX ? &bases[number].block : file_block(number);
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

bool base_takes_flush(const struct attached *attached)
{
    for (unsigned i = 0; i < attached->bases_count; i++) {
        unsigned number = attached->base_numbers[i];

        /* A file lies on the disk of the image above it. */
        if (number < BASES_MAX && is_written(number) && !bases[number].takes_flush)
            return false;
    }
    return true;
}

EFI_STATUS base_medium(const struct attached *attached)
{
    EFI_STATUS status = EFI_SUCCESS;

    for (unsigned i = 0; i < attached->bases_count && !EFI_ERROR(status); i++)
        status = efi_block_medium(block_of(attached->base_numbers[i]));
    return status;
}

void base_probe(const struct attached *attached)
{
    for (unsigned i = 0; i < attached->bases_count; i++)
        efi_block_probe(block_of(attached->base_numbers[i]));
}

void base_tend(void)
{
    for (unsigned i = 0; i < BASES_MAX; i++) {
        if (bases[i].container != NULL && EFI_ERROR(efi_block_medium(&bases[i].block)))
            medium_reconnect(bases[i].container);
    }
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
    const char *what = number < DATA_FIRST ? "base" : "data file";

    if (status == EFI_ABORTED)
        return qc_fail(detail, QC_REFUSED, "backing name refused: several partitions are the %s",
                       what);
    if (EFI_ERROR(status)) {
        /* For one that is here and not found the wait would end at once, again and again. */
        if (bases[number].container == NULL)
            wait_for(attached->container, number);
        return qc_fail(detail, QC_REFUSED, "backing name refused: the %s is not found", what);
    }
    /* Its own Start() may still come. Connecting it now makes it ours before it is anyone's. */
    if (bases[number].container == NULL)
        efi_boot->ConnectController(container, NULL, NULL, FALSE);
    if (bases[number].container != container)
        return qc_fail(detail, QC_REFUSED, "backing name refused: the %s is in use by others",
                       what);
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

static void use(struct attached *attached, unsigned number, struct qc_base *base)
{
    attached->base_numbers[attached->bases_count++] = (uint8_t)number;
    base->disk = &block_of(number)->disk;
}

/* Whether another image holds it; copies of a disk have the same entry for their images. */
static bool is_held(const struct attached *attached, unsigned number)
{
    for (unsigned i = 0; i < ATTACHED_MAX; i++) {
        if (attached_slot(i) != attached && is_above(attached_slot(i), number))
            return true;
    }
    return false;
}

static qc_status find_data_file(struct attached *attached, struct qc_base *base)
{
    const struct config_entry *entry = attached->layer_entry;
    unsigned number;
    qc_status status;

    if (entry == NULL || !entry->has_data || config.is_narrowed)
        return qc_fail(&base->detail, QC_REFUSED,
                       "backing name refused: no data file in the configuration");
    number = config_data_number(&config, &entry->data);
    if (number == CONFIG_ENTRIES_MAX ||
        __builtin_memcmp(&entry->partition, &config.entries[number].partition,
                         sizeof(entry->partition)) != 0)
        return qc_fail(&base->detail, QC_REFUSED,
                       "backing name refused: the data file is another image's or a base");
    number += DATA_FIRST;
    if (base->depth == 0 && is_held(attached, number))
        return qc_fail(&base->detail, QC_REFUSED,
                       "backing name refused: the data file is in use by another image");
    status = fetch(attached, &entry->data, number, &base->detail);
    if (status == QC_OK)
        use(attached, number, base);
    return status;
}

static qc_status find_layer(struct attached *attached, struct qc_base *base)
{
    const struct config_entry *entry = attached->layer_entry;
    unsigned number;
    qc_status status;

    if (entry == NULL || !entry->has_base || config.is_narrowed)
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
    use(attached, number, base);
    /* A base's own entry tells what is below it. */
    attached->layer_entry = config_entry_of(&config, &entry->base);
    return QC_OK;
}

static qc_status base_find(struct qc_bases *finder, struct qc_base *base)
{
    struct attached *attached =
        (void *)((uint8_t *)finder - offsetof(struct attached, bases_finder));

    const struct config_entry *entry = attached->layer_entry;
    unsigned number;
    qc_status status;

    if (!file_is(attached->container) ||
        (entry != NULL && (base->is_data_file ? entry->has_data : entry->has_base)))
        return base->is_data_file ? find_data_file(attached, base) : find_layer(attached, base);
    /* What the configuration does not name may be a name in a file, for a file beside it. */
    status = file_find_base(attached, base, &number);
    if (status != QC_OK)
        return status;
    use(attached, number, base);
    if (!base->is_data_file)
        attached->layer_entry = NULL;
    return QC_OK;
}

void base_init(struct attached *attached)
{
    attached->bases_finder.find = base_find;
    attached->bases_count = 0;
    attached->layer_entry = attached->entry;
}

void base_release(struct attached *attached)
{
    for (unsigned i = 0; i < attached->bases_count; i++) {
        if (attached->base_numbers[i] >= BASE_FILES_FIRST)
            file_release_base(attached->base_numbers[i]);
    }
    attached->bases_count = 0;
}
