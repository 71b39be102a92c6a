/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Small images to start from, built in memory byte by byte.
 *
 * The guest has three L2 tables. Digits 0 to 3 are clusters of the first, 4 and 5 of the second, 6
 * of the third (oracle.h); 7 is of a fourth, behind the guest's end until it grows. Whatever no
 * structure uses holds poison: bytes that parse as entries which point at existing clusters. A base
 * may have layers below it, which are disks of their own and are never written. Every base exists
 * for units of 512 and of 4096 bytes, but `reftable`, whose refcount table of 4 KiB clusters would
 * count 1 GiB.
 */
#ifndef CRASH_BASE_H
#define CRASH_BASE_H

#include "../sim/sim.h"
#include "oracle.h"

struct base {
    const char *name;
    uint32_t version;
    unsigned refcount_order;
    uint32_t clusters;     /* of the disk; 0: as many as one refcount block counts, and some */
    uint32_t clusters_max; /* to which it grows; 0: not at all */
    bool has_trim;
    bool is_tight; /* no space is an answer to expect */
    bool is_512_only;
    bool is_write_through;
    void (*build)(void *builder);
    void (*build_below)(unsigned cluster_bits, struct oracle *oracle); /* NULL: nothing is below */
    unsigned lowers_count;
    bool is_extended;   /* subclusters of one sector or two */
    bool has_data_file; /* the guest's data lies on the second disk (sim.h) */
    bool is_raw_data;   /* and can be read there without the image */
    bool is_dirty;      /* marked so, with counts and flags that are wrong */
    bool is_short;      /* the guest ends in the middle of digit 6, and can grow */
};

#define LOWERS_MAX 2u

/* The layers below the base that was built last, the upper first. */
extern struct sim_disk lowers[LOWERS_MAX];

extern const struct base bases[];
extern const unsigned bases_count;

const struct base *base_find(const char *name);
unsigned base_cluster_bits(const struct base *base, uint32_t unit_bytes);

/* The guest offset of a digit's cluster. */
uint64_t base_guest_off(const struct base *base, unsigned digit, unsigned cluster_bits);

void base_build(const struct base *base, uint32_t unit_bytes, struct sim_disk *sim,
                struct oracle *oracle);

#endif
