/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * A recipe's image, without a fault: header, counts, tables, snapshots that share all of the active
 * tree, data, and clusters packed by hand for either decoder.
 *
 * Clusters are handed out from the front, and each reference is counted as it is made; the counts
 * are stored last.
 */
#include "recipe.h"

#include "../../core/bytes.h"
#include "../../core/map.h"
#include "../sim/deflate.h"

#include <string.h>

#define CLUSTERS_PLANNED   96u /* that have a count; nothing needs more */
#define EXT_BACKING_FORMAT 0xe2792acau
#define EXT_DATA_FILE      0x44415441u
#define SNAPSHOT_EXTRA     24u
#define JUNK_TAG           UINT64_C(0x5e5e5e5e5e5e5e5e) /* what free clusters hold */
#define PACKED_BYTES_MAX   (FUZZ_CLUSTER_MAX + 2048)

enum flavour { FLAVOUR_ZERO = 4, FLAVOUR_ZERO_KEPT, FLAVOUR_PACKED, FLAVOUR_PACKED_TOO };

struct render {
    const struct recipe *recipe;
    struct layout *layout;
    struct guest_tags *tags;
    uint8_t *bytes;
    struct fuzz_disk *data;
    uint64_t next; /* host cluster */
    uint64_t packed_off, packed_end;
    unsigned share; /* trees that refer to each guest cluster */
    uint16_t counts[CLUSTERS_PLANNED];
};

static uint64_t take(struct render *render, unsigned clusters, unsigned count)
{
    uint64_t host_off = render->next << render->layout->cluster_bits;

    if (render->next + clusters > CLUSTERS_PLANNED)
        fuzz_fail("the recipe needs more clusters than were planned");
    for (unsigned i = 0; i < clusters; i++)
        render->counts[render->next++] = (uint16_t)count;
    return host_off;
}

static void fill_sector(uint8_t *bytes, uint64_t tag)
{
    for (unsigned i = 0; i < QC_SECTOR_BYTES; i += 8)
        memcpy(bytes + i, &tag, 8);
}

static uint64_t data_tag(unsigned digit, unsigned sector)
{
    return UINT64_C(0x1d) << 56 | digit << 16 | sector;
}

/* ---- packed clusters ---------------------------------------------------------------------- */

static size_t pack_deflate(uint8_t *out, const uint64_t *tags, unsigned sectors, bool is_stored)
{
    size_t len = 0;

    for (unsigned i = 0; i < sectors; i++) {
        uint8_t sector[QC_SECTOR_BYTES];

        fill_sector(sector, tags[i]);
        len += is_stored ? deflate_stored(out + len, sector, sizeof(sector), i + 1 == sectors)
                         : deflate_repeat(out + len, tags[i], QC_SECTOR_BYTES, i + 1 == sectors);
    }
    return len;
}

/* A frame of raw blocks, or of repeated bytes (RFC 8878, 3.1.1). */
static size_t pack_zstd(uint8_t *out, const uint64_t *tags, unsigned sectors, bool is_stored)
{
    static const uint8_t magic[4] = {0x28, 0xb5, 0x2f, 0xfd};
    unsigned content = sectors * QC_SECTOR_BYTES - 256; /* a size of two bytes, one segment */
    size_t len = 7;

    memcpy(out, magic, sizeof(magic));
    out[4] = 0x60;
    out[5] = (uint8_t)(content & 0xff);
    out[6] = (uint8_t)(content >> 8);
    for (unsigned i = 0; i < sectors; i++) {
        unsigned head =
            QC_SECTOR_BYTES << 3 | (is_stored ? 0u : 1u) << 1 | (unsigned)(i + 1 == sectors);

        for (unsigned k = 0; k < 3; k++)
            out[len++] = (uint8_t)(head >> 8 * k & 0xff);
        if (is_stored) {
            fill_sector(out + len, tags[i]);
            len += QC_SECTOR_BYTES;
        } else {
            out[len++] = (uint8_t)(tags[i] & 0xff);
        }
    }
    return len;
}

/* Counts are small in some images: there each piece has its own clusters. */
static uint64_t place_packed(struct render *render, size_t len)
{
    unsigned cluster_bits = render->layout->cluster_bits;
    uint64_t cluster_bytes = UINT64_C(1) << cluster_bits, host_off;

    if (render->recipe->refcount_order < 3 || render->packed_off == render->packed_end ||
        render->packed_end != render->next << cluster_bits) {
        render->packed_off = take(render, 1, 0);
        render->packed_end = render->packed_off + cluster_bytes;
    }
    while (render->packed_end - render->packed_off < len) {
        take(render, 1, 0);
        render->packed_end += cluster_bytes;
    }
    host_off = render->packed_off;
    render->packed_off += len;
    for (uint64_t i = host_off >> cluster_bits; i <= (host_off + len - 1) >> cluster_bits; i++)
        render->counts[i] = (uint16_t)(render->counts[i] + render->share);
    return host_off;
}

