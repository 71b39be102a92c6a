/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* See opened_volume.h. */
#include "opened_volume.h"

struct volume volume;
struct qc_fat fat;
struct qc_fat_file file;
uint8_t window[QC_FAT_BUFFER_BYTES];
uint64_t entry_off;

const uint32_t sizes[WIDTHS] = {3000, 5000, 65600};

void start(uint32_t clusters_count)
{
    volume_init(&volume, clusters_count < 10000 ? VOLUME_BYTES_MAX / 8 : VOLUME_BYTES_MAX);
    volume_format(&volume, clusters_count);
    entry_off = volume.width == 32 ? volume_cluster_off(&volume, 2) : volume.root_off;
}

qc_status open_volume(void)
{
    return qc_fat_open(&fat, &volume.disk, window);
}

qc_status find(const char *path)
{
    return qc_fat_find(&fat, path, &file);
}
