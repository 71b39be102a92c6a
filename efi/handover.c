/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See handover.h.
 *
 * Nothing is told at ExitBootServices, where it would matter most: by then EDK2 takes no volatile
 * variable any more, and no table. So the flags are of the last moment before; what changes after
 * it, the image's own header says. It is written in front of what it announces: where it has
 * neither mark, the tables are whole and all is there that a flush made durable, even if the last
 * commit, at the end of boot services, failed.
 */
#include "handover.h"

#include "proto/acpi_table.h"
#include "proto/qcow2_handover.h"
#include "say.h"
#include "utf8.h"

#define VOLATILE_ATTRIBUTES (EFI_VARIABLE_BOOTSERVICE_ACCESS | EFI_VARIABLE_RUNTIME_ACCESS)
#define FILE_BYTES_MAX      (PATH_BYTES_MAX / sizeof(CHAR16) * UTF8_BYTES_MAX)
#define DIGITS_OFF          9u /* of the number in the variable's name */
#define DIGITS              4u
#define OEM_DIGITS_OFF      4u
#define TABLE_OEM           "QCOW2 "
#define TABLE_CREATOR       "QCW2"

static EFI_GUID guid_handover = QCOW2_HANDOVER_GUID;
static EFI_GUID guid_acpi_table = EFI_ACPI_TABLE_PROTOCOL_GUID;

/* What is told, as a table; the variable is its body. Filled anew each time. */
static struct {
    struct qcow2_handover_table head;
    struct qcow2_handover body;
    uint8_t texts[FILE_BYTES_MAX + PATH_BYTES_MAX + PATH_END_BYTES];
} __attribute__((packed)) told;

static unsigned number_of(const struct attached *attached)
{
    unsigned number = 0;

    while (number < ATTACHED_MAX && attached_slot(number) != attached)
        number++;
    return number;
}

static uint32_t flags_of(const struct attached *attached)
{
    const struct config_entry *entry = attached->entry;
    uint32_t flags = 0;

    if (attached->media.ReadOnly)
        flags |= QCOW2_HANDOVER_READONLY;
    if (attached->is_unsettled)
        flags |= QCOW2_HANDOVER_UNSETTLED;
    if (attached->bases_count > 0)
        flags |= QCOW2_HANDOVER_LAYERED;
    if (entry != NULL && (entry->snapshot[0] != '\0' ||
                          (entry->is_backing_off && qc_info(&attached->image)->backing_off != 0)))
        flags |= QCOW2_HANDOVER_OTHER_STATE;
    return flags;
}

/* 0 where the disk cannot be read: no image's digest, so that nobody attaches it. */
static uint64_t digest_of(struct attached *attached)
{
    uint8_t first[QCOW2_HANDOVER_DIGEST_BYTES];
    struct qc_disk *disk = &attached->block.disk;
    const size_t behind = QCOW2_HANDOVER_DIGEST_SKIP_OFF + QCOW2_HANDOVER_DIGEST_SKIP_BYTES;
    uint64_t digest = 0;

    if (!request_claim())
        return 0;
    if (disk->ops->read(disk, 0, first, sizeof(first)) == QC_OK) {
        digest = say_digest(SAY_DIGEST_START, first, QCOW2_HANDOVER_DIGEST_SKIP_OFF);
        digest = say_digest(digest, first + behind, sizeof(first) - behind);
    }
    request_release();
    return digest;
}

/* ---- the container -------------------------------------------------------------------------- */

/* The path of a File Path node (10.3.5.4), behind the body. */
static void tell_file(const EFI_DEVICE_PATH *node)
{
    size_t chars_count = (DevicePathNodeLength(node) - sizeof(*node)) / sizeof(CHAR16), len = 0;

    for (size_t i = 0; i < chars_count; i++) {
        CHAR16 c;

        __builtin_memcpy(&c, (const uint8_t *)(node + 1) + i * sizeof(c), sizeof(c));
        if (c == 0)
            break;
        len += utf8_put((char *)told.texts + len, c);
    }
    told.body.kind = QCOW2_HANDOVER_FILE;
    told.body.file_bytes = (uint16_t)len;
}

static void tell_partition(const EFI_DEVICE_PATH *node)
{
    HARDDRIVE_DEVICE_PATH partition = {0};

    __builtin_memcpy(&partition, node, PATH_PARTITION_BYTES);
    told.body.kind = QCOW2_HANDOVER_PARTITION;
    told.body.signature_type = partition.SignatureType;
    told.body.partition_number = partition.PartitionNumber;
    __builtin_memcpy(told.body.signature, partition.Signature, sizeof(told.body.signature));
}

