/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Operations that change an image as a whole (world.h spells them): growing it, and its snapshots.
 *
 * Promises: while one runs, what the guest may find is what it found before, or what it was meant
 * to become: never parts of both. One that has nothing to do does nothing.
 */
#ifndef CRASH_BULK_H
#define CRASH_BULK_H

#include "world.h"

bool bulk_do(struct world *world, const char *op);

#endif
