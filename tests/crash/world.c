/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See world.h. What an operation means for the oracle stands beside what it asks of the engine.
 */
#include "world.h"

#include <stdio.h>
#include <string.h>

#include "builder.h"
#include "bulk.h"
#include "guest.h"

#define CLUSTER_BYTES_MAX (CLUSTER_SECTORS_MAX * SECTOR)

#ifdef QC_SEEDED /* `make test-seeded`: the suite must fail on its own */
#define SEED_PASTE(name)  QC_SEED_##name
#define SEED_NUMBER(name) SEED_PASTE(name)
enum qc_seed_number qc_seed = SEED_NUMBER(QC_SEEDED);
#else
enum qc_seed_number qc_seed;
#endif

static struct qc_unpacker unpacker;
static struct world *opening;

static qc_status find_lower(struct qc_bases *finder, struct qc_base *base)
{
    (void)finder;
    base->disk = base->is_data_file ? &opening->sim.data : &lowers[base->depth - 1].disk;
    return QC_OK;
}

static struct qc_bases finder = {find_lower};

bool world_fail(struct world *world, const char *what, const char *op, const char *note)
{
    if (world->violation == NULL) {
        world->violation = what;
        snprintf(world->violation_note, sizeof(world->violation_note), "at %s: %s", op, note);
    }
    return false;
}

static uint64_t guest_off_of(const struct world *world, unsigned digit)
{
    return base_guest_off(world->base, digit, world->cluster_bits);
}

unsigned world_sectors(const struct world *world, unsigned digit)
{
    return oracle_sectors(world->oracle.guest_bytes, guest_off_of(world, digit),
                          world->cluster_bits);
}

const struct oracle *world_after(const struct world *world)
{
    return world->has_after ? &world->after : NULL;
}

void world_build(struct world *world, const struct base *base, uint32_t unit_bytes)
{
    world->base = base;
    world->violation = NULL;
    world->is_faulty = world->is_lost = world->may_leak = world->has_after = false;
    world->options.write_through = base->is_write_through;
    world->options.bases = &finder;
    world->options.unpacker = &unpacker;
    world->cluster_bits = base_cluster_bits(base, unit_bytes);
    base_build(base, unit_bytes, &world->sim, &world->oracle);
}

bool world_open(struct world *world)
{
    qc_status status;

    opening = world;
    qc_cache_init(&world->cache, world->pool, sizeof(world->pool));
    status = qc_open(&world->image, &world->cache, &world->sim.disk, &world->options);
    /* Not all front ends open for writing: repairing is theirs to ask for. */
    if (status == QC_OK && (qc_info(&world->image)->incompatible & QC_INCOMPATIBLE_DIRTY))
        qc_repair_dirty(&world->image);
    if (status == QC_OK && qc_readonly_reason(&world->image)[0] == '\0')
        return true;
    if (world->sim.fault.is_armed && world->sim.fault.hits_count > 0)
        return false;
    return world_fail(world, "the image does not open for writing", "open",
                      status == QC_OK ? qc_readonly_reason(&world->image)
                                      : qc_detail(&world->image));
}

void world_copy(struct world *target, const struct world *source)
{
    memcpy(target, source, offsetof(struct world, after));
    if (source->has_after)
        target->after = source->after;
    sim_copy(&target->sim, &source->sim);
    qc_unpacker_forget(&unpacker, &target->image);
}

uint32_t world_lower_reads(void)
{
    uint32_t count = 0;

    for (unsigned i = 0; i < LOWERS_MAX; i++)
        count += lowers[i].calls_count[SIM_READ];
    return count;
}

static bool has_struck(const struct sim_disk *sim)
{
    return sim->fault.is_armed && sim->fault.hits_count > 0;
}

/*
 * An operation that was answered: is the answer one the engine may give here? The layers below are
 * no reason for a flush to fail.
 */
