/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * A disk that answers nothing, in place of layers and data files that are not to be looked at: what
 * counts for a report of one image are its own tables, and what lies below need not be there.
 */
#ifndef REPORT_NOWHERE_H
#define REPORT_NOWHERE_H

#include "../../../core/qcow2.h"

static inline qc_status nowhere_read(struct qc_disk *disk, uint64_t host_off, void *buf, size_t len)
{
    (void)disk, (void)host_off, (void)buf, (void)len;
    return QC_IO;
}

static inline qc_status nowhere_write(struct qc_disk *disk, uint64_t host_off, const void *buf,
                                      size_t len)
{
    (void)disk, (void)host_off, (void)buf, (void)len;
    return QC_IO;
}

static inline qc_status nowhere_flush(struct qc_disk *disk)
{
    (void)disk;
    return QC_OK;
}

/* As large as any guest's disk can be. */
static inline struct qc_disk *nowhere(void)
{
    static const struct qc_disk_ops ops = {nowhere_read, nowhere_write, nowhere_flush, NULL, NULL};
    static struct qc_disk disk = {
        .ops = &ops, .size_bytes = QC_GUEST_BYTES_MAX, .block_bytes = QC_SECTOR_BYTES};

    return &disk;
}

#endif
