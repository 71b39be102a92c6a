/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * What the guest may find in each of its sectors: now, and after a power cut.
 *
 * Only the clusters that operations touch are followed; they are numbered by digits 0 to
 * GUEST_CLUSTERS - 1 and lie in three L2 tables (base.h tells where). Every other cluster of the
 * guest is a hole for ever. Each write fills a sector with bytes that no other write uses, so that
 * a hash tells which write they come from.
 *
 * Promises: after a cut a sector may hold what it held at the last good flush, or anything that
 * was issued to it since; now it holds the last acknowledged value, or, where a write failed, that
 * one or what the failing write brought.
 */
#ifndef CRASH_ORACLE_H
#define CRASH_ORACLE_H

#include <stdbool.h>
#include <stdint.h>

#define GUEST_CLUSTERS      7u
#define CLUSTER_SECTORS_MAX 16u
#define SECTOR_VALUES_MAX   24u
#define SECTOR              512u

struct sector_values {
    uint64_t hashes[SECTOR_VALUES_MAX]; /* what it may hold after a cut, oldest first */
    uint64_t first;                     /* what it held in the base */
    uint32_t live;                      /* which of them it may hold now, as bits */
    uint16_t count;
    uint16_t version; /* of the last bytes made for it */
};

struct oracle {
    struct sector_values values[GUEST_CLUSTERS][CLUSTER_SECTORS_MAX];
    uint64_t snapshot[GUEST_CLUSTERS][CLUSTER_SECTORS_MAX]; /* hashes, which never change */
    uint64_t below[GUEST_CLUSTERS][CLUSTER_SECTORS_MAX]; /* of what shows where nothing is mapped */
    bool has_snapshot;
};

/* The bytes of a sector's version, 0: zeros. Returns their hash. */
uint64_t oracle_fill(uint8_t *bytes, unsigned digit, unsigned sector, unsigned version);

/* The word that is repeated through a sector in a compressed cluster, and the hash of it all. */
uint64_t oracle_packed_word(unsigned digit, unsigned sector, unsigned version);
uint64_t oracle_packed_hash(unsigned digit, unsigned sector, unsigned version);

/* Every sector holds zeros, durably, and so does what is below. */
void oracle_init(struct oracle *oracle);

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

/* After a restart: the sector was seen to hold this. */
void oracle_see(struct sector_values *values, uint64_t hash);

/* Whether a sector has nearly as many values as can be kept. */
bool oracle_is_full(const struct oracle *oracle);

uint64_t oracle_hash(const struct oracle *oracle, unsigned cluster_sectors);

#endif
