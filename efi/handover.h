/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Tells the operating system where the attached images lie (proto/qcow2_handover.h).
 *
 * Promises: every image that has a child is told of, as it is now, and no other. Firmware that
 * takes no variable or no table is no error: the image is as good without.
 *
 * Left to others: what is read there, and whether an image may be attached (images/handover).
 */
#ifndef EFI_HANDOVER_H
#define EFI_HANDOVER_H

#include "driver.h"

/* The child of an image is there: tells of it. At TPL_CALLBACK or below, outside of a request. */
void handover_publish(struct attached *attached);
/* Tells it anew where its flags are not what was told. May be called within a request. */
void handover_follow(struct attached *attached);
/* The child is gone. */
void handover_withdraw(struct attached *attached);

#endif
