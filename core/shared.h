/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Which tables share their clusters with something that is no such table: two claim the same bytes,
 * and to change them for one is to change them for the other.
 *
 * Promises: no shared table is missed; sharing between snapshots, which is none of this, is not
 * taken for it. A shared table can be given clusters of its own with the same bytes, so that
 * neither claim is lost.
 *
 * Left to others: counts and flushes (repair.c).
 */
#ifndef QC_SHARED_H
#define QC_SHARED_H

#include "relocate.h"

/* For qc_repair_windows: remembers what is shared in a window, counted with tables. */
qc_status qc_judge_window(struct qc_repair *repair);

void qc_forget_shared(struct qc_image *image);

bool qc_is_shared(const struct qc_image *image, uint64_t cluster);
bool qc_is_l1_shared(const struct qc_image *image, uint64_t l1_off, uint32_t l1_entries);

/* Calls visit for the active L1 table and for those of all snapshots that can be walked. */
qc_status qc_for_each_l1(struct qc_repair *repair,
                         qc_status (*visit)(struct qc_repair *repair, uint64_t l1_off,
                                            uint32_t l1_entries));

/*
 * Copies shared L2 tables and shared L1 tables of snapshots to a place of their own, which from
 * here on is counted (repair->copies_count clusters; 0: nothing is shared). Nothing names it yet.
 */
qc_status qc_unshare_copy(struct qc_repair *repair);

/* Makes what named the tables name the copies, whose counts are durable. */
qc_status qc_unshare_switch(struct qc_repair *repair);

#endif
