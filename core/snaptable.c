/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* See snaptable.h. An entry is a fixed part, extra data, id and name, padded to 8 bytes. */
#include "snaptable.h"

#include "bytes.h"

#define FIXED_BYTES        40u
#define EXTRA_STATE_BYTES  8u  /* extra data up to the size of the VM state, */
#define EXTRA_DISK_BYTES   16u /* to that of the disk */
#define EXTRA_ICOUNT_BYTES 24u /* and to the instruction count */
#define ENTRY_ALIGNMENT    8u
#define CURSOR_INDEX_BITS  20u /* a cursor is a byte offset and, below it, an index */
#define DIGITS_MAX         20u

_Static_assert(QC_SNAPSHOTS_MAX < 1u << CURSOR_INDEX_BITS, "an index fits a cursor");

/* Copies a string out of the table: ret_bytes holds what fits, and its end. */
static qc_status read_string(struct qc_image *image, uint64_t host_off, uint32_t len,
                             char *ret_bytes, uint32_t bytes_count)
{
    uint32_t shown = (uint32_t)qc_min(len, bytes_count - 1);
    qc_status status = QC_OK;

    if (shown > 0)
        status = qc_raw_read(image, host_off, (uint8_t *)ret_bytes, shown);
    ret_bytes[shown] = '\0';
    return status;
}

static void parse_extra(const struct qc_image *image, const uint8_t *fixed, uint32_t extra_bytes,
                        struct qc_snapshot *snapshot)
{
    const uint8_t *extra = fixed + FIXED_BYTES;

    snapshot->vm_state_bytes = qc_be32(fixed + 32);
    /* Version 2 need not say: QEMU takes the disk's size for the snapshot's. */
    snapshot->guest_bytes = image->top.header.version < 3 ? image->top.header.guest_bytes : 0;
    snapshot->icount = UINT64_MAX;
    if (extra_bytes >= EXTRA_STATE_BYTES)
        snapshot->vm_state_bytes = qc_be64(extra);
    if (extra_bytes >= EXTRA_DISK_BYTES)
        snapshot->guest_bytes = qc_be64(extra + EXTRA_STATE_BYTES);
    if (extra_bytes >= EXTRA_ICOUNT_BYTES)
        snapshot->icount = qc_be64(extra + EXTRA_DISK_BYTES);
}

/* The entry at table byte off. */
static qc_status read_entry(struct qc_image *image, uint64_t off, struct qc_snapshot *ret_snapshot,
                            uint64_t *ret_len)
{
    uint64_t host_off = image->top.header.snapshots_off + off, len;
    uint8_t fixed[FIXED_BYTES + EXTRA_ICOUNT_BYTES];
    uint32_t extra_bytes, id_bytes, name_bytes;
    qc_status status = qc_raw_read(image, host_off, fixed, sizeof(fixed));

    if (status != QC_OK)
        return status;
    id_bytes = (uint32_t)fixed[12] << 8 | fixed[13];
    name_bytes = (uint32_t)fixed[14] << 8 | fixed[15];
    extra_bytes = qc_be32(fixed + 36);
    if (extra_bytes > QC_SNAPSHOT_EXTRA_BYTES_MAX)
        return qc_fail(&image->detail, QC_UNSUPPORTED, "snapshot has %u bytes of extra data",
                       QC_U(extra_bytes));
    len = QC_U(FIXED_BYTES) + extra_bytes + id_bytes + name_bytes;
    if (off + len > QC_SNAPSHOT_TABLE_BYTES_MAX)
        return qc_fail(&image->detail, QC_UNSUPPORTED, "snapshot table too large: %u bytes",
                       off + len);
    /* What fills the last entry up to its alignment may be missing: QEMU leaves such files. */
    if (!qc_is_inside(host_off, len, image->top.disk->size_bytes))
        return qc_fail(&image->detail, QC_CORRUPT, "snapshot table ends behind the disk");
    len = (len + ENTRY_ALIGNMENT - 1) & ~QC_U(ENTRY_ALIGNMENT - 1);
    ret_snapshot->l1_off = qc_be64(fixed);
    ret_snapshot->l1_entries = qc_be32(fixed + 8);
    ret_snapshot->date_sec = qc_be32(fixed + 16);
    ret_snapshot->date_nsec = qc_be32(fixed + 20);
    ret_snapshot->vm_clock_nsec = qc_be64(fixed + 24);
    parse_extra(image, fixed, extra_bytes, ret_snapshot);
    host_off += FIXED_BYTES + extra_bytes;
    status = read_string(image, host_off, id_bytes, ret_snapshot->id, QC_SNAPSHOT_ID_BYTES);
    if (status == QC_OK)
        status = read_string(image, host_off + id_bytes, name_bytes, ret_snapshot->name,
                             QC_SNAPSHOT_NAME_BYTES);
    *ret_len = len;
    return status;
}

