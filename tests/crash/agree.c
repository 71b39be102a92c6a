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

#include "commands.h"
#include "sequences.h"

#define VERDICTS_COUNT  4u
#define SAMPLES_PER_RUN 60u

extern char **environ;

struct comparison {
    const char *file;
    uint64_t wanted, half, met, compared, disagreed;
    uint64_t verdicts[VERDICTS_COUNT];
    uint64_t in_run, every;
};

static struct sim_disk frozen;

static int ask_qemu(const char *file)
{
    char *argv[] = {"qemu-img", "check", "-q", "-f", "qcow2", (char *)(uintptr_t)file, NULL};
    posix_spawn_file_actions_t actions;
    int status = -1;
    pid_t child;

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

static void compare(void *context, struct view *view, const struct judgement *judgement)
{
    struct comparison *comparison = context;
    const struct check *check = &judgement->check;
    int expected = check->corruption != NULL ? 2 : check->leaks_count > 0 ? 3 : 0;
    int said;

    /* Of the corrupt ones, which are rare, every one. */
    if ((++comparison->met % comparison->every != 0 && expected != 2) ||
        comparison->in_run == SAMPLES_PER_RUN)
        return;
    if (++comparison->in_run % 2 != comparison->half)
        return;
    view_freeze(view, &frozen, comparison->met);
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
    printf("broken: qemu-img check exits with %d, check says %d: %s at %llx; base %s, ops %s\n",
           said, expected, check->corruption != NULL ? check->corruption : "",
           (unsigned long long)check->where, cutter.world->base->name, cutter.ops);
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
        char ops[SEQUENCE_OPS_MAX * OP_CHARS_MAX];

        choose_seed(seeds[round % (sizeof(seeds) / sizeof(seeds[0]))]);
        cutter_init(&cutter, &world);
        cutter.on_state = compare;
        cutter.context = &comparison;
        cutter.is_crash_only = world.is_blind = true;
        comparison.in_run = 0;
        comparison.every = 1 + rest % 7; /* other samples each time around */
        sequences_run(&cutter, base, rest % 2 == 1 && !base->is_512_only ? 4096 : 512,
                      rest % 3 == 0 ? alphabet_faulty(base) : alphabet_plain(base), 2, ops);
    }
    unlink(comparison.file);
    printf("agree compared=%llu clean=%llu leaks=%llu corrupt=%llu other=%llu disagreed=%llu "
           "seconds=%.1f\n",
           (unsigned long long)comparison.compared, (unsigned long long)comparison.verdicts[0],
           (unsigned long long)comparison.verdicts[3], (unsigned long long)comparison.verdicts[2],
           (unsigned long long)comparison.verdicts[1], (unsigned long long)comparison.disagreed,
           seconds_now() - begin);
    return comparison.disagreed == 0 ? 0 : 1;
}
