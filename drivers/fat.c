/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * A volume's shape, its directories and its chains; see fat.h for what they promise.
 *
 * All reads go through one window of the volume, as long as the caller's buffer. A public function
 * forgets it first, because the volume has another writer. What is read is copied out, so that no
 * pointer stays in the window while it moves on.
 */
#include "fat.h"

#define BOOT_BYTES            512u
#define SECTOR_BYTES_MAX      4096u
#define TABLES_MAX            2u
#define CLUSTERS_MIN_FAT16    4085u
#define CLUSTERS_MIN_FAT32    65525u
#define CLUSTERS_MAX          0x0FFFFFF4u /* what is above is no cluster's number */
#define CLUSTER_FIRST         2u
#define CHAIN_END             UINT32_MAX
#define WINDOW_NONE           UINT64_MAX
#define FLAG_ONE_TABLE        0x80u /* only one of FAT32's tables is kept up to date */
#define PAGE_BYTES            65536u
#define PAGE_BYTES_FAT12      8192u
#define DIRECTORY_ENTRIES_MAX 65536u
#define ENTRY_END             0x00u
#define ENTRY_DELETED         0xE5u
#define ATTRIBUTES            11u /* where they are in an entry */
#define ATTRIBUTES_MASK       0x3Fu
#define ATTRIBUTES_LONG       0x0Fu
#define ATTRIBUTE_LABEL       0x08u
#define ATTRIBUTE_DIRECTORY   0x10u
#define ENTRY_FACTS           20u /* first cluster, time of the change, size: to the end */
#define SHORT_BYTES           11u
#define BASE_BYTES            8u
#define NAME_UNITS_MAX        255u
#define PART_UNITS            13u
#define PART_NUMBER_MASK      0x3Fu
#define PART_LAST             0x40u

/* A name of the path, as entries have it. */
struct wanted {
    size_t units_count;
    bool is_short; /* it is one of 8.3 too */
    uint8_t brief[SHORT_BYTES];
    uint16_t units[NAME_UNITS_MAX]; /* UTF-16, folded */
};

/* The entries of a directory, run by run. */
struct walk {
    uint32_t cluster; /* 0: the root of FAT12 and FAT16 */
    uint32_t left;    /* bytes of this run */
    uint64_t off;
};

/* The long name before a short entry, whose parts come last one first. */
struct parts {
    bool is_equal; /* so far */
    uint8_t sum;   /* of the short name that it is for */
    unsigned number;
};

static uint32_t le16(const uint8_t *bytes)
{
    return bytes[0] | (uint32_t)bytes[1] << 8;
}

static uint32_t le32(const uint8_t *bytes)
{
    return le16(bytes) | le16(bytes + 2) << 16;
}

static bool is_power_of_two(uint32_t value)
{
    return value != 0 && (value & (value - 1)) == 0;
}

/* len bytes of the volume; the caller knows that they are on it. */
static qc_status fetch(struct qc_fat *fat, uint64_t off, uint8_t *out, size_t len)
{
    for (size_t done = 0; done < len; done++) {
        uint64_t from = (off + done) & ~(uint64_t)(QC_FAT_BUFFER_BYTES - 1);

        if (from != fat->buf_off) {
            uint64_t rest = fat->volume->size_bytes - from;
            size_t bytes = rest < QC_FAT_BUFFER_BYTES ? (size_t)rest : QC_FAT_BUFFER_BYTES;

            if (fat->volume->ops->read(fat->volume, from, fat->buf, bytes) != QC_OK)
                return QC_IO;
            fat->buf_off = from;
        }
        out[done] = fat->buf[off + done - from];
    }
    return QC_OK;
}

static bool is_cluster(const struct qc_fat *fat, uint32_t cluster)
{
    return cluster - CLUSTER_FIRST < fat->clusters_count; /* 0 and 1 become the largest numbers */
}

static uint64_t off_of(const struct qc_fat *fat, uint32_t cluster)
{
    return fat->data_off + (uint64_t)(cluster - CLUSTER_FIRST) * fat->cluster_bytes;
}

