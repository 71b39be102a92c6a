/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See sim.h. A write of part of a unit reads the rest of it first, as a driver over a device of
 * larger blocks does. A value equal to the one before it is no new outcome and is not kept.
 */
#include "sim.h"

#include <string.h>

#define SECTOR 512u

static struct sim_disk *sim_of(struct qc_disk *disk)
{
    return (struct sim_disk *)disk;
}

static uint64_t mix(uint64_t a, uint64_t b)
{
    a = (a ^ b) * UINT64_C(0x9e3779b97f4a7c15);
    a ^= a >> 29;
    a *= UINT64_C(0xbf58476d1ce4e5b9);
    return a ^ a >> 32;
}

uint64_t sim_hash_sector(const uint8_t *bytes)
{
    uint64_t lanes[4] = {1, 2, 3, 4};

    for (unsigned i = 0; i < SECTOR; i += 32) {
        for (unsigned lane = 0; lane < 4; lane++) {
            uint64_t word;

            memcpy(&word, bytes + i + lane * 8, 8);
            lanes[lane] = (lanes[lane] ^ word) * UINT64_C(0x9e3779b97f4a7c15);
            lanes[lane] ^= lanes[lane] >> 31;
        }
    }
    return mix(mix(lanes[0], lanes[1]), mix(lanes[2], lanes[3]));
}

void sim_fill_poison(uint8_t *bytes, uint64_t host_off)
{
    for (unsigned i = 0; i < SECTOR; i += 8) {
        /* A pointer, aligned to any cluster of the small images, into their first clusters. */
        uint64_t entry = (1 + (host_off / SECTOR + i / 8) % 12) * 4096;

        if (i % 16 == 0)
            entry |= UINT64_C(1) << 63;
        for (unsigned k = 0; k < 8; k++)
            bytes[i + k] = (uint8_t)(entry >> (56 - 8 * k));
    }
    bytes[SECTOR - 1] = (uint8_t)(host_off / SECTOR); /* no two sectors alike */
    bytes[SECTOR - 2] = (uint8_t)(host_off / SECTOR >> 8 | 0x40);
}

static uint32_t sectors_per_unit(const struct sim_disk *sim)
{
    return sim->unit_bytes / SECTOR;
}

static void hash_durable(struct sim_disk *sim, uint64_t sector, uint64_t hash)
{
    sim->durable_hash ^= mix(sector, sim->sector_hash[sector]) ^ mix(sector, hash);
    sim->sector_hash[sector] = hash;
}

/* Which of the two disks; BOTH only where the device itself decides. */
enum side { SIDE_DISK, SIDE_DATA, SIDE_BOTH };

static bool is_on(const struct sim_disk *sim, uint32_t unit, enum side side)
{
    bool is_data = sim->data.size_bytes > 0 && (uint64_t)unit * sim->unit_bytes >= sim->data_off;

    return side == SIDE_BOTH || is_data == (side == SIDE_DATA);
}

static void make_durable(struct sim_disk *sim, uint32_t value)
{
    uint32_t unit = sim->values[value].unit;
    uint32_t sectors = sectors_per_unit(sim);

    memcpy(sim->durable + (size_t)unit * sim->unit_bytes,
           sim->value_bytes + (size_t)(value - 1) * sim->unit_bytes, sim->unit_bytes);
    for (uint32_t k = 0; k < sectors; k++)
        hash_durable(sim, (uint64_t)unit * sectors + k, sim->value_hash[value * sectors + k]);
}

/* Moves a value down to a lower place. */
static void move_value(struct sim_disk *sim, uint32_t from, uint32_t to)
{
    uint32_t sectors = sectors_per_unit(sim);

    if (from == to)
        return;
    sim->values[to] = sim->values[from];
    memcpy(sim->value_bytes + (size_t)(to - 1) * sim->unit_bytes,
           sim->value_bytes + (size_t)(from - 1) * sim->unit_bytes, sim->unit_bytes);
    memcpy(sim->value_hash + (size_t)to * sectors, sim->value_hash + (size_t)from * sectors,
           sectors * sizeof(sim->value_hash[0]));
}

/* What is volatile on one side becomes durable, or is lost; the other side's stays volatile. */
static void settle(struct sim_disk *sim, enum side side, bool is_lost)
{
    static uint16_t moved[SIM_UNITS_MAX]; /* where a unit's latest value went */
    uint32_t kept = 0, count = sim->values_count;

    for (uint32_t i = 1; i <= count; i++) {
        uint32_t unit = sim->values[i].unit;

        if (is_on(sim, unit, side)) {
            if (sim->newest[unit] != i)
                continue;
            if (!is_lost)
                make_durable(sim, i);
            sim->newest[unit] = 0;
            continue;
        }
        move_value(sim, i, ++kept);
        /* A unit's values keep their order: the one before this was moved already. */
        if (sim->values[kept].number > 1)
            sim->values[kept].before = moved[unit];
        moved[unit] = (uint16_t)kept;
        if (sim->newest[unit] == i)
            sim->newest[unit] = (uint16_t)kept;
    }
    sim->values_count = kept;
    if (side != SIDE_DATA && !is_lost)
        sim->durable_bytes = sim->disk.size_bytes;
}

