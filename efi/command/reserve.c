/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The verb reserve: an image's file gets room to grow in, and pages of its own.
 *
 * Where the file can be made longer in place it is; else its content is copied into a new file,
 * which takes the old one's name. At any moment there is one whole copy: the new one is flushed
 * before the old one goes. What is behind the image's last used cluster is not copied, and no
 * reader of an image ever looks there.
 */
#include "reserve.h"

#include "console.h"
#include "room.h"
#include "verbs.h"

#define COPY_BYTES  (1024u * 1024)
#define ZEROS_BYTES (64u * 1024)
#define NEW_SUFFIX  ".new"

static uint64_t round_up(uint64_t bytes, uint64_t unit)
{
    return (bytes + unit - 1) / unit * unit;
}

/*
 * "512M": bytes, or with K, M, G and T as qemu-img has them. What is more than a file can have
 * becomes something that is, too, however large it is.
 */
static bool parse_size(const char *text, uint64_t *ret_bytes)
{
    static const char units[] = "KMGT";
    uint64_t bytes = 0;
    size_t i = 0, unit;

    for (; text[i] >= '0' && text[i] <= '9'; i++) {
        if (bytes <= ROOM_FILE_BYTES_MAX)
            bytes = bytes * 10 + (uint64_t)(text[i] - '0');
    }
    if (i == 0)
        return false;
    if (text[i] != '\0') {
        unit = text_find(units, (char)(text[i] & ~0x20));
        if (units[unit] == '\0' || text[i + 1] != '\0')
            return false;
        for (size_t step = 0; step <= unit && bytes <= ROOM_FILE_BYTES_MAX; step++)
            bytes <<= 10;
    }
    *ret_bytes = bytes;
    return true;
}

/* Where the image's last used cluster ends. It must be one that nothing is wrong with. */
static int measure(const struct target *target, uint64_t *ret_end_off)
{
    struct report_image *subject;
    struct qc_check_result result;
    qc_status why;
    int status = opened_begin(target, target->name, OPENED_CHECK, &subject);

    if (status != EXIT_GOOD)
        return status;
    why = qc_check(subject->image, QC_FIX_NOTHING, console_progress, "measuring", &result);
    if (why != QC_OK && console_is_interrupted())
        status = fail_interrupted();
    else if (why != QC_OK)
        status = fail(target->name, ": ", qc_detail(subject->image));
    else if (result.corruptions > 0 || result.check_errors > 0)
        status = fail(target->name, ": the image is damaged: qcow2 check tells more", "");
    else
        *ret_end_off = result.image_end_off;
    return opened_end(status);
}

static int refuse(const struct target *target, EFI_STATUS status)
{
    switch (status) {
    case EFI_UNSUPPORTED:
        return fail(target->name, ": not on a FAT volume", "");
    case EFI_VOLUME_FULL:
        return fail(target->name, ": not enough free space on its volume", "");
    case EFI_NOT_FOUND:
        return fail(target->name, ": the volume has no free place whose pages are not shared", "");
    case EFI_WRITE_PROTECTED:
        return fail(target->name, ": its volume cannot be written", "");
    default:
        return fail(target->name, ": its volume failed", "");
    }
}

/* What a file ends before reads as zeros in an image; so it must once the file is longer. */
static qc_status put_zeros(struct qc_disk *disk, uint64_t from_off, uint64_t end_off)
{
    static uint8_t zeros[ZEROS_BYTES]; /* a constant would lie in the program's file */
    qc_status status = QC_OK;

    while (from_off < end_off && status == QC_OK) {
        size_t part = end_off - from_off < ZEROS_BYTES ? (size_t)(end_off - from_off) : ZEROS_BYTES;

        status = disk->ops->write(disk, from_off, zeros, part);
        from_off += part;
    }
    return status;
}

static int copy_bytes(const struct target *target, struct qc_disk *from, struct qc_disk *to,
                      uint64_t end_off)
{
    static uint8_t buf[COPY_BYTES];
    uint64_t bytes = end_off < from->size_bytes ? end_off : from->size_bytes;

    for (uint64_t off = 0; off < bytes; off += COPY_BYTES) {
        size_t part = bytes - off < COPY_BYTES ? (size_t)(bytes - off) : COPY_BYTES;

        if (!console_progress("copying", off, bytes))
            return fail_interrupted();
        if (from->ops->read(from, off, buf, part) != QC_OK ||
            to->ops->write(to, off, buf, part) != QC_OK)
            return refuse(target, EFI_DEVICE_ERROR);
    }
    return put_zeros(to, bytes, end_off) == QC_OK ? EXIT_GOOD : refuse(target, EFI_DEVICE_ERROR);
}

