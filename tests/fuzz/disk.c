/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See disk.h. The bytes are static, one array for each kind of disk, and only what was used is
 * zeroed between inputs: that is what most of an input's time would go to.
 */
#include "disk.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint8_t image_bytes[FUZZ_DISK_BYTES_MAX];
static uint8_t data_bytes[FUZZ_DIGITS * FUZZ_CLUSTER_MAX];
static unsigned long inputs_count, opened_count;
static uint32_t calls_most;

void fuzz_fail(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fputs("fuzz: broken promise: ", stderr);
    vfprintf(stderr, format, args);
    fputs("\n", stderr);
    va_end(args);
    abort();
}

static void say_counts(void)
{
    fprintf(stderr, "fuzz: %lu inputs, %lu past open, %u calls at most\n", inputs_count,
            opened_count, calls_most);
}

void fuzz_count(bool is_open)
{
    if (inputs_count == 0)
        atexit(say_counts);
    inputs_count++;
    opened_count += is_open;
}

static void count_call(struct fuzz_disk *fuzz, uint64_t host_off, uint64_t len)
{
    if (len == 0 || len > fuzz->disk.size_bytes || host_off > fuzz->disk.size_bytes - len)
        fuzz_fail("a request of %lu bytes at %lx", (unsigned long)len, (unsigned long)host_off);
    if (++fuzz->calls_count > FUZZ_CALLS_MAX)
        fuzz_fail("more than %u lower calls in one operation", FUZZ_CALLS_MAX);
    if (fuzz->calls_count > calls_most)
        calls_most = fuzz->calls_count;
}

static qc_status image_read(struct qc_disk *disk, uint64_t host_off, void *buf, size_t len)
{
    struct fuzz_disk *fuzz = (struct fuzz_disk *)disk;

    count_call(fuzz, host_off, len);
    fuzz->reads_count++;
    memcpy(buf, fuzz->bytes + host_off, len);
    return QC_OK;
}

/* A write that fails lands its first half, in whole sectors. */
static qc_status image_write(struct qc_disk *disk, uint64_t host_off, const void *buf, size_t len)
{
    struct fuzz_disk *fuzz = (struct fuzz_disk *)disk;
    qc_status status = QC_OK;

    count_call(fuzz, host_off, len);
    if (disk->readonly)
        fuzz_fail("a write to a read-only disk");
    fuzz->writes_count++;
    if (fuzz->watch != NULL)
        fuzz->watch(host_off, buf, len);
    if (fuzz->fail_write_in > 0 && --fuzz->fail_write_in == 0) {
        uint64_t landing_end = (host_off + len / 2) / QC_SECTOR_BYTES * QC_SECTOR_BYTES;

        fuzz->has_failed = true;
        len = landing_end > host_off ? landing_end - host_off : 0;
        status = QC_IO;
    }
    memcpy(fuzz->bytes + host_off, buf, len);
    return status;
}

static qc_status any_flush(struct qc_disk *disk)
{
    struct fuzz_disk *fuzz = (struct fuzz_disk *)disk;

    count_call(fuzz, 0, 1);
    if (disk->readonly)
        fuzz_fail("a flush of a read-only disk");
    return QC_OK;
}

static qc_status any_grow(struct qc_disk *disk, uint64_t size_bytes)
{
    struct fuzz_disk *fuzz = (struct fuzz_disk *)disk;

    if (disk->readonly || size_bytes <= disk->size_bytes)
        fuzz_fail("a disk of %lu bytes grows to %lu", (unsigned long)disk->size_bytes,
                  (unsigned long)size_bytes);
    if (size_bytes > fuzz->bytes_max)
        return QC_NOSPACE;
    if (fuzz->reach_bits == 0)
        memset(fuzz->bytes + disk->size_bytes, 0, size_bytes - disk->size_bytes);
    disk->size_bytes = size_bytes;
    if (fuzz->used_end < size_bytes)
        fuzz->used_end = size_bytes;
    return QC_OK;
}

static void image_trim(struct qc_disk *disk, uint64_t host_off, uint64_t len)
{
    struct fuzz_disk *fuzz = (struct fuzz_disk *)disk;

    count_call(fuzz, host_off, len);
    if (fuzz->watch != NULL)
        fuzz->watch(host_off, NULL, len);
    memset(fuzz->bytes + host_off, 0xee, len);
}

