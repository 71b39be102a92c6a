/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* Room for an image in a file to grow in. */
#ifndef COMMAND_RESERVE_H
#define COMMAND_RESERVE_H

#include <stdint.h>

#include "target.h"

/* Makes room for so many bytes behind the image in a file that is not attached, and pages of its
 * own. EXIT_GOOD, or an error that was said. */
int reserve_room(const struct target *target, uint64_t asked_bytes);

#endif