static const uint8_t *newest_bytes(const struct sim_disk *sim, uint32_t unit)
{
    if (sim->before_use != NULL)
        sim->before_use(sim->use_context, unit);
    if (sim->newest[unit] == 0)
        return sim->durable + (size_t)unit * sim->unit_bytes;
    return sim->value_bytes + (size_t)(sim->newest[unit] - 1) * sim->unit_bytes;
}

/* Gives a unit one more value it may hold. */
static void add_value(struct sim_disk *sim, uint32_t unit, const uint8_t *bytes)
{
    uint32_t sectors = sectors_per_unit(sim);
    uint16_t before = sim->newest[unit];
    uint32_t value;

    if (memcmp(newest_bytes(sim, unit), bytes, sim->unit_bytes) == 0)
        return;
    if ((sim->values_count + 1) * sim->unit_bytes > SIM_VALUES_BYTES_MAX) {
        settle(sim, SIDE_BOTH, false); /* a device may write its cache back when it likes */
        sim->written_back++;
        before = 0;
    }
    value = ++sim->values_count;
    sim->values[value].unit = (uint16_t)unit;
    sim->values[value].before = before;
    sim->values[value].number = before == 0 ? 1 : (uint16_t)(sim->values[before].number + 1);
    sim->newest[unit] = (uint16_t)value;
    memcpy(sim->value_bytes + (size_t)(value - 1) * sim->unit_bytes, bytes, sim->unit_bytes);
    for (uint32_t k = 0; k < sectors; k++)
        sim->value_hash[value * sectors + k] = sim_hash_sector(bytes + k * SECTOR);
}

static void write_bytes(struct sim_disk *sim, uint64_t host_off, const uint8_t *buf, uint64_t len)
{
    uint8_t bytes[SIM_UNIT_BYTES_MAX];

    while (len > 0) {
        uint32_t unit = (uint32_t)(host_off / sim->unit_bytes);
        uint64_t in_unit = host_off % sim->unit_bytes;
        uint64_t part = sim->unit_bytes - in_unit < len ? sim->unit_bytes - in_unit : len;

        memcpy(bytes, newest_bytes(sim, unit), sim->unit_bytes);
        memcpy(bytes + in_unit, buf, part);
        add_value(sim, unit, bytes);
        host_off += part;
        buf += part;
        len -= part;
    }
}

/* Whether this call fails. */
static bool strikes(struct sim_disk *sim, enum sim_call call)
{
    struct sim_fault *fault = &sim->fault;

    sim->calls_count[call]++;
    if (!fault->is_armed || call != fault->call || fault->flushes_seen < fault->after_flushes)
        return false;
    fault->calls_seen++;
    if (fault->calls_seen < fault->at || (fault->calls_seen > fault->at && !fault->is_forever))
        return false;
    fault->hits_count++;
    return true;
}

static bool is_allowed(struct sim_disk *sim, uint64_t host_off, size_t len)
{
    if (len > 0 && host_off <= sim->disk.size_bytes && len <= sim->disk.size_bytes - host_off)
        return true;
    sim->broken_count++;
    return false;
}

/* Of a disk that is only read nothing else is asked (disk.h). */
static bool is_writable(struct sim_disk *sim)
{
    sim->broken_count += sim->disk.readonly;
    return !sim->disk.readonly;
}

static qc_status read_bytes(struct sim_disk *sim, uint64_t host_off, void *buf, size_t len)
{
    uint8_t *bytes = buf;

    if (strikes(sim, SIM_READ)) {
        memset(buf, 0xee, len); /* a failed read may leave anything behind */
        return QC_IO;
    }
    while (len > 0) {
        uint64_t in_unit = host_off % sim->unit_bytes;
        uint64_t part = sim->unit_bytes - in_unit < len ? sim->unit_bytes - in_unit : len;

        memcpy(bytes, newest_bytes(sim, (uint32_t)(host_off / sim->unit_bytes)) + in_unit, part);
        host_off += part;
        bytes += part;
        len -= part;
    }
    return QC_OK;
}

static qc_status sim_read(struct qc_disk *disk, uint64_t host_off, void *buf, size_t len)
{
    struct sim_disk *sim = sim_of(disk);

    return is_allowed(sim, host_off, len) ? read_bytes(sim, host_off, buf, len) : QC_IO;
}