static uint64_t pack(struct render *render, uint64_t *tags, const struct recipe_item *item)
{
    static uint8_t packed[PACKED_BYTES_MAX];
    unsigned cluster_bits = render->layout->cluster_bits;
    unsigned sectors = 1u << cluster_bits >> 9;
    bool is_stored = (item->c & 1) != 0;
    uint64_t host_off, end;
    size_t len;

    for (unsigned i = 0; i < sectors && render->recipe->is_zstd && !is_stored; i++)
        tags[i] = UINT64_C(0x0101010101010101) * (1 + (item->a + i) % 200);
    len = render->recipe->is_zstd ? pack_zstd(packed, tags, sectors, is_stored)
                                  : pack_deflate(packed, tags, sectors, is_stored);
    host_off = place_packed(render, len);
    memcpy(render->bytes + host_off, packed, len);
    end = (host_off + len - 1) >> 9;
    return QC_ENTRY_COMPRESSED | host_off | (end - (host_off >> 9)) << (62 - (cluster_bits - 8));
}

/* ---- the guest's clusters ----------------------------------------------------------------- */

/* Which subclusters have bytes of their own, and which of the others read as zeros. */
static uint64_t sub_bits(struct render *render, const struct recipe_item *item, unsigned digit)
{
    uint64_t allocated = (item->c & 3) == 0 ? QC_SUBS_ALLOCATED : item->c;
    uint64_t zero = (uint64_t)(item->b * 0x10001u) & ~allocated;
    unsigned sectors = 1u << render->layout->cluster_bits >> 9 >> QC_SUBCLUSTER_BITS;

    for (unsigned i = 0; i < QC_SUBCLUSTERS * sectors; i++) {
        uint64_t number = digit_off(render->layout, digit) / QC_SECTOR_BYTES + i;
        uint64_t *tag = &render->tags->sectors[digit][i];

        if (zero >> (i / sectors) & 1)
            *tag = 0;
        else if (!(allocated >> (i / sectors) & 1))
            *tag =
                number * QC_SECTOR_BYTES < render->layout->below_bytes ? fuzz_below_tag(number) : 0;
    }
    return allocated | zero << QC_SUBCLUSTERS;
}

static void fill_cluster(struct render *render, unsigned digit, uint64_t host_off)
{
    unsigned sectors = 1u << render->layout->cluster_bits >> 9;
    uint8_t *bytes = render->bytes + host_off;

    if (render->recipe->has_data_file)
        bytes = render->data->bytes + ((uint64_t)digit << render->layout->cluster_bits);
    for (unsigned i = 0; i < sectors; i++)
        fill_sector(bytes + i * QC_SECTOR_BYTES, data_tag(digit, i));
}

/* A plain cluster's place: its own, or its guest offset in a data file. */
static uint64_t place_plain(struct render *render, unsigned digit)
{
    uint64_t host_off;

    if (render->recipe->has_data_file)
        return digit_off(render->layout, digit) | QC_ENTRY_COPIED;
    host_off = take(render, 1, render->share);
    return host_off | (render->share == 1 ? QC_ENTRY_COPIED : 0);
}

static void map_digit(struct render *render, const struct recipe_item *item)
{
    const struct recipe *recipe = render->recipe;
    unsigned digit = item->a % FUZZ_DIGITS, flavour = item->a >> 4 & 7;
    uint64_t *tags = render->tags->sectors[digit], entry, bits = 0;
    unsigned window = digit / FUZZ_WINDOW_DIGITS, in_window = digit % FUZZ_WINDOW_DIGITS;
    uint8_t *place;

    if (window >= recipe->windows)
        return;
    place =
        render->bytes + render->layout->l2_off[window] + in_window * render->layout->l2_words * 8;
    if ((qc_be64(place) | qc_be64(place + (render->layout->l2_words - 1) * 8)) != 0)
        return;
    if (recipe->version < 3 && (flavour == FLAVOUR_ZERO || flavour == FLAVOUR_ZERO_KEPT))
        return;
    for (unsigned i = 0; i < FUZZ_SECTORS_MAX; i++)
        tags[i] = data_tag(digit, i);
    if (flavour >= FLAVOUR_PACKED && !recipe->has_data_file) {
        entry = pack(render, tags, item);
    } else if (flavour == FLAVOUR_ZERO || flavour == FLAVOUR_ZERO_KEPT) {
        /* A kept cluster holds bytes that must not show. */
        memset(tags, 0, sizeof(render->tags->sectors[0]));
        entry = flavour == FLAVOUR_ZERO_KEPT ? place_plain(render, digit) : 0;
        if (entry != 0)
            fill_cluster(render, digit, entry & QC_ENTRY_OFFSET_MASK);
        bits = recipe->is_extended ? QC_SUBS_ZERO : 0;
        entry |= recipe->is_extended ? 0 : QC_ENTRY_ZERO;
    } else {
        entry = place_plain(render, digit);
        fill_cluster(render, digit, entry & QC_ENTRY_OFFSET_MASK);
        bits = recipe->is_extended ? sub_bits(render, item, digit) : 0;
    }
    qc_put_be64(place, entry);
    if (recipe->is_extended)
        qc_put_be64(place + 8, bits);
}

