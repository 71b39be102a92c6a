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

/* An L2 entry; bits is its second word, where the image has those. All 0: what is below shows. */
struct mapping {
    uint64_t word, bits;
};

struct check_snapshot {
    char name; /* the first character */
    uint64_t guest_bytes;
    struct mapping entries[GUEST_CLUSTERS];
};

struct check {
    const char *corruption; /* NULL: none. What qemu-img check exits with 2 for */
    const char *unflagged;  /* NULL: none. The same, for a COPIED flag that is not there alone */
    const char *overlap;    /* NULL: none. A cluster of two uses, a count out of nowhere */
    uint64_t where;         /* host offset or cluster of the first complaint */
    uint32_t leaks_count;   /* counts above their references */
    uint64_t autoclear;     /* bits, but for that of a raw data file */
    uint64_t guest_bytes;
    bool is_dirty, is_extended, has_data_file, is_raw_data;
    bool has_stray; /* the guest has a cluster that no digit names */
    unsigned cluster_bits;
    struct mapping active[GUEST_CLUSTERS];
    unsigned snapshots_count;
    struct check_snapshot snapshots[SNAPSHOTS_KEPT_MAX]; /* in the order of their table */
};

#define CHECK_OFFSET_MASK UINT64_C(0x00fffffffffffe00)
#define CHECK_COPIED      (UINT64_C(1) << 63)
#define CHECK_COMPRESSED  (UINT64_C(1) << 62)
#define CHECK_ZERO        1u

/* Where the bytes of a compressed cluster begin, and the end of the last sector they may lie in. */
void check_packed_range(uint64_t entry, unsigned cluster_bits, uint64_t *ret_first,
                        uint64_t *ret_end);

/* Whether the image is marked dirty: then its verdict is that of what a repair makes of it. */
bool check_is_dirty(struct view *view);

/* A larger count nobody wrote. A long run, where leaks of many cuts add up, sets more. */
extern uint64_t check_count_max;

void check_state(struct view *view, struct check *ret_check);

#endif
