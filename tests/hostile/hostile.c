/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * One image that may be hostile, through the engine, and one line of verdict:
 *
 *   hostile [-f FOLDER] [-d DUMP] [-s SEED | -r] IMAGE
 *
 * Promises: the image is opened and read (all of a small disk, samples of a large one); where it
 * takes writes, some go to the first and the last cluster of each kind and are flushed. -s SEED
 * writes first, at places of that seed that nobody looked at before; -r only reads. -d writes what
 * was read to DUMP, one behind the other, and says the size, each range read and each one written.
 * Each stage ends within a second of processor time, or SIGPROF ends the program. Backing files are
 * looked for in FOLDER alone, without it nowhere; a data file is only read.
 * The exit status is 0 whatever the image is, 2 where the program cannot do its work.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "../../core/qcow2.h"
#include "../nbdkit/chain.h"

#define POOL_BYTES      (1280u * 1024)
#define STAGE_S         1
#define WHOLE_BYTES_MAX (16u * 1024 * 1024) /* a larger disk is sampled */
#define SAMPLE_BYTES    (64u * 1024)
#define PIECE_BYTES_MAX (1024u * 1024)
#define READ_BYTES_MAX  (24u * 1024 * 1024)
#define EXTENTS_MAX     32768u
#define FAILURES_MAX    4096u
#define BLIND_WRITES    6u
#define KINDS           (QC_EXTENT_COMPRESSED + 1)

static _Alignas(QC_PAGE_BYTES) uint8_t pool[POOL_BYTES];
static uint8_t piece[PIECE_BYTES_MAX];
static uint8_t pattern[QC_UNPACKED_BYTES];
static struct qc_cache cache;
static struct qc_unpacker unpacker;
static struct qc_image image;
static struct chain chain;
static int dump = -1;

/* What the disk was found to be: where each kind of extent was met first and last. */
static struct {
    uint64_t first_off, last_off; /* guest offsets */
    bool is_there;
} met[KINDS];

static uint64_t read_bytes;
static uint64_t range_off, range_len; /* read and not yet said */
static qc_status read_status = QC_OK; /* the first failure, where, and why */
static uint64_t failed_off;
static char failed_detail[QC_DETAIL_BYTES];
static unsigned writes_count, write_number;
static qc_status write_status = QC_OK;
static char write_detail[QC_DETAIL_BYTES];

/* Not wall time, which says more about the machine than about the image. */
static void start_stage(void)
{
    const struct itimerval limit = {.it_value = {.tv_sec = STAGE_S}};

    setitimer(ITIMER_PROF, &limit, NULL);
}

static const char *name_of(qc_status status)
{
    static const char *const names[] = {
        [QC_OK] = "SUCCESS",
        [QC_FOREIGN] = "NOT_FOUND",
        [QC_IO] = "DEVICE_ERROR",
        [QC_CORRUPT] = "VOLUME_CORRUPTED",
        [QC_UNSUPPORTED] = "UNSUPPORTED",
        [QC_REFUSED] = "ACCESS_DENIED",
        [QC_RANGE] = "INVALID_PARAMETER",
        [QC_READONLY] = "WRITE_PROTECTED",
        [QC_NOSPACE] = "DEVICE_ERROR",
    };

    return names[status];
}

/* What a request is answered with; only an open tells of a corrupt volume. */
static const char *name_of_request(qc_status status)
{
    return status == QC_CORRUPT || status == QC_UNSUPPORTED ? "DEVICE_ERROR" : name_of(status);
}

static void fail_here(const char *what)
{
    fprintf(stderr, "hostile: %s: %s\n", what, strerror(errno));
    exit(2);
}

static void say_range(void)
{
    if (range_len > 0 && dump >= 0)
        printf("read %" PRIu64 " %" PRIu64 "\n", range_off, range_len);
    range_len = 0;
}

static void keep(uint64_t guest_off, size_t len)
{
    if (range_off + range_len != guest_off)
        say_range();
    if (range_len == 0)
        range_off = guest_off;
    range_len += len;
    read_bytes += len;
    if (dump >= 0 && write(dump, piece, len) != (ssize_t)len)
        fail_here("dump");
}