/* The table's entry of a cluster: the next one, CHAIN_END, or what is no cluster. */
static qc_status next_of(struct qc_fat *fat, uint32_t cluster, uint32_t *ret_next)
{
    uint32_t mask = fat->width == 12 ? 0xFFF : fat->width == 16 ? 0xFFFF : 0x0FFFFFFF;
    uint8_t raw[4] = {0};
    uint64_t off = fat->fat_off + (uint64_t)cluster * fat->width / 8;
    qc_status status = fetch(fat, off, raw, fat->width == 32 ? 4 : 2);
    uint32_t value = le32(raw);

    if (fat->width == 12 && cluster % 2 != 0)
        value >>= 4;
    value &= mask;
    *ret_next = value >= mask - 7 ? CHAIN_END : value;
    return status;
}

/* ---- the volume -------------------------------------------------------------------------- */

/* What the number of clusters makes the volume, and whether its other fields say the same. */
static bool takes_width(struct qc_fat *fat, const uint8_t *boot, uint64_t table_bytes)
{
    bool is_chained = le16(boot + 22) == 0; /* no 16-bit length of a table */
    uint32_t count = fat->clusters_count;

    fat->width = is_chained ? 32 : count < CLUSTERS_MIN_FAT16 ? 12 : 16;
    if (is_chained != (count >= CLUSTERS_MIN_FAT32) || is_chained != (fat->root_bytes == 0) ||
        table_bytes * 8 < (uint64_t)(count + CLUSTER_FIRST) * fat->width)
        return false;
    if (!is_chained)
        return true;
    fat->root_cluster = le32(boot + 44);
    return (boot[40] & FLAG_ONE_TABLE) == 0 && le16(boot + 42) == 0 &&
           is_cluster(fat, fat->root_cluster);
}

/* From the parameter block (section 3.1 and 3.3). */
static bool takes_shape(struct qc_fat *fat, const uint8_t *boot)
{
    uint32_t sector = le16(boot + 11), sectors_a_cluster = boot[13], media = boot[21];
    uint64_t table = le16(boot + 22) != 0 ? le16(boot + 22) : le32(boot + 36);
    uint64_t total = le16(boot + 19) != 0 ? le16(boot + 19) : le32(boot + 32);
    uint64_t clusters;

    if (boot[510] != 0x55 || boot[511] != 0xAA || !is_power_of_two(sector) || sector < BOOT_BYTES ||
        sector > SECTOR_BYTES_MAX || !is_power_of_two(sectors_a_cluster) || le16(boot + 14) == 0 ||
        boot[16] == 0 || boot[16] > TABLES_MAX || (media != 0xF0 && media < 0xF8))
        return false;
    fat->fat_off = (uint64_t)le16(boot + 14) * sector;
    fat->root_off = fat->fat_off + boot[16] * table * sector;
    fat->root_bytes = le16(boot + 17) * QC_FAT_ENTRY_BYTES;
    fat->data_off = (fat->root_off + fat->root_bytes + sector - 1) & ~(uint64_t)(sector - 1);
    fat->cluster_bytes = sectors_a_cluster * sector;
    total *= sector;
    if (total > fat->volume->size_bytes || fat->data_off >= total)
        return false;
    clusters = (total - fat->data_off) / fat->cluster_bytes;
    if (clusters > CLUSTERS_MAX)
        return false;
    fat->clusters_count = (uint32_t)clusters;
    return takes_width(fat, boot, table * sector);
}

qc_status qc_fat_open(struct qc_fat *fat, struct qc_disk *volume, void *buf)
{
    uint8_t nothing;
    qc_status status;

    *fat = (struct qc_fat){.volume = volume, .buf = buf, .buf_off = WINDOW_NONE};
    if (volume->size_bytes < BOOT_BYTES)
        return QC_FOREIGN;
    status = fetch(fat, 0, &nothing, 1);
    if (status != QC_OK)
        return status;
    if (!takes_shape(fat, fat->buf))
        return QC_FOREIGN;
    return le16(fat->buf + 11) < volume->block_bytes ? QC_UNSUPPORTED : QC_OK;
}

