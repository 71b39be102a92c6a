/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Repairs that are cut: whatever subset of the blocks since the last flush has landed, no count is
 * lower against its references than before the repair, a version 3 image is marked dirty, the next
 * repair leaves nothing, and what the guest could read it reads as before.
 */
#include "../../core/refs.h"
#include "shape.h"

#define MARK_DIRTY 1u

#define LOG_BYTES_MAX  (1024u * 1024)
#define UNIT           512u
#define SUBSETS_OF_MAX 9u /* units of an epoch of which all subsets are tried */
#define SAMPLES        60u
#define GUEST_CLUSTERS 192u
#define SNAPSHOTS_OVER 200u /* 3 clusters of their own, or 2 */

/* What a repair asked of the disk, in blocks, which land one by one. */
static struct {
    const struct qc_disk_ops *below;
    struct qc_disk_ops ops;
    uint8_t start[MEM_DISK_BYTES], base[MEM_DISK_BYTES], end[MEM_DISK_BYTES];
    uint64_t start_bytes, end_bytes;
    uint64_t off[LOG_BYTES_MAX / UNIT];
    uint8_t bytes[LOG_BYTES_MAX];
    unsigned epoch[LOG_BYTES_MAX / UNIT];
    unsigned units_count, epochs_count;
    bool is_readable[GUEST_CLUSTERS];
    uint8_t guest[GUEST_CLUSTERS][UNIT];
} log;

static qc_status log_write(struct qc_disk *disk, uint64_t host_off, const void *buf, size_t len)
{
    assert_int_equal(host_off % UNIT, 0);
    assert_int_equal(len % UNIT, 0);
    for (size_t done = 0; done < len; done += UNIT, log.units_count++) {
        assert_in_range(log.units_count, 0, LOG_BYTES_MAX / UNIT - 1);
        log.off[log.units_count] = host_off + done;
        log.epoch[log.units_count] = log.epochs_count;
        memcpy(log.bytes + (size_t)log.units_count * UNIT, (const uint8_t *)buf + done, UNIT);
    }
    return log.below->write(disk, host_off, buf, len);
}

static qc_status log_flush(struct qc_disk *disk)
{
    log.epochs_count++;
    return log.below->flush(disk);
}

/* Clusters that more refer to than their counts tell. */
static qc_status count_low(void *context, struct qc_stored *item)
{
    *(unsigned *)context += item->stored < item->counted;
    return QC_OK;
}

static unsigned low_counts(struct rig *rig)
{
    struct qc_scratch scratch;
    struct qc_tally tally;
    struct qc_refs refs = {.image = &rig->image, .scratch = &scratch, .tally = &tally};
    unsigned low = 0;

    refs.is_lenient = true;
    qc_scratch_borrow(&rig->image, &scratch);
    qc_tally_begin(&tally, &scratch, 2, 0, rig->disk.disk.size_bytes / rig->cluster_bytes);
    assert_int_equal(qc_refs_count(&refs), QC_OK);
    assert_int_equal(qc_tally_pass(&rig->image, &scratch, &tally, count_low, &low), QC_OK);
    qc_scratch_return(&rig->image);
    return low;
}

/* What the guest sees before the repair must be what it sees after any cut. */
static void note_guest(struct rig *rig)
{
    for (unsigned i = 0; i < GUEST_CLUSTERS; i++)
        log.is_readable[i] = qc_read(&rig->image, (uint64_t)i * UNIT, log.guest[i], UNIT) == QC_OK;
}

static void expect_guest(struct rig *rig)
{
    uint8_t bytes[UNIT];

    for (unsigned i = 0; i < GUEST_CLUSTERS; i++) {
        if (!log.is_readable[i])
            continue;
        assert_int_equal(qc_read(&rig->image, (uint64_t)i * UNIT, bytes, UNIT), QC_OK);
        assert_memory_equal(bytes, log.guest[i], UNIT);
    }
}

static bool differs(const uint8_t *a, const uint8_t *b)
{
    return memcmp(a + UNIT, b + UNIT, MEM_DISK_BYTES / 16 - UNIT) != 0;
}

/* The disk holds a state that a cut may have left. */
static void expect_recovery(struct rig *rig, unsigned low_before)
{
    struct qc_check_result result;
    bool is_between = differs(rig->disk.bytes, log.start) && differs(rig->disk.bytes, log.end);

    if (rig->disk.bytes[7] == 3 && is_between)
        assert_int_equal(rig->disk.bytes[79] & MARK_DIRTY, MARK_DIRTY);
    rig->disk.disk.ops = log.below;
    rig->options.readonly = true; /* or a dirty image would be repaired */
    assert_int_equal(rig_open(rig), QC_OK);
    assert_in_range(low_counts(rig), 0, low_before);
    rig->options.readonly = false;
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(qc_check(&rig->image, QC_FIX_ALL, NULL, NULL, &result), QC_OK);
    shape_expect(&result, 0, 0);
    assert_int_equal(rig->disk.bytes[79] & MARK_DIRTY, 0);
    expect_guest(rig);
}

