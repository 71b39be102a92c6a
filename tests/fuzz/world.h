/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * What run.c and watch.c share: the engine on its disks, and what is known of the image.
 */
#ifndef FUZZ_WORLD_H
#define FUZZ_WORLD_H

#include "owners.h"
#include "recipe.h"

#define FUZZ_POOL_BYTES    (80u * QC_PAGE_BYTES)
#define FUZZ_SNAPSHOTS_MAX 8u

struct kept_snapshot {
    char name[4];
    uint64_t guest_bytes;
    struct guest_tags tags;
};

struct world {
    struct recipe recipe;
    struct layout layout;
    struct fuzz_disk fuzz, data;
    struct qc_disk below;
    struct qc_bases bases;
    struct qc_open_options options;
    struct qc_cache cache;
    struct qc_image image;
    struct qc_check_result check;
    struct owners at_open, now; /* now: before a write of the guest's */
    uint8_t header[QC_HEADER_BYTES_MAX];
    bool is_trusted;   /* the tables were consistent: contents are known */
    bool is_shaken;    /* something failed: clusters may have leaked */
    bool is_repaired;  /* a repair may have written anything that it took for a leak */
    bool has_bad_data; /* bytes that do not unpack: reads may fail */
    bool is_silent;    /* no write is right: the image was read-only when it was opened */
    bool is_reading;   /* nor is one now, but of the header's mark */
    uint64_t data_tag; /* the guest's data that is being written, without its sector; 0: none */
    unsigned tags_given, snapshots_count;
    struct guest_tags tags, durable; /* what the guest reads; what it read at the last flush */
    struct kept_snapshot snapshots[FUZZ_SNAPSHOTS_MAX];
};

extern struct world world;

/* The watch of the image's disk: oracles a and b. */
void watch_write(uint64_t host_off, const uint8_t *buf, size_t len);

/* Looks at the disk as it is: what the oracles of the next opening are held against. */
void watch_open(void);

/* The image on the disk, opened; whether it was. */
bool world_open(void);

/* Does one item. */
void world_do(const struct recipe_item *item);

/* Reads all that is known of the guest, and compares; with is_learning, it is what is known. */
void world_verify(bool is_learning);

/* Oracle f, and g's first half: settled, the disk is consistent. */
void world_end(void);

/* What was to be done with sectors of a digit; clipped to its window. */
void world_range(const struct recipe_item *item, uint64_t *ret_off, uint64_t *ret_len);

#endif
