/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Header and extensions, byte by byte: the input's first two bytes choose how the image is opened
 * and how large its disk is, the others are the disk's first ones.
 *
 * Opening makes at most 64 reads and no write that nobody allowed; what opens is looked at. The
 * header is also checked against any disk size, and what passes keeps its promises (header.h).
 */
#include "disk.h"

#include "../../core/bytes.h"

#include <string.h>

#define OPEN_READS_MAX  64u
#define LISTED_MAX      64u
#define LOOKED_AT_BYTES 4096u
#define POOL_BYTES      (24u * QC_PAGE_BYTES)

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t len);

static struct fuzz_disk fuzz, data;
static struct qc_disk below;
static struct qc_cache cache;
static struct qc_image image;
static struct qc_unpacker unpacker;
static _Alignas(QC_PAGE_BYTES) uint8_t pool[POOL_BYTES];

/* Every name is found, as long as it is one that is looked up as a file. */
static qc_status find(struct qc_bases *bases, struct qc_base *base)
{
    qc_status status = qc_name_check(base->name, &base->detail);

    (void)bases;
    if (strlen(base->name) > QC_BACKING_NAME_BYTES_MAX)
        fuzz_fail("a name of %zu bytes", strlen(base->name));
    if (status != QC_OK)
        return status;
    if (base->format == QC_FORMAT_QCOW2) /* itself, again and again */
        base->disk = &fuzz.disk;
    else
        base->disk = base->is_data_file ? &data.disk : &below;
    return QC_OK;
}

static void check_part(const struct qc_header *header, uint64_t off, uint64_t bytes, uint64_t end)
{
    if (bytes > 0 &&
        (off == 0 || !qc_is_aligned(off, header->cluster_bytes) || !qc_is_inside(off, bytes, end)))
        fuzz_fail("a table of %lu bytes at %lx passed", (unsigned long)bytes, (unsigned long)off);
}

static void check_header(const uint8_t *bytes, uint32_t len)
{
    struct qc_header header;
    struct qc_detail detail;
    uint64_t disk_bytes = len >= 8 ? qc_be64(bytes + len - 8) : len;

    if (qc_header_parse(bytes, len, &header, &detail) != QC_OK ||
        qc_header_check(&header, disk_bytes, (len & 1) != 0, &detail) != QC_OK)
        return;
    check_part(&header, header.l1_off, QC_U(header.l1_entries) * 8, disk_bytes);
    check_part(&header, header.reftable_off, QC_U(header.reftable_clusters) << header.cluster_bits,
               disk_bytes);
    check_part(&header, header.snapshots_off,
               QC_U(header.snapshots_count) * QC_SNAPSHOT_ENTRY_BYTES_MIN, disk_bytes);
    if (header.guest_bytes > QC_U(header.l1_entries) << qc_l2_reach_bits(&header))
        fuzz_fail("an L1 table that is too small passed");
}

static void look(void)
{
    static uint8_t buf[LOOKED_AT_BYTES];
    struct qc_snapshot snapshot;
    struct qc_extent extent;
    uint64_t cursor = 0, size = qc_size(&image);
    size_t len = (size_t)qc_min(sizeof(buf), size);

    if (size < QC_SECTOR_BYTES || !qc_is_aligned(size, QC_SECTOR_BYTES))
        fuzz_fail("a disk of %lu bytes", (unsigned long)size);
    (void)qc_read(&image, 0, buf, len);
    (void)qc_read(&image, size - len, buf, len);
    (void)qc_map(&image, 0, LOOKED_AT_BYTES < size ? LOOKED_AT_BYTES : size, &extent);
    for (unsigned i = 0; i < LISTED_MAX; i++) {
        if (qc_snapshot_next(&image, &cursor, &snapshot) != QC_OK)
            break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t len)
{
    struct qc_bases bases = {find};
    struct qc_open_options options = {.bases = &bases, .unpacker = &unpacker};
    uint64_t disk_bytes;
    qc_status status;
    bool is_dirty;

    if (len < 2)
        return 0;
    options.readonly = (input[0] & 1) != 0;
    options.is_for_check = (input[0] & 2) != 0;
    options.is_backing_off = (input[0] & 4) != 0;
    options.snapshot = (input[0] & 24) == 24 ? "1" : NULL;
    disk_bytes = qc_min(len - 2 + input[1] * UINT64_C(4096), FUZZ_DISK_BYTES_MAX);
    check_header(input + 2, (uint32_t)(len - 2));
    fuzz_disk_init(&fuzz, disk_bytes, (input[0] & 32) == 0, true);
    fuzz_data_init(&data, 1 << 20, 20, 9);
    fuzz_below_init(&below, 1 << 20);
    memcpy(fuzz.bytes, input + 2, qc_min(len - 2, disk_bytes));
    is_dirty = fuzz.bytes[7] >= 3 && (fuzz.bytes[79] & QC_INCOMPATIBLE_DIRTY) != 0;
    qc_cache_init(&cache, pool, sizeof(pool));
    status = qc_open(&image, &cache, &fuzz.disk, &options);
    /* What opens may have been repaired before; to find a snapshot its table is read. */
    if ((options.readonly || !is_dirty || status != QC_OK) &&
        (fuzz.writes_count > 0 || (options.snapshot == NULL && fuzz.reads_count > OPEN_READS_MAX)))
        fuzz_fail("%u reads and %u writes to open", fuzz.reads_count, fuzz.writes_count);
    fuzz_disk_step(&fuzz);
    if (status == QC_OK)
        look();
    fuzz_count(status == QC_OK);
    return 0;
}
