/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Everything in an image that refers to host clusters, told up into a window of counts.
 *
 * Promises: each reference is counted in exactly one window, whatever is wrong with it; what is
 * counted, and what counts as damage, is what `qemu-img check` counts: damaged entries are followed
 * as far as they can be read. Nothing is written.
 *
 * Left to others: what the counts are held against (check.c), and putting things right (repair.c).
 */
#ifndef QC_REFS_H
#define QC_REFS_H

#include "tally.h"

struct qc_refs {
    struct qc_image *image;
    const struct qc_scratch *scratch;
    struct qc_tally *tally;  /* the window */
    struct qc_tally *tables; /* NULL, or of the same window: only what L1 entries refer to */
    bool is_wide;            /* counts what lies behind the disk's end too */
    bool is_lenient;         /* goes on where the snapshot table breaks a limit */
    uint64_t copies_off, copies_bytes; /* counts as well, although nothing names it */
    /* Asked before each L2 table; false ends the walk with QC_RANGE. NULL: not. */
    bool (*go_on)(void *context, uint64_t l1_index);
    void *context;

    uint64_t clusters;   /* of the disk, the last may be a part; one more where one is touched */
    uint64_t end;        /* cluster behind the last one that was referred to */
    uint64_t beyond_end; /* the same of references behind the disk's end */
    uint64_t stored_end; /* cluster behind the last that a refcount block counts */
    uint64_t snapshots_bytes; /* of the snapshot table */
    uint64_t corruptions, check_errors;
    uint64_t corruptions_in_window; /* those that this window alone tells */
    uint64_t allocated, fragmented, compressed;
    bool needs_rebuild;   /* the refcount table has entries that cannot stay */
    bool needs_entries;   /* L1 or L2 entries are flawed, */
    bool needs_snapshots; /* those of the snapshot table, */
    bool needs_bitmaps;   /* or the bitmaps */

    uint64_t next_off; /* where data would go on that is not fragmented */
    bool is_active;    /* the walk is in the image's own tables */
};

/*
 * Tells up all references of the image. Figures and damage are set anew each time; they are the
 * same whatever the window, but for corruptions_in_window. QC_OK, QC_IO, QC_RANGE.
 */
qc_status qc_refs_count(struct qc_refs *refs);

/* One entry of the snapshot table: "Snapshots". */
struct qc_snapshot_place {
    uint64_t host_off;
    uint64_t l1_off;
    uint32_t l1_entries;
    uint32_t extra_bytes;
    uint32_t strings_bytes; /* id and name, behind the extra data */
};

/*
 * Whether len bytes at host_off lie behind the end of a disk of disk_bytes. The last cluster of a
 * file may be there in part; what lies farther out is damage.
 */
bool qc_is_beyond(const struct qc_header *header, uint64_t disk_bytes, uint64_t host_off,
                  uint64_t len);

/* Whether a snapshot's L1 table can be walked, and whether all of it is on a disk of disk_bytes. */
bool qc_is_place_walkable(const struct qc_header *header, const struct qc_snapshot_place *place);
bool qc_is_place_whole(const struct qc_header *header, uint64_t disk_bytes,
                       const struct qc_snapshot_place *place);

#define QC_SNAPSHOT_HEAD_BYTES 40u

/*
 * The entry at *host_off, which is moved behind it; the next one is at the next multiple of 8.
 */
qc_status qc_snapshot_place(struct qc_image *image, uint64_t *host_off,
                            struct qc_snapshot_place *ret_place);

/*
 * Looks at the directory of bitmaps of an image that was just opened, with so many reads at
 * most; what is behind is not looked at. QC_IO, QC_CORRUPT.
 */
qc_status qc_refs_look_at_bitmaps(struct qc_image *image, uint32_t reads_max);

#endif