static bool is_answer_due(struct world *world, const char *op, qc_status status)
{
    bool is_struck = has_struck(&world->sim);

    for (unsigned i = 0; i < world->base->lowers_count && strchr("FCfcg!", op[0]) == NULL; i++)
        is_struck |= has_struck(&lowers[i]);

    if (status != QC_OK)
        world->oracle.is_raw_alike = false; /* part of it may have landed */
    if (status == QC_OK || is_struck || world->is_faulty)
        return true;
    if (status == QC_NOSPACE && world->base->is_tight)
        return true;
    return world_fail(world, "an operation failed for no reason", op, qc_detail(&world->image));
}

/* Written through, what is acknowledged is durable. */
static bool take_answer(struct world *world, const char *op, qc_status status)
{
    if (status == QC_OK && world->options.write_through)
        oracle_flush(&world->oracle);
    return is_answer_due(world, op, status);
}

/* Which sectors of which clusters hold a value from now on. */
static void issue(struct world *world, unsigned digit, unsigned from, unsigned to, bool is_zero,
                  bool is_acknowledged)
{
    uint8_t bytes[SECTOR];

    for (unsigned sector = from; sector < to; sector++) {
        unsigned version = is_zero ? 0 : world->oracle.values[digit][sector].version;

        oracle_issue(&world->oracle, digit, sector, oracle_fill(bytes, digit, sector, version),
                     is_acknowledged);
    }
}

static void make_bytes(struct world *world, unsigned digit, unsigned from, unsigned to,
                       uint8_t *bytes)
{
    for (unsigned sector = from; sector < to; sector++)
        oracle_fill(bytes + (sector - from) * SECTOR, digit, sector,
                    ++world->oracle.values[digit][sector].version);
}

/* The value is issued before the engine is asked, because a cut may come while it works. */
qc_status world_write(struct world *world, unsigned digit, unsigned from, unsigned to)
{
    uint8_t bytes[CLUSTER_BYTES_MAX];
    uint64_t guest_off = guest_off_of(world, digit) + from * SECTOR;
    unsigned sectors = world_sectors(world, digit);
    qc_status status;

    to = to < sectors ? to : sectors;
    if (from >= to)
        return QC_OK;
    make_bytes(world, digit, from, to, bytes);
    issue(world, digit, from, to, false, false);
    status = qc_write(&world->image, guest_off, bytes, (to - from) * SECTOR);
    if (status == QC_OK)
        issue(world, digit, from, to, false, true);
    return status;
}

/* Half of a cluster and half of the next in one request. */
static qc_status write_across(struct world *world, unsigned digit)
{
    uint8_t bytes[2 * CLUSTER_BYTES_MAX];
    unsigned sectors = world->oracle.cluster_sectors, half = sectors / 2;
    unsigned next = (sectors + 1) / 2;
    uint64_t guest_off = guest_off_of(world, digit) + half * SECTOR;
    qc_status status;

    make_bytes(world, digit, half, sectors, bytes);
    make_bytes(world, digit + 1, 0, next, bytes + (sectors - half) * SECTOR);
    issue(world, digit, half, sectors, false, false);
    issue(world, digit + 1, 0, next, false, false);
    status = qc_write(&world->image, guest_off, bytes, (sectors - half + next) * SECTOR);
    if (status == QC_OK) {
        issue(world, digit, half, sectors, false, true);
        issue(world, digit + 1, 0, next, false, true);
    }
    return status;
}

/* Where "zeros" cannot be said of a cluster, a discard changes nothing. */
static bool is_discard_idle(const struct world *world)
{
    return (world->base->version < 3 && world->base->lowers_count > 0) || world->base->is_raw_data;
}

static qc_status erase(struct world *world, unsigned digit, char kind)
{
    uint64_t guest_off = guest_off_of(world, digit);
    unsigned sectors = world_sectors(world, digit);
    uint64_t len = (uint64_t)sectors * SECTOR;
    qc_status status;

    if (sectors == 0)
        return QC_OK;
    if (kind == 'D' && is_discard_idle(world))
        return qc_discard(&world->image, guest_off, len);
    issue(world, digit, 0, sectors, true, false);
    if (kind == 'D')
        status = qc_discard(&world->image, guest_off, len);
    else
        status = qc_zero(&world->image, guest_off, len, kind == 'Z');
    if (status == QC_OK)
        issue(world, digit, 0, sectors, true, true);
    return status;
}