/* What the path, bytes long in front of our own node, says of the container. */
static void tell_container(const EFI_DEVICE_PATH *path, size_t bytes)
{
    static const EFI_DEVICE_PATH end = PATH_END_NODE_INIT;
    size_t off = 0;

    for (size_t next = 0; off < bytes && path_step(path, &next); off = next) {
        const EFI_DEVICE_PATH *node = path_at(path, off);

        if (DevicePathType(node) != MEDIA_DEVICE_PATH)
            continue;
        if (node->SubType == MEDIA_HARDDRIVE_DP && next - off == PATH_PARTITION_BYTES)
            tell_partition(node);
        else if (node->SubType == MEDIA_FILEPATH_DP)
            tell_file(node);
    }
    __builtin_memcpy(told.texts + told.body.file_bytes, path, bytes);
    __builtin_memcpy(told.texts + told.body.file_bytes + bytes, &end, sizeof(end));
    told.body.path_bytes = (uint16_t)(bytes + sizeof(end));
}

/* ---- telling -------------------------------------------------------------------------------- */

static void name_number(CHAR16 *name, char *oem_table_id, unsigned number)
{
    for (size_t i = DIGITS; i-- > 0; number /= 10) {
        char digit = (char)('0' + number % 10);

        name[DIGITS_OFF + i] = (CHAR16)digit;
        oem_table_id[OEM_DIGITS_OFF + i] = digit;
    }
}

static void set_variable(const struct attached *attached, bool is_there)
{
    static CHAR16 name[] = u"Qcow2Boot0000";
    EFI_RUNTIME_SERVICES *runtime = efi_system->RuntimeServices;

    name_number(name, told.head.oem_table_id, number_of(attached));
    /* One that somebody left, with other attributes, would stay. */
    runtime->SetVariable(name, &guid_handover, 0, 0, NULL);
    if (is_there)
        runtime->SetVariable(name, &guid_handover, VOLATILE_ATTRIBUTES, told.body.total_bytes,
                             &told.body);
}

static void set_table(struct attached *attached, bool is_there)
{
    EFI_ACPI_TABLE_PROTOCOL *acpi;
    uint8_t sum = 0;

    if (EFI_ERROR(efi_boot->LocateProtocol(&guid_acpi_table, NULL, (void **)&acpi)))
        return;
    if (attached->has_table)
        acpi->UninstallAcpiTable(acpi, attached->table_key);
    attached->has_table = false;
    if (!is_there)
        return;
    /* EDK2 makes the sum anew; others may not. */
    told.head.length = (uint32_t)sizeof(told.head) + told.body.total_bytes;
    told.head.checksum = 0;
    for (size_t i = 0; i < told.head.length; i++)
        sum += ((const uint8_t *)&told)[i];
    told.head.checksum = (uint8_t)-sum;
    attached->has_table =
        !EFI_ERROR(acpi->InstallAcpiTable(acpi, &told, told.head.length, &attached->table_key));
}

/* Everything but the path of the image's own node tells the container. */
static void tell(struct attached *attached)
{
    const EFI_DEVICE_PATH *path = (const EFI_DEVICE_PATH *)attached->path;
    size_t path_bytes = 0;
    uint32_t crc32 = 0;

    __builtin_memset(&told, 0, sizeof(told));
    path_measure(path, &path_bytes);
    tell_container(path, path_bytes - sizeof(struct qcow2_node));
    __builtin_memcpy(told.head.signature, QCOW2_HANDOVER_SIGNATURE, sizeof(told.head.signature));
    __builtin_memcpy(told.head.oem_id, TABLE_OEM, sizeof(told.head.oem_id));
    __builtin_memcpy(told.head.oem_table_id, "BOOT", OEM_DIGITS_OFF);
    __builtin_memcpy(told.head.creator_id, TABLE_CREATOR, sizeof(told.head.creator_id));
    told.head.revision = QCOW2_HANDOVER_VERSION;
    told.body.version = QCOW2_HANDOVER_VERSION;
    told.body.header_bytes = sizeof(told.body);
    told.body.total_bytes =
        (uint32_t)sizeof(told.body) + told.body.file_bytes + told.body.path_bytes;
    told.body.flags = attached->told_flags;
    told.body.virtual_bytes = qc_size(&attached->image);
    told.body.container_bytes = attached->block.disk.size_bytes;
    told.body.header_digest = attached->told_digest;
    efi_boot->CalculateCrc32(&told.body, told.body.total_bytes, &crc32);
    told.body.crc32 = crc32;
    set_variable(attached, true);
    set_table(attached, true);
}

void handover_publish(struct attached *attached)
{
    attached->told_digest = digest_of(attached);
    attached->told_flags = flags_of(attached);
    attached->is_told = true;
    tell(attached);
}

void handover_follow(struct attached *attached)
{
    uint32_t flags = flags_of(attached);

    if (!attached->is_told || flags == attached->told_flags)
        return;
    attached->told_flags = flags;
    tell(attached);
}

void handover_withdraw(struct attached *attached)
{
    if (!attached->is_told)
        return;
    attached->is_told = false;
    set_variable(attached, false);
    set_table(attached, false);
}