/* ---- names ------------------------------------------------------------------------------- */

static uint32_t folded(uint32_t unit)
{
    return unit >= 'a' && unit <= 'z' ? unit - 'a' + 'A' : unit;
}

static bool is_separator(char character)
{
    return character == '\\' || character == '/';
}

/* One character of UTF-8, at most four bytes; where the next one begins, or NULL. */
static const char *decoded(const char *text, uint32_t *ret_point)
{
    static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
    uint32_t lead = (uint8_t)*text++;
    unsigned more = lead < 0x80 ? 0 : lead < 0xC0 ? 4 : lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
    uint32_t point = more == 0 ? lead : lead & (0x3Fu >> more);

    if (more > 3 || lead > 0xF4)
        return NULL;
    for (unsigned i = 0; i < more; i++, text++) {
        if (((uint8_t)*text & 0xC0) != 0x80)
            return NULL;
        point = point << 6 | ((uint8_t)*text & 0x3F);
    }
    *ret_point = point;
    return point < least[more] || point > 0x10FFFF ? NULL : text;
}

/* The name as an entry of 8.3 has it, where it is one. */
static void shorten(struct wanted *wanted)
{
    size_t at = 0, end = BASE_BYTES;

    wanted->is_short = false;
    __builtin_memset(wanted->brief, ' ', SHORT_BYTES);
    for (size_t i = 0; i < wanted->units_count; i++) {
        uint16_t unit = wanted->units[i];

        if (unit == '.' && end == BASE_BYTES) {
            at = BASE_BYTES;
            end = SHORT_BYTES;
        } else if (unit <= ' ' || unit == '.' || unit >= 0x7F || at == end) {
            return;
        } else {
            wanted->brief[at++] = (uint8_t)unit;
        }
    }
    wanted->is_short = true;
}

/* The path's first name; what stands behind it, or NULL for what cannot be one. */
static const char *name_of(const char *path, struct wanted *wanted)
{
    size_t count = 0;

    while (*path != '\0' && !is_separator(*path)) {
        uint32_t point;

        path = decoded(path, &point);
        if (path == NULL || count + 2 > NAME_UNITS_MAX + (point < 0x10000))
            return NULL;
        if (point >= 0x10000) {
            wanted->units[count++] = (uint16_t)(0xD7C0 + (point >> 10));
            point = 0xDC00 | (point & 0x3FF);
        }
        wanted->units[count++] = (uint16_t)folded(point);
    }
    wanted->units_count = count;
    shorten(wanted);
    return path;
}

/* Section 7: the sum that ties a long name to its short one. */
static uint8_t sum_of(const uint8_t *brief)
{
    uint8_t sum = 0;

    for (size_t i = 0; i < SHORT_BYTES; i++)
        sum = (uint8_t)((sum << 7 | sum >> 1) + brief[i]);
    return sum;
}

/* Takes one part more of a long name. */
static void compare_part(struct parts *parts, const struct wanted *wanted, const uint8_t *entry)
{
    unsigned number = entry[0] & PART_NUMBER_MASK;

    if ((entry[0] & PART_LAST) != 0) {
        parts->is_equal = number * PART_UNITS - wanted->units_count < PART_UNITS;
        parts->sum = entry[13];
    } else if (number + 1 != parts->number || parts->sum != entry[13]) {
        parts->is_equal = false;
    }
    parts->number = number;
    for (unsigned i = 0; i < PART_UNITS && parts->is_equal; i++) {
        size_t at = (size_t)(number - 1) * PART_UNITS + i;
        size_t place = 1 + 2 * i + (i < 5 ? 0 : i < 11 ? 3 : 5);
        uint32_t want = at < wanted->units_count    ? wanted->units[at]
                        : at == wanted->units_count ? 0
                                                    : 0xFFFF;

        parts->is_equal = folded(le16(entry + place)) == want;
    }
}

