/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The named bug of core/seeded.h that QC_FUZZ_SEED in the environment asks for is built in: so
 * tests see that the oracles find it. A name that is none ends the process.
 */
#include "disk.h"

#include "../../core/seeded.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);

enum qc_seed_number qc_seed;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static const char *const names[] = {"none",
#define NAME(name, what) #name,
                                        QC_SEEDS(NAME)
#undef NAME
    };
    const char *wanted = getenv("QC_FUZZ_SEED");
    unsigned i = 0;

    (void)argc;
    (void)argv;
    while (wanted != NULL && strcmp(names[i], wanted) != 0) {
        if (++i == sizeof(names) / sizeof(names[0]))
            fuzz_fail("no bug is named %s", wanted);
    }
    qc_seed = (enum qc_seed_number)i;
    return 0;
}
