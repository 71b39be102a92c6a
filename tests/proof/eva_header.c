/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The header's parser and its checks, on any bytes, of any number, on a disk of any size.
 *
 * Promises: nothing is read outside the bytes, nothing overflows, no shift is too far; after the
 * checks the limits that header.h states hold.
 */
#include "eva.h"

#include "../../core/header.c"

qc_status qc_fail(struct qc_detail *detail, qc_status status, const char *format, ...)
{
    (void)format;
    qc_detail_clear(detail);
    return status;
}

/* One size of clusters at a time: shifts by what is known are told exactly. */
static void check(const struct qc_header *parsed, uint32_t cluster_bits, struct qc_detail *detail)
{
    struct qc_header header = *parsed;

    if (header.cluster_bits != cluster_bits)
        return;
    header.cluster_bits = cluster_bits;
    header.cluster_bytes = UINT32_C(1) << cluster_bits;
    if (qc_header_check(&header, eva_any64(), eva_either(), detail) != QC_OK)
        return;
    /*@ assert header.guest_bytes >= 512; */
    /*@ assert header.guest_bytes <= QC_GUEST_BYTES_MAX; */
    /*@ assert header.l1_entries <= QC_L1_BYTES_MAX / 8; */
    /*@ assert header.snapshots_count <= QC_SNAPSHOTS_MAX; */
    /*@ assert header.refcount_order <= REFCOUNT_ORDER_MAX; */
    /*@ assert header.reftable_clusters <= QC_REFTABLE_BYTES_MAX >> header.cluster_bits; */
}

static void parse(uint32_t bytes_count)
{
    uint8_t bytes[QC_HEADER_BYTES_MAX];
    struct qc_header header;
    struct qc_detail detail;

    if (bytes_count > 0)
        Frama_C_make_unknown((char *)bytes, bytes_count);
    if (qc_header_parse(bytes, bytes_count, &header, &detail) != QC_OK)
        return;
    /*@ assert QC_CLUSTER_BITS_MIN <= header.cluster_bits <= QC_CLUSTER_BITS_MAX; */
    for (uint32_t bits = QC_CLUSTER_BITS_MIN; bits <= QC_CLUSTER_BITS_MAX; bits++)
        check(&header, bits, &detail);
}

int main(void)
{
    for (uint32_t bytes_count = 0; bytes_count <= QC_HEADER_BYTES_MAX; bytes_count++)
        parse(bytes_count);
    return 0;
}
