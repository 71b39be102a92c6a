/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Finds the named bugs of core/seeded.h: sequences grow until a cut shows one.
 *
 * Only what a cut shows counts: reads that are wrong while the power stays on, and leaks at a clean
 * end, are not looked at, unless nothing else was found within LENGTH_CUT operations; after that
 * cuts are looked at once more, in longer sequences. The engine without the bug must then pass the
 * very sequence.
 */
#include <stdio.h>
#include <string.h>

#include "../../core/seeded.h"
#include "commands.h"
#include "sequences.h"

#define LENGTH_CUT   3u
#define LENGTH_OTHER 2u /* where a cut alone does not tell */
#define LENGTH_MAX   4u /* a cut again */

static const char *const names[] = {"none",
#define NAME(name, what) #name,
                                    QC_SEEDS(NAME)
#undef NAME
};

bool choose_seed(const char *name)
{
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(names[i], name) == 0) {
            qc_seed = (enum qc_seed_number)i;
            return true;
        }
    }
    return false;
}

struct find {
    const struct base *base;
    uint32_t unit_bytes;
    char ops[SEQUENCE_OPS_MAX * OP_CHARS_MAX];
    char found[sizeof(cutter.found)];
};

/* How a bug may show, the most telling first. */
enum means { BY_CUT, BY_REOPENING, WITHOUT_CUT };

static const char *const means_names[] = {"by a cut", "by opening what a cut left",
                                          "without a cut"};

static bool find_in(const struct base *base, const char *alphabet, unsigned length,
                    enum means means, struct find *find)
{
    if (alphabet == NULL)
        return false;
    cutter_init(&cutter, &world);
    cutter.reopen_share = means == BY_REOPENING ? 1 : 0;
    cutter.is_crash_only = means != WITHOUT_CUT;
    world.is_blind = means != WITHOUT_CUT;
    if (sequences_run(&cutter, base, 512, alphabet, length, find->ops))
        return false;
    find->base = base;
    find->unit_bytes = 512;
    memcpy(find->found, cutter.found, sizeof(find->found));
    return true;
}

static bool find_seed(enum means means, unsigned from, unsigned to, struct find *find)
{
    for (unsigned length = from; length <= to; length++) {
        for (unsigned i = 0; i < bases_count; i++) {
            if (find_in(&bases[i], alphabet_plain(&bases[i]), length, means, find) ||
                find_in(&bases[i], alphabet_faulty(&bases[i]), length, means, find) ||
                find_in(&bases[i], alphabet_bulk(&bases[i]), length, means, find))
                return true;
        }
    }
    return false;
}

static bool passes_unseeded(const struct find *find)
{
    enum qc_seed_number chosen = qc_seed;
    bool is_good;

    qc_seed = QC_SEED_none;
    world.is_blind = false;
    cutter_init(&cutter, &world);
    cutter.reopen_share = 1;
    is_good = sequence_run(&cutter, find->base, find->unit_bytes, find->ops, false);
    qc_seed = chosen;
    return is_good;
}

static bool run_seed(const char *name)
{
    static const struct {
        enum means means;
        unsigned from, to;
    } tries[] = {{BY_CUT, 1, LENGTH_CUT},
                 {BY_REOPENING, 1, LENGTH_OTHER},
                 {WITHOUT_CUT, 1, LENGTH_OTHER},
                 {BY_CUT, LENGTH_CUT + 1, LENGTH_MAX}};
    const unsigned tries_count = sizeof(tries) / sizeof(tries[0]);
    static struct find find; /* too large for a frame */
    unsigned i = 0;

    choose_seed(name);
    while (i < tries_count && !find_seed(tries[i].means, tries[i].from, tries[i].to, &find))
        i++;
    if (i == tries_count) {
        printf("seed %s: not found\n", name);
        return false;
    }
    if (!passes_unseeded(&find)) {
        printf("seed %s: the engine without it breaks too: %s\n", name, cutter.found);
        return false;
    }
    printf("seed %s: found %s, base %s, unit %u, sequence %s; %s", name,
           means_names[tries[i].means], find.base->name, find.unit_bytes, find.ops, find.found);
    return true;
}

int command_seeds(const struct arguments *arguments)
{
    bool is_good = true;

    for (unsigned i = QC_SEED_no_flush1; i < sizeof(names) / sizeof(names[0]); i++) {
        if (arguments->seed != NULL && strcmp(arguments->seed, names[i]) != 0)
            continue;
        is_good &= run_seed(names[i]);
        fflush(stdout);
    }
    return is_good ? 0 : 1;
}
