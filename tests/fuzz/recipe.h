/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * An input as a recipe: the shape of an image, then items of what lies in it, what is damaged in
 * it and what is done with it.
 *
 * Promises: any bytes are a recipe, and most of them one of an image that opens; a recipe without
 * damage is an image without a fault. So libFuzzer's own mutations keep the structure, and mutate.c
 * adds those that know it.
 *
 * The bytes: RECIPE_SHAPE_BYTES of shape, then items of RECIPE_ITEM_BYTES: kind, a, b (2), c (4),
 * numbers little endian.
 */
#ifndef FUZZ_RECIPE_H
#define FUZZ_RECIPE_H

#include "disk.h"

#define RECIPE_SHAPE_BYTES 8u
#define RECIPE_ITEM_BYTES  8u
#define RECIPE_ITEMS_MAX   48u
#define RECIPE_SNAPSHOTS   3u

enum recipe_kind {
    RECIPE_MAP,   /* a: digit and flavour, c: subclusters or how it is packed */
    RECIPE_POKE,  /* a: table and form of the value, b: index, c: value */
    RECIPE_COUNT, /* b: host cluster, c: its count */
    RECIPE_BYTE,  /* a: value, c: host offset */
    RECIPE_CUT,   /* b: sectors that the disk loses */
    RECIPE_READ,  /* a: digit, b: first sector, c: sectors; so the next three */
    RECIPE_WRITE,
    RECIPE_ZERO, /* a's high bits: may_unmap, all of the guest */
    RECIPE_DISCARD,
    RECIPE_FLUSH,
    RECIPE_SETTLE,
    RECIPE_SNAP_CREATE,
    RECIPE_SNAP_APPLY,  /* b: which */
    RECIPE_SNAP_DELETE, /* b: which */
    RECIPE_CHECK,       /* a: fix */
    RECIPE_RESIZE,      /* a: how, c: how far */
    RECIPE_REOPEN,      /* a: settled, or as if the process had died */
    RECIPE_LIST,        /* of snapshots */
    RECIPE_MAP_RUNS,    /* of the whole guest */
    RECIPE_FAULT,       /* c: the write that fails */
    RECIPE_KINDS
};

struct recipe_item {
    unsigned kind, a, b;
    uint32_t c;
};

struct recipe {
    unsigned version, cluster_bits, refcount_order;
    bool is_extended, is_zstd, has_data_file, has_below;
    unsigned below_kind; /* 0: half as long as the guest, 1: as long, 2: longer */
    bool is_dirty, is_corrupt, has_autoclear;
    unsigned windows;      /* 1 to FUZZ_WINDOWS_MAX */
    unsigned tail_sectors; /* that the last cluster of the guest lacks */
    unsigned snapshots_count;
    bool is_readonly, is_write_through, is_for_check, is_backing_off, can_grow, can_trim;
    bool has_large_blocks, is_snapshot_shown;
    unsigned spare_clusters; /* free ones at the end of the disk */
    unsigned pool_pages;
    unsigned items_count;
    struct recipe_item items[RECIPE_ITEMS_MAX];
    bool is_damaged; /* an item damages it */
};

/* Where the parts of a rendered image lie. */
struct layout {
    unsigned version, cluster_bits, refcount_order, reach_bits, l2_words;
    uint64_t guest_bytes;
    uint64_t reftable_off, l1_off, snapshots_off, first_block_off;
    uint64_t l2_off[FUZZ_WINDOWS_MAX];
    uint64_t snapshot_l1_off[RECIPE_SNAPSHOTS];
    unsigned l1_entries, blocks_count;
    uint64_t below_bytes; /* 0: nothing lies below */
};

/* What each sector of the guest that is looked at holds: one word, again and again. */
#define TAG_ANY UINT64_MAX /* nobody knows */
struct guest_tags {
    uint64_t sectors[FUZZ_DIGITS][FUZZ_SECTORS_MAX];
};

void recipe_parse(struct recipe *recipe, const uint8_t *input, size_t len);

/* Puts the image on a disk, which is made, the guest's bytes in tags, and damages it. */
void recipe_render(const struct recipe *recipe, struct fuzz_disk *fuzz, struct fuzz_disk *data,
                   struct layout *ret_layout, struct guest_tags *ret_tags);

/* A table's words are poked, counts set, bytes changed, as the items say. */
void recipe_damage(const struct recipe *recipe, const struct layout *layout,
                   struct fuzz_disk *fuzz);

/* The guest offset of a digit, for any number of windows. */
uint64_t digit_off(const struct layout *layout, unsigned digit);

/* Stores a count; nothing where no block has room for it. */
void layout_set_count(const struct layout *layout, uint8_t *bytes, uint64_t cluster,
                      uint64_t count);

#endif
