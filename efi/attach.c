/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Attaching: from a container to a child handle with Block I/O, and back.
 *
 * Promises: everything an image needs lies in its slot, in the slot's pool or in what all share,
 * nothing is allocated; an image that is refused leaves its slot free and one line on the console.
 *
 * Left to others: opening and closing the container's protocols (binding.c), requests (blockio.c).
 */
#include "file.h"
#include "handover.h"
#include "say.h"

#define SECTOR_BYTES 512u /* of the medium's first bytes, as much as a digest of it takes */

/* An image that takes writes logs what changes in its pool, so it gets a large one if it can. */
#define LARGE_POOLS_MAX  2u
#define SMALL_POOLS_MAX  (ATTACHED_MAX - LARGE_POOLS_MAX)
#define LARGE_POOL_BYTES (QC_CACHE_KIB * 1024u / QC_PAGE_BYTES * QC_PAGE_BYTES)
#define SMALL_POOL_BYTES (LARGE_POOL_BYTES / 2 / QC_PAGE_BYTES * QC_PAGE_BYTES)
_Static_assert(SMALL_POOL_BYTES >= QC_POOL_BYTES_MIN && LARGE_POOL_BYTES <= QC_POOL_BYTES_MAX,
               "QC_CACHE_KIB is out of range");

/* The first slots have the large pools. */
static struct attached slots[ATTACHED_MAX];
static _Alignas(QC_PAGE_BYTES) uint8_t large_pools[LARGE_POOLS_MAX][LARGE_POOL_BYTES];
static _Alignas(QC_PAGE_BYTES) uint8_t small_pools[SMALL_POOLS_MAX][SMALL_POOL_BYTES];
static struct qc_unpacker unpacker;

struct attached *attached_by_container(EFI_HANDLE container)
{
    for (unsigned i = 0; i < ATTACHED_MAX; i++) {
        if (container != NULL && slots[i].container == container)
            return &slots[i];
    }
    return NULL;
}

struct attached *attached_by_protocol(const void *protocol)
{
    for (unsigned i = 0; i < ATTACHED_MAX; i++) {
        if (slots[i].container != NULL &&
            (protocol == &slots[i].block_io || protocol == &slots[i].block_io2 ||
             protocol == &slots[i].erase_block))
            return &slots[i];
    }
    return NULL;
}

struct attached *attached_slot(unsigned i)
{
    return &slots[i];
}

struct attached *attached_any(void)
{
    for (unsigned i = 0; i < ATTACHED_MAX; i++) {
        if (slots[i].container != NULL)
            return &slots[i];
    }
    return NULL;
}

/* A slot of the wanted kind, else any. */
static struct attached *find_free(bool is_large)
{
    unsigned first = is_large ? 0 : LARGE_POOLS_MAX;

    for (unsigned n = 0; n < ATTACHED_MAX; n++) {
        unsigned i = (first + n) % ATTACHED_MAX;

        if (slots[i].container == NULL)
            return &slots[i];
    }
    return NULL;
}

static void init_cache(struct attached *attached)
{
    size_t i = (size_t)(attached - slots);

    if (i < LARGE_POOLS_MAX)
        qc_cache_init(&attached->cache, large_pools[i], LARGE_POOL_BYTES);
    else
        qc_cache_init(&attached->cache, small_pools[i - LARGE_POOLS_MAX], SMALL_POOL_BYTES);
}

/* The sentence is part of the digest: what changed about a medium is said. */
static void say_of_medium(uint64_t digest, const EFI_DEVICE_PATH *path, const struct say_text *text)
{
    say_once(say_digest(digest, text->bytes, text->len), path, text);
}

/* Says why, and returns status, so that refusing is one expression. */
static EFI_STATUS refuse(EFI_STATUS status, uint64_t digest, const EFI_DEVICE_PATH *path,
                         const char *reason)
{
    struct say_text text = {0};

    say_add(&text, "refused: ");
    say_add(&text, reason);
    say_of_medium(digest, path, &text);
    return status;
}

const char *attach_readonly_reason(const struct attached *attached)
{
    const char *of_file = file_readonly_reason(attached->container);

    if (of_file != NULL && (attached->entry == NULL || !attached->entry->is_readonly))
        return of_file;
    return qc_readonly_reason(&attached->image);
}

