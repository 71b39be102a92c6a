/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Byte ranges to blocks: each request is cut into pieces, each piece is one transfer.
 *
 * A piece goes straight from or to the caller's buffer when it starts on a block, holds whole
 * blocks and the buffer is aligned as the device wants; else it goes through the bounce buffer.
 * There is one such buffer for all disks, as there is one request at a time. What fits it as a
 * whole is one piece even where its middle could go straight: a request to a device costs more than
 * the copy.
 */
#include "efi_block.h"

static _Alignas(EFI_BLOCK_IO_ALIGN_MAX) uint8_t bounce[EFI_BLOCK_BOUNCE_BYTES];

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

static qc_status answer(struct efi_block *block, EFI_STATUS status)
{
    if (!EFI_ERROR(status))
        return QC_OK;
    if (status == EFI_NO_MEDIA || status == EFI_MEDIA_CHANGED)
        block->medium = status;
    return QC_IO;
}

/* Not every device looks at the MediaId that it is given, so a request stops here. */
static bool has_gone(struct efi_block *block)
{
    EFI_STATUS status = efi_block_medium(block);

    if (!EFI_ERROR(status))
        return false;
    block->medium = status;
    return true;
}

static EFI_LBA lba_of(const struct efi_block *block, uint64_t host_off)
{
    return host_off >> __builtin_ctz(block->disk.block_bytes);
}

static qc_status read_blocks(struct efi_block *block, uint64_t host_off, void *buf, size_t len)
{
    if (has_gone(block))
        return QC_IO;
    return answer(block, block->parent->ReadBlocks(block->parent, block->media_id,
                                                   lba_of(block, host_off), len, buf));
}

static qc_status write_blocks(struct efi_block *block, uint64_t host_off, const void *buf,
                              size_t len)
{
    if (has_gone(block))
        return QC_IO;
    /* The protocol's buffer has no const; the device only reads it. */
    return answer(block,
                  block->parent->WriteBlocks(block->parent, block->media_id,
                                             lba_of(block, host_off), len, (void *)(uintptr_t)buf));
}

void efi_block_probe(struct efi_block *block)
{
    if (read_blocks(block, 0, bounce, block->disk.block_bytes) != QC_OK &&
        !EFI_ERROR(block->medium))
        block->medium = EFI_NO_MEDIA;
}

/* Whether whole blocks at host_off can be transferred from or to buf without a copy. */
static bool is_direct(const struct efi_block *block, uint64_t host_off, const uint8_t *buf)
{
    UINT32 io_align = block->parent->Media->IoAlign;

    return (host_off & (block->disk.block_bytes - 1)) == 0 &&
           (io_align <= 1 || ((uintptr_t)buf & (io_align - 1)) == 0);
}

struct piece {
    bool is_direct;
    size_t head; /* bytes of its first block in front of it; 0 if is_direct */
    size_t len;  /* at least the rest of one block, or all there is */
};

/* The first piece of a request; it is one transfer. */
static struct piece next_piece(const struct efi_block *block, uint64_t host_off, const uint8_t *buf,
                               size_t len)
{
    size_t mask = block->disk.block_bytes - 1;
    struct piece piece = {.head = (size_t)host_off & mask};
    size_t to_block = mask + 1 - piece.head;

    if (is_direct(block, host_off, buf) && len > mask &&
        ((len & mask) == 0 || len > EFI_BLOCK_BOUNCE_BYTES)) {
        piece.is_direct = true;
        piece.len = len & ~mask;
        if (piece.len > EFI_BLOCK_TRANSFER_BYTES_MAX)
            piece.len = EFI_BLOCK_TRANSFER_BYTES_MAX;
        return piece;
    }
    piece.len = EFI_BLOCK_BOUNCE_BYTES - piece.head;
    if (piece.len >= len)
        piece.len = len;
    /* A head that does not fit must not drag a long request through the buffer. */
    else if (piece.head != 0 && is_direct(block, host_off + to_block, buf + to_block))
        piece.len = to_block;
    return piece;
}

