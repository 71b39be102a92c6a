/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The engine behind nbdkit, so that every NBD client can use an image through it:
 *
 *   nbdkit nbdkit-qcow2efi-plugin.so file=IMAGE [readonly=BOOL] [write_through=BOOL]
 *          [backing=BOOL] [snapshot=NAME] [pool_kib=N]
 *
 * Promises: the same core as in firmware, in the same kind of memory (all of it static); an image
 * that is refused stops nbdkit before it serves, with the engine's sentence as the error line; one
 * that takes no writes is served read-only, with the reason as a line; so is, without one, an
 * internal snapshot, of this id or name. NBD's flush is the engine's, all connections share it; the
 * last one to close, and the end of the server, leave the image without leaks. Extents follow what
 * QEMU exports for the same image: a hole is what is unallocated in every layer and what is a zero
 * cluster, whether or not it keeps space.
 *
 * Left to others: which files a chain may reach (chain.c); locking of the image against other
 * programs; nbdkit serialises the requests.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "../../core/qcow2.h"
#include "chain.h"

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#define THREAD_MODEL NBDKIT_THREAD_MODEL_SERIALIZE_ALL_REQUESTS

#define POOL_KIB_MIN     (QC_POOL_BYTES_MIN / 1024)
#define POOL_KIB_MAX     (QC_POOL_BYTES_MAX / 1024)
#define POOL_KIB_DEFAULT 1280u

#define PREFERRED_BYTES 4096u /* less may cost reading what surrounds it */

static _Alignas(QC_PAGE_BYTES) uint8_t pool[QC_POOL_BYTES_MAX];
static struct qc_cache cache;
static struct qc_unpacker unpacker;
static struct qc_image image;
static struct chain chain;

/* Texts out of parameters are owned by nbdkit and valid as long as the plugin. */
static const char *file_name;
static struct qc_open_options options = {.bases = &chain.bases, .unpacker = &unpacker};
static unsigned pool_kib = POOL_KIB_DEFAULT;
static _Atomic unsigned connections_count; /* opened and closed by threads of their own */

static int parse_bool(const char *value, bool *ret_is_true)
{
    int parsed = nbdkit_parse_bool(value);

    if (parsed < 0)
        return -1;
    *ret_is_true = parsed != 0;
    return 0;
}

static int plugin_config(const char *key, const char *value)
{
    if (strcmp(key, "file") == 0) {
        file_name = value;
        return 0;
    }
    if (strcmp(key, "snapshot") == 0) {
        options.snapshot = value;
        return 0;
    }
    if (strcmp(key, "readonly") == 0)
        return parse_bool(value, &options.readonly);
    if (strcmp(key, "write_through") == 0)
        return parse_bool(value, &options.write_through);
    if (strcmp(key, "backing") == 0) {
        bool is_wanted;

        if (parse_bool(value, &is_wanted) < 0)
            return -1;
        options.is_backing_off = !is_wanted;
        return 0;
    }
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
    options.readonly |= options.snapshot != NULL;
    if (file_name)
        return 0;
    nbdkit_error("file=IMAGE is required");
    return -1;
}

static int answer(qc_status status)
{
    if (status == QC_OK)
        return 0;
    nbdkit_error("%s", qc_detail(&image));
    nbdkit_set_error(status == QC_NOSPACE ? ENOSPC : status == QC_READONLY ? EROFS : EIO);
    return -1;
}

static bool is_writable(void)
{
    return qc_readonly_reason(&image)[0] == '\0';
}

/* Before nbdkit forks and listens: a refusal is the exit status of the command. */
static int plugin_get_ready(void)
{
    int error = chain_open(&chain, file_name, options.readonly ? O_RDONLY : O_RDWR);
    qc_status status;

    if (error) {
        nbdkit_error("%s: %s", file_name, strerror(error));
        return -1;
    }
    qc_cache_init(&cache, pool, (size_t)pool_kib * 1024);
    status = qc_open(&image, &cache, &chain.files[0].disk, &options);
    if (status != QC_OK) {
        nbdkit_error("%s", status == QC_FOREIGN ? "not a qcow2 image" : qc_detail(&image));
        options.readonly = true; /* there is nothing to settle */
        return -1;
    }
    if (!is_writable() && !options.readonly)
        fprintf(stderr, "nbdkit: %s\n", qc_readonly_reason(&image));
    return 0;
}

/* The clean end; where the last connection came to it already, nothing is left to do. */
static void settle(void)
{
    if (!options.readonly)
        (void)answer(qc_settle(&image));
}

static void plugin_unload(void)
{
    if (chain.files_count == 0)
        return;
    settle();
    chain_close(&chain);
}

static void *plugin_open(int readonly)
{
    (void)readonly;
    connections_count++;
    return &image;
}

static void plugin_close(void *handle)
{
    (void)handle;
    if (--connections_count == 0)
        settle();
}

static int64_t plugin_get_size(void *handle)
{
    return (int64_t)qc_size(handle);
}

