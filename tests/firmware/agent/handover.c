/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Orders about what the operating system is told: dumps of the variables and of the ACPI tables in
 * which the driver says where an image lies. Whether they are right is the test's to judge.
 */
#include "agent.h"

#include "../../../efi/proto/qcow2_handover.h"

#define NUMBER_OFF    9u
#define DUMP_BYTES    4096u
#define TABLES_MAX    128u
#define RSDP_XSDT_OFF 24u /* ACPI 6.5, 5.2.5.3 */

static EFI_GUID guid_handover = QCOW2_HANDOVER_GUID;

static void say_bytes(const char *key, const uint8_t *bytes, size_t len)
{
    char pair[3] = {0};

    say(" ");
    say(key);
    say("=");
    for (size_t i = 0; i < len; i++) {
        pair[0] = "0123456789abcdef"[bytes[i] >> 4];
        pair[1] = "0123456789abcdef"[bytes[i] & 15];
        say(pair);
    }
}

void say_variable(uint64_t digit)
{
    static CHAR16 name[] = u"Qcow2Boot0000";
    static uint8_t value[DUMP_BYTES];
    UINTN value_bytes = sizeof(value);
    UINT32 attributes = 0;
    EFI_STATUS status;

    name[NUMBER_OFF + 3] = (CHAR16)('0' + digit);
    status = agent.st->RuntimeServices->GetVariable(name, &guid_handover, &attributes, &value_bytes,
                                                    value);
    say("variable:");
    say_status("status", status);
    if (status == EFI_SUCCESS) {
        say_number("attributes", attributes);
        say_bytes("value", value, value_bytes);
    }
    say_end();
}

/* variable N: what the driver says of slot N, up to 9. */
void order_variable(char **words)
{
    say_variable(number(words[1]));
}

/* plant N: another's variable of that name, which would survive a reset. */
void order_plant(char **words)
{
    static CHAR16 name[] = u"Qcow2Boot0000";

    name[NUMBER_OFF + 3] = (CHAR16)('0' + number(words[1]));
    say("plant:");
    say_status("status", agent.st->RuntimeServices->SetVariable(
                             name, &guid_handover,
                             EFI_VARIABLE_NON_VOLATILE | EFI_VARIABLE_BOOTSERVICE_ACCESS, 4, name));
    say_end();
}

static const uint8_t *find_xsdt(void)
{
    static EFI_GUID guid_acpi = ACPI_20_TABLE_GUID;

    for (UINTN i = 0; i < agent.st->NumberOfTableEntries; i++) {
        const EFI_CONFIGURATION_TABLE *table = &agent.st->ConfigurationTable[i];
        uint64_t address;

        if (!equal(&table->VendorGuid, &guid_acpi, sizeof(guid_acpi)))
            continue;
        agent.bs->CopyMem(&address, (uint8_t *)table->VendorTable + RSDP_XSDT_OFF, sizeof(address));
        return (const uint8_t *)(uintptr_t)address;
    }
    return NULL;
}

/* acpi: every table of the driver's kind, one a line, and how many there are. */
void order_acpi(char **words)
{
    const uint8_t *xsdt = find_xsdt();
    uint64_t found_count = 0, address;
    uint32_t len = 0, table_bytes;
    (void)words;

    if (xsdt != NULL)
        agent.bs->CopyMem(&len, (void *)(xsdt + 4), sizeof(len));
    for (size_t i = 0; i < TABLES_MAX && sizeof(struct qcow2_handover_table) + 8 * (i + 1) <= len;
         i++) {
        const uint8_t *table;

        agent.bs->CopyMem(&address, (void *)(xsdt + sizeof(struct qcow2_handover_table) + 8 * i),
                          sizeof(address));
        table = (const uint8_t *)(uintptr_t)address;
        if (!equal(table, QCOW2_HANDOVER_SIGNATURE, 4))
            continue;
        found_count++;
        say("table:");
        agent.bs->CopyMem(&table_bytes, (void *)(table + 4), sizeof(table_bytes));
        say_bytes("value", table, table_bytes);
        say_end();
    }
    say("acpi:");
    say_number("tables", found_count);
    say_end();
}
