/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* See options.h. */
#include "options.h"

#include "../path.h"

#define OPTION_BYTES_MAX 4096u
#define NUMBERS_MAX      0x10000u
#define ORDER_MAX        512u
#define ACTIVE           1u
#define FORCE_RECONNECT  2u /* disks that the firmware connected before the driver came */
#define DIGITS           4u
#define KEPT                                                                                       \
    (EFI_VARIABLE_NON_VOLATILE | EFI_VARIABLE_BOOTSERVICE_ACCESS | EFI_VARIABLE_RUNTIME_ACCESS)

const struct options_kind options_driver = {"Driver", ACTIVE | FORCE_RECONNECT, true};
const struct options_kind options_boot = {"Boot", ACTIVE, false};

static EFI_GUID guid_global = EFI_GLOBAL_VARIABLE;
static const CHAR16 description[] = L"qcow2";

/* In front of a load option's description. */
struct option_head {
    uint32_t attributes;
    uint16_t path_bytes;
} __attribute__((packed));

static uint8_t option[OPTION_BYTES_MAX];
static UINT16 order[ORDER_MAX];

static void name_option(const struct options_kind *kind, unsigned number,
                        char name[OPTIONS_NAME_BYTES])
{
    static const char digits[] = "0123456789ABCDEF";
    size_t at;

    text_copy(name, OPTIONS_NAME_BYTES, kind->name);
    at = text_find(name, '\0');
    for (unsigned i = 0; i < DIGITS; i++)
        name[at + i] = digits[number >> 4 * (DIGITS - 1 - i) & 0xf];
    name[at + DIGITS] = '\0';
}

static EFI_STATUS get(const char *name, void *data, UINTN *bytes)
{
    CHAR16 wide[OPTIONS_NAME_BYTES];

    text_widen(wide, OPTIONS_NAME_BYTES, name);
    return efi_system->RuntimeServices->GetVariable(wide, &guid_global, NULL, bytes, data);
}

static EFI_STATUS set(const char *name, void *data, UINTN bytes)
{
    CHAR16 wide[OPTIONS_NAME_BYTES];

    text_widen(wide, OPTIONS_NAME_BYTES, name);
    return efi_system->RuntimeServices->SetVariable(wide, &guid_global, KEPT, bytes, data);
}

/* The order, which may not be there yet. */
static EFI_STATUS get_order(const struct options_kind *kind, char name[OPTIONS_NAME_BYTES],
                            size_t *ret_count)
{
    UINTN bytes = sizeof(order);
    EFI_STATUS status;

    text_copy(name, OPTIONS_NAME_BYTES, kind->name);
    text_add(name, OPTIONS_NAME_BYTES, "Order");
    status = get(name, order, &bytes);
    *ret_count = EFI_ERROR(status) ? 0 : bytes / sizeof(order[0]);
    return status == EFI_NOT_FOUND ? EFI_SUCCESS : status;
}

/* Whether the option in memory, of so many bytes, starts this file. */
static bool starts(size_t bytes, const EFI_DEVICE_PATH *file, size_t file_bytes)
{
    struct option_head head;
    size_t off = sizeof(head);
    CHAR16 c = 1;

    if (bytes < sizeof(head))
        return false;
    __builtin_memcpy(&head, option, sizeof(head));
    for (; c != 0 && off + sizeof(c) <= bytes; off += sizeof(c))
        __builtin_memcpy(&c, option + off, sizeof(c));
    return c == 0 && head.path_bytes <= bytes - off &&
           head.path_bytes == file_bytes + PATH_END_BYTES &&
           __builtin_memcmp(option + off, file, file_bytes) == 0;
}

/* Looks through the options that the order has. */
EFI_STATUS options_find(const struct options_kind *kind, const EFI_DEVICE_PATH *file,
                        char name[OPTIONS_NAME_BYTES])
{
    size_t file_bytes, count;
    EFI_STATUS status = get_order(kind, name, &count);

    if (EFI_ERROR(status))
        return status;
    if (!path_measure(file, &file_bytes))
        return EFI_BAD_BUFFER_SIZE;
    for (size_t i = 0; i < count; i++) {
        UINTN bytes = sizeof(option);

        name_option(kind, order[i], name);
        if (!EFI_ERROR(get(name, option, &bytes)) && starts(bytes, file, file_bytes))
            return EFI_SUCCESS;
    }
    name[0] = '\0';
    return EFI_SUCCESS;
}

/* A number that no option has, in the order or out of it. */
static bool find_free(const struct options_kind *kind, unsigned *ret_number,
                      char name[OPTIONS_NAME_BYTES])
{
    for (unsigned number = 0; number < NUMBERS_MAX; number++) {
        UINTN bytes = 0;

        name_option(kind, number, name);
        if (get(name, NULL, &bytes) == EFI_NOT_FOUND) {
            *ret_number = number;
            return true;
        }
    }
    return false;
}

EFI_STATUS options_add(const struct options_kind *kind, const EFI_DEVICE_PATH *file,
                       char name[OPTIONS_NAME_BYTES])
{
    char order_name[OPTIONS_NAME_BYTES];
    struct option_head head = {kind->attributes, 0};
    size_t file_bytes, count, at;
    unsigned number;
    EFI_STATUS status = get_order(kind, order_name, &count);

    if (EFI_ERROR(status))
        return status;
    if (!path_measure(file, &file_bytes) || count + 1 > ORDER_MAX ||
        sizeof(head) + sizeof(description) + file_bytes + PATH_END_BYTES > sizeof(option) ||
        !find_free(kind, &number, name))
        return EFI_OUT_OF_RESOURCES;
    head.path_bytes = (uint16_t)(file_bytes + PATH_END_BYTES);
    __builtin_memcpy(option, &head, sizeof(head));
    __builtin_memcpy(option + sizeof(head), description, sizeof(description));
    __builtin_memcpy(option + sizeof(head) + sizeof(description), file, head.path_bytes);
    status = set(name, option, sizeof(head) + sizeof(description) + head.path_bytes);
    if (EFI_ERROR(status))
        return status;
    at = kind->is_first ? 0 : count;
    __builtin_memmove(order + at + 1, order + at, (count - at) * sizeof(order[0]));
    order[at] = (UINT16)number;
    status = set(order_name, order, (count + 1) * sizeof(order[0]));
    if (EFI_ERROR(status))
        set(name, NULL, 0);
    return status;
}

EFI_STATUS options_remove(const struct options_kind *kind, const char *name)
{
    char order_name[OPTIONS_NAME_BYTES], other[OPTIONS_NAME_BYTES];
    size_t count, kept = 0;
    EFI_STATUS status = get_order(kind, order_name, &count);

    for (size_t i = 0; i < count; i++) {
        name_option(kind, order[i], other);
        if (!text_same(other, name))
            order[kept++] = order[i];
    }
    if (!EFI_ERROR(status))
        status = set(order_name, order, kept * sizeof(order[0]));
    return EFI_ERROR(status) ? status : set(name, NULL, 0);
}
