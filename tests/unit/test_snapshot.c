/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Snapshots on a small image whose power is cut, or whose disk fails, at every point: whatever the
 * disk kept, cuts.h says what must hold. Then a disk without space.
 */
#include "../../core/table.h"
#include "cuts.h"

static struct sim_disk start;
static struct engine writer;
static uint8_t buf[CUTS_GUEST_MAX];

#define CLUSTER (1u << cuts.cluster_bits)
#define GUEST   (CUTS_CLUSTERS * CLUSTER)

/* ---- the start ------------------------------------------------------------------------------- */

static qc_status open_writer(void)
{
    const struct qc_open_options options = {.readonly = false};

    qc_cache_init(&writer.cache, writer.pool, sizeof(writer.pool));
    return qc_open(&writer.image, &writer.cache, &cuts.sim.disk, &options);
}

static void write_some(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        uint64_t guest_off = (count == CUTS_CLUSTERS ? i : cuts_dice() % CUTS_CLUSTERS) * CLUSTER;

        for (unsigned k = 0; k < CLUSTER; k++)
            cuts.before.disk.bytes[guest_off + k] = (uint8_t)cuts_dice();
        assert_int_equal(
            qc_write(&writer.image, guest_off, cuts.before.disk.bytes + guest_off, CLUSTER), QC_OK);
    }
}

static void snapshot_ok(const char *name)
{
    struct content *content = &cuts.before.snapshots[cuts.before.snapshots_count++];

    assert_int_equal(qc_snapshot_create(&writer.image, name, 1, 2), QC_OK);
    *content = cuts.before.disk;
    strcpy(content->name, name);
}

/*
 * An image with so many snapshots between which some clusters changed. Where all did and there are
 * two, its only refcount block counts no free cluster.
 */
static void build(struct rig *rig, uint32_t version, unsigned snapshots_count, unsigned writes,
                  bool has_trim)
{
    static const char *names[] = {"first", "second", "third"};

    cuts.dice_state = version * 100 + snapshots_count;
    rig_build(rig, version, cuts.cluster_bits, GUEST, 0);
    sim_init(&cuts.sim, CLUSTER, rig->disk.disk.size_bytes, CUTS_BYTES_MAX, has_trim);
    sim_put(&cuts.sim, 0, rig->disk.bytes, rig->disk.disk.size_bytes);
    memset(&cuts.before, 0, sizeof(cuts.before));
    cuts.before.disk.bytes_count = GUEST;
    assert_int_equal(open_writer(), QC_OK);
    write_some(writes);
    for (unsigned i = 0; i < snapshots_count; i++) {
        snapshot_ok(names[i]);
        write_some(writes);
        if (writes != CUTS_CLUSTERS)
            assert_int_equal(qc_zero(&writer.image, cuts_dice() % 70 * CLUSTER, 3 * CLUSTER, true),
                             QC_OK);
        assert_int_equal(qc_read(&writer.image, 0, cuts.before.disk.bytes, GUEST), QC_OK);
    }
    assert_int_equal(qc_settle(&writer.image), QC_OK);
    cuts.after = cuts.before;
    sim_copy(&start, &cuts.sim);
    cuts_flatten(false);
    cuts_check_counts(true, true);
    assert_true(cuts_is_world(&cuts.before));
}

/* ---- the changes ----------------------------------------------------------------------------- */

struct change {
    const char *what;
    qc_status (*run)(struct qc_image *image);
    void (*expect)(void);
    unsigned snapshots_count, writes;
};

static qc_status run_create(struct qc_image *image)
{
    return qc_snapshot_create(image, "new", 3, 4);
}

static void expect_create(void)
{
    cuts.after.snapshots[cuts.after.snapshots_count] = cuts.before.disk;
    strcpy(cuts.after.snapshots[cuts.after.snapshots_count++].name, "new");
}

static qc_status run_apply(struct qc_image *image)
{
    return qc_snapshot_apply(image, "first");
}

static void expect_apply(void)
{
    cuts.after.disk = cuts.before.snapshots[0];
}

static qc_status run_delete(struct qc_image *image)
{
    return qc_snapshot_delete(image, "first");
}

