/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * A list to choose from, on whatever the firmware's console is: a screen, a serial line, or both.
 *
 * Promises: what was said before stays above it; only rows that change are sent again; nothing but
 * plain characters and cursor positions is used, within the console's rows and columns, 80 by 25 if
 * need be. A longer list scrolls.
 */
#ifndef COMMAND_MENU_H
#define COMMAND_MENU_H

#include <stdbool.h>

#define MENU_ROWS_MAX  256u
#define MENU_ROW_BYTES 128u

/* What ended it: one of the menu's letters, or one of these. */
enum { MENU_TIMEOUT = 0, MENU_ENTER = '\r', MENU_ESC = 0x1b };

struct menu {
    const char *title;
    const char *keys;    /* the line that tells what each key does */
    const char *letters; /* that end it too, small ones */
    const char *clock;   /* what stands before the seconds that are left */
    unsigned rows_count; /* at least 1 */
    unsigned selected;
    char rows[MENU_ROWS_MAX][MENU_ROW_BYTES];
};

/* An empty row at the end; NULL: there are as many as there can be. */
char *menu_add(struct menu *menu);
/* Appends to a row; what is too long is cut at a character's end. */
void menu_put(char row[MENU_ROW_BYTES], const char *more);
/*
 * Shows it until a key ends it, or until so many seconds have passed without any; 0: for ever. A
 * console without keys waits for none.
 */
char menu_run(struct menu *menu, unsigned timeout_s);
/* Asks below the menu that ended last; true for the key y. */
bool menu_ask(const char *a, const char *b, const char *c);

#endif
