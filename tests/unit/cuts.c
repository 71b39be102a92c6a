/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* See cuts.h. The state is a copy of the disk's bytes; the engine opens that. */
#include "cuts.h"

#include "../../core/bytes.h"
#include "../../core/snaptable.h"

#define COPIED      (UINT64_C(1) << 63)
#define OFFSET_MASK UINT64_C(0x00fffffffffffe00)
#define CLUSTER     (1u << cuts.cluster_bits)
#define STATES_MAX  2048u /* all of them up to here, else as many by lot */

/* What a cut left. */
struct flat {
    struct qc_disk disk;
    uint8_t bytes[CUTS_BYTES_MAX];
};

struct cuts cuts;

static struct flat flat;
static struct engine reader;
static uint8_t buf[CUTS_GUEST_MAX];

uint64_t cuts_dice(void)
{
    cuts.dice_state = cuts.dice_state * 6364136223846793005u + 1442695040888963407u;
    return cuts.dice_state >> 33;
}

static qc_status flat_read(struct qc_disk *disk, uint64_t host_off, void *bytes, size_t len)
{
    assert_true(len > 0 && host_off <= disk->size_bytes && len <= disk->size_bytes - host_off);
    memcpy(bytes, ((struct flat *)disk)->bytes + host_off, len);
    return QC_OK;
}

static qc_status flat_write(struct qc_disk *disk, uint64_t host_off, const void *bytes, size_t len)
{
    assert_true(len > 0 && host_off <= disk->size_bytes && len <= disk->size_bytes - host_off);
    memcpy(((struct flat *)disk)->bytes + host_off, bytes, len);
    return QC_OK;
}

static qc_status flat_flush(struct qc_disk *disk)
{
    (void)disk;
    return QC_OK;
}

static qc_status flat_grow(struct qc_disk *disk, uint64_t size_bytes)
{
    assert_true(size_bytes <= CUTS_BYTES_MAX);
    memset(((struct flat *)disk)->bytes + disk->size_bytes, 0, size_bytes - disk->size_bytes);
    disk->size_bytes = size_bytes;
    return QC_OK;
}

static const struct qc_disk_ops flat_ops = {flat_read, flat_write, flat_flush, flat_grow, NULL};

/* ---- what is on a disk ----------------------------------------------------------------------- */

static uint64_t at64(uint64_t host_off)
{
    assert_true(host_off <= flat.disk.size_bytes - 8);
    return qc_be64(flat.bytes + host_off);
}

/* Tells up what one L1 table refers to; of the disk's own, COPIED must be right. */
static void count_tree(uint64_t l1_off, uint32_t l1_entries, uint32_t *refs)
{
    for (uint32_t i = 0; i < l1_entries; i++) {
        uint64_t l2_off = at64(l1_off + i * 8u) & OFFSET_MASK;

        if (l2_off == 0)
            continue;
        assert_true(qc_is_inside(l2_off, CLUSTER, flat.disk.size_bytes));
        refs[l2_off / CLUSTER]++;
        for (uint32_t k = 0; k < CLUSTER / 8; k++) {
            uint64_t data_off = at64(l2_off + k * 8u) & OFFSET_MASK;

            if (data_off == 0)
                continue;
            assert_true(qc_is_inside(data_off, CLUSTER, flat.disk.size_bytes));
            refs[data_off / CLUSTER]++;
        }
    }
    for (uint64_t i = 0; i < qc_units(l1_entries * 8u, cuts.cluster_bits); i++)
        refs[l1_off / CLUSTER + i]++;
}

static uint32_t count_at(uint64_t cluster)
{
    uint64_t per_block = CLUSTER / 2;
    uint64_t table_off = at64(48), block_off = at64(table_off + cluster / per_block * 8);

    if (block_off == 0)
        return 0;
    return (uint32_t)(at64(block_off + cluster % per_block / 4 * 8) >> (48 - cluster % 4 * 16)) &
           0xffff;
}

static void check_copied(uint64_t entry, bool is_complete)
{
    uint64_t host_off = entry & OFFSET_MASK;

    if (host_off == 0)
        return;
    if (entry & COPIED)
        assert_int_equal(count_at(host_off / CLUSTER), 1);
    else if (is_complete)
        assert_int_not_equal(count_at(host_off / CLUSTER), 1);
}

/* No count is below its references, no flag wrong; by choice none is above, and none is missing. */
void cuts_check_counts(bool is_exact, bool has_copied)
{
    static uint32_t refs[CUTS_BYTES_MAX / 512 + 1];
    uint64_t l1_off = at64(40), table_off = at64(48), snapshots_off = at64(64), off = 0;
    uint32_t l1_entries = qc_be32(flat.bytes + 36), clusters = qc_be32(flat.bytes + 56);

    memset(refs, 0, sizeof(refs));
    refs[0]++;
    count_tree(l1_off, l1_entries, refs);
    for (uint32_t i = 0; i < clusters * (CLUSTER / 8); i++)
        refs[at64(table_off + i * 8u) / CLUSTER] += at64(table_off + i * 8u) != 0;
    for (uint32_t i = 0; i < clusters; i++)
        refs[table_off / CLUSTER + i]++;
    for (uint32_t i = 0; i < qc_be32(flat.bytes + 60); i++) {
        const uint8_t *entry = flat.bytes + snapshots_off + off;
        uint32_t strings = qc_be32(entry + 12);

        count_tree(qc_be64(entry), qc_be32(entry + 8), refs);
        off += (40 + qc_be32(entry + 36) + (strings >> 16) + (strings & 0xffff) + 7) & ~7u;
    }
    for (uint64_t i = 0; i < qc_units(off, cuts.cluster_bits); i++)
        refs[snapshots_off / CLUSTER + i]++;
    for (uint64_t i = 0; i < flat.disk.size_bytes / CLUSTER; i++) {
        assert_true(count_at(i) >= refs[i]);
        if (is_exact)
            assert_int_equal(count_at(i), refs[i]);
    }
    for (uint32_t i = 0; i < l1_entries; i++) {
        uint64_t l1_entry = at64(l1_off + i * 8u);

        check_copied(l1_entry, has_copied);
        for (uint32_t k = 0; k < CLUSTER / 8 && (l1_entry & OFFSET_MASK) != 0; k++)
            check_copied(at64((l1_entry & OFFSET_MASK) + k * 8u), has_copied);
    }
}

