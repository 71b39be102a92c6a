/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* See shape.h. Counts of the rig's images have 16 bits; those set here stay below 256. */
#include "shape.h"

struct qc_check_result shape_check(struct rig *rig, enum qc_check_fix fix)
{
    struct qc_check_result result;

    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(qc_check(&rig->image, fix, NULL, NULL, &result), QC_OK);
    return result;
}

void shape_expect(const struct qc_check_result *result, uint64_t corruptions, uint64_t leaks)
{
    assert_int_equal(result->corruptions, corruptions);
    assert_int_equal(result->leaks, leaks);
    assert_int_equal(result->check_errors, 0);
}

void shape_expect_found(struct rig *rig, uint64_t corruptions, uint64_t leaks)
{
    struct qc_check_result result = shape_check(rig, QC_FIX_NOTHING);

    shape_expect(&result, corruptions, leaks);
    assert_int_equal(rig->disk.writes_count, 0);
}

/* Repairs what was found before, and finds nothing any more, in this open image or the next. */
void shape_expect_repair(struct rig *rig, uint64_t corruptions, uint64_t leaks)
{
    struct qc_check_result result = shape_check(rig, QC_FIX_ALL);

    shape_expect(&result, 0, 0);
    assert_int_equal(result.corruptions_fixed, corruptions);
    assert_int_equal(result.leaks_fixed, leaks);
    result = shape_check(rig, QC_FIX_NOTHING);
    shape_expect(&result, 0, 0);
}

/* SHAPE_DATA clusters, mapped by the first entries of the one L2 table. */
void shape_build(struct rig *rig, uint32_t version, unsigned cluster_bits)
{
    uint64_t cluster = UINT64_C(1) << cluster_bits;

    rig_build(rig, version, cluster_bits, cluster * cluster / 8, SHAPE_DATA);
    rig_map(rig, SHAPE_DATA);
}

uint8_t *shape_table(struct rig *rig, unsigned part)
{
    return rig->disk.bytes + rig->cluster_bytes * part;
}

void shape_set_count(struct rig *rig, unsigned cluster, uint8_t count)
{
    shape_table(rig, AT_REFBLOCK)[2 * cluster + 1] = count;
}

unsigned shape_count(struct rig *rig, unsigned cluster)
{
    return shape_table(rig, AT_REFBLOCK)[2 * cluster + 1];
}

uint64_t get_be64(const uint8_t *bytes)
{
    uint64_t value = 0;

    for (int i = 0; i < 8; i++)
        value = value << 8 | bytes[i];
    return value;
}

uint64_t shape_l2_entry(struct rig *rig, unsigned index)
{
    return get_be64(shape_table(rig, AT_L2) + 8u * index);
}

/* A snapshot that shares the L2 table; its parts lie behind the data. */
void shape_add_snapshot(struct rig *rig, uint32_t extra_bytes, unsigned at)
{
    uint64_t cluster = rig->cluster_bytes;
    uint8_t *entry = rig->disk.bytes + cluster * at;

    rig->disk.disk.size_bytes = cluster * (at + 2);
    memset(entry, 0, 2 * cluster);
    put_be64(entry, cluster * (at + 1));
    put_be32(entry + 8, 1);
    entry[13] = 1; /* id "1" */
    entry[15] = 2; /* name "s1" */
    put_be32(entry + 36, extra_bytes);
    memcpy(entry + 40 + extra_bytes, "1s1", 3);
    put_be64(entry + cluster, cluster * AT_L2);
    put_be64(shape_table(rig, AT_L1), cluster * AT_L2);
    put_be32(shape_table(rig, AT_HEADER) + 60, 1);
    put_be64(shape_table(rig, AT_HEADER) + 64, cluster * at);
    for (unsigned i = 0; i < SHAPE_DATA; i++) {
        rig_set_l2(rig, i, rig_data_off(rig, i));
        shape_set_count(rig, AT_DATA + i, 2);
    }
    shape_set_count(rig, AT_L2, 2);
    shape_set_count(rig, at, 1);
    shape_set_count(rig, at + 1, 1);
}
