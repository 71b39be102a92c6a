/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Reads 4 KiB that are mapped and whose tables are in the cache, again and again, on a disk that
 * does nothing. A program that counts instructions runs it.
 *
 *   warm image|disk REQUESTS
 *
 * Promises: no system call and no copy between two requests; two runs differ by the requests
 * alone. With "disk" the requests go straight to the disk: what "image" takes more is the engine.
 * The image of 1 GiB is computed, and mapped so that no two clusters neighbour.
 */
#include <stdlib.h>
#include <string.h>

#include "../../core/bytes.h"
#include "../../core/qcow2.h"

#define CLUSTER_BITS   16u
#define CLUSTER        (UINT64_C(1) << CLUSTER_BITS)
#define GUEST          (UINT64_C(1) << 30)
#define GUEST_CLUSTERS (GUEST / CLUSTER)
#define L2_TABLES      (GUEST_CLUSTERS / (CLUSTER / 8))
#define L1_OFF         (3 * CLUSTER)
#define L2_OFF         (4 * CLUSTER)
#define DATA_OFF       (L2_OFF + L2_TABLES * CLUSTER)
#define POOL_BYTES     (1280u * 1024)
#define READ_BYTES     4096u
#define CLUSTER_STEP   5u /* odd: every cluster once */
/* Odd, so that a walk in steps of it passes everywhere; about the golden ratio's part. */
#define STEP (GUEST / READ_BYTES * 618 / 1000 | 1)

static _Alignas(QC_PAGE_BYTES) uint8_t pool[POOL_BYTES];
static uint8_t buf[READ_BYTES];
static struct qc_cache cache;
static struct qc_image image;

static uint64_t word_at(uint64_t off)
{
    uint64_t cluster = (off - L2_OFF) / 8;

    if (off >= L2_OFF)
        return DATA_OFF + cluster * CLUSTER_STEP % GUEST_CLUSTERS * CLUSTER;
    if (off >= L1_OFF && off < L1_OFF + L2_TABLES * 8)
        return L2_OFF + (off - L1_OFF) / 8 * CLUSTER;
    return 0;
}

static qc_status computed_read(struct qc_disk *disk, uint64_t host_off, void *bytes, size_t len)
{
    uint8_t *out = bytes;

    (void)disk;
    if (host_off >= DATA_OFF)
        return QC_OK;
    for (size_t i = 0; i < len; i += 8)
        qc_put_be64(out + i, word_at(host_off + i));
    if (host_off == 0) {
        memcpy(out, "QFI\xfb", 4);
        qc_put_be32(out + 4, 3);
        qc_put_be32(out + 20, CLUSTER_BITS);
        qc_put_be64(out + 24, GUEST);
        qc_put_be32(out + 36, L2_TABLES);
        qc_put_be64(out + 40, L1_OFF);
        qc_put_be64(out + 48, CLUSTER);
        qc_put_be32(out + 56, 1);
        qc_put_be32(out + 96, 4);
        qc_put_be32(out + 100, 104);
    }
    return QC_OK;
}

static qc_status request(bool is_disk, struct qc_disk *disk, uint64_t guest_off)
{
    /* The same way to the disk as the engine's, through the table of its functions. */
    if (is_disk)
        return disk->ops->read(disk, DATA_OFF + guest_off, buf, sizeof(buf));
    return qc_read(&image, guest_off, buf, sizeof(buf));
}

int main(int count, char **words)
{
    static const struct qc_disk_ops ops = {.read = computed_read};
    static struct qc_disk disk = {&ops, DATA_OFF + GUEST, 512, true};
    const struct qc_open_options options = {.readonly = true};
    unsigned long requests = count == 3 ? strtoul(words[2], NULL, 10) : 0;
    bool is_disk = count > 1 && strcmp(words[1], "disk") == 0;
    uint64_t number = 0;

    qc_cache_init(&cache, pool, sizeof(pool));
    if (requests == 0 || qc_open(&image, &cache, &disk, &options) != QC_OK)
        return 1;
    for (uint64_t off = 0; off < GUEST; off += CLUSTER)
        if (qc_read(&image, off, buf, sizeof(buf)) != QC_OK)
            return 1;
    for (unsigned long i = 0; i < requests; i++) {
        number = (number + STEP) % (GUEST / READ_BYTES);
        if (request(is_disk, &disk, number * READ_BYTES) != QC_OK)
            return 1;
    }
    return 0;
}
