/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* See blank.h. A table has a few places it may be remembered in; a new one takes the oldest's. */
#include "blank.h"

#include "bytes.h"
#include "seeded.h"

#define WAYS      4u
#define PART_BITS 7u /* a table has so many parts, to the power of two; none is below a sector */

static unsigned part_bits_of(const struct qc_image *image)
{
    unsigned cluster_bits = image->top.header.cluster_bits;

    return cluster_bits > PART_BITS + 9 ? cluster_bits - PART_BITS : 9;
}

/* The first of the places for a table. */
static struct qc_blank *places(const struct qc_image *image, uint64_t table_off)
{
    uint64_t mixed =
        (table_off >> image->top.header.cluster_bits) * UINT64_C(0x9e3779b97f4a7c15) >> 32;

    return &image->cache->blanks[mixed % (image->cache->blanks_count / WAYS) * WAYS];
}

static struct qc_blank *find(const struct qc_image *image, uint64_t host_off)
{
    uint64_t table_off = host_off & ~QC_U(image->top.header.cluster_bytes - 1);
    struct qc_blank *blank;

    /* Offset 0 is the header's: it stands for no table. */
    if (!image->has_blanks || table_off == 0)
        return NULL;
    blank = places(image, table_off);
    for (unsigned i = 0; i < WAYS; i++) {
        if (blank[i].table_off == table_off)
            return &blank[i];
    }
    return NULL;
}

void qc_blank_add(struct qc_image *image, uint64_t table_off)
{
    struct qc_blank *blank = places(image, table_off);

    qc_blank_forget(image, table_off);
    __builtin_memmove(blank + 1, blank, (WAYS - 1) * sizeof(*blank));
    *blank = (struct qc_blank){.table_off = table_off};
    image->has_blanks = true;
}

void qc_blank_written(struct qc_image *image, uint64_t host_off)
{
    struct qc_blank *blank = find(image, host_off);
    uint64_t part = (host_off & (image->top.header.cluster_bytes - 1)) >> part_bits_of(image);

    if (blank != NULL && !QC_SEED(stale_blank))
        blank->written[part / 64] |= UINT64_C(1) << part % 64;
}

void qc_blank_forget(struct qc_image *image, uint64_t table_off)
{
    struct qc_blank *blank = find(image, table_off);

    if (blank != NULL)
        blank->table_off = 0;
}

void qc_blank_forget_all(struct qc_image *image)
{
    for (uint32_t i = 0; i < image->cache->blanks_count && image->has_blanks; i++)
        image->cache->blanks[i].table_off = 0;
    image->has_blanks = false;
}

bool qc_blank_covers(const struct qc_image *image, uint64_t host_off, uint64_t len)
{
    const struct qc_blank *blank = find(image, host_off);
    uint64_t in_table = host_off & (image->top.header.cluster_bytes - 1);
    unsigned part_bits = part_bits_of(image);

    if (blank == NULL)
        return false;
    for (uint64_t part = in_table >> part_bits; part <= (in_table + len - 1) >> part_bits; part++) {
        if (blank->written[part / 64] >> part % 64 & 1)
            return false;
    }
    return true;
}
