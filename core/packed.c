/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See packed.h. A transfer of packed bytes is as long as the cluster's own, until clusters are
 * asked for that follow each other on the host: then each one doubles what the next transfer reads
 * ahead.
 *
 * Nothing here can be stale: packed bytes are never written in place, and a host cluster that held
 * some is taken for other things only when no entry names them any more.
 */
#include "packed.h"

#include "bytes.h"
#include "map.h"

#define AHEAD_BYTES_MIN (64u * 1024)

/* Where one cluster's packed bytes come from. */
struct source {
    struct qc_packed_source base; /* first, so that a source's pointer is its base's */
    struct qc_image *image;
    unsigned depth;
    uint64_t host_off, end_off; /* of the cluster's packed bytes, as far as the disk reaches */
    uint64_t loaded_end;        /* host offset of where base.bytes + base.available end */
};

static bool is_at(const struct qc_packed_place *place, const struct qc_image *image, unsigned depth,
                  uint64_t host_off)
{
    return place->image == image && place->depth == depth && place->host_off == host_off;
}

void qc_unpacker_forget(struct qc_unpacker *unpacker, const struct qc_image *image)
{
    if (unpacker->unpacked_place.image == image)
        unpacker->unpacked_place.image = NULL;
    if (unpacker->packed_place.image == image)
        unpacker->packed_place.image = NULL;
}

/* Whether the bytes [host_off, host_off + len) of the source's layer are in the buffer. */
static bool is_loaded(const struct source *source, uint64_t host_off, uint64_t len)
{
    const struct qc_unpacker *unpacker = source->image->unpacker;
    const struct qc_packed_place *place = &unpacker->packed_place;

    return is_at(place, source->image, source->depth, place->host_off) &&
           host_off >= place->host_off &&
           qc_is_inside(host_off - place->host_off, len, unpacker->packed_len);
}

/* Reads the cluster's bytes from host_off on, and ahead, whole blocks as far as there are any. */
static qc_status load(struct source *source, uint64_t host_off)
{
    struct qc_unpacker *unpacker = source->image->unpacker;
    struct qc_disk *disk = source->image->layers[source->depth].disk;
    uint64_t from = host_off & ~QC_U(QC_UNPACKER_ALIGN - 1);
    uint64_t to = source->end_off;
    qc_status status;

    if (to < host_off + unpacker->ahead_bytes)
        to = host_off + unpacker->ahead_bytes;
    to = (to + QC_UNPACKER_ALIGN - 1) & ~QC_U(QC_UNPACKER_ALIGN - 1);
    to = qc_min(qc_min(to, from + QC_PACKED_BYTES), disk->size_bytes);
    unpacker->packed_place.image = NULL;
    status = disk->ops->read(disk, from, unpacker->packed, to - from);
    if (status != QC_OK)
        return qc_fail(&source->image->detail, status, "data at %x cannot be read", host_off);
    unpacker->packed_place = (struct qc_packed_place){source->image, source->depth, from};
    unpacker->packed_len = (uint32_t)(to - from);
    return QC_OK;
}

static qc_status fetch(struct qc_packed_source *base, size_t wanted)
{
    struct source *source = (struct source *)(void *)base;
    const struct qc_unpacker *unpacker = source->image->unpacker;
    uint64_t at = source->loaded_end - base->available;
    uint64_t loaded_end;

    wanted = qc_min(wanted, source->end_off - at);
    if (!is_loaded(source, at, wanted)) {
        qc_status status = load(source, at);

        if (status != QC_OK)
            return status;
    }
    loaded_end = qc_min(source->end_off, unpacker->packed_place.host_off + unpacker->packed_len);
    base->bytes = unpacker->packed + (at - unpacker->packed_place.host_off);
    base->available = loaded_end - at;
    source->loaded_end = loaded_end;
    return QC_OK;
}

/* Clusters one behind the other on the host double the read-ahead; any other ends it. */
static void note_sequence(const struct source *source, uint64_t cluster_bytes)
{
    struct qc_unpacker *unpacker = source->image->unpacker;
    uint64_t next_off = unpacker->next_off;

    /* Its data may begin in the sector in which that of the last one ended. */
    if (unpacker->packed_place.image == source->image &&
        unpacker->packed_place.depth == source->depth &&
        source->host_off + QC_SECTOR_BYTES > next_off &&
        source->host_off < next_off + cluster_bytes)
        unpacker->ahead_bytes = (uint32_t)qc_min(
            unpacker->ahead_bytes < AHEAD_BYTES_MIN ? AHEAD_BYTES_MIN : 2 * unpacker->ahead_bytes,
            QC_PACKED_BYTES);
    else
        unpacker->ahead_bytes = 0;
    unpacker->next_off = source->end_off;
}

static qc_status unpack(struct qc_image *image, const struct qc_extent *extent, uint64_t guest_off,
                        uint8_t *out)
{
    const struct qc_layer *layer = &image->layers[extent->depth];
    uint64_t cluster_bytes = layer->header.cluster_bytes;
    struct source source = {.base = {.fetch = fetch}, .image = image, .depth = extent->depth};
    qc_status status;

    source.host_off = source.loaded_end = extent->host_off;
    source.end_off = qc_min(extent->host_off + extent->packed_bytes, layer->disk->size_bytes);
    note_sequence(&source, cluster_bytes);
    status = qc_decode(layer->header.compression_type, image->unpacker->workspace, &source.base,
                       out, cluster_bytes);
    /* Bytes that do not unpack are lost, but damage nothing else: writes are taken further on. */
    if (status == QC_CORRUPT)
        return qc_fail(&image->detail, QC_IO, "bad compressed cluster at guest %x",
                       guest_off & ~(cluster_bytes - 1));
    image->unpacker->unpacked_count += status == QC_OK;
    return status;
}

qc_status qc_packed_read(struct qc_image *image, const struct qc_extent *extent, uint64_t guest_off,
                         uint8_t *buf)
{
    struct qc_unpacker *unpacker = image->unpacker;
    uint64_t cluster_bytes = image->layers[extent->depth].header.cluster_bytes;
    uint64_t in_cluster = guest_off & (cluster_bytes - 1);

    if (unpacker == NULL)
        return qc_fail(&image->detail, QC_UNSUPPORTED, "compressed cluster at guest %x: no memory",
                       guest_off);
    if (!is_at(&unpacker->unpacked_place, image, extent->depth, extent->host_off)) {
        qc_status status;

        if (extent->len == cluster_bytes)
            return unpack(image, extent, guest_off, buf);
        unpacker->unpacked_place.image = NULL;
        status = unpack(image, extent, guest_off, unpacker->unpacked);
        if (status != QC_OK)
            return status;
        unpacker->unpacked_place = (struct qc_packed_place){image, extent->depth, extent->host_off};
    }
    __builtin_memcpy(buf, unpacker->unpacked + in_cluster, extent->len);
    return QC_OK;
}
