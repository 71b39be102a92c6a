/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The disk in memory and the builder of FAT volumes; see volume.h. The disk checks what an engine
 * promises to a disk: no empty request, none past its end, nothing but reads where it is readonly.
 */
#include "volume.h"

static bool fails(struct volume *volume)
{
    unsigned calls = volume->reads_count + volume->writes_count + volume->flushes_count;

    return calls == volume->fail_at;
}

static qc_status read_volume(struct qc_disk *disk, uint64_t host_off, void *buf, size_t len)
{
    struct volume *volume = (struct volume *)disk;

    assert_true(len > 0);
    assert_true(host_off <= disk->size_bytes && len <= disk->size_bytes - host_off);
    volume->reads_count++;
    volume->read_off_last = host_off;
    volume->read_len_last = len;
    memcpy(buf, volume->bytes + host_off, len);
    if (!fails(volume))
        return QC_OK;
    memset(buf, 0xee, len);
    return QC_IO;
}

static qc_status write_volume(struct qc_disk *disk, uint64_t host_off, const void *buf, size_t len)
{
    struct volume *volume = (struct volume *)disk;

    assert_false(disk->readonly);
    assert_true(len > 0);
    assert_true(host_off <= disk->size_bytes && len <= disk->size_bytes - host_off);
    volume->writes_count++;
    memcpy(volume->bytes + host_off, buf, len);
    return fails(volume) ? QC_IO : QC_OK;
}

static qc_status flush_volume(struct qc_disk *disk)
{
    struct volume *volume = (struct volume *)disk;

    assert_false(disk->readonly);
    volume->flushes_count++;
    return fails(volume) ? QC_IO : QC_OK;
}

void volume_init(struct volume *volume, uint64_t size_bytes)
{
    static const struct qc_disk_ops ops = {read_volume, write_volume, flush_volume, NULL, NULL};

    assert_true(size_bytes <= VOLUME_BYTES_MAX);
    memset(volume, 0, offsetof(struct volume, bytes) + size_bytes);
    volume->disk = (struct qc_disk){.ops = &ops, .size_bytes = size_bytes, .block_bytes = 512};
}

void put_le16(uint8_t *bytes, uint32_t value)
{
    bytes[0] = (uint8_t)value;
    bytes[1] = (uint8_t)(value >> 8);
}

void put_le32(uint8_t *bytes, uint32_t value)
{
    put_le16(bytes, value);
    put_le16(bytes + 2, value >> 16);
}

static void fill_in(uint32_t *field, uint32_t value)
{
    if (*field == 0)
        *field = value;
}

static uint64_t round_up(uint64_t count, uint64_t unit)
{
    return (count + unit - 1) / unit * unit;
}

void volume_format(struct volume *volume, uint32_t clusters_count)
{
    uint8_t *boot = volume->bytes;
    uint32_t width = clusters_count < 4085 ? 12 : clusters_count < 65525 ? 16 : 32;
    uint64_t sectors, table_bytes;

    volume->width = width;
    volume->clusters_count = clusters_count;
    fill_in(&volume->sector_bytes, 512);
    fill_in(&volume->sectors_a_cluster, 1);
    fill_in(&volume->reserved_count, width == 32 ? 32 : 1);
    fill_in(&volume->tables_count, 2);
    fill_in(&volume->root_entries_count, width == 32 ? 0 : 512);
    fill_in(&volume->root_cluster, width == 32 ? 2 : 0);
    table_bytes = round_up((clusters_count + 2) * (uint64_t)width, 8) / 8;
    fill_in(&volume->table_sectors, /* longer than need be, as they may be */
            2 * (uint32_t)(round_up(table_bytes, volume->sector_bytes) / volume->sector_bytes));
    volume->root_off = (uint64_t)volume->sector_bytes *
                       (volume->reserved_count + volume->tables_count * volume->table_sectors);
    volume->data_off =
        volume->root_off + round_up(volume->root_entries_count * 32, volume->sector_bytes);
    sectors = volume->data_off / volume->sector_bytes +
              (uint64_t)clusters_count * volume->sectors_a_cluster;
    assert_true(sectors * volume->sector_bytes <= VOLUME_BYTES_MAX);
    volume->disk.size_bytes = sectors * volume->sector_bytes;
    put_le16(boot + 11, volume->sector_bytes);
    boot[13] = (uint8_t)volume->sectors_a_cluster;
    put_le16(boot + 14, volume->reserved_count);
    boot[16] = (uint8_t)volume->tables_count;
    put_le16(boot + 17, volume->root_entries_count);
    put_le16(boot + 19, sectors < 65536 && width != 32 ? (uint32_t)sectors : 0);
    put_le32(boot + 32, sectors < 65536 && width != 32 ? 0 : (uint32_t)sectors);
    boot[21] = 0xF8;
    if (width == 32) {
        put_le32(boot + 36, volume->table_sectors);
        put_le32(boot + 44, volume->root_cluster);
        volume_link(volume, volume->root_cluster, 0x0FFFFFFF);
    } else {
        put_le16(boot + 22, volume->table_sectors);
    }
    put_le16(boot + 510, 0xAA55);
}

