/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * What an L2 entry says, on any word, for every size of clusters and any disk.
 *
 * Promises: no shift is too far and nothing overflows; the bytes of a compressed cluster are as few
 * as a buffer may be asked to hold; a run of subclusters ends within its cluster.
 */
#include "eva.h"

#include "../../core/map.c"

static void parse(uint32_t cluster_bits, uint32_t version, bool has_subs, bool is_own_file)
{
    struct qc_disk disk = {.size_bytes = eva_between(0, QC_HOST_BYTES_MAX)}, other = disk;
    struct qc_layer layer = {.disk = &disk, .data = is_own_file ? &other : &disk};
    uint64_t cluster_bytes = UINT64_C(1) << cluster_bits;
    struct qc_extent extent = {0};

    layer.header.version = version;
    layer.header.incompatible = has_subs ? QC_INCOMPATIBLE_EXTENDED_L2 : 0;
    layer.header.cluster_bits = cluster_bits;
    layer.header.cluster_bytes = (uint32_t)cluster_bytes;
    if (qc_map_parse(&layer, eva_any64(), &extent) != QC_OK)
        return;
    if (extent.kind == QC_EXTENT_COMPRESSED) {
        /*@ assert extent.packed_bytes <= 2 * cluster_bytes + QC_SECTOR_BYTES; */
        /*@ assert extent.host_off < QC_HOST_BYTES_MAX; */
    }
}

static void subclusters(uint32_t cluster_bits)
{
    struct qc_layer layer = {.header = {.cluster_bits = cluster_bits}};
    uint64_t cluster_bytes = UINT64_C(1) << cluster_bits;
    uint64_t sub_bytes = cluster_bytes >> QC_SUBCLUSTER_BITS;

    for (uint64_t sub = 0; sub < QC_SUBCLUSTERS; sub++) {
        struct qc_extent run = {0};
        uint64_t first = sub * sub_bytes;

        map_in_subclusters(&layer, eva_any64(), eva_between(first, first + sub_bytes - 1), &run);
        /*@ assert 1 <= run.len <= cluster_bytes; */
    }
}

int main(void)
{
    for (uint32_t bits = QC_CLUSTER_BITS_MIN; bits <= QC_CLUSTER_BITS_MAX; bits++) {
        for (unsigned way = 0; way < 8; way++)
            parse(bits, way & 1 ? 2 : 3, (way & 2) != 0, (way & 4) != 0);
        subclusters(bits);
    }
    return 0;
}
