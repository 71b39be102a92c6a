/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * A qc_disk over a file descriptor: pread and pwrite until all bytes are there, fdatasync,
 * fallocate.
 *
 * Promises: a read that meets the end of the file (it shrank since posix_file_init) is QC_IO, never
 * short and never filled up with zeros. fdatasync is the flush: it makes the data durable, and of
 * the file's own metadata what is needed to find it again (its size, its blocks).
 * Left to others: caching and alignment; the system's page cache does both.
 */
#include "posix_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK_BYTES_DEFAULT 512

static qc_status file_read(struct qc_disk *disk, uint64_t host_off, void *buf, size_t len)
{
    const struct posix_file *file = (const struct posix_file *)disk;
    uint8_t *bytes = buf;

    /* Every turn moves on, fails, or was interrupted by a signal that must not look like an error.
     */
    while (len > 0) {
        ssize_t got = pread(file->fd, bytes, len, (off_t)host_off);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return QC_IO;
        bytes += got;
        host_off += (uint64_t)got;
        len -= (size_t)got;
    }
    return QC_OK;
}

/* A limit of the file's size (EFBIG) is as much a full host as a full file system or a quota. */
static qc_status status_of(int error)
{
    return error == ENOSPC || error == EDQUOT || error == EFBIG ? QC_NOSPACE : QC_IO;
}

static qc_status file_write(struct qc_disk *disk, uint64_t host_off, const void *buf, size_t len)
{
    const struct posix_file *file = (const struct posix_file *)disk;
    const uint8_t *bytes = buf;

    while (len > 0) {
        ssize_t put = pwrite(file->fd, bytes, len, (off_t)host_off);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return put < 0 ? status_of(errno) : QC_IO;
        bytes += put;
        host_off += (uint64_t)put;
        len -= (size_t)put;
    }
    return QC_OK;
}

/* Not tried again after an error: what the system forgot, it forgot. */
static qc_status file_flush(struct qc_disk *disk)
{
    const struct posix_file *file = (const struct posix_file *)disk;

    return fdatasync(file->fd) == 0 ? QC_OK : QC_IO;
}

static qc_status file_grow(struct qc_disk *disk, uint64_t size_bytes)
{
    const struct posix_file *file = (const struct posix_file *)disk;
    off_t old_bytes = (off_t)disk->size_bytes;

    if (size_bytes <= disk->size_bytes)
        return QC_OK;
    if (fallocate(file->fd, 0, old_bytes, (off_t)size_bytes - old_bytes) < 0) {
        /* A file system that cannot reserve can at least be told the size. */
        if (errno != EOPNOTSUPP && errno != ENOSYS)
            return status_of(errno);
        if (ftruncate(file->fd, (off_t)size_bytes) < 0)
            return status_of(errno);
    }
    disk->size_bytes = size_bytes;
    return QC_OK;
}

/* Hints: that a file system or a device cannot do it is no error. */
static void file_trim(struct qc_disk *disk, uint64_t host_off, uint64_t len)
{
    const struct posix_file *file = (const struct posix_file *)disk;

    (void)fallocate(file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)host_off,
                    (off_t)len);
}

static void device_trim(struct qc_disk *disk, uint64_t host_off, uint64_t len)
{
    const struct posix_file *file = (const struct posix_file *)disk;
    uint64_t range[2] = {host_off, len};

    (void)ioctl(file->fd, BLKDISCARD, range);
}

static const struct qc_disk_ops file_ops = {
    .read = file_read,
    .write = file_write,
    .flush = file_flush,
    .grow = file_grow,
    .trim = file_trim,
};

static const struct qc_disk_ops device_ops = {
    .read = file_read,
    .write = file_write,
    .flush = file_flush,
    .trim = device_trim,
};

int posix_file_init(struct posix_file *file, int fd)
{
    int flags = fcntl(fd, F_GETFL), block_bytes = BLOCK_BYTES_DEFAULT;
    struct stat st;
    off_t size;

    if (flags < 0 || fstat(fd, &st) < 0)
        return errno;
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
        return EINVAL;
    /* st_size of a block device is 0; its end tells. */
    size = S_ISREG(st.st_mode) ? st.st_size : lseek(fd, 0, SEEK_END);
    if (size < 0 || (S_ISBLK(st.st_mode) && ioctl(fd, BLKSSZGET, &block_bytes) < 0))
        return errno;
    file->fd = fd;
    file->disk.ops = S_ISREG(st.st_mode) ? &file_ops : &device_ops;
    file->disk.size_bytes = (uint64_t)size;
    file->disk.block_bytes = (uint32_t)block_bytes;
    file->disk.readonly = (flags & O_ACCMODE) == O_RDONLY;
    return 0;
}

/* One step down. Opening must not wait for the other end of what turns out to be a pipe. */
static int open_part(int folder, const char *name, size_t length, int flags)
{
    char part[NAME_MAX + 1];

    if (length > NAME_MAX) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(part, name, length);
    part[length] = '\0';
    return openat(folder, part, flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
}

int posix_file_open_below(struct posix_file *file, int folder, const char *name, int flags,
                          int *ret_folder)
{
    int above = -1, fd = fcntl(folder, F_DUPFD_CLOEXEC, 0), error;

    /* Behind the last part, fd is the file and above the folder that it lies in. */
    for (name += strspn(name, "/"); fd >= 0 && *name != '\0'; name += strspn(name, "/")) {
        size_t length = strcspn(name, "/");
        bool is_last = name[length + strspn(name + length, "/")] == '\0';

        if (above >= 0)
            close(above);
        above = fd;
        fd = open_part(above, name, length, is_last ? flags : O_RDONLY);
        name += length;
    }
    error = fd < 0 ? errno : posix_file_init(file, fd);
    if (error == 0) {
        *ret_folder = above;
        return 0;
    }
    if (above >= 0)
        close(above);
    if (fd >= 0)
        close(fd);
    return error;
}
