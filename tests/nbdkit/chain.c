/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Opens the files of an image, one layer after the other, as the engine asks for them.
 *
 * Promises: see chain.h. A refusal says which rule, an error which file. A format that is not given
 * is not guessed: the guest of a raw layer chooses what its file looks like.
 */
#include "chain.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_same_file(const struct posix_file *one, const struct posix_file *other)
{
    struct stat st, other_st;

    return fstat(one->fd, &st) == 0 && fstat(other->fd, &other_st) == 0 &&
           st.st_dev == other_st.st_dev && st.st_ino == other_st.st_ino;
}

static bool is_open_already(const struct chain *chain, const struct posix_file *file)
{
    for (unsigned i = 0; i < chain->files_count; i++)
        if (is_same_file(file, &chain->files[i]))
            return true;
    return false;
}

/* What a layer asks for is written only where it is the image's own data file. */
static qc_status chain_find(struct qc_bases *bases, struct qc_base *base)
{
    struct chain *chain = (struct chain *)bases;
    struct posix_file *file = &chain->files[chain->files_count];
    int flags = base->is_data_file && base->depth == 0 ? chain->flags : O_RDONLY;
    qc_status status = qc_name_check(base->name, &base->detail);
    bool is_used;
    int folder, error;

    if (status != QC_OK)
        return status;
    error = posix_file_open_below(file, chain->folder, base->name, flags, &folder);
    if (error == ELOOP)
        return qc_fail(&base->detail, QC_REFUSED, "backing name refused: symbolic link in %s",
                       base->name);
    if (error != 0)
        return qc_fail(&base->detail, QC_IO, "%s file %s: %s",
                       base->is_data_file ? "data" : "backing", base->name, strerror(error));
    is_used = is_open_already(chain, file);
    chain->files_count++; /* from here on chain_close closes it */
    if (base->is_data_file) {
        close(folder);
    } else {
        close(chain->folder);
        chain->folder = folder;
    }
    if (is_used)
        return qc_fail(&base->detail, QC_REFUSED, "backing name refused: %s is %s above, too",
                       base->name, base->is_data_file ? "used" : "a layer");
    base->disk = &file->disk;
    return QC_OK;
}

/* The name is the user's own: links on the way to the image's folder are followed. */
static int open_folder_of(const char *file_name)
{
    static char folder[PATH_MAX];
    const char *slash = strrchr(file_name, '/');
    size_t length = slash ? (size_t)(slash - file_name) + 1 : 0;

    if (length >= sizeof(folder)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(folder, file_name, length);
    folder[length] = '\0';
    return open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

int chain_open(struct chain *chain, const char *file_name, int flags)
{
    int fd = open(file_name, flags | O_CLOEXEC);
    int folder = fd < 0 ? -1 : open_folder_of(file_name);
    int error = folder < 0 ? errno : posix_file_init(&chain->files[0], fd);

    if (error == 0) {
        chain->bases.find = chain_find;
        chain->files_count = 1;
        chain->flags = flags;
        chain->folder = folder;
        return 0;
    }
    if (folder >= 0)
        close(folder);
    if (fd >= 0)
        close(fd);
    return error;
}

void chain_close(struct chain *chain)
{
    close(chain->folder);
    while (chain->files_count > 0)
        close(chain->files[--chain->files_count].fd);
}
