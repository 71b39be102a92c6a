/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The four functions that a C compiler may call without being asked.
 *
 * Promises: C11 7.24 semantics for all sizes; eight bytes a step, because a copy of a cluster is
 * the longest loop of the driver. Nothing here becomes a call of itself: -ffreestanding keeps the
 * compiler from recognising the loops.
 */
#include <stddef.h>
#include <stdint.h>

void *memcpy(void *restrict target, const void *restrict source, size_t len);
void *memmove(void *target, const void *source, size_t len);
void *memset(void *target, int value, size_t len);
int memcmp(const void *a, const void *b, size_t len);

/* One load or store each; the types allow any alignment and any object. */
typedef uint64_t __attribute__((aligned(1), may_alias)) word;

void *memcpy(void *restrict target, const void *restrict source, size_t len)
{
    uint8_t *out = target;
    const uint8_t *in = source;

    for (; len >= sizeof(word); len -= sizeof(word)) {
        *(word *)(void *)out = *(const word *)(const void *)in;
        out += sizeof(word);
        in += sizeof(word);
    }
    for (; len > 0; len--)
        *out++ = *in++;
    return target;
}

void *memmove(void *target, const void *source, size_t len)
{
    uint8_t *out = target;
    const uint8_t *in = source;

    /* Forwards in words is safe when no step writes what a later one reads. */
    if ((uintptr_t)out <= (uintptr_t)in || (uintptr_t)out - (uintptr_t)in >= len) {
        for (; len >= sizeof(word); len -= sizeof(word)) {
            *(word *)(void *)out = *(const word *)(const void *)in;
            out += sizeof(word);
            in += sizeof(word);
        }
        for (; len > 0; len--)
            *out++ = *in++;
        return target;
    }
    while (len > 0) {
        len--;
        out[len] = in[len];
    }
    return target;
}

void *memset(void *target, int value, size_t len)
{
    uint8_t *out = target;
    word pattern = UINT64_C(0x0101010101010101) * (uint8_t)value;

    for (; len >= sizeof(word); len -= sizeof(word)) {
        *(word *)(void *)out = pattern;
        out += sizeof(word);
    }
    for (; len > 0; len--)
        *out++ = (uint8_t)value;
    return target;
}

int memcmp(const void *a, const void *b, size_t len)
{
    const uint8_t *left = a, *right = b;

    for (size_t i = 0; i < len; i++) {
        if (left[i] != right[i])
            return left[i] < right[i] ? -1 : 1;
    }
    return 0;
}
