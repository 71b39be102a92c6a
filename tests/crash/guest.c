/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See guest.h. A sector's outcomes are judged one by one: nothing else hangs on them.
 */
#include "guest.h"

#include <string.h>

#include "builder.h"
#include "unpack.h"

static uint64_t zeros_hash(void)
{
    static const uint8_t zeros[SECTOR];
    static uint64_t hash;

    if (hash == 0)
        hash = sim_hash_sector(zeros);
    return hash;
}

static void judge_structure(const struct check *check, const struct oracle *oracle,
                            struct judgement *judgement)
{
    if (check->corruption != NULL)
        judgement->broken = check->corruption;
    else if (check->unflagged != NULL && !oracle->may_lack_flags)
        judgement->broken = check->unflagged;
    else if (check->overlap != NULL)
        judgement->broken = check->overlap;
    else if (check->has_stray)
        judgement->broken = "a cluster where the guest never wrote (invariant 3)";
    judgement->where = check->where;
}

static uint64_t guest_off_of(const struct check *check, unsigned digit)
{
    return digit_guest_off(digit, check->cluster_bits, check->is_extended);
}

enum source { SOURCE_BELOW, SOURCE_ZEROS, SOURCE_DATA, SOURCE_PACKED };

static enum source source_of(const struct check *check, const struct mapping *entry,
                             unsigned sector)
{
    unsigned sub = sector * SUBS_COUNT / ((1u << check->cluster_bits) / SECTOR);

    if (entry->word & CHECK_COMPRESSED)
        return SOURCE_PACKED;
    if (check->is_extended) {
        if (entry->bits >> sub & 1)
            return SOURCE_DATA;
        return entry->bits >> (SUBS_COUNT + sub) & 1 ? SOURCE_ZEROS : SOURCE_BELOW;
    }
    if (entry->word & CHECK_ZERO)
        return SOURCE_ZEROS;
    if (check->has_data_file && (entry->word & CHECK_COPIED))
        return SOURCE_DATA;
    return (entry->word & CHECK_OFFSET_MASK) != 0 ? SOURCE_DATA : SOURCE_BELOW;
}

/* Where among the disk's bytes a sector of an entry that names data lies. */
static uint64_t sector_off(const struct view *view, const struct check *check,
                           const struct mapping *entry, unsigned digit, unsigned sector)
{
    uint64_t host_off = entry->word & CHECK_OFFSET_MASK;

    if (check->has_data_file)
        host_off = sim_data_off(view->sim, guest_off_of(check, digit));
    return host_off + sector * SECTOR;
}

/* The hash of what a sector's entry gives, or of one outcome of it where it names data. */
static uint64_t entry_hash(struct view *view, const struct judgement *judgement,
                           const struct oracle *oracle, const struct mapping *entry, unsigned digit,
                           unsigned sector, unsigned outcome)
{
    const struct check *check = &judgement->check;

    switch (source_of(check, entry, sector)) {
    case SOURCE_PACKED:
        return unpack_hash(view, entry->word, check->cluster_bits, sector);
    case SOURCE_ZEROS:
        return zeros_hash();
    case SOURCE_BELOW:
        return oracle->below[digit][sector];
    default:
        return view_sector_hash(view, sector_off(view, check, entry, digit, sector), outcome);
    }
}

/* How many outcomes entry_hash has: compressed bytes are decided when they are unpacked. */
static unsigned outcomes_of(const struct view *view, const struct check *check,
                            const struct mapping *entry, unsigned digit, unsigned sector)
{
    if (source_of(check, entry, sector) != SOURCE_DATA)
        return 1;
    return view_sector_outcomes(view, sector_off(view, check, entry, digit, sector));
}

uint64_t guest_hash(struct view *view, const struct judgement *judgement,
                    const struct oracle *oracle, unsigned digit, unsigned sector)
{
    return entry_hash(view, judgement, oracle, &judgement->check.active[digit], digit, sector, 0);
}

typedef bool (*allows_fn)(const struct sector_values *values, uint64_t hash);

static void blame(struct judgement *judgement, const char *broken, unsigned digit, unsigned sector,
                  uint64_t where)
{
    judgement->broken = broken;
    judgement->digit = digit;
    judgement->sector = sector;
    judgement->where = where;
}

static void judge_sector(struct view *view, const struct oracle *oracle, unsigned digit,
                         unsigned sector, allows_fn allows, struct judgement *judgement)
{
    const struct sector_values *values = &oracle->values[digit][sector];
    const struct check *check = &judgement->check;
    const struct mapping *entry = &check->active[digit];
    unsigned outcomes_count = outcomes_of(view, check, entry, digit, sector);
    bool is_right = true;

    for (unsigned i = 0; i < outcomes_count && is_right; i++)
        is_right = allows(values, entry_hash(view, judgement, oracle, entry, digit, sector, i));
    if (!is_right)
        blame(judgement, "guest sector is not what was flushed or issued (invariants 3, 4, 5)",
              digit, sector, entry->word);
    if (is_right && oracle->is_raw_alike) {
        uint64_t off = sim_data_off(view->sim, guest_off_of(check, digit)) + sector * SECTOR;

        for (unsigned i = 0; i < view_sector_outcomes(view, off) && is_right; i++)
            is_right = allows(values, view_sector_hash(view, off, i));
        if (!is_right)
            blame(judgement, "the raw data file alone shows something else", digit, sector, off);
    }
}

