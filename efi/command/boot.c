/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The boot program: loads the driver, connects everything, starts a loader inside an image.
 *
 * It is meant to lie on an EFI system partition as \EFI\BOOT\BOOTX64.EFI (BOOTAA64.EFI on Arm),
 * with the driver beside it or in \EFI\qcow2\ of the same volume. Where that volume's
 * configuration has images, a menu shows them; else it starts the file of that same name of the
 * first volume inside a qcow2 image that has one.
 *
 * Promises: each failure is one line on the console. An image that cannot be booted is followed by
 * the next one, after the last by any image, and then by an error status, so that the firmware goes
 * on with its next boot option; once a key was typed, by the menu. A copy of it inside an image
 * starts nothing, so there is no circle.
 */
#include "boot.h"

#include "../path.h"
#include "console.h"
#include "entries.h"
#include "files.h"
#include "verbs.h"

#define LEAVE_S     10u
#define CONFIG_FILE "\\EFI\\qcow2\\qcow2.conf"

struct config boot_settings;
static struct menu menu;
static unsigned numbers[CONFIG_ENTRIES_MAX]; /* of the entries in the menu */
static struct entries_states states;

static EFI_STATUS connect_all(void)
{
    size_t count;
    EFI_STATUS status = firmware_locate(NULL, &count);

    if (EFI_ERROR(status)) {
        fail("list of all devices", firmware_reason(status), "");
        return status;
    }
    /* Most handles are no controllers, and say so. */
    for (size_t i = 0; i < count; i++)
        efi_boot->ConnectController(efi_handles[i], NULL, NULL, TRUE);
    return EFI_SUCCESS;
}

EFI_STATUS boot_loader(const EFI_DEVICE_PATH *disk, const char *loader)
{
    static char where[TEXT_BYTES_MAX], what[2 * TEXT_BYTES_MAX];
    size_t count = 0;
    EFI_STATUS answer = EFI_NOT_FOUND;

    firmware_locate(&guid_file_system, &count);
    for (size_t i = 0; i < count; i++) {
        EFI_HANDLE image;
        const EFI_DEVICE_PATH *path = firmware_path(efi_handles[i]);
        EFI_STATUS status;

        if (path == NULL || (disk != NULL ? !target_is_below(path, disk) : !path_is_in_image(path)))
            continue;
        status = files_load(efi_handles[i], loader, &image);
        if (status == EFI_NOT_FOUND)
            continue;
        firmware_path_text(path, where);
        text_copy(what, sizeof(what), loader);
        text_add(what, sizeof(what), " from ");
        text_add(what, sizeof(what), where);
        if (!EFI_ERROR(status)) {
            say("starting ", what, "");
            status = files_start(image);
            if (EFI_ERROR(status) && disk != NULL)
                say(loader, " ended with an error", "");
            return status;
        }
        say(what, firmware_reason(status), "");
        answer = status;
    }
    if (answer == EFI_NOT_FOUND)
        say("no volume of a qcow2 image has ", loader, "");
    return answer;
}

/* A copy of this program that lies inside an image would start itself, or its like, for ever. */
static bool is_inside_image(void)
{
    const EFI_DEVICE_PATH *path = firmware_path(efi_loaded->DeviceHandle);

    return path != NULL && path_is_in_image(path);
}

/* ---- the menu ------------------------------------------------------------------------------- */

/* Without a file there is nothing in it. The driver, which reads it too, says what is wrong. */
static void read_settings(void)
{
    static char text[CONFIG_FILE_BYTES_MAX + 1];
    EFI_FILE_HANDLE file;
    UINTN bytes = sizeof(text);

    if (EFI_ERROR(files_open(efi_loaded->DeviceHandle, CONFIG_FILE, EFI_FILE_MODE_READ, &file)))
        return;
    if (!EFI_ERROR(file->Read(file, &bytes, text)) && bytes <= CONFIG_FILE_BYTES_MAX)
        config_parse(&boot_settings, text, bytes);
    secureboot_narrow(&boot_settings);
    file->Close(file);
}

static void fill_row(const struct config_entry *entry)
{
    char *row = menu_add(&menu);

    menu_put(row, entry->name);
    if (entry->has_file) {
        menu_put(row, "  ");
        menu_put(row, entry->file);
    }
    if (entry->snapshot[0] != '\0') {
        menu_put(row, ", snapshot ");
        menu_put(row, entry->snapshot);
    } else if (entry->is_temporary || entry->is_readonly) {
        menu_put(row, entry->is_temporary ? ", temporary" : ", read-only");
    }
}

