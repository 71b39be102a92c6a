/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The configuration file \EFI\qcow2\qcow2.conf: from its bytes to what the driver acts on.
 *
 * One `key value` a line; blanks before it, and a '#' behind a blank with what follows, are left
 * out. `image NAME` begins an entry, and the keys behind it belong to it; timeout and default stand
 * anywhere. `base PARTUUID [raw|qcow2]` tells the format too where the image above does not;
 * `data PARTUUID` is the partition that holds the image's external data file, and has no other use;
 * `autosnapshot N` makes a snapshot before each boot, but where nothing was written since the last
 * one, and keeps the N newest of these.
 *
 * Promises: pure code, which any bytes may be given; a line that cannot be used is skipped and
 * remembered with its number and the reason, and nothing else is. Of several entries for one
 * partition the first counts.
 *
 * Left to others: finding and reading the file (settings.c). timeout, default, loader, headroom,
 * temporary and autosnapshot are for the boot program; the driver alone attaches an image that is
 * `temporary` read-only: what it is there to keep is kept.
 */
#ifndef EFI_CONFIG_H
#define EFI_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../core/qcow2.h"

#define CONFIG_FILE_BYTES_MAX 16384u
#define CONFIG_LINE_BYTES_MAX 512u
#define CONFIG_ENTRIES_MAX    16u
#define CONFIG_NAME_BYTES_MAX 32u /* of an entry */
#define CONFIG_TEXT_BYTES_MAX 255u
#define CONFIG_SECONDS_MAX    3600u
#define CONFIG_SECONDS        3u /* without timeout */
#define CONFIG_KEPT_MAX       64u
#define CONFIG_BAD_KEPT       16u

/* A partition's own GUID, in the bytes that the partition table and its device path have. */
struct config_guid {
    uint8_t bytes[16];
};

struct config_entry {
    char name[CONFIG_NAME_BYTES_MAX + 1];
    uint32_t given; /* which keys it has, a bit each */
    bool has_file, has_partition, has_base, has_data;
    bool is_readonly; /* temporary is too */
    bool is_temporary;
    bool is_backing_off;
    unsigned autosnapshots_count; /* to keep; 0: none is made */
    uint64_t headroom_bytes;      /* to be there behind the image when it is booted */
    struct config_guid partition;
    struct config_guid base;
    struct config_guid data;
    enum qc_format base_format;               /* NONE: the image has to say */
    char file[CONFIG_TEXT_BYTES_MAX + 1];     /* path on the configuration's volume */
    char snapshot[CONFIG_TEXT_BYTES_MAX + 1]; /* id or name; "": the disk as it is now */
    char loader[CONFIG_TEXT_BYTES_MAX + 1];   /* path inside the image; "": the usual one */
};

struct config {
    struct config_entry entries[CONFIG_ENTRIES_MAX];
    unsigned entries_count;
    unsigned default_number; /* of the entry that boots by itself */
    unsigned timeout_s;      /* 0: at once */
    struct {
        unsigned line; /* from 1 */
        const char *reason;
    } bad[CONFIG_BAD_KEPT];
    unsigned bad_count; /* of all, the first CONFIG_BAD_KEPT of which are in bad */
    bool is_narrowed;   /* base and data hide their partitions and do no more, file does nothing */
};

/* Fills config from the file's len bytes, at most CONFIG_FILE_BYTES_MAX of which are looked at. */
void config_parse(struct config *config, const char *text, size_t len);

bool config_is_same_guid(const struct config_guid *a, const struct config_guid *b);
/* The first entry for a partition, or NULL. */
const struct config_entry *config_entry_of(const struct config *config,
                                           const struct config_guid *partition);
/*
 * The number of the first entry that names a partition as its base, the same for all that do;
 * CONFIG_ENTRIES_MAX where none does.
 */
unsigned config_base_number(const struct config *config, const struct config_guid *base);
/*
 * The number of the first entry that names a partition as its data file. It is that entry's alone;
 * CONFIG_ENTRIES_MAX where none does, or where the partition is an image's or a base too.
 */
unsigned config_data_number(const struct config *config, const struct config_guid *data);
/* Whether the image of an entry, which may be NULL, is meant to be written. */
bool config_is_written(const struct config_entry *entry);

/* secureboot.c: sets is_narrowed where Secure Boot is on and the file asks for more than it may. */
bool secureboot_narrow(struct config *config);

#endif
