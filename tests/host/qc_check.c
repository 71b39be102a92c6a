/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * qc_check of images on a host, with the figures that `qemu-img check --output=json` gives:
 *
 *   qc-check [-r leaks|all] [-p POOL_KIB] [-f] [-] IMAGE...
 *
 * Promises: a line of JSON for each image, in their order; with "-" the names come one a line from
 * the standard input, so that one process checks thousands. "exit" is what qemu-img would exit
 * with: 0 clean, 1 not checked to the end, 2 corruptions, 3 leaks. -f: a disk that does not grow.
 * Layers below and external data files are left alone.
 * The exit status is 0 unless the command line is wrong.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../core/qcow2.h"
#include "../../drivers/posix_file.h"
#include "../../efi/command/report/nowhere.h"

#define POOL_KIB_DEFAULT 1280u
#define NAME_BYTES_MAX   4096u

static _Alignas(QC_PAGE_BYTES) uint8_t pool[QC_POOL_BYTES_MAX];
static struct qc_cache cache;
static struct qc_image image;

static enum qc_check_fix fix = QC_FIX_NOTHING;
static unsigned pool_kib = POOL_KIB_DEFAULT;
static bool is_fixed;

/* An external data file: a check does not touch it, so it need not be there. */
static qc_status find_data_file(struct qc_bases *bases, struct qc_base *base)
{
    (void)bases;
    base->disk = nowhere();
    return base->is_data_file ? QC_OK : QC_REFUSED;
}

static int exit_of(qc_status status, const struct qc_check_result *result)
{
    if (status != QC_OK || result->check_errors > 0)
        return 1;
    return result->corruptions > 0 ? 2 : result->leaks > 0 ? 3 : 0;
}

static void print(qc_status status, const struct qc_check_result *result)
{
    printf("{\"exit\": %d, \"status\": %d, \"detail\": \"%s\"", exit_of(status, result), status,
           qc_detail(&image));
    printf(", \"corruptions\": %" PRIu64 ", \"leaks\": %" PRIu64 ", \"check-errors\": %" PRIu64,
           result->corruptions, result->leaks, result->check_errors);
    printf(", \"corruptions-fixed\": %" PRIu64 ", \"leaks-fixed\": %" PRIu64,
           result->corruptions_fixed, result->leaks_fixed);
    printf(", \"total-clusters\": %" PRIu64 ", \"allocated-clusters\": %" PRIu64,
           result->total_clusters, result->allocated_clusters);
    printf(", \"fragmented-clusters\": %" PRIu64 ", \"compressed-clusters\": %" PRIu64,
           result->fragmented_clusters, result->compressed_clusters);
    printf(", \"image-end-offset\": %" PRIu64 "}\n", result->image_end_off);
    fflush(stdout);
}

static qc_status check(const char *name, struct qc_check_result *ret_result)
{
    struct qc_bases bases = {.find = find_data_file};
    struct qc_open_options options = {.readonly = fix == QC_FIX_NOTHING,
                                      .is_backing_off = true,
                                      .is_for_check = true,
                                      .bases = &bases};
    struct posix_file file;
    struct qc_disk_ops ops;
    int fd = open(name, fix == QC_FIX_NOTHING ? O_RDONLY : O_RDWR);
    qc_status status = QC_IO;

    if (fd >= 0 && posix_file_init(&file, fd) == 0) {
        ops = *file.disk.ops;
        if (is_fixed)
            ops.grow = NULL;
        file.disk.ops = &ops;
        qc_cache_init(&cache, pool, (size_t)pool_kib * 1024);
        status = qc_open(&image, &cache, &file.disk, &options);
        if (status == QC_OK)
            status = qc_check(&image, fix, NULL, NULL, ret_result);
    }
    if (fd >= 0)
        close(fd);
    return status;
}

static void check_and_print(const char *name)
{
    struct qc_check_result result = {0};
    qc_status status = check(name, &result);

    print(status, &result);
}

static int usage(void)
{
    fprintf(stderr, "usage: qc-check [-r leaks|all] [-p POOL_KIB] [-f] [-] IMAGE...\n");
    return 2;
}

int main(int argc, char **argv)
{
    static char line[NAME_BYTES_MAX];
    int option;

    while ((option = getopt(argc, argv, "r:p:f")) != -1) {
        if (option == 'r' && strcmp(optarg, "leaks") == 0)
            fix = QC_FIX_LEAKS;
        else if (option == 'r' && strcmp(optarg, "all") == 0)
            fix = QC_FIX_ALL;
        else if (option == 'p')
            pool_kib = (unsigned)atoi(optarg);
        else if (option == 'f')
            is_fixed = true;
        else
            return usage();
    }
    if (pool_kib < QC_POOL_BYTES_MIN / 1024 || pool_kib > QC_POOL_BYTES_MAX / 1024)
        return usage();
    for (int i = optind; i < argc; i++) {
        if (strcmp(argv[i], "-") != 0) {
            check_and_print(argv[i]);
            continue;
        }
        while (fgets(line, sizeof(line), stdin) != NULL) {
            line[strcspn(line, "\n")] = '\0';
            check_and_print(line);
        }
    }
    return 0;
}
