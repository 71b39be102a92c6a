/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The disks below a fuzzed image, and how a target says that a promise was broken.
 *
 * Promises: a request that breaks disk.h's promises ends the process; every call is counted, and
 * more of them than any operation may need end it too, so that a hang is a finding. What a write
 * may touch is asked of `watch` before it lands.
 *
 * Left to others: what is on them (render.c), and which writes are right (run.c).
 */
#ifndef FUZZ_DISK_H
#define FUZZ_DISK_H

#include "../../core/qcow2.h"

#define FUZZ_DISK_BYTES_MAX (4u * 1024 * 1024)
#define FUZZ_WINDOWS_MAX    4u /* stretches of the guest disk that are looked at */
#define FUZZ_WINDOW_DIGITS  4u /* guest clusters of each */
#define FUZZ_DIGITS         (FUZZ_WINDOWS_MAX * FUZZ_WINDOW_DIGITS)
#define FUZZ_CLUSTER_MAX    (64u * 1024)
#define FUZZ_SECTORS_MAX    (FUZZ_CLUSTER_MAX / QC_SECTOR_BYTES)

/* Lower calls of one operation: some forty times what any was seen to make. */
#define FUZZ_CALLS_MAX 20000u

struct fuzz_disk {
    struct qc_disk disk; /* first, so that a disk's pointer is its fuzz_disk's */
    struct qc_disk_ops ops;
    uint8_t *bytes;
    uint64_t bytes_max;                /* how far it grows */
    uint64_t used_end;                 /* behind it all of bytes is 0 */
    unsigned reach_bits, cluster_bits; /* a data file: bytes holds windows of it */
    uint32_t reads_count, writes_count, calls_count;
    uint32_t calls_most;    /* of all operations so far */
    uint32_t fail_write_in; /* the write of this number from now on fails; 0: none */
    bool has_failed;        /* one did */
    void (*watch)(uint64_t host_off, const uint8_t *buf, size_t len);
};

/* Says what was broken and ends the process, so that libFuzzer keeps the input. */
__attribute__((format(printf, 1, 2), noreturn)) void fuzz_fail(const char *format, ...);

/* The image's disk: host_bytes of zeros. */
void fuzz_disk_init(struct fuzz_disk *fuzz, uint64_t host_bytes, bool can_grow, bool can_trim);

/* An external data file, of which the first clusters of every 1 << reach_bits bytes are there. */
void fuzz_data_init(struct fuzz_disk *fuzz, uint64_t host_bytes, unsigned reach_bits,
                    unsigned cluster_bits);

/* A layer below: each sector holds fuzz_below_tag of its number, again and again. */
void fuzz_below_init(struct qc_disk *disk, uint64_t host_bytes);
uint64_t fuzz_below_tag(uint64_t sector);

/* An operation begins: calls are counted anew. */
void fuzz_disk_step(struct fuzz_disk *fuzz);

/* How many inputs there were, and how many of them were opened: printed when the process ends. */
void fuzz_count(bool is_open);

#endif
