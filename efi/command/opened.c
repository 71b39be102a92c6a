/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See opened.h. Tables are all that is read here and written, so there is no unpacker, and where
 * only the image's own tables count its layers and data file are a disk that answers nothing.
 */
#include "opened.h"

#include "../../drivers/efi_block.h"
#include "console.h"
#include "file_disk.h"
#include "report/nowhere.h"

#define POOL_BYTES (4u * 1024 * 1024)
#define BELOW_MAX  (2u * QC_LAYERS_MAX)

static _Alignas(QC_PAGE_BYTES) uint8_t pool[POOL_BYTES];
static struct qc_cache cache;
static struct qc_image image;
static struct report_image subject;

/* A layer or a data file. */
struct below {
    struct file_disk file;
    char name[TEXT_BYTES_MAX]; /* as reports have it */
    char path[TEXT_BYTES_MAX]; /* from the volume's root */
};

static struct {
    struct qc_bases bases;
    const struct target *target;
    enum opened_use use;
    bool is_paused;
    struct efi_block block;
    struct file_disk file;
    struct below below[BELOW_MAX];
    unsigned below_count;
    const char *paths[QC_LAYERS_MAX]; /* of the layers, from the volume's root */
} here;

/* ---- what lies below ------------------------------------------------------------------------ */

/* A file of the image's volume, by a name below the folder of who names it. */
static qc_status find_file(struct qc_base *base)
{
    struct below *below = &here.below[here.below_count];
    unsigned above = base->is_data_file ? base->depth : base->depth - 1;
    qc_status status = qc_name_check(base->name, &base->detail);

    if (status != QC_OK)
        return status;
    if (here.target->volume == NULL)
        return qc_fail(&base->detail, QC_REFUSED, "the layer below is not a file");
    if (!target_beside(below->name, subject.names[above], base->name) ||
        !target_beside(below->path, here.paths[above], base->name))
        return qc_fail(&base->detail, QC_UNSUPPORTED, "the path of a layer is too long");
    for (size_t i = 0; below->path[i] != '\0'; i++)
        below->path[i] = below->path[i] == '/' ? '\\' : below->path[i];
    if (EFI_ERROR(file_disk_open(&below->file, here.target->volume, below->path, true)))
        return qc_fail(&base->detail, QC_IO, "%s cannot be opened", base->name);
    here.below_count++;
    base->disk = &below->file.disk;
    if (base->is_data_file) {
        subject.data_names[base->depth] = below->name;
    } else {
        subject.names[base->depth] = below->name;
        here.paths[base->depth] = below->path;
    }
    return QC_OK;
}

static qc_status find(struct qc_bases *bases, struct qc_base *base)
{
    (void)bases;
    if (here.use == OPENED_LAYERS)
        return find_file(base);
    base->disk = nowhere();
    base->format = QC_FORMAT_RAW;
    return QC_OK;
}

/* The name of the layer below, which need not be there: the folder of the image, and what it says.
 */
static void name_below(void)
{
    static char name[TEXT_BYTES_MAX];
    const struct qc_header *header = qc_info(&image);

    if (here.target->volume == NULL || header->backing_off == 0 || header->backing_bytes == 0 ||
        header->backing_bytes > QC_BACKING_NAME_BYTES_MAX)
        return;
    __builtin_memset(subject.text, 0, sizeof(subject.text));
    if (image.top.disk->ops->read(image.top.disk, header->backing_off, subject.text,
                                  header->backing_bytes) == QC_OK &&
        target_beside(name, subject.names[0], subject.text))
        subject.names[1] = name;
}

/* ---- the image itself ----------------------------------------------------------------------- */

/* Makes the disk that the image lies on. */
static int open_disk(const struct target *target, bool is_readonly, struct qc_disk **ret_disk)
{
    void *block_io;

    if (target->volume != NULL && !target->is_attached) {
        if (EFI_ERROR(file_disk_open(&here.file, target->volume, target->path, is_readonly)))
            return fail(target->name, is_readonly ? ": cannot be opened" : ": cannot be written",
                        "");
        subject.used_bytes = here.file.used_bytes;
        *ret_disk = &here.file.disk;
        return EXIT_GOOD;
    }
    if (EFI_ERROR(firmware_protocol(target->container, &guid_block_io, &block_io)) ||
        !efi_block_fits(block_io))
        return fail(target->name, ": not a disk that can be used", "");
    if (target->is_attached) {
        if (EFI_ERROR(driver_control()->pause(driver_control(), target->container)))
            return fail(target->name, ": cannot be flushed", "");
        here.is_paused = true;
    }
    efi_block_init(&here.block, block_io);
    *ret_disk = &here.block.disk;
    return EXIT_GOOD;
}

int opened_begin(const struct target *target, const char *name, enum opened_use use,
                 struct report_image **ret_subject)
{
    bool is_readonly = use != OPENED_REPAIR && use != OPENED_CHANGE;
    struct qc_open_options options = {
        .readonly = is_readonly,
        .is_backing_off = use != OPENED_LAYERS && use != OPENED_CHANGE,
        .is_for_check = use == OPENED_CHECK || use == OPENED_REPAIR,
        .bases = &here.bases,
    };
    struct qc_disk *disk = NULL;
    qc_status why;
    int status;

    if (!is_readonly && target_is_layer(target))
        return fail(name, " is a layer of an attached image", "");
    __builtin_memset(&here, 0, sizeof(here));
    here.bases.find = find;
    here.target = target;
    here.use = use;
    here.paths[0] = target->path;
    subject = (struct report_image){.image = &image, .names = {name}, .used_bytes = REPORT_UNKNOWN};
    status = open_disk(target, is_readonly, &disk);
    if (status != EXIT_GOOD)
        return status;
    qc_cache_init(&cache, pool, sizeof(pool));
    why = qc_open(&image, &cache, disk, &options);
    if (why != QC_OK) {
        fail(name, ": ", why == QC_FOREIGN ? "not a qcow2 image" : qc_detail(&image));
        here.use = OPENED_ALONE; /* nothing was changed */
        return opened_end(EXIT_FAILED);
    }
    if (use == OPENED_ALONE)
        name_below();
    *ret_subject = &subject;
    return EXIT_GOOD;
}

int opened_end(int status)
{
    bool is_changed = here.use == OPENED_REPAIR || here.use == OPENED_CHANGE;

    if (is_changed && qc_settle(&image) != QC_OK && status == EXIT_GOOD)
        status = fail(here.target->name, ": ", qc_detail(&image));
    if (EFI_ERROR(file_disk_close(&here.file)) && is_changed)
        status = fail(here.target->name, ": cannot be flushed", "");
    while (here.below_count > 0)
        file_disk_close(&here.below[--here.below_count].file);
    if (!here.is_paused)
        return status;
    here.is_paused = false;
    if (EFI_ERROR(driver_control()->resume(driver_control(), here.target->container, is_changed)))
        return fail(here.target->name, ": cannot be attached again", "");
    return status;
}
