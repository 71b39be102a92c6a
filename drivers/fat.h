/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Where a file of a FAT12, FAT16 or FAT32 volume lies (Microsoft's FAT specification, 1.03).
 *
 * Promises: only reads. Every number from the volume is checked before it is used, every loop ends:
 * no byte of a hostile volume leads outside of it. A chain that is taken has exactly the clusters
 * that the file's size asks for, each once. Nothing is kept from one call to the next but the
 * volume's shape, so that what others have written meanwhile is seen.
 *
 * One lookup runs at a time, over all volumes.
 *
 * Left to others: two files that share clusters, which only a look at all files tells (fsck's
 * work); and what to do when a file is not any more where it was.
 */
#ifndef DRIVERS_FAT_H
#define DRIVERS_FAT_H

#include "extents.h"

#define QC_FAT_BUFFER_BYTES 4096u
#define QC_FAT_ENTRY_BYTES  32u
#define QC_FAT_DEPTH_MAX    64u /* names in a path */

struct qc_fat {
    struct qc_disk *volume;
    uint8_t *buf;     /* the caller's QC_FAT_BUFFER_BYTES, for the time of each call */
    uint64_t buf_off; /* what it holds */
    uint64_t fat_off;
    uint64_t root_off;       /* behind the tables: the root's entries, or the first cluster */
    uint64_t data_off;       /* of cluster 2 */
    uint32_t root_bytes;     /* 0: the root is a chain, as on FAT32 */
    uint32_t root_cluster;   /* on FAT32 */
    uint32_t cluster_bytes;  /* a power of two, at least one block of the disk */
    uint32_t clusters_count; /* numbered from 2 */
    uint32_t width;          /* bits of an entry of the table: 12, 16 or 32 */
};

struct qc_fat_file {
    uint64_t entry_off;                /* of its directory entry on the volume, bytes */
    uint32_t size_bytes;               /* FAT has no larger files */
    uint32_t cluster;                  /* the first one; 0 for an empty file */
    uint8_t entry[QC_FAT_ENTRY_BYTES]; /* as it was found */
};

/*
 * Takes the shape of the volume from its first sector. buf stays the caller's, of
 * QC_FAT_BUFFER_BYTES; others may use it between calls. QC_FOREIGN: no FAT volume, or none that
 * fits its disk; QC_UNSUPPORTED: its sectors are smaller than the disk's blocks; QC_IO.
 */
qc_status qc_fat_open(struct qc_fat *fat, struct qc_disk *volume, void *buf);

/*
 * Looks a file up by its path from the root, in UTF-8, \ or / between names. Names are long ones or
 * those of 8.3; ASCII letters are the same in either case, others are compared as they are.
 * QC_RANGE: there is no such file; QC_REFUSED: it is a directory; QC_CORRUPT: a directory on the
 * way is broken; QC_IO.
 */
qc_status qc_fat_find(struct qc_fat *fat, const char *path, struct qc_fat_file *ret_file);

/*
 * The file's clusters as runs on the volume, those that touch as one. QC_CORRUPT: the chain is
 * not one of as many clusters as the size asks for; QC_UNSUPPORTED: it has more than max runs;
 * QC_IO. The list's content is unknown then.
 */
qc_status qc_fat_extents(struct qc_fat *fat, const struct qc_fat_file *file, struct qc_run *list,
                         size_t max, size_t *ret_count);

/*
 * Whether the directory still has the file as it was found: name, first cluster, size, time of the
 * last change. One read. QC_OK; QC_IO: unknown; QC_REFUSED: it was removed, renamed or rewritten.
 */
qc_status qc_fat_verify_entry(struct qc_fat *fat, const struct qc_fat_file *file);

/* The same, and whether its chain still is these runs. Reads the chain. Answers as above. */
qc_status qc_fat_verify(struct qc_fat *fat, const struct qc_fat_file *file,
                        const struct qc_run *list, size_t count);

/*
 * Whether nothing else can ever lie in the pages of this file: the firmware's file system driver
 * (EDK2's) reads and writes back the volume in pages, so that old bytes of this file would come
 * back with what it writes for a neighbour, even for one that is yet to be made. Pages are 64 KiB,
 * 8 KiB on FAT12, counted from root_off.
 */
bool qc_fat_owns_pages(const struct qc_fat *fat, const struct qc_fat_file *file,
                       const struct qc_run *list, size_t count);

#endif
