/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Attaching: from a container to a child handle with Block I/O, and back.
 *
 * Promises: everything an image needs lies in its slot, nothing is allocated; an image that is
 * refused leaves its slot free and one line on the console.
 *
 * Left to others: opening and closing the container's protocols (binding.c), requests (blockio.c).
 */
#include "driver.h"
#include "say.h"

#define SECTOR_BYTES 512u /* of the medium's first bytes, as much as a digest of it takes */

static struct attached slots[ATTACHED_MAX];

struct attached *attached_by_container(EFI_HANDLE container)
{
    for (unsigned i = 0; i < ATTACHED_MAX; i++) {
        if (container != NULL && slots[i].container == container)
            return &slots[i];
    }
    return NULL;
}

struct attached *attached_by_block_io(const EFI_BLOCK_IO_PROTOCOL *block_io)
{
    for (unsigned i = 0; i < ATTACHED_MAX; i++) {
        if (slots[i].container != NULL && &slots[i].block_io == block_io)
            return &slots[i];
    }
    return NULL;
}

struct attached *attached_by_erase_block(const EFI_ERASE_BLOCK_PROTOCOL *erase_block)
{
    for (unsigned i = 0; i < ATTACHED_MAX; i++) {
        if (slots[i].container != NULL && &slots[i].erase_block == erase_block)
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

static struct attached *find_free(void)
{
    for (unsigned i = 0; i < ATTACHED_MAX; i++) {
        if (slots[i].container == NULL)
            return &slots[i];
    }
    return NULL;
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
        say_add(&text, qc_readonly_reason(&attached->image));
    } else if (!path_takes_flush(path)) {
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

static EFI_STATUS open_image(struct attached *attached, EFI_BLOCK_IO_PROTOCOL *parent,
                             const EFI_DEVICE_PATH *path)
{
    EFI_STATUS status;

    efi_block_init(&attached->block, parent);
    qc_cache_init(&attached->cache, attached->pool, sizeof(attached->pool));
    switch (qc_open(&attached->image, &attached->cache, &attached->block.disk,
                    &(struct qc_open_options){.readonly = false})) {
    case QC_OK:
        blockio_init(attached);
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

    if (!path_measure(path, &path_bytes))
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
        attached->child, &guid_block_io, &attached->block_io, &guid_erase_block,
        &attached->erase_block, &guid_device_path, attached->path, NULL);
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
        &attached->child, &guid_block_io, &attached->block_io, &guid_erase_block,
        &attached->erase_block, &guid_device_path, attached->path, NULL);
    if (EFI_ERROR(status))
        return refuse(status, attached->digest, path, "the firmware takes no new disk");
    status = open_for_child(attached);
    if (EFI_ERROR(status)) {
        uninstall_child(attached);
        return refuse(status, attached->digest, path, "the firmware takes no new child");
    }
    return EFI_SUCCESS;
}

EFI_STATUS attach_start(EFI_HANDLE container, EFI_BLOCK_IO_PROTOCOL *parent,
                        const EFI_DEVICE_PATH *path, bool with_child)
{
    struct attached *attached;
    uint64_t digest;
    EFI_STATUS status;

    status = probe(parent, path, &digest);
    if (EFI_ERROR(status))
        return status;
    attached = find_free();
    if (attached == NULL)
        return refuse(EFI_OUT_OF_RESOURCES, digest, path, "no more images can be attached");
    attached->container = container;
    attached->child = NULL;
    attached->digest = digest;
    attached->is_busy = false;
    attached->is_stopping = false;
    if (!with_child)
        return EFI_SUCCESS;
    status = open_image(attached, parent, path);
    if (EFI_ERROR(status))
        goto fail;
    status = install_child(attached, path);
    if (EFI_ERROR(status))
        goto fail;
    say_attached(attached, path);
    return EFI_SUCCESS;
fail:
    attach_release(attached);
    return status;
}

static EFI_STATUS settle_uninterrupted(struct attached *attached)
{
    EFI_TPL tpl = efi_boot->RaiseTPL(TPL_CALLBACK);
    EFI_STATUS status = quiesce_settle(attached);

    efi_boot->RestoreTPL(tpl);
    return status;
}

EFI_STATUS attach_stop_child(struct attached *attached)
{
    EFI_STATUS status;

    /*
     * A parent that sees a new medium in the middle of our request may stop its users at once. The
     * slot must not be given to another image while that request is still on the stack.
     */
    if (attached->is_busy || attached->is_stopping)
        return EFI_DEVICE_ERROR;
    if (EFI_ERROR(settle_uninterrupted(attached)))
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
        quiesce_stop(attached);
    }
    attached->is_stopping = false;
    return status;
}

void attach_release(struct attached *attached)
{
    quiesce_stop(attached);
    attached->container = NULL;
    attached->child = NULL;
}