static void note_failure(qc_status status, uint64_t guest_off)
{
    if (read_status != QC_OK)
        return;
    read_status = status;
    failed_off = guest_off;
    memcpy(failed_detail, qc_detail(&image), sizeof(failed_detail));
}

/* Reads len bytes at guest_off in pieces, until one cannot be had. */
static bool read_range(uint64_t guest_off, uint64_t len)
{
    for (uint64_t done = 0, part; done < len; done += part) {
        qc_status status;

        part = len - done < sizeof(piece) ? len - done : sizeof(piece);
        /* What a failed or short read leaves must not look like data. */
        memset(piece, 0xee, (size_t)part);
        status = qc_read(&image, guest_off + done, piece, (size_t)part);
        if (status != QC_OK) {
            note_failure(status, guest_off + done);
            return false;
        }
        keep(guest_off + done, (size_t)part);
    }
    return true;
}

static void meet(const struct qc_extent *extent, uint64_t guest_off)
{
    uint64_t last_off = (guest_off + extent->len - 1) & ~QC_U(qc_info(&image)->cluster_bytes - 1);

    if (!met[extent->kind].is_there)
        met[extent->kind].first_off = guest_off;
    met[extent->kind].last_off = last_off < guest_off ? guest_off : last_off;
    met[extent->kind].is_there = true;
}

/* The disk from one end to the other; damage ends an extent, and the next cluster is tried. */
static void read_disk(void)
{
    const uint64_t size = qc_size(&image), cluster_bytes = qc_info(&image)->cluster_bytes;
    const uint64_t head_bytes = size > WHOLE_BYTES_MAX ? SAMPLE_BYTES : size;
    uint64_t guest_off = 0;
    unsigned failures_count = 0;

    for (unsigned i = 0; i < EXTENTS_MAX && failures_count < FAILURES_MAX && guest_off < size &&
                         read_bytes < READ_BYTES_MAX;
         i++) {
        struct qc_extent extent;
        qc_status status = qc_map(&image, guest_off, size - guest_off, &extent);

        if (status != QC_OK) {
            note_failure(status, guest_off);
            failures_count++;
            guest_off = (guest_off & ~(cluster_bytes - 1)) + cluster_bytes;
            continue;
        }
        meet(&extent, guest_off);
        if (!read_range(guest_off, extent.len < head_bytes ? extent.len : head_bytes))
            failures_count++;
        guest_off += extent.len;
    }
    if (guest_off < size)
        read_range(size - QC_SECTOR_BYTES, QC_SECTOR_BYTES);
    say_range();
}

/* Each write has a byte of its own; what fails may have landed in part, and is said all the same.
 */
static bool write_range(uint64_t guest_off, uint64_t len)
{
    uint8_t byte = (uint8_t)(0xa0 + write_number++);
    qc_status status;

    if (write_status != QC_OK || guest_off >= qc_size(&image))
        return false;
    if (len > qc_size(&image) - guest_off)
        len = qc_size(&image) - guest_off;
    memset(pattern, byte, (size_t)len);
    status = qc_write(&image, guest_off, pattern, (size_t)len);
    if (dump >= 0)
        printf("%s %" PRIu64 " %" PRIu64 " %u\n", status == QC_OK ? "written" : "unwritten",
               guest_off, len, byte);
    if (status != QC_OK) {
        write_status = status;
        memcpy(write_detail, qc_detail(&image), sizeof(write_detail));
        return false;
    }
    writes_count++;
    return true;
}

