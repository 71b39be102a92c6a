/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * A FAT volume in memory, as it is made, opened and searched by one test after the other.
 *
 * Left to others: what is made wrong in it (test_fat.c, test_fat_names.c).
 */
#ifndef UNIT_OPENED_VOLUME_H
#define UNIT_OPENED_VOLUME_H

#include "volume.h"

#define CLUSTER   512u
#define DIRECTORY 0x10u
#define FILE_NAME "FILE    BIN"
#define PATH      "file.bin"
#define WIDTHS    3u

extern struct volume volume;
extern struct qc_fat fat;
extern struct qc_fat_file file;
extern uint8_t window[QC_FAT_BUFFER_BYTES];
extern uint64_t entry_off; /* behind the root's entries made so far */

/* Numbers of clusters, one for each width; the last clusters of the volume are used too. */
extern const uint32_t sizes[WIDTHS];

/* An empty volume of so many clusters of CLUSTER bytes, to be opened. */
void start(uint32_t clusters_count);
qc_status open_volume(void);
/* Finds the file of that path. */
qc_status find(const char *path);

#endif
