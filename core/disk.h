/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * struct qc_disk: the only thing the engine asks of the world.
 *
 * A disk is a run of bytes, numbered from 0, on which an image stands: a partition, a whole disk, a
 * file on a host. Whoever provides one (drivers/) fills this struct and keeps it valid as long as
 * an image is open on it.
 *
 * The engine promises: no request passes size_bytes, no request is empty, one request at a time. It
 * does not promise alignment; a driver whose device wants blocks bounces what does not fit.
 */
#ifndef QC_DISK_H
#define QC_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "status.h"

struct qc_disk;

struct qc_disk_ops {
    /* Reads exactly len bytes at host_off (bytes) into buf. QC_OK or QC_IO, never short. */
    qc_status (*read)(struct qc_disk *disk, uint64_t host_off, void *buf, size_t len);

    /*
     * Writes exactly len bytes; volatile until flush. After QC_IO, or QC_NOSPACE where a host file
     * cannot be filled, any part may have landed.
     */
    qc_status (*write)(struct qc_disk *disk, uint64_t host_off, const void *buf, size_t len);

    /* Makes every write durable that was answered before. After QC_IO nothing is known of them. */
    qc_status (*flush)(struct qc_disk *disk);

    /*
     * Makes the disk at least size_bytes long and raises its size_bytes; the new space reads as
     * zeros. QC_NOSPACE or QC_IO where it cannot. NULL: the disk's size is fixed.
     */
    qc_status (*grow)(struct qc_disk *disk, uint64_t size_bytes);

    /* A hint: these bytes are not needed any more and may read as anything. NULL: not wanted. */
    void (*trim)(struct qc_disk *disk, uint64_t host_off, uint64_t len);
};

struct qc_disk {
    const struct qc_disk_ops *ops;
    uint64_t size_bytes;  /* what the device holds now; need not be a multiple of block_bytes */
    uint32_t block_bytes; /* the device's own unit, a power of two, 512 to 4096; written whole */
    bool readonly;        /* only read is there, and only it is called */
};

#endif
