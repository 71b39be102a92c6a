/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See recipe.h: from the input's bytes to the recipe, and the damage that it does.
 */
#include "recipe.h"

#include "../../core/bytes.h"
#include "../../core/map.h"

#include <string.h>

static const uint8_t cluster_sizes[8] = {9, 9, 10, 12, 12, 14, 16, 9};

static unsigned bits_of(unsigned byte, unsigned from, unsigned width)
{
    return byte >> from & ((1u << width) - 1);
}

static void parse_features(struct recipe *recipe, const uint8_t *shape)
{
    bool is_v3 = recipe->version == 3;

    recipe->is_extended = is_v3 && recipe->cluster_bits >= 14 && bits_of(shape[2], 0, 1);
    recipe->has_data_file = is_v3 && bits_of(shape[2], 1, 2) == 1;
    recipe->has_below = bits_of(shape[2], 3, 1);
    recipe->is_zstd = is_v3 && !recipe->has_data_file && bits_of(shape[2], 4, 1);
    recipe->is_dirty = is_v3 && bits_of(shape[2], 5, 3) == 1;
    recipe->is_corrupt = is_v3 && bits_of(shape[2], 5, 3) == 2;
    recipe->has_autoclear = is_v3 && bits_of(shape[2], 5, 3) == 3;
    recipe->below_kind = bits_of(shape[3], 6, 2) % 3;
}

static void parse_shape(struct recipe *recipe, const uint8_t *shape)
{
    recipe->cluster_bits = cluster_sizes[bits_of(shape[0], 0, 3)];
    recipe->version = bits_of(shape[0], 3, 2) == 3 ? 2 : 3;
    recipe->refcount_order = recipe->version == 3 ? (4 + bits_of(shape[1], 0, 3)) % 7 : 4;
    parse_features(recipe, shape);
    recipe->windows = 1 + bits_of(shape[3], 0, recipe->cluster_bits < 14 ? 2 : 1);
    recipe->tail_sectors = bits_of(shape[3], 2, 3);
    recipe->snapshots_count = bits_of(shape[4], 0, 2);
    recipe->spare_clusters = bits_of(shape[4], 2, 6);
    if (recipe->has_data_file || recipe->refcount_order == 0)
        recipe->snapshots_count = 0;
    if (recipe->refcount_order == 1 && recipe->snapshots_count > 2)
        recipe->snapshots_count = 2; /* a count is 3 at most */
    recipe->is_readonly = bits_of(shape[5], 0, 3) == 7;
    recipe->is_write_through = bits_of(shape[5], 3, 2) == 3;
    recipe->is_for_check = bits_of(shape[5], 5, 2) == 3;
    recipe->can_grow = bits_of(shape[6], 0, 1) == 0;
    recipe->can_trim = bits_of(shape[6], 1, 1) == 0;
    recipe->is_backing_off = bits_of(shape[6], 2, 3) == 7;
    recipe->is_snapshot_shown = recipe->snapshots_count > 0 && bits_of(shape[6], 5, 3) == 7;
    recipe->pool_pages = 16 + bits_of(shape[7], 0, 4) * 4;
    recipe->has_large_blocks = bits_of(shape[7], 4, 3) == 7 && recipe->cluster_bits >= 12;
}

void recipe_parse(struct recipe *recipe, const uint8_t *input, size_t len)
{
    uint8_t shape[RECIPE_SHAPE_BYTES] = {0};
    size_t off = RECIPE_SHAPE_BYTES;

    memset(recipe, 0, sizeof(*recipe));
    memcpy(shape, input, len < sizeof(shape) ? len : sizeof(shape));
    parse_shape(recipe, shape);
    for (; off + RECIPE_ITEM_BYTES <= len && recipe->items_count < RECIPE_ITEMS_MAX;
         off += RECIPE_ITEM_BYTES) {
        struct recipe_item *item = &recipe->items[recipe->items_count++];
        const uint8_t *bytes = input + off;

        item->kind = bytes[0] % RECIPE_KINDS;
        item->a = bytes[1];
        item->b = bytes[2] | (unsigned)bytes[3] << 8;
        item->c = bytes[4] | (uint32_t)bytes[5] << 8 | (uint32_t)bytes[6] << 16 |
                  (uint32_t)bytes[7] << 24;
        recipe->is_damaged |= item->kind >= RECIPE_POKE && item->kind <= RECIPE_CUT;
    }
}

uint64_t digit_off(const struct layout *layout, unsigned digit)
{
    return ((uint64_t)(digit / FUZZ_WINDOW_DIGITS) << layout->reach_bits) +
           ((uint64_t)(digit % FUZZ_WINDOW_DIGITS) << layout->cluster_bits);
}

void layout_set_count(const struct layout *layout, uint8_t *bytes, uint64_t cluster, uint64_t count)
{
    unsigned order = layout->refcount_order;
    uint64_t per_block = (UINT64_C(8) << layout->cluster_bits) >> order;
    uint64_t in_block = cluster % per_block;
    uint8_t *block;

    if (cluster / per_block >= layout->blocks_count)
        return;
    block = bytes + layout->first_block_off + (cluster / per_block << layout->cluster_bits);
    if (order >= 3) {
        for (unsigned width = 1u << order >> 3, i = 0; i < width; i++)
            block[in_block * width + i] = (uint8_t)(count >> 8 * (width - 1 - i) & 0xff);
    } else {
        unsigned width = 1u << order, shift = (unsigned)(in_block << order & 7);
        unsigned mask = (1u << width) - 1;

        block += in_block << order >> 3;
        *block = (uint8_t)((*block & ~(mask << shift)) | ((unsigned)count & mask) << shift);
    }
}