qc_status qc_snapshot_next(struct qc_image *image, uint64_t *cursor,
                           struct qc_snapshot *ret_snapshot)
{
    uint64_t index = *cursor & ((1u << CURSOR_INDEX_BITS) - 1), len;
    uint64_t off = *cursor >> CURSOR_INDEX_BITS;
    qc_status status;

    if (index >= image->top.header.snapshots_count)
        return QC_RANGE;
    status = read_entry(image, off, ret_snapshot, &len);
    if (status == QC_OK)
        *cursor = (off + len) << CURSOR_INDEX_BITS | (index + 1);
    return status;
}

static bool is_same(const char *a, const char *b)
{
    unsigned i = 0;

    while (a[i] != '\0' && a[i] == b[i])
        i++;
    return a[i] == b[i];
}

/* The first entry whose id, or whose name, is this. QC_RANGE: none. */
static qc_status find_by(struct qc_image *image, const char *wanted, bool is_id,
                         struct qc_snapshot *ret_snapshot, struct qc_snapshot_span *ret_span)
{
    uint64_t cursor = 0, off;
    qc_status status;

    do {
        off = cursor >> CURSOR_INDEX_BITS;
        status = qc_snapshot_next(image, &cursor, ret_snapshot);
    } while (status == QC_OK && !is_same(is_id ? ret_snapshot->id : ret_snapshot->name, wanted));
    *ret_span = (struct qc_snapshot_span){off, (cursor >> CURSOR_INDEX_BITS) - off};
    return status;
}

qc_status qc_snaptable_find(struct qc_image *image, const char *id_or_name,
                            struct qc_snapshot *ret_snapshot, struct qc_snapshot_span *ret_span)
{
    qc_status status = find_by(image, id_or_name, true, ret_snapshot, ret_span);

    if (status == QC_RANGE)
        status = find_by(image, id_or_name, false, ret_snapshot, ret_span);
    if (status == QC_RANGE)
        return qc_fail(&image->detail, status, "no snapshot %s", id_or_name);
    return status;
}

qc_status qc_snapshot_find(struct qc_image *image, const char *id_or_name,
                           struct qc_snapshot *ret_snapshot)
{
    struct qc_snapshot_span span;

    qc_detail_clear(&image->detail);
    return qc_snaptable_find(image, id_or_name, ret_snapshot, &span);
}

/* The number that an id starts with, 0 where it starts with none. */
static uint64_t number_of(const char *id)
{
    uint64_t number = 0;

    for (unsigned i = 0; i < DIGITS_MAX && id[i] >= '0' && id[i] <= '9'; i++) {
        if (number > (UINT64_MAX - 9) / 10)
            return UINT64_MAX;
        number = number * 10 + (uint64_t)(id[i] - '0');
    }
    return number;
}

qc_status qc_snaptable_survey(struct qc_image *image, uint64_t *ret_bytes, uint64_t *ret_new_id)
{
    struct qc_snapshot snapshot;
    uint64_t cursor = 0, highest = 0;
    qc_status status;

    while ((status = qc_snapshot_next(image, &cursor, &snapshot)) == QC_OK) {
        if (number_of(snapshot.id) > highest)
            highest = number_of(snapshot.id);
    }
    if (status != QC_RANGE)
        return status;
    if (highest == UINT64_MAX)
        return qc_fail(&image->detail, QC_UNSUPPORTED, "no snapshot id is left");
    *ret_bytes = cursor >> CURSOR_INDEX_BITS;
    *ret_new_id = highest + 1;
    return QC_OK;
}

/* Writes a number as digits and returns how many. */
static uint32_t put_number(uint8_t *text, uint64_t number)
{
    uint32_t count = 1;

    for (uint64_t rest = number; rest >= 10; rest /= 10)
        count++;
    for (uint32_t i = count; i > 0; i--, number /= 10)
        text[i - 1] = (uint8_t)('0' + number % 10);
    return count;
}

qc_status qc_snaptable_entry(struct qc_image *image, uint64_t id, const char *name,
                             uint32_t date_sec, uint32_t date_nsec, uint8_t *entry,
                             uint32_t *ret_len)
{
    uint8_t *strings = entry + FIXED_BYTES + EXTRA_ICOUNT_BYTES;
    uint32_t id_bytes, name_bytes = 0, len;

    while (name_bytes < QC_SNAPSHOT_NAME_BYTES && name[name_bytes] != '\0')
        name_bytes++;
    if (name_bytes == QC_SNAPSHOT_NAME_BYTES)
        return qc_fail(&image->detail, QC_RANGE, "snapshot name is too long");
    __builtin_memset(entry, 0, QC_SNAPSHOT_NEW_BYTES_MAX);
    id_bytes = put_number(strings, id);
    __builtin_memcpy(strings + id_bytes, name, name_bytes);
    qc_put_be32(entry + 8, image->top.header.l1_entries);
    qc_put_be32(entry + 12, id_bytes << 16 | name_bytes);
    qc_put_be32(entry + 16, date_sec);
    qc_put_be32(entry + 20, date_nsec);
    qc_put_be32(entry + 36, EXTRA_ICOUNT_BYTES);
    qc_put_be64(entry + FIXED_BYTES + EXTRA_STATE_BYTES, qc_size(image));
    qc_put_be64(entry + FIXED_BYTES + EXTRA_DISK_BYTES, UINT64_MAX); /* no instruction count */
    len = FIXED_BYTES + EXTRA_ICOUNT_BYTES + id_bytes + name_bytes;
    *ret_len = (len + ENTRY_ALIGNMENT - 1) & ~(ENTRY_ALIGNMENT - 1);
    return QC_OK;
}

