/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The command's reports on a host, to be held against qemu-img's:
 *
 *   qc-img info|map|check|snapshot [-l] [-r leaks|all] [--output=json] [--backing-chain] IMAGE
 *
 * Promises: standard output and exit status are the reports' (efi/command/report); the reason of an
 * error goes to the standard error. Names out of an image are followed wherever they lead, as
 * qemu-img does it: for images of one's own making only.
 */
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../drivers/posix_file.h"
#include "../../efi/command/report/nowhere.h"
#include "../../efi/command/report/report.h"

#define FILES_MAX (2 * QC_LAYERS_MAX)

/* What an image asks for, found. */
struct found {
    struct qc_bases bases; /* first: what the engine is given */
    struct posix_file files[FILES_MAX];
    char names[FILES_MAX][PATH_MAX];
    unsigned files_count;
    bool is_data_file_needed;
};

static _Alignas(QC_PAGE_BYTES) uint8_t pool[QC_POOL_BYTES_MIN * 16];
static struct qc_cache cache;
static struct qc_image image;
static struct found found;
static struct report_image subject;

static const char *command;
static enum report_form form = REPORT_TEXT;
static enum qc_check_fix fix = QC_FIX_NOTHING;
static bool has_chain;

static void put(struct out *out, const char *utf8, size_t len)
{
    (void)out;
    fwrite(utf8, 1, len, stdout);
}

static struct out standard_output = {put};

/* The name of a file that an image names, as seen from where the image's own is. */
static void full_name(char full[PATH_MAX], const char *image_name, const char *name)
{
    const char *slash = strrchr(image_name, '/');
    int folder = name[0] == '/' || slash == NULL ? 0 : (int)(slash - image_name) + 1;

    snprintf(full, PATH_MAX, "%.*s%s", folder, image_name, name);
}

static int open_file(struct posix_file *file, const char *name, int flags)
{
    int fd = open(name, flags | O_CLOEXEC);

    return fd < 0 || posix_file_init(file, fd) != 0 ? -1 : 0;
}

/* A data file is not touched but by a map, and so need not be there. */
static qc_status find(struct qc_bases *bases, struct qc_base *base)
{
    struct found *here = (struct found *)bases;
    const char **names = base->is_data_file ? subject.data_names : subject.names;
    char *name = here->names[here->files_count];
    struct posix_file *file = &here->files[here->files_count++];

    full_name(name, subject.names[base->is_data_file ? base->depth : base->depth - 1], base->name);
    names[base->depth] = name;
    base->disk = &file->disk;
    if (base->is_data_file && !here->is_data_file_needed)
        base->disk = nowhere();
    else if (open_file(file, name, O_RDONLY) != 0)
        return qc_fail(&base->detail, QC_IO, "%s cannot be opened", name);
    return QC_OK;
}

static int complain(const char *reason)
{
    fflush(stdout);
    fprintf(stderr, "qc-img: %s\n", reason);
    return 1;
}

static int ended(qc_status status)
{
    return status == QC_OK ? 0 : complain(subject.detail.text);
}

static uint64_t used_bytes(const char *name)
{
    struct stat st;

    return stat(name, &st) == 0 ? (uint64_t)st.st_blocks * 512 : REPORT_UNKNOWN;
}

/* Opens the image as a command needs it. */
static int open_image(const char *name)
{
    static struct posix_file file;
    struct qc_open_options options = {.readonly = fix == QC_FIX_NOTHING,
                                      .is_backing_off = strcmp(command, "map") != 0,
                                      .is_for_check = strcmp(command, "check") == 0,
                                      .bases = &found.bases};
    qc_status status;

    found = (struct found){.bases = {find}, .is_data_file_needed = !options.is_backing_off};
    subject = (struct report_image){.image = &image, .names = {name}};
    subject.used_bytes = used_bytes(name);
    if (open_file(&file, name, options.readonly ? O_RDONLY : O_RDWR) != 0)
        return complain("the image cannot be opened");
    qc_cache_init(&cache, pool, sizeof(pool));
    status = qc_open(&image, &cache, &file.disk, &options);
    if (status != QC_OK)
        return complain(status == QC_FOREIGN ? "not a qcow2 image" : qc_detail(&image));
    return 0;
}

/* The name of the layer below, as the image has it; false where there is none. */
static bool find_below(char below[PATH_MAX], const char *name)
{
    const struct qc_header *header = qc_info(&image);
    char stored[QC_BACKING_NAME_BYTES_MAX + 1] = "";

    if (header->backing_off == 0 || header->backing_bytes == 0 ||
        image.top.disk->ops->read(image.top.disk, header->backing_off, stored,
                                  header->backing_bytes) != QC_OK)
        return false;
    full_name(below, name, stored);
    return true;
}

static int info_raw(const char *name)
{
    struct posix_file file;

    if (open_file(&file, name, O_RDONLY) != 0)
        return complain("a layer cannot be opened");
    report_info_raw(&standard_output, name, file.disk.size_bytes, used_bytes(name), form);
    return 0;
}

/* The image and, where asked for, all below it. */
static int info(const char *name)
{
    static char names[QC_LAYERS_MAX + 1][PATH_MAX];
    bool is_list = has_chain && form == REPORT_JSON;

    fputs(is_list ? "[\n" : "", stdout);
    for (unsigned depth = 0; depth < QC_LAYERS_MAX; depth++) {
        bool is_raw = depth > 0 && strcmp(qc_info(&image)->backing_format, "raw") == 0;
        int status;

        if (depth > 0)
            fputs(is_list ? ",\n" : "\n", stdout);
        if (is_raw) {
            status = info_raw(name);
        } else {
            status = depth > 0 ? open_image(name) : 0;
            if (status == 0 && find_below(names[depth], name))
                subject.names[1] = names[depth];
            if (status == 0)
                status = ended(report_info(&standard_output, &subject, form));
        }
        if (status != 0)
            return status;
        if (is_raw || !has_chain || subject.names[1] == NULL)
            break;
        name = subject.names[1];
    }
    fputs(is_list ? "]\n" : "", stdout);
    return 0;
}

static int run(const char *name)
{
    int status = open_image(name);

    if (status != 0)
        return status;
    if (strcmp(command, "info") == 0)
        return info(name);
    if (strcmp(command, "map") == 0)
        return ended(report_map(&standard_output, &subject, form, NULL, NULL));
    if (strcmp(command, "snapshot") == 0)
        return ended(report_snapshots(&standard_output, &subject));
    status = report_check(&standard_output, &subject, form, fix, NULL, NULL);
    if (status == 1)
        complain(subject.detail.text);
    return status;
}

static int usage(void)
{
    fprintf(stderr, "usage: qc-img info|map|check|snapshot [-l] [-r leaks|all] [--output=json] "
                    "[--backing-chain] IMAGE\n");
    return 2;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"output", required_argument, NULL, 'o'}, {"backing-chain", no_argument, NULL, 'b'}, {0}};
    int option;

    while ((option = getopt_long(argc, argv, "r:l", options, NULL)) != -1) {
        if (option == 'r')
            fix = strcmp(optarg, "leaks") == 0 ? QC_FIX_LEAKS : QC_FIX_ALL;
        else if (option == 'o')
            form = strcmp(optarg, "json") == 0 ? REPORT_JSON : REPORT_TEXT;
        else if (option == 'b')
            has_chain = true;
        else if (option != 'l')
            return usage();
    }
    if (argc - optind != 2)
        return usage();
    command = argv[optind];
    return run(argv[optind + 1]);
}
