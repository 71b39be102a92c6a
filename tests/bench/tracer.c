/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Preloaded into a program that uses images, it writes down every call that reaches one of them:
 * the same tracer counts this engine and QEMU.
 *
 * TRACE_FILES names the images, parted by ':'; they exist before the program starts. TRACE_LOG is
 * the log: three 64-bit words a call (kind + 256 * number of the image, offset, bytes). What one
 * system call transfers is one operation, however many buffers it has.
 *
 * Promises: a call that succeeded is entered once, before the caller sees it; calls on other files
 * are passed on unchanged. fallocate is refused, so that the images behave like a disk, which knows
 * nothing of it. A flush is entered and answered, but not made: what is counted here does not
 * depend on it, and ten thousands of them would be all that the run waits for.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define EXPORTED __attribute__((visibility("default")))

#define FILES_MAX      8
#define NAME_MAX_BYTES 1024

enum kind { KIND_READ, KIND_WRITE, KIND_FLUSH };

static struct stat images[FILES_MAX];
static int images_count;
static int log_fd = -1;

static ssize_t (*next_pread)(int, void *, size_t, off_t);
static ssize_t (*next_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*next_preadv)(int, const struct iovec *, int, off_t);
static ssize_t (*next_pwritev)(int, const struct iovec *, int, off_t);
static ssize_t (*next_read)(int, void *, size_t);
static ssize_t (*next_write)(int, const void *, size_t);
static int (*next_fdatasync)(int);
static int (*next_fsync)(int);
static int (*next_fallocate)(int, int, off_t, off_t);

/* dlsym's answer is an object pointer; POSIX lets it become a function's through its bytes. */
static void find(const char *name, void *ret_function)
{
    void *symbol = dlsym(RTLD_NEXT, name);

    if (symbol == NULL)
        abort();
    *(void **)ret_function = symbol;
}

static void add_images(const char *names)
{
    while (*names != '\0') {
        char name[NAME_MAX_BYTES];
        size_t length = strcspn(names, ":");

        if (length >= sizeof(name) || images_count == FILES_MAX)
            abort();
        memcpy(name, names, length);
        name[length] = '\0';
        if (stat(name, &images[images_count++]) != 0)
            abort();
        names += length + (names[length] == ':');
    }
}

__attribute__((constructor)) static void start(void)
{
    const char *names = getenv("TRACE_FILES"), *log = getenv("TRACE_LOG");

    find("pread", &next_pread);
    find("pwrite", &next_pwrite);
    find("preadv", &next_preadv);
    find("pwritev", &next_pwritev);
    find("read", &next_read);
    find("write", &next_write);
    find("fdatasync", &next_fdatasync);
    find("fsync", &next_fsync);
    find("fallocate", &next_fallocate);
    if (names == NULL || log == NULL)
        return;
    add_images(names);
    log_fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (log_fd < 0)
        abort();
}

/* The number of the image behind fd, -1 where it is none of them. */
static int image_of(int fd)
{
    struct stat st;

    if (log_fd < 0 || fstat(fd, &st) != 0)
        return -1;
    for (int i = 0; i < images_count; i++)
        if (st.st_dev == images[i].st_dev && st.st_ino == images[i].st_ino)
            return i;
    return -1;
}

/* In one call, so that entries of several threads do not mix. */
static void enter(int image, enum kind kind, off_t offset, ssize_t length)
{
    uint64_t words[] = {kind + 256u * (unsigned)image, (uint64_t)offset, (uint64_t)length};

    if (image >= 0 && length >= 0 && next_write(log_fd, words, sizeof(words)) != sizeof(words))
        abort();
}

EXPORTED ssize_t pread(int fd, void *buf, size_t count, off_t offset)
{
    ssize_t got = next_pread(fd, buf, count, offset);

    enter(image_of(fd), KIND_READ, offset, got);
    return got;
}

EXPORTED ssize_t preadv(int fd, const struct iovec *vectors, int count, off_t offset)
{
    ssize_t got = next_preadv(fd, vectors, count, offset);

    enter(image_of(fd), KIND_READ, offset, got);
    return got;
}

EXPORTED ssize_t pwrite(int fd, const void *buf, size_t count, off_t offset)
{
    ssize_t put = next_pwrite(fd, buf, count, offset);

    enter(image_of(fd), KIND_WRITE, offset, put);
    return put;
}

EXPORTED ssize_t pwritev(int fd, const struct iovec *vectors, int count, off_t offset)
{
    ssize_t put = next_pwritev(fd, vectors, count, offset);

    enter(image_of(fd), KIND_WRITE, offset, put);
    return put;
}

EXPORTED ssize_t read(int fd, void *buf, size_t count)
{
    int image = image_of(fd);
    off_t offset = image < 0 ? 0 : lseek(fd, 0, SEEK_CUR);
    ssize_t got = next_read(fd, buf, count);

    enter(image, KIND_READ, offset, got);
    return got;
}

EXPORTED ssize_t write(int fd, const void *buf, size_t count)
{
    int image = image_of(fd);
    off_t offset = image < 0 ? 0 : lseek(fd, 0, SEEK_CUR);
    ssize_t put = next_write(fd, buf, count);

    enter(image, KIND_WRITE, offset, put);
    return put;
}

EXPORTED int fdatasync(int fd)
{
    int image = image_of(fd);

    if (image < 0)
        return next_fdatasync(fd);
    enter(image, KIND_FLUSH, 0, 0);
    return 0;
}

EXPORTED int fsync(int fd)
{
    int image = image_of(fd);

    if (image < 0)
        return next_fsync(fd);
    enter(image, KIND_FLUSH, 0, 0);
    return 0;
}

EXPORTED int fallocate(int fd, int mode, off_t offset, off_t length)
{
    if (image_of(fd) < 0)
        return next_fallocate(fd, mode, offset, length);
    errno = EOPNOTSUPP;
    return -1;
}

/* The names that programs built for large files call, and those of checking builds. */
EXPORTED ssize_t pread64(int, void *, size_t, off_t) __attribute__((alias("pread")));
EXPORTED ssize_t preadv64(int, const struct iovec *, int, off_t) __attribute__((alias("preadv")));
EXPORTED ssize_t pwrite64(int, const void *, size_t, off_t) __attribute__((alias("pwrite")));
EXPORTED ssize_t pwritev64(int, const struct iovec *, int, off_t) __attribute__((alias("pwritev")));
EXPORTED int fallocate64(int, int, off_t, off_t) __attribute__((alias("fallocate")));
EXPORTED ssize_t __pread64_chk(int fd, void *buf, size_t count, off_t offset, size_t room);
EXPORTED ssize_t __pread64_chk(int fd, void *buf, size_t count, off_t offset, size_t room)
{
    return count <= room ? pread(fd, buf, count, offset) : -1;
}
EXPORTED ssize_t __pread_chk(int, void *, size_t, off_t, size_t)
    __attribute__((alias("__pread64_chk")));
