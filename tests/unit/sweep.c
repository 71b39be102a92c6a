/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* See sweep.h. Calls of all disks of a case are counted together. */
#include "sweep.h"

#define DISKS_MAX   3u
#define SECTORS_MAX 256u /* of the guest's, from its start, are looked at */
#define NOTES_MAX   12u
#define RUNS_MAX    100000u

struct sectors {
    unsigned count;
    bool is_readable[SECTORS_MAX];
    uint8_t bytes[SECTORS_MAX][QC_SECTOR_BYTES];
};

static struct {
    struct {
        struct mem_disk *mem;
        const struct qc_disk_ops *below;
        struct qc_disk_ops ops;
        uint8_t start[MEM_DISK_BYTES];
        uint64_t start_bytes;
    } disks[DISKS_MAX];
    unsigned disks_count;
    unsigned calls_count, fail_at; /* from 1; 0: none fails */
    bool is_forever, is_over, is_noting;
    unsigned pages_count; /* as the case has it */
    struct sectors notes[NOTES_MAX];
    unsigned notes_count;
    struct sectors now;
} sweep;

bool sweep_strikes(void)
{
    sweep.calls_count++;
    return sweep.fail_at != 0 && !sweep.is_over &&
           (sweep.is_forever ? sweep.calls_count >= sweep.fail_at
                             : sweep.calls_count == sweep.fail_at);
}

static const struct qc_disk_ops *below(const struct qc_disk *disk)
{
    unsigned i = 0;

    while (&sweep.disks[i].mem->disk != disk)
        assert_in_range(++i, 0, sweep.disks_count - 1);
    return sweep.disks[i].below;
}

static qc_status sweep_read(struct qc_disk *disk, uint64_t host_off, void *buf, size_t len)
{
    qc_status status = below(disk)->read(disk, host_off, buf, len);

    if (!sweep_strikes())
        return status;
    memset(buf, 0xee, len); /* a failed read may leave anything behind */
    return QC_IO;
}

static qc_status sweep_write(struct qc_disk *disk, uint64_t host_off, const void *buf, size_t len)
{
    bool is_failing = sweep_strikes();

    if (is_failing)
        len = len / 2 / disk->block_bytes * disk->block_bytes;
    if (len > 0)
        assert_int_equal(below(disk)->write(disk, host_off, buf, len), QC_OK);
    return is_failing ? QC_IO : QC_OK;
}

static qc_status sweep_flush(struct qc_disk *disk)
{
    return sweep_strikes() ? QC_IO : below(disk)->flush(disk);
}

static qc_status sweep_grow(struct qc_disk *disk, uint64_t size_bytes)
{
    return sweep_strikes() ? QC_NOSPACE : below(disk)->grow(disk, size_bytes);
}

void sweep_watch(struct mem_disk *mem)
{
    unsigned i = sweep.disks_count++;

    assert_in_range(i, 0, DISKS_MAX - 1);
    sweep.disks[i].mem = mem;
    sweep.disks[i].below = mem->disk.ops;
    sweep.disks[i].ops = (struct qc_disk_ops){.read = sweep_read,
                                              .write = sweep_write,
                                              .flush = sweep_flush,
                                              .grow = mem->disk.ops->grow ? sweep_grow : NULL,
                                              .trim = mem->disk.ops->trim};
    mem->disk.ops = &sweep.disks[i].ops;
    sweep.disks[i].start_bytes = mem->disk.size_bytes;
    memcpy(sweep.disks[i].start, mem->bytes, mem->disk.size_bytes);
}

qc_status sweep_open(struct rig *rig)
{
    qc_status status = rig_open(rig);

    if (sweep.pages_count != 0) {
        rig_believe(rig);
        rig_shrink(rig, sweep.pages_count);
    }
    return status;
}

static void put_back(void)
{
    for (unsigned i = 0; i < sweep.disks_count; i++) {
        sweep.disks[i].mem->disk.size_bytes = sweep.disks[i].start_bytes;
        memcpy(sweep.disks[i].mem->bytes, sweep.disks[i].start, sweep.disks[i].start_bytes);
    }
}