/* How many sectors of a digit's cluster are inside a guest of that size. */
static unsigned sectors_of(const struct judgement *judgement, uint64_t guest_bytes, unsigned digit)
{
    return oracle_sectors(guest_bytes, guest_off_of(&judgement->check, digit),
                          judgement->check.cluster_bits);
}

/* Nothing writes into what a snapshot holds, VM state behind the disk's end included. */
static void judge_snapshot(struct view *view, const struct oracle *oracle, unsigned index,
                           struct judgement *judgement)
{
    const struct kept_snapshot *kept = &oracle->snapshots[index];
    const struct check_snapshot *found = &judgement->check.snapshots[index];

    if (found->name != kept->name || found->guest_bytes != kept->guest_bytes) {
        blame(judgement, "another snapshot than there should be", index, 0, 0);
        return;
    }
    for (unsigned digit = 0; digit < GUEST_CLUSTERS && judgement->broken == NULL; digit++) {
        const struct mapping *entry = &found->entries[digit];
        unsigned sectors = sectors_of(judgement, kept->guest_bytes, digit);

        if (sectors == 0 && kept->has_vm_state)
            sectors = oracle->cluster_sectors;
        for (unsigned sector = 0; sector < sectors; sector++) {
            unsigned count = outcomes_of(view, &judgement->check, entry, digit, sector);

            /* A unit may have been written beside the sector, where the snapshot has a hole. */
            for (unsigned i = 0; i < count; i++) {
                if (entry_hash(view, judgement, oracle, entry, digit, sector, i) !=
                    kept->hashes[digit][sector])
                    blame(judgement, "the snapshot's content changed", digit, sector, entry->word);
            }
        }
    }
}

/* What the image holds, once its structure was found good. */
static void judge_content(struct view *view, const struct oracle *oracle, allows_fn allows,
                          struct judgement *judgement)
{
    const struct check *check = &judgement->check;

    judgement->broken = NULL;
    if (check->guest_bytes != oracle->guest_bytes)
        blame(judgement, "another size than there should be", 0, 0, check->guest_bytes);
    else if (check->snapshots_count != oracle->snapshots_count)
        blame(judgement, "more or fewer snapshots than there should be", 0, 0,
              check->snapshots_count);
    for (unsigned digit = 0; digit < GUEST_CLUSTERS && judgement->broken == NULL; digit++) {
        unsigned sectors = sectors_of(judgement, oracle->guest_bytes, digit);

        for (unsigned sector = 0; sector < sectors && judgement->broken == NULL; sector++)
            judge_sector(view, oracle, digit, sector, allows, judgement);
    }
    for (unsigned i = 0; i < oracle->snapshots_count && judgement->broken == NULL; i++)
        judge_snapshot(view, oracle, i, judgement);
}

static void judge(struct view *view, const struct oracle *oracle, const struct oracle *after,
                  allows_fn allows, struct judgement *judgement)
{
    struct judgement other;

    memset(judgement, 0, sizeof(*judgement));
    judgement->is_dirty = check_is_dirty(view);
    if (judgement->is_dirty)
        return;
    check_state(view, &judgement->check);
    judge_structure(&judgement->check, oracle, judgement);
    if (judgement->broken != NULL)
        return;
    judge_content(view, oracle, allows, judgement);
    if (judgement->broken == NULL || after == NULL)
        return;
    other = *judgement;
    judge_content(view, after, allows, &other);
    if (other.broken == NULL) {
        *judgement = other;
        judgement->is_after = true;
    }
}

/* While autoclear bits stand, the guest must be what it was when they were set (invariant 6). */
static bool allows_first(const struct sector_values *values, uint64_t hash)
{
    return values->first == hash;
}

void judge_cut(struct view *view, const struct oracle *oracle, const struct oracle *after,
               struct judgement *ret_judgement)
{
    judge(view, oracle, after, oracle_allows, ret_judgement);
    if (ret_judgement->broken == NULL && ret_judgement->check.autoclear != 0) {
        judge(view, oracle, NULL, allows_first, ret_judgement);
        if (ret_judgement->broken != NULL)
            ret_judgement->broken = "changed while autoclear bits stand (invariant 6)";
    }
}

void judge_now(struct view *view, const struct oracle *oracle, const struct oracle *after,
               struct judgement *ret_judgement)
{
    judge(view, oracle, after, oracle_allows_now, ret_judgement);
    if (ret_judgement->is_dirty)
        ret_judgement->broken = "marked dirty at rest";
}
