/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * An image that the command looks at or changes with an engine of its own: one at a time.
 *
 * Promises: an attached image's driver steps aside for as long as it is open here, and takes what
 * was changed up afterwards; an image that is not attached is opened through its disk, or its file
 * through the firmware's file system driver. Every error was said.
 */
#ifndef COMMAND_OPENED_H
#define COMMAND_OPENED_H

#include "report/report.h"
#include "target.h"

enum opened_use {
    OPENED_ALONE,  /* reads the image itself, without what lies below it */
    OPENED_LAYERS, /* reads all layers; they are files beside it */
    OPENED_CHECK,  /* as ALONE, and what only a check can open */
    OPENED_REPAIR, /* the same, to be written */
    OPENED_CHANGE, /* writes the image's tables, no guest data in any layer */
};

/* EXIT_GOOD; the name is what reports call the image. */
int opened_begin(const struct target *target, const char *name, enum opened_use use,
                 struct report_image **ret_subject);
/* Always after a good begin; returns status, or EXIT_FAILED where the end went wrong. */
int opened_end(int status);

#endif
