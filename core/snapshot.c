/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Making, applying and deleting snapshots: the order of the steps (job.h), each of which leaves
 * what a cut may find (invariant 9).
 *
 *   look      counts are read, clusters for new tables found, an overflow refused, what will be
 *             lowered tried: no write yet
 *   mark      the dirty bit, where the format has it
 *   COPIED    cleared in the tree that gains a reference; it is never wrong to have none
 *   raise     its counts, and those of the clusters for new tables; these are written
 *   switch    one sector of the header: the snapshot table, or the size and L1 table of the disk
 *   lower     the counts of the tree that lost a reference
 *   COPIED    set in the disk's tree where that left a count of 1
 *   free      old tables, through the epoch; then the dirty bit
 *
 * Version 2 has no dirty bit: after a cut there may be leaks and missing COPIED flags, which harm
 * nobody.
 */
#include "snapshot.h"

#include "bytes.h"
#include "commit.h"
#include "guard.h"
#include "job.h"
#include "seeded.h"
#include "snaptable.h"

#define HEADER_SIZE_OFF        24u /* size, encryption, L1 entries, L1 offset */
#define HEADER_SIZE_BYTES      24u
#define HEADER_SNAPSHOTS_OFF   60u /* count, offset */
#define HEADER_SNAPSHOTS_BYTES 12u
#define ENTRY_BYTES            8u

static struct qc_tree disk_tree(const struct qc_image *image)
{
    return (struct qc_tree){image->top.header.l1_off, image->top.header.l1_entries};
}

/* The snapshot table is somewhere else now; count 0: nowhere. The old one stays counted. */
static qc_status switch_table(struct qc_job *job, uint64_t host_off, uint32_t count)
{
    struct qc_header *header = &job->image->top.header;
    uint8_t field[HEADER_SNAPSHOTS_BYTES];
    qc_status status;

    qc_put_be32(field, count);
    qc_put_be64(field + 4, host_off);
    status = qc_job_switch(job, HEADER_SNAPSHOTS_OFF, field, sizeof(field));
    if (status != QC_OK)
        return status;
    header->snapshots_count = count;
    header->snapshots_off = host_off;
    return QC_OK;
}

static qc_status create(struct qc_job *job, const char *name, uint32_t date_sec, uint32_t date_nsec)
{
    struct qc_image *image = job->image;
    const struct qc_header *header = &image->top.header;
    const struct qc_snapshot_span nothing = {0, 0};
    struct qc_tree tree = disk_tree(image);
    uint64_t l1_clusters = qc_job_clusters(job, QC_U(tree.l1_entries) * ENTRY_BYTES);
    uint64_t old_off = header->snapshots_off, old_bytes, id, l1_off, table_off;
    uint8_t entry[QC_SNAPSHOT_NEW_BYTES_MAX];
    uint32_t entry_len = 0;
    qc_status status = qc_snaptable_survey(image, &old_bytes, &id);

    if (status == QC_OK)
        status = qc_snaptable_entry(image, id, name, date_sec, date_nsec, entry, &entry_len);
    if (status == QC_OK && (header->snapshots_count == QC_SNAPSHOTS_MAX ||
                            old_bytes + entry_len > QC_SNAPSHOT_TABLE_BYTES_MAX))
        status = qc_fail(&image->detail, QC_UNSUPPORTED, "snapshot table too large: %u snapshots",
                         QC_U(header->snapshots_count));
    /* All of the disk's tree is looked at before anything lands in the run. */
    if (status == QC_OK)
        status = qc_job_prepare(job, &tree,
                                l1_clusters + qc_job_clusters(job, old_bytes + entry_len), true);
    if (status == QC_OK)
        status = qc_job_raise(job, &tree);
    if (status != QC_OK)
        return status;
    l1_off = job->run_first << header->cluster_bits;
    table_off = l1_off + (l1_clusters << header->cluster_bits);
    qc_put_be64(entry, l1_off);
    status = qc_job_copy_l1(job, &tree, l1_off);
    if (status == QC_OK)
        status = qc_snaptable_write(image, table_off, old_bytes, &nothing, entry, entry_len);
    if (status == QC_OK && !QC_SEED(early_snapshot))
        status = qc_flush_disk(image);
    if (status == QC_OK)
        status = switch_table(job, table_off, header->snapshots_count + 1);
    if (status != QC_OK)
        return status;
    for (uint64_t i = 0; i < l1_clusters; i++)
        qc_guard_add_l2(image, (l1_off >> header->cluster_bits) + i);
    return qc_job_free(job, old_off, old_bytes);
}