/* A subcluster, or a sector where clusters have fewer than subclusters would be. */
static qc_status erase_some(struct world *world, unsigned digit, unsigned sector)
{
    uint64_t guest_off = guest_off_of(world, digit) + sector * SECTOR;
    unsigned count = (world->oracle.cluster_sectors + SUBS_COUNT - 1) / SUBS_COUNT;
    qc_status status;

    if (sector + count > world_sectors(world, digit))
        return QC_OK;
    issue(world, digit, sector, sector + count, true, false);
    status = qc_zero(&world->image, guest_off, count * SECTOR, true);
    if (status == QC_OK)
        issue(world, digit, sector, sector + count, true, true);
    return status;
}

static bool flush(struct world *world, const char *op, bool is_settling)
{
    uint32_t reads_before = world_lower_reads();
    qc_status status = is_settling ? qc_settle(&world->image) : qc_flush(&world->image);

    if (world_lower_reads() != reads_before)
        return world_fail(world, "a flush reads what lies below", op, "");
    if (!is_answer_due(world, op, status))
        return false;
    if (status == QC_OK)
        oracle_flush(&world->oracle);
    return true;
}

static bool restart(struct world *world)
{
    world->may_leak |= world->image.epoch.records_count > 0;
    return world_revive(world, false);
}

static bool flush_failing(struct world *world, const char *op)
{
    struct sim_fault fault = {.at = 1};

    if (op[0] == 'f' || op[0] == 'c') {
        fault.call = SIM_WRITE;
        fault.after_flushes = (uint32_t)(op[1] - '1');
        fault.at = (uint32_t)(op[2] - '0');
        fault.landing = op[3] == 'n'   ? SIM_LANDS_NOTHING
                        : op[3] == 'h' ? SIM_LANDS_HALF
                                       : SIM_LANDS_ALL;
    } else {
        fault.call = SIM_FLUSH;
        fault.at = (uint32_t)(op[1] - '0');
        fault.is_dropping = op[0] == '!';
    }
    sim_arm(&world->sim, &fault);
    flush(world, op, op[0] == 'c');
    world->sim.fault.is_armed = false;
    if (fault.call == SIM_FLUSH && world->sim.fault.hits_count > 0) {
        world->is_faulty = true; /* read-only from here on */
        world->is_lost |= fault.is_dropping;
        if (qc_readonly_reason(&world->image)[0] == '\0')
            return world_fail(
                world, "a failed flush does not make the image read-only (invariant 5)", op, "");
    }
    return world->violation == NULL;
}

static bool write_failing(struct world *world, const char *op)
{
    struct sim_fault fault = {.call = SIM_WRITE, .at = 1, .landing = SIM_LANDS_HALF};
    qc_status status;

    sim_arm(&world->sim, &fault);
    status = world_write(world, (unsigned)(op[1] - '0'), 0, world->oracle.cluster_sectors);
    world->sim.fault.is_armed = false;
    world->oracle.is_raw_alike &= status == QC_OK;
    if (status == QC_OK && world->sim.fault.hits_count > 0)
        return world_fail(world, "a failed write is acknowledged", op, "");
    return status == QC_OK || world->sim.fault.hits_count > 0 || is_answer_due(world, op, status);
}

static bool forget_cache(struct world *world)
{
    for (uint64_t off = 0; off < world->sim.disk.size_bytes; off += SECTOR)
        qc_cache_forget(&world->cache, off);
    return true;
}

static bool do_op(struct world *world, const char *op)
{
    unsigned digit = (unsigned)(op[1] - '0');
    unsigned sectors = world->oracle.cluster_sectors, half = (sectors + 1) / 2;

    switch (op[0]) {
    case 'W':
        return take_answer(world, op, world_write(world, digit, 0, sectors));
    case 'H':
        return take_answer(world, op, world_write(world, digit, 0, half));
    case 'T':
        return take_answer(world, op, world_write(world, digit, sectors / 2, sectors));
    case 'X':
        return take_answer(world, op, write_across(world, digit));
    case 'D':
    case 'Z':
    case 'z':
        return take_answer(world, op, erase(world, digit, op[0]));
    case 's':
        return take_answer(world, op, world_write(world, digit, half, half + 1));
    case 'q':
        return take_answer(world, op, erase_some(world, digit, half));
    case 'G':
    case 'J':
    case 'S':
    case 'A':
    case 'K':
        return bulk_do(world, op);
    case 'F':
    case 'C':
        return flush(world, op, op[0] == 'C');
    case 'R':
        return restart(world);
    case 'w':
        return write_failing(world, op);
    case 'E':
        return forget_cache(world);
    default:
        return flush_failing(world, op);
    }
}