qc_status qc_snaptable_write(struct qc_image *image, uint64_t host_off, uint64_t table_bytes,
                             const struct qc_snapshot_span *without, const uint8_t *entry,
                             uint32_t entry_len)
{
    uint64_t kept = table_bytes - without->len;
    uint64_t end = (kept + entry_len + image->top.disk->block_bytes - 1) &
                   ~QC_U(image->top.disk->block_bytes - 1);
    uint8_t *staging = image->cache->staging;

    for (uint64_t off = 0, len; off < end; off += len) {
        uint64_t filled = 0;
        qc_status status = QC_OK;

        len = qc_min(end - off, image->cache->staging_bytes);
        __builtin_memset(staging, 0, (size_t)len);
        /* At most two parts of the old table, then one of the entry. */
        while (status == QC_OK && filled < len && off + filled < kept) {
            uint64_t from = off + filled;
            uint64_t part_end = from < without->off ? qc_min(without->off, kept) : kept;
            uint64_t part = qc_min(part_end - from, len - filled);

            status = qc_raw_read(image,
                                 image->top.header.snapshots_off + from +
                                     (from < without->off ? 0 : without->len),
                                 staging + filled, (size_t)part);
            filled += part;
        }
        if (filled < len && off + filled < kept + entry_len) {
            uint64_t from = off + filled - kept;

            __builtin_memcpy(staging + filled, entry + from,
                             (size_t)qc_min(entry_len - from, len - filled));
        }
        if (status == QC_OK)
            status = qc_raw_write(image, host_off + off, staging, (size_t)len);
        if (status != QC_OK)
            return status;
    }
    image->snapshots_bytes = kept + entry_len;
    return QC_OK;
}

qc_status qc_snapshot_check_table(struct qc_image *image, const struct qc_snapshot *snapshot)
{
    uint64_t table_bytes = QC_U(snapshot->l1_entries) * 8;

    if (table_bytes > QC_L1_BYTES_MAX)
        return qc_fail(&image->detail, QC_UNSUPPORTED, "L1 table of snapshot %s too large",
                       snapshot->id);
    if (snapshot->l1_off == 0 ||
        !qc_is_aligned(snapshot->l1_off, image->top.header.cluster_bytes) ||
        !qc_is_inside(snapshot->l1_off, table_bytes, image->top.disk->size_bytes))
        return qc_fail(&image->detail, QC_CORRUPT, "L1 table of snapshot %s invalid", snapshot->id);
    return QC_OK;
}

qc_status qc_snapshot_check(struct qc_image *image, const struct qc_snapshot *snapshot)
{
    unsigned reach_bits = qc_l2_reach_bits(&image->top.header);

    if (snapshot->guest_bytes > QC_GUEST_BYTES_MAX)
        return qc_fail(&image->detail, QC_UNSUPPORTED, "virtual size %u not supported",
                       snapshot->guest_bytes);
    if (snapshot->guest_bytes < QC_SECTOR_BYTES)
        return qc_fail(&image->detail, QC_CORRUPT, "size of the disk of snapshot %s invalid",
                       snapshot->id);
    if (snapshot->l1_entries < qc_units(snapshot->guest_bytes, reach_bits))
        return qc_fail(&image->detail, QC_CORRUPT, "L1 table of snapshot %s too small",
                       snapshot->id);
    return qc_snapshot_check_table(image, snapshot);
}

qc_status qc_snapshot_enter(struct qc_image *image, const char *id_or_name)
{
    struct qc_snapshot_span span;
    struct qc_snapshot snapshot;
    qc_status status = qc_snaptable_find(image, id_or_name, &snapshot, &span);

    if (status == QC_OK)
        status = qc_snapshot_check(image, &snapshot);
    if (status != QC_OK)
        return status;
    image->top.header.l1_off = snapshot.l1_off;
    image->top.header.l1_entries = snapshot.l1_entries;
    image->top.header.guest_bytes = snapshot.guest_bytes;
    return QC_OK;
}
