/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The crash program: `crash COMMAND [--option value]...`; usage() lists the commands.
 *
 * Promises: exit status 0 only where nothing was broken; one line of figures a run; a violation
 * ends with the line that replays it alone.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "commands.h"
#include "sequences.h"

struct world world;
struct cutter cutter;

static int usage(void)
{
    fprintf(stderr,
            "crash all [--base NAME] [--unit N] [--length K] [--share N] [--seed NAME]\n"
            "          [--alphabet plain|faulty|bulk|OPS]    every sequence, every state\n"
            "crash process [--base NAME] [--length K]  the same for the death of the process\n"
            "crash one --base NAME --ops OPS [--unit N] [--cut N:PATH] [--seed NAME]\n"
            "crash seeds [--seed NAME]                 finds the named bugs\n"
            "crash faults [--base NAME] [--unit N]     every failure of every call\n"
            "crash random [--number N] [--count N] [--cuts N]   long runs\n"
            "crash agree --file PATH [--number N] [--count N]   beside qemu-img check\n"
            "crash prune                               every state beside the pruned ones\n"
            "crash costs                               flushes of the disk\n");
    return 2;
}

double seconds_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

void print_figures(const struct figures *f, double elapsed)
{
    printf("  sequences=%llu cuts=%llu repeats=%llu subsets=%.3g states=%llu reopened=%llu "
           "repaired=%llu "
           "ends=%llu not_exhaustive=%llu violations=%llu seconds=%.1f states_per_s=%.0f\n",
           (unsigned long long)f->sequences, (unsigned long long)f->cuts,
           (unsigned long long)f->repeats, f->subsets, (unsigned long long)f->states,
           (unsigned long long)f->reopened, (unsigned long long)f->repaired,
           (unsigned long long)f->ends, (unsigned long long)f->not_exhaustive,
           (unsigned long long)f->violations, elapsed, (double)f->states / (elapsed + 1e-9));
}

static bool run_all_on(const struct base *base, uint32_t unit, const struct arguments *arguments)
{
    char ops[SEQUENCE_OPS_MAX * OP_CHARS_MAX];
    const char *alphabet = arguments->alphabet;
    double begin = seconds_now();
    bool is_good;

    if (strcmp(alphabet, "plain") == 0)
        alphabet = alphabet_plain(base);
    else if (strcmp(alphabet, "faulty") == 0)
        alphabet = alphabet_faulty(base);
    else if (strcmp(alphabet, "bulk") == 0)
        alphabet = alphabet_bulk(base);
    if (alphabet == NULL)
        return true;
    cutter_init(&cutter, &world);
    cutter.reopen_share = arguments->share;
    cutter.is_process_only = arguments->is_process_only;
    is_good = sequences_run(&cutter, base, unit, alphabet, arguments->length, ops);
    printf("%s unit=%u length=%u: %s\n", base->name, unit, arguments->length,
           is_good ? "good" : cutter.found);
    print_figures(&cutter.figures, seconds_now() - begin);
    fflush(stdout);
    return is_good;
}

static int run_all(const struct arguments *arguments)
{
    bool is_good = arguments->base == NULL || base_find(arguments->base) != NULL;

    for (unsigned i = 0; i < bases_count; i++) {
        if (arguments->base != NULL && strcmp(arguments->base, bases[i].name) != 0)
            continue;
        if (arguments->unit != 4096)
            is_good &= run_all_on(&bases[i], 512, arguments);
        if (arguments->unit != 512 && !bases[i].is_512_only)
            is_good &= run_all_on(&bases[i], 4096, arguments);
    }
    return is_good ? 0 : 1;
}

/* For disks whose flush does nothing: at least the death of the process is survived. */
static int run_process(const struct arguments *arguments)
{
    struct arguments changed = *arguments;

    changed.is_process_only = true;
    changed.share = 0;
    return run_all(&changed);
}

static int run_one(const struct arguments *arguments)
{
    const struct base *base = arguments->base != NULL ? base_find(arguments->base) : NULL;
    bool is_good;

    if (base == NULL || arguments->ops == NULL)
        return usage();
    cutter_init(&cutter, &world);
    cutter.reopen_share = arguments->share;
    if (arguments->cut != NULL) {
        char *path;

        cutter.only_cut = (unsigned)strtoul(arguments->cut, &path, 10);
        cutter.only_path = *path == ':' ? path + 1 : path;
    }
    is_good = sequence_run(&cutter, base, arguments->unit != 0 ? arguments->unit : 512,
                           arguments->ops, arguments->cut != NULL);
    printf("%s %s: %s\n", base->name, arguments->ops, is_good ? "good" : cutter.found);
    print_figures(&cutter.figures, 1);
    return is_good ? 0 : 1;
}

static bool take_number(struct arguments *arguments, const char *name, const char *value)
{
    uint64_t number = strtoull(value, NULL, 0);

    if (strcmp(name, "--unit") == 0)
        arguments->unit = (unsigned)number;
    else if (strcmp(name, "--length") == 0)
        arguments->length = (unsigned)number;
    else if (strcmp(name, "--share") == 0)
        arguments->share = (unsigned)number;
    else if (strcmp(name, "--number") == 0)
        arguments->number = number;
    else if (strcmp(name, "--count") == 0)
        arguments->ops_count = number;
    else if (strcmp(name, "--cuts") == 0)
        arguments->cuts_count = number;
    else
        return false;
    return true;
}

static bool take_argument(struct arguments *arguments, const char *name, const char *value)
{
    if (strcmp(name, "--base") == 0)
        arguments->base = value;
    else if (strcmp(name, "--ops") == 0)
        arguments->ops = value;
    else if (strcmp(name, "--cut") == 0)
        arguments->cut = value;
    else if (strcmp(name, "--alphabet") == 0)
        arguments->alphabet = value;
    else if (strcmp(name, "--file") == 0)
        arguments->file = value;
    else if (strcmp(name, "--seed") == 0)
        arguments->seed = value;
    else
        return take_number(arguments, name, value);
    return true;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(const struct arguments *arguments);
    } commands[] = {
        {"all", run_all},         {"process", run_process},   {"one", run_one},
        {"seeds", command_seeds}, {"faults", command_faults}, {"random", command_random},
        {"agree", command_agree}, {"costs", command_costs},   {"prune", command_prune},
    };
    struct arguments arguments = {.length = 3, .share = 4, .alphabet = "plain"};

    if (argc < 2 || argc % 2 != 0)
        return usage();
    for (int i = 2; i < argc; i += 2) {
        if (!take_argument(&arguments, argv[i], argv[i + 1]))
            return usage();
    }
    if (arguments.seed != NULL && !choose_seed(arguments.seed))
        return usage();
    for (unsigned i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(&arguments);
    }
    return usage();
}
