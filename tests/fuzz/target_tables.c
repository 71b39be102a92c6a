/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Damaged tables under a good header: opened read-only, then read, mapped, checked and listed.
 */
#include "run.h"

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t len)
{
    run_reads(input, len);
    return 0;
}
