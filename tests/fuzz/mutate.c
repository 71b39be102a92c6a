/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Mutations that know recipes (recipe.h): items are put in, taken out, swapped and changed by
 * field, so that the others keep their places; one time in four libFuzzer's own are used.
 *
 * Damage is rare among the items that are made: an image with much of it ends at its first check.
 */
#include "recipe.h"

#include <string.h>

size_t LLVMFuzzerMutate(uint8_t *data, size_t len, size_t len_max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t len, size_t len_max, unsigned seed);

static uint64_t state;

static uint32_t draw(uint32_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 11 & UINT32_MAX) % below;
}

static void make_item(uint8_t *item)
{
    unsigned kind = draw(RECIPE_KINDS);

    if (kind >= RECIPE_POKE && kind <= RECIPE_CUT && draw(3) > 0)
        kind = RECIPE_WRITE;
    item[0] = (uint8_t)kind;
    for (unsigned i = 1; i < RECIPE_ITEM_BYTES; i++)
        item[i] = (uint8_t)(draw(3) == 0 ? 0 : draw(256));
}

static size_t insert(uint8_t *data, size_t len, size_t len_max)
{
    size_t items = (len - RECIPE_SHAPE_BYTES) / RECIPE_ITEM_BYTES;
    uint8_t *place = data + RECIPE_SHAPE_BYTES + draw((uint32_t)items + 1) * RECIPE_ITEM_BYTES;

    if (len + RECIPE_ITEM_BYTES > len_max || items >= RECIPE_ITEMS_MAX)
        return len;
    memmove(place + RECIPE_ITEM_BYTES, place, len - (size_t)(place - data));
    make_item(place);
    if (items > 0 && draw(4) == 0) /* one that is there already, again */
        memcpy(place, data + RECIPE_SHAPE_BYTES + draw((uint32_t)items) * RECIPE_ITEM_BYTES,
               RECIPE_ITEM_BYTES);
    return len + RECIPE_ITEM_BYTES;
}

static size_t mutate_items(uint8_t *data, size_t len, size_t len_max)
{
    uint32_t items = (uint32_t)((len - RECIPE_SHAPE_BYTES) / RECIPE_ITEM_BYTES);
    uint8_t *first = data + RECIPE_SHAPE_BYTES, kept[RECIPE_ITEM_BYTES];
    uint8_t *one, *other;

    if (items == 0)
        return insert(data, len, len_max);
    one = first + draw(items) * RECIPE_ITEM_BYTES;
    other = first + draw(items) * RECIPE_ITEM_BYTES;
    switch (draw(8)) {
    case 0: /* taken out */
        memmove(one, one + RECIPE_ITEM_BYTES, len - (size_t)(one - data) - RECIPE_ITEM_BYTES);
        return len - RECIPE_ITEM_BYTES;
    case 1:
        memcpy(kept, one, sizeof(kept));
        memcpy(one, other, sizeof(kept));
        memcpy(other, kept, sizeof(kept));
        return len;
    case 2:
        make_item(one);
        return len;
    case 3:
        one[1 + draw(RECIPE_ITEM_BYTES - 1)] = (uint8_t)draw(256);
        return len;
    case 4: /* the place of another */
        memcpy(one + 1, other + 1, 3);
        return len;
    default:
        return insert(data, len, len_max);
    }
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t len, size_t len_max, unsigned seed)
{
    state = ((uint64_t)seed << 32 | seed) ^ UINT64_C(0x1234567887654321);
    if (len < RECIPE_SHAPE_BYTES || len_max < RECIPE_SHAPE_BYTES || draw(4) == 0)
        return LLVMFuzzerMutate(data, len, len_max);
    for (unsigned i = 0; i < 1 + draw(3); i++) {
        if (draw(8) == 0)
            data[draw(RECIPE_SHAPE_BYTES)] = (uint8_t)draw(256);
        else
            len = mutate_items(data, len, len_max);
    }
    return len;
}
