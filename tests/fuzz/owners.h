/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Who owns each host cluster, told from an image's bytes without the engine.
 *
 * Promises: any bytes have an answer. An image is `is_consistent` where every reference lies on the
 * disk, no cluster has two uses, no count is below its references and every COPIED flag is right;
 * what this does not understand makes it inconsistent, never the other way round.
 */
#ifndef FUZZ_OWNERS_H
#define FUZZ_OWNERS_H

#include "disk.h"

#define OWNERS_CLUSTERS_MAX (FUZZ_DISK_BYTES_MAX >> QC_CLUSTER_BITS_MIN)

/* Uses of a cluster, a bit each. An inactive table is one that snapshots alone need. */
enum owner {
    OWNER_TABLE = 1, /* the header and what it names, blocks, active L1 and L2 tables */
    OWNER_INACTIVE = 2,
    OWNER_DATA = 4,
    OWNER_PACKED = 8,
};

struct owners {
    unsigned cluster_bits;
    uint64_t clusters_count;
    bool is_consistent;
    bool is_dirty;         /* the header's mark */
    const char *odd;       /* the first thing that is wrong; NULL: nothing */
    uint64_t odd_at;       /* host cluster or entry */
    uint64_t leaks;        /* clusters with a higher count than references */
    uint64_t leaks_behind; /* the same, behind the disk */
    bool is_unsure; /* a block has another use, or a table is lost: what is free is not known */
    uint16_t references[OWNERS_CLUSTERS_MAX];
    uint64_t counts[OWNERS_CLUSTERS_MAX];
    uint8_t uses[OWNERS_CLUSTERS_MAX];
};

void owners_find(struct owners *owners, const uint8_t *bytes, uint64_t host_bytes);

#endif
