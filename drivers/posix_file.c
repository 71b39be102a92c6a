/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * A qc_disk over a file descriptor: pread, until all bytes are there.
 *
 * Promises: a read that meets the end of the file (it shrank since posix_file_init) is QC_IO, never
 * short and never filled up with zeros.
 * Left to others: caching and alignment; the system's page cache does both.
 */
#include "posix_file.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

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

static const struct qc_disk_ops file_ops = {
    .read = file_read,
};

int posix_file_init(struct posix_file *file, int fd)
{
    struct stat st;
    off_t size;

    if (fstat(fd, &st) < 0)
        return errno;
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
        return EINVAL;
    /* st_size of a block device is 0; its end tells. */
    size = S_ISREG(st.st_mode) ? st.st_size : lseek(fd, 0, SEEK_END);
    if (size < 0)
        return errno;
    file->fd = fd;
    file->disk.ops = &file_ops;
    file->disk.size_bytes = (uint64_t)size;
    file->disk.block_bytes = 512;
    return 0;
}
