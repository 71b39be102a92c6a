/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The snapshot table: finding entries in it, and writing it anew with one more or one less.
 *
 * Promises: nothing of an entry is used before it is checked against the format's limits and the
 * disk; a table written anew has every other entry byte for byte as it was, with all that is not
 * known of it. Nothing goes through the cache, so all of it works while the pages are borrowed; the
 * staging buffer is used.
 *
 * Left to others: making a table the image's (snapshot.c). Format: QEMU's docs/interop/qcow2,
 * "Snapshots".
 */
#ifndef QC_SNAPTABLE_H
#define QC_SNAPTABLE_H

#include "walk.h"

/* The largest entry that is made here: fixed part, extra data, id and name. */
#define QC_SNAPSHOT_NEW_BYTES_MAX 360u

/* Where an entry stands in its table, in bytes; a multiple of 8. */
struct qc_snapshot_span {
    uint64_t off;
    uint64_t len;
};

/* As qc_snapshot_find, with the entry's place. */
qc_status qc_snaptable_find(struct qc_image *image, const char *id_or_name,
                            struct qc_snapshot *ret_snapshot, struct qc_snapshot_span *ret_span);

/* Bytes of the table, and the id for a new entry. QC_IO, QC_CORRUPT, QC_UNSUPPORTED. */
qc_status qc_snaptable_survey(struct qc_image *image, uint64_t *ret_bytes, uint64_t *ret_new_id);

/*
 * Puts an entry together for the disk as it is now, with all that QEMU writes into one but the
 * offset of its L1 table, which comes first. entry has room for QC_SNAPSHOT_NEW_BYTES_MAX.
 * QC_RANGE: the name is too long.
 */
qc_status qc_snaptable_entry(struct qc_image *image, uint64_t id, const char *name,
                             uint32_t date_sec, uint32_t date_nsec, uint8_t *entry,
                             uint32_t *ret_len);

/*
 * Writes to host_off the image's table, which has table_bytes, without a span (len 0: all of it)
 * and with an entry of entry_len bytes behind it. No flush. The header names it next, or the image
 * takes no more writes: from here on its length is the table's.
 */
qc_status qc_snaptable_write(struct qc_image *image, uint64_t host_off, uint64_t table_bytes,
                             const struct qc_snapshot_span *without, const uint8_t *entry,
                             uint32_t entry_len);

/*
 * Whether a snapshot's L1 table can be walked: inside the host disk and the limits. QC_CORRUPT,
 * QC_UNSUPPORTED.
 */
qc_status qc_snapshot_check_table(struct qc_image *image, const struct qc_snapshot *snapshot);

/* Whether it can be used as the disk: the size is known too, and all of it covered. */
qc_status qc_snapshot_check(struct qc_image *image, const struct qc_snapshot *snapshot);

/*
 * Makes an image that was just opened, and is read-only, show a snapshot's disk. QC_RANGE where
 * there is none; errors as qc_snapshot_check.
 */
qc_status qc_snapshot_enter(struct qc_image *image, const char *id_or_name);

#endif