/* Puts the disk to what it is after the epochs before this one and those units of it. */
static void put_state(struct rig *rig, unsigned first, unsigned count, const uint8_t *lands)
{
    memcpy(rig->disk.bytes, log.base, sizeof(log.base));
    rig->disk.disk.size_bytes = log.end_bytes;
    for (unsigned i = 0; i < count; i++) {
        if (lands[i])
            memcpy(rig->disk.bytes + log.off[first + i], log.bytes + (size_t)(first + i) * UNIT,
                   UNIT);
    }
}

/* All subsets of an epoch's units, or prefixes, single ones, all but one, and some more. */
static unsigned cut_epoch(struct rig *rig, unsigned first, unsigned count, unsigned low_before)
{
    static uint8_t lands[LOG_BYTES_MAX / UNIT];
    unsigned cases = count <= SUBSETS_OF_MAX ? 1u << count : 3 * count + SAMPLES;
    uint32_t dice = 12345;

    for (unsigned n = 0; n < cases; n++) {
        for (unsigned i = 0; i < count; i++) {
            dice = dice * 1664525u + 1013904223u;
            if (count <= SUBSETS_OF_MAX)
                lands[i] = n >> i & 1;
            else if (n < count)
                lands[i] = i < n;
            else if (n < 2 * count)
                lands[i] = i == n - count;
            else if (n < 3 * count)
                lands[i] = i != n - 2 * count;
            else
                lands[i] = dice >> 31;
        }
        put_state(rig, first, count, lands);
        expect_recovery(rig, low_before);
    }
    return cases;
}

static void damage_leak(struct rig *rig)
{
    rig_set_l2(rig, 3, 0);
    shape_set_count(rig, AT_DATA + 1, 9);
}

static void damage_low(struct rig *rig)
{
    shape_set_count(rig, AT_DATA + 1, 0);
    shape_set_count(rig, AT_L2, 0);
    rig_set_l2(rig, SHAPE_DATA, rig_data_off(rig, 2) | SHAPE_COPIED);
}

static void damage_low_and_leak(struct rig *rig)
{
    damage_leak(rig);
    damage_low(rig);
}

static void damage_root(struct rig *rig)
{
    put_be64(shape_table(rig, AT_REFTABLE), 1);
    rig_set_l2(rig, 3, 0);
}

static void damage_crossed_root(struct rig *rig)
{
    put_be64(shape_table(rig, AT_REFTABLE), rig_data_off(rig, 2));
}

static void damage_no_root(struct rig *rig)
{
    put_be64(shape_table(rig, AT_REFTABLE), 0);
}

static void damage_entries(struct rig *rig)
{
    rig_set_l2(rig, 1, rig_data_off(rig, 300) | SHAPE_COPIED);
    rig_set_l2(rig, 2, rig_data_off(rig, 2) | SHAPE_COPIED | 4);
    rig_set_l2(rig, 9, SHAPE_COMPRESSED | SHAPE_COPIED | (rig_data_off(rig, 2) + 9));
}

static void damage_shared_table(struct rig *rig)
{
    put_be64(shape_table(rig, AT_L1) + 8, rig_data_off(rig, 2) | SHAPE_COPIED);
    put_be64(shape_table(rig, AT_L1) + 16, rig->cluster_bytes * AT_L2 | SHAPE_COPIED);
}

/* Only shared: no count is too low. */
static void damage_counted_table(struct rig *rig)
{
    put_be64(shape_table(rig, AT_L1) + 8, rig_data_off(rig, 2) | SHAPE_COPIED);
    shape_set_count(rig, AT_DATA + 2, 2);
}

static void damage_snapshot(struct rig *rig)
{
    shape_add_snapshot(rig, 0, AT_DATA + SHAPE_DATA);
    shape_set_count(rig, AT_L2, 1);
}

static void damage_everything(struct rig *rig)
{
    damage_entries(rig);
    damage_shared_table(rig);
    damage_root(rig);
}

/* An entry that names the header's L1 table, which is counted for it. */
static void damage_counted_structure(struct rig *rig)
{
    rig_set_l2(rig, 9, rig->cluster_bytes * AT_L1);
    shape_set_count(rig, AT_L1, 2);
}

