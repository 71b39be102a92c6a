/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Preloaded into nbdkit or qemu-nbd, it writes down what the server asks of one file, or of an
 * image and its data file, in order.
 *
 * RECORD_FILE names that file, RECORD_DATA the other (whose kinds are 256 higher), RECORD_LOG the
 * log. An entry is three 64-bit words (kind, offset,
 * length); where RECORD_CONTENT is set, a write's is followed by its bytes. tests/host/serve.py
 * reads it. Only calls that succeeded are entered, with what they did, before the caller sees it.
 *
 * Promises: calls are passed on unchanged, other files are not looked at; a log that cannot be
 * written ends the program, because half a record proves nothing.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define EXPORTED __attribute__((visibility("default")))

enum kind { KIND_READ, KIND_WRITE, KIND_FLUSH, KIND_TRIM, KIND_GROW, KIND_ZERO };

#define VECTORS_MAX 64

#define FILES_MAX 2

static struct stat watched[FILES_MAX];
static int watched_count;
static int log_fd = -1;
static bool is_content_wanted;

static ssize_t (*next_pread)(int, void *, size_t, off_t);
static ssize_t (*next_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*next_preadv)(int, const struct iovec *, int, off_t);
static ssize_t (*next_pwritev)(int, const struct iovec *, int, off_t);
static int (*next_fdatasync)(int);
static int (*next_fallocate)(int, int, off_t, off_t);

/* dlsym's answer is an object pointer; POSIX lets it become a function's through its bytes. */
static void find(const char *name, void *ret_function)
{
    void *symbol = dlsym(RTLD_NEXT, name);

    if (symbol == NULL)
        abort();
    *(void **)ret_function = symbol;
}

__attribute__((constructor)) static void start(void)
{
    const char *file = getenv("RECORD_FILE"), *data = getenv("RECORD_DATA");
    const char *log = getenv("RECORD_LOG");

    find("pread", &next_pread);
    find("pwrite", &next_pwrite);
    find("preadv", &next_preadv);
    find("pwritev", &next_pwritev);
    find("fdatasync", &next_fdatasync);
    find("fallocate", &next_fallocate);
    if (file == NULL || log == NULL || stat(file, &watched[0]) < 0)
        return;
    watched_count = 1 + (data != NULL && stat(data, &watched[1]) == 0);
    is_content_wanted = getenv("RECORD_CONTENT") != NULL;
    log_fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (log_fd < 0)
        abort();
}

/* The number of the file behind fd, -1 where it is none of those. */
static int file_of(int fd)
{
    struct stat st;

    if (log_fd < 0 || fstat(fd, &st) != 0)
        return -1;
    for (int i = 0; i < watched_count; i++)
        if (st.st_dev == watched[i].st_dev && st.st_ino == watched[i].st_ino)
            return i;
    return -1;
}

/* In one call, so that entries of several threads do not mix. */
static void enter(int fd, enum kind kind, off_t offset, uint64_t length,
                  const struct iovec *vectors, int vectors_count)
{
    int file = file_of(fd);
    uint64_t head[] = {kind + 256u * (unsigned)file, (uint64_t)offset, length};
    struct iovec entry[VECTORS_MAX + 1] = {{head, sizeof(head)}};
    ssize_t total = sizeof(head);
    int entry_count = 1;

    if (file < 0)
        return;
    if (!is_content_wanted)
        vectors_count = 0;
    if (vectors_count > VECTORS_MAX)
        abort();
    for (int i = 0; i < vectors_count && length > 0; i++) {
        entry[entry_count] = vectors[i];
        if (entry[entry_count].iov_len > length)
            entry[entry_count].iov_len = length;
        length -= entry[entry_count].iov_len;
        total += (ssize_t)entry[entry_count++].iov_len;
    }
    if (writev(log_fd, entry, entry_count) != total)
        abort();
}

EXPORTED ssize_t pread(int fd, void *buf, size_t count, off_t offset)
{
    ssize_t got = next_pread(fd, buf, count, offset);

    if (got > 0)
        enter(fd, KIND_READ, offset, (uint64_t)got, NULL, 0);
    return got;
}

EXPORTED ssize_t preadv(int fd, const struct iovec *vectors, int count, off_t offset)
{
    ssize_t got = next_preadv(fd, vectors, count, offset);

    if (got > 0)
        enter(fd, KIND_READ, offset, (uint64_t)got, NULL, 0);
    return got;
}

EXPORTED ssize_t pwrite(int fd, const void *buf, size_t count, off_t offset)
{
    ssize_t put = next_pwrite(fd, buf, count, offset);

    if (put > 0)
        enter(fd, KIND_WRITE, offset, (uint64_t)put, &(struct iovec){(void *)(uintptr_t)buf, count},
              1);
    return put;
}

EXPORTED ssize_t pwritev(int fd, const struct iovec *vectors, int count, off_t offset)
{
    ssize_t put = next_pwritev(fd, vectors, count, offset);

    if (put > 0)
        enter(fd, KIND_WRITE, offset, (uint64_t)put, vectors, count);
    return put;
}

EXPORTED int fdatasync(int fd)
{
    int error = next_fdatasync(fd);

    if (error == 0)
        enter(fd, KIND_FLUSH, 0, 0, NULL, 0);
    return error;
}

EXPORTED int fallocate(int fd, int mode, off_t offset, off_t length)
{
    int error = next_fallocate(fd, mode, offset, length);

    if (error == 0)
        enter(fd,
              mode & FALLOC_FL_PUNCH_HOLE   ? KIND_TRIM
              : mode & FALLOC_FL_ZERO_RANGE ? KIND_ZERO
                                            : KIND_GROW,
              offset, (uint64_t)length, NULL, 0);
    return error;
}

/* The names that programs built for large files call; off_t has 64 bits here anyway. */
EXPORTED ssize_t pread64(int, void *, size_t, off_t) __attribute__((alias("pread")));
EXPORTED ssize_t preadv64(int, const struct iovec *, int, off_t) __attribute__((alias("preadv")));
EXPORTED ssize_t pwrite64(int, const void *, size_t, off_t) __attribute__((alias("pwrite")));
EXPORTED ssize_t pwritev64(int, const struct iovec *, int, off_t) __attribute__((alias("pwritev")));
EXPORTED int fallocate64(int, int, off_t, off_t) __attribute__((alias("fallocate")));