/* A sector is a part of a cluster, and of a subcluster, wherever there are parts. */
static void write_where_met(void)
{
    const uint64_t cluster_bytes = qc_info(&image)->cluster_bytes;

    for (unsigned kind = 0; kind < KINDS; kind++) {
        if (!met[kind].is_there)
            continue;
        write_range(met[kind].first_off & ~(cluster_bytes - 1), cluster_bytes);
        write_range(met[kind].last_off + (cluster_bytes > QC_SECTOR_BYTES ? QC_SECTOR_BYTES : 0),
                    QC_SECTOR_BYTES);
    }
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void write_blindly(uint64_t seed)
{
    const uint64_t cluster_bytes = qc_info(&image)->cluster_bytes;
    uint64_t state = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;

    for (unsigned i = 0; i < BLIND_WRITES; i++) {
        uint64_t guest_off = next_random(&state) % qc_size(&image) & ~QC_U(QC_SECTOR_BYTES - 1);
        uint64_t len = QC_SECTOR_BYTES;

        if (next_random(&state) % 2 == 0) {
            guest_off &= ~(cluster_bytes - 1);
            len = cluster_bytes;
        }
        write_range(guest_off, len);
    }
}

static void flush(void)
{
    qc_status status = qc_flush(&image);

    if (status == QC_OK)
        status = qc_settle(&image);
    if (dump >= 0)
        printf("%s\n", status == QC_OK ? "flushed" : "unflushed");
    if (status != QC_OK && write_status == QC_OK) {
        write_status = status;
        memcpy(write_detail, qc_detail(&image), sizeof(write_detail));
    }
}

static void say_verdict(const char *reason)
{
    printf("verdict opened");
    if (reason[0] != '\0')
        printf(" read-only (%s)", reason);
    if (read_status != QC_OK)
        printf(", read failed %s at guest 0x%" PRIx64 ": %s", name_of_request(read_status),
               failed_off, failed_detail);
    else
        printf(", read %" PRIu64 " bytes", read_bytes);
    if (write_status != QC_OK)
        printf(", write failed %s: %s", name_of_request(write_status), write_detail);
    else if (writes_count > 0)
        printf(", written and flushed");
    printf("\n");
}

/* What was refused is said with what the driver answers. */
static qc_status open_image(const char *name, const char *folder, bool is_readonly)
{
    struct qc_open_options options = {.readonly = is_readonly, .unpacker = &unpacker};
    int error = chain_open(&chain, name, is_readonly ? O_RDONLY : O_RDWR);
    qc_status status;

    if (error == 0 && folder != NULL) {
        close(chain.folder);
        chain.folder = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        options.bases = &chain.bases;
        error = chain.folder < 0 ? errno : 0;
    }
    if (error != 0) {
        errno = error;
        fail_here(name);
    }
    chain.flags = O_RDONLY; /* of data files, which are nobody's copy */
    qc_cache_init(&cache, pool, sizeof(pool));
    status = qc_open(&image, &cache, &chain.files[0].disk, &options);
    if (status == QC_FOREIGN)
        printf("verdict not qcow2\n");
    else if (status != QC_OK)
        printf("verdict refused %s: %s\n", name_of(status), qc_detail(&image));
    return status;
}

static void run(bool is_readonly, bool is_blind, uint64_t seed)
{
    struct qc_detail reason = image.readonly_reason;
    bool is_writing = !is_readonly && reason.text[0] == '\0';

    if (dump >= 0)
        printf("%s %" PRIu64 "\n", is_writing ? "writable" : "readable", qc_size(&image));
    start_stage();
    if (is_blind && is_writing) {
        write_blindly(seed);
        flush();
        start_stage();
    }
    read_disk();
    if (!is_blind && is_writing && read_status == QC_OK) {
        start_stage();
        write_where_met();
        flush();
    }
    say_verdict(is_readonly ? "" : reason.text);
}

int main(int argc, char **argv)
{
    const char *folder = NULL;
    bool is_readonly = false, is_blind = false;
    uint64_t seed = 0;
    int option;

    while ((option = getopt(argc, argv, "f:d:s:r")) != -1) {
        if (option == 'f') {
            folder = optarg;
        } else if (option == 'd') {
            dump = open(optarg, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
            if (dump < 0)
                fail_here(optarg);
        } else if (option == 's') {
            is_blind = true;
            seed = strtoull(optarg, NULL, 0);
        } else if (option == 'r') {
            is_readonly = true;
        } else {
            return 2;
        }
    }
    if (optind + 1 != argc) {
        fprintf(stderr, "usage: hostile [-f FOLDER] [-d DUMP] [-s SEED | -r] IMAGE\n");
        return 2;
    }
    start_stage();
    if (open_image(argv[optind], folder, is_readonly) == QC_OK)
        run(is_readonly, is_blind, seed);
    fflush(stdout);
    return 0;
}