/* ---- header and tables -------------------------------------------------------------------- */

static void put_header(struct render *render)
{
    const struct recipe *recipe = render->recipe;
    const struct layout *layout = render->layout;
    uint8_t *bytes = render->bytes, *end = bytes + QC_HEADER_V2_BYTES;

    memcpy(bytes, "QFI\xfb", 4);
    qc_put_be32(bytes + 4, recipe->version);
    qc_put_be32(bytes + 20, layout->cluster_bits);
    qc_put_be64(bytes + 24, layout->guest_bytes);
    qc_put_be32(bytes + 36, layout->l1_entries);
    qc_put_be64(bytes + 40, layout->l1_off);
    qc_put_be64(bytes + 48, layout->reftable_off);
    qc_put_be32(bytes + 56, 1);
    qc_put_be32(bytes + 60, recipe->snapshots_count);
    qc_put_be64(bytes + 64, layout->snapshots_off);
    if (recipe->version == 3) {
        qc_put_be64(bytes + 72, (recipe->is_dirty ? QC_INCOMPATIBLE_DIRTY : 0) |
                                    (recipe->is_corrupt ? QC_INCOMPATIBLE_CORRUPT : 0) |
                                    (recipe->has_data_file ? QC_INCOMPATIBLE_DATA_FILE : 0) |
                                    (recipe->is_zstd ? QC_INCOMPATIBLE_COMPRESSION : 0) |
                                    (recipe->is_extended ? QC_INCOMPATIBLE_EXTENDED_L2 : 0));
        qc_put_be64(bytes + 88, recipe->has_autoclear ? UINT64_C(1) << 40 : 0);
        qc_put_be32(bytes + 96, recipe->refcount_order);
        qc_put_be32(bytes + 100, QC_HEADER_BYTES_MAX);
        bytes[104] = recipe->is_zstd;
        end = bytes + QC_HEADER_BYTES_MAX;
    }
    if (recipe->has_data_file) {
        qc_put_be32(end, EXT_DATA_FILE);
        qc_put_be32(end + 4, 4);
        memcpy(end + 8, "data", 4);
        end += 16;
    }
    if (recipe->has_below) {
        qc_put_be32(end, EXT_BACKING_FORMAT);
        qc_put_be32(end + 4, 3);
        memcpy(end + 8, "raw", 3);
        end += 24; /* and the end of extensions */
        memcpy(end, "base", 4);
        qc_put_be64(bytes + 8, (uint64_t)(end - bytes));
        qc_put_be32(bytes + 16, 4);
    }
}

/* Entries with an id, a name of two letters and all the extra data that is known. */
static void put_snapshots(struct render *render)
{
    struct layout *layout = render->layout;
    uint8_t *entry;

    if (render->recipe->snapshots_count == 0)
        return;
    layout->snapshots_off = take(render, 1, 1);
    entry = render->bytes + layout->snapshots_off;
    for (unsigned i = 0; i < render->recipe->snapshots_count; i++) {
        layout->snapshot_l1_off[i] = take(render, 1, 1);
        qc_put_be64(entry, layout->snapshot_l1_off[i]);
        qc_put_be32(entry + 8, layout->l1_entries);
        qc_put_be32(entry + 12, 1 << 16 | 2);
        qc_put_be32(entry + 36, SNAPSHOT_EXTRA);
        qc_put_be64(entry + 48, layout->guest_bytes);
        qc_put_be64(entry + 56, UINT64_MAX);
        entry[64] = (uint8_t)('1' + i);
        entry[65] = 's';
        entry[66] = (uint8_t)('1' + i);
        for (unsigned k = 0; k < layout->l1_entries; k++)
            qc_put_be64(render->bytes + layout->snapshot_l1_off[i] + k * 8, layout->l2_off[k]);
        entry += 72;
    }
}

