/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Where files of a FAT volume lie, and what is in them, on a host:
 *
 *   qc-fat VOLUME FOLDER PATH...
 *
 * Promises: a line of JSON for each path, in their order, with "status" as core/status.h numbers
 * it; where that is 0, the size, the first cluster, the directory entry's place, the runs as
 * [place in the file, place on the volume], and whether the file owns its pages; its content, read
 * run by run, is then in FOLDER, named by the line's number from 0. Nothing else is written. The
 * exit status is 0 unless the command line is wrong or there is no such volume; a volume that is
 * not FAT is one line for all paths.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "../../drivers/fat.h"
#include "../../drivers/posix_file.h"

#define RUNS_MAX       65536u
#define CHUNK_BYTES    (1u << 20)
#define NAME_BYTES_MAX 4096u

static uint8_t window[QC_FAT_BUFFER_BYTES];
static struct qc_run runs[RUNS_MAX];
static uint8_t chunk[CHUNK_BYTES];

/* Copies the disk to a new file of that name. */
static qc_status copy(struct qc_disk *disk, const char *name)
{
    FILE *target = fopen(name, "wb");
    qc_status status = target == NULL ? QC_IO : QC_OK;

    for (uint64_t off = 0; off < disk->size_bytes && status == QC_OK; off += CHUNK_BYTES) {
        uint64_t rest = disk->size_bytes - off;
        size_t len = rest < CHUNK_BYTES ? (size_t)rest : CHUNK_BYTES;

        status = disk->ops->read(disk, off, chunk, len);
        if (status == QC_OK && fwrite(chunk, len, 1, target) != 1)
            status = QC_IO;
    }
    if (target != NULL && fclose(target) != 0)
        status = QC_IO;
    return status;
}

static void tell(struct qc_fat *fat, const char *path, const char *target)
{
    struct qc_fat_file file;
    struct qc_extents extents;
    size_t count = 0;
    qc_status status = qc_fat_find(fat, path, &file);

    if (status == QC_OK)
        status = qc_fat_extents(fat, &file, runs, RUNS_MAX, &count);
    if (status == QC_OK)
        status = qc_fat_verify(fat, &file, runs, count);
    if (status == QC_OK) {
        qc_extents_init(&extents, fat->volume, runs, count, file.size_bytes);
        status = copy(&extents.disk, target);
    }
    printf("{\"status\": %d", status);
    if (status == QC_OK) {
        printf(", \"size\": %" PRIu32 ", \"cluster\": %" PRIu32 ", \"entry\": %" PRIu64
               ", \"owns\": %s, \"runs\": [",
               file.size_bytes, file.cluster, file.entry_off,
               qc_fat_owns_pages(fat, &file, runs, count) ? "true" : "false");
        for (size_t i = 0; i < count; i++)
            printf("%s[%" PRIu64 ", %" PRIu64 "]", i ? ", " : "", runs[i].file_off,
                   runs[i].host_off);
        printf("]");
    }
    printf("}\n");
}

int main(int argc, char **argv)
{
    struct posix_file volume;
    struct qc_fat fat;
    int fd = argc > 3 ? open(argv[1], O_RDONLY | O_CLOEXEC) : -1;
    qc_status status;

    if (fd < 0 || posix_file_init(&volume, fd) != 0) {
        fprintf(stderr, "usage: qc-fat VOLUME FOLDER PATH...\n");
        return 1;
    }
    status = qc_fat_open(&fat, &volume.disk, window);
    if (status != QC_OK)
        printf("{\"status\": %d}\n", status);
    for (int i = 3; i < argc && status == QC_OK; i++) {
        char target[NAME_BYTES_MAX];

        snprintf(target, sizeof(target), "%s/%d", argv[2], i - 3);
        tell(&fat, argv[i], target);
    }
    close(fd);
    return 0;
}
