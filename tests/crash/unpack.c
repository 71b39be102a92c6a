/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See unpack.h. The same few clusters are asked for in state after state: what was unpacked last is
 * kept under a hash of its bytes.
 */
#include "unpack.h"

#include <string.h>

#include "check.h"

#define KEPT_COUNT       64u
#define PACKED_BYTES_MAX (2u * CLUSTER_SECTORS_MAX * SECTOR)
#define LITERALS_COUNT   256u
#define LENGTH_CODES     29u
#define DISTANCE_CODES   30u

struct reader {
    const uint8_t *bytes;
    size_t bits, bits_max;
    bool is_bad;
};

struct writer {
    uint8_t *bytes;
    size_t count, max;
};

static unsigned take(struct reader *reader, unsigned width)
{
    unsigned value = 0;

    for (unsigned i = 0; i < width; i++, reader->bits++) {
        if (reader->bits >= reader->bits_max) {
            reader->is_bad = true;
            return 0;
        }
        value |= (reader->bytes[reader->bits / 8] >> reader->bits % 8 & 1u) << i;
    }
    return value;
}

static unsigned take_code(struct reader *reader, unsigned code, unsigned width)
{
    for (unsigned i = 0; i < width; i++)
        code = code << 1 | take(reader, 1);
    return code;
}

/* The next literal, end or length symbol of the fixed code. */
static unsigned take_symbol(struct reader *reader)
{
    unsigned code = take_code(reader, 0, 7);

    if (code < 0x18)
        return 256 + code;
    code = take_code(reader, code, 1);
    if (code < 0xc0)
        return code - 0x30;
    if (code < 0xc8)
        return 280 + code - 0xc0;
    return 144 + take_code(reader, code, 1) - 0x190;
}

/* Codes stand for ranges that, behind the first two steps of them, double with every step. */
static unsigned range_base(unsigned code, unsigned step, unsigned *ret_extra)
{
    unsigned group = code / step;

    *ret_extra = group == 0 ? 0 : group - 1;
    return group == 0 ? code : (step + code % step) << (group - 1);
}

static void copy_back(struct reader *reader, struct writer *writer, unsigned symbol)
{
    unsigned code = symbol - LITERALS_COUNT - 1, extra, len, distance;

    if (code >= LENGTH_CODES) {
        reader->is_bad = true;
        return;
    }
    len = 3 + range_base(code, 4, &extra);
    len = code == LENGTH_CODES - 1 ? 258 : len + take(reader, extra);
    code = take_code(reader, 0, 5);
    distance = 1 + range_base(code, 2, &extra);
    distance += take(reader, extra);
    if (code >= DISTANCE_CODES || distance > writer->count || len > writer->max - writer->count) {
        reader->is_bad = true;
        return;
    }
    for (unsigned i = 0; i < len; i++, writer->count++)
        writer->bytes[writer->count] = writer->bytes[writer->count - distance];
}

static void take_fixed(struct reader *reader, struct writer *writer)
{
    while (!reader->is_bad) {
        unsigned symbol = take_symbol(reader);

        if (symbol == LITERALS_COUNT)
            return;
        if (symbol > LITERALS_COUNT)
            copy_back(reader, writer, symbol);
        else if (writer->count < writer->max)
            writer->bytes[writer->count++] = (uint8_t)symbol;
        else
            reader->is_bad = true;
    }
}

static void take_stored(struct reader *reader, struct writer *writer)
{
    unsigned len, inverse;

    reader->bits = (reader->bits + 7) / 8 * 8;
    len = take(reader, 16);
    inverse = take(reader, 16);
    if (len != (~inverse & 0xffff) || len > writer->max - writer->count)
        reader->is_bad = true;
    for (unsigned i = 0; i < len && !reader->is_bad; i++)
        writer->bytes[writer->count++] = (uint8_t)take(reader, 8);
}

bool unpack(const uint8_t *bytes, size_t bytes_count, uint8_t *out, size_t out_bytes)
{
    struct reader reader = {.bytes = bytes, .bits_max = 8 * bytes_count};
    struct writer writer = {.bytes = out, .max = out_bytes};
    bool is_last = false;

    while (!reader.is_bad && !is_last) {
        unsigned kind;

        is_last = take(&reader, 1) == 1;
        kind = take(&reader, 2);
        if (kind == 0)
            take_stored(&reader, &writer);
        else if (kind == 1)
            take_fixed(&reader, &writer);
        else
            reader.is_bad = true;
    }
    return !reader.is_bad && writer.count == out_bytes;
}

static struct kept {
    uint64_t key;
    uint64_t hashes[CLUSTER_SECTORS_MAX];
} kept[KEPT_COUNT];

static void fill_kept(struct kept *place, struct view *view, uint64_t first, uint64_t end,
                      size_t cluster_bytes)
{
    static uint8_t packed[PACKED_BYTES_MAX], unpacked[CLUSTER_SECTORS_MAX * SECTOR];
    uint32_t unit_bytes = view->sim->unit_bytes;
    bool is_good;

    for (uint64_t off = first / SECTOR * SECTOR; off < end; off += SECTOR)
        memcpy(packed + (off - first / SECTOR * SECTOR),
               view_unit(view, (uint32_t)(off / unit_bytes)) + off % unit_bytes, SECTOR);
    is_good = unpack(packed + first % SECTOR, end - first, unpacked, cluster_bytes);
    for (size_t i = 0; i < cluster_bytes / SECTOR; i++)
        place->hashes[i] = is_good ? sim_hash_sector(unpacked + i * SECTOR) : 0;
}

uint64_t unpack_hash(struct view *view, uint64_t entry, unsigned cluster_bits, unsigned sector)
{
    uint64_t first, end, key = entry;
    struct kept *place;

    check_packed_range(entry, cluster_bits, &first, &end);
    if (end > view_size(view))
        end = view_size(view);
    if (first >= end)
        return 0;
    for (uint64_t off = first / SECTOR * SECTOR; off < end; off += SECTOR) {
        view_unit(view, (uint32_t)(off / view->sim->unit_bytes));
        key = (key ^ key >> 31 ^ view_sector_hash(view, off, 0)) * UINT64_C(0x9e3779b97f4a7c15);
    }
    key |= 1;
    place = &kept[(key >> 40) % KEPT_COUNT];
    if (place->key != key) {
        fill_kept(place, view, first, end, (size_t)1 << cluster_bits);
        place->key = key;
    }
    return place->hashes[sector];
}
