/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The agent's channels, all of them devices of the virtual machine: the debug console takes what
 * the agent says, fw_cfg gives it files, the exit device ends the machine. QEMU, docs/specs/fw_cfg.
 */
#include "agent.h"

#define PORT_CONSOLE    0x402u
#define PORT_EXIT       0xF4u
#define PORT_CFG_SELECT 0x510u
#define PORT_CFG_DATA   0x511u
#define CFG_DIRECTORY   0x19u
#define CFG_FILES_MAX   256u
#define CFG_NAME_BYTES  56u

static void out8(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static void out16(uint16_t port, uint16_t value)
{
    __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port));
}

static uint8_t in8(uint16_t port)
{
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

void port_put(char character)
{
    out8(PORT_CONSOLE, (uint8_t)character);
}

_Noreturn void port_exit(uint8_t code)
{
    out8(PORT_EXIT, code);
    for (;;)
        __asm__ volatile("hlt");
}

static void read_bytes(void *buf, size_t len)
{
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)buf)[i] = in8(PORT_CFG_DATA);
}

static uint32_t read_be32(void)
{
    uint8_t bytes[4];
    read_bytes(bytes, sizeof(bytes));
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

static bool same_name(const char *name, const char *entry)
{
    size_t i = 0;
    while (i < CFG_NAME_BYTES - 1 && name[i] == entry[i] && name[i] != '\0')
        i++;
    return name[i] == entry[i];
}

bool port_file(const char *name, void *buf, size_t len)
{
    out16(PORT_CFG_SELECT, CFG_DIRECTORY);
    uint32_t count = read_be32();
    for (uint32_t i = 0; i < count && i < CFG_FILES_MAX; i++) {
        char entry[CFG_NAME_BYTES];
        uint32_t size = read_be32();
        uint16_t key = (uint16_t)(read_be32() >> 16);
        read_bytes(entry, sizeof(entry));
        if (same_name(name, entry)) {
            out16(PORT_CFG_SELECT, key);
            read_bytes(buf, len);
            return size >= len;
        }
    }
    return false;
}
