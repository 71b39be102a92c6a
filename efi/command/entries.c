/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See entries.h. What works on the file of an image (room, overlays, going back) is done while it
 * is not attached, through the firmware's file system driver; a partition's image stays attached,
 * and the driver steps aside.
 */
#include "entries.h"

#include "../path.h"
#include "boot.h"
#include "clock.h"
#include "console.h"
#include "files.h"
#include "opened.h"
#include "overlay.h"
#include "report/snapshots.h"
#include "reserve.h"

#define LISTED_MAX   64u
#define AUTO_NAME    "boot-" /* and the time, "20261123-004107" */
#define AUTO_PATTERN "boot-00000000-000000"

/* ---- finding it ----------------------------------------------------------------------------- */

/*
 * EFI_NOT_FOUND, or EFI_ABORTED where there are several: copies of a disk have the GUIDs of the
 * original, and a boot of the wrong one writes to it.
 */
static EFI_STATUS find_partition(const struct config_entry *entry, struct target *ret_target)
{
    EFI_HANDLE found = NULL;
    size_t count = 0;

    firmware_locate(&guid_block_io, &count);
    for (size_t i = 0; i < count; i++) {
        const EFI_DEVICE_PATH *path = firmware_path(efi_handles[i]);
        struct config_guid guid;

        if (path == NULL || path_is_in_image(path) || !path_partition(path, &guid) ||
            !config_is_same_guid(&guid, &entry->partition))
            continue;
        if (found != NULL)
            return EFI_ABORTED;
        found = efi_handles[i];
    }
    if (found == NULL)
        return EFI_NOT_FOUND;
    *ret_target = (struct target){.container = found};
    target_is_attached(ret_target);
    return EFI_SUCCESS;
}

static bool find_file(const struct config_entry *entry, const char *suffix,
                      struct target *ret_target)
{
    *ret_target = (struct target){.volume = efi_loaded->DeviceHandle};
    if (!text_copy(ret_target->path, TEXT_BYTES_MAX, entry->file) ||
        !text_add(ret_target->path, TEXT_BYTES_MAX, suffix) ||
        EFI_ERROR(files_look(ret_target->volume, ret_target->path)))
        return false;
    target_is_attached(ret_target);
    return true;
}

/*
 * Where the entry's image is; it has the entry's name from then on. With Secure Boot no disk is
 * made of a file because the configuration says so (secureboot.c).
 */
static bool find(const struct config_entry *entry, struct target *ret_target)
{
    EFI_STATUS status;

    if (entry->has_file && boot_settings.is_narrowed)
        return fail(entry->name, ": a file is not attached: Secure Boot is on", ""), false;
    if (!entry->has_file && !entry->has_partition)
        return fail(entry->name, ": neither file nor partition is given", ""), false;
    if (entry->has_file)
        status = find_file(entry, "", ret_target) ? EFI_SUCCESS : EFI_NOT_FOUND;
    else
        status = find_partition(entry, ret_target);
    if (EFI_ERROR(status) && entry->has_file)
        say(entry->name, ": not found: ", entry->file);
    else if (EFI_ERROR(status))
        say(entry->name, ": ",
            status == EFI_ABORTED ? "several partitions have its GUID"
                                  : "its partition is not found");
    text_copy(ret_target->name, TEXT_BYTES_MAX, entry->name);
    return !EFI_ERROR(status);
}

/* ---- attaching it --------------------------------------------------------------------------- */

static bool let_go(struct target *target)
{
    struct qcow2_control *control = driver_control();

    if (!target->is_attached)
        return true;
    if (EFI_ERROR(control->detach(control, target->container)))
        return fail(target->name, ": cannot be detached", ""), false;
    target->is_attached = false;
    return true;
}

/* Lets go of an image in a file, and of the overlay that was made for it. */
static bool let_go_of_file(const struct config_entry *entry, struct target *target)
{
    static struct target overlay;

    if (find_file(entry, OVERLAY_SUFFIX, &overlay)) {
        text_copy(overlay.name, TEXT_BYTES_MAX, entry->name);
        if (!let_go(&overlay))
            return false;
    }
    return let_go(target);
}

/* The options that say what the entry says, or another state. */
static bool options_of(const struct config_entry *entry, const char *snapshot,
                       struct qcow2_options *ret_options)
{
    *ret_options = (struct qcow2_options){
        .is_given = TRUE,
        .is_readonly = entry->is_readonly,
        .is_backing_off = entry->is_backing_off,
    };
    return text_copy(ret_options->snapshot, sizeof(ret_options->snapshot),
                     snapshot != NULL ? snapshot : entry->snapshot);
}

