/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The conformance client: states what the specification and its self-certification tests ask of a
 * block device's handle and of its driver, numbered and named, and tries it on handles in firmware.
 *
 * main.c chooses the handles and runs the groups; judge.c counts and reports; calls.c makes one
 * transfer in each of the ways that callers have; the other files are the groups. Ports, texts and
 * handles are the agent's (find.c, ports.c, say.c). Nothing is allocated. The client writes all
 * over the disks that it is aimed at.
 */
#ifndef CONFORMANCE_H
#define CONFORMANCE_H

#include "../agent/agent.h"

#include "../../../efi/proto/erase_block.h"

#define BLOCKS_BYTES_MAX (512u << 10)
#define ALIGN_MAX        4096u
/* Of the disks aimed at, so that start, middle and end are apart. */
#define BLOCK_COUNT_MIN 4096u
#define BLOCK_SIZE_MAX  4096u

/* The handle that is looked at. target_find() fills it anew: a reconnect makes other handles. */
struct target {
    bool is_ours;      /* an image's child, not a disk of the firmware's own drivers */
    EFI_HANDLE handle; /* NULL: there is none */
    EFI_BLOCK_IO_PROTOCOL *block_io;
    EFI_BLOCK_IO2_PROTOCOL *block_io2;     /* NULL: not installed; likewise below */
    EFI_ERASE_BLOCK_PROTOCOL *erase_block; /* on the same handle */
    EFI_BLOCK_IO_MEDIA *media;
};

/* agent.parent is the disk; of an image's child it is the container. */
extern struct target target;
extern EFI_GUID guid_block_io2, guid_erase_block;
bool target_find(void);

/* Two buffers, each with room behind it for misaligned places. */
extern uint8_t buffer_a[BLOCKS_BYTES_MAX + ALIGN_MAX], buffer_b[BLOCKS_BYTES_MAX + ALIGN_MAX];

/* judge.c */

enum kind {
    KIND_NONE,
    KIND_OWN,      /* left open by the specification; asked of our driver alone */
    KIND_MEDIA_ID, /* failed where nobody looks at MediaId */
    KIND_WRAP,     /* failed where LBA + count - 1 overflows */
    KINDS_COUNT
};

/* A group has a number of its own, so that an assertion keeps its number when others come. */
void group_begin(unsigned number, const char *name);
void group_end(void);
/* A group that cannot be tried here; on a handle of ours that is a failure. */
void group_absent(unsigned number, const char *name);
/* What the next assertions are about; "" is nothing. Texts are kept as they are. */
void about(const char *subject, const char *detail);
/*
 * One assertion each. All also demand that the task priority is TPL_APPLICATION. Those of a kind
 * are the ones that a driver with one certain fault fails, all of them and no others.
 */
void expect(const char *name, EFI_STATUS got, EFI_STATUS want);
void expect_number(const char *name, uint64_t got, uint64_t want);
void expect_that(const char *name, bool holds);
/* The kind of the next assertions; a group begins with KIND_NONE. */
void of_kind(enum kind kind);
/* Assertions with a number of their own that do not apply to this handle. */
void skip(unsigned count);
/* The counts of this handle, and from then on of the next one. */
void handle_begin(const char *kind);
void handle_end(void);
/* The counts of all handles. */
void judge_end(void);
EFI_TPL tpl_now(void);

/* calls.c */

enum action { READ, WRITE };
/* Block I/O; Block I/O 2 with no token, with a token without an event, with an event. */
enum way { WAY_PLAIN, WAY_NO_TOKEN, WAY_NO_EVENT, WAY_EVENT };

struct transfer {
    enum way way;
    enum action action;
    uint32_t media_id;
    uint64_t lba;
    uint64_t bytes;
    void *buffer;
};

/* Around transfers with events. */
void calls_begin(void);
void calls_end(void);
/* Asserts that all the events since calls_begin() were signalled as they have to be. */
void calls_judge(void);
const char *way_label(enum way way);
const char *way_name(enum way way, enum action action);
/*
 * The status that the request ended with, whichever way it came. EFI_TIMEOUT: a promised signal did
 * not come.
 */
EFI_STATUS transfer(const struct transfer *call);
EFI_STATUS flush(enum way way);
EFI_STATUS erase(enum way way, uint32_t media_id, uint64_t lba, uint64_t bytes);
/* Block I/O with the right MediaId, for what is not itself under test. */
EFI_STATUS read_blocks(uint64_t lba, uint64_t count, void *buffer);
EFI_STATUS write_blocks(uint64_t lba, uint64_t count, void *buffer);

/* data.c: content that tells seed and block. */
void fill(uint8_t *buffer, uint64_t seed, uint64_t lba, uint64_t count);
bool is_filled(const uint8_t *buffer, uint64_t seed, uint64_t lba, uint64_t count);
bool is_zero(const uint8_t *buffer, uint64_t bytes);

/* The groups. */
void group_media(unsigned number);
void group_arguments(unsigned number);
void group_data(unsigned number);
void group_arguments2(unsigned number);
void group_data2(unsigned number);
void group_tokens(unsigned number);
void group_erase(unsigned number);
void group_disk_io(unsigned number);
void group_path(unsigned number);
void group_names(unsigned number);
void group_diagnostics(unsigned number);
void group_binding(unsigned number);
void group_version(unsigned number);
void group_no_media(unsigned number);

/* binding.c: whether our driver has the handle open, and so (attributes: EFI_OPEN_PROTOCOL_...). */
bool is_opened(EFI_HANDLE handle, EFI_GUID *protocol, uint32_t attributes, EFI_HANDLE for_whom);

#endif
