/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * What zlib and zstd take for a C library and for a configuration: the build puts this header in
 * front of their sources, the same for firmware and hosts, so that what is tested is what ships.
 *
 * Promises: they call nothing but the four functions below, and no allocator: memory that they ask
 * for behind our back is not there. Of equal choices the smaller one: each decoder once, in C.
 *
 * Left to others: how the decoders are called and which memory they get (decode.c).
 */
#ifndef QC_SHIMS_H
#define QC_SHIMS_H

#include <limits.h>
#include <stddef.h>
#include <stdint.h>

void *memcpy(void *restrict target, const void *restrict source, size_t len);
void *memmove(void *target, const void *source, size_t len);
void *memset(void *target, int value, size_t len);
int memcmp(const void *a, const void *b, size_t len);

/* zlib: no C library, no gzip header; its own memcpy goes byte by byte. */
#define Z_SOLO
#define NO_GZIP
#define HAVE_MEMCPY

/* zstd: its zstd_deps.h leaves out what is defined here. */
#define ZSTD_DEPS_COMMON
#define ZSTD_memcpy  __builtin_memcpy
#define ZSTD_memmove __builtin_memmove
#define ZSTD_memset  __builtin_memset
#define ZSTD_DEPS_MALLOC
#define ZSTD_malloc(len)        ((void)(len), (void *)0)
#define ZSTD_calloc(count, len) ((void)(count), (void)(len), (void *)0)
#define ZSTD_free(memory)       ((void)(memory))

/* General registers only, and no second copy for a processor found at run time. */
#define ZSTD_NO_INTRINSICS
#define DYNAMIC_BMI2 0

/* One of two ways to decode each, both for every stream: 27 KiB less, no more instructions. */
#define HUF_FORCE_DECOMPRESS_X1
#define ZSTD_FORCE_DECOMPRESS_SEQUENCES_SHORT

/* The checksum of a frame without the rest of xxHash, which wants assert.h. */
#define XXH_NO_XXH3
#define XXH_STATIC_ASSERT_WITH_MESSAGE(truth, text) _Static_assert(truth, text)
#define XXH_STATIC_ASSERT(truth)                    _Static_assert(truth, #truth)

/* A shared object keeps both to itself: its host may have others of the same name. */
#define ZSTDLIB_VISIBLE
#define ZSTDERRORLIB_VISIBLE

#endif
