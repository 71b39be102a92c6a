/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The qcow2 engine's public face, and the only header of core/ that front ends include.
 *
 * The caller owns all memory: it keeps one struct qc_image and one pool for each image it attaches,
 * both usually static, and lends them for as long as the image is open. Nothing is allocated.
 *
 * Promises: bytes from the disk are checked before they are used; a refused image is not written
 * (invariant 8); every loop is bounded by the request or by a limit named here; what is written
 * survives a power cut as core/DESIGN.md's invariants say. Not promised: locking. One image takes
 * one call at a time.
 *
 * Offsets and lengths are bytes. "guest" is the disk that the image presents, "host" the one it
 * lies on. The format is QEMU's docs/interop/qcow2.
 */
#ifndef QC_QCOW2_H
#define QC_QCOW2_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cache.h"
#include "check.h"
#include "detail.h"
#include "disk.h"
#include "epoch.h"
#include "header.h"
#include "packed.h"
#include "snapshot.h"
#include "status.h"

/* An image and what lies below it, one below the other. */
#define QC_LAYERS_MAX 8u

/* Guest sizes are counted in units of this: a tail shorter than it is not shown, as QEMU does. */
#define QC_SECTOR_BYTES 512u

enum qc_extent_kind {
    QC_EXTENT_UNALLOCATED, /* in no layer: reads as zeros */
    QC_EXTENT_ZERO,        /* reads as zeros whatever lies below, with or without a cluster kept */
    QC_EXTENT_DATA,        /* bytes at host_off */
    QC_EXTENT_COMPRESSED,  /* part of one cluster, packed_bytes at host_off */
};

/* One run of the guest disk whose bytes come from one place. */
struct qc_extent {
    enum qc_extent_kind kind;
    unsigned depth;        /* the layer that says so: 0 is the image itself */
    uint64_t len;          /* bytes, at least 1 */
    uint64_t host_off;     /* DATA, COMPRESSED: on that layer's disk */
    uint32_t packed_bytes; /* COMPRESSED: as its entry says, up to a sector too many */
};

enum qc_format { QC_FORMAT_NONE, QC_FORMAT_RAW, QC_FORMAT_QCOW2 };

/* A disk that an image asks for, and the answer. */
struct qc_base {
    unsigned depth;          /* the layer it is for; 1 lies right below the image */
    bool is_data_file;       /* the layer's external data file, not the layer; raw, and written */
    const char *name;        /* as the layer above has it; terminated, any bytes */
    enum qc_format format;   /* as the layer above has it; where it has NONE, to be set */
    struct qc_disk *disk;    /* to be set: valid as long as the image is open; a layer's is only
                                read */
    struct qc_detail detail; /* the reason where the answer is not QC_OK */
};

/*
 * How a front end finds the layers below an image. The engine never follows a name itself: what a
 * name may reach is the front end's policy (qc_name_check is the rule for names that are looked up
 * as files). QC_REFUSED where policy forbids it.
 */
struct qc_bases {
    qc_status (*find)(struct qc_bases *bases, struct qc_base *base);
};

struct qc_open_options {
    bool readonly;                /* take no writes */
    bool write_through;           /* commit at the end of every write */
    bool is_backing_off;          /* leave the layers below out; read-only then */
    bool is_for_check;            /* open what qc_check alone can put right too: no refcount table,
                                     too many snapshots; read-only until then */
    struct qc_bases *bases;       /* NULL: an image that needs a layer below is refused */
    struct qc_unpacker *unpacker; /* NULL: compressed clusters cannot be read */
    const char *snapshot;         /* NULL: the disk as it is now; else this one, read-only */
};

/* One layer of an image: a disk, and what its header says where it is a qcow2 image. */
struct qc_layer {
    struct qc_disk *disk;
    struct qc_disk *data; /* where its guest data lies: disk, or the external data file */
    struct qc_header header;
    bool is_raw; /* the disk's bytes are the guest's: the header says nothing */
};

