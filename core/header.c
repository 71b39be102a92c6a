/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Parses and checks the fixed part of the header. Pure functions of the bytes and the disk's size:
 * nothing is read here, so that every limit can be tested from both sides in memory.
 *
 * The order of the checks is the order of trust: first what is needed to know the fields at all,
 * then features (an unknown one may change the meaning of the rest), then places and sizes.
 */
#include "header.h"

#include "bytes.h"

#define MAGIC UINT32_C(0x514649fb) /* "QFI\xfb" */

#define CRYPT_NONE 0u
#define CRYPT_LUKS 2u

#define REFCOUNT_ORDER_V2  4u
#define REFCOUNT_ORDER_MAX 6u

#define EXTENDED_L2_CLUSTER_BITS_MIN 14u

static void parse_v3_fields(const uint8_t *bytes, struct qc_header *header)
{
    header->incompatible = qc_be64(bytes + 72);
    header->compatible = qc_be64(bytes + 80);
    header->autoclear = qc_be64(bytes + 88);
    header->refcount_order = qc_be32(bytes + 96);
    header->header_bytes = qc_be32(bytes + 100);
    /* The compression type exists only in headers long enough to hold it. */
    header->compression_type = header->header_bytes > QC_HEADER_V3_BYTES ? bytes[104] : 0;
}

qc_status qc_header_parse(const uint8_t *bytes, uint32_t bytes_count, struct qc_header *ret_header,
                          struct qc_detail *detail)
{
    struct qc_header header = {0};

    if (bytes_count < QC_HEADER_V2_BYTES || qc_be32(bytes) != MAGIC)
        return QC_FOREIGN;
    header.version = qc_be32(bytes + 4);
    if (header.version != 2 && header.version != 3)
        return qc_fail(detail, QC_UNSUPPORTED, "version %u not supported", QC_U(header.version));
    header.cluster_bits = qc_be32(bytes + 20);
    if (header.cluster_bits < QC_CLUSTER_BITS_MIN || header.cluster_bits > QC_CLUSTER_BITS_MAX)
        return qc_fail(detail,
                       header.cluster_bits < QC_CLUSTER_BITS_MIN ? QC_CORRUPT : QC_UNSUPPORTED,
                       "cluster_bits %u out of range 9..21", QC_U(header.cluster_bits));
    header.cluster_bytes = UINT32_C(1) << header.cluster_bits;
    header.backing_off = qc_be64(bytes + 8);
    header.backing_bytes = qc_be32(bytes + 16);
    header.guest_bytes = qc_be64(bytes + 24);
    header.crypt_method = qc_be32(bytes + 32);
    header.l1_entries = qc_be32(bytes + 36);
    header.l1_off = qc_be64(bytes + 40);
    header.reftable_off = qc_be64(bytes + 48);
    header.reftable_clusters = qc_be32(bytes + 56);
    header.snapshots_count = qc_be32(bytes + 60);
    header.snapshots_off = qc_be64(bytes + 64);
    header.refcount_order = REFCOUNT_ORDER_V2;
    header.header_bytes = QC_HEADER_V2_BYTES;
    if (header.version == 3) {
        if (bytes_count < QC_HEADER_BYTES_MAX)
            return qc_fail(detail, QC_CORRUPT, "header length %u invalid", QC_U(bytes_count));
        parse_v3_fields(bytes, &header);
        if (header.header_bytes < QC_HEADER_V3_BYTES || !qc_is_aligned(header.header_bytes, 8) ||
            header.header_bytes > header.cluster_bytes)
            return qc_fail(detail, QC_CORRUPT, "header length %u invalid",
                           QC_U(header.header_bytes));
    }
    *ret_header = header;
    return QC_OK;
}

/* What the image asks a reader to understand. */
static qc_status check_features(const struct qc_header *header, struct qc_detail *detail)
{
    bool compression_bit = (header->incompatible & QC_INCOMPATIBLE_COMPRESSION) != 0;

    if (header->crypt_method != CRYPT_NONE)
        return qc_fail(detail, header->crypt_method > CRYPT_LUKS ? QC_CORRUPT : QC_UNSUPPORTED,
                       "encryption method %u not supported", QC_U(header->crypt_method));
    if (header->refcount_order > REFCOUNT_ORDER_MAX)
        return qc_fail(detail, QC_CORRUPT, "refcount_order %u invalid",
                       QC_U(header->refcount_order));
    if (header->compression_type > QC_COMPRESSION_ZSTD)
        return qc_fail(detail, QC_UNSUPPORTED, "compression type %u not supported",
                       QC_U(header->compression_type));
    if (compression_bit != (header->compression_type != QC_COMPRESSION_DEFLATE))
        return qc_fail(detail, QC_CORRUPT, "compression type %u against its feature bit",
                       QC_U(header->compression_type));
    if (header->incompatible & QC_INCOMPATIBLE_EXTENDED_L2) {
        if (header->cluster_bits < EXTENDED_L2_CLUSTER_BITS_MIN)
            return qc_fail(detail, QC_CORRUPT, "extended L2 entries with clusters of %u",
                           QC_U(header->cluster_bytes));
    }
    if ((header->autoclear & QC_AUTOCLEAR_RAW_DATA) &&
        !(header->incompatible & QC_INCOMPATIBLE_DATA_FILE))
        return qc_fail(detail, QC_CORRUPT, "raw external data without an external data file");
    return QC_OK;
}

