/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Reads a state without the engine: the verdict that qemu-img check would give, and where the
 * guest's clusters lie.
 *
 * Promises: a verdict for any bytes. Corruption is a table outside the disk or out of line, a count
 * below its references (of a compressed cluster: every host cluster it touches), or a COPIED flag
 * in an active table that is not (count is 1). Beyond what qemu-img looks for, a cluster used for
 * two things is told too.
 *
 * Left to others: whether the data is right (guest.c). Format: QEMU's docs/interop/qcow2.
 */
#ifndef CRASH_CHECK_H
#define CRASH_CHECK_H

#include "oracle.h"
#include "view.h"

#define CHECK_CLUSTERS_MAX 4608u

struct check {
    const char *corruption; /* NULL: none. What qemu-img check exits with 2 for */
    const char *overlap;    /* NULL: none. A cluster of two uses, a count out of nowhere */
    uint64_t where;         /* host offset or cluster of the first complaint */
    uint32_t leaks_count;   /* counts above their references */
    uint64_t autoclear;
    bool has_stray; /* the guest has a cluster that no digit names */
    /* Each digit's L2 entry, 0: none, what lies below shows. */
    uint64_t active[GUEST_CLUSTERS];
    uint64_t snapshot[GUEST_CLUSTERS];
};

#define CHECK_OFFSET_MASK UINT64_C(0x00fffffffffffe00)
#define CHECK_COPIED      (UINT64_C(1) << 63)
#define CHECK_COMPRESSED  (UINT64_C(1) << 62)
#define CHECK_ZERO        1u

/* Where the bytes of a compressed cluster begin, and the end of the last sector they may lie in. */
void check_packed_range(uint64_t entry, unsigned cluster_bits, uint64_t *ret_first,
                        uint64_t *ret_end);

void check_state(struct view *view, struct check *ret_check);

#endif