static void damage_no_table(struct rig *rig)
{
    put_be64(shape_table(rig, AT_HEADER) + 48, 0);
    put_be32(shape_table(rig, AT_HEADER) + 56, 0);
}

/* Entries of zeros, but for the extra data that version 3 must have; all clusters are counted. */
static void damage_too_many_snapshots(struct rig *rig)
{
    bool has_extra = rig->disk.bytes[7] >= 3;
    uint64_t first = AT_DATA + SHAPE_DATA, start = rig->cluster_bytes * first;
    uint64_t bytes = (QC_SNAPSHOTS_MAX + SNAPSHOTS_OVER) * (has_extra ? 56u : 40u);

    rig->disk.disk.size_bytes = start + (bytes / rig->cluster_bytes + 1) * rig->cluster_bytes;
    assert_in_range(rig->disk.disk.size_bytes, 0, MEM_DISK_BYTES);
    memset(rig->disk.bytes + start, 0, rig->disk.disk.size_bytes - start);
    for (unsigned i = 0; i < QC_SNAPSHOTS_MAX + SNAPSHOTS_OVER && has_extra; i++)
        rig->disk.bytes[start + i * 56u + 39] = 16;
    for (uint64_t cluster = first; cluster * rig->cluster_bytes < rig->disk.disk.size_bytes;
         cluster++)
        image_set_count(&rig->disk, cluster * rig->cluster_bytes, 1);
    put_be32(shape_table(rig, AT_HEADER) + 60, QC_SNAPSHOTS_MAX + SNAPSHOTS_OVER);
    put_be64(shape_table(rig, AT_HEADER) + 64, start);
}

/* Repairs an image of this damage and looks at every cut of that. */
static unsigned cut_repair(struct rig *rig, uint32_t version, unsigned cluster_bits,
                           void (*damage)(struct rig *rig))
{
    struct qc_check_result result;
    unsigned low_before, states = 0;

    rig_build(rig, version, cluster_bits, (uint64_t)UNIT * GUEST_CLUSTERS, SHAPE_DATA);
    rig->options.is_for_check = true;
    rig_map(rig, SHAPE_DATA);
    damage(rig);
    memset(&log, 0, sizeof(log));
    memcpy(log.start, rig->disk.bytes, sizeof(log.start));
    memcpy(log.base, rig->disk.bytes, sizeof(log.base));
    log.below = rig->disk.disk.ops;
    log.ops = *log.below;
    log.ops.write = log_write;
    log.ops.flush = log_flush;
    assert_int_equal(rig_open(rig), QC_OK);
    note_guest(rig);
    assert_int_equal(rig_open(rig), QC_OK);
    low_before = low_counts(rig);
    rig->disk.disk.ops = &log.ops;
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(qc_check(&rig->image, QC_FIX_ALL, NULL, NULL, &result), QC_OK);
    shape_expect(&result, 0, 0);
    expect_guest(rig);
    memcpy(log.end, rig->disk.bytes, sizeof(log.end));
    log.end_bytes = rig->disk.disk.size_bytes;
    for (unsigned first = 0, count; first < log.units_count; first += count) {
        for (count = 0;
             first + count < log.units_count && log.epoch[first + count] == log.epoch[first];
             count++)
            continue;
        states += cut_epoch(rig, first, count, low_before);
        for (unsigned i = first; i < first + count; i++)
            memcpy(log.base + log.off[i], log.bytes + (size_t)i * UNIT, UNIT);
    }
    return states;
}

static void repair_survives_every_cut(void **state)
{
    static void (*const damages[])(struct rig * rig) = {
        damage_leak,          damage_low,      damage_low_and_leak,      damage_root,
        damage_crossed_root,  damage_no_root,  damage_entries,           damage_shared_table,
        damage_counted_table, damage_snapshot, damage_counted_structure, damage_no_table,
        damage_everything};
    unsigned states = 0;

    for (unsigned n = 0; n < 2 * sizeof(damages) / sizeof(damages[0]); n++)
        states += cut_repair(*state, 2 + n % 2, 9, damages[n / 2]);
    print_message("%u states\n", states);
}

/* Those that stay are the same, and none is named that is not whole. */
static void dropping_snapshots_survives_every_cut(void **state)
{
    struct rig *rig = *state;

    for (uint32_t version = 2; version <= 3; version++) {
        unsigned states = cut_repair(rig, version, 12, damage_too_many_snapshots);

        print_message("%u states\n", states);
        assert_in_range(states, 3, 1000);
        assert_memory_equal(shape_table(rig, AT_HEADER) + 60, "\0\1\0\0", 4);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(repair_survives_every_cut),
        RIG_TEST(dropping_snapshots_survives_every_cut),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