static void expect_delete(void)
{
    for (unsigned i = 1; i < cuts.after.snapshots_count; i++)
        cuts.after.snapshots[i - 1] = cuts.after.snapshots[i];
    cuts.after.snapshots_count--;
}

static const struct change changes[] = {
    {"create", run_create, expect_create, 0, 16},
    {"create", run_create, expect_create, 2, 16},
    {"create", run_create, expect_create, 2, CUTS_CLUSTERS},
    {"apply", run_apply, expect_apply, 1, 16},
    {"apply", run_apply, expect_apply, 3, 16},
    {"apply", run_apply, expect_apply, 2, CUTS_CLUSTERS},
    {"delete", run_delete, expect_delete, 1, 16},
    {"delete", run_delete, expect_delete, 3, 16},
    {"delete", run_delete, expect_delete, 2, CUTS_CLUSTERS},
};

#define CHANGES_COUNT (sizeof(changes) / sizeof(changes[0]))

static void restart(void)
{
    sim_copy(&cuts.sim, &start);
    assert_int_equal(open_writer(), QC_OK);
}

static void cut_everywhere(struct rig *rig, unsigned bits, uint32_t version, bool has_trim)
{
    cuts.cluster_bits = bits;
    for (unsigned i = 0; i < CHANGES_COUNT; i++) {
        build(rig, version, changes[i].snapshots_count, changes[i].writes, has_trim);
        changes[i].expect();
        restart();
        cuts.states_count = 0;
        cuts.sim.before_flush = cuts_check_all;
        assert_int_equal(changes[i].run(&writer.image), QC_OK);
        cuts.sim.before_flush = NULL;
        assert_int_equal(cuts.sim.broken_count, 0);
        cuts_check_all(NULL);
        print_message("v%u %s of %u: %u states\n", version, changes[i].what,
                      changes[i].snapshots_count, (unsigned)cuts.states_count);
        assert_true(cuts.states_count > 10);
        cuts_flatten(false); /* the end is durable */
        cuts_check_counts(true, true);
        assert_true(cuts_is_world(&cuts.after));
        assert_false(cuts_is_marked());
        assert_true(cuts_reads_as(&writer.image, &cuts.after.disk));
    }
}

static void test_cuts_v2(void **state)
{
    cut_everywhere(*state, 9, 2, false);
}

static void test_cuts_v3(void **state)
{
    cut_everywhere(*state, 9, 3, false);
}

static void test_cuts_with_trim(void **state)
{
    cut_everywhere(*state, 9, 3, true);
}

static void test_cuts_on_4k_blocks(void **state)
{
    cut_everywhere(*state, 12, 3, false);
}

/* One call of a kind fails, the first, the second and so on, until none does. */
static void fail_everywhere(const struct change *change, struct sim_fault *fault)
{
    for (fault->at = 1;; fault->at++) {
        qc_status status;

        restart();
        sim_arm(&cuts.sim, fault);
        status = change->run(&writer.image);
        if (cuts.sim.fault.hits_count == 0) {
            assert_int_equal(status, QC_OK);
            assert_true(fault->at > 1);
            return;
        }
        cuts_flatten(true);
        cuts_check_state();
        cuts_flatten(false);
        cuts_check_state();
        /* Counts that cannot be told up before the first change are believed (verify.h). */
        if (status == QC_OK && fault->call == SIM_READ)
            continue;
        assert_int_not_equal(status, QC_OK);
        assert_string_not_equal(qc_detail(&writer.image), "");
        /* The open image goes on reading, and does not write where it may not. */
        assert_true(cuts_reads_as(&writer.image, &cuts.before.disk) ||
                    cuts_reads_as(&writer.image, &cuts.after.disk));
        if (qc_readonly_reason(&writer.image)[0] == '\0') {
            assert_int_equal(change->run(&writer.image), QC_OK);
            cuts_flatten(false);
            /* Clusters that the failed one took for its tables may have leaked. */
            cuts_check_counts(change->writes != CUTS_CLUSTERS, true);
            assert_true(cuts_is_world(&cuts.after));
        }
    }
}

