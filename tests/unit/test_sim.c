/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The emulated disk of the crash suite: what it keeps, loses, tears and fails.
 *
 * Promises: each outcome that a cut may have is there, and none that it may not.
 */
#include "support.h"

#include "../sim/sim.h"

#define UNIT  512u
#define BYTES (64u * 1024)

static struct sim_disk sim, copy; /* too large for a frame */
static uint8_t block[8 * UNIT], seen_bytes[8 * UNIT];

static void start(uint32_t unit_bytes, uint64_t bytes_max)
{
    sim_init(&sim, unit_bytes, BYTES, bytes_max, true);
}

static qc_status put(uint64_t host_off, uint8_t value, size_t len)
{
    memset(block, value, len);
    return sim.ops.write(&sim.disk, host_off, block, len);
}

static uint8_t get(uint64_t host_off)
{
    assert_int_equal(sim.ops.read(&sim.disk, host_off, seen_bytes, UNIT), QC_OK);
    return seen_bytes[0];
}

static uint8_t outcome(uint32_t unit, unsigned number)
{
    const uint64_t *hashes;

    return *sim_outcome(&sim, unit, number, &hashes);
}

static void each_value_since_the_flush_is_an_outcome(void **state)
{
    (void)state;
    start(UNIT, BYTES);
    put(0, 1, 2 * UNIT);
    put(UNIT, 2, UNIT);
    put(UNIT, 3, UNIT);
    assert_int_equal(sim_outcomes_count(&sim, 0), 2);
    assert_int_equal(sim_outcomes_count(&sim, 1), 4);
    assert_int_equal(sim_outcomes_count(&sim, 2), 1);
    assert_int_equal(outcome(1, 0), 0);
    assert_int_equal(outcome(1, 1), 1);
    assert_int_equal(outcome(1, 2), 2);
    assert_int_equal(outcome(1, 3), 3);
    assert_int_equal(get(UNIT), 3);
}

static void an_equal_value_is_no_outcome(void **state)
{
    (void)state;
    start(UNIT, BYTES);
    put(0, 0, UNIT);
    assert_int_equal(sim_outcomes_count(&sim, 0), 1);
    put(0, 5, UNIT);
    put(0, 5, UNIT);
    assert_int_equal(sim_outcomes_count(&sim, 0), 2);
    put(0, 0, UNIT); /* back to what is durable is one: the order is not known */
    assert_int_equal(sim_outcomes_count(&sim, 0), 3);
}

static void a_flush_makes_the_newest_durable(void **state)
{
    (void)state;
    start(UNIT, BYTES);
    put(0, 1, UNIT);
    put(0, 2, UNIT);
    assert_int_equal(sim.ops.flush(&sim.disk), QC_OK);
    assert_int_equal(sim_outcomes_count(&sim, 0), 1);
    assert_int_equal(outcome(0, 0), 2);
    assert_int_equal(sim.values_count, 0);
    assert_int_equal(sim.calls_count[SIM_FLUSH], 1);
}

static void part_of_a_large_unit_keeps_the_rest(void **state)
{
    (void)state;
    start(4096, BYTES);
    put(0, 7, 4096);
    assert_int_equal(put(512, 9, 512), QC_OK);
    assert_int_equal(sim_outcomes_count(&sim, 0), 3);
    assert_int_equal(get(0), 7);
    assert_int_equal(get(512), 9);
    assert_int_equal(get(1024), 7);
}

static void a_failing_write_lands_as_ordered(void **state)
{
    static const struct {
        enum sim_landing landing;
        uint8_t first, last;
    } cases[] = {{SIM_LANDS_NOTHING, 0, 0}, {SIM_LANDS_HALF, 6, 0}, {SIM_LANDS_ALL, 6, 6}};

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        struct sim_fault fault = {.call = SIM_WRITE, .at = 2, .landing = cases[i].landing};

        start(UNIT, BYTES);
        sim_arm(&sim, &fault);
        assert_int_equal(put(16 * UNIT, 1, UNIT), QC_OK);
        assert_int_equal(put(0, 6, 4 * UNIT), QC_IO);
        assert_int_equal(get(0), cases[i].first);
        assert_int_equal(get(3 * UNIT), cases[i].last);
        assert_int_equal(put(0, 8, UNIT), QC_OK); /* once */
        assert_int_equal(sim.fault.hits_count, 1);
    }
}

static void a_fault_for_ever_stays(void **state)
{
    struct sim_fault fault = {.call = SIM_READ, .at = 1, .is_forever = true};

    (void)state;
    start(UNIT, BYTES);
    sim_arm(&sim, &fault);
    assert_int_equal(sim.ops.read(&sim.disk, 0, seen_bytes, UNIT), QC_IO);
    assert_int_equal(seen_bytes[0], 0xee);
    assert_int_equal(sim.ops.read(&sim.disk, 0, seen_bytes, UNIT), QC_IO);
    assert_int_equal(put(0, 1, UNIT), QC_OK);
    sim.fault.is_armed = false;
    assert_int_equal(get(0), 1);
}

static void a_fault_waits_for_flushes(void **state)
{
    struct sim_fault fault = {.call = SIM_WRITE, .at = 1, .after_flushes = 1};

    (void)state;
    start(UNIT, BYTES);
    sim_arm(&sim, &fault);
    assert_int_equal(put(0, 1, UNIT), QC_OK);
    sim.ops.flush(&sim.disk);
    assert_int_equal(put(0, 2, UNIT), QC_IO);
}

