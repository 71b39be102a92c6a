/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * A disk in memory that forgets what was not flushed, tears what it was writing and fails on order.
 *
 * It is made of units (512 or 4096 bytes) that are written whole. What a flush has made durable is
 * in `durable`; every value a unit was given since then is kept beside it, oldest first, because
 * after a power cut the unit may hold any of them, or the durable one, whatever the others hold.
 *
 * Promises: the struct is plain memory without pointers to itself but for disk.ops, so that a copy
 * put back at the same address is the disk as it was. Requests that break the engine's promises to
 * a disk (disk.h) are counted in broken_count; with disk.readonly set, all that is not a read.
 *
 * It may be two disks, the second an external data file: they forget together in one power cut, and
 * each is made durable by its own flush alone. Of every stretch of the second only the beginning is
 * there, so that a few clusters far from each other need little room.
 *
 * Left to others: which of the outcomes to look at (crash/view.c).
 */
#ifndef SIM_SIM_H
#define SIM_SIM_H

#include "../../core/disk.h"

#define SIM_BYTES_MAX        (2304u * 1024)
#define SIM_UNITS_MAX        (SIM_BYTES_MAX / 512)
#define SIM_VALUES_BYTES_MAX (512u * 1024)
#define SIM_VALUES_MAX       (SIM_VALUES_BYTES_MAX / 512)
#define SIM_UNIT_BYTES_MAX   4096u

enum sim_call { SIM_READ, SIM_WRITE, SIM_FLUSH, SIM_CALLS_COUNT };
enum sim_landing { SIM_LANDS_NOTHING, SIM_LANDS_HALF, SIM_LANDS_ALL };

/* One failure to come. Calls are counted from arming on. */
struct sim_fault {
    bool is_armed;
    bool is_forever;          /* every later call of its kind fails as well */
    bool is_dropping;         /* FLUSH: what was not durable is gone */
    enum sim_call call;       /* the kind that fails */
    enum sim_landing landing; /* WRITE: how much of it lands all the same */
    uint32_t at;              /* the call of that kind to fail, from 1 */
    uint32_t after_flushes;   /* count only calls after so many good flushes */
    uint32_t calls_seen, flushes_seen;
    uint32_t hits_count; /* how often it struck */
};

struct sim_disk {
    struct qc_disk disk; /* first, so that a disk's pointer is its sim_disk's */
    struct qc_disk data; /* the second disk; size_bytes 0: there is none */
    struct qc_disk_ops ops, data_ops;
    uint64_t data_off;     /* where its bytes are among all */
    uint64_t data_stretch; /* of so many bytes of it */
    uint64_t data_window;  /* so many are there */
    uint64_t data_bytes_max;
    uint64_t total_bytes; /* of both */
    /* Called before a flush takes effect, and after each write; NULL: not. */
    void (*before_flush)(void *context);
    void (*after_write)(void *context);
    void *context;
    /* Called before a unit's bytes are used, which sim_put may still change; NULL: not. */
    void (*before_use)(void *context, uint32_t unit);
    void *use_context;
    bool is_flush_idle;     /* flushes answer well and do nothing */
    uint64_t bytes_max;     /* how far grow goes */
    uint64_t durable_bytes; /* the size that a cut may bring back */
    struct sim_fault fault;
    uint32_t calls_count[SIM_CALLS_COUNT];
    uint32_t trims_count;
    uint32_t broken_count; /* requests no engine may make */
    uint32_t written_back; /* times all values became durable for lack of room */
    uint64_t durable_hash; /* of everything durable */
    uint32_t unit_bytes;
    uint32_t values_count;
    uint16_t newest[SIM_UNITS_MAX];      /* a unit's latest value, 0: only the durable one */
    uint64_t sector_hash[SIM_UNITS_MAX]; /* of each durable 512 bytes */
    struct {
        uint16_t unit;
        uint16_t before; /* the unit's value before this one, 0: the durable one */
        uint16_t number; /* among the unit's values, from 1 */
    } values[SIM_VALUES_MAX + 1];
    uint64_t value_hash[SIM_VALUES_MAX + 1 + 8]; /* of each 512 bytes of each value */
    uint8_t value_bytes[SIM_VALUES_BYTES_MAX];
    uint8_t durable[SIM_BYTES_MAX];
};

/* A disk of zeros. unit_bytes is 512 or 4096; sizes are multiples of it, at most SIM_BYTES_MAX.
 * With bytes_max above bytes it grows. */
void sim_init(struct sim_disk *sim, uint32_t unit_bytes, uint64_t bytes, uint64_t bytes_max,
              bool has_trim);

/*
 * Adds a second disk of bytes, growing to bytes_max, of which every stretch begins with a window of
 * bytes that are there; a request must lie in one. All windows must find room.
 */
void sim_add_data(struct sim_disk *sim, uint64_t bytes, uint64_t bytes_max, uint64_t stretch,
                  uint64_t window);

/* Where a byte of the second disk is among all bytes. */
uint64_t sim_data_off(const struct sim_disk *sim, uint64_t host_off);

/* A copy's own calls, after it came from another address. */
void sim_adopt(struct sim_disk *sim);

/* Puts durable bytes there, behind the engine's back. */
void sim_put(struct sim_disk *sim, uint64_t host_off, const void *buf, size_t len);

/* Copies what is in use. */
void sim_copy(struct sim_disk *target, const struct sim_disk *source);

void sim_arm(struct sim_disk *sim, const struct sim_fault *fault);

/* How many values a unit may have after a cut: 1 is only the durable one. */
unsigned sim_outcomes_count(const struct sim_disk *sim, uint32_t unit);

/* Outcome 0 is the durable value, then in the order they were written. The hashes are those of its
 * sectors, one after the other. */
const uint8_t *sim_outcome(const struct sim_disk *sim, uint32_t unit, unsigned outcome,
                           const uint64_t **ret_hashes);

/* Hash of 512 bytes; the same for the same bytes everywhere. */
uint64_t sim_hash_sector(const uint8_t *bytes);

/* Hash of everything the disk may turn out to be after a cut. */
uint64_t sim_hash(const struct sim_disk *sim);

/* What a trimmed sector may read as: entries that look like pointers into the image. */
void sim_fill_poison(uint8_t *bytes, uint64_t host_off);

#endif
