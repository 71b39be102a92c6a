/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * From guest offsets to extents: L1, then L2, both through the cache.
 *
 * Promises: no entry is followed before it is checked (reserved bits, alignment, inside the disk);
 * an extent that is returned lies inside the guest disk and, where it is data, starts inside the
 * host disk. Format: QEMU's docs/interop/qcow2, "Cluster mapping".
 */
#ifndef QC_MAP_H
#define QC_MAP_H

#include "qcow2.h"

/*
 * The run at guest_off (inside the guest disk), at most max_len bytes (at least 1, inside the guest
 * disk too), merged over every neighbouring cluster that continues it.
 */
qc_status qc_map_run(struct qc_image *image, uint64_t guest_off, uint64_t max_len,
                     struct qc_extent *ret_extent);

#endif
