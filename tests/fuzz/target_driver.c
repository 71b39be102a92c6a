/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The whole engine: an image by a recipe, with or without damage, and all that can be done with it.
 */
#include "run.h"

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t len)
{
    run_all(input, len);
    return 0;
}
