/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The one loop that reads: split a request into runs, transfer each.
 *
 * A run is transferred in one piece, straight into the caller's buffer; a compressed cluster is
 * unpacked there too where all of it is asked for (packed.c). The engine keeps no other data of the
 * guest.
 */
#include "read.h"

#include "bytes.h"
#include "map.h"
#include "packed.h"

static qc_status read_data(struct qc_image *image, const struct qc_extent *run, uint8_t *buf)
{
    struct qc_disk *disk = image->layers[run->depth].data;
    uint64_t here = 0;
    qc_status status;

    if (run->host_off < disk->size_bytes)
        here = qc_min(run->len, disk->size_bytes - run->host_off);
    /* A file may end within its last cluster: what is not there was never written. */
    __builtin_memset(buf + here, 0, run->len - here);
    if (here == 0)
        return QC_OK;
    status = disk->ops->read(disk, run->host_off, buf, here);
    if (status != QC_OK)
        return qc_fail(&image->detail, status, "data at %x cannot be read", run->host_off);
    return QC_OK;
}

qc_status qc_read_runs(struct qc_image *image, uint64_t guest_off, void *buf, uint64_t len)
{
    uint8_t *out = buf;

    while (len > 0) {
        struct qc_extent run;
        qc_status status = qc_map_run(image, guest_off, len, &run);

        if (status == QC_OK && run.kind == QC_EXTENT_DATA)
            status = read_data(image, &run, out);
        else if (status == QC_OK && run.kind == QC_EXTENT_COMPRESSED)
            status = qc_packed_read(image, &run, guest_off, out);
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