uint64_t volume_cluster_off(const struct volume *volume, uint32_t cluster)
{
    return volume->data_off +
           (uint64_t)(cluster - 2) * volume->sectors_a_cluster * volume->sector_bytes;
}

void volume_link(struct volume *volume, uint32_t cluster, uint32_t value)
{
    uint8_t *table = volume->bytes + (uint64_t)volume->reserved_count * volume->sector_bytes;
    uint8_t *at = table + (uint64_t)cluster * volume->width / 8;

    if (volume->width == 32) {
        put_le32(at, value | 0x50000000); /* the upper four bits are no part of it */
    } else if (volume->width == 16) {
        put_le16(at, value);
    } else if (cluster % 2 == 0) {
        at[0] = (uint8_t)value;
        at[1] = (uint8_t)((at[1] & 0xF0) | (value >> 8 & 0x0F));
    } else {
        at[0] = (uint8_t)((at[0] & 0x0F) | value << 4);
        at[1] = (uint8_t)(value >> 4);
    }
}

void volume_chain(struct volume *volume, const uint32_t *clusters)
{
    for (; clusters[0] != 0; clusters++)
        volume_link(volume, clusters[0], clusters[1] != 0 ? clusters[1] : 0x0FFFFFFF);
}

void volume_entry(struct volume *volume, uint64_t *off, const char *name, unsigned attributes,
                  uint32_t cluster, uint32_t size_bytes)
{
    uint8_t *entry = volume->bytes + *off;

    memcpy(entry, name, 11);
    entry[11] = (uint8_t)attributes;
    put_le16(entry + 18, 0x5821); /* last read, last changed */
    put_le32(entry + 22, 0x58216789);
    put_le16(entry + 20, volume->width == 32 ? cluster >> 16 : 0x1234);
    put_le16(entry + 26, cluster);
    put_le32(entry + 28, size_bytes);
    *off += 32;
}

static uint8_t sum_of(const char *name)
{
    unsigned sum = 0;

    for (unsigned i = 0; i < 11; i++)
        sum = ((sum & 1) * 0x80 + sum / 2 + (uint8_t)name[i]) & 0xFF;
    return (uint8_t)sum;
}

void volume_long(struct volume *volume, uint64_t *off, const uint16_t *units, unsigned units_count,
                 const char *name)
{
    static const uint8_t places[] = {1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30};
    unsigned parts = (units_count + 12) / 13;

    for (unsigned part = parts; part > 0; part--, *off += 32) {
        uint8_t *entry = volume->bytes + *off;

        memset(entry, 0, 32);
        entry[0] = (uint8_t)(part | (part == parts ? 0x40 : 0));
        entry[11] = 0x0F;
        entry[13] = sum_of(name);
        for (unsigned i = 0; i < 13; i++) {
            unsigned at = (part - 1) * 13 + i;

            put_le16(entry + places[i], at < units_count    ? units[at]
                                        : at == units_count ? 0
                                                            : 0xFFFF);
        }
    }
}