static bool is_wanted(const struct parts *parts, const struct wanted *wanted, const uint8_t *entry)
{
    if ((entry[ATTRIBUTES] & ATTRIBUTE_LABEL) != 0)
        return false;
    if (parts->is_equal && parts->number == 1 && parts->sum == sum_of(entry))
        return true;
    return wanted->is_short && __builtin_memcmp(entry, wanted->brief, SHORT_BYTES) == 0;
}

/* ---- directories ------------------------------------------------------------------------- */

/* The walk's next entry. QC_RANGE: there is none. */
static qc_status next_entry(struct qc_fat *fat, struct walk *walk, uint8_t *entry)
{
    if (walk->left == 0) {
        qc_status status = QC_OK;
        uint32_t next = CHAIN_END;

        if (walk->cluster != 0)
            status = next_of(fat, walk->cluster, &next);
        if (status != QC_OK)
            return status;
        if (next == CHAIN_END)
            return QC_RANGE;
        if (!is_cluster(fat, next))
            return QC_CORRUPT;
        *walk = (struct walk){next, fat->cluster_bytes, off_of(fat, next)};
    }
    qc_status status = fetch(fat, walk->off, entry, QC_FAT_ENTRY_BYTES);
    walk->off += QC_FAT_ENTRY_BYTES;
    walk->left -= QC_FAT_ENTRY_BYTES;
    return status;
}

/* Finds a name in the directory that the walk begins; fills file, whatever the entry is of. */
static qc_status search(struct qc_fat *fat, struct walk *walk, const struct wanted *wanted,
                        struct qc_fat_file *file)
{
    struct parts parts = {.is_equal = false};
    uint8_t *entry = file->entry;

    for (unsigned i = 0; i < DIRECTORY_ENTRIES_MAX; i++) {
        qc_status status = next_entry(fat, walk, entry);

        if (status != QC_OK)
            return status;
        if (entry[0] == ENTRY_END)
            return QC_RANGE;
        if (entry[0] != ENTRY_DELETED && (entry[ATTRIBUTES] & ATTRIBUTES_MASK) == ATTRIBUTES_LONG) {
            compare_part(&parts, wanted, entry);
            continue;
        }
        if (entry[0] != ENTRY_DELETED && is_wanted(&parts, wanted, entry)) {
            file->entry_off = walk->off - QC_FAT_ENTRY_BYTES;
            file->size_bytes = le32(entry + 28);
            file->cluster = le16(entry + 26) | (fat->width == 32 ? le16(entry + 20) << 16 : 0);
            return QC_OK;
        }
        parts.is_equal = false;
    }
    return QC_CORRUPT;
}

qc_status qc_fat_find(struct qc_fat *fat, const char *path, struct qc_fat_file *ret_file)
{
    struct walk walk = {fat->root_cluster, fat->root_bytes, fat->root_off};
    struct qc_fat_file file = {.entry = {[ATTRIBUTES] = ATTRIBUTE_DIRECTORY}};
    static struct wanted wanted; /* too large for a frame; one lookup runs at a time */

    if (fat->width == 32)
        walk = (struct walk){walk.cluster, fat->cluster_bytes, off_of(fat, walk.cluster)};
    fat->buf_off = WINDOW_NONE;
    for (unsigned i = 0; i <= QC_FAT_DEPTH_MAX; i++) {
        while (is_separator(*path))
            path++;
        if (*path == '\0')
            break;
        if (i == QC_FAT_DEPTH_MAX || (file.entry[ATTRIBUTES] & ATTRIBUTE_DIRECTORY) == 0)
            return QC_RANGE;
        if (file.entry_off != 0) {
            if (!is_cluster(fat, file.cluster))
                return QC_CORRUPT;
            walk = (struct walk){file.cluster, fat->cluster_bytes, off_of(fat, file.cluster)};
        }
        path = name_of(path, &wanted);
        if (path == NULL)
            return QC_RANGE;
        qc_status status = search(fat, &walk, &wanted, &file);
        if (status != QC_OK)
            return status;
    }
    if ((file.entry[ATTRIBUTES] & ATTRIBUTE_DIRECTORY) != 0)
        return QC_REFUSED;
    *ret_file = file;
    return QC_OK;
}