static void look(struct rig *rig, struct sectors *sectors)
{
    sectors->count = 0;
    for (uint64_t off = 0; off < qc_size(&rig->image) && sectors->count < SECTORS_MAX;
         off += QC_SECTOR_BYTES, sectors->count++)
        sectors->is_readable[sectors->count] =
            qc_read(&rig->image, off, sectors->bytes[sectors->count], QC_SECTOR_BYTES) == QC_OK;
}

void sweep_note(struct rig *rig)
{
    unsigned calls_count = sweep.calls_count;

    if (!sweep.is_noting)
        return;
    assert_in_range(sweep.notes_count, 0, NOTES_MAX - 1);
    look(rig, &sweep.notes[sweep.notes_count++]);
    sweep.calls_count = calls_count;
}

static bool is_allowed(unsigned sector)
{
    for (unsigned i = 0; i < sweep.notes_count; i++) {
        const struct sectors *note = &sweep.notes[i];

        if (sector >= note->count)
            return true;
        if (note->is_readable[sector] == sweep.now.is_readable[sector] &&
            (!note->is_readable[sector] ||
             memcmp(note->bytes[sector], sweep.now.bytes[sector], QC_SECTOR_BYTES) == 0))
            return true;
    }
    return false;
}

static const char *way_name(void)
{
    return sweep.is_forever ? " on" : "";
}

/* The disks work again. */
static void judge(struct rig *rig, const struct sweep_case *work)
{
    struct qc_check_result result;

    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(qc_check(&rig->image, QC_FIX_NOTHING, NULL, NULL, &result), QC_OK);
    if (!work->is_damaged && result.corruptions + result.check_errors != 0)
        fail_msg("%s: call %u%s: %u corruptions", work->name, sweep.fail_at, way_name(),
                 (unsigned)result.corruptions);
    look(rig, &sweep.now);
    for (unsigned sector = 0; sector < sweep.now.count; sector++) {
        unsigned cluster = sector * QC_SECTOR_BYTES / (unsigned)rig->cluster_bytes;

        if (!is_allowed(sector) && (cluster == 0 || cluster != work->any_cluster))
            fail_msg("%s: call %u%s: sector %u is none it may be", work->name, sweep.fail_at,
                     way_name(), sector);
    }
    assert_int_equal(qc_check(&rig->image, QC_FIX_ALL, NULL, NULL, &result), QC_OK);
    assert_int_equal(result.corruptions + result.check_errors + result.leaks, 0);
}

/* The work on good disks; how many calls it makes. */
static unsigned run_good(struct rig *rig, const struct sweep_case *work)
{
    unsigned calls_count;

    memset(&sweep, 0, sizeof(sweep));
    sweep.pages_count = work->pages_count;
    work->build(rig);
    sweep.is_noting = true;
    assert_int_equal(rig_open(rig), QC_OK);
    sweep_note(rig);
    put_back();
    sweep.calls_count = 0;
    if (work->work(rig) != QC_OK)
        fail_msg("%s: %s", work->name, qc_detail(&rig->image));
    calls_count = sweep.calls_count;
    sweep_note(rig);
    judge(rig, work);
    sweep_note(rig);
    sweep.is_noting = false;
    return calls_count;
}

unsigned sweep_run(struct rig *rig, const struct sweep_case *work)
{
    unsigned calls_count = run_good(rig, work), runs = 0;

    for (unsigned way = 0; way < 2; way++) {
        for (unsigned at = 1; at <= RUNS_MAX; at++, runs++) {
            qc_status status;

            put_back();
            sweep.calls_count = 0;
            sweep.is_forever = way == 1;
            sweep.fail_at = at;
            status = work->work(rig);
            if (sweep.calls_count < at)
                break;
            if (status == QC_FOREIGN || status == QC_REFUSED)
                fail_msg("%s: call %u%s: answer %d", work->name, at, way_name(), status);
            sweep.is_over = true;
            judge(rig, work);
            sweep.is_over = false;
        }
    }
    print_message("%s: %u calls, %u failures\n", work->name, calls_count, runs);
    return runs;
}
