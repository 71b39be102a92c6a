/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Puts an image together on an emulated disk: header, tables, data, compressed clusters, counts.
 *
 * A builder keeps the counts as references are added, and writes them at the end. What it puts for
 * a digit it also tells the oracle, where it has one: a layer below is built without, because what
 * the guest sees of it depends on the layers above.
 *
 * Left to others: which images (base.c). Format: QEMU's docs/interop/qcow2.
 */
#ifndef CRASH_BUILDER_H
#define CRASH_BUILDER_H

#include "../sim/sim.h"
#include "oracle.h"

#define BUILDER_CLUSTERS_MAX 4608u
#define ENTRY_COPIED         (UINT64_C(1) << 63)
#define ENTRY_COMPRESSED     (UINT64_C(1) << 62)
#define ENTRY_ZERO           1u

/* Where an image has its parts. */
enum { AT_HEADER, AT_REFTABLE, AT_BLOCK, AT_L1, AT_L2, AT_REST };

struct builder {
    struct sim_disk *sim;
    struct oracle *oracle; /* NULL: not told */
    uint32_t version;
    unsigned refcount_order;
    unsigned cluster_bits;
    uint32_t cluster_bytes;
    uint32_t clusters;
    uint64_t guest_bytes;
    uint16_t data_version; /* of the bytes that it puts (oracle.h) */
    const char *below;     /* the format of what lies below; NULL: nothing does */
    bool is_extended;      /* L2 entries have a second word, for subclusters */
    bool has_data_file, is_raw_data;
    uint16_t counts[BUILDER_CLUSTERS_MAX];
    bool is_used[BUILDER_CLUSTERS_MAX]; /* holds bytes of its own: no poison */
};

void put_be(struct sim_disk *sim, uint64_t host_off, uint64_t value, unsigned bytes_count);

/* The host offset of a cluster. */
uint64_t off_of(const struct builder *builder, uint32_t cluster);

/* One more reference to a cluster. */
void use(struct builder *builder, uint32_t cluster);

/* A digit's place in the tables. */
unsigned l1_index(unsigned digit);
unsigned l2_index(unsigned digit);
uint64_t digit_guest_off(unsigned digit, unsigned cluster_bits, bool is_extended);

void put_l1(struct builder *builder, uint32_t l1, unsigned index, uint32_t l2, uint64_t flags);

/* An entry's second word: subclusters [from, to) have bytes of their own, or read as zeros. */
#define SUBS_COUNT         32u
#define SUBS_ALL           UINT64_C(0xffffffff)
#define SUBS_OF(from, to)  (SUBS_ALL >> (32 - (to)) & SUBS_ALL << (from))
#define SUBS_ZERO_OF(subs) ((uint64_t)(subs) << 32)
void put_bits(struct builder *builder, uint32_t l2, unsigned digit, uint64_t bits);

/* An entry that names a cluster, or none (0). With a data file the digit's own place is meant. */
void put_entry(struct builder *builder, uint32_t l2, unsigned digit, uint32_t cluster,
               uint64_t flags);

/* A digit's bytes at a host offset, from a sector on and up to another. */
void put_sectors(struct builder *builder, unsigned digit, uint64_t host_off, unsigned from,
                 unsigned to);
void put_data(struct builder *builder, unsigned digit, uint32_t cluster);
void add_data(struct builder *builder, uint32_t l2, unsigned digit, uint32_t cluster);

/* A digit's cluster compressed, beginning at any host offset, with poison around it. Returns the
 * host offset right behind it. */
uint64_t add_packed(struct builder *builder, uint32_t l2, unsigned digit, uint64_t host_off);

/* First the header, last the counts and the poison in whatever is not used. */
void put_header(struct builder *builder);
void put_counts(struct builder *builder);
void put_poison(struct builder *builder);

#endif