/* Whether guest data lies in a file of its own, where guest and host offsets are the same. */
static inline bool qc_has_data_file(const struct qc_layer *layer)
{
    return layer->data != layer->disk;
}

/* What would have to change for a read-only image to take writes. */
enum qc_readonly_kind {
    QC_READONLY_FIXED,   /* nothing that a repair does */
    QC_READONLY_DAMAGED, /* a mark or the damage in the header: a repair takes it away */
    QC_READONLY_ALONE,   /* the layers below are left out: it can be repaired, not written */
};

/* What of an operation is too large for a frame lies in the image: one operation runs at a time. */
#define QC_WORK_BYTES 768u

/* One opened image. Fixed size; its members belong to the engine. */
struct qc_image {
    union {
        struct qc_layer top; /* the image itself, the only one that is ever written */
        struct qc_layer layers[QC_LAYERS_MAX];
    };
    unsigned layers_count;
    struct qc_cache *cache;
    struct qc_unpacker *unpacker;
    struct qc_detail detail;
    struct qc_detail readonly_reason;    /* "" while writes are taken */
    enum qc_readonly_kind readonly_kind; /* where there is a reason */
    struct qc_epoch epoch;
    struct {
        uint64_t host_off; /* of a larger refcount table that the epoch brings */
        uint32_t clusters; /* 0: none */
        bool is_new;       /* not durable yet (rule R2) */
    } grown_reftable;
    struct {
        uint64_t next, end; /* host clusters that data leaves to new tables while it finds others */
        uint64_t count;     /* as many were set aside */
    } for_tables;
    unsigned slice_clusters_bits; /* guest clusters that a slice of an L2 table maps, to the power
                                     of two; 0 where reads go no quick way (map.h) */
    bool has_blanks;              /* of some tables more is known than the cache holds (blank.h) */
    /* Looks whether counts may be believed, before the first change; sets lying_off (verify.h). */
    qc_status (*verify)(struct qc_image *image);
    uint64_t lying_off;             /* of a cluster whose count is too low; 0: none is known */
    uint32_t tables_count;          /* L2 tables and refcount blocks, as the guard found them */
    uint32_t snapshot_tables_count; /* snapshots, and clusters of their L1 tables; likewise */
    uint64_t snapshots_bytes;  /* of the snapshot table, from the first change on; 0: not known */
    uint64_t free_hint;        /* host cluster below which none is free, but for lowered counts */
    uint64_t virgin_off;       /* from here on the disk reads as zeros: nothing was ever here */
    uint64_t quarantine_count; /* clusters that lost their last reference in this epoch */
    bool is_data_unflushed;    /* the same of the external data file */
    bool is_raised;            /* a count was raised in this epoch */
    bool is_unflushed;         /* something was written since the last good flush (rule R5) */
    bool is_failed;            /* the disk's flush failed, or a promise of our own is broken: the
                                  epoch is never published */
    bool is_to_be_marked;      /* the damage that was met is of the kind the corrupt mark is for */
    bool is_announced;         /* autoclear bits are cleared durably (invariant 6) */
    bool is_write_through;
    /* The clusters of a step, a job on snapshots, or a check; and the repair within a check. */
    uint64_t work[2][QC_WORK_BYTES / 8];
};

/*
 * Opens the image that starts at byte 0 of disk, with cache as its memory (qc_cache_init first; one
 * cache serves one image; one unpacker may serve many). QC_FOREIGN where no qcow2 header is, QC_IO,
 * QC_CORRUPT, QC_UNSUPPORTED, QC_REFUSED; all but QC_FOREIGN leave a line in qc_detail. At most 64
 * reads of each layer's disk are made before the answer (more for the repair of a dirty image, and
 * to find a snapshot that was asked for), and no write but that repair's: an image that cannot take
 * writes opens too, and qc_readonly_reason tells why.
 */
