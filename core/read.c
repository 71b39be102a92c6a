/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The one loop that reads: split a request into runs, transfer each.
 *
 * A run is transferred in one piece, straight into the caller's buffer. The engine keeps no data of
 * the guest.
 */
#include "read.h"

#include "bytes.h"
#include "map.h"

static qc_status read_data(struct qc_image *image, uint64_t host_off, uint8_t *buf, uint64_t len)
{
    uint64_t disk_bytes = image->disk->size_bytes;
    uint64_t here = host_off < disk_bytes ? qc_min(len, disk_bytes - host_off) : 0;
    qc_status status;

    /* A file may end within its last cluster: what is not there was never written. */
    __builtin_memset(buf + here, 0, len - here);
    if (here == 0)
        return QC_OK;
    status = image->disk->ops->read(image->disk, host_off, buf, here);
    if (status != QC_OK)
        return qc_fail(&image->detail, status, "data at %x cannot be read", host_off);
    return QC_OK;
}

qc_status qc_read_runs(struct qc_image *image, uint64_t guest_off, void *buf, uint64_t len)
{
    uint8_t *out = buf;

    while (len > 0) {
        struct qc_extent run;
        qc_status status = qc_map_run(image, guest_off, len, &run);

        if (status == QC_OK && run.kind == QC_EXTENT_DATA)
            status = read_data(image, run.host_off, out, run.len);
        else if (status == QC_OK)
            __builtin_memset(out, 0, run.len);
        if (status != QC_OK)
            return status;
        guest_off += run.len;
        out += run.len;
        len -= run.len;
    }
    return QC_OK;
}