static void open_flat(bool is_readonly)
{
    const struct qc_open_options options = {.readonly = is_readonly};

    flat.disk.ops = &flat_ops;
    flat.disk.block_bytes = cuts.sim.unit_bytes;
    qc_cache_init(&reader.cache, reader.pool, sizeof(reader.pool));
    assert_int_equal(qc_open(&reader.image, &reader.cache, &flat.disk, &options), QC_OK);
}

bool cuts_reads_as(struct qc_image *image, const struct content *wanted)
{
    if (qc_size(image) != wanted->bytes_count)
        return false;
    assert_int_equal(qc_read(image, 0, buf, wanted->bytes_count), QC_OK);
    return memcmp(buf, wanted->bytes, wanted->bytes_count) == 0;
}

/* Whether the disk and its snapshots are these. */
bool cuts_is_world(const struct world *world)
{
    struct qc_snapshot snapshot;
    uint64_t cursor = 0;
    unsigned count = 0;
    bool is_same = true;

    open_flat(true);
    is_same = cuts_reads_as(&reader.image, &world->disk);
    while (is_same && qc_snapshot_next(&reader.image, &cursor, &snapshot) == QC_OK) {
        is_same = count < world->snapshots_count &&
                  strcmp(snapshot.name, world->snapshots[count].name) == 0;
        count++;
    }
    is_same = is_same && count == world->snapshots_count;
    for (unsigned i = 0; is_same && i < count; i++) {
        open_flat(true);
        assert_int_equal(qc_snapshot_enter(&reader.image, world->snapshots[i].name), QC_OK);
        is_same = cuts_reads_as(&reader.image, &world->snapshots[i]);
    }
    return is_same;
}

bool cuts_is_marked(void)
{
    return qc_be32(flat.bytes + 4) >= 3 && (at64(72) & QC_INCOMPATIBLE_DIRTY) != 0;
}

/* Opening it for writing puts right what the mark announces, and changes nothing else. */
static void check_repaired(void)
{
    static struct flat kept;
    bool is_before = cuts_is_world(&cuts.before), was_marked = cuts_is_marked();

    memcpy(&kept, &flat, sizeof(flat));
    open_flat(false);
    if (was_marked)
        assert_int_equal(qc_repair_dirty(&reader.image), QC_OK);
    assert_string_equal(qc_readonly_reason(&reader.image), "");
    assert_false(cuts_is_marked());
    cuts_check_counts(was_marked, true);
    assert_true(cuts_is_world(is_before ? &cuts.before : &cuts.after));
    memcpy(&flat, &kept, sizeof(flat));
}

/* Without a mark nothing but a leak may be wrong, where the format has one. */
void cuts_check_state(void)
{
    bool has_mark = qc_be32(flat.bytes + 4) >= 3;

    cuts.states_count++;
    cuts_check_counts(false, has_mark && !cuts_is_marked());
    assert_true(cuts_is_world(&cuts.before) || cuts_is_world(&cuts.after));
    if (has_mark)
        check_repaired();
}

/* ---- every state after a cut ----------------------------------------------------------------- */

static void put_unit(uint32_t unit, unsigned outcome)
{
    const uint64_t *hashes;

    memcpy(flat.bytes + (size_t)unit * cuts.sim.unit_bytes,
           sim_outcome(&cuts.sim, unit, outcome, &hashes), cuts.sim.unit_bytes);
}

/* Every choice of what each unit kept, or many by lot; and whether the disk had grown. */
void cuts_check_all(void *context)
{
    static uint32_t units[SIM_UNITS_MAX];
    uint32_t units_count = 0;
    uint64_t choices = 1, states;

    (void)context;
    for (uint32_t unit = 0; unit < cuts.sim.disk.size_bytes / cuts.sim.unit_bytes; unit++) {
        put_unit(unit, 0);
        if (sim_outcomes_count(&cuts.sim, unit) == 1)
            continue;
        units[units_count++] = unit;
        if (choices <= STATES_MAX)
            choices *= sim_outcomes_count(&cuts.sim, unit);
    }
    states = choices <= STATES_MAX ? choices : STATES_MAX / 4;
    for (uint64_t state = 0; state < states; state++) {
        uint64_t rest = state;

        for (uint32_t i = 0; i < units_count; i++) {
            unsigned count = sim_outcomes_count(&cuts.sim, units[i]);

            put_unit(units[i],
                     (unsigned)(choices <= STATES_MAX ? rest % count : cuts_dice() % count));
            rest /= count;
        }
        flat.disk.size_bytes = cuts.sim.disk.size_bytes;
        cuts_check_state();
    }
}

void cuts_flatten(bool is_newest)
{
    flat.disk.size_bytes = is_newest ? cuts.sim.disk.size_bytes : cuts.sim.durable_bytes;
    for (uint32_t unit = 0; unit < flat.disk.size_bytes / cuts.sim.unit_bytes; unit++)
        put_unit(unit, is_newest ? sim_outcomes_count(&cuts.sim, unit) - 1 : 0);
}
