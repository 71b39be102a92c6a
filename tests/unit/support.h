/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * What the unit tests share: a disk in memory that counts and fails on order, and the smallest
 * images worth testing, built byte by byte so that every field can be made wrong.
 */
#ifndef UNIT_SUPPORT_H
#define UNIT_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../core/qcow2.h"

#define MEM_DISK_BYTES (4u * 1024 * 1024)
#define POOL_BYTES     (32u * QC_PAGE_BYTES)
#define OPEN_READS_MAX 64u

/* Where the small image keeps its parts, in clusters of any size. */
enum { AT_HEADER, AT_REFTABLE, AT_REFBLOCK, AT_L1, AT_L2, AT_DATA };

struct mem_disk {
    struct qc_disk disk; /* first, so that a disk's pointer is its mem_disk's */
    uint8_t bytes[MEM_DISK_BYTES];
    unsigned reads_count;
    uint64_t read_off_last, read_len_last;
    unsigned fail_at; /* the read of this number fails, counted from 1; 0: none */
    unsigned writes_count, flushes_count, trims_count;
    uint64_t write_off_last;
    unsigned fail_write_at, fail_flush_at; /* likewise */
    uint64_t write_bytes;
    bool is_full; /* it does not grow any more */
};

/* What lies below an image, handed out by depth; more than can be opened fit. */
struct mem_layers {
    struct qc_bases bases; /* first, so that a finder's pointer is its mem_layers' */
    struct mem_disk *disks[QC_LAYERS_MAX];
    enum qc_format formats[QC_LAYERS_MAX]; /* NONE: left as the layer above says */
    qc_status answers[QC_LAYERS_MAX];      /* other than QC_OK: refused with the line "not here" */
    char names[QC_LAYERS_MAX][QC_BACKING_NAME_BYTES_MAX + 1]; /* as they were asked for */
    enum qc_format asked_formats[QC_LAYERS_MAX];
    unsigned asked_count;
};

/* One disk for whoever asks, whatever for. */
struct mem_data {
    struct qc_bases bases; /* first, so that a finder's pointer is its mem_data's */
    struct qc_disk *disk;
};

struct rig {
    struct mem_disk disk;
    struct mem_data data;
    struct qc_cache cache;
    struct qc_image image;
    struct qc_open_options options;
    uint64_t cluster_bytes;
    _Alignas(QC_PAGE_BYTES) uint8_t pool[POOL_BYTES];
};

void put_be32(uint8_t *bytes, uint32_t value);
void put_be64(uint8_t *bytes, uint64_t value);

/*
 * The image that rig_build describes, on any disk in memory, which it makes one that grows. Counts
 * are there for as many clusters as one refcount block has room for.
 */
void image_build(struct mem_disk *mem, uint32_t version, unsigned cluster_bits,
                 uint64_t guest_bytes, unsigned data_clusters);
void image_set_l2(struct mem_disk *mem, uint64_t entry_index, uint64_t entry);
uint64_t image_l2(const struct mem_disk *mem, uint64_t entry_index);
unsigned image_count(const struct mem_disk *mem, uint64_t host_off);
void image_set_count(struct mem_disk *mem, uint64_t host_off, unsigned count);

/* Says what lies below; format "" leaves it unsaid. */
void image_set_below(struct mem_disk *mem, const char *name, const char *format);

/* The finder that options.bases wants, with nothing to hand out yet. */
void layers_init(struct mem_layers *layers);

/*
 * A v2 or v3 image of guest_bytes: empty L2 table for the first L1 entry, the disk cut right behind
 * data_clusters clusters of data, whose bytes are all different from their neighbours'.
 */
void rig_build(struct rig *rig, uint32_t version, unsigned cluster_bits, uint64_t guest_bytes,
               unsigned data_clusters);
void rig_set_l2(struct rig *rig, uint64_t entry_index, uint64_t entry);
/* Maps the first so many guest clusters in order, each to its own cluster of data. */
void rig_map(struct rig *rig, unsigned clusters_count);
/*
 * Makes the image one whose data lies in a file of the name "data", the header's only extension and
 * feature: a disk of size_bytes that grows, in which every byte is different from its neighbours.
 */
void rig_set_data_file(struct rig *rig, struct mem_disk *data, uint64_t size_bytes);
/* Makes the disk one that does not grow and wants no trims. */
void rig_fix_size(struct rig *rig, uint64_t size_bytes);
uint64_t rig_data_off(const struct rig *rig, unsigned data_cluster);
qc_status rig_open(struct rig *rig);
/* Opens for reading and writing, with nothing to say of it. */
void rig_open_ok(struct rig *rig);
/*
 * Both of an image that was opened, until it is opened anew. Believed: its counts are not looked at
 * before the first change, as those of an image that is too large for it. Shrunk: the pool has so
 * few pages that every lookup reads, and the epoch is soon full.
 */
void rig_believe(struct rig *rig);
void rig_shrink(struct rig *rig, unsigned pages_count);

/*
 * Opens and requires exactly this answer and sentence after at most OPEN_READS_MAX reads, and that
 * no byte of the disk changed. An answer that is not QC_OK is a refusal and is counted as one; how
 * many there were is the last thing a program says.
 */
void rig_expect(struct rig *rig, qc_status status, const char *detail);

/* As rig_expect, of an image that opens and takes no writes for this reason: a refusal of those. */
void rig_expect_readonly(struct rig *rig, const char *reason);

/* What damage met at run time changes on the disk: nothing, or, durably, the mark in the header. */
enum rig_mark { RIG_UNMARKED, RIG_MARKED };

/* Remembers every byte of the disk, for rig_expect_damage to compare. */
void rig_keep(const struct rig *rig);

/*
 * Requires that the last request gave this answer and sentence, and that since rig_keep no byte of
 * the disk changed but the mark, nor does at a clean end. QC_CORRUPT also has to be the reason why
 * writes are not taken any more. Counts a refusal.
 */
void rig_expect_damage(struct rig *rig, qc_status answer, qc_status status, const char *detail,
                       enum rig_mark mark);

/*
 * A test whose state is one zeroed rig. Built with QC_SEEDS_AT_RUN_TIME it has the named bug of
 * core/seeded.h that QC_UNIT_SEED in the environment names, "none" among them.
 */
int rig_setup(void **state);
int rig_teardown(void **state);
#define RIG_TEST(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)

/* The byte that fills the disk at host_off outside the tables. */
uint8_t pattern_at(uint64_t host_off);

#endif