static int copy_file(const struct target *target, const char *new_path, uint64_t end_off)
{
    static struct file_disk from, to;
    int status = EXIT_FAILED;

    if (!EFI_ERROR(file_disk_open(&from, target->volume, target->path, true)) &&
        !EFI_ERROR(file_disk_open(&to, target->volume, new_path, false)))
        status = copy_bytes(target, &from.disk, &to.disk, end_off);
    else
        refuse(target, EFI_DEVICE_ERROR);
    file_disk_close(&from);
    if (EFI_ERROR(file_disk_close(&to)) && status == EXIT_GOOD)
        status = refuse(target, EFI_DEVICE_ERROR);
    return status;
}

/* Copies the image into a file of its own pages, and puts that in its place. */
static int move(const struct target *target, uint64_t end_off, uint64_t bytes)
{
    static char new_path[TEXT_BYTES_MAX];
    struct room room;
    EFI_STATUS status;
    int copied;

    if (!text_copy(new_path, TEXT_BYTES_MAX, target->path) ||
        !text_add(new_path, TEXT_BYTES_MAX, NEW_SUFFIX))
        return fail(target->name, ": its path is too long", "");
    if (!EFI_ERROR(files_look(target->volume, new_path)))
        return fail(target->name, NEW_SUFFIX " is there already", "");
    status = room_make(target->volume, new_path, bytes);
    if (EFI_ERROR(status))
        return refuse(target, status);
    copied = copy_file(target, new_path, end_off);
    if (copied != EXIT_GOOD) {
        files_remove(target->volume, new_path);
        return copied;
    }
    status = files_replace(target->volume, new_path, target->path, target_last(target->path));
    if (!EFI_ERROR(status))
        status = room_look(target->volume, target->path, &room);
    if (EFI_ERROR(status))
        return fail(target->name, ": its volume failed; the image is in ", new_path);
    return room.is_owner ? EXIT_GOOD : refuse(target, EFI_NOT_FOUND);
}

/*
 * Tries to make it longer where it is; false leaves it as it was. What the image has behind the
 * file's end would have to be zeros before the file is longer, and the firmware writes what a file
 * has become after how long it is: that is no case for here.
 */
static bool extend(const struct target *target, const struct room *before, uint64_t end_off,
                   uint64_t bytes)
{
    struct room after;

    if (before->before != 0 || end_off > before->bytes || bytes < before->bytes)
        return false;
    if (!EFI_ERROR(room_resize(target->volume, target->path, bytes)) &&
        !EFI_ERROR(room_look(target->volume, target->path, &after)) && after.is_owner)
        return true;
    room_resize(target->volume, target->path, before->bytes);
    return false;
}

int reserve_room(const struct target *target, uint64_t asked_bytes)
{
    struct room room;
    uint64_t end_off = 0, bytes;
    EFI_STATUS looked;
    int status;

    if (target->volume == NULL)
        return fail(target->name, ": not a file", "");
    if (target->is_attached)
        return fail(target->name, " is attached: detach it first", "");
    if (target_is_layer(target))
        return fail(target->name, " is a layer of an attached image", "");
    status = measure(target, &end_off);
    if (status != EXIT_GOOD)
        return status;
    looked = room_look(target->volume, target->path, &room);
    if (EFI_ERROR(looked) && (looked != EFI_UNSUPPORTED || room.page_bytes == 0))
        return refuse(target, looked);
    if (asked_bytes > ROOM_FILE_BYTES_MAX || end_off > ROOM_FILE_BYTES_MAX - asked_bytes)
        return fail(target->name, ": a file on FAT has less than 4 GiB", "");
    bytes = end_off + asked_bytes;
    if (bytes < room.bytes)
        bytes = room.bytes;
    bytes = round_up(bytes, room.page_bytes);
    if (bytes > ROOM_FILE_BYTES_MAX)
        return fail(target->name, ": a file on FAT has less than 4 GiB", "");
    if ((room.is_owner && room.bytes >= end_off + asked_bytes) ||
        extend(target, &room, end_off, bytes))
        return EXIT_GOOD;
    return move(target, end_off, bytes);
}

int verb_reserve(const struct request *request)
{
    static struct target target;
    uint64_t asked_bytes;
    int status;

    if (!parse_size(request->words[1], &asked_bytes))
        return fail("not a size: ", request->words[1], "");
    status = target_find(request->words[0], &target);
    return status == EXIT_GOOD ? reserve_room(&target, asked_bytes) : status;
}
