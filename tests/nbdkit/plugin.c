/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The engine behind nbdkit, so that every NBD client can read an image through it:
 *
 *   nbdkit nbdkit-qcow2efi-plugin.so file=IMAGE [readonly=true|false] [pool_kib=N]
 *
 * Promises: the same core as in firmware, in the same kind of memory (one static image, one static
 * pool); an image that is refused stops nbdkit before it serves, with the engine's sentence as the
 * error line. The export is read-only, whatever readonly says, and the image is opened read-only.
 *
 * Extents follow what QEMU exports for the same image: data is data, and both an unallocated range
 * and a zero cluster (with or without a cluster kept) are a hole that reads as zeros.
 *
 * Left to others: locking of the image against other programs; nbdkit serialises the requests.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "../../core/qcow2.h"
#include "../../drivers/posix_file.h"

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#define THREAD_MODEL NBDKIT_THREAD_MODEL_SERIALIZE_ALL_REQUESTS

#define POOL_KIB_MIN     (QC_POOL_BYTES_MIN / 1024)
#define POOL_KIB_MAX     (QC_POOL_BYTES_MAX / 1024)
#define POOL_KIB_DEFAULT 1024u

static _Alignas(QC_PAGE_BYTES) uint8_t pool[QC_POOL_BYTES_MAX];
static struct qc_cache cache;
static struct qc_image image;
static struct posix_file file;

static const char *file_name; /* owned by nbdkit, valid as long as the plugin */
static unsigned pool_kib = POOL_KIB_DEFAULT;

static int plugin_config(const char *key, const char *value)
{
    if (strcmp(key, "file") == 0) {
        file_name = value;
        return 0;
    }
    if (strcmp(key, "readonly") == 0)
        return nbdkit_parse_bool(value) < 0 ? -1 : 0;
    if (strcmp(key, "pool_kib") == 0) {
        if (nbdkit_parse_unsigned("pool_kib", value, &pool_kib) < 0)
            return -1;
        if (pool_kib < POOL_KIB_MIN || pool_kib > POOL_KIB_MAX) {
            nbdkit_error("pool_kib must be %u to %u", POOL_KIB_MIN, POOL_KIB_MAX);
            return -1;
        }
        return 0;
    }
    nbdkit_error("unknown parameter '%s'", key);
    return -1;
}

static int plugin_config_complete(void)
{
    if (file_name)
        return 0;
    nbdkit_error("file=IMAGE is required");
    return -1;
}

/* Before nbdkit forks and listens: a refusal is the exit status of the command. */
static int plugin_get_ready(void)
{
    int fd = open(file_name, O_RDONLY | O_CLOEXEC);
    int error = fd < 0 ? errno : posix_file_init(&file, fd);
    qc_status status;

    if (error) {
        nbdkit_error("%s: %s", file_name, strerror(error));
        return -1;
    }
    qc_cache_init(&cache, pool, (size_t)pool_kib * 1024);
    status = qc_open(&image, &cache, &file.disk);
    if (status == QC_OK)
        return 0;
    nbdkit_error("%s", status == QC_FOREIGN ? "not a qcow2 image" : qc_detail(&image));
    return -1;
}

static void plugin_unload(void)
{
    if (file.disk.ops)
        close(file.fd);
}

static void *plugin_open(int readonly)
{
    (void)readonly;
    return &image;
}

static int64_t plugin_get_size(void *handle)
{
    return (int64_t)qc_size(handle);
}

static int plugin_can_write(void *handle)
{
    (void)handle;
    return 0;
}

/* Nothing is written, so what one connection reads is what all read. */
static int plugin_can_multi_conn(void *handle)
{
    (void)handle;
    return 1;
}

static int answer(qc_status status)
{
    if (status == QC_OK)
        return 0;
    nbdkit_error("%s", qc_detail(&image));
    nbdkit_set_error(EIO);
    return -1;
}

static int plugin_pread(void *handle, void *buf, uint32_t count, uint64_t guest_off, uint32_t flags)
{
    (void)flags;
    return answer(qc_read(handle, guest_off, buf, count));
}

/* nbdkit joins neighbours of one type; a client that asked for one needs no look past its end. */
static int plugin_extents(void *handle, uint32_t count, uint64_t guest_off, uint32_t flags,
                          struct nbdkit_extents *extents)
{
    const uint64_t begin = guest_off, end = guest_off + count;
    uint32_t last_type = 0;

    while (guest_off < end) {
        struct qc_extent extent;
        uint32_t type;

        if (answer(qc_map(handle, guest_off, end - guest_off, &extent)) < 0)
            return -1;
        type = extent.kind == QC_EXTENT_DATA ? 0 : NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO;
        if ((flags & NBDKIT_FLAG_REQ_ONE) && guest_off > begin && type != last_type)
            break;
        if (nbdkit_add_extent(extents, guest_off, extent.len, type) < 0)
            return -1;
        last_type = type;
        guest_off += extent.len;
    }
    return 0;
}

static struct nbdkit_plugin plugin = {
    .name = "qcow2efi",
    .longname = "qcow2-efi engine",
    .description = "reads a qcow2 image through the engine of the UEFI driver",
    .config = plugin_config,
    .config_complete = plugin_config_complete,
    .config_help = "file=IMAGE           the qcow2 image (required)\n"
                   "readonly=true|false  accepted; the export is read-only\n"
                   "pool_kib=N           memory for metadata, 64 to 65536, default 1024",
    .magic_config_key = "file",
    .get_ready = plugin_get_ready,
    .unload = plugin_unload,
    .open = plugin_open,
    .get_size = plugin_get_size,
    .can_write = plugin_can_write,
    .can_multi_conn = plugin_can_multi_conn,
    .pread = plugin_pread,
    .extents = plugin_extents,
};

/* What nbdkit looks up; the macro defines it without a declaration. */
NBDKIT_DLL_PUBLIC struct nbdkit_plugin *plugin_init(void);

NBDKIT_REGISTER_PLUGIN(plugin)
