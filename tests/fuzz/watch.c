/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Which writes are right (run.h, a and b). Foreign is a cluster with a count that nothing refers
 * to: as long as no repair takes it for a leak, it is somebody else's.
 */
#include "world.h"

#include "../../core/bytes.h"

#include <string.h>

/* Header fields that an engine may change, as offset and length. */
static const struct {
    unsigned off, len;
} fields[] = {{24, 8}, {36, 20}, {56, 16}, {72, 8}, {88, 8}};

static void watch_header(uint64_t host_off, const uint8_t *buf, size_t len)
{
    uint8_t header[QC_HEADER_BYTES_MAX];
    size_t cluster_bytes = (size_t)1 << world.layout.cluster_bits;

    memcpy(header, world.fuzz.bytes, sizeof(header));
    if (host_off < sizeof(header))
        memcpy(header + host_off, buf, qc_min(len, sizeof(header) - host_off));
    for (size_t i = sizeof(header); i < host_off + len && i < cluster_bytes; i++) {
        if (i >= host_off && buf[i - host_off] != world.fuzz.bytes[i])
            fuzz_fail("byte %zu behind the header changes", i);
    }
    for (unsigned i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        memcpy(header + fields[i].off, world.header + fields[i].off, fields[i].len);
    if (memcmp(header, world.header, sizeof(header)) != 0)
        fuzz_fail("a field of the header changes that never may");
}

/* Words of the data that the guest is writing now, among those that land on a table. */
static void watch_table(uint64_t cluster, uint64_t host_off, const uint8_t *buf, size_t len)
{
    for (uint64_t i = 0; i + 8 <= len; i += 8) {
        uint64_t word;

        memcpy(&word, buf + i, sizeof(word));
        if (world.data_tag != 0 && (word & ~UINT64_C(0xffff)) == world.data_tag)
            fuzz_fail("the guest's data lands at %lx, in table cluster %lx",
                      (unsigned long)(host_off + i), (unsigned long)cluster);
    }
}

void watch_write(uint64_t host_off, const uint8_t *buf, size_t len)
{
    unsigned cluster_bits = world.layout.cluster_bits;
    uint64_t first = host_off >> cluster_bits, last = (host_off + len - 1) >> cluster_bits;

    if (world.is_silent || (world.is_reading && last > 0))
        fuzz_fail("a write at %lx where none may be", (unsigned long)host_off);
    if (first == 0 && buf == NULL)
        fuzz_fail("the header is trimmed");
    if (first == 0)
        watch_header(host_off, buf, len);
    for (uint64_t i = first; i <= last; i++) {
        uint64_t from = i << cluster_bits, end = (i + 1) << cluster_bits;

        if (!world.is_repaired && !world.at_open.is_unsure && world.at_open.counts[i] > 0 &&
            world.at_open.references[i] == 0)
            fuzz_fail("a write at %lx, in cluster %lx, which is somebody else's",
                      (unsigned long)host_off, (unsigned long)i);
        from = from > host_off ? from : host_off;
        end = end < host_off + len ? end : host_off + len;
        if (buf != NULL && (world.now.uses[i] & OWNER_TABLE) != 0)
            watch_table(i, from, buf + (from - host_off), end - from);
    }
}

void watch_open(void)
{
    memcpy(world.header, world.fuzz.bytes, sizeof(world.header));
    owners_find(&world.at_open, world.fuzz.bytes, world.fuzz.disk.size_bytes);
    memset(&world.now, 0, sizeof(world.now));
    world.is_repaired = false;
}
