/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * What the files of the driver share: the firmware's tables, the driver's own protocols, and the
 * images that are attached.
 *
 * Requests run one at a time, over all images: the buffers that they bounce and unpack through are
 * shared. An attached image is a slot of a static array. A slot is taken from the moment a
 * container is ours (Disk I/O opened BY_DRIVER) until Stop() gives the container back; it has a
 * child handle unless the firmware asked for none. The array is also the answer to "is this handle
 * ours?".
 */
#ifndef EFI_DRIVER_H
#define EFI_DRIVER_H

#include <efi.h>
#include <stdbool.h>
#include <stdint.h>

#include "../core/qcow2.h"
#include "../drivers/efi_block.h"
#include "config.h"
#include "path.h"
#include "proto/driver_diagnostics2.h"
#include "proto/erase_block.h"
#include "proto/qcow2_control.h"

#define ATTACHED_MAX        6u
#define ATTACHED_NAME_CHARS 80u
#ifndef QC_CACHE_KIB
#define QC_CACHE_KIB 1280
#endif

struct attached {
    struct efi_block block;
    struct qc_cache cache;
    struct qc_image image;
    EFI_BLOCK_IO_PROTOCOL block_io;
    EFI_BLOCK_IO2_PROTOCOL block_io2;
    EFI_BLOCK_IO_MEDIA media;
    EFI_ERASE_BLOCK_PROTOCOL erase_block;
    EFI_EVENT idle_timer, exit_event; /* NULL: not created */
    EFI_HANDLE container;             /* NULL: the slot is free */
    EFI_HANDLE child;                 /* NULL: no child was asked for */
    bool is_paused;                   /* the command works on the image (control.c) */
    const struct config_entry *entry; /* NULL: nothing is said of it */
    uint64_t digest;                  /* of the container's path and first sector, for say_once */
    bool is_stopping;                 /* the child is being taken away */
    bool is_gone;                     /* no call is answered: boot services have ended, or it is
                                         paused */
    /* base.c */
    struct qc_bases bases_finder;
    const struct config_entry *layer_entry;  /* of the lowest layer that was found; NULL: none */
    uint8_t base_numbers[2 * QC_LAYERS_MAX]; /* of all bases and data files it uses */
    unsigned bases_count;
    /* quiesce.c */
    bool is_unsettled;       /* something was written that no settle has finished */
    bool is_write_through;   /* every write is settled before it returns */
    bool is_armed;           /* the idle timer runs */
    bool has_written;        /* since it was armed */
    bool is_due;             /* it fired on something unsettled */
    unsigned unwaited_count; /* writes of this burst that were committed at once */
    /* handover.c */
    bool is_told, has_table;
    UINTN table_key;
    uint32_t told_flags;
    uint64_t told_digest;
    CHAR16 container_name[ATTACHED_NAME_CHARS], child_name[ATTACHED_NAME_CHARS];
    uint8_t path[PATH_BYTES_MAX + sizeof(struct qcow2_node) + PATH_END_BYTES];
};

/* entry.c */
extern EFI_SYSTEM_TABLE *efi_system;
extern EFI_BOOT_SERVICES *efi_boot;
extern EFI_GUID guid_block_io, guid_block_io2, guid_device_path, guid_disk_io, guid_erase_block;
EFI_STATUS EFIAPI efi_main(EFI_HANDLE image_handle, EFI_SYSTEM_TABLE *system);

/* settings.c */

/* What the configuration says; nothing where there is none. */
extern struct config config;
/* Reads it, from the volume that the driver itself was loaded from (NULL: from none). */
void settings_load(EFI_HANDLE image_handle, EFI_HANDLE volume);

/* secureboot.c */

/*
 * binding.c, diagnostics.c, name.c. Writable: tools that wrap a driver patch these structures in
 * place.
 */
extern EFI_DRIVER_BINDING_PROTOCOL driver_binding;
extern EFI_DRIVER_DIAGNOSTICS2_PROTOCOL driver_diagnostics2;
extern EFI_COMPONENT_NAME_PROTOCOL component_name;
extern EFI_COMPONENT_NAME2_PROTOCOL component_name2;

/* attach.c */

/*
 * Attaches the image on a container that is ours by now; with_child false only claims it.
 * EFI_UNSUPPORTED without a word where no image is. Any other error was said on the console:
 * EFI_VOLUME_CORRUPTED, EFI_UNSUPPORTED (legal, not implemented), EFI_DEVICE_ERROR,
 * EFI_ACCESS_DENIED (policy forbids it), EFI_NOT_FOUND (no such snapshot), EFI_OUT_OF_RESOURCES (no
 * free slot). Nothing is said where the first block cannot be read, or a request is running, which
 * is EFI_NOT_READY.
 */
EFI_STATUS attach_start(EFI_HANDLE container, EFI_BLOCK_IO_PROTOCOL *parent,
                        const EFI_DEVICE_PATH *path, bool with_child);
/*
 * Settles the image, unless its medium is gone, and takes the child away. On an error all is as
 * before, and works.
 */
EFI_STATUS attach_stop_child(struct attached *attached);
/* Frees the slot of a container that has no child, and its layers that are files. */
void attach_release(struct attached *attached);
/* Why an image takes no writes; "" while it does. */
const char *attach_readonly_reason(const struct attached *attached);
/* Slots by what they belong to; NULL where it is none of ours (or NULL). */
struct attached *attached_by_container(EFI_HANDLE container);
/* protocol: any of those that its child has. */
struct attached *attached_by_protocol(const void *protocol);
/* Any attached image, NULL when there is none. */
struct attached *attached_any(void);
/* The slots by number, up to ATTACHED_MAX, free ones included. */
struct attached *attached_slot(unsigned i);

