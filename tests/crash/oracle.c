/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See oracle.h. Lists are short: a flush empties them, and sequences between flushes are too.
 */
#include "oracle.h"

#include <string.h>

#include "../sim/sim.h"

uint64_t oracle_fill(uint8_t *bytes, unsigned digit, unsigned sector, unsigned version)
{
    uint64_t word = (uint64_t)digit << 40 | (uint64_t)sector << 32 | version;

    for (unsigned i = 0; i < SECTOR; i += 8) {
        uint64_t value = version == 0 ? 0 : (word + i) * UINT64_C(0x9e3779b97f4a7c15) | 0xff;

        memcpy(bytes + i, &value, 8);
    }
    return sim_hash_sector(bytes);
}

uint64_t oracle_packed_word(unsigned digit, unsigned sector, unsigned version)
{
    uint8_t bytes[SECTOR];
    uint64_t word;

    oracle_fill(bytes, digit, sector, version);
    memcpy(&word, bytes, sizeof(word));
    return ~word & ~UINT64_C(0xff); /* unlike that of a sector that is not compressed */
}

uint64_t oracle_packed_hash(unsigned digit, unsigned sector, unsigned version)
{
    uint64_t word = oracle_packed_word(digit, sector, version);
    uint8_t bytes[SECTOR];

    for (unsigned i = 0; i < SECTOR; i += sizeof(word))
        memcpy(bytes + i, &word, sizeof(word));
    return sim_hash_sector(bytes);
}

static void set_hash(struct oracle *oracle, unsigned digit, unsigned sector, uint64_t hash,
                     unsigned version)
{
    struct sector_values *values = &oracle->values[digit][sector];

    values->hashes[0] = hash;
    values->first = values->hashes[0];
    values->count = 1;
    values->live = 1;
    values->version = (uint16_t)version;
}

void oracle_set(struct oracle *oracle, unsigned digit, unsigned sector, unsigned version)
{
    uint8_t bytes[SECTOR];

    set_hash(oracle, digit, sector, oracle_fill(bytes, digit, sector, version), version);
}

void oracle_set_packed(struct oracle *oracle, unsigned digit, unsigned sector, unsigned version)
{
    set_hash(oracle, digit, sector, oracle_packed_hash(digit, sector, version), version);
}

void oracle_start_from_below(struct oracle *oracle)
{
    for (unsigned digit = 0; digit < GUEST_CLUSTERS; digit++) {
        for (unsigned sector = 0; sector < oracle->cluster_sectors; sector++)
            set_hash(oracle, digit, sector, oracle->below[digit][sector], 1);
    }
}

void oracle_init(struct oracle *oracle, unsigned cluster_sectors, uint64_t guest_bytes)
{
    memset(oracle, 0, sizeof(*oracle));
    oracle->cluster_sectors = cluster_sectors;
    oracle->guest_bytes = guest_bytes;
    for (unsigned digit = 0; digit < GUEST_CLUSTERS; digit++) {
        for (unsigned sector = 0; sector < oracle->cluster_sectors; sector++) {
            oracle_set(oracle, digit, sector, 0);
            oracle->below[digit][sector] = oracle->values[digit][sector].first;
        }
    }
}

static unsigned find(const struct sector_values *values, uint64_t hash)
{
    unsigned i = 0;

    while (i < values->count && values->hashes[i] != hash)
        i++;
    return i;
}

void oracle_issue(struct oracle *oracle, unsigned digit, unsigned sector, uint64_t hash,
                  bool is_acknowledged)
{
    struct sector_values *values = &oracle->values[digit][sector];
    unsigned i = find(values, hash);

    if (i == SECTOR_VALUES_MAX)
        __builtin_trap(); /* oracle_is_full was not heeded */
    values->hashes[i] = hash;
    if (i == values->count)
        values->count++;
    if (is_acknowledged)
        values->live = 0;
    values->live |= 1u << i;
}

void oracle_flush(struct oracle *oracle)
{
    for (unsigned digit = 0; digit < GUEST_CLUSTERS; digit++) {
        for (unsigned sector = 0; sector < oracle->cluster_sectors; sector++) {
            struct sector_values *values = &oracle->values[digit][sector];
            uint16_t kept = 0;

            for (unsigned i = 0; i < values->count; i++) {
                if (values->live >> i & 1)
                    values->hashes[kept++] = values->hashes[i];
            }
            values->count = kept;
            values->live = (1u << kept) - 1;
        }
    }
}

