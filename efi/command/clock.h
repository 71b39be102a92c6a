/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* The machine's clock, as the format's dates want it. */
#ifndef COMMAND_CLOCK_H
#define COMMAND_CLOCK_H

#include <stdint.h>

/* Seconds since 1970, UTC; 0 where the machine has no clock. */
uint32_t clock_now(uint32_t *ret_nsec);

#endif
