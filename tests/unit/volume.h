/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * A plain disk in memory, and FAT volumes on it that are built field by field, so that each of them
 * can be made wrong. The builder follows the specification's words, not the code under test: it
 * shares none of it.
 */
#ifndef UNIT_VOLUME_H
#define UNIT_VOLUME_H

#include "support.h"

#include "../../drivers/fat.h"

#define VOLUME_BYTES_MAX (36u * 1024 * 1024) /* the smallest FAT32 fits */

struct volume {
    struct qc_disk disk; /* first, so that a disk's pointer is its volume's */
    unsigned reads_count, writes_count, flushes_count;
    unsigned fail_at; /* the call of this number, of whatever kind, fails; from 1, 0: none */
    uint64_t read_off_last, read_len_last;
    /* The shape: set before volume_format, which fills in what is 0. */
    uint32_t sector_bytes, sectors_a_cluster, reserved_count, tables_count, root_entries_count;
    uint32_t clusters_count, table_sectors, width, root_cluster;
    uint64_t root_off, data_off; /* as volume_format made it */
    uint8_t bytes[VOLUME_BYTES_MAX];
};

/* A disk of zeros. */
void volume_init(struct volume *volume, uint64_t size_bytes);

/* Writes the boot sector of a volume of so many clusters, on zeros; the disk ends with it. */
void volume_format(struct volume *volume, uint32_t clusters_count);

uint64_t volume_cluster_off(const struct volume *volume, uint32_t cluster);

/* Sets an entry of the first table. */
void volume_link(struct volume *volume, uint32_t cluster, uint32_t value);

/* The clusters one after the other as a chain. 0 ends the list. */
void volume_chain(struct volume *volume, const uint32_t *clusters);

/* Writes an entry at *off, and moves it on. name: the 11 bytes. */
void volume_entry(struct volume *volume, uint64_t *off, const char *name, unsigned attributes,
                  uint32_t cluster, uint32_t size_bytes);

/* Writes the parts of a long name for the short one; at most 255 units. */
void volume_long(struct volume *volume, uint64_t *off, const uint16_t *units, unsigned units_count,
                 const char *name);

void put_le16(uint8_t *bytes, uint32_t value);
void put_le32(uint8_t *bytes, uint32_t value);

#endif
