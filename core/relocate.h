/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * New refcount structures and a new snapshot table for an image whose own cannot stay, and the
 * windows in which a repair works.
 *
 * Promises: what is new lies in clusters that nothing refers to, inside the disk or behind its end
 * where it grows; the header on the disk names it only after qc_relocate_switch, which is one write
 * of one block. Until then the image in memory alone says that it is there.
 *
 * Left to others: the counts in the new blocks, which start at 0, and flushes (repair.c).
 */
#ifndef QC_RELOCATE_H
#define QC_RELOCATE_H

#include "refs.h"

/* What a check has found. */
struct qc_findings {
    uint32_t width;         /* of counters that are wide enough */
    uint64_t copied_errors; /* corruptions that are wrong COPIED flags */
    uint64_t other_errors;  /* all others */
    bool needs_rebuild, needs_entries, needs_snapshots, needs_bitmaps;
    bool is_again; /* an earlier repair has left damage */
    bool may_drop; /* what can never be read again reads as zeros */
};

struct qc_repair {
    struct qc_image *image;
    const struct qc_scratch *scratch;
    const struct qc_findings *findings;
    bool (*go_on)(void *context, uint64_t l1_index);
    void *context;
    struct qc_header header; /* what the disk says */
    uint64_t disk_bytes;     /* before it grew: what lay behind was nowhere */
    struct qc_scratch halves[2];
    struct qc_tally tally;  /* the window: all references, */
    struct qc_tally tables; /* and those of L1 entries */
    struct qc_refs refs;
    bool is_counted;   /* the window holds the whole image, as it is now */
    bool is_l1_shared; /* something else claims the L1 table in which the walk is */
    bool needs_rebuild, needs_snapshots; /* these tables cannot stay */
    uint64_t wanted;                     /* clusters, for which a place is looked for */
    uint64_t copies_first;               /* clusters that count although nothing names them yet */
    uint64_t copies_count;
    uint64_t moved_count; /* of them, once they are named */
};

/* Calls action for each window of host clusters, told up in repair->tally and, if asked, tables. */
qc_status qc_repair_windows(struct qc_repair *repair, qc_status (*action)(struct qc_repair *repair),
                            bool wants_tables);

/* QC_RANGE where the operation was stopped. */
qc_status qc_repair_go_on(const struct qc_repair *repair, uint64_t l1_index);

/* A place for so many clusters, where nothing is. QC_NOSPACE, QC_IO. */
qc_status qc_relocate_place(struct qc_repair *repair, uint64_t clusters, uint64_t *ret_first);

/* A refcount table and blocks of zeros for every cluster in use. QC_NOSPACE, QC_IO. */
qc_status qc_relocate_counts(struct qc_repair *repair);

/*
 * A snapshot table within the limits: extra data that is too long is cut, that is too short is
 * completed, entries behind the table's limit are dropped; a snapshot whose L1 table is nowhere
 * loses it where that is allowed. QC_NOSPACE, QC_IO.
 */
qc_status qc_relocate_snapshots(struct qc_repair *repair);

/* Writes the header's pointers where they have changed. */
qc_status qc_relocate_switch(struct qc_repair *repair);

/* Makes the image in memory say what the disk does. */
void qc_relocate_undo(struct qc_repair *repair);

#endif
