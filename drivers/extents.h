/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * A disk that lies in runs on another one: a file, by the places where its content is.
 *
 * Promises: a request becomes one request below for each run that it touches, in the order of the
 * file, and none outside of the runs; the size is fixed; nothing is trimmed. Where a write fails,
 * the runs before may have landed, as a disk may answer (disk.h).
 * Left to others: where the runs are (fat.h), and that they stay the file's.
 */
#ifndef DRIVERS_EXTENTS_H
#define DRIVERS_EXTENTS_H

#include "../core/disk.h"

/* One run. It ends where the next one begins in the file, the last one with the file. */
struct qc_run {
    uint64_t file_off; /* bytes; rising from the first's 0 */
    uint64_t host_off; /* bytes, on the disk below */
};

struct qc_extents {
    struct qc_disk disk;   /* first: what the engine is given */
    struct qc_disk *below; /* valid as long as this is in use, as the list is */
    const struct qc_run *list;
    size_t count;
};

/*
 * Makes extents->disk: size_bytes long, in the blocks of below, and readonly where below is; the
 * caller may set readonly where it is not. list[0..count) holds the whole file, and every offset is
 * a multiple of the blocks; an empty file has an empty list.
 */
void qc_extents_init(struct qc_extents *extents, struct qc_disk *below, const struct qc_run *list,
                     size_t count, uint64_t size_bytes);

#endif
