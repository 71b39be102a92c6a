/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * What is said: on the firmware's console, which the shell may have turned into a file or a pipe.
 *
 * Promises: every line that is no report begins with "qcow2: "; control characters out of an image
 * reach no console; progress is shown on a console only and leaves nothing behind. Once Ctrl-C was
 * typed, or q at the end of a page, every look at it says so until the program ends.
 */
#ifndef COMMAND_CONSOLE_H
#define COMMAND_CONSOLE_H

#include <stdbool.h>
#include <stdint.h>

#include "report/out.h"

/* What the program returns, and the shell keeps as %lasterror%: qemu-img's exit status. */
enum {
    EXIT_GOOD,
    EXIT_FAILED,
    EXIT_CORRUPT,       /* check: damage is left */
    EXIT_LEAKS,         /* check: only leaks are left */
    EXIT_ABORTED = 0x15 /* Ctrl-C, as the shell's own commands have it */
};

extern struct out console;

/* One line of three parts. */
void say(const char *a, const char *b, const char *c);
/* The same, an error: EXIT_FAILED, so that failing is one expression. */
int fail(const char *a, const char *b, const char *c);
/* Says that Ctrl-C was typed: EXIT_ABORTED. */
int fail_interrupted(void);

/* Before and after all that is said; pages wait for a key at their end. */
void console_begin(bool has_pages, bool has_progress);
void console_end(void);
bool console_is_interrupted(void);
/* A qc_check_progress; the context is a text of what is being done, or NULL for silence. */
bool console_progress(void *context, uint64_t done, uint64_t total);
/* Takes the line of progress away. */
void console_progress_end(void);

#endif
