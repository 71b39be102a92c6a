/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The verdicts of check.h beside those of qemu-img check, on states sampled from many sequences.
 *
 * Some of the sequences run with a named bug in the engine, so that there are corrupt states to
 * agree on. A state is written to a file that should lie in memory; two of these programs share
 * the work by taking even and odd samples (--number).
 */
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "builder.h"
#include "commands.h"
#include "sequences.h"

#define VERDICTS_COUNT  4u
#define SAMPLES_PER_RUN 60u
#define NAME_CHARS_MAX  1024u
#define FIRST_COUNTED   5u /* of four host clusters whose counts are damaged */

extern char **environ;

struct comparison {
    const char *file;
    uint64_t wanted, half, met, compared, disagreed;
    uint64_t verdicts[VERDICTS_COUNT];
    uint64_t in_run, every;
};

static struct sim_disk frozen;
static struct view frozen_view;

/* Asked of the image alone: what is below is not there, and a data file has no bytes to see. */
static int ask_qemu(const char *file)
{
    char name[NAME_CHARS_MAX];
    char *argv[] = {"qemu-img", "check", "-q", name, NULL};
    posix_spawn_file_actions_t actions;
    int status = -1;
    pid_t child;

    snprintf(name, sizeof(name),
             "json:{'driver':'qcow2','backing':null,%s'file':{'driver':'file','filename':'%s'}}",
             world.base->has_data_file ? "'data-file':{'driver':'null-co','size':8388608}," : "",
             file);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    if (posix_spawnp(&child, argv[0], &actions, NULL, argv, environ) == 0)
        waitpid(child, &status, 0);
    posix_spawn_file_actions_destroy(&actions);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static bool write_file(const char *file, const struct sim_disk *sim)
{
    int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    bool is_good =
        fd >= 0 && write(fd, sim->durable, sim->disk.size_bytes) == (ssize_t)sim->disk.size_bytes;

    if (fd >= 0)
        close(fd);
    return is_good;
}

/* Words of the first L2 table, and behind them one of counts. */
static void damage(struct sim_disk *sim, unsigned place, unsigned words_count, unsigned bit)
{
    unsigned cluster_bits = base_cluster_bits(world.base, sim->unit_bytes);
    uint64_t host_off = ((uint64_t)AT_L2 << cluster_bits) + place * 8;
    uint8_t byte;

    if (place == words_count)
        host_off = ((uint64_t)AT_BLOCK << cluster_bits) + FIRST_COUNTED * sizeof(uint16_t);
    host_off += bit / 8;
    byte = sim->durable[host_off] ^ (uint8_t)(1u << bit % 8);
    sim_put(sim, host_off, &byte, 1);
}

/* Asks qemu-img of the frozen disk. */
static void ask(struct comparison *comparison, const struct check *check, const char *what)
{
    bool is_corrupt = check->corruption != NULL || check->unflagged != NULL;
    int expected = is_corrupt ? 2 : check->leaks_count > 0 ? 3 : 0;
    int said;

    if (!write_file(comparison->file, &frozen)) {
        comparison->disagreed++;
        return;
    }
    said = ask_qemu(comparison->file);
    comparison->compared++;
    if (said >= 0 && said < (int)VERDICTS_COUNT)
        comparison->verdicts[said]++;
    if (said == expected)
        return;
    comparison->disagreed++;
    printf("broken: qemu-img check exits with %d, check says %d: %s at %llx; base %s, %s\n", said,
           expected, check->corruption != NULL ? check->corruption : "",
           (unsigned long long)check->where, world.base->name, what);
}

static void compare_bit(struct comparison *comparison, const char *base, unsigned place,
                        unsigned words_count, unsigned bit)
{
    struct check check;
    char what[NAME_CHARS_MAX];

    world_build(&world, base_find(base), 512);
    sim_copy(&frozen, &world.sim);
    sim_adopt(&frozen);
    damage(&frozen, place, words_count, bit);
    view_init(&frozen_view, &frozen);
    check_state(&frozen_view, &check);
    snprintf(what, sizeof(what), "bit %u of place %u turned", bit, place);
    ask(comparison, &check, what);
}

/*
 * No cut leaves entries that are wrong in themselves: one bit of an entry, or of a count of what
 * the entries refer to, is turned at a time.
 */
static void compare_damage(struct comparison *comparison)
{
    static const struct {
        const char *base;
        unsigned words_count;
    } damaged[] = {{"packed", 3}, {"extended", 6}, {"datafile", 4}};

    for (unsigned i = 0; i < sizeof(damaged) / sizeof(damaged[0]); i++) {
        for (unsigned place = 0; place <= damaged[i].words_count; place++) {
            for (unsigned bit = 0; bit < 64; bit++)
                compare_bit(comparison, damaged[i].base, place, damaged[i].words_count, bit);
        }
    }
}

static void compare(void *context, struct view *view, const struct judgement *judgement)
{
    struct comparison *comparison = context;
    struct check check = judgement->check;
    bool is_rare = check.corruption != NULL || check.unflagged != NULL; /* of these, every one */

    if ((++comparison->met % comparison->every != 0 && !is_rare) ||
        comparison->in_run == SAMPLES_PER_RUN)
        return;
    if (++comparison->in_run % 2 != comparison->half)
        return;
    view_freeze(view, &frozen, comparison->met);
    if (judgement->is_dirty) { /* and so was not looked at yet */
        view_init(&frozen_view, &frozen);
        check_state(&frozen_view, &check);
    }
    ask(comparison, &check, cutter.ops);
}

int command_agree(const struct arguments *arguments)
{
    static const char *const seeds[] = {"none",       "none",       "late_counts",  "no_flush1",
                                        "early_drop", "no_flush2",  "early_l1",     "no_l2_cow",
                                        "none",       "free_named", "no_quarantine"};
    struct comparison comparison = {
        .file = arguments->file, .wanted = arguments->ops_count, .half = arguments->number % 2};
    double begin = seconds_now();

    for (uint64_t round = 0; comparison.compared < comparison.wanted; round++) {
        const struct base *base = &bases[round % bases_count];
        uint64_t rest = round / bases_count;
        const char *text = rest % 3 == 0 ? alphabet_faulty(base) : alphabet_plain(base);
        char ops[SEQUENCE_OPS_MAX * OP_CHARS_MAX];

        if (rest % 3 == 1 && alphabet_bulk(base) != NULL)
            text = alphabet_bulk(base);
        choose_seed(seeds[round % (sizeof(seeds) / sizeof(seeds[0]))]);
        cutter_init(&cutter, &world);
        cutter.on_state = compare;
        cutter.context = &comparison;
        cutter.is_crash_only = world.is_blind = true;
        comparison.in_run = 0;
        comparison.every = 1 + rest % 7; /* other samples each time around */
        sequences_run(&cutter, base, rest % 2 == 1 && !base->is_512_only ? 4096 : 512, text, 2,
                      ops);
    }
    if (comparison.half == 0)
        compare_damage(&comparison);
    unlink(comparison.file);
    printf("agree compared=%llu clean=%llu leaks=%llu corrupt=%llu other=%llu disagreed=%llu "
           "seconds=%.1f\n",
           (unsigned long long)comparison.compared, (unsigned long long)comparison.verdicts[0],
           (unsigned long long)comparison.verdicts[3], (unsigned long long)comparison.verdicts[2],
           (unsigned long long)comparison.verdicts[1], (unsigned long long)comparison.disagreed,
           seconds_now() - begin);
    return comparison.disagreed == 0 ? 0 : 1;
}
