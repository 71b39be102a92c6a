/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See window.h. A window never crosses the end of its table, so every byte of it belongs to slices
 * of that one table.
 */
#include "window.h"

#include "blank.h"
#include "bytes.h"
#include "seeded.h"
#include "sure.h"
#include "table.h"

/* Copies between the staging buffer and the part of a slice that the window covers. */
static void overlap(const struct qc_window *window, uint64_t slice_off, uint64_t slice_len,
                    uint32_t *ret_in_window, uint32_t *ret_in_slice, uint32_t *ret_len)
{
    uint64_t slice_start = window->table_off + slice_off;
    uint64_t start = window->host_off > slice_start ? window->host_off : slice_start;
    uint64_t end = qc_min(window->host_off + window->len, slice_start + slice_len);

    *ret_in_window = (uint32_t)(start - window->host_off);
    *ret_in_slice = (uint32_t)(start - slice_start);
    *ret_len = (uint32_t)(end > start ? end - start : 0);
}

qc_status qc_window_load(struct qc_image *image, const struct qc_window *window)
{
    uint64_t first = (window->host_off - window->table_off) & ~QC_U(QC_PAGE_BYTES - 1);
    uint64_t end = window->host_off + window->len - window->table_off;
    uint32_t in_window, in_slice, len;
    const uint8_t *slice;

    __builtin_memset(image->cache->staging, 0, window->len);
    for (uint64_t off = first; off < end && off < window->table_bytes; off += QC_PAGE_BYTES) {
        uint64_t slice_len = qc_min(QC_PAGE_BYTES, window->table_bytes - off);
        qc_status status;

        overlap(window, off, slice_len, &in_window, &in_slice, &len);
        if (qc_blank_covers(image, window->host_off + in_window, len))
            continue;
        status = qc_table_slice(image, 0, window->table_off, window->table_bytes, off,
                                QC_HEAT_PASSING, &slice);
        if (status != QC_OK)
            return status;
        /* The slice reaches to the end of its last block, where the disk does. */
        slice_len = (slice_len + image->top.disk->block_bytes - 1) &
                    ~QC_U(image->top.disk->block_bytes - 1);
        slice_len = qc_min(slice_len, image->top.disk->size_bytes - (window->table_off + off));
        overlap(window, off, slice_len, &in_window, &in_slice, &len);
        __builtin_memcpy(image->cache->staging + in_window, slice + in_slice, len);
    }
    return QC_OK;
}

qc_status qc_window_store(struct qc_image *image, const struct qc_window *window)
{
    uint64_t first = (window->host_off - window->table_off) & ~QC_U(QC_PAGE_BYTES - 1);
    uint64_t end = window->host_off + window->len - window->table_off;
    uint32_t in_window, in_slice, len;
    bool is_inside = !QC_SEED(own_fault) && window->host_off >= window->table_off &&
                     qc_is_inside(window->host_off, window->len, image->top.disk->size_bytes);
    qc_status status = qc_sure(image, is_inside, "a table outside the disk");

    if (status != QC_OK)
        return status;
    image->is_unflushed = true;
    status = image->top.disk->ops->write(image->top.disk, window->host_off, image->cache->staging,
                                         window->len);
    for (uint64_t off = first; off < end; off += QC_PAGE_BYTES) {
        uint32_t slice_len;
        uint8_t *slice = qc_cache_peek(image->cache, window->table_off + off, &slice_len);

        if (status != QC_OK)
            qc_cache_forget(image->cache, window->table_off + off);
        if (status != QC_OK || slice == NULL || QC_SEED(stale_cache))
            continue;
        overlap(window, off, slice_len, &in_window, &in_slice, &len);
        __builtin_memcpy(slice + in_slice, image->cache->staging + in_window, len);
    }
    if (status != QC_OK)
        return qc_fail(&image->detail, status, "table at %x cannot be written", window->host_off);
    return QC_OK;
}
