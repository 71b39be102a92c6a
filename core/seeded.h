/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Named bugs, for the tests to find: a suite that stays green with one of them built in is a
 * defect.
 *
 * `make test-seeded SEEDED=name` builds with -DQC_SEEDED=name. The crash suite is built once with
 * -DQC_SEEDS_AT_RUN_TIME and chooses by qc_seed. Any other build has QC_SEED(name) constant 0.
 */
#ifndef QC_SEEDED_H
#define QC_SEEDED_H

/* Each name, and what is broken. */
#define QC_SEEDS(SEED)                                                                             \
    SEED(l2_lookup, "the entry behind the right one is taken from an L2 slice")                    \
    SEED(merge_gap, "clusters count as one run wherever they lie on the host")                     \
    SEED(zero_flag, "the flag reads-as-zeros is overlooked where a cluster is kept")               \
    SEED(no_flush1, "no flush after stage 1: L2 before data, before counts")                       \
    SEED(no_flush2, "no flush after stage 2: pointers before the refcount table")                  \
    SEED(no_flush3, "no flush after stage 3: released before the unmapping is durable")            \
    SEED(late_counts, "counts are raised in stage 3, after the entries")                           \
    SEED(early_l1, "L1 entries are written in stage 1: before the L2 table and its count")         \
    SEED(early_root, "refcount table entries are written in stage 1: before their block")          \
    SEED(block_uncounted, "a new refcount block does not count itself")                            \
    SEED(early_drop, "stage 1 writes the lowered count: decrement before the unmapping")           \
    SEED(net_count, "stage 1 writes raises and drops summed up (R6)")                              \
    SEED(no_quarantine, "a cluster is free as soon as its count is 0: reuse before the unmapping") \
    SEED(early_trim, "the host gets a cluster back at once: discard before the unmapping")         \
    SEED(late_trim, "the host gets a cluster back one commit late: a stale hole on a reused one")  \
    SEED(no_fill, "the unwritten part of a fresh cluster is left as it was")                       \
    SEED(late_fill, "fresh clusters are filled in stage 3, after their pointers")                  \
    SEED(late_copy, "copy on write copies at the commit's end, after the pointer")                 \
    SEED(no_copy, "copy on write copies nothing")                                                  \
    SEED(no_cow, "a shared cluster is written in place")                                           \
    SEED(no_l2_cow, "a shared L2 table is changed in place")                                       \
    SEED(rewrite_new, "a new table is written whole again after a failed stage 3 (R2)")            \
    SEED(lose_epoch, "a failed commit forgets its epoch")                                          \
    SEED(lose_quarantine, "a failed commit forgets its quarantine (R7)")                           \
    SEED(release_early, "quarantine ends after stage 1's flush")                                   \
    SEED(cancel_equal, "a record that equals the durable entry is dropped (R4)")                   \
    SEED(drop_issued, "a lowered count that was issued is dropped when it is reused (R4)")         \
    SEED(open_clean, "a fresh open counts as flushed (R5)")                                        \
    SEED(mid_commit, "a step commits between dropping the old reference and the new entry (R8)")   \
    SEED(skip_empty, "stage 1's flush is skipped when the commit wrote nothing (R9)")              \
    SEED(undo_kept, "a failing write gives back the cluster that a zero entry keeps (R11)")        \
    SEED(free_named, "a failing write drops the clusters that its entries still name (R11)")       \
    SEED(double_alloc, "a failing write records its clusters and gives them back all the same")    \
    SEED(stale_cache, "written slices stay in the cache as they were (R13)")                       \
    SEED(stale_table, "slices of a released cluster stay in the cache (R13)")                      \
    SEED(l2_uncounted, "a new L2 table is not counted: the allocator hands out a live one")        \
    SEED(first_cluster, "the allocator hands out cluster 0")                                       \
    SEED(no_guard, "data and allocations may land on tables (invariant 7)")                        \
    SEED(silent_flush, "a failed flush of the disk is taken for a good one")                       \
    SEED(early_autoclear, "the first change does not wait for cleared autoclear bits")             \
    SEED(packed_zero_flag, "the flag reads-as-zeros is looked for before compressed")              \
    SEED(packed_one_count, "a compressed cluster's counts are dropped in its first host cluster")  \
    SEED(packed_in_place, "a compressed cluster is written in place")                              \
    SEED(below_shows, "discarding leaves a hole through which a layer below shows")                \
    SEED(no_copy_below, "a partial write does not copy what a layer below has")                    \
    SEED(no_sub_copy, "a subcluster that is written in part keeps stale bytes in the rest")        \
    SEED(data_unflushed, "the external data file is not flushed before the tables that name it")   \
    SEED(sub_unfresh, "zeroing a subcluster forgets that others were written and not flushed")     \
    SEED(early_l1_switch, "the header names a grown L1 table before it is durable")                \
    SEED(no_mark, "a change of snapshots is not announced by the dirty bit")                       \
    SEED(late_uncopy, "a snapshot's counts are raised before COPIED is durably cleared")           \
    SEED(early_snapshot, "the header names a snapshot before its counts and tables are durable")   \
    SEED(early_apply, "the header names another L1 table before it and its counts are durable")    \
    SEED(no_switch_flush, "counts are lowered before the header durably lets go of their tree")    \
    SEED(early_copied, "COPIED is set before the count is durably lowered to 1")                   \
    SEED(below_past_end, "behind the end of a shorter layer the one below it shows")               \
    SEED(bulk_unsettled, "a change of snapshots begins while lowered counts wait (R3)")            \
    SEED(early_size, "the header says a new size before what is new reads as zeros")               \
    SEED(own_fault, "a promise of our own counts as broken where a table is written (sure.h)")     \
    SEED(stale_blank, "a new table is believed to be zeros where entries were written since")      \
    SEED(stale_tag, "a slice is read for a guest range whose table is another by now")             \
    SEED(repair_no_mark, "a repair is not announced by the dirty bit")                             \
    SEED(repair_early_switch, "the header names new tables before they and counts are durable")    \
    SEED(repair_early_lower, "a repair lowers counts before the entries that go are durably gone") \
    SEED(repair_early_clear, "the mark is cleared before the repair's last counts are durable")

#define QC_SEED_ENUM(name, what) QC_SEED_##name,
enum qc_seed_number { QC_SEED_none, QC_SEEDS(QC_SEED_ENUM) QC_SEEDS_END };
#undef QC_SEED_ENUM

#if defined(QC_SEEDS_AT_RUN_TIME)
extern enum qc_seed_number qc_seed;
#define QC_SEED(name) (qc_seed == QC_SEED_##name)
#elif defined(QC_SEEDED)
#define QC_SEED_PASTE(name)  QC_SEED_##name
#define QC_SEED_NUMBER(name) QC_SEED_PASTE(name)
#define QC_SEED(name)        (QC_SEED_NUMBER(QC_SEEDED) == QC_SEED_##name)
#else
#define QC_SEED(name) 0
#endif

#endif
