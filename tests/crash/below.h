/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The layers below the bases' images, built on the disks `lowers` (base.h). They are never written.
 */
#ifndef CRASH_BELOW_H
#define CRASH_BELOW_H

#include "oracle.h"

/* Raw: it ends in the middle of digit 5; digit 3 begins with zeros, and 4 is nothing else. */
void build_raw_below(unsigned cluster_bits, struct oracle *oracle);

/* Raw: it goes on behind the end of the guest. */
void build_raw_below_long(unsigned cluster_bits, struct oracle *oracle);

/* Raw, for an image with subclusters: it ends in the middle of digit 3. */
void build_near_below(unsigned cluster_bits, struct oracle *oracle);

/*
 * A qcow2 layer with compressed clusters that ends in the middle of digit 5, over a raw one that
 * goes on behind that end and holds other bytes everywhere.
 */
void build_deep_below(unsigned cluster_bits, struct oracle *oracle);

#endif