bool world_see(struct world *world)
{
    uint8_t bytes[CLUSTER_BYTES_MAX];

    for (unsigned digit = 0; digit < GUEST_CLUSTERS; digit++) {
        unsigned sectors = world_sectors(world, digit);

        if (sectors > 0 && qc_read(&world->image, guest_off_of(world, digit), bytes,
                                   (size_t)sectors * SECTOR) != QC_OK)
            return false;
        for (unsigned sector = 0; sector < sectors; sector++)
            oracle_see(&world->oracle.values[digit][sector],
                       sim_hash_sector(bytes + sector * SECTOR));
    }
    return true;
}

static bool read_digit(struct world *world, unsigned digit, unsigned sectors)
{
    uint8_t bytes[CLUSTER_BYTES_MAX];

    if (qc_read(&world->image, guest_off_of(world, digit), bytes, (size_t)sectors * SECTOR) !=
        QC_OK)
        return world_fail(world, "the guest cannot be read", "reading", qc_detail(&world->image));
    for (unsigned sector = 0; sector < sectors; sector++) {
        const struct sector_values *values = &world->oracle.values[digit][sector];
        uint64_t hash = sim_hash_sector(bytes + sector * SECTOR);
        char place[32];

        if (oracle_allows_now(values, hash))
            continue;
        snprintf(place, sizeof(place), "%u %u", digit, sector);
        return world_fail(world, "a read does not give what was written", "guest cluster, sector",
                          place);
    }
    return true;
}

bool world_read_back(struct world *world)
{
    for (unsigned digit = 0; digit < GUEST_CLUSTERS; digit++) {
        unsigned sectors = world_sectors(world, digit);

        if (sectors > 0 && !read_digit(world, digit, sectors))
            return false;
    }
    return true;
}

bool world_do(struct world *world, const char *op)
{
    if (!do_op(world, op))
        return false;
    for (unsigned i = 0; i < world->base->lowers_count; i++) {
        if (lowers[i].broken_count > 0)
            return world_fail(world, "a request that no engine may make of a layer below", op, "");
    }
    if (world->sim.broken_count > 0)
        return world_fail(world, "a request that no engine may make of a disk", op, "");
    return world->is_blind || world->is_lost || world_read_back(world);
}

static bool is_known(const char *op, size_t len)
{
    if (len == 1)
        return strchr("FCREGJS", op[0]) != NULL;
    if (len == 2 && (op[0] == 'A' || op[0] == 'K'))
        return op[1] >= '0' && op[1] < '0' + (int)SNAPSHOTS_KEPT_MAX;
    if (len == 2 && (op[0] == 'g' || op[0] == '!'))
        return op[1] >= '1' && op[1] <= '3';
    if (len == 2)
        return strchr("WHTXDZzwsq", op[0]) != NULL && op[1] >= '0' && op[1] <= '7' &&
               (op[0] != 'X' || op[1] <= '2' || op[1] == '4');
    return len == 4 && (op[0] == 'f' || op[0] == 'c') && op[1] >= '1' && op[1] <= '3' &&
           op[2] >= '1' && op[2] <= '9' && strchr("nha", op[3]) != NULL;
}

unsigned ops_parse(const char *text, struct op *ops, unsigned ops_max)
{
    unsigned count = 0;

    while (*text != '\0') {
        size_t len = strcspn(text, ", ");

        if (count == ops_max || !is_known(text, len))
            return 0;
        memset(&ops[count], 0, sizeof(ops[count]));
        memcpy(ops[count++].text, text, len);
        text += len + (text[len] != '\0');
    }
    return count;
}