void fuzz_disk_init(struct fuzz_disk *fuzz, uint64_t host_bytes, bool can_grow, bool can_trim)
{
    memset(image_bytes, 0, fuzz->used_end); /* of the input before this one */
    memset(fuzz, 0, sizeof(*fuzz));
    fuzz->bytes = image_bytes;
    fuzz->ops = (struct qc_disk_ops){image_read, image_write, any_flush, can_grow ? any_grow : NULL,
                                     can_trim ? image_trim : NULL};
    fuzz->disk.ops = &fuzz->ops;
    fuzz->disk.block_bytes = QC_SECTOR_BYTES;
    fuzz->disk.size_bytes = fuzz->used_end = host_bytes;
    fuzz->bytes_max = FUZZ_DISK_BYTES_MAX;
}

void fuzz_disk_step(struct fuzz_disk *fuzz)
{
    fuzz->calls_count = 0;
}

/* ---- the data file ------------------------------------------------------------------------ */

/* Where a byte of the data file is in memory, and how many follow it; NULL: nowhere. */
static uint8_t *data_at(struct fuzz_disk *fuzz, uint64_t host_off, uint64_t *ret_len)
{
    uint64_t window = host_off >> fuzz->reach_bits;
    uint64_t window_bytes = UINT64_C(1) << fuzz->cluster_bits << 2;
    uint64_t in_window = host_off - (window << fuzz->reach_bits);

    if (window >= FUZZ_WINDOWS_MAX || in_window >= window_bytes) {
        *ret_len = (UINT64_C(1) << fuzz->reach_bits) - in_window;
        return NULL;
    }
    *ret_len = window_bytes - in_window;
    return fuzz->bytes + window * window_bytes + in_window;
}

/* Outside the windows it reads as zeros and forgets what is written. */
static qc_status data_move(struct fuzz_disk *fuzz, uint64_t host_off, uint8_t *to,
                           const uint8_t *from, size_t len)
{
    count_call(fuzz, host_off, len);
    for (uint64_t done = 0, part; done < len; done += part) {
        uint8_t *bytes = data_at(fuzz, host_off + done, &part);

        if (part > len - done)
            part = len - done;
        if (to != NULL && bytes == NULL)
            memset(to + done, 0, part);
        else if (to != NULL)
            memcpy(to + done, bytes, part);
        else if (bytes != NULL)
            memcpy(bytes, from + done, part);
    }
    return QC_OK;
}

static qc_status data_read(struct qc_disk *disk, uint64_t host_off, void *buf, size_t len)
{
    return data_move((struct fuzz_disk *)disk, host_off, buf, NULL, len);
}

static qc_status data_write(struct qc_disk *disk, uint64_t host_off, const void *buf, size_t len)
{
    if (disk->readonly)
        fuzz_fail("a write to a read-only data file");
    return data_move((struct fuzz_disk *)disk, host_off, NULL, buf, len);
}

void fuzz_data_init(struct fuzz_disk *fuzz, uint64_t host_bytes, unsigned reach_bits,
                    unsigned cluster_bits)
{
    memset(fuzz, 0, sizeof(*fuzz));
    memset(data_bytes, 0, (size_t)FUZZ_DIGITS << cluster_bits);
    fuzz->bytes = data_bytes;
    fuzz->ops = (struct qc_disk_ops){data_read, data_write, any_flush, any_grow, NULL};
    fuzz->disk.ops = &fuzz->ops;
    fuzz->disk.block_bytes = QC_SECTOR_BYTES;
    fuzz->disk.size_bytes = host_bytes;
    fuzz->bytes_max = UINT64_C(1) << 40;
    fuzz->reach_bits = reach_bits;
    fuzz->cluster_bits = cluster_bits;
}

/* ---- the layer below ---------------------------------------------------------------------- */

uint64_t fuzz_below_tag(uint64_t sector)
{
    return UINT64_C(0xba) << 56 | sector;
}

static qc_status below_read(struct qc_disk *disk, uint64_t host_off, void *buf, size_t len)
{
    uint8_t *bytes = buf;

    if (len == 0 || len > disk->size_bytes || host_off > disk->size_bytes - len)
        fuzz_fail("a request of %lu bytes at %lx of the layer below", (unsigned long)len,
                  (unsigned long)host_off);
    for (size_t i = 0; i < len; i++) {
        uint64_t off = host_off + i;

        bytes[i] = (uint8_t)(fuzz_below_tag(off / QC_SECTOR_BYTES) >> (off % 8 * 8) & 0xff);
    }
    return QC_OK;
}

void fuzz_below_init(struct qc_disk *disk, uint64_t host_bytes)
{
    static const struct qc_disk_ops ops = {below_read, NULL, NULL, NULL, NULL};

    *disk = (struct qc_disk){&ops, host_bytes, QC_SECTOR_BYTES, true};
}
