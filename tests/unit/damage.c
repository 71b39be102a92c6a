/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* See damage.h. The disk in memory itself fails a test on any request past its end. */
#include "damage.h"

static uint8_t buf[CLUSTER];

struct rig *mapped(void **state)
{
    struct rig *rig = *state;

    rig_build(rig, 3, 12, GUEST, 4);
    rig_map(rig, 4);
    return rig;
}

struct rig *two_tables(void **state)
{
    struct rig *rig = mapped(state);

    put_be64(rig->disk.bytes + 24, 2 * REACH);
    put_be32(rig->disk.bytes + 36, 2);
    return rig;
}

void expect_refused(struct rig *rig, uint64_t guest_off, size_t len, qc_status status,
                    const char *detail, enum rig_mark mark)
{
    assert_int_equal(rig_open(rig), QC_OK);
    rig_keep(rig);
    rig_expect_damage(rig, qc_write(&rig->image, guest_off, buf, len), status, detail, mark);
}

static qc_status ask(struct rig *rig, enum request request, uint64_t guest_off)
{
    switch (request) {
    case READ:
        return qc_read(&rig->image, guest_off, buf, CLUSTER);
    case WRITE:
        return qc_write(&rig->image, guest_off, buf, CLUSTER);
    case WRITE_PART:
        return qc_write(&rig->image, guest_off, buf, 512);
    case ZERO_PART:
        return qc_zero(&rig->image, guest_off, 512, false);
    case ZERO_ALL:
    case UNMAP:
        return qc_zero(&rig->image, guest_off, CLUSTER, request == UNMAP);
    default:
        return qc_discard(&rig->image, guest_off, CLUSTER);
    }
}

void expect_each(struct rig *rig, enum request first, uint64_t guest_off, const char *detail,
                 enum rig_mark mark)
{
    for (enum request request = first; request < REQUESTS; request++) {
        put_be64(rig->disk.bytes + 72, 0);
        assert_int_equal(rig_open(rig), QC_OK);
        rig_keep(rig);
        rig_expect_damage(rig, ask(rig, request, guest_off), QC_CORRUPT, detail, mark);
        assert_int_equal(qc_read(&rig->image, 0, buf, CLUSTER), QC_OK);
        assert_memory_equal(buf, rig->disk.bytes + rig_data_off(rig, 0), CLUSTER);
    }
}