/* ---- damage ------------------------------------------------------------------------------- */

/* The table that an item pokes; its size in words. */
static uint64_t table_of(const struct layout *layout, const struct recipe_item *item,
                         uint64_t host_bytes, uint64_t *ret_words)
{
    uint64_t cluster_words = UINT64_C(1) << layout->cluster_bits >> 3;

    *ret_words = cluster_words;
    switch (item->a & 15) {
    case 0:
        return layout->reftable_off;
    case 1:
        *ret_words = cluster_words * layout->blocks_count;
        return layout->first_block_off;
    case 2:
    case 3:
        *ret_words = layout->l1_entries;
        return layout->l1_off;
    case 4:
    case 5:
        *ret_words = 10 * 3;
        return layout->snapshots_off;
    case 6:
        *ret_words = layout->l1_entries;
        return layout->snapshot_l1_off[item->c % RECIPE_SNAPSHOTS];
    case 7: /* anything but the header's fixed part */
        *ret_words = host_bytes / 8 - QC_HEADER_BYTES_MAX / 8;
        return QC_HEADER_BYTES_MAX;
    default:
        return layout->l2_off[item->a & 3];
    }
}

static uint64_t place_of(const struct layout *layout, uint32_t number, uint64_t host_bytes)
{
    const uint64_t places[8] = {0,
                                layout->reftable_off,
                                layout->first_block_off,
                                layout->l1_off,
                                layout->l2_off[0],
                                layout->snapshots_off,
                                layout->snapshot_l1_off[0],
                                host_bytes};

    return places[number % 8];
}

static uint64_t value_of(const struct layout *layout, const struct recipe_item *item, uint64_t old,
                         uint64_t host_bytes)
{
    uint64_t cluster = (item->c % ((host_bytes >> layout->cluster_bits) + 2))
                       << layout->cluster_bits;

    switch (item->a >> 4) {
    case 0:
        return 0;
    case 1:
    case 2:
        return cluster | QC_ENTRY_COPIED;
    case 3:
        return cluster;
    case 4:
        return cluster | QC_ENTRY_ZERO;
    case 5:
        return QC_ENTRY_COMPRESSED | item->c % (host_bytes + 512) |
               (uint64_t)(item->b >> 8 & 3) << (62 - (layout->cluster_bits - 8));
    case 6:
    case 7:
        return old ^ UINT64_C(1) << (item->c & 63);
    case 8:
        return (uint64_t)item->c << 9 | QC_ENTRY_COPIED;
    case 9:
        return place_of(layout, item->c, host_bytes);
    case 10:
        return place_of(layout, item->c, host_bytes) | QC_ENTRY_COPIED;
    case 11:
        return UINT64_MAX >> (item->c & 63);
    case 12:
        return (uint64_t)item->c << 32;
    case 13:
        return old ^ ((uint64_t)item->c << (item->b >> 8 & 31));
    case 14:
        return (uint64_t)item->c << 32 | (uint32_t)~item->c;
    default:
        return cluster | QC_ENTRY_ZERO | QC_ENTRY_COPIED;
    }
}

static void poke(const struct layout *layout, const struct recipe_item *item,
                 struct fuzz_disk *fuzz)
{
    uint64_t words, host_bytes = fuzz->disk.size_bytes;
    uint64_t table_off = table_of(layout, item, host_bytes, &words);
    uint64_t index = (item->b & 0x8000) != 0 ? item->b & 0x7fff : item->b & 15;
    uint8_t *word;

    if (table_off == 0 || words == 0)
        return;
    if ((item->a & 15) == 7)
        index = item->c >> 8;
    word = fuzz->bytes + table_off + index % words * 8;
    qc_put_be64(word, value_of(layout, item, qc_be64(word), host_bytes));
}

void recipe_damage(const struct recipe *recipe, const struct layout *layout, struct fuzz_disk *fuzz)
{
    for (unsigned i = 0; i < recipe->items_count; i++) {
        const struct recipe_item *item = &recipe->items[i];
        uint64_t host_bytes = fuzz->disk.size_bytes;

        if (item->kind == RECIPE_POKE)
            poke(layout, item, fuzz);
        else if (item->kind == RECIPE_COUNT)
            layout_set_count(layout, fuzz->bytes, item->b % ((host_bytes >> 9) + 2), item->c);
        else if (item->kind == RECIPE_BYTE)
            fuzz->bytes[item->c % host_bytes] = (uint8_t)item->a;
        else if (item->kind == RECIPE_CUT && host_bytes > (item->b & 255u) * QC_SECTOR_BYTES * 2)
            fuzz->disk.size_bytes -= (uint64_t)(item->b & 255u) * QC_SECTOR_BYTES;
    }
}