qc_status qc_snapshot_create(struct qc_image *image, const char *name, uint32_t date_sec,
                             uint32_t date_nsec)
{
    struct qc_job *job = (struct qc_job *)image->work[0];
    qc_status status = qc_job_begin(job, image);

    if (status == QC_OK)
        status = create(job, name, date_sec, date_nsec);
    return qc_job_end(job, status);
}

_Static_assert(sizeof(struct qc_job) <= QC_WORK_BYTES, "a job fits");

/* The disk gets another size and another L1 table. */
static qc_status switch_disk(struct qc_job *job, uint64_t guest_bytes, const struct qc_tree *tree)
{
    struct qc_header *header = &job->image->top.header;
    uint8_t field[HEADER_SIZE_BYTES];
    qc_status status;

    qc_put_be64(field, guest_bytes);
    qc_put_be32(field + 8, header->crypt_method);
    qc_put_be32(field + 12, tree->l1_entries);
    qc_put_be64(field + 16, tree->l1_off);
    status = qc_job_switch(job, HEADER_SIZE_OFF, field, sizeof(field));
    if (status != QC_OK)
        return status;
    header->guest_bytes = guest_bytes;
    header->l1_entries = tree->l1_entries;
    header->l1_off = tree->l1_off;
    return QC_OK;
}

static qc_status apply(struct qc_job *job, const char *id_or_name)
{
    struct qc_image *image = job->image;
    struct qc_tree old = disk_tree(image), saved, tree;
    struct qc_snapshot_span span;
    struct qc_snapshot snapshot;
    uint64_t clusters;
    qc_status status = qc_snaptable_find(image, id_or_name, &snapshot, &span);

    if (status == QC_OK)
        status = qc_snapshot_check(image, &snapshot);
    if (status != QC_OK)
        return status;
    job->lowered = old;
    saved = (struct qc_tree){snapshot.l1_off, snapshot.l1_entries};
    clusters = qc_job_clusters(job, QC_U(saved.l1_entries) * ENTRY_BYTES);
    status = qc_job_prepare(job, &saved, clusters, false);
    if (status == QC_OK)
        status = qc_job_raise(job, &saved);
    if (status != QC_OK)
        return status;
    tree = (struct qc_tree){job->run_first << image->top.header.cluster_bits, saved.l1_entries};
    status = qc_job_copy_l1(job, &saved, tree.l1_off);
    if (status == QC_OK && !QC_SEED(early_apply))
        status = qc_flush_disk(image);
    if (status == QC_OK)
        status = switch_disk(job, snapshot.guest_bytes, &tree);
    /* The snapshot still refers to all of the tree: no count in it is 1, and COPIED is nowhere. */
    if (status == QC_OK)
        status = qc_job_lower(job, &old, false);
    if (status == QC_OK)
        status = qc_job_free(job, old.l1_off, QC_U(old.l1_entries) * ENTRY_BYTES);
    /* Other L2 tables are the disk's now. */
    return status == QC_OK ? qc_guard_prepare(image) : status;
}

qc_status qc_snapshot_apply(struct qc_image *image, const char *id_or_name)
{
    struct qc_job *job = (struct qc_job *)image->work[0];
    qc_status status = qc_job_begin(job, image);

    if (status == QC_OK)
        status = apply(job, id_or_name);
    return qc_job_end(job, status);
}