static struct efi_block *block_of(struct qc_disk *disk)
{
    return (void *)((uint8_t *)disk - offsetof(struct efi_block, disk));
}

/* Any request, piece by piece; apart from its caller, whom nearly all need it not. */
__attribute__((noinline)) static qc_status read_pieces(struct efi_block *block, uint64_t host_off,
                                                       uint8_t *out, size_t len)
{
    size_t mask = block->disk.block_bytes - 1;

    while (len > 0) {
        struct piece piece = next_piece(block, host_off, out, len);
        qc_status status;

        if (piece.is_direct) {
            status = read_blocks(block, host_off, out, piece.len);
        } else {
            status = read_blocks(block, host_off - piece.head, bounce,
                                 (piece.head + piece.len + mask) & ~mask);
            if (status == QC_OK)
                __builtin_memcpy(out, bounce + piece.head, piece.len);
        }
        if (status != QC_OK)
            return status;
        host_off += piece.len;
        out += piece.len;
        len -= piece.len;
    }
    return QC_OK;
}

static qc_status block_read(struct qc_disk *disk, uint64_t host_off, void *buf, size_t len)
{
    struct efi_block *block = block_of(disk);

    /* Nearly all are whole blocks, in one transfer. */
    if (is_direct(block, host_off, buf) && (len & (disk->block_bytes - 1)) == 0 &&
        len - 1 < EFI_BLOCK_TRANSFER_BYTES_MAX)
        return read_blocks(block, host_off, buf, len);
    return read_pieces(block, host_off, buf, len);
}

/*
 * Writes one piece through the bounce buffer. The blocks at its ends that it covers in part are
 * read first, in one request: with what lies between them if that is both.
 */
static qc_status write_bounced(struct efi_block *block, uint64_t host_off, const uint8_t *buf,
                               const struct piece *piece)
{
    size_t mask = block->disk.block_bytes - 1;
    size_t span = (piece->head + piece->len + mask) & ~mask;
    bool is_end_part = ((piece->head + piece->len) & mask) != 0;
    size_t from = piece->head != 0 ? 0 : span - (mask + 1);
    size_t to = is_end_part ? span : mask + 1;

    if (piece->head != 0 || is_end_part) {
        qc_status status =
            read_blocks(block, host_off - piece->head + from, bounce + from, to - from);
        if (status != QC_OK)
            return status;
    }
    __builtin_memcpy(bounce + piece->head, buf, piece->len);
    return write_blocks(block, host_off - piece->head, bounce, span);
}

static qc_status block_write(struct qc_disk *disk, uint64_t host_off, const void *buf, size_t len)
{
    struct efi_block *block = block_of(disk);
    const uint8_t *in = buf;

    while (len > 0) {
        struct piece piece = next_piece(block, host_off, in, len);
        qc_status status = piece.is_direct ? write_blocks(block, host_off, in, piece.len)
                                           : write_bounced(block, host_off, in, &piece);

        if (status != QC_OK)
            return status;
        host_off += piece.len;
        in += piece.len;
        len -= piece.len;
    }
    return QC_OK;
}

static qc_status block_flush(struct qc_disk *disk)
{
    struct efi_block *block = block_of(disk);

    if (has_gone(block))
        return QC_IO;
    return answer(block, block->parent->FlushBlocks(block->parent));
}

static const struct qc_disk_ops block_ops = {
    .read = block_read,
    .write = block_write,
    .flush = block_flush,
};

void efi_block_init(struct efi_block *block, EFI_BLOCK_IO_PROTOCOL *parent)
{
    const EFI_BLOCK_IO_MEDIA *media = parent->Media;

    block->disk.ops = &block_ops;
    block->disk.size_bytes = (media->LastBlock + 1) * media->BlockSize;
    block->disk.block_bytes = media->BlockSize;
    block->disk.readonly = media->ReadOnly;
    block->parent = parent;
    block->media_id = media->MediaId;
    block->medium = EFI_SUCCESS;
}
