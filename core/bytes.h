/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Bytes and numbers: what every file of the core needs and no header of a freestanding compiler
 * has.
 *
 * Promises: loads work at any alignment; arithmetic here never overflows silently.
 */
#ifndef QC_BYTES_H
#define QC_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The image's numbers are big endian. */
static inline uint32_t qc_be32(const void *bytes)
{
    uint32_t value;
    __builtin_memcpy(&value, bytes, sizeof(value));
    return __builtin_bswap32(value);
}

static inline uint64_t qc_be64(const void *bytes)
{
    uint64_t value;
    __builtin_memcpy(&value, bytes, sizeof(value));
    return __builtin_bswap64(value);
}

static inline void qc_put_be32(void *bytes, uint32_t value)
{
    value = __builtin_bswap32(value);
    __builtin_memcpy(bytes, &value, sizeof(value));
}

static inline void qc_put_be64(void *bytes, uint64_t value)
{
    value = __builtin_bswap64(value);
    __builtin_memcpy(bytes, &value, sizeof(value));
}

static inline uint64_t qc_min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* unit is a power of two. */
static inline bool qc_is_aligned(uint64_t value, uint64_t unit)
{
    return (value & (unit - 1)) == 0;
}

/* Whether [off, off + len) lies inside [0, end), without ever computing off + len. */
static inline bool qc_is_inside(uint64_t off, uint64_t len, uint64_t end)
{
    return len <= end && off <= end - len;
}

/* How many units of a power of two cover value. */
static inline uint64_t qc_units(uint64_t value, unsigned unit_bits)
{
    return (value >> unit_bits) + !qc_is_aligned(value, UINT64_C(1) << unit_bits);
}

#endif
