/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * A disk for the engine on top of a firmware disk: EFI_BLOCK_IO_PROTOCOL (UEFI 2.10, 13.9).
 *
 * Promises: a request that the device can take as it is becomes one ReadBlocks or WriteBlocks with
 * the caller's own buffer. Any other takes the bytes that do not fit through a buffer that
 * all disks share, and never reads a block twice; a block that is written in part keeps its other
 * bytes. A flush is the device's FlushBlocks: whether that reaches the medium is the firmware's
 * driver's to know. The medium is the one seen at init: when it has gone every request fails, and
 * none reaches the device, whatever is in there by then.
 *
 * Left to others: finding the protocol, keeping it open, and one call at a time over all disks.
 * Disk I/O is not used for data: it would cost a second layer of the same work for each request.
 * The disk's size is fixed, and it is told of nothing that is not needed any more.
 */
#ifndef DRIVERS_EFI_BLOCK_H
#define DRIVERS_EFI_BLOCK_H

#include <efi.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../core/disk.h"

#define EFI_BLOCK_BYTES_MIN    512u
#define EFI_BLOCK_BYTES_MAX    4096u
#define EFI_BLOCK_IO_ALIGN_MAX 4096u
#define EFI_BLOCK_BOUNCE_BYTES (64u * 1024)
/* Some disks refuse a request of a gigabyte, so what is longer than this is sent in parts. */
#define EFI_BLOCK_TRANSFER_BYTES_MAX (64u * 1024 * 1024)

struct efi_block {
    struct qc_disk disk; /* what the engine gets */
    EFI_BLOCK_IO_PROTOCOL *parent;
    UINT32 media_id;
    EFI_STATUS medium; /* EFI_SUCCESS until the parent's answer tells that it has gone */
};

/*
 * Whether a disk can be made of parent: a medium is present, blocks of EFI_BLOCK_BYTES_MIN to
 * EFI_BLOCK_BYTES_MAX bytes (a power of two), a possible IoAlign, a size in bytes that fits 64
 * bits.
 */
bool efi_block_fits(const EFI_BLOCK_IO_PROTOCOL *parent);

/* Fills block->disk. parent passed efi_block_fits and stays valid as long as block is in use. */
void efi_block_init(struct efi_block *block, EFI_BLOCK_IO_PROTOCOL *parent);

/* EFI_SUCCESS while the medium is there, else EFI_NO_MEDIA or EFI_MEDIA_CHANGED. Nothing is read.
 */
static inline EFI_STATUS efi_block_medium(const struct efi_block *block)
{
    const EFI_BLOCK_IO_MEDIA *media = block->parent->Media;

    if (EFI_ERROR(block->medium))
        return block->medium;
    if (!media->MediaPresent)
        return EFI_NO_MEDIA;
    return media->MediaId == block->media_id ? EFI_SUCCESS : EFI_MEDIA_CHANGED;
}

/*
 * Reads the first block. Where that fails, the medium has gone: a device that was unplugged answers
 * EFI_DEVICE_ERROR to everything.
 */
void efi_block_probe(struct efi_block *block);

#endif