static void test_faults(void **state)
{
    cuts.cluster_bits = 9;
    for (uint32_t version = 2; version <= 3; version++) {
        for (unsigned i = 0; i < CHANGES_COUNT; i++) {
            build(*state, version, changes[i].snapshots_count, changes[i].writes, false);
            changes[i].expect();
            fail_everywhere(&changes[i], &(struct sim_fault){.call = SIM_READ});
            fail_everywhere(&changes[i],
                            &(struct sim_fault){.call = SIM_WRITE, .landing = SIM_LANDS_HALF});
            fail_everywhere(&changes[i], &(struct sim_fault){.call = SIM_FLUSH});
            fail_everywhere(&changes[i],
                            &(struct sim_fault){.call = SIM_FLUSH, .is_dropping = true});
        }
    }
}

/* Writes to every cluster until no host cluster is left. */
static void fill_up(void)
{
    qc_status status = QC_OK;

    for (unsigned i = 0; i < CUTS_CLUSTERS && status == QC_OK; i++) {
        uint8_t *bytes = cuts.before.disk.bytes + i * CLUSTER;

        memset(buf, (int)i + 1, CLUSTER);
        status = qc_write(&writer.image, i * CLUSTER, buf, CLUSTER);
        if (status == QC_OK)
            memcpy(bytes, buf, CLUSTER);
    }
    assert_int_equal(status, QC_NOSPACE);
    assert_int_equal(qc_settle(&writer.image), QC_OK);
}

/* A disk that does not grow, and is full. */
static void test_no_space(void **state)
{
    cuts.cluster_bits = 9;
    build(*state, 3, 2, 16, false);
    start.bytes_max = start.disk.size_bytes = start.durable_bytes = 90 * CLUSTER;
    start.ops.grow = NULL;
    restart();
    fill_up();
    assert_int_equal(run_create(&writer.image), QC_NOSPACE);
    assert_string_equal(qc_detail(&writer.image), "no space");
    assert_string_equal(qc_readonly_reason(&writer.image), "");
    cuts_flatten(false);
    cuts_check_counts(true, true);
    assert_true(cuts_is_world(&cuts.before));
}

/* The last snapshot can always go: that needs no table, and makes space. */
static void test_no_space_to_delete(void **state)
{
    cuts.cluster_bits = 9;
    build(*state, 3, 1, 16, false);
    start.bytes_max = start.disk.size_bytes = start.durable_bytes = 70 * CLUSTER;
    start.ops.grow = NULL;
    restart();
    fill_up();
    assert_int_equal(run_delete(&writer.image), QC_OK);
    cuts.before.snapshots_count = 0;
    cuts_flatten(false);
    cuts_check_counts(true, true);
    assert_true(cuts_is_world(&cuts.before));
    assert_int_equal(run_create(&writer.image), QC_OK);
}

/* A table of two clusters, of which the shortest entries would fill one. */
static void new_table_is_guarded_to_its_end(void **state)
{
    char name[201] = "";
    struct rig *rig = *state;
    uint64_t cluster;

    memset(name, 'n', sizeof(name) - 1);
    rig_build(rig, 3, 9, 64 * 512, 4);
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(qc_snapshot_create(&rig->image, name, 1, 2), QC_OK);
    assert_int_equal(qc_snapshot_create(&rig->image, name, 1, 2), QC_OK);
    cluster = qc_info(&rig->image)->snapshots_off / 512;
    assert_true(qc_is_header_structure(&rig->image, 0, cluster + 1));
    assert_false(qc_is_header_structure(&rig->image, 0, cluster + 2));
    assert_int_equal(qc_snapshot_delete(&rig->image, "1"), QC_OK);
    assert_int_equal(qc_snapshot_delete(&rig->image, "2"), QC_OK);
    assert_false(qc_is_header_structure(&rig->image, 0, cluster));
    /* What was known of a table that is gone says nothing. */
    rig->image.snapshots_bytes = 512 * (cluster + 1);
    assert_false(qc_is_header_structure(&rig->image, 0, cluster));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(test_cuts_v2),
        RIG_TEST(test_cuts_v3),
        RIG_TEST(test_cuts_with_trim),
        RIG_TEST(test_cuts_on_4k_blocks),
        RIG_TEST(test_faults),
        RIG_TEST(test_no_space),
        RIG_TEST(test_no_space_to_delete),
        RIG_TEST(new_table_is_guarded_to_its_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
