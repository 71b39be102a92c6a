/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * A request is cut where the runs of the file end; see extents.h for what that promises.
 */
#include "extents.h"

/* Index of the run that holds file_off, which is below the file's size. */
static size_t run_at(const struct qc_extents *extents, uint64_t file_off)
{
    size_t low = 0, high = extents->count;

    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;

        if (extents->list[middle].file_off <= file_off)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Reads to buf, or writes from bytes where buf is NULL. */
static qc_status transfer(struct qc_disk *disk, uint64_t file_off, uint8_t *buf,
                          const uint8_t *bytes, size_t len)
{
    struct qc_extents *extents = (struct qc_extents *)disk;
    struct qc_disk *below = extents->below;
    qc_status status = QC_OK;

    for (size_t i = run_at(extents, file_off); len > 0 && status == QC_OK; i++) {
        const struct qc_run *run = &extents->list[i];
        uint64_t end_off = i + 1 < extents->count ? run[1].file_off : disk->size_bytes;
        size_t part = end_off - file_off < len ? (size_t)(end_off - file_off) : len;
        uint64_t host_off = run->host_off + (file_off - run->file_off);

        if (buf != NULL) {
            status = below->ops->read(below, host_off, buf, part);
            buf += part;
        } else {
            status = below->ops->write(below, host_off, bytes, part);
            bytes += part;
        }
        file_off += part;
        len -= part;
    }
    return status;
}

static qc_status read_runs(struct qc_disk *disk, uint64_t host_off, void *buf, size_t len)
{
    return transfer(disk, host_off, buf, NULL, len);
}

static qc_status write_runs(struct qc_disk *disk, uint64_t host_off, const void *buf, size_t len)
{
    return transfer(disk, host_off, NULL, buf, len);
}

static qc_status flush_below(struct qc_disk *disk)
{
    struct qc_disk *below = ((struct qc_extents *)disk)->below;

    return below->ops->flush(below);
}

void qc_extents_init(struct qc_extents *extents, struct qc_disk *below, const struct qc_run *list,
                     size_t count, uint64_t size_bytes)
{
    static const struct qc_disk_ops ops = {read_runs, write_runs, flush_below, NULL, NULL};

    extents->disk = (struct qc_disk){.ops = &ops,
                                     .size_bytes = size_bytes,
                                     .block_bytes = below->block_bytes,
                                     .readonly = below->readonly};
    extents->below = below;
    extents->list = list;
    extents->count = count;
}