static void say_attached(const struct attached *attached, const EFI_DEVICE_PATH *path)
{
    const struct qc_header *header = qc_info(&attached->image);
    struct say_text text = {0};

    say_add_size(&text, qc_size(&attached->image), 1);
    say_add(&text, ", ");
    say_add_size(&text, header->cluster_bytes, 0);
    say_add(&text, " clusters");
    if (attached->media.ReadOnly) {
        say_add(&text, ", ");
        say_add(&text, attach_readonly_reason(attached));
    } else if (!path_takes_flush(path) || !base_takes_flush(attached)) {
        say_add(&text, ", no flush: safe against a crash of the system, not against power loss");
    }
    say_of_medium(attached->digest, path, &text);
}

/*
 * Looks at the medium before a slot is taken, so that the disks that are none of ours, nearly all,
 * cost one block. EFI_UNSUPPORTED: no image here.
 */
static EFI_STATUS probe(EFI_BLOCK_IO_PROTOCOL *parent, const EFI_DEVICE_PATH *path,
                        uint64_t *ret_digest)
{
    static _Alignas(EFI_BLOCK_IO_ALIGN_MAX) uint8_t first[EFI_BLOCK_BYTES_MAX];
    EFI_STATUS status =
        parent->ReadBlocks(parent, parent->Media->MediaId, 0, parent->Media->BlockSize, first);
    struct qc_header header;
    struct qc_detail detail;
    size_t path_bytes = 0;

    if (EFI_ERROR(status))
        return status;
    if (qc_header_parse(first, QC_HEADER_BYTES_MAX, &header, &detail) == QC_FOREIGN)
        return EFI_UNSUPPORTED;
    path_measure(path, &path_bytes);
    *ret_digest = say_digest(say_digest(SAY_DIGEST_START, path, path_bytes), first, SECTOR_BYTES);
    return EFI_SUCCESS;
}

/* What is said of the image on this container, by the command or else the configuration. */
static const struct config_entry *entry_of(EFI_HANDLE container, const EFI_DEVICE_PATH *path)
{
    const struct config_entry *entry = control_entry(container);
    struct config_guid guid;

    if (entry == NULL)
        entry = file_entry(container);
    if (entry != NULL)
        return entry;
    return path_partition(path, &guid) ? config_entry_of(&config, &guid) : NULL;
}

static EFI_STATUS open_image(struct attached *attached, EFI_BLOCK_IO_PROTOCOL *parent,
                             const EFI_DEVICE_PATH *path)
{
    const struct config_entry *entry = attached->entry;
    struct qc_open_options options = {
        .readonly = entry != NULL && entry->is_readonly,
        .is_backing_off = entry != NULL && entry->is_backing_off,
        .bases = &attached->bases_finder,
        .unpacker = &unpacker,
        .snapshot = entry != NULL && entry->snapshot[0] != '\0' ? entry->snapshot : NULL,
    };
    EFI_STATUS status;

    efi_block_init(&attached->block, parent);
    init_cache(attached);
    base_init(attached);
    switch (qc_open(&attached->image, &attached->cache, &attached->block.disk, &options)) {
    case QC_OK:
        blockio_init(attached);
        blockio2_init(attached);
        eraseblock_init(attached);
        return EFI_SUCCESS;
    case QC_FOREIGN:
        return EFI_UNSUPPORTED;
    case QC_CORRUPT:
        status = EFI_VOLUME_CORRUPTED;
        break;
    case QC_UNSUPPORTED:
        status = EFI_UNSUPPORTED;
        break;
    case QC_REFUSED:
        status = EFI_ACCESS_DENIED;
        break;
    case QC_RANGE:
        status = EFI_NOT_FOUND;
        break;
    default:
        status = EFI_DEVICE_ERROR;
        break;
    }
    return refuse(status, attached->digest, path, qc_detail(&attached->image));
}

/* The child's path is the container's with our node behind it. */
static bool make_path(struct attached *attached, const EFI_DEVICE_PATH *path)
{
    static const struct qcow2_node node = QCOW2_NODE;
    static const EFI_DEVICE_PATH end = PATH_END_NODE_INIT;
    size_t path_bytes;

    /* The child's own path is measured too (handover.c), with the same limit. */
    if (!path_measure(path, &path_bytes) || path_bytes > PATH_BYTES_MAX - sizeof(node))
        return false;
    __builtin_memcpy(attached->path, path, path_bytes);
    __builtin_memcpy(attached->path + path_bytes, &node, sizeof(node));
    __builtin_memcpy(attached->path + path_bytes + sizeof(node), &end, sizeof(end));
    return true;
}

static EFI_STATUS open_for_child(const struct attached *attached)
{
    void *disk_io;

    return efi_boot->OpenProtocol(attached->container, &guid_disk_io, &disk_io,
                                  driver_binding.DriverBindingHandle, attached->child,
                                  EFI_OPEN_PROTOCOL_BY_CHILD_CONTROLLER);
}

