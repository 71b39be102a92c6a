/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Named bugs, for the tests to find: a suite that stays green with one of them built in is a
 * defect.
 *
 * `make test-seeded SEEDED=name` defines QC_SEEDED_name; no other build defines any, and then every
 * QC_SEED is a constant 0. Each name says here what is broken.
 */
#ifndef QC_SEEDED_H
#define QC_SEEDED_H

/* l2_lookup: the entry behind the right one is taken from an L2 slice. */
#ifdef QC_SEEDED_l2_lookup
#define QC_SEED_L2_LOOKUP 1
#else
#define QC_SEED_L2_LOOKUP 0
#endif

/* merge_gap: two neighbouring clusters count as one run wherever the second lies on the host. */
#ifdef QC_SEEDED_merge_gap
#define QC_SEED_MERGE_GAP 1
#else
#define QC_SEED_MERGE_GAP 0
#endif

/* zero_flag: the flag "reads as zeros" is overlooked where a cluster is kept. */
#ifdef QC_SEEDED_zero_flag
#define QC_SEED_ZERO_FLAG 1
#else
#define QC_SEED_ZERO_FLAG 0
#endif

#endif
