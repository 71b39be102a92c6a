/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* Throw-away overlays: attach -t. */
#ifndef COMMAND_OVERLAY_H
#define COMMAND_OVERLAY_H

#include "target.h"

#define OVERLAY_SUFFIX ".tmp" /* behind the image's name */

/*
 * Makes NAME.tmp beside the image in a file, anew where there is one: an empty overlay, with as
 * much room as OVERLAY_ROOM_BYTES or the volume has. *ret_overlay is that file. EXIT_GOOD, or an
 * error that was said.
 */
int overlay_make(const struct target *image, struct target *ret_overlay);

#endif
