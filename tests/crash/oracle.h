/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * What the guest may find in each of its sectors: now, and after a power cut.
 *
 * Only the clusters that operations touch are followed; they are numbered by digits 0 to
 * GUEST_CLUSTERS - 1 and lie in four L2 tables (builder.h tells where); the guest may end before
 * or in one, and grow over it. Every other cluster of the guest is a hole for ever. Each write
 * fills a sector with bytes that no other write uses, so that a hash tells which write they come
 * from.
 *
 * Promises: after a cut a sector may hold what it held at the last good flush, or anything that
 * was issued to it since; now it holds the last acknowledged value, or, where a write failed, that
 * one or what the failing write brought.
 */
#ifndef CRASH_ORACLE_H
#define CRASH_ORACLE_H

#include <stdbool.h>
#include <stdint.h>

#define GUEST_CLUSTERS      8u
#define CLUSTER_SECTORS_MAX 64u
#define SECTOR_VALUES_MAX   24u
#define SECTOR              512u
#define SNAPSHOTS_KEPT_MAX  3u

struct sector_values {
    uint64_t hashes[SECTOR_VALUES_MAX]; /* what it may hold after a cut, oldest first */
    uint64_t first;                     /* what it held in the base */
    uint32_t live;                      /* which of them it may hold now, as bits */
    uint16_t count;
    uint16_t version; /* of the last bytes made for it */
};

/* A snapshot's name and hashes, which never change. */
struct kept_snapshot {
    char name;
    bool has_vm_state; /* behind the disk's end, which is nobody's else */
    uint64_t guest_bytes;
    uint64_t hashes[GUEST_CLUSTERS][CLUSTER_SECTORS_MAX];
};

struct oracle {
    unsigned cluster_sectors;
    uint64_t guest_bytes;
    bool is_raw_alike;   /* a raw data file alone shows the same: until it was cut from its image */
    bool may_lack_flags; /* a change of snapshots is under way that the image cannot announce */
    uint64_t below[GUEST_CLUSTERS][CLUSTER_SECTORS_MAX]; /* of what shows where nothing is mapped */
    unsigned snapshots_count;
    struct kept_snapshot snapshots[SNAPSHOTS_KEPT_MAX]; /* in the order of their table */
    struct sector_values values[GUEST_CLUSTERS][CLUSTER_SECTORS_MAX];
};

/* The bytes of a sector's version, 0: zeros. Returns their hash. */
uint64_t oracle_fill(uint8_t *bytes, unsigned digit, unsigned sector, unsigned version);

/* The word that is repeated through a sector in a compressed cluster, and the hash of it all. */
uint64_t oracle_packed_word(unsigned digit, unsigned sector, unsigned version);
uint64_t oracle_packed_hash(unsigned digit, unsigned sector, unsigned version);

/* Every sector holds zeros, durably, and so does what is below. */
void oracle_init(struct oracle *oracle, unsigned cluster_sectors, uint64_t guest_bytes);

/* This version is what the sector holds, durably. */
void oracle_set(struct oracle *oracle, unsigned digit, unsigned sector, unsigned version);

void oracle_set_packed(struct oracle *oracle, unsigned digit, unsigned sector, unsigned version);

/* Every sector holds what is below. */
void oracle_start_from_below(struct oracle *oracle);

/* A value was issued: acknowledged, or perhaps there and perhaps not. */
void oracle_issue(struct oracle *oracle, unsigned digit, unsigned sector, uint64_t hash,
                  bool is_acknowledged);

/* A flush succeeded: what is held now is what a cut leaves. */
void oracle_flush(struct oracle *oracle);

bool oracle_allows(const struct sector_values *values, uint64_t hash);
bool oracle_allows_now(const struct sector_values *values, uint64_t hash);

/* Whether a failed write left open what a sector holds. */
bool oracle_is_open(const struct oracle *oracle);

/* Keeps what every sector holds now as a snapshot; room for it is there, and nothing is open. */
void oracle_keep(struct oracle *oracle, char name);

/* Every sector holds what it held then, durably. */
void oracle_apply(struct oracle *oracle, unsigned index);

/* After a restart: the sector was seen to hold this. */
void oracle_see(struct sector_values *values, uint64_t hash);

/* How many sectors of the cluster at guest_off are inside a guest of so many bytes. */
unsigned oracle_sectors(uint64_t guest_bytes, uint64_t guest_off, unsigned cluster_bits);

/* Whether a sector has nearly as many values as can be kept. */
bool oracle_is_full(const struct oracle *oracle);

uint64_t oracle_hash(const struct oracle *oracle);

#endif
