/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Snapshots of an image on a host:
 *
 *   qc-snapshot IMAGE POOL_KIB -l
 *   qc-snapshot IMAGE POOL_KIB -c NAME | -a ID_OR_NAME | -d ID_OR_NAME
 *
 * Promises: -l prints a line a snapshot, in the order of their table, with tabs between id, name,
 * bytes of VM state, seconds and nanoseconds of the date, VM clock, bytes of the disk, instruction
 * count; it opens the image for reading only. The exit status is 0, 1 with the reason on the
 * standard error, or 2 where the command line is wrong. The date of a new one is always the same.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../core/qcow2.h"
#include "../../drivers/posix_file.h"

#define DATE_SEC  1700000000u
#define DATE_NSEC 5u

static _Alignas(QC_PAGE_BYTES) uint8_t pool[QC_POOL_BYTES_MAX];
static struct qc_cache cache;
static struct qc_image image;

static qc_status list(void)
{
    struct qc_snapshot snapshot;
    uint64_t cursor = 0;
    qc_status status;

    while ((status = qc_snapshot_next(&image, &cursor, &snapshot)) == QC_OK)
        printf("%s\t%s\t%" PRIu64 "\t%u\t%u\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\n", snapshot.id,
               snapshot.name, snapshot.vm_state_bytes, snapshot.date_sec, snapshot.date_nsec,
               snapshot.vm_clock_nsec, snapshot.guest_bytes, snapshot.icount);
    return status == QC_RANGE ? QC_OK : status;
}

static qc_status run(char option, const char *name)
{
    switch (option) {
    case 'l':
        return list();
    case 'c':
        return qc_snapshot_create(&image, name, DATE_SEC, DATE_NSEC);
    case 'a':
        return qc_snapshot_apply(&image, name);
    default:
        return qc_snapshot_delete(&image, name);
    }
}

int main(int count, char **words)
{
    struct qc_open_options options = {.is_backing_off = false};
    struct posix_file file;
    unsigned long pool_bytes;
    qc_status status;
    char option;
    int fd;

    if (count < 4 || words[3][0] != '-' || strchr("lcad", words[3][1]) == NULL)
        return 2;
    option = words[3][1];
    pool_bytes = strtoul(words[2], NULL, 10) * 1024;
    if (count != (option == 'l' ? 4 : 5) || pool_bytes < QC_POOL_BYTES_MIN ||
        pool_bytes > sizeof(pool))
        return 2;
    fd = open(words[1], option == 'l' ? O_RDONLY : O_RDWR);
    if (fd < 0 || posix_file_init(&file, fd) != 0) {
        perror(words[1]);
        return 1;
    }
    options.readonly = option == 'l';
    qc_cache_init(&cache, pool, pool_bytes);
    status = qc_open(&image, &cache, &file.disk, &options);
    if (status == QC_OK)
        status = run(option, words[4]);
    if (status != QC_OK)
        fprintf(stderr, "%s\n", qc_detail(&image));
    close(fd);
    return status == QC_OK ? 0 : 1;
}