/* control.c */

extern struct qcow2_control control;
/* What the command said of how an image is attached; NULL: nothing. */
const struct config_entry *control_entry(EFI_HANDLE container);

/* base.c */

/* From here on the number of a base is a file's (file.h). */
#define BASE_FILES_FIRST (2 * CONFIG_ENTRIES_MAX)

/*
 * Takes a container that is ours by now as the base, or the data file, that the configuration says
 * it is. EFI_NOT_FOUND: it says nothing of the kind. EFI_ACCESS_DENIED: another partition is that
 * one. EFI_NO_MEDIA: it cannot be read. In what follows a data file is a base too.
 */
EFI_STATUS base_start(EFI_HANDLE container, EFI_BLOCK_IO_PROTOCOL *parent,
                      const EFI_DEVICE_PATH *path);
/* Lets it go, after the images above it; EFI_DEVICE_ERROR where one of them does not go. */
EFI_STATUS base_stop(EFI_HANDLE container);
/* As medium_status, and what medium_probe needs, for the bases of an image. */
EFI_STATUS base_medium(const struct attached *attached);
void base_probe(const struct attached *attached);
/* Lets the bases go whose medium went, with the images above them. */
void base_tend(void);
/* Whether a handle is a base, and any base there is, NULL where none is. */
bool base_is(EFI_HANDLE container);
bool base_is_data_file(EFI_HANDLE container);
/* The same of a base's number. */
bool base_is_data_number(unsigned number);
/* Whether a flush of the image's data file, if it has one, reaches its disk. */
bool base_takes_flush(const struct attached *attached);
EFI_HANDLE base_any(void);
/* Attaches the images that waited for a base which is here now. */
void base_wake(void);
/* Makes the slot ready for an image that may have layers below it. */
void base_init(struct attached *attached);
/* Gives back the files that an image had as its layers. */
void base_release(struct attached *attached);

/* request.c: every request, whichever protocol it comes through. */

enum request_kind { REQUEST_READ, REQUEST_WRITE, REQUEST_ERASE, REQUEST_FLUSH, REQUEST_RESET };

struct request {
    enum request_kind kind;
    UINT32 media_id; /* READ, WRITE and ERASE, as the next two */
    EFI_LBA lba;
    UINTN size;                  /* bytes */
    void *buffer;                /* READ and WRITE */
    EFI_EVENT event;             /* signalled when the request is done; NULL: the caller waits */
    EFI_STATUS *ret_transaction; /* with an event: set before it is signalled */
};

/*
 * Does a request and completes it. An error is returned, and then nothing is signalled. All is done
 * when the call returns, one request at a time: so a flush is behind everything before it.
 * attached NULL is EFI_INVALID_PARAMETER.
 */
EFI_STATUS request_submit(struct attached *attached, const struct request *request);

/*
 * The right to use what all images share, for those who do I/O outside of a request. False while
 * someone has it: the disk below has called back in the middle of a request.
 */
bool request_claim(void);
void request_release(void);
bool request_is_running(void);

/*
 * Begins what is done like a request: nothing interrupts it then, and no other begins before
 * request_end(). What is due to be committed is committed first.
 */
EFI_STATUS request_begin(struct attached *attached, EFI_TPL *ret_tpl);
/* Returns status. */
EFI_STATUS request_end(struct attached *attached, EFI_TPL tpl, EFI_STATUS status);
/* The medium is ReadOnly from the moment on in which the image takes no more writes. */
void request_follow_image(struct attached *attached);
/* What callers are told of an error of the engine. Said on the console, once per kind of error. */
EFI_STATUS request_failed(struct attached *attached, const char *what, qc_status why);

/* blockio.c, blockio2.c, eraseblock.c */

/* Fill media and the protocols of a slot whose image is open; blockio_init comes first. */
void blockio_init(struct attached *attached);
void blockio2_init(struct attached *attached);
void eraseblock_init(struct attached *attached);

/* medium.c */

/*
 * EFI_NO_MEDIA or EFI_MEDIA_CHANGED where a medium that the image needs is not the one it was
 * opened on; EFI_NO_MEDIA ever after. No disk is asked, and nothing said.
 */
EFI_STATUS medium_status(const struct attached *attached);
/* The same, and if it went just now, that is said, and the image goes at the next safe moment. */
EFI_STATUS medium_check(struct attached *attached);
/* The same after asking the disks: one that cannot even read is gone. Within a claim. */
EFI_STATUS medium_probe(struct attached *attached);
/* Lets the images go whose medium went. No driver below or above them may be on the stack. */
void medium_tend(void);
/* Takes a container from us and connects it anew. */
void medium_reconnect(EFI_HANDLE container);

/* quiesce.c */

/* What the driver needs once. load: on an error nothing is left. */
EFI_STATUS quiesce_load(void);
void quiesce_unload(void);
/* What an image needs while it has a child; created after its parent's, on purpose. */
EFI_STATUS quiesce_start(struct attached *attached);
void quiesce_stop(struct attached *attached);
/* Before and after anything is changed, within a request. after: QC_OK, or why no commit. */
void quiesce_before_change(struct attached *attached);
qc_status quiesce_after_change(struct attached *attached);
/* Makes all durable that was acknowledged, within a request. */
qc_status quiesce_flush(struct attached *attached);
/* Commits what the timer found due, within a request; an error is said and tried again. */
void quiesce_if_due(struct attached *attached);
/* As quiesce_flush, and lowers every count that is still too high. EFI_DEVICE_ERROR was said. */
EFI_STATUS quiesce_settle(struct attached *attached);

#endif
