/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See plot.h. qc_map_layer tells what is read; where that is nothing of the layer's own, its L2
 * entries are looked at once more, for the clusters that they keep.
 */
#include "plot.h"

#include "map.h"
#include "table.h"

#define WORD_BYTES 8u

uint64_t qc_plot_bytes(const struct qc_image *image, unsigned depth)
{
    const struct qc_layer *layer = &image->layers[depth];
    uint64_t sectors = QC_SECTOR_BYTES - 1;

    if (layer->is_raw)
        return (layer->disk->size_bytes + sectors) & ~sectors;
    return layer->header.guest_bytes & ~sectors;
}

/* Whether an entry that qc_map_layer found right keeps a cluster. */
static bool keeps_cluster(const struct qc_layer *layer, uint64_t word)
{
    /* In a data file of its own the first cluster lies at 0, and only the flag tells it. */
    bool is_first =
        qc_has_data_file(layer) && (word & QC_ENTRY_COPIED) != 0 && (word & QC_ENTRY_ZERO) == 0;

    return (word & QC_ENTRY_OFFSET_MASK) != 0 || is_first;
}

/* Guest bytes that one slice of an L2 table maps. */
static uint64_t slice_reach(const struct qc_header *header)
{
    uint64_t words = qc_min(QC_PAGE_BYTES, header->cluster_bytes) / WORD_BYTES;

    return words >> qc_l2_words_bits(header) << header->cluster_bits;
}

/*
 * Shortens a run of nothing or of zeros, which lies in one slice of the L2 table at l2_off, to the
 * clusters that are kept in one piece, or to those of which none is.
 */
static qc_status find_place(struct qc_image *image, unsigned depth, uint64_t l2_off,
                            uint64_t guest_off, struct qc_plot *plot)
{
    const struct qc_layer *layer = &image->layers[depth];
    unsigned cluster_bits = layer->header.cluster_bits;
    unsigned words_bits = qc_l2_words_bits(&layer->header);
    uint64_t in_cluster = guest_off & (layer->header.cluster_bytes - 1);
    uint64_t count = qc_units(in_cluster + plot->len, cluster_bits);
    uint64_t index = guest_off >> cluster_bits << words_bits;
    const uint8_t *words;
    uint32_t words_count;
    qc_status status = qc_table_entries(image, depth, l2_off, layer->header.cluster_bytes,
                                        index & (layer->header.cluster_bytes / WORD_BYTES - 1),
                                        QC_HEAT_PASSING, &words, &words_count);

    if (status != QC_OK)
        return status;
    for (uint64_t i = 0; i < count && i << words_bits < words_count; i++) {
        uint64_t word = qc_be64(words + (i << words_bits) * WORD_BYTES);
        uint64_t host_off = (word & QC_ENTRY_OFFSET_MASK) + in_cluster;
        bool has_place = keeps_cluster(layer, word);

        if (i == 0) {
            plot->has_place = has_place;
            plot->host_off = host_off;
        } else if (has_place != plot->has_place ||
                   (has_place && host_off != plot->host_off + (i << cluster_bits))) {
            plot->len = (i << cluster_bits) - in_cluster;
            break;
        }
    }
    return QC_OK;
}

/* As qc_plot, of a layer that is a qcow2 image. */
static qc_status plot_layer(struct qc_image *image, unsigned depth, uint64_t guest_off,
                            uint64_t max_len, struct qc_plot *ret_plot)
{
    const struct qc_header *header = &image->layers[depth].header;
    uint64_t reach = QC_U(1) << qc_l2_reach_bits(header), l2_off;
    struct qc_extent run;
    qc_status status = qc_map_durable_l2(image, depth, guest_off, &l2_off);

    if (status != QC_OK)
        return status;
    /* Shorter runs cost less where most of each would be left out again. */
    if (l2_off != 0)
        reach = slice_reach(header);
    max_len = qc_min(max_len, reach - (guest_off & (reach - 1)));
    status = qc_map_layer(image, depth, guest_off, max_len, &run);
    if (status != QC_OK)
        return status;
    *ret_plot =
        (struct qc_plot){.len = run.len,
                         .is_data = run.kind == QC_EXTENT_DATA || run.kind == QC_EXTENT_COMPRESSED,
                         .is_zero = run.kind == QC_EXTENT_ZERO,
                         .has_place = run.kind == QC_EXTENT_DATA,
                         .host_off = run.host_off};
    return ret_plot->is_data || l2_off == 0 ? QC_OK
                                            : find_place(image, depth, l2_off, guest_off, ret_plot);
}

qc_status qc_plot(struct qc_image *image, unsigned depth, uint64_t guest_off, uint64_t max_len,
                  struct qc_plot *ret_plot)
{
    struct qc_plot plot = {
        .len = max_len, .is_data = true, .has_place = true, .host_off = guest_off};
    qc_status status = QC_OK;

    qc_detail_clear(&image->detail);
    if (depth >= image->layers_count || max_len == 0 ||
        !qc_is_inside(guest_off, max_len, qc_plot_bytes(image, depth)))
        return qc_fail(&image->detail, QC_RANGE, "plot of %u bytes at guest %x is outside", max_len,
                       guest_off);
    if (image->epoch.records_count > 0)
        return qc_fail(&image->detail, QC_UNSUPPORTED, "changes that are not written yet");
    if (!image->layers[depth].is_raw)
        status = plot_layer(image, depth, guest_off, max_len, &plot);
    if (status == QC_OK)
        *ret_plot = plot;
    return status;
}