static qc_status land_bytes(struct sim_disk *sim, uint64_t host_off, const void *buf, size_t len)
{
    uint64_t landed = len;
    bool is_failing;

    is_failing = strikes(sim, SIM_WRITE);
    if (is_failing && sim->fault.landing == SIM_LANDS_NOTHING)
        landed = 0;
    else if (is_failing && sim->fault.landing == SIM_LANDS_HALF)
        landed = len / 2 - len / 2 % sim->unit_bytes;
    write_bytes(sim, host_off, buf, landed);
    if (sim->after_write != NULL)
        sim->after_write(sim->context);
    return is_failing ? QC_IO : QC_OK;
}

static qc_status sim_write(struct qc_disk *disk, uint64_t host_off, const void *buf, size_t len)
{
    struct sim_disk *sim = sim_of(disk);

    return is_writable(sim) && is_allowed(sim, host_off, len) ? land_bytes(sim, host_off, buf, len)
                                                              : QC_IO;
}

static qc_status flush_side(struct sim_disk *sim, enum side side)
{
    if (!is_writable(sim))
        return QC_IO;
    if (sim->before_flush != NULL)
        sim->before_flush(sim->context);
    if (strikes(sim, SIM_FLUSH)) {
        if (sim->fault.is_dropping)
            settle(sim, side, true);
        return QC_IO;
    }
    sim->fault.flushes_seen++;
    if (!sim->is_flush_idle)
        settle(sim, side, false);
    return QC_OK;
}

static qc_status sim_flush(struct qc_disk *disk)
{
    return flush_side(sim_of(disk), SIDE_DISK);
}

static qc_status sim_grow(struct qc_disk *disk, uint64_t size_bytes)
{
    struct sim_disk *sim = sim_of(disk);

    if (!is_writable(sim) || size_bytes > sim->bytes_max)
        return QC_NOSPACE;
    if (size_bytes > disk->size_bytes)
        disk->size_bytes = size_bytes;
    return QC_OK;
}

static void sim_trim(struct qc_disk *disk, uint64_t host_off, uint64_t len)
{
    struct sim_disk *sim = sim_of(disk);
    uint8_t poison[SECTOR];

    sim->trims_count++;
    if (!is_writable(sim) || !is_allowed(sim, host_off, len))
        return;
    for (uint64_t off = host_off; off < host_off + len; off += SECTOR) {
        sim_fill_poison(poison, off);
        poison[SECTOR - 2] = 0x7f; /* unlike what lies in space that was never used */
        write_bytes(sim, off, poison, SECTOR);
    }
}

void sim_init(struct sim_disk *sim, uint32_t unit_bytes, uint64_t bytes, uint64_t bytes_max,
              bool has_trim)
{
    static const uint8_t zeros[SECTOR];
    uint64_t hash = sim_hash_sector(zeros);

    memset(sim, 0, sizeof(*sim));
    sim->ops = (struct qc_disk_ops){.read = sim_read,
                                    .write = sim_write,
                                    .flush = sim_flush,
                                    .grow = bytes_max > bytes ? sim_grow : NULL,
                                    .trim = has_trim ? sim_trim : NULL};
    sim->disk.ops = &sim->ops;
    sim->disk.size_bytes = sim->durable_bytes = bytes;
    sim->disk.block_bytes = unit_bytes;
    sim->unit_bytes = unit_bytes;
    sim->bytes_max = sim->total_bytes = bytes_max;
    for (uint32_t i = 0; i < SIM_UNITS_MAX; i++)
        sim->sector_hash[i] = hash;
}

/* ---- the second disk ------------------------------------------------------------------------- */

static struct sim_disk *sim_of_data(struct qc_disk *data)
{
    return (struct sim_disk *)(void *)((uint8_t *)data - offsetof(struct sim_disk, data));
}

static bool is_in_window(struct sim_disk *sim, uint64_t host_off, size_t len)
{
    uint64_t in_stretch = host_off % sim->data_stretch;

    if (len > 0 && host_off <= sim->data.size_bytes && len <= sim->data.size_bytes - host_off &&
        in_stretch < sim->data_window && len <= sim->data_window - in_stretch)
        return true;
    sim->broken_count++;
    return false;
}

uint64_t sim_data_off(const struct sim_disk *sim, uint64_t host_off)
{
    return sim->data_off + host_off / sim->data_stretch * sim->data_window +
           host_off % sim->data_stretch;
}

static qc_status data_read(struct qc_disk *data, uint64_t host_off, void *buf, size_t len)
{
    struct sim_disk *sim = sim_of_data(data);

    return is_in_window(sim, host_off, len) ? read_bytes(sim, sim_data_off(sim, host_off), buf, len)
                                            : QC_IO;
}

