/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See guest.h. A sector's outcomes are judged one by one: nothing else hangs on them.
 */
#include "guest.h"

#include <string.h>

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

uint64_t guest_hash(struct view *view, const struct check *check, unsigned digit, unsigned sector)
{
    uint64_t host_off = check->active[digit];

    return host_off == 0 ? zeros_hash() : view_sector_hash(view, host_off + sector * SECTOR, 0);
}

typedef bool (*allows_fn)(const struct sector_values *values, uint64_t hash);

static void judge_sector(struct view *view, const struct oracle *oracle, unsigned digit,
                         unsigned sector, allows_fn allows, struct judgement *judgement)
{
    const struct check *check = &judgement->check;
    const struct sector_values *values = &oracle->values[digit][sector];
    uint64_t host_off = check->active[digit];
    unsigned outcomes_count;
    bool is_right = true;

    if (host_off == 0) {
        is_right = allows(values, zeros_hash());
    } else {
        host_off += sector * SECTOR;
        outcomes_count = view_sector_outcomes(view, host_off);
        for (unsigned i = 0; i < outcomes_count && is_right; i++)
            is_right = allows(values, view_sector_hash(view, host_off, i));
    }
    if (!is_right)
        judgement->broken = "guest sector is not what was flushed or issued (invariants 3, 4, 5)";
    host_off = check->snapshot[digit];
    if (is_right && oracle->has_snapshot) {
        uint64_t wanted = oracle->snapshot[digit][sector];

        if (host_off == 0)
            is_right = wanted == zeros_hash();
        else
            is_right = view_sector_outcomes(view, host_off + sector * SECTOR) == 1 &&
                       view_sector_hash(view, host_off + sector * SECTOR, 0) == wanted;
        if (!is_right)
            judgement->broken = "the snapshot's content changed";
    }
    if (!is_right) {
        judgement->digit = digit;
        judgement->sector = sector;
        judgement->where = host_off;
    }
}

static void judge(struct view *view, const struct oracle *oracle, unsigned cluster_bits,
                  allows_fn allows, struct judgement *judgement)
{
    memset(judgement, 0, sizeof(*judgement));
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
