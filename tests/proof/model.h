/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * What an analyzer that looks at one file at a time cannot know of the others: the build puts this
 * header in front of each.
 *
 * Promises: nothing is said here that the functions do not keep; tests/unit holds them to it.
 */
#ifndef PROOF_MODEL_H
#define PROOF_MODEL_H

#include "../../core/detail.h"

/* qc_fail returns the status that it is given. */
#define qc_fail(detail, status, ...) (qc_fail(detail, status, __VA_ARGS__), (status))

#endif
