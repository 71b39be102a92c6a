/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See verify.h. One window over all clusters, in counters of one byte: two are enough to tell one
 * reference from more, and a count of 255 that may be 256 is no matter here.
 */
#include "verify.h"

#include "bytes.h"
#include "guard.h"
#include "refs.h"
#include "table.h"

#define SUSPECTS_MAX 16u

struct verify {
    struct qc_image *image;
    uint32_t tables_count; /* that were read */
    uint32_t suspects_count;
    uint64_t suspects[SUSPECTS_MAX];
    struct qc_scratch scratch;
    struct qc_tally tally;
    struct qc_refs refs;
};
_Static_assert(sizeof(struct verify) <= QC_WORK_BYTES, "it fits");

static bool has_budget(void *context, uint64_t l1_index)
{
    struct verify *verify = context;

    (void)l1_index;
    return ++verify->tables_count <= QC_VERIFY_TABLES_MAX;
}

static qc_status compare(void *context, struct qc_stored *item)
{
    struct verify *verify = context;
    struct qc_image *image = verify->image;

    if (item->stored >= item->counted || item->is_lost)
        return QC_OK;
    /*
     * What two refer to and one is counted of would be changed for both, an L2 table that a
     * snapshot has too as much as data. The header's structures are never changed so.
     */
    if (item->counted > 1 && item->stored > 0 && !qc_is_header_structure(image, 0, item->cluster))
        image->lying_off = item->cluster << image->top.header.cluster_bits;
    else if (verify->suspects_count < SUSPECTS_MAX)
        verify->suspects[verify->suspects_count++] = item->cluster;
    return QC_OK;
}

/* Tells up, and holds it against the counts. QC_RANGE: it is too much. */
static qc_status tell_up(struct verify *verify)
{
    struct qc_image *image = verify->image;
    uint64_t end = qc_units(image->top.disk->size_bytes, image->top.header.cluster_bits);
    struct qc_tally *tally = &verify->tally;
    qc_status status = QC_RANGE;

    verify->refs.image = image;
    verify->refs.scratch = &verify->scratch;
    verify->refs.tally = tally;
    verify->refs.go_on = has_budget;
    verify->refs.context = verify;
    qc_scratch_borrow(image, &verify->scratch);
    qc_tally_begin(tally, &verify->scratch, 1, 0, end);
    if (tally->count >= end)
        status = qc_refs_count(&verify->refs);
    if (status == QC_OK && verify->refs.check_errors > 0)
        status = QC_RANGE;
    if (status == QC_OK)
        status = qc_tally_pass(image, &verify->scratch, tally, compare, verify);
    qc_scratch_return(image);
    return status;
}

qc_status qc_verify_counts(struct qc_image *image)
{
    /* A job on snapshots, which may begin this, has the first. */
    struct verify *verify = (struct verify *)image->work[1];
    uint32_t tables_max = (uint32_t)qc_min(QC_VERIFY_TABLES_MAX,
                                           QC_VERIFY_BYTES_MAX >> image->top.header.cluster_bits);
    qc_status status = QC_OK;

    image->lying_off = 0;
    /* Changes that wait live in the cache's pages. */
    if (image->tables_count + image->snapshot_tables_count > tables_max ||
        (image->top.header.autoclear & QC_AUTOCLEAR_BITMAPS) || image->epoch.records_count > 0)
        return QC_OK;
    __builtin_memset(verify, 0, sizeof(*verify));
    verify->image = image;
    status = tell_up(verify);
    /* A table that cannot be read is found by whoever needs it. */
    if (status == QC_RANGE || status == QC_IO) {
        qc_detail_clear(&image->detail);
        return QC_OK;
    }
    /* Of tables the guard knows, whatever is counted of them. */
    for (uint32_t i = 0; status == QC_OK && i < verify->suspects_count; i++) {
        bool is_table;

        status = qc_guard_check(image, verify->suspects[i], &is_table);
        if (status == QC_OK && !is_table) {
            image->lying_off = verify->suspects[i] << image->top.header.cluster_bits;
            break;
        }
    }
    return status;
}
