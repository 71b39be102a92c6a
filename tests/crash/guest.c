/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See guest.h. A sector's outcomes are judged one by one: nothing else hangs on them.
 */
#include "guest.h"

#include <string.h>

#include "unpack.h"

static uint64_t zeros_hash(void)
{
    static const uint8_t zeros[SECTOR];
    static uint64_t hash;

    if (hash == 0)
        hash = sim_hash_sector(zeros);
    return hash;
}

static void judge_structure(const struct check *check, struct judgement *judgement)
{
    if (check->corruption != NULL)
        judgement->broken = check->corruption;
    else if (check->overlap != NULL)
        judgement->broken = check->overlap;
    else if (check->has_stray)
        judgement->broken = "a cluster where the guest never wrote (invariant 3)";
    judgement->where = check->where;
}

/* The hash of what a sector's entry gives, or of one outcome of it where it names data. */
static uint64_t entry_hash(struct view *view, const struct judgement *judgement,
                           const struct oracle *oracle, uint64_t entry, unsigned digit,
                           unsigned sector, unsigned outcome)
{
    uint64_t host_off = entry & CHECK_OFFSET_MASK;

    if (entry & CHECK_COMPRESSED)
        return unpack_hash(view, entry, judgement->cluster_bits, sector);
    if (entry & CHECK_ZERO)
        return zeros_hash();
    if (host_off == 0)
        return oracle->below[digit][sector];
    return view_sector_hash(view, host_off + sector * SECTOR, outcome);
}

/* How many outcomes entry_hash has: compressed bytes are decided when they are unpacked. */
static unsigned outcomes_of(const struct view *view, uint64_t entry, unsigned sector)
{
    uint64_t host_off = entry & CHECK_OFFSET_MASK;

    if ((entry & (CHECK_COMPRESSED | CHECK_ZERO)) || host_off == 0)
        return 1;
    return view_sector_outcomes(view, host_off + sector * SECTOR);
}

uint64_t guest_hash(struct view *view, const struct judgement *judgement,
                    const struct oracle *oracle, unsigned digit, unsigned sector)
{
    return entry_hash(view, judgement, oracle, judgement->check.active[digit], digit, sector, 0);
}

typedef bool (*allows_fn)(const struct sector_values *values, uint64_t hash);

static void judge_sector(struct view *view, const struct oracle *oracle, unsigned digit,
                         unsigned sector, allows_fn allows, struct judgement *judgement)
{
    const struct sector_values *values = &oracle->values[digit][sector];
    uint64_t entry = judgement->check.active[digit];
    unsigned outcomes_count = outcomes_of(view, entry, sector);
    bool is_right = true;

    for (unsigned i = 0; i < outcomes_count && is_right; i++)
        is_right = allows(values, entry_hash(view, judgement, oracle, entry, digit, sector, i));
    if (!is_right)
        judgement->broken = "guest sector is not what was flushed or issued (invariants 3, 4, 5)";
    if (is_right && oracle->has_snapshot) {
        entry = judgement->check.snapshot[digit];
        is_right = outcomes_of(view, entry, sector) == 1 &&
                   entry_hash(view, judgement, oracle, entry, digit, sector, 0) ==
                       oracle->snapshot[digit][sector];
        if (!is_right)
            judgement->broken = "the snapshot's content changed";
    }
    if (!is_right) {
        judgement->digit = digit;
        judgement->sector = sector;
        judgement->where = entry;
    }
}

static void judge(struct view *view, const struct oracle *oracle, unsigned cluster_bits,
                  allows_fn allows, struct judgement *judgement)
{
    memset(judgement, 0, sizeof(*judgement));
    judgement->cluster_bits = cluster_bits;
    check_state(view, &judgement->check);
    judge_structure(&judgement->check, judgement);
    for (unsigned digit = 0; digit < GUEST_CLUSTERS && judgement->broken == NULL; digit++) {
        for (unsigned sector = 0; sector < (1u << cluster_bits) / SECTOR; sector++) {
            judge_sector(view, oracle, digit, sector, allows, judgement);
            if (judgement->broken != NULL)
                return;
        }
    }
}

/* While autoclear bits stand, the guest must be what it was when they were set (invariant 6). */
static bool allows_first(const struct sector_values *values, uint64_t hash)
{
    return values->first == hash;
}

void judge_cut(struct view *view, const struct oracle *oracle, unsigned cluster_bits,
               struct judgement *ret_judgement)
{
    judge(view, oracle, cluster_bits, oracle_allows, ret_judgement);
    if (ret_judgement->broken == NULL && ret_judgement->check.autoclear != 0) {
        judge(view, oracle, cluster_bits, allows_first, ret_judgement);
        if (ret_judgement->broken != NULL)
            ret_judgement->broken = "changed while autoclear bits stand (invariant 6)";
    }
}

void judge_now(struct view *view, const struct oracle *oracle, unsigned cluster_bits,
               struct judgement *ret_judgement)
{
    judge(view, oracle, cluster_bits, oracle_allows_now, ret_judgement);
}
