/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Plays a trace on an image, straight on the engine:
 *
 *   player IMAGE POOL_KIB w|r TRACE
 *
 * A line of the trace is "W offset bytes", "R offset bytes" (of the guest disk) or "F", a flush.
 * The n-th line, counted from 0, writes bytes of the value 1 + n % 254. 'r' opens for reading only.
 *
 * Promises: the image is opened, played on, settled and closed, as any front end does it; then one
 * line, "unpacked N", tells how many compressed clusters were unpacked. The exit status is 0, 1
 * with the engine's sentence on the standard error, or 2 where the command line is wrong.
 * Left to others: counting (tracer.c).
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../nbdkit/chain.h"

#define REQUEST_BYTES_MAX (2u * 1024 * 1024)
#define FILL_VALUES       254u

static _Alignas(QC_PAGE_BYTES) uint8_t pool[QC_POOL_BYTES_MAX];
static uint8_t buf[REQUEST_BYTES_MAX];
static struct qc_cache cache;
static struct qc_unpacker unpacker;
static struct qc_image image;
static struct chain chain;

static qc_status request(unsigned number, char kind, uint64_t guest_off, size_t len)
{
    switch (kind) {
    case 'W':
        memset(buf, (int)(1 + number % FILL_VALUES), len);
        return qc_write(&image, guest_off, buf, len);
    case 'R':
        return qc_read(&image, guest_off, buf, len);
    default:
        return qc_flush(&image);
    }
}

static qc_status play(FILE *trace)
{
    unsigned number = 0;
    char kind;

    while (fscanf(trace, " %c", &kind) == 1) {
        uint64_t guest_off = 0;
        size_t len = 0;
        qc_status status;

        if (kind != 'F' &&
            (fscanf(trace, "%" SCNu64 " %zu", &guest_off, &len) != 2 || len > sizeof(buf)))
            return QC_RANGE;
        status = request(number++, kind, guest_off, len);
        if (status != QC_OK)
            return status;
    }
    return QC_OK;
}

static qc_status run(FILE *trace, size_t pool_bytes, bool is_readonly)
{
    const struct qc_open_options options = {
        .readonly = is_readonly, .bases = &chain.bases, .unpacker = &unpacker};
    qc_status status;

    qc_cache_init(&cache, pool, pool_bytes);
    status = qc_open(&image, &cache, &chain.files[0].disk, &options);
    if (status == QC_OK)
        status = play(trace);
    if (status == QC_OK && !is_readonly)
        status = qc_settle(&image);
    return status;
}

int main(int count, char **words)
{
    unsigned long pool_bytes = count == 5 ? strtoul(words[2], NULL, 10) * 1024 : 0;
    bool is_readonly;
    qc_status status;
    FILE *trace;

    if (pool_bytes < QC_POOL_BYTES_MIN || pool_bytes > sizeof(pool))
        return 2;
    is_readonly = words[3][0] == 'r';
    trace = fopen(words[4], "r");
    if (trace == NULL || chain_open(&chain, words[1], is_readonly ? O_RDONLY : O_RDWR) != 0) {
        perror(words[0]);
        return 1;
    }
    status = run(trace, pool_bytes, is_readonly);
    chain_close(&chain);
    fclose(trace);
    if (status != QC_OK)
        fprintf(stderr, "player: %d %s\n", (int)status, qc_detail(&image));
    else
        printf("unpacked %" PRIu64 "\n", unpacker.unpacked_count);
    return status == QC_OK ? 0 : 1;
}