/* The entries that can be booted: an image that others lie on is none. */
static void fill_menu(void)
{
    menu.title = "qcow2: choose an image";
    menu.keys = "Up, Down: choose   Enter: boot   s: snapshots   Esc: leave";
    menu.letters = "s";
    menu.clock = "Starts in ";
    for (unsigned i = 0; i < boot_settings.entries_count; i++) {
        const struct config_entry *entry = &boot_settings.entries[i];

        if (entry->has_partition &&
            config_base_number(&boot_settings, &entry->partition) != CONFIG_ENTRIES_MAX)
            continue;
        if (i == boot_settings.default_number)
            menu.selected = menu.rows_count;
        numbers[menu.rows_count] = i;
        fill_row(entry);
    }
}

static const struct config_entry *selected(void)
{
    return &boot_settings.entries[numbers[menu.selected]];
}

static void roll_back(const struct config_entry *entry, const char *id)
{
    const char *row = states.menu.rows[states.menu.selected];

    if (menu_ask("back to ", row, ": what is newer is lost. y: yes") &&
        entries_roll_back(entry, id))
        say(entry->name, " is what it was: ", row);
}

/* The snapshots of the selected image; the answer of a loader that was started, else an error. */
static EFI_STATUS choose_state(void)
{
    const struct config_entry *entry = selected();
    const char *id;

    if (!entries_states(entry, &states))
        return EFI_NOT_FOUND;
    states.menu.title = "qcow2: snapshots";
    states.menu.keys = "Up, Down: choose   Enter: boot it read-only   r: go back to it   Esc: back";
    states.menu.letters = "r";
    states.menu.selected = states.menu.rows_count - 1;
    switch (menu_run(&states.menu, 0)) {
    case MENU_ENTER:
        id = states.ids[states.menu.selected];
        return entries_boot(entry, id);
    case 'r':
        id = states.ids[states.menu.selected];
        roll_back(entry, id);
        break;
    default:
        break;
    }
    return EFI_NOT_FOUND;
}

/*
 * Boots by itself as long as nobody types: each image once, the default first. Then there is a
 * last chance to choose, and what would be done without a configuration. The answer of the first
 * loader that ends well, else an error.
 */
static EFI_STATUS choose(void)
{
    unsigned alone = menu.rows_count; /* images that may still be tried without a key */
    unsigned timeout_s = boot_settings.timeout_s;
    EFI_STATUS status = EFI_NOT_FOUND;
    char key = MENU_TIMEOUT;

    while (key != MENU_ESC) {
        if (key != MENU_TIMEOUT || alone == 0 || timeout_s > 0)
            key = menu_run(&menu, timeout_s);
        if (key == MENU_TIMEOUT && alone-- == 0)
            return boot_loader(NULL, BOOT_LOADER_FILE);
        if (key != MENU_TIMEOUT)
            timeout_s = 0;
        if (key == MENU_ENTER || key == MENU_TIMEOUT)
            status = entries_boot(selected(), NULL);
        else if (key == 's')
            status = choose_state();
        if (!EFI_ERROR(status))
            break;
        if (key != MENU_TIMEOUT)
            continue;
        menu.selected = (menu.selected + 1) % menu.rows_count;
        if (alone == 0) {
            menu.clock = "Gives up in ";
            timeout_s = LEAVE_S;
        }
    }
    return status;
}

/* Takes the firmware's logo away, but nothing that a driver which runs already may have said. */
static void clear_screen(void)
{
    if (driver_control() == NULL && efi_system->ConOut != NULL)
        efi_system->ConOut->ClearScreen(efi_system->ConOut);
}

EFI_STATUS boot_run(void)
{
    EFI_STATUS status;

    if (is_inside_image()) {
        say("the boot program does not start from inside an image", "", "");
        return EFI_UNSUPPORTED;
    }
    read_settings();
    fill_menu();
    if (menu.rows_count > 0)
        clear_screen();
    status = driver_start();
    if (EFI_ERROR(status))
        return status;
    status = connect_all();
    if (EFI_ERROR(status))
        return status;
    if (menu.rows_count == 0 || driver_control() == NULL)
        return boot_loader(NULL, BOOT_LOADER_FILE);
    return choose();
}

int verb_boot(const struct request *request)
{
    (void)request;
    return EFI_ERROR(boot_run()) ? EXIT_FAILED : EXIT_GOOD;
}
