/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * What an operating system is told of an attached image: where it lies, so that a driver of its own
 * can go on with it after ExitBootServices.
 *
 * The same bytes are the value of a variable and the body of an ACPI table, one of each for every
 * attached image. Numbers are little-endian; nothing is aligned.
 *
 *   variable  Qcow2Boot%04u, the number of a slot; QCOW2_HANDOVER_GUID; boot services and runtime
 *             access, volatile: gone at the next reset
 *   table     signature QCW2, for kernels without runtime services; the bytes follow its header
 *
 * Promises: what is known of version 1 stays where it is; later versions add behind it, in front of
 * the texts, and raise header_bytes.
 */
#ifndef EFI_PROTO_QCOW2_HANDOVER_H
#define EFI_PROTO_QCOW2_HANDOVER_H

#include <efi.h>
#include <stdint.h>

#define QCOW2_HANDOVER_GUID                                                                        \
    {                                                                                              \
        0x53632efa, 0x155c, 0x4c05,                                                                \
        {                                                                                          \
            0xb3, 0x90, 0x1b, 0x62, 0x4e, 0x1b, 0x93, 0xb6                                         \
        }                                                                                          \
    }

#define QCOW2_HANDOVER_VERSION 1

/* What the container is, of the last of these nodes in its path (UEFI 2.10, 10.3.5). */
#define QCOW2_HANDOVER_DISK      0 /* a whole disk, or a kind of partition without a GUID */
#define QCOW2_HANDOVER_PARTITION 1
#define QCOW2_HANDOVER_FILE      2 /* of a FAT volume on either of them */

/* The image takes no writes, by the configuration or by its own state: attach it likewise. */
#define QCOW2_HANDOVER_READONLY 0x1u
/* Something that was written could not be made durable; the tables are whole nevertheless. */
#define QCOW2_HANDOVER_UNSETTLED 0x2u
/* More than the container belongs to it: a layer below it, or an external data file. */
#define QCOW2_HANDOVER_LAYERED 0x4u
/* What was booted is not the image's present: an internal snapshot, or it without its layers. */
#define QCOW2_HANDOVER_OTHER_STATE 0x8u

/*
 * header_digest: FNV-1a, 64 bits (start 0xcbf29ce484222325, prime 0x100000001b3), of the image's
 * bytes 0..47 and 60..71 as they lie: what no write moves. The refcount table's place, the dirty
 * and the corrupt mark and the autoclear bits are left out. It tells mixed-up disks apart, and
 * keeps no attacker away.
 */
#define QCOW2_HANDOVER_DIGEST_BYTES      72u /* of the image that are looked at */
#define QCOW2_HANDOVER_DIGEST_SKIP_OFF   48u
#define QCOW2_HANDOVER_DIGEST_SKIP_BYTES 12u

struct qcow2_handover {
    uint32_t version;
    uint32_t total_bytes;     /* all of it, with the texts */
    uint32_t crc32;           /* of total_bytes bytes, this field 0 (IEEE, as CalculateCrc32) */
    uint32_t flags;           /* QCOW2_HANDOVER_READONLY ...; unknown ones: do not attach */
    uint64_t virtual_bytes;   /* of the guest's disk */
    uint64_t container_bytes; /* of the disk, the partition, or the file in whole blocks */
    uint64_t header_digest;
    uint16_t header_bytes;     /* offset of the texts */
    uint8_t kind;              /* QCOW2_HANDOVER_DISK ... */
    uint8_t signature_type;    /* of the partition: SIGNATURE_TYPE_GUID, SIGNATURE_TYPE_MBR; 0 */
    uint32_t partition_number; /* 0: it lies on no partition */
    uint8_t signature[16];     /* as in the Hard Drive node: a GUID, or 4 bytes of the MBR's disk */
    uint16_t file_bytes; /* text 1: the file's path from its volume's root, UTF-8, \ between */
    uint16_t path_bytes; /* text 2: the container's device path, its end node included */
} __attribute__((packed));
_Static_assert(sizeof(struct qcow2_handover) == 68, "attributes must not be defined away");

/* An ACPI table of its own kind (ACPI 6.5, 5.2.6), in front of that. */
#define QCOW2_HANDOVER_SIGNATURE "QCW2"
struct qcow2_handover_table {
    char signature[4];
    uint32_t length;
    uint8_t revision; /* QCOW2_HANDOVER_VERSION */
    uint8_t checksum;
    char oem_id[6];
    char oem_table_id[8]; /* "BOOT%04u", as the variable */
    uint32_t oem_revision;
    char creator_id[4];
    uint32_t creator_revision;
} __attribute__((packed));
_Static_assert(sizeof(struct qcow2_handover_table) == 36, "attributes must not be defined away");

#endif
