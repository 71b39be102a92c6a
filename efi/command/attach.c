/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The verbs that speak to the driver: list, attach, detach. It is started where it does not run.
 */
#include "console.h"
#include "overlay.h"
#include "verbs.h"

#define LISTED_MAX 64u

/* The driver's calls for the command; NULL was said. */
static struct qcow2_control *control_of(void)
{
    struct qcow2_control *control;

    if (EFI_ERROR(driver_start()))
        return NULL;
    control = driver_control();
    if (control == NULL)
        fail("the driver that runs is an older one; restart the machine", "", "");
    return control;
}

static void put_size(uint64_t bytes)
{
    char text[OUT_NUMBER_BYTES];

    number_size(text, bytes);
    out_text(&console, text);
}

/* The volumes on an image's disk by the shell's names, else the disk, else its path. */
static void put_where(EFI_HANDLE child)
{
    static char name[TEXT_BYTES_MAX];
    const EFI_DEVICE_PATH *path = firmware_path(child);
    size_t count = 0, found = 0;

    firmware_locate(&guid_file_system, &count);
    for (size_t i = 0; i < count; i++) {
        const EFI_DEVICE_PATH *volume = firmware_path(efi_handles[i]);

        if (!target_is_below(volume, path) || !target_map_name(volume, name))
            continue;
        out_text(&console, found++ == 0 ? ", " : " ");
        out_text(&console, name);
    }
    if (found > 0)
        return;
    if (path == NULL || !target_map_name(path, name))
        firmware_path_text(path, name);
    out_text(&console, ", ");
    out_text(&console, name);
}

/* "fs0:\debian.qcow2: 2 GiB, read-write, blk4:" */
static void put_listed(const struct qcow2_listed *listed)
{
    static struct target target;

    target_of(listed, &target);
    out_text(&console, target.name);
    out_text(&console, target.name[text_find(target.name, '\0') - 1] == ':' ? " " : ": ");
    put_size(listed->virtual_bytes);
    out_text(&console, listed->is_readonly ? ", read-only" : ", read-write");
    if (listed->is_readonly && !text_same(listed->reason, "read-only")) {
        out_text(&console, " (");
        out_text(&console, listed->reason);
        out_text(&console, ")");
    }
    put_where(listed->child);
    out_text(&console, "\n");
}

int verb_list(const struct request *request)
{
    struct qcow2_control *control = control_of();
    struct qcow2_listed listed;

    (void)request;
    if (control == NULL)
        return EXIT_FAILED;
    for (UINTN i = 0; i < LISTED_MAX && !EFI_ERROR(control->list(control, i, &listed)); i++) {
        if (console_is_interrupted())
            return fail_interrupted();
        put_listed(&listed);
    }
    return EXIT_GOOD;
}

static int say_attached(struct qcow2_control *control, EFI_HANDLE container)
{
    struct qcow2_listed listed;

    for (UINTN i = 0; i < LISTED_MAX && !EFI_ERROR(control->list(control, i, &listed)); i++) {
        if (listed.container == container)
            put_listed(&listed);
    }
    out_text(&console, "\"map -r\" gives its volumes names.\n");
    return EXIT_GOOD;
}

int verb_attach(const struct request *request)
{
    static struct target target, overlay;
    static struct qcow2_options options;
    struct qcow2_control *control = control_of();
    EFI_STATUS status;
    int found;

    if (control == NULL)
        return EXIT_FAILED;
    found = target_find(request->words[0], &target);
    if (found != EXIT_GOOD)
        return found;
    if (target.is_attached)
        return fail(target.name, " is attached already", "");
    if (request->is_temporary) {
        found = overlay_make(&target, &overlay);
        if (found != EXIT_GOOD)
            return found;
        target = overlay;
    }
    options = (struct qcow2_options){
        .is_given = request->is_readonly || request->snapshot != NULL,
        .is_readonly = request->is_readonly,
    };
    if (request->snapshot != NULL &&
        !text_copy(options.snapshot, sizeof(options.snapshot), request->snapshot))
        return fail("the name of the snapshot is too long", "", "");
    if (target.volume != NULL)
        status =
            control->attach_file(control, target.volume, target.path, &options, &target.container);
    else
        status = control->attach_disk(control, target.container, &options);
    if (EFI_ERROR(status))
        return fail(target.name, " was not attached", "");
    return say_attached(control, target.container);
}

int verb_detach(const struct request *request)
{
    static struct target target;
    struct qcow2_control *control = control_of();
    int found;

    if (control == NULL)
        return EXIT_FAILED;
    found = target_find(request->words[0], &target);
    if (found != EXIT_GOOD)
        return found;
    if (!target.is_attached)
        return fail(target.name, " is not attached", "");
    if (EFI_ERROR(control->detach(control, target.container)))
        return fail(target.name, " cannot be detached: it cannot be flushed, or is in use", "");
    return EXIT_GOOD;
}
