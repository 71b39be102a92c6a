/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Small images whose tables and counts are right, to be damaged; what tests of the check and of
 * repairs share.
 */
#ifndef UNIT_SHAPE_H
#define UNIT_SHAPE_H

#include "support.h"

#define SHAPE_COPIED     (UINT64_C(1) << 63)
#define SHAPE_COMPRESSED (UINT64_C(1) << 62)
#define SHAPE_DATA       8u /* clusters of data */

/* SHAPE_DATA clusters, mapped by the first entries of the one L2 table. */
void shape_build(struct rig *rig, uint32_t version, unsigned cluster_bits);

/*
 * A snapshot "s1" of id "1" that shares the L2 table. Its table is the cluster number at, with so
 * much extra data of zeros; its L1 table the next.
 */
void shape_add_snapshot(struct rig *rig, uint32_t extra_bytes, unsigned at);

/* The bytes of a part (AT_HEADER and so on). */
uint8_t *shape_table(struct rig *rig, unsigned part);
uint64_t shape_l2_entry(struct rig *rig, unsigned index);
void shape_set_count(struct rig *rig, unsigned cluster, uint8_t count);
unsigned shape_count(struct rig *rig, unsigned cluster);
uint64_t get_be64(const uint8_t *bytes);

/* Opens and checks; both must go well. */
struct qc_check_result shape_check(struct rig *rig, enum qc_check_fix fix);

/* Requires these figures, and no errors. */
void shape_expect(const struct qc_check_result *result, uint64_t corruptions, uint64_t leaks);

/* Requires that a check finds this and writes nothing. */
void shape_expect_found(struct rig *rig, uint64_t corruptions, uint64_t leaks);

/* Requires that a repair fixes this, and that nothing is found any more. */
void shape_expect_repair(struct rig *rig, uint64_t corruptions, uint64_t leaks);

#endif
