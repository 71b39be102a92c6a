/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * What the boot program does with an entry of the configuration: booting it, listing its snapshots,
 * going back to one of them.
 *
 * Promises: every error was said, by the entry's name, and leaves the image as it was.
 */
#ifndef COMMAND_ENTRIES_H
#define COMMAND_ENTRIES_H

#include "../config.h"
#include "../../core/qcow2.h"
#include "firmware.h"
#include "menu.h"

/* The newest snapshots of an image, as many as a menu has rows. */
struct entries_states {
    char ids[MENU_ROWS_MAX][QC_SNAPSHOT_ID_BYTES];
    struct menu menu; /* of the rows; the rest is the caller's */
};

/*
 * Attaches the image as the entry says, or with a snapshot's state where an id is given, and starts
 * its loader. Returns what that returned, or an error.
 */
EFI_STATUS entries_boot(const struct config_entry *entry, const char *snapshot);
/* False where there is none, or an error. */
bool entries_states(const struct config_entry *entry, struct entries_states *states);
/* Makes the image what it was. */
bool entries_roll_back(const struct config_entry *entry, const char *snapshot);

#endif