static qc_status check_backing(const struct qc_header *header, struct qc_detail *detail)
{
    if (header->backing_off == 0)
        return QC_OK;
    if (header->backing_bytes > QC_BACKING_NAME_BYTES_MAX ||
        header->backing_off < header->header_bytes ||
        !qc_is_inside(header->backing_off, header->backing_bytes, header->cluster_bytes))
        return qc_fail(detail, QC_CORRUPT, "backing name field invalid");
    return QC_OK;
}

static qc_status check_sizes(const struct qc_header *header, bool is_for_check,
                             struct qc_detail *detail)
{
    if (header->guest_bytes < 512 || header->guest_bytes > QC_GUEST_BYTES_MAX)
        return qc_fail(detail, QC_UNSUPPORTED, "virtual size %u not supported",
                       QC_U(header->guest_bytes));
    if (header->l1_entries > QC_L1_BYTES_MAX / 8)
        return qc_fail(detail, QC_UNSUPPORTED, "L1 table too large: %u entries",
                       QC_U(header->l1_entries));
    if (header->l1_entries < qc_units(header->guest_bytes, qc_l2_reach_bits(header)))
        return qc_fail(detail, QC_CORRUPT, "L1 table too small: %u entries",
                       QC_U(header->l1_entries));
    if (header->reftable_clusters == 0 && !is_for_check)
        return qc_fail(detail, QC_CORRUPT, "no refcount table");
    if (header->reftable_clusters > QC_REFTABLE_BYTES_MAX >> header->cluster_bits)
        return qc_fail(detail, QC_UNSUPPORTED, "refcount table too large: %u clusters",
                       QC_U(header->reftable_clusters));
    if (header->snapshots_count > QC_SNAPSHOTS_MAX && !is_for_check)
        return qc_fail(detail, QC_UNSUPPORTED, "snapshot table too large: %u snapshots",
                       QC_U(header->snapshots_count));
    return QC_OK;
}

/* A part of the disk that the header itself names; bytes 0 means that there is none. */
struct part {
    const char *name;
    uint64_t host_off, bytes;
};

enum { PART_L1, PART_REFTABLE, PART_SNAPSHOTS, PARTS_COUNT };

static bool is_overlap(const struct part *a, const struct part *b, unsigned cluster_bits)
{
    uint64_t a_first = a->host_off >> cluster_bits;
    uint64_t b_first = b->host_off >> cluster_bits;

    if (b->bytes == 0)
        return false;
    /* Clusters, not bytes: the rest of a table's last cluster belongs to it. */
    return a_first < b_first + qc_units(b->bytes, cluster_bits) &&
           b_first < a_first + qc_units(a->bytes, cluster_bits);
}

static qc_status check_places(const struct qc_header *header, uint64_t disk_bytes,
                              struct qc_detail *detail)
{
    /* Of a table only the bytes in use must exist: a fresh image's file ends behind its L1. */
    const struct part parts[PARTS_COUNT] = {
        [PART_L1] = {"L1", header->l1_off, QC_U(header->l1_entries) * 8},
        [PART_REFTABLE] = {"refcount", header->reftable_off,
                           QC_U(header->reftable_clusters) << header->cluster_bits},
        [PART_SNAPSHOTS] = {"snapshot", header->snapshots_off,
                            QC_U(header->snapshots_count) * QC_SNAPSHOT_ENTRY_BYTES_MIN},
    };

    disk_bytes = qc_min(disk_bytes, QC_HOST_BYTES_MAX);
    if (header->header_bytes > disk_bytes)
        return qc_fail(detail, QC_CORRUPT, "header length %u invalid", QC_U(header->header_bytes));
    for (unsigned i = 0; i < PARTS_COUNT; i++) {
        /* Of a table of nothing QEMU wants a place that one could have all the same. */
        if (parts[i].bytes == 0 && parts[i].host_off <= INT64_MAX &&
            qc_is_aligned(parts[i].host_off, header->cluster_bytes))
            continue;
        if (parts[i].host_off == 0 || !qc_is_aligned(parts[i].host_off, header->cluster_bytes) ||
            !qc_is_inside(parts[i].host_off, parts[i].bytes, disk_bytes))
            return qc_fail(detail, QC_CORRUPT, "%s table offset %x invalid", parts[i].name,
                           parts[i].host_off);
        /* The header has the first cluster, and no table's offset is 0. */
        for (unsigned k = 0; k < i; k++) {
            if (is_overlap(&parts[i], &parts[k], header->cluster_bits))
                return qc_fail(detail, QC_CORRUPT, "%s table overlaps %s table", parts[i].name,
                               parts[k].name);
        }
    }
    return QC_OK;
}

qc_status qc_header_check(struct qc_header *header, uint64_t disk_bytes, bool is_for_check,
                          struct qc_detail *detail)
{
    qc_status status = check_features(header, detail);

    if (status == QC_OK)
        status = check_sizes(header, is_for_check, detail);
    if (status != QC_OK)
        return status;
    if (header->snapshots_count > QC_SNAPSHOTS_MAX) {
        header->snapshots_over = header->snapshots_count - QC_SNAPSHOTS_MAX;
        header->snapshots_count = QC_SNAPSHOTS_MAX;
    }
    status = check_places(header, disk_bytes, detail);
    if (status == QC_OK)
        status = check_backing(header, detail);
    return status;
}
