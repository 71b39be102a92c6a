/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The section .sbat of the driver and the command: who they are, and their security generation.
 *
 * A chain of trust that starts at shim refuses a file whose generation is below the one that the
 * machine asks for, which takes every older build of this project out at once, without a list of
 * digests. The generation is raised, by one, when a hole is closed that would let an image or a
 * configuration break Secure Boot; never for anything else.
 *
 * Promises: CSV in UTF-8, the first line is that of the format itself (shim, SBAT.md).
 */

/* Read by others in the file; no code refers to it. */
extern const char sbat[];
__attribute__((used, section(".sbat"))) const char sbat[] =
    "sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md\n"
    "qcow2efi,1,qcow2-efi,qcow2-efi,1,n/a\n";
