/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Counts in a refcount block, for every width, every place in a block of 512 bytes and any content;
 * and the arithmetic of bytes.h on any numbers.
 *
 * Promises: nothing is read or written outside the block, no shift is too far, nothing overflows; a
 * count is never larger than its width allows.
 */
#include "eva.h"

#include "../../core/counts.c"

#define BLOCK_BYTES 512u

static void counts(unsigned order)
{
    uint8_t block[BLOCK_BYTES];
    uint64_t last = (BLOCK_BYTES * 8 >> order) - 1;
    uint64_t most = UINT64_MAX >> (64 - (1u << order));
    uint64_t index = eva_between(0, last), count;

    Frama_C_make_unknown((char *)block, sizeof(block));
    count = qc_count_load(block, index, order);
    /*@ assert count <= most; */
    qc_count_store(block, index, order, eva_between(0, most));
}

static void numbers(unsigned bits)
{
    uint64_t units = qc_units(eva_any64(), bits), most = (UINT64_MAX >> bits) + 1;

    /*@ assert units <= most; */
    (void)qc_is_inside(eva_any64(), eva_any64(), eva_any64());
}

int main(void)
{
    for (unsigned order = 0; order <= 6; order++)
        counts(order);
    for (unsigned bits = 1; bits <= 56; bits++)
        numbers(bits);
    return 0;
}