static bool attach_file(const struct config_entry *entry, const char *snapshot,
                        struct target *target)
{
    static struct target overlay;
    static struct qcow2_options options;
    struct qcow2_control *control = driver_control();

    if (!options_of(entry, snapshot, &options) || !let_go_of_file(entry, target))
        return false;
    if (entry->headroom_bytes > 0 && config_is_written(entry) &&
        reserve_room(target, entry->headroom_bytes) != EXIT_GOOD)
        say(entry->name, ": goes on without the room", "");
    if (entry->is_temporary && options.snapshot[0] == '\0') {
        if (overlay_make(target, &overlay) != EXIT_GOOD)
            return false;
        *target = overlay;
        options.is_readonly = FALSE;
    }
    target->is_attached = !EFI_ERROR(
        control->attach_file(control, target->volume, target->path, &options, &target->container));
    return target->is_attached;
}

/* The entry by which the driver has attached a partition. */
static const struct config_entry *first_of(const struct config_entry *entry)
{
    return config_entry_of(&boot_settings, &entry->partition);
}

static bool attach_partition(const struct config_entry *entry, const char *snapshot,
                             const struct target *target)
{
    static struct qcow2_options options;
    struct qcow2_control *control = driver_control();

    if (!target->is_attached)
        return false;
    return (snapshot == NULL && entry == first_of(entry)) ||
           (options_of(entry, snapshot, &options) &&
            !EFI_ERROR(control->attach_disk(control, target->container, &options)));
}

static bool attach(const struct config_entry *entry, const char *snapshot, struct target *target)
{
    if (entry->has_file ? attach_file(entry, snapshot, target)
                        : attach_partition(entry, snapshot, target))
        return true;
    return fail(entry->name, ": is not attached", ""), false;
}

static EFI_STATUS start(const struct config_entry *entry, const struct target *target)
{
    struct qcow2_control *control = driver_control();
    struct qcow2_listed listed;

    for (UINTN i = 0; i < LISTED_MAX && !EFI_ERROR(control->list(control, i, &listed)); i++) {
        if (listed.container != target->container)
            continue;
        return boot_loader(firmware_path(listed.child),
                           entry->loader[0] != '\0' ? entry->loader : BOOT_LOADER_FILE);
    }
    fail(entry->name, ": is not attached", "");
    return EFI_NOT_FOUND;
}

/* ---- snapshots ------------------------------------------------------------------------------ */

static bool is_auto_name(const char *name)
{
    static const char pattern[] = AUTO_PATTERN;
    size_t i = 0;

    for (; pattern[i] != '\0'; i++) {
        if (pattern[i] == '0' ? name[i] < '0' || name[i] > '9' : name[i] != pattern[i])
            return false;
    }
    return name[i] == '\0';
}

/* "boot-20261123-004107" */
static void make_auto_name(char name[sizeof(AUTO_PATTERN)], uint32_t date_sec)
{
    char date[OUT_NUMBER_BYTES];
    size_t len = sizeof(AUTO_NAME) - 1;

    snapshots_date(date, date_sec);
    __builtin_memcpy(name, AUTO_NAME, len);
    for (size_t i = 0; date[i] != '\0' && len + 1 < sizeof(AUTO_PATTERN); i++) {
        if (date[i] != '-' && date[i] != ':')
            name[len++] = date[i] == ' ' ? '-' : date[i];
    }
    name[len] = '\0';
}

/* Deletes the oldest of those made here until so many are left. */
static qc_status thin_out(struct qc_image *image, unsigned keep_count)
{
    static struct qc_snapshot snapshot, oldest;
    qc_status status = QC_OK;

    for (unsigned round = 0; round < MENU_ROWS_MAX && status == QC_OK; round++) {
        uint64_t cursor = 0;
        unsigned count = 0;

        while ((status = qc_snapshot_next(image, &cursor, &snapshot)) == QC_OK) {
            if (is_auto_name(snapshot.name) && count++ == 0)
                oldest = snapshot;
        }
        if (status != QC_RANGE || count <= keep_count)
            return status == QC_RANGE ? QC_OK : status;
        status = qc_snapshot_delete(image, oldest.id);
    }
    return status;
}

/*
 * Whether one of those made here holds what the disk is now. One that cannot be compared does not:
 * a snapshot too many does less harm than one too few.
 */
