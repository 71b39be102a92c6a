/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See sequences.h. The tree of sequences is walked with one saved world a level.
 */
#include "sequences.h"

#include <stdio.h>
#include <string.h>

static struct world saved[SEQUENCE_OPS_MAX];

const char *alphabet_plain(const struct base *base)
{
    if (strncmp(base->name, "snapshot", 8) == 0)
        return "W0,H0,T1,H4,D0,Z1,z0,X1,F,R,C,D4,W6,E";
    if (strcmp(base->name, "reftable") == 0)
        return "W0,W2,W4,W6,D0,D4,Z1,F,C";
    if (strcmp(base->name, "block") == 0)
        return "W2,H3,W4,W6,D0,D4,F,R,C";
    if (strcmp(base->name, "zeroalloc") == 0)
        return "W0,H0,H2,T2,W2,D2,z0,Z2,H1,D0,H6,F,R,C";
    if (strncmp(base->name, "packed", 6) == 0)
        return "W0,H0,T1,H1,X1,W2,D0,D2,Z1,z2,H3,T6,F,R,C";
    if (base->is_short)
        return "W0,W6,H6,D6,Z6,W7,H7,D7,G,J,F,R,C,E";
    if (base->is_extended)
        return "W0,H0,s0,T1,s1,q1,s2,q2,H3,W4,D0,D1,Z2,z0,X1,F,R,C";
    if (base->has_data_file)
        return "W0,H0,T1,H2,T2,X1,W4,D0,Z1,z0,D2,G,W7,F,R,C";
    if (base->lowers_count > 0)
        return "W0,H0,T1,T2,T3,X2,H5,T5,D0,D1,Z3,z0,Z4,W6,F,R,C";
    return "W0,H0,T1,H2,T2,X1,W4,H6,D0,Z1,z0,D4,F,R,C,E";
}

const char *alphabet_faulty(const struct base *base)
{
    (void)base;
    return "W0,H2,H4,W5,W6,z2,D0,D1,D2,w0,w2,f11a,f11h,f12n,f12a,f21a,f21n,f22h,c11a,c21a,g1,g2,!1,"
           "!2,F,C";
}

const char *alphabet_bulk(const struct base *base)
{
    if (base->is_512_only || base->has_data_file)
        return NULL; /* thousands of counts each time; not to be had */
    if (base->is_short)
        return "W0,H6,W7,G,S,A0,K0,A1,F,R";
    return "W0,H1,D0,S,A0,A1,K0,K1,F,R,C";
}

static void join(const struct op *alphabet, const unsigned *indices, unsigned count, char *ret_text)
{
    ret_text[0] = '\0';
    for (unsigned i = 0; i < count; i++) {
        if (i > 0)
            strcat(ret_text, ",");
        strcat(ret_text, alphabet[indices[i]].text);
    }
}

/* The next sequence in the walk; false where it was the last. */
static bool advance(unsigned *indices, unsigned *depth, unsigned ops_count)
{
    while (indices[*depth] + 1 == ops_count) {
        if (*depth == 0)
            return false;
        --*depth;
    }
    indices[*depth]++;
    return true;
}

bool sequences_run(struct cutter *cutter, const struct base *base, uint32_t unit_bytes,
                   const char *alphabet, unsigned length, char *ret_ops)
{
    struct op ops[ALPHABET_MAX];
    unsigned ops_count = ops_parse(alphabet, ops, ALPHABET_MAX);
    unsigned indices[SEQUENCE_OPS_MAX] = {0};
    unsigned depth = 0;

    if (ops_count == 0 || length > SEQUENCE_OPS_MAX || !cutter_start(cutter, base, unit_bytes))
        return false;
    world_copy(&saved[0], cutter->world);
    cutter->ops = ret_ops;
    do {
        bool goes_deeper;

        world_copy(cutter->world, &saved[depth]);
        join(ops, indices, depth + 1, ret_ops);
        cutter->figures.sequences++;
        if (!cutter_do(cutter, ops[indices[depth]].text))
            return false;
        goes_deeper = depth + 1 < length && !cutter->world->is_faulty;
        if (goes_deeper)
            world_copy(&saved[depth + 1], cutter->world);
        if (!cutter->is_crash_only && cutter_is_new(cutter) && !cutter_end(cutter))
            return false;
        if (goes_deeper)
            indices[++depth] = 0;
        else if (!advance(indices, &depth, ops_count))
            break;
    } while (true);
    return true;
}

bool sequence_run(struct cutter *cutter, const struct base *base, uint32_t unit_bytes,
                  const char *ops_text, bool is_last_only)
{
    struct op ops[ALPHABET_MAX];
    unsigned ops_count = ops_parse(ops_text, ops, ALPHABET_MAX);

    cutter->ops = ops_text;
    if (ops_count == 0 || !cutter_start(cutter, base, unit_bytes))
        return false;
    cutter->figures.sequences++;
    for (unsigned i = 0; i < ops_count; i++) {
        if (is_last_only && i + 1 < ops_count) {
            if (!world_do(cutter->world, ops[i].text))
                break;
        } else if (!cutter_do(cutter, ops[i].text)) {
            return false;
        }
    }
    if (cutter->world->violation != NULL) {
        snprintf(cutter->found, sizeof(cutter->found), "%s %s", cutter->world->violation,
                 cutter->world->violation_note);
        return false;
    }
    return cutter->is_crash_only || cutter_end(cutter);
}