/* ---- chains ------------------------------------------------------------------------------ */

/* Follows the chain. Its runs go to list, or are compared with known where list is NULL. */
static qc_status follow(struct qc_fat *fat, const struct qc_fat_file *file, struct qc_run *list,
                        const struct qc_run *known, size_t max, size_t *ret_count)
{
    uint64_t wanted_count =
        ((uint64_t)file->size_bytes + fat->cluster_bytes - 1) / fat->cluster_bytes;
    uint32_t cluster = wanted_count == 0 && file->cluster == 0 ? CHAIN_END : file->cluster;
    uint32_t last = 0;
    size_t count = 0;

    for (uint64_t i = 0; i < wanted_count; i++) {
        if (!is_cluster(fat, cluster))
            return QC_CORRUPT;
        if (i == 0 || cluster != last + 1) {
            struct qc_run run = {i * fat->cluster_bytes, off_of(fat, cluster)};

            if (count == max)
                return QC_UNSUPPORTED;
            if (list != NULL)
                list[count] = run;
            else if (known == NULL || known[count].file_off != run.file_off ||
                     known[count].host_off != run.host_off)
                return QC_REFUSED;
            count++;
        }
        last = cluster;
        qc_status status = next_of(fat, last, &cluster);
        if (status != QC_OK)
            return status;
    }
    *ret_count = count;
    return cluster == CHAIN_END ? QC_OK : QC_CORRUPT;
}

qc_status qc_fat_extents(struct qc_fat *fat, const struct qc_fat_file *file, struct qc_run *list,
                         size_t max, size_t *ret_count)
{
    fat->buf_off = WINDOW_NONE;
    return follow(fat, file, list, NULL, max, ret_count);
}

qc_status qc_fat_verify_entry(struct qc_fat *fat, const struct qc_fat_file *file)
{
    uint8_t entry[QC_FAT_ENTRY_BYTES];
    qc_status status;

    fat->buf_off = WINDOW_NONE;
    status = fetch(fat, file->entry_off, entry, sizeof(entry));
    if (status != QC_OK)
        return status;
    if (__builtin_memcmp(entry, file->entry, SHORT_BYTES) != 0 ||
        ((entry[ATTRIBUTES] ^ file->entry[ATTRIBUTES]) & (ATTRIBUTE_LABEL | ATTRIBUTE_DIRECTORY)) !=
            0 ||
        __builtin_memcmp(entry + ENTRY_FACTS, file->entry + ENTRY_FACTS,
                         sizeof(entry) - ENTRY_FACTS) != 0)
        return QC_REFUSED;
    return QC_OK;
}

qc_status qc_fat_verify(struct qc_fat *fat, const struct qc_fat_file *file,
                        const struct qc_run *list, size_t count)
{
    size_t found_count = 0;
    qc_status status = qc_fat_verify_entry(fat, file);

    if (status == QC_OK)
        status = follow(fat, file, NULL, list, count, &found_count);
    if (status == QC_OK || status == QC_IO)
        return status == QC_OK && found_count != count ? QC_REFUSED : status;
    return QC_REFUSED;
}

bool qc_fat_owns_pages(const struct qc_fat *fat, const struct qc_fat_file *file,
                       const struct qc_run *list, size_t count)
{
    uint64_t page = fat->width == 12 ? PAGE_BYTES_FAT12 : PAGE_BYTES;
    uint64_t end_of_data = off_of(fat, CLUSTER_FIRST + fat->clusters_count);

    for (size_t i = 0; i < count; i++) {
        uint64_t file_end = i + 1 < count ? list[i + 1].file_off
                                          : ((uint64_t)file->size_bytes + fat->cluster_bytes - 1) &
                                                ~(uint64_t)(fat->cluster_bytes - 1);
        uint64_t end = list[i].host_off + (file_end - list[i].file_off);

        if ((list[i].host_off - fat->root_off) % page != 0 ||
            ((end - fat->root_off) % page != 0 && end != end_of_data))
            return false;
    }
    return true;
}