static EFI_STATUS uninstall_child(const struct attached *attached)
{
    return efi_boot->UninstallMultipleProtocolInterfaces(
        attached->child, &guid_block_io, &attached->block_io, &guid_block_io2, &attached->block_io2,
        &guid_erase_block, &attached->erase_block, &guid_device_path, attached->path, NULL);
}

static EFI_STATUS install_child(struct attached *attached, const EFI_DEVICE_PATH *path)
{
    EFI_STATUS status;

    if (!make_path(attached, path))
        return refuse(EFI_UNSUPPORTED, attached->digest, path, "its device path is too long");
    status = quiesce_start(attached);
    if (EFI_ERROR(status))
        return refuse(status, attached->digest, path, "the firmware takes no new event");
    status = efi_boot->InstallMultipleProtocolInterfaces(
        &attached->child, &guid_block_io, &attached->block_io, &guid_block_io2,
        &attached->block_io2, &guid_erase_block, &attached->erase_block, &guid_device_path,
        attached->path, NULL);
    if (EFI_ERROR(status))
        return refuse(status, attached->digest, path, "the firmware takes no new disk");
    status = open_for_child(attached);
    if (EFI_ERROR(status)) {
        uninstall_child(attached);
        return refuse(status, attached->digest, path, "the firmware takes no new child");
    }
    return EFI_SUCCESS;
}

/* A slot whose container has an image, open if so wanted. */
static EFI_STATUS take_slot(EFI_HANDLE container, EFI_BLOCK_IO_PROTOCOL *parent,
                            const EFI_DEVICE_PATH *path, bool is_opened,
                            struct attached **ret_attached)
{
    const struct config_entry *entry = entry_of(container, path);
    struct attached *attached;
    uint64_t digest;
    EFI_STATUS status = probe(parent, path, &digest);

    if (EFI_ERROR(status))
        return status;
    attached = find_free(!parent->Media->ReadOnly && config_is_written(entry));
    if (attached == NULL)
        return refuse(EFI_OUT_OF_RESOURCES, digest, path, "no more images can be attached");
    attached->container = container;
    attached->child = NULL;
    attached->entry = entry;
    attached->digest = digest;
    attached->is_stopping = attached->is_paused = false;
    attached->bases_count = 0;
    if (is_opened)
        status = open_image(attached, parent, path);
    if (EFI_ERROR(status))
        attach_release(attached);
    else
        *ret_attached = attached;
    return status;
}

EFI_STATUS attach_start(EFI_HANDLE container, EFI_BLOCK_IO_PROTOCOL *parent,
                        const EFI_DEVICE_PATH *path, bool with_child)
{
    struct attached *attached;
    EFI_STATUS status;

    if (!request_claim())
        return EFI_NOT_READY;
    status = take_slot(container, parent, path, with_child, &attached);
    request_release();
    if (EFI_ERROR(status) || !with_child)
        return status;
    status = install_child(attached, path);
    if (EFI_ERROR(status)) {
        attach_release(attached);
        return status;
    }
    say_attached(attached, path);
    handover_publish(attached);
    return EFI_SUCCESS;
}

/*
 * Where a disk is gone for good, unplugged for instance, nothing can be made durable any more, and
 * its bus waits for us to let go.
 */
static EFI_STATUS settle_or_lose(struct attached *attached)
{
    EFI_TPL tpl = efi_boot->RaiseTPL(TPL_CALLBACK);
    EFI_STATUS status = quiesce_settle(attached);

    if (EFI_ERROR(status) && request_claim()) {
        if (EFI_ERROR(medium_probe(attached)))
            status = EFI_SUCCESS;
        request_release();
    }
    efi_boot->RestoreTPL(tpl);
    return status;
}

EFI_STATUS attach_stop_child(struct attached *attached)
{
    EFI_STATUS status;

    if (attached->is_stopping || EFI_ERROR(settle_or_lose(attached)))
        return EFI_DEVICE_ERROR;
    /* From here on every write is settled at once: those above write back when they are told to
     * let go, and nobody could be told of a failure after that. */
    attached->is_stopping = true;
    efi_boot->CloseProtocol(attached->container, &guid_disk_io, driver_binding.DriverBindingHandle,
                            attached->child);
    status = uninstall_child(attached);
    if (EFI_ERROR(status)) {
        open_for_child(attached);
    } else {
        attached->child = NULL;
        handover_withdraw(attached);
        quiesce_stop(attached);
    }
    attached->is_stopping = false;
    return status;
}

void attach_release(struct attached *attached)
{
    quiesce_stop(attached);
    base_release(attached);
    attached->container = NULL;
    attached->child = NULL;
}
