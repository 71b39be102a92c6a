/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Byte ranges to blocks: each request is cut into pieces, each piece is one ReadBlocks.
 *
 * A piece goes straight into the caller's buffer when it starts on a block, holds whole blocks and
 * the buffer is aligned as the device wants; else it goes through the bounce buffer. What fits the
 * bounce buffer as a whole is one piece even where its middle could go straight: a request to a
 * device costs more than the copy.
 */
#include "efi_block.h"

static bool is_power_of_two(uint64_t value)
{
    return value != 0 && (value & (value - 1)) == 0;
}

bool efi_block_fits(const EFI_BLOCK_IO_PROTOCOL *parent)
{
    const EFI_BLOCK_IO_MEDIA *media = parent->Media;

    return media->MediaPresent && is_power_of_two(media->BlockSize) &&
           media->BlockSize >= EFI_BLOCK_BYTES_MIN && media->BlockSize <= EFI_BLOCK_BYTES_MAX &&
           media->IoAlign <= EFI_BLOCK_IO_ALIGN_MAX &&
           (media->IoAlign == 0 || is_power_of_two(media->IoAlign)) &&
           media->LastBlock < UINT64_MAX / media->BlockSize;
}

static qc_status read_blocks(struct efi_block *block, uint64_t host_off, void *buf, size_t len)
{
    EFI_LBA lba = host_off / block->disk.block_bytes;

    block->last_status = block->parent->ReadBlocks(block->parent, block->media_id, lba, len, buf);
    return EFI_ERROR(block->last_status) ? QC_IO : QC_OK;
}

/* Whether whole blocks at host_off can be read into buf without a copy. */
static bool is_direct(const struct efi_block *block, uint64_t host_off, const uint8_t *buf)
{
    UINT32 io_align = block->parent->Media->IoAlign;

    return (host_off & (block->disk.block_bytes - 1)) == 0 &&
           (io_align <= 1 || ((uintptr_t)buf & (io_align - 1)) == 0);
}

static qc_status block_read(struct qc_disk *disk, uint64_t host_off, void *buf, size_t len)
{
    struct efi_block *block = (void *)((uint8_t *)disk - offsetof(struct efi_block, disk));
    size_t mask = disk->block_bytes - 1;
    uint8_t *out = buf;

    /* Each round reads at least the rest of one block, so len only shrinks. */
    while (len > 0) {
        size_t head = (size_t)host_off & mask;
        size_t piece;
        qc_status status;

        if (is_direct(block, host_off, out) && len > mask &&
            ((len & mask) == 0 || len > EFI_BLOCK_BOUNCE_BYTES)) {
            piece = len & ~mask;
            if (piece > EFI_BLOCK_TRANSFER_BYTES_MAX)
                piece = EFI_BLOCK_TRANSFER_BYTES_MAX;
            status = read_blocks(block, host_off, out, piece);
        } else {
            size_t to_block = disk->block_bytes - head;

            piece = EFI_BLOCK_BOUNCE_BYTES - head;
            if (piece >= len)
                piece = len;
            /* A head that does not fit must not drag a long request through the buffer. */
            else if (head != 0 && is_direct(block, host_off + to_block, out + to_block))
                piece = to_block;
            status =
                read_blocks(block, host_off - head, block->bounce, (head + piece + mask) & ~mask);
            if (status == QC_OK)
                __builtin_memcpy(out, block->bounce + head, piece);
        }
        if (status != QC_OK)
            return status;
        host_off += piece;
        out += piece;
        len -= piece;
    }
    return QC_OK;
}

static const struct qc_disk_ops block_ops = {.read = block_read};

void efi_block_init(struct efi_block *block, EFI_BLOCK_IO_PROTOCOL *parent)
{
    const EFI_BLOCK_IO_MEDIA *media = parent->Media;

    block->disk.ops = &block_ops;
    block->disk.size_bytes = (media->LastBlock + 1) * media->BlockSize;
    block->disk.block_bytes = media->BlockSize;
    block->parent = parent;
    block->media_id = media->MediaId;
    block->last_status = EFI_SUCCESS;
}