static void a_failed_flush_keeps_or_drops(void **state)
{
    struct sim_fault fault = {.call = SIM_FLUSH, .at = 1};

    (void)state;
    start(UNIT, BYTES);
    put(0, 4, UNIT);
    sim_arm(&sim, &fault);
    assert_int_equal(sim.ops.flush(&sim.disk), QC_IO);
    assert_int_equal(sim_outcomes_count(&sim, 0), 2);
    assert_int_equal(get(0), 4);
    fault.is_dropping = true;
    sim_arm(&sim, &fault);
    assert_int_equal(sim.ops.flush(&sim.disk), QC_IO);
    assert_int_equal(sim_outcomes_count(&sim, 0), 1);
    assert_int_equal(get(0), 0);
}

static void an_idle_flush_does_nothing(void **state)
{
    (void)state;
    start(UNIT, BYTES);
    sim.is_flush_idle = true;
    put(0, 4, UNIT);
    assert_int_equal(sim.ops.flush(&sim.disk), QC_OK);
    assert_int_equal(sim_outcomes_count(&sim, 0), 2);
}

static void a_trim_is_volatile_poison(void **state)
{
    (void)state;
    start(UNIT, BYTES);
    put(0, 4, UNIT);
    sim.ops.flush(&sim.disk);
    sim.ops.trim(&sim.disk, 0, UNIT);
    assert_int_equal(sim_outcomes_count(&sim, 0), 2);
    assert_int_equal(outcome(0, 0), 4);
    get(0);
    assert_int_equal(seen_bytes[0], 0x80); /* parses as an entry */
    assert_int_equal(seen_bytes[510], 0x7f);
    assert_int_equal(sim.trims_count, 1);
}

static void growing_has_an_end(void **state)
{
    (void)state;
    start(UNIT, 2 * BYTES);
    assert_int_equal(sim.ops.grow(&sim.disk, 2 * BYTES + UNIT), QC_NOSPACE);
    assert_int_equal(sim.disk.size_bytes, BYTES);
    assert_int_equal(sim.ops.grow(&sim.disk, 2 * BYTES), QC_OK);
    assert_int_equal(sim.disk.size_bytes, 2 * BYTES);
    assert_int_equal(get(BYTES), 0);
    start(UNIT, BYTES);
    assert_null(sim.ops.grow);
}

static void bad_requests_are_counted(void **state)
{
    (void)state;
    start(UNIT, BYTES);
    assert_int_equal(put(BYTES, 1, UNIT), QC_IO);
    assert_int_equal(put(0, 1, 0), QC_IO);
    assert_int_equal(sim.broken_count, 2);
}

static void a_full_cache_is_written_back(void **state)
{
    (void)state;
    start(4096, BYTES);
    for (unsigned i = 0; i < SIM_VALUES_BYTES_MAX / 4096; i++)
        put(0, (uint8_t)(1 + i % 200), 4096);
    assert_int_equal(sim.written_back, 0);
    put(0, 250, 4096);
    assert_int_equal(sim.written_back, 1);
    assert_int_equal(sim_outcomes_count(&sim, 0), 2);
    assert_int_equal(get(0), 250);
}

static void a_copy_put_back_is_the_disk_as_it_was(void **state)
{
    uint64_t hash;

    (void)state;
    start(UNIT, BYTES);
    put(0, 1, UNIT);
    sim.ops.flush(&sim.disk);
    put(UNIT, 2, UNIT);
    hash = sim_hash(&sim);
    sim_copy(&copy, &sim);
    put(0, 3, UNIT);
    put(UNIT, 4, UNIT);
    assert_true(sim_hash(&sim) != hash);
    sim.ops.flush(&sim.disk);
    sim_copy(&sim, &copy);
    assert_true(sim_hash(&sim) == hash);
    assert_int_equal(get(0), 1);
    assert_int_equal(get(UNIT), 2);
    assert_int_equal(sim_outcomes_count(&sim, 1), 2);
}

/* Two disks that a cut cannot tell apart have one hash; others do not. */
static void the_hash_knows_no_order_of_units(void **state)
{
    uint64_t hash;

    (void)state;
    start(UNIT, BYTES);
    put(0, 1, UNIT);
    put(UNIT, 2, UNIT);
    hash = sim_hash(&sim);
    start(UNIT, BYTES);
    put(UNIT, 2, UNIT);
    put(0, 1, UNIT);
    assert_true(sim_hash(&sim) == hash);
    start(UNIT, BYTES);
    put(UNIT, 1, UNIT);
    put(0, 2, UNIT);
    assert_true(sim_hash(&sim) != hash);
    sim.ops.flush(&sim.disk);
    assert_true(sim_hash(&sim) != hash);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_value_since_the_flush_is_an_outcome),
        cmocka_unit_test(an_equal_value_is_no_outcome),
        cmocka_unit_test(a_flush_makes_the_newest_durable),
        cmocka_unit_test(part_of_a_large_unit_keeps_the_rest),
        cmocka_unit_test(a_failing_write_lands_as_ordered),
        cmocka_unit_test(a_fault_for_ever_stays),
        cmocka_unit_test(a_fault_waits_for_flushes),
        cmocka_unit_test(a_failed_flush_keeps_or_drops),
        cmocka_unit_test(an_idle_flush_does_nothing),
        cmocka_unit_test(a_trim_is_volatile_poison),
        cmocka_unit_test(growing_has_an_end),
        cmocka_unit_test(bad_requests_are_counted),
        cmocka_unit_test(a_full_cache_is_written_back),
        cmocka_unit_test(a_copy_put_back_is_the_disk_as_it_was),
        cmocka_unit_test(the_hash_knows_no_order_of_units),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
