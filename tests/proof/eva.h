/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * What the proofs in this folder stand on: the compiler's builtins in C, because the analyzer knows
 * none of them, and values that may be anything.
 *
 * Promises: each says exactly what the builtin does. Where a proof takes the place of a function of
 * the core, what it answers is the widest that the function's own header allows.
 *
 * Left to others: the core's C files are included as they are, static functions and all; what the
 * analyzer is asked to look for stands in test_eva.py.
 */
#ifndef PROOF_EVA_H
#define PROOF_EVA_H

#include <__fc_builtin.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define _Alignas(bytes) /* of which the analyzer knows nothing */
#define __builtin_memcpy  memcpy
#define __builtin_memset  memset
#define __builtin_bswap32 eva_bswap32
#define __builtin_bswap64 eva_bswap64

static inline uint32_t eva_bswap32(uint32_t value)
{
    return (value & 0xff) << 24 | (value & 0xff00) << 8 | (value >> 8 & 0xff00) | value >> 24;
}

static inline uint64_t eva_bswap64(uint64_t value)
{
    return (uint64_t)eva_bswap32((uint32_t)value) << 32 | eva_bswap32((uint32_t)(value >> 32));
}

static inline uint64_t eva_any64(void)
{
    return Frama_C_unsigned_long_long_interval(0, UINT64_MAX);
}

static inline uint64_t eva_between(uint64_t least, uint64_t most)
{
    return Frama_C_unsigned_long_long_interval(least, most);
}

static inline bool eva_either(void)
{
    return Frama_C_interval(0, 1);
}

#endif
