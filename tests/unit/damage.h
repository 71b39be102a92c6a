/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * A small image to be damaged, and what every request that meets the damage must answer.
 *
 * Promises: as rig_expect_damage: nothing changes on the disk but the mark, and what is elsewhere
 * can still be read.
 *
 * Left to others: what the damage is (test_damage.c, test_damage_counts.c).
 */
#ifndef UNIT_DAMAGE_H
#define UNIT_DAMAGE_H

#include "support.h"

#define COPIED     (UINT64_C(1) << 63)
#define COMPRESSED (UINT64_C(1) << 62)
#define ZERO       UINT64_C(1)
#define CLUSTER    4096u
#define GUEST      (64u * CLUSTER)
#define REACH      (512u * CLUSTER) /* of an L2 table */

/* Version 3, clusters of CLUSTER bytes, GUEST of them guest's, the first four mapped in order. */
struct rig *mapped(void **state);

/* The same of a guest disk of 2 * REACH; the second L1 entry names nothing. */
struct rig *two_tables(void **state);

/* Opens, and requires that this write is answered so and changes nothing. */
void expect_refused(struct rig *rig, uint64_t guest_off, size_t len, qc_status status,
                    const char *detail, enum rig_mark mark);

/* What is asked of a guest cluster that damage is in the way of. */
enum request { READ, WRITE, WRITE_PART, ZERO_PART, ZERO_ALL, UNMAP, DISCARD, REQUESTS };

/*
 * Each of these requests of a guest cluster, from the first on, meets the same damage on an image
 * that was opened for it; the first cluster of the disk is read all the same.
 */
void expect_each(struct rig *rig, enum request first, uint64_t guest_off, const char *detail,
                 enum rig_mark mark);

#endif