static qc_status data_write(struct qc_disk *data, uint64_t host_off, const void *buf, size_t len)
{
    struct sim_disk *sim = sim_of_data(data);

    return is_in_window(sim, host_off, len) ? land_bytes(sim, sim_data_off(sim, host_off), buf, len)
                                            : QC_IO;
}

static qc_status data_flush(struct qc_disk *data)
{
    return flush_side(sim_of_data(data), SIDE_DATA);
}

static qc_status data_grow(struct qc_disk *data, uint64_t size_bytes)
{
    if (size_bytes > sim_of_data(data)->data_bytes_max)
        return QC_NOSPACE;
    if (size_bytes > data->size_bytes)
        data->size_bytes = size_bytes;
    return QC_OK;
}

void sim_add_data(struct sim_disk *sim, uint64_t bytes, uint64_t bytes_max, uint64_t stretch,
                  uint64_t window)
{
    sim->data_off = sim->bytes_max;
    sim->data_stretch = stretch;
    sim->data_window = window;
    sim->data_bytes_max = bytes_max;
    sim->total_bytes += (bytes_max + stretch - 1) / stretch * window;
    sim->data_ops = (struct qc_disk_ops){
        .read = data_read, .write = data_write, .flush = data_flush, .grow = data_grow};
    sim->data.ops = &sim->data_ops;
    sim->data.size_bytes = bytes;
    sim->data.block_bytes = sim->unit_bytes;
}

void sim_adopt(struct sim_disk *sim)
{
    sim->disk.ops = &sim->ops;
    sim->data.ops = &sim->data_ops;
}

void sim_put(struct sim_disk *sim, uint64_t host_off, const void *buf, size_t len)
{
    memcpy(sim->durable + host_off, buf, len);
    for (uint64_t sector = host_off / SECTOR; sector * SECTOR < host_off + len; sector++)
        hash_durable(sim, sector, sim_hash_sector(sim->durable + sector * SECTOR));
}

void sim_copy(struct sim_disk *target, const struct sim_disk *source)
{
    uint32_t units = (uint32_t)(source->total_bytes / SECTOR);
    uint32_t sectors = sectors_per_unit(source);

    memcpy(target, source, offsetof(struct sim_disk, newest));
    memcpy(target->newest, source->newest, units * sizeof(source->newest[0]));
    memcpy(target->sector_hash, source->sector_hash, units * sizeof(source->sector_hash[0]));
    memcpy(target->values, source->values, (source->values_count + 1) * sizeof(source->values[0]));
    memcpy(target->value_hash, source->value_hash,
           (source->values_count + 1) * sectors * sizeof(source->value_hash[0]));
    memcpy(target->value_bytes, source->value_bytes,
           (size_t)source->values_count * source->unit_bytes);
    memcpy(target->durable, source->durable, source->total_bytes);
}

void sim_arm(struct sim_disk *sim, const struct sim_fault *fault)
{
    sim->fault = *fault;
    sim->fault.is_armed = true;
    sim->fault.calls_seen = sim->fault.flushes_seen = sim->fault.hits_count = 0;
}

unsigned sim_outcomes_count(const struct sim_disk *sim, uint32_t unit)
{
    return sim->newest[unit] == 0 ? 1 : sim->values[sim->newest[unit]].number + 1u;
}

const uint8_t *sim_outcome(const struct sim_disk *sim, uint32_t unit, unsigned outcome,
                           const uint64_t **ret_hashes)
{
    uint32_t sectors = sectors_per_unit(sim);
    uint32_t value = sim->newest[unit];

    if (outcome == 0) {
        *ret_hashes = sim->sector_hash + (size_t)unit * sectors;
        return sim->durable + (size_t)unit * sim->unit_bytes;
    }
    while (sim->values[value].number != outcome)
        value = sim->values[value].before;
    *ret_hashes = sim->value_hash + value * sectors;
    return sim->value_bytes + (size_t)(value - 1) * sim->unit_bytes;
}

uint64_t sim_hash(const struct sim_disk *sim)
{
    uint32_t sectors = sectors_per_unit(sim);
    uint64_t hash = mix(mix(sim->durable_hash, sim->disk.size_bytes), sim->durable_bytes);

    hash = mix(hash, sim->data.size_bytes);
    for (uint32_t i = 1; i <= sim->values_count; i++) {
        uint64_t value = mix(sim->values[i].unit, sim->values[i].number);

        for (uint32_t k = 0; k < sectors; k++)
            value = mix(value, sim->value_hash[i * sectors + k]);
        hash += value * UINT64_C(0xff51afd7ed558ccd); /* in whatever order units were written */
    }
    return hash;
}