static qc_status delete (struct qc_job *job, const char *id_or_name)
{
    struct qc_image *image = job->image;
    const struct qc_header *header = &image->top.header;
    uint64_t old_off = header->snapshots_off, old_bytes, clusters, id, table_off;
    struct qc_tree tree;
    struct qc_snapshot_span span;
    struct qc_snapshot snapshot;
    qc_status status = qc_snaptable_find(image, id_or_name, &snapshot, &span);

    if (status == QC_OK)
        status = qc_snapshot_check_table(image, &snapshot);
    if (status == QC_OK)
        status = qc_snaptable_survey(image, &old_bytes, &id);
    if (status != QC_OK)
        return status;
    tree = job->lowered = (struct qc_tree){snapshot.l1_off, snapshot.l1_entries};
    job->table_bytes = old_bytes;
    clusters = qc_job_clusters(job, old_bytes - span.len);
    status = qc_job_prepare(job, NULL, clusters, false);
    if (status == QC_OK && clusters > 0)
        status = qc_job_raise(job, NULL);
    table_off = job->run_first << header->cluster_bits;
    if (status == QC_OK && clusters > 0)
        status = qc_snaptable_write(image, table_off, old_bytes, &span, NULL, 0);
    if (status == QC_OK && clusters > 0)
        status = qc_flush_disk(image);
    if (status == QC_OK)
        status = switch_table(job, table_off, header->snapshots_count - 1);
    if (status == QC_OK)
        status = qc_job_lower(job, &tree, true);
    if (status == QC_OK)
        status = qc_job_free(job, tree.l1_off, QC_U(tree.l1_entries) * ENTRY_BYTES);
    if (status == QC_OK)
        status = qc_job_free(job, old_off, old_bytes);
    return status;
}

qc_status qc_snapshot_delete(struct qc_image *image, const char *id_or_name)
{
    struct qc_job *job = (struct qc_job *)image->work[0];
    qc_status status = qc_job_begin(job, image);

    if (status == QC_OK)
        status = delete (job, id_or_name);
    return qc_job_end(job, status);
}

/* Compares what both L1 tables say of the disk, in halves of the staging buffer. */
static qc_status compare(struct qc_image *image, uint64_t a_off, uint64_t b_off, uint64_t bytes,
                         bool *ret_is_same)
{
    uint32_t half = image->cache->staging_bytes / 2;
    uint8_t *a = image->cache->staging, *b = a + half;
    uint64_t differences = 0;

    for (uint64_t off = 0, len; off < bytes && differences == 0; off += len) {
        qc_status status;

        len = qc_min(bytes - off, half);
        status = qc_raw_read(image, a_off + off, a, (size_t)len);
        if (status == QC_OK)
            status = qc_raw_read(image, b_off + off, b, (size_t)len);
        if (status != QC_OK)
            return status;
        for (uint32_t i = 0; i < len; i += ENTRY_BYTES)
            differences |= (qc_be64(a + i) ^ qc_be64(b + i)) & ~QC_ENTRY_COPIED;
    }
    *ret_is_same = differences == 0;
    return QC_OK;
}

qc_status qc_snapshot_is_disk(struct qc_image *image, const struct qc_snapshot *snapshot,
                              bool *ret_is_disk)
{
    const struct qc_header *header = &image->top.header;
    uint64_t entries = qc_units(qc_size(image), qc_l2_reach_bits(header));
    qc_status status = qc_flush(image);

    if (status == QC_OK)
        status = qc_snapshot_check(image, snapshot);
    if (status != QC_OK)
        return status;
    if (snapshot->guest_bytes / QC_SECTOR_BYTES != qc_size(image) / QC_SECTOR_BYTES) {
        *ret_is_disk = false;
        return QC_OK;
    }
    /* Both tables cover the disk; behind it are the VM's state, and room. */
    return compare(image, header->l1_off, snapshot->l1_off, entries * ENTRY_BYTES, ret_is_disk);
}
