/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See builder.h. Compressed bytes are one word repeated for each sector, so that several clusters
 * find room in one host cluster.
 */
#include "builder.h"

#include <string.h>

#include "../sim/deflate.h"

#define HEADER_BYTES           104u
#define FORMAT_NAME            0xe2792acau
#define DATA_FILE_NAME         0x44415441u
#define INCOMPATIBLE_DATA_FILE 4u
#define INCOMPATIBLE_EXTENDED  16u
#define AUTOCLEAR_RAW_DATA     2u
#define BLOCKS_AT              20u /* refcount blocks but the first */
#define PACKED_MAX             (CLUSTER_SECTORS_MAX * DEFLATE_REPEAT_MAX)
#define SECTOR_BITS            9u
#define PACKED_TOP_BITS        62u

void put_be(struct sim_disk *sim, uint64_t host_off, uint64_t value, unsigned bytes_count)
{
    uint8_t bytes[8];

    for (unsigned i = 0; i < bytes_count; i++)
        bytes[i] = (uint8_t)(value >> (8 * (bytes_count - 1 - i)));
    sim_put(sim, host_off, bytes, bytes_count);
}

uint64_t off_of(const struct builder *b, uint32_t cluster)
{
    return (uint64_t)cluster << b->cluster_bits;
}

void use(struct builder *b, uint32_t cluster)
{
    b->is_used[cluster] = true;
    b->counts[cluster]++;
}

unsigned l1_index(unsigned digit)
{
    return digit < 4 ? 0 : digit < 6 ? 1 : digit - 4;
}

unsigned l2_index(unsigned digit)
{
    return digit < 4 ? digit : digit < 6 ? digit - 4 : 0;
}

uint64_t digit_guest_off(unsigned digit, unsigned cluster_bits, bool is_extended)
{
    unsigned entry_bits = is_extended ? 4 : 3;

    return (((uint64_t)l1_index(digit) << (cluster_bits - entry_bits)) + l2_index(digit))
           << cluster_bits;
}

static uint64_t guest_off_of(const struct builder *b, unsigned digit)
{
    return digit_guest_off(digit, b->cluster_bits, b->is_extended);
}

static uint64_t entry_off(const struct builder *b, uint32_t l2, unsigned digit)
{
    return off_of(b, l2) + l2_index(digit) * (b->is_extended ? 16u : 8u);
}

void put_l1(struct builder *b, uint32_t l1, unsigned index, uint32_t l2, uint64_t flags)
{
    put_be(b->sim, off_of(b, l1) + index * 8, off_of(b, l2) | flags, 8);
    use(b, l2);
}

void put_bits(struct builder *b, uint32_t l2, unsigned digit, uint64_t bits)
{
    put_be(b->sim, entry_off(b, l2, digit) + 8, bits, 8);
}

void put_entry(struct builder *b, uint32_t l2, unsigned digit, uint32_t cluster, uint64_t flags)
{
    uint64_t host_off = off_of(b, cluster);

    if (b->has_data_file && cluster != 0)
        host_off = guest_off_of(b, digit);
    else if (cluster != 0)
        use(b, cluster);
    put_be(b->sim, entry_off(b, l2, digit), host_off | flags, 8);
}

void put_sectors(struct builder *b, unsigned digit, uint64_t host_off, unsigned from, unsigned to)
{
    uint8_t bytes[SECTOR];

    for (unsigned sector = from; sector < to; sector++) {
        oracle_fill(bytes, digit, sector, b->data_version);
        sim_put(b->sim, host_off + sector * SECTOR, bytes, SECTOR);
        if (b->oracle != NULL)
            oracle_set(b->oracle, digit, sector, b->data_version);
    }
}

void put_data(struct builder *b, unsigned digit, uint32_t cluster)
{
    uint64_t host_off = off_of(b, cluster);

    if (b->has_data_file)
        host_off = sim_data_off(b->sim, guest_off_of(b, digit));
    put_sectors(b, digit, host_off, 0, b->cluster_bytes / SECTOR);
}

void add_data(struct builder *b, uint32_t l2, unsigned digit, uint32_t cluster)
{
    put_entry(b, l2, digit, cluster, ENTRY_COPIED);
    if (b->is_extended)
        put_bits(b, l2, digit, SUBS_ALL);
    put_data(b, digit, cluster);
}

/* One more reference to a host cluster that packed bytes touch. */
static void use_packed(struct builder *b, uint32_t cluster)
{
    uint8_t poison[SECTOR];

    for (uint32_t off = 0; off < b->cluster_bytes && !b->is_used[cluster]; off += SECTOR) {
        sim_fill_poison(poison, off_of(b, cluster) + off);
        sim_put(b->sim, off_of(b, cluster) + off, poison, SECTOR);
    }
    use(b, cluster);
}

