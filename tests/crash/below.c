/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See below.h. Each layer is told to the oracle where it shows, which is wherever nothing above it
 * has anything.
 */
#include "below.h"

#include <string.h>

#include "base.h"
#include "builder.h"

#define VERSION_MID  0x8000u /* of bytes in the first layer below, and in the second */
#define VERSION_DEEP 0x9000u

struct sim_disk lowers[LOWERS_MAX];

static struct builder below; /* too large for a frame */

static void show_below(struct oracle *oracle, unsigned digit, unsigned from, unsigned to,
                       unsigned version)
{
    uint8_t bytes[SECTOR];

    for (unsigned sector = from; sector < to; sector++)
        oracle->below[digit][sector] = oracle_fill(bytes, digit, sector, version);
}

static void start_below(struct sim_disk *sim, unsigned cluster_bits, uint64_t bytes,
                        uint16_t version)
{
    memset(&below, 0, sizeof(below));
    below.sim = sim;
    below.cluster_bits = cluster_bits;
    below.cluster_bytes = 1u << cluster_bits;
    below.data_version = version;
    sim_init(sim, SECTOR, bytes, bytes, false);
}

void build_raw_below(unsigned cluster_bits, struct oracle *oracle)
{
    unsigned sectors = (1u << cluster_bits) / SECTOR;
    uint64_t bytes = digit_guest_off(5, cluster_bits, false) + sectors / 2 * SECTOR;
    static const uint8_t zeros[SECTOR];

    start_below(&lowers[0], cluster_bits, bytes, VERSION_MID);
    put_poison(&below);
    for (unsigned digit = 0; digit <= 5; digit++) {
        unsigned from = digit == 3 ? sectors / 2 : digit == 4 ? sectors : 0;
        unsigned to = digit == 5 ? sectors / 2 : sectors;

        for (unsigned sector = 0; sector < from; sector++)
            sim_put(&lowers[0], digit_guest_off(digit, cluster_bits, false) + sector * SECTOR,
                    zeros, SECTOR);
        put_sectors(&below, digit, digit_guest_off(digit, cluster_bits, false), from, to);
        show_below(oracle, digit, from, to, VERSION_MID);
    }
    lowers[0].disk.readonly = true;
}

void build_raw_below_long(unsigned cluster_bits, struct oracle *oracle)
{
    unsigned sectors = (1u << cluster_bits) / SECTOR;
    uint64_t bytes = digit_guest_off(GUEST_CLUSTERS, cluster_bits, false);

    start_below(&lowers[0], cluster_bits, bytes, VERSION_MID);
    put_poison(&below);
    for (unsigned digit = 0; digit < GUEST_CLUSTERS; digit++) {
        put_sectors(&below, digit, digit_guest_off(digit, cluster_bits, false), 0, sectors);
        show_below(oracle, digit, 0, sectors, VERSION_MID);
    }
    lowers[0].disk.readonly = true;
}

/* The next L2 table of an image with subclusters is far away. */
void build_near_below(unsigned cluster_bits, struct oracle *oracle)
{
    unsigned sectors = (1u << cluster_bits) / SECTOR;
    uint64_t bytes = digit_guest_off(3, cluster_bits, true) + sectors / 2 * SECTOR;

    start_below(&lowers[0], cluster_bits, bytes, VERSION_MID);
    for (unsigned digit = 0; digit <= 3; digit++) {
        unsigned to = digit == 3 ? sectors / 2 : sectors;

        put_sectors(&below, digit, digit_guest_off(digit, cluster_bits, true), 0, to);
        show_below(oracle, digit, 0, to, VERSION_MID);
    }
    lowers[0].disk.readonly = true;
}

void build_deep_below(unsigned cluster_bits, struct oracle *oracle)
{
    unsigned sectors = (1u << cluster_bits) / SECTOR;
    uint64_t end = digit_guest_off(5, cluster_bits, false) + sectors * SECTOR;

    start_below(&lowers[1], cluster_bits, end, VERSION_DEEP);
    put_poison(&below);
    for (unsigned digit = 0; digit <= 5; digit++)
        put_sectors(&below, digit, digit_guest_off(digit, cluster_bits, false), 0, sectors);
    lowers[1].disk.readonly = true;

    start_below(&lowers[0], cluster_bits, UINT64_C(16) << cluster_bits, VERSION_MID);
    below.clusters = 16;
    below.version = 3;
    below.refcount_order = 4;
    below.below = "raw";
    below.guest_bytes = digit_guest_off(5, cluster_bits, false) + sectors / 2 * SECTOR;
    put_header(&below);
    put_l1(&below, AT_L1, 0, AT_L2, ENTRY_COPIED);
    end = add_packed(&below, AT_L2, 0, off_of(&below, 6) - 50);
    add_packed(&below, AT_L2, 1, end + 7);
    add_data(&below, AT_L2, 2, 7);
    put_l1(&below, AT_L1, 1, 8, ENTRY_COPIED);
    put_entry(&below, 8, 4, 0, ENTRY_ZERO);
    add_data(&below, 8, 5, 9);
    put_counts(&below);
    put_poison(&below);
    lowers[0].disk.readonly = true;
    for (unsigned sector = 0; sector < sectors; sector++) {
        for (unsigned digit = 0; digit <= 1; digit++)
            oracle->below[digit][sector] = oracle_packed_hash(digit, sector, VERSION_MID);
    }
    show_below(oracle, 2, 0, sectors, VERSION_MID);
    show_below(oracle, 3, 0, sectors, VERSION_DEEP);
    show_below(oracle, 5, 0, sectors / 2, VERSION_MID);
}