static int plugin_block_size(void *handle, uint32_t *minimum, uint32_t *preferred,
                             uint32_t *maximum)
{
    (void)handle;
    *minimum = 1;
    *preferred = PREFERRED_BYTES;
    *maximum = UINT32_MAX;
    return 0;
}

static int plugin_can_write(void *handle)
{
    (void)handle;
    return is_writable();
}

/* There is one engine: what one connection wrote all read, and a flush covers all of it. */
static int plugin_can_multi_conn(void *handle)
{
    (void)handle;
    return 1;
}

static int plugin_pread(void *handle, void *buf, uint32_t count, uint64_t guest_off, uint32_t flags)
{
    (void)flags;
    return answer(qc_read(handle, guest_off, buf, count));
}

/* Part of one sector; where buf is NULL, zeros. */
static qc_status patch_sector(const uint8_t *buf, uint32_t count, uint64_t guest_off)
{
    uint8_t sector[QC_SECTOR_BYTES];
    uint32_t in_sector = guest_off % QC_SECTOR_BYTES;
    qc_status status = qc_read(&image, guest_off - in_sector, sector, sizeof(sector));

    if (status != QC_OK)
        return status;
    if (buf)
        memcpy(sector + in_sector, buf, count);
    else
        memset(sector + in_sector, 0, count);
    return qc_write(&image, guest_off - in_sector, sector, sizeof(sector));
}

/* Any bytes, which NBD allows: whole sectors in one piece, the parts at both ends through a copy.
 */
static int change(const uint8_t *buf, uint32_t count, uint64_t guest_off, bool may_unmap)
{
    qc_status status = QC_OK;

    for (uint32_t part; status == QC_OK && count > 0; count -= part, guest_off += part) {
        uint32_t left_of_sector = QC_SECTOR_BYTES - guest_off % QC_SECTOR_BYTES;

        if (left_of_sector < QC_SECTOR_BYTES || count < QC_SECTOR_BYTES) {
            part = count < left_of_sector ? count : left_of_sector;
            status = patch_sector(buf, part, guest_off);
        } else {
            part = count - count % QC_SECTOR_BYTES;
            status = buf ? qc_write(&image, guest_off, buf, part)
                         : qc_zero(&image, guest_off, part, may_unmap);
        }
        buf = buf ? buf + part : NULL;
    }
    return answer(status);
}

/* FUA is nbdkit's: it flushes after the request. */
static int plugin_pwrite(void *handle, const void *buf, uint32_t count, uint64_t guest_off,
                         uint32_t flags)
{
    (void)handle;
    (void)flags;
    return change(buf, count, guest_off, false);
}

static int plugin_zero(void *handle, uint32_t count, uint64_t guest_off, uint32_t flags)
{
    (void)handle;
    return change(NULL, count, guest_off, (flags & NBDKIT_FLAG_MAY_TRIM) != 0);
}

static int plugin_trim(void *handle, uint32_t count, uint64_t guest_off, uint32_t flags)
{
    uint64_t end = (guest_off + count) / QC_SECTOR_BYTES * QC_SECTOR_BYTES;

    (void)flags;
    guest_off = (guest_off + QC_SECTOR_BYTES - 1) / QC_SECTOR_BYTES * QC_SECTOR_BYTES;
    return guest_off < end ? answer(qc_discard(handle, guest_off, end - guest_off)) : 0;
}

static int plugin_flush(void *handle, uint32_t flags)
{
    (void)flags;
    return answer(qc_flush(handle));
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
        bool is_data;

        if (answer(qc_map(handle, guest_off, end - guest_off, &extent)) < 0)
            return -1;
        is_data = extent.kind == QC_EXTENT_DATA || extent.kind == QC_EXTENT_COMPRESSED;
        type = is_data ? 0 : NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO;
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
    .description = "serves a qcow2 image through the engine of the UEFI driver",
    .config = plugin_config,
    .config_complete = plugin_config_complete,
    .config_help = "file=IMAGE          the qcow2 image (required)\n"
                   "readonly=BOOL       take no writes, default false\n"
                   "write_through=BOOL  every write is durable when it is answered, default false\n"
                   "backing=BOOL        with the layers below; off means read-only, default true\n"
                   "snapshot=NAME       the internal snapshot of this id or name, read-only\n"
                   "pool_kib=N          memory for metadata, 64 to 65536, default 1280",
    .magic_config_key = "file",
    .get_ready = plugin_get_ready,
    .unload = plugin_unload,
    .open = plugin_open,
    .close = plugin_close,
    .get_size = plugin_get_size,
    .block_size = plugin_block_size,
    .can_write = plugin_can_write,
    .can_multi_conn = plugin_can_multi_conn,
    .pread = plugin_pread,
    .pwrite = plugin_pwrite,
    .zero = plugin_zero,
    .trim = plugin_trim,
    .flush = plugin_flush,
    .extents = plugin_extents,
};

/* What nbdkit looks up; the macro defines it without a declaration. */
NBDKIT_DLL_PUBLIC struct nbdkit_plugin *plugin_init(void);

NBDKIT_REGISTER_PLUGIN(plugin)