bool oracle_allows(const struct sector_values *values, uint64_t hash)
{
    return find(values, hash) < values->count;
}

bool oracle_allows_now(const struct sector_values *values, uint64_t hash)
{
    unsigned i = find(values, hash);

    return i < values->count && (values->live >> i & 1);
}

unsigned oracle_sectors(uint64_t guest_bytes, uint64_t guest_off, unsigned cluster_bits)
{
    uint64_t bytes = guest_off < guest_bytes ? guest_bytes - guest_off : 0;

    return (unsigned)((bytes < UINT64_C(1) << cluster_bits ? bytes : UINT64_C(1) << cluster_bits) /
                      SECTOR);
}

void oracle_see(struct sector_values *values, uint64_t hash)
{
    values->live = 1u << find(values, hash);
}

bool oracle_is_full(const struct oracle *oracle)
{
    for (unsigned digit = 0; digit < GUEST_CLUSTERS; digit++) {
        for (unsigned sector = 0; sector < oracle->cluster_sectors; sector++) {
            if (oracle->values[digit][sector].count + 2u > SECTOR_VALUES_MAX)
                return true;
        }
    }
    return false;
}

bool oracle_is_open(const struct oracle *oracle)
{
    for (unsigned digit = 0; digit < GUEST_CLUSTERS; digit++) {
        for (unsigned sector = 0; sector < oracle->cluster_sectors; sector++) {
            uint32_t live = oracle->values[digit][sector].live;

            if ((live & (live - 1)) != 0)
                return true;
        }
    }
    return false;
}

void oracle_keep(struct oracle *oracle, char name)
{
    struct kept_snapshot *kept = &oracle->snapshots[oracle->snapshots_count++];

    kept->name = name;
    kept->has_vm_state = false;
    kept->guest_bytes = oracle->guest_bytes;
    for (unsigned digit = 0; digit < GUEST_CLUSTERS; digit++) {
        for (unsigned sector = 0; sector < oracle->cluster_sectors; sector++) {
            const struct sector_values *values = &oracle->values[digit][sector];

            kept->hashes[digit][sector] = values->hashes[__builtin_ctz(values->live)];
        }
    }
}

void oracle_apply(struct oracle *oracle, unsigned index)
{
    const struct kept_snapshot *kept = &oracle->snapshots[index];

    oracle->guest_bytes = kept->guest_bytes;
    for (unsigned digit = 0; digit < GUEST_CLUSTERS; digit++) {
        for (unsigned sector = 0; sector < oracle->cluster_sectors; sector++) {
            struct sector_values *values = &oracle->values[digit][sector];

            values->hashes[0] = kept->hashes[digit][sector];
            values->count = 1;
            values->live = 1;
        }
    }
}

uint64_t oracle_hash(const struct oracle *oracle)
{
    uint64_t hash = oracle->guest_bytes * UINT64_C(0x9e3779b97f4a7c15) | 1;

    hash ^= (uint64_t)oracle->may_lack_flags << 40;

    for (unsigned i = 0; i < oracle->snapshots_count; i++) {
        const struct kept_snapshot *kept = &oracle->snapshots[i];

        hash = (hash ^ hash >> 31 ^ (uint8_t)kept->name) * UINT64_C(0x9e3779b97f4a7c15);
        for (unsigned digit = 0; digit < GUEST_CLUSTERS; digit++) {
            for (unsigned sector = 0; sector < oracle->cluster_sectors; sector++)
                hash = (hash ^ hash >> 31 ^ kept->hashes[digit][sector]) *
                       UINT64_C(0xbf58476d1ce4e5b9);
        }
    }

    for (unsigned digit = 0; digit < GUEST_CLUSTERS; digit++) {
        for (unsigned sector = 0; sector < oracle->cluster_sectors; sector++) {
            const struct sector_values *values = &oracle->values[digit][sector];

            hash = (hash ^ values->live ^ (uint64_t)values->version << 32) *
                   UINT64_C(0x9e3779b97f4a7c15);
            for (unsigned i = 0; i < values->count; i++)
                hash = (hash ^ hash >> 31 ^ values->hashes[i]) * UINT64_C(0xbf58476d1ce4e5b9);
        }
    }
    return hash ^ hash >> 30;
}