static void put_counts(struct render *render)
{
    const struct layout *layout = render->layout;

    for (unsigned i = 0; i < layout->blocks_count; i++)
        qc_put_be64(render->bytes + layout->reftable_off + i * 8,
                    layout->first_block_off + ((uint64_t)i << layout->cluster_bits));
    for (unsigned i = 0; i < CLUSTERS_PLANNED; i++)
        layout_set_count(layout, render->bytes, i, render->counts[i]);
}

static void measure(const struct recipe *recipe, struct layout *layout)
{
    uint64_t per_block;

    memset(layout, 0, sizeof(*layout));
    layout->version = recipe->version;
    layout->cluster_bits = recipe->cluster_bits;
    layout->refcount_order = recipe->refcount_order;
    layout->l2_words = recipe->is_extended ? 2 : 1;
    layout->reach_bits = 2 * recipe->cluster_bits - 3 - (recipe->is_extended ? 1 : 0);
    layout->l1_entries = recipe->windows;
    layout->guest_bytes = digit_off(layout, recipe->windows * FUZZ_WINDOW_DIGITS - 1) +
                          (UINT64_C(1) << recipe->cluster_bits);
    if (recipe->tail_sectors < 1u << recipe->cluster_bits >> 9)
        layout->guest_bytes -= recipe->tail_sectors * QC_SECTOR_BYTES;
    per_block = (UINT64_C(8) << recipe->cluster_bits) >> recipe->refcount_order;
    layout->blocks_count = (unsigned)((CLUSTERS_PLANNED + per_block - 1) / per_block);
    if (recipe->has_below)
        layout->below_bytes = recipe->below_kind == 0
                                  ? layout->guest_bytes / 2 / QC_SECTOR_BYTES * QC_SECTOR_BYTES
                                  : layout->guest_bytes << (recipe->below_kind - 1);
}

/* What nothing is mapped to. */
static void tag_below(struct render *render)
{
    const struct layout *layout = render->layout;

    memset(render->tags, 0, sizeof(*render->tags));
    for (unsigned digit = 0; digit < FUZZ_DIGITS && layout->below_bytes > 0; digit++) {
        uint64_t first = digit_off(layout, digit) / QC_SECTOR_BYTES;

        for (unsigned i = 0; i < 1u << layout->cluster_bits >> 9; i++) {
            if ((first + i) * QC_SECTOR_BYTES < layout->below_bytes &&
                (first + i) * QC_SECTOR_BYTES < layout->guest_bytes)
                render->tags->sectors[digit][i] = fuzz_below_tag(first + i);
        }
    }
}

void recipe_render(const struct recipe *recipe, struct fuzz_disk *fuzz, struct fuzz_disk *data,
                   struct layout *ret_layout, struct guest_tags *ret_tags)
{
    static struct render render;
    uint64_t host_bytes;

    memset(&render, 0, sizeof(render));
    render =
        (struct render){.recipe = recipe, .layout = ret_layout, .tags = ret_tags, .data = data};
    measure(recipe, ret_layout);
    fuzz_disk_init(fuzz, 0, recipe->can_grow, recipe->can_trim);
    fuzz_data_init(data, ret_layout->guest_bytes, ret_layout->reach_bits, recipe->cluster_bits);
    render.bytes = fuzz->bytes;
    render.share = 1 + recipe->snapshots_count;
    take(&render, 1, 1);
    ret_layout->reftable_off = take(&render, 1, 1);
    ret_layout->first_block_off = take(&render, ret_layout->blocks_count, 1);
    ret_layout->l1_off = take(&render, 1, 1);
    tag_below(&render);
    for (unsigned i = 0; i < recipe->windows; i++) {
        ret_layout->l2_off[i] = take(&render, 1, render.share);
        qc_put_be64(render.bytes + ret_layout->l1_off + i * 8,
                    ret_layout->l2_off[i] | (render.share == 1 ? QC_ENTRY_COPIED : 0));
    }
    put_snapshots(&render);
    put_header(&render);
    for (unsigned i = 0; i < recipe->items_count; i++) {
        if (recipe->items[i].kind == RECIPE_MAP)
            map_digit(&render, &recipe->items[i]);
    }
    put_counts(&render);
    host_bytes = (render.next + recipe->spare_clusters) << recipe->cluster_bits;
    if (host_bytes > FUZZ_DISK_BYTES_MAX)
        host_bytes = FUZZ_DISK_BYTES_MAX;
    for (uint64_t off = render.next << recipe->cluster_bits; off < host_bytes; off += 512)
        fill_sector(fuzz->bytes + off, JUNK_TAG);
    fuzz->disk.size_bytes = fuzz->used_end = host_bytes;
    fuzz->disk.block_bytes = recipe->has_large_blocks ? 4096 : QC_SECTOR_BYTES;
}