static bool find_same(struct qc_image *image, struct qc_snapshot *snapshot)
{
    uint64_t cursor = 0;
    bool is_same = false;

    while (!is_same && qc_snapshot_next(image, &cursor, snapshot) == QC_OK) {
        if (is_auto_name(snapshot->name))
            (void)qc_snapshot_is_disk(image, snapshot, &is_same);
    }
    return is_same;
}

/*
 * A new snapshot comes before an old one goes, and none comes or goes where nothing was written: a
 * system that starts over and over does not turn out the good ones. A boot is not kept from
 * starting by the lack of one.
 */
static void keep_state(const struct config_entry *entry, const struct target *target)
{
    static struct qc_snapshot same;
    char name[sizeof(AUTO_PATTERN)];
    struct report_image *subject;
    uint32_t nsec, sec = clock_now(&nsec);
    qc_status status = QC_OK;

    make_auto_name(name, sec);
    if (opened_begin(target, entry->name, OPENED_CHANGE, &subject) != EXIT_GOOD)
        return;
    if (find_same(subject->image, &same)) {
        say(entry->name, ": nothing was written since ", same.name);
    } else if ((status = qc_snapshot_create(subject->image, name, sec, nsec)) == QC_OK) {
        say(entry->name, ": snapshot ", name);
        status = thin_out(subject->image, entry->autosnapshots_count);
    }
    if (status != QC_OK)
        say(entry->name, ": snapshot: ", qc_detail(subject->image));
    opened_end(EXIT_GOOD);
}

static void fill(const struct qc_snapshot *snapshot, struct entries_states *states)
{
    char date[OUT_NUMBER_BYTES], *row = menu_add(&states->menu);

    if (row == NULL)
        return;
    text_copy(states->ids[states->menu.rows_count - 1], QC_SNAPSHOT_ID_BYTES, snapshot->id);
    snapshots_date(date, snapshot->date_sec);
    menu_put(row, date);
    menu_put(row, "  ");
    menu_put(row, snapshot->name);
}

bool entries_states(const struct config_entry *entry, struct entries_states *states)
{
    static struct target target;
    static struct qc_snapshot snapshot;
    struct report_image *subject;
    uint64_t cursor = 0;
    uint32_t older_count;
    qc_status status;

    states->menu.rows_count = 0;
    if (!find(entry, &target) ||
        opened_begin(&target, entry->name, OPENED_ALONE, &subject) != EXIT_GOOD)
        return false;
    older_count = qc_info(subject->image)->snapshots_count;
    older_count -= older_count < MENU_ROWS_MAX ? older_count : MENU_ROWS_MAX;
    if (older_count > 0)
        say(entry->name, " has too many snapshots: the newest are shown", "");
    while ((status = qc_snapshot_next(subject->image, &cursor, &snapshot)) == QC_OK) {
        if (older_count > 0)
            older_count--;
        else
            fill(&snapshot, states);
    }
    if (status != QC_RANGE)
        say(entry->name, ": ", qc_detail(subject->image));
    else if (states->menu.rows_count == 0)
        say(entry->name, " has no snapshots", "");
    return opened_end(EXIT_GOOD) == EXIT_GOOD && states->menu.rows_count > 0;
}

bool entries_roll_back(const struct config_entry *entry, const char *snapshot)
{
    static struct target target;
    struct report_image *subject;
    qc_status status;

    if (!config_is_written(entry))
        return fail(entry->name, ": its entry makes it read-only", ""), false;
    if (!find(entry, &target) || (entry->has_file && !let_go_of_file(entry, &target)) ||
        opened_begin(&target, entry->name, OPENED_CHANGE, &subject) != EXIT_GOOD)
        return false;
    status = qc_snapshot_apply(subject->image, snapshot);
    if (status != QC_OK)
        say(entry->name, ": ", qc_detail(subject->image));
    return opened_end(EXIT_GOOD) == EXIT_GOOD && status == QC_OK;
}

/* ---- booting -------------------------------------------------------------------------------- */

EFI_STATUS entries_boot(const struct config_entry *entry, const char *snapshot)
{
    static struct target target;
    EFI_STATUS status;

    if (entry->is_temporary && !entry->has_file)
        say(entry->name, ": temporary needs an image in a file: it is read-only", "");
    if (!find(entry, &target) || !attach(entry, snapshot, &target))
        return EFI_NOT_FOUND;
    if (snapshot == NULL && entry->autosnapshots_count > 0 && config_is_written(entry))
        keep_state(entry, &target);
    status = start(entry, &target);
    if (!entry->has_file && (snapshot != NULL || entry != first_of(entry)))
        attach_partition(first_of(entry), first_of(entry)->snapshot, &target);
    return status;
}