uint64_t add_packed(struct builder *b, uint32_t l2, unsigned digit, uint64_t host_off)
{
    unsigned sectors = b->cluster_bytes / SECTOR;
    uint8_t bytes[PACKED_MAX];
    uint64_t more, end;
    size_t len = 0;

    for (unsigned sector = 0; sector < sectors; sector++) {
        uint64_t word = oracle_packed_word(digit, sector, b->data_version);

        len += deflate_repeat(bytes + len, word, SECTOR, sector + 1 == sectors);
        if (b->oracle != NULL)
            oracle_set_packed(b->oracle, digit, sector, b->data_version);
    }
    end = host_off + len;
    for (uint64_t cluster = host_off >> b->cluster_bits; cluster <= (end - 1) >> b->cluster_bits;
         cluster++)
        use_packed(b, (uint32_t)cluster);
    sim_put(b->sim, host_off, bytes, len);
    more = ((end - 1) >> SECTOR_BITS) - (host_off >> SECTOR_BITS);
    put_be(b->sim, entry_off(b, l2, digit),
           ENTRY_COMPRESSED | more << (PACKED_TOP_BITS - (b->cluster_bits - 8)) | host_off, 8);
    return end;
}

/* What an image says of the one below: a name that nobody looks up here, and its format. */
static void put_below(struct builder *b)
{
    static const char name[] = "below";
    uint64_t extension_off = b->version >= 3 ? HEADER_BYTES : 72;

    put_be(b->sim, extension_off, FORMAT_NAME, 4);
    put_be(b->sim, extension_off + 4, strlen(b->below), 4);
    sim_put(b->sim, extension_off + 8, b->below, strlen(b->below));
    put_be(b->sim, 8, extension_off + 24, 8); /* a format's name has at most 8 bytes here */
    put_be(b->sim, 16, strlen(name), 4);
    sim_put(b->sim, extension_off + 24, name, strlen(name));
}

static void put_data_file(struct builder *b)
{
    static const char name[] = "data";

    put_be(b->sim, HEADER_BYTES, DATA_FILE_NAME, 4);
    put_be(b->sim, HEADER_BYTES + 4, strlen(name), 4);
    sim_put(b->sim, HEADER_BYTES + 8, name, strlen(name));
    if (b->is_raw_data)
        put_be(b->sim, 88, AUTOCLEAR_RAW_DATA, 8);
}

void put_header(struct builder *b)
{
    uint64_t incompatible = 0;

    sim_put(b->sim, 0, "QFI\xfb", 4);
    put_be(b->sim, 4, b->version, 4);
    put_be(b->sim, 20, b->cluster_bits, 4);
    put_be(b->sim, 24, b->guest_bytes, 8);
    put_be(b->sim, 36, 3, 4);
    put_be(b->sim, 40, off_of(b, AT_L1), 8);
    put_be(b->sim, 48, off_of(b, AT_REFTABLE), 8);
    put_be(b->sim, 56, 1, 4);
    if (b->version >= 3) {
        if (b->has_data_file)
            incompatible |= INCOMPATIBLE_DATA_FILE;
        if (b->is_extended)
            incompatible |= INCOMPATIBLE_EXTENDED;
        put_be(b->sim, 72, incompatible, 8);
        put_be(b->sim, 96, b->refcount_order, 4);
        put_be(b->sim, 100, HEADER_BYTES, 4);
    }
    if (b->below != NULL)
        put_below(b);
    if (b->has_data_file)
        put_data_file(b);
    put_be(b->sim, off_of(b, AT_REFTABLE), off_of(b, AT_BLOCK), 8);
    for (uint32_t cluster = AT_HEADER; cluster <= AT_L1; cluster++)
        use(b, cluster);
}

void put_counts(struct builder *b)
{
    unsigned order = b->refcount_order;
    uint32_t per_block = b->cluster_bytes * 8u >> order;

    for (uint32_t cluster = 0; cluster < b->clusters; cluster++) {
        uint32_t block = cluster / per_block == 0 ? AT_BLOCK : BLOCKS_AT + cluster / per_block;
        uint64_t host_off = off_of(b, block) + ((uint64_t)(cluster % per_block) << order >> 3);

        if (b->counts[cluster] == 0)
            continue;
        if (order >= 3) {
            put_be(b->sim, host_off, b->counts[cluster], 1u << (order - 3));
        } else {
            unsigned shift = (cluster << order) & 7;
            uint8_t byte = b->sim->durable[host_off] | (uint8_t)(b->counts[cluster] << shift);

            sim_put(b->sim, host_off, &byte, 1);
        }
    }
}

void put_poison(struct builder *b)
{
    uint8_t poison[SECTOR];

    for (uint64_t off = 0; off < b->sim->disk.size_bytes; off += SECTOR) {
        if (b->is_used[off >> b->cluster_bits])
            continue;
        sim_fill_poison(poison, off);
        sim_put(b->sim, off, poison, SECTOR);
    }
}