qc_status qc_open(struct qc_image *image, struct qc_cache *cache, struct qc_disk *disk,
                  const struct qc_open_options *options);

/* Why the image takes no writes: one sentence, or "" while it does. May change at run time. */
static inline const char *qc_readonly_reason(const struct qc_image *image)
{
    return image->readonly_reason.text;
}

/* Bytes of the guest disk, a multiple of QC_SECTOR_BYTES, at least one sector. */
uint64_t qc_size(const struct qc_image *image);

/*
 * Reads len bytes of the guest disk at guest_off into buf. QC_RANGE when they are not all inside
 * qc_size; QC_IO, QC_CORRUPT, QC_UNSUPPORTED (with a line in qc_detail) when they cannot be had,
 * and then buf's content is unspecified; damage is treated as qc_write does. len 0 is QC_OK.
 * Neighbouring clusters that also neighbour each other on the host are read in one request.
 */
qc_status qc_read(struct qc_image *image, uint64_t guest_off, void *buf, size_t len);

/*
 * Writes len bytes at guest_off; both are multiples of QC_SECTOR_BYTES. Volatile until qc_flush.
 * QC_RANGE, QC_READONLY, QC_NOSPACE (reads and writes in place go on), QC_IO, QC_CORRUPT (the image
 * turns read-only and, where others would come to harm by it, is marked corrupt), QC_UNSUPPORTED;
 * after an error any part may have been written.
 */
qc_status qc_write(struct qc_image *image, uint64_t guest_off, const void *buf, size_t len);

/*
 * Makes len bytes read as zeros, as qc_write would. Whole clusters are only marked; may_unmap lets
 * their space go, otherwise they keep it. A version 2 image has no mark and lets it go always.
 */
qc_status qc_zero(struct qc_image *image, uint64_t guest_off, uint64_t len, bool may_unmap);

/*
 * Lets the space of whole clusters go, which then read as zeros; parts of clusters stay as they
 * are.
 */
qc_status qc_discard(struct qc_image *image, uint64_t guest_off, uint64_t len);

/*
 * Makes durable everything that was acknowledged before (invariant 5). Two flushes of the disk
 * where something was allocated, three where the refcount table changed, one for data in place,
 * none for nothing. QC_IO: nothing is lost and the next call tries again, unless the disk's own
 * flush failed, which turns the image read-only.
 */
qc_status qc_flush(struct qc_image *image);

/* As qc_flush, and lowers every count that is still too high: the clean end. */
qc_status qc_settle(struct qc_image *image);

/*
 * The run that starts at guest_off, at most max_len bytes, as long as it can be told in one piece;
 * over layers below it may end earlier. Errors as qc_read; max_len 0 is QC_RANGE.
 */
qc_status qc_map(struct qc_image *image, uint64_t guest_off, uint64_t max_len,
                 struct qc_extent *ret_extent);

/*
 * The rule for names out of an image that are looked up as files: relative, below the image's own
 * folder, nothing but a path. QC_REFUSED with the line "backing name refused: ..." in detail for an
 * empty or absolute one, for any ':' (protocols, json:, drives) and for a part "..".
 */
qc_status qc_name_check(const char *name, struct qc_detail *detail);

/* One sentence about the image's last error, or "". Valid until the next call on the image. */
const char *qc_detail(const struct qc_image *image);

/*
 * Makes the guest disk larger: new_bytes is a multiple of QC_SECTOR_BYTES, at least qc_size. What
 * is new reads as zeros, whatever lies below. QC_RANGE for less, QC_UNSUPPORTED over a limit;
 * other errors as qc_write, and then the size is as before.
 */
qc_status qc_resize(struct qc_image *image, uint64_t new_bytes);

/* The parsed header, for those who describe an image; offsets in it are checked. */
const struct qc_header *qc_info(const struct qc_image *image);

#endif
