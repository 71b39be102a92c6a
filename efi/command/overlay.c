/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See overlay.h. The smallest qcow2 there is: a header with the name of the layer below and its
 * format, a table of refcounts and one block of it, an empty L1 table; clusters of 64 KiB. Format:
 * QEMU's docs/interop/qcow2.
 */
#include "overlay.h"

#include "console.h"
#include "file_disk.h"
#include "opened.h"
#include "room.h"

#define CLUSTER_BITS       16u
#define CLUSTER_BYTES      (1u << CLUSTER_BITS)
#define L1_REACH_BITS      (2 * CLUSTER_BITS - 3)
#define REFCOUNT_ORDER     4u
#define EXT_BACKING_FORMAT 0xe2792acau
#define NAME_OFF           (QC_HEADER_V3_BYTES + 24u) /* behind the extensions */
#define ROOM_BYTES_MAX     (UINT64_C(256) << 20)
#define ROOM_BYTES_MIN     (UINT64_C(16) << 20)
#define LEFT_FREE_BYTES    (UINT64_C(4) << 20) /* for the others on the volume */

enum { CLUSTER_HEADER, CLUSTER_TABLE, CLUSTER_BLOCK, CLUSTER_L1 };

static uint8_t cluster[CLUSTER_BYTES];

static void put(unsigned off, unsigned bytes, uint64_t value)
{
    for (unsigned i = 0; i < bytes; i++)
        cluster[off + i] = (uint8_t)(value >> 8 * (bytes - 1 - i));
}

static void fill_header(uint64_t guest_bytes, uint64_t l1_entries, const char *below)
{
    size_t below_bytes = text_find(below, '\0');

    __builtin_memset(cluster, 0, sizeof(cluster));
    put(0, 4, 0x514649fb);
    put(4, 4, 3);
    put(8, 8, NAME_OFF);
    put(16, 4, below_bytes);
    put(20, 4, CLUSTER_BITS);
    put(24, 8, guest_bytes);
    put(36, 4, l1_entries);
    put(40, 8, (uint64_t)CLUSTER_L1 << CLUSTER_BITS);
    put(48, 8, (uint64_t)CLUSTER_TABLE << CLUSTER_BITS);
    put(56, 4, 1);
    put(96, 4, REFCOUNT_ORDER);
    put(100, 4, QC_HEADER_V3_BYTES);
    put(QC_HEADER_V3_BYTES, 4, EXT_BACKING_FORMAT);
    put(QC_HEADER_V3_BYTES + 4, 4, 5);
    __builtin_memcpy(cluster + QC_HEADER_V3_BYTES + 8, "qcow2", 5);
    /* An extension of type 0 ends them: eight zeros. */
    __builtin_memcpy(cluster + NAME_OFF, below, below_bytes);
}

static qc_status store(struct qc_disk *disk, uint64_t number)
{
    return disk->ops->write(disk, number << CLUSTER_BITS, cluster, CLUSTER_BYTES);
}

static qc_status fill(struct qc_disk *disk, uint64_t guest_bytes, const char *below)
{
    uint64_t l1_entries = (guest_bytes + (UINT64_C(1) << L1_REACH_BITS) - 1) >> L1_REACH_BITS;
    uint64_t l1_clusters = (l1_entries * 8 + CLUSTER_BYTES - 1) >> CLUSTER_BITS;
    qc_status status;

    __builtin_memset(cluster, 0, sizeof(cluster));
    status = store(disk, CLUSTER_TABLE);
    for (uint64_t i = 0; i < l1_clusters && status == QC_OK; i++)
        status = store(disk, CLUSTER_L1 + i);
    put(0, 8, (uint64_t)CLUSTER_BLOCK << CLUSTER_BITS);
    if (status == QC_OK)
        status = store(disk, CLUSTER_TABLE);
    __builtin_memset(cluster, 0, sizeof(cluster));
    for (unsigned i = 0; i < CLUSTER_L1 + l1_clusters; i++)
        put(2 * i, 2, 1);
    if (status == QC_OK)
        status = store(disk, CLUSTER_BLOCK);
    fill_header(guest_bytes, l1_entries, below);
    return status == QC_OK ? store(disk, CLUSTER_HEADER) : status;
}

/* The size of the image's disk; 0 was said. */
static uint64_t guest_bytes_of(const struct target *image)
{
    struct report_image *subject;
    uint64_t guest_bytes = 0;

    if (opened_begin(image, image->name, OPENED_ALONE, &subject) == EXIT_GOOD) {
        guest_bytes = qc_size(subject->image);
        opened_end(EXIT_GOOD);
    }
    return guest_bytes;
}

static int make_room(const struct target *overlay)
{
    uint64_t free_bytes, bytes;
    EFI_STATUS status = files_remove(overlay->volume, overlay->path);

    if (!EFI_ERROR(status))
        status = files_free_bytes(overlay->volume, &free_bytes);
    if (EFI_ERROR(status))
        return fail(overlay->name, " cannot be made", "");
    bytes = free_bytes < LEFT_FREE_BYTES ? 0 : free_bytes - LEFT_FREE_BYTES;
    bytes = bytes < ROOM_BYTES_MAX ? bytes & ~(uint64_t)(CLUSTER_BYTES - 1) : ROOM_BYTES_MAX;
    if (bytes < ROOM_BYTES_MIN)
        return fail(overlay->name, " cannot be made: less than 20 MiB are free", "");
    status = room_make(overlay->volume, overlay->path, bytes);
    if (status == EFI_NOT_FOUND)
        return fail(overlay->name,
                    " cannot be made: the volume has no free place whose pages are not shared", "");
    return EFI_ERROR(status) ? fail(overlay->name, " cannot be made", "") : EXIT_GOOD;
}

int overlay_make(const struct target *image, struct target *ret_overlay)
{
    static struct file_disk file;
    uint64_t guest_bytes;
    qc_status filled;
    int status;

    if (image->volume == NULL)
        return fail(image->name, ": -t needs an image in a file", "");
    *ret_overlay = (struct target){.volume = image->volume};
    if (!text_copy(ret_overlay->name, TEXT_BYTES_MAX, image->name) ||
        !text_add(ret_overlay->name, TEXT_BYTES_MAX, OVERLAY_SUFFIX) ||
        !text_copy(ret_overlay->path, TEXT_BYTES_MAX, image->path) ||
        !text_add(ret_overlay->path, TEXT_BYTES_MAX, OVERLAY_SUFFIX))
        return fail(image->name, ": its path is too long", "");
    if (target_is_attached(ret_overlay))
        return fail(ret_overlay->name, " is attached: detach it first", "");
    if (target_is_layer(ret_overlay))
        return fail(ret_overlay->name, " is a layer of an attached image", "");
    guest_bytes = guest_bytes_of(image);
    if (guest_bytes == 0)
        return EXIT_FAILED;
    status = make_room(ret_overlay);
    if (status != EXIT_GOOD)
        return status;
    if (EFI_ERROR(file_disk_open(&file, ret_overlay->volume, ret_overlay->path, false)))
        return fail(ret_overlay->name, " cannot be written", "");
    filled = fill(&file.disk, guest_bytes, target_last(image->path));
    if (EFI_ERROR(file_disk_close(&file)) || filled != QC_OK)
        return fail(ret_overlay->name, " cannot be written", "");
    return EXIT_GOOD;
}
