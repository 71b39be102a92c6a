/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The test agent: an EFI application that carries out a script of orders and reports what it saw.
 *
 * main.c takes the orders, the other files carry them out; what they share is declared here. Every
 * answer is one line on the debug console port, "order: key=value ...", for vm.py to judge: the
 * agent itself decides only what a single call must answer (checks.c). Nothing is allocated.
 */
#ifndef AGENT_H
#define AGENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <efi.h>

#define AGENT_WORDS_MAX    6u
#define AGENT_HANDLES_MAX  512u
#define AGENT_BUFFER_BYTES (8u << 20)
/* Room after the buffer's end, for reads into misaligned places. */
#define AGENT_SLACK_BYTES 8192u
#define FILE_READ         EFI_FILE_MODE_READ
#define FILE_CHANGE       (EFI_FILE_MODE_READ | EFI_FILE_MODE_WRITE)
#define FILE_CREATE       (EFI_FILE_MODE_CREATE | FILE_CHANGE)

/* What the orders share: the firmware's tables, the driver under test, the disk chosen by select.
 */
struct agent {
    EFI_HANDLE image;
    EFI_SYSTEM_TABLE *st;
    EFI_BOOT_SERVICES *bs;
    EFI_HANDLE driver; /* NULL: not loaded */
    uint64_t driver_base;
    uint64_t driver_bytes;
    EFI_HANDLE parent; /* what the image lies on */
};

extern struct agent agent;
extern uint8_t agent_buffer[AGENT_BUFFER_BYTES + AGENT_SLACK_BYTES];

/* Flushes of the disk below, while they are counted (blocks.c). */
extern uint64_t flush_count;

extern EFI_GUID guid_block_io;
extern EFI_GUID guid_device_path;
extern EFI_GUID guid_disk_io;
extern EFI_GUID guid_files;
extern EFI_GUID guid_loaded_image;

/* ports.c: the channels of the virtual machine. */
void port_put(char character);
_Noreturn void port_exit(uint8_t code);
/* Reads exactly len bytes of the fw_cfg file name; false when there is no such file. */
bool port_file(const char *name, void *buf, size_t len);

/* say.c: one report line is a sequence of these, closed by say_end. */
void say(const char *text);
void say_number(const char *key, uint64_t value);
void say_hex(const char *key, uint64_t value);
void say_status(const char *key, EFI_STATUS status);
void say_wide(const char *key, const CHAR16 *text);
void say_end(void);
/* A whole line: the order with its colon, and how it went. */
void say_answer(const char *order, EFI_STATUS status);

/* find.c */
/* Handles that have protocol (NULL: all handles) into the shared list; how many. */
size_t find_handles(EFI_GUID *protocol, EFI_HANDLE **ret_list);
void *find_protocol(EFI_HANDLE handle, EFI_GUID *protocol);
/* The handle of the disk on PCI device slot, or of its partition part (0: the whole disk). */
EFI_HANDLE find_disk(uint64_t slot, uint64_t part);
/* The image's Block I/O on the chosen disk, or NULL; the handle too when ret_handle is not NULL. */
EFI_BLOCK_IO_PROTOCOL *find_child(EFI_HANDLE *ret_handle);
/* The Block I/O that a word names: "parent", anything else is the image. NULL: there is none. */
EFI_BLOCK_IO_PROTOCOL *find_named(const char *which);
/* How many Block I/O handles there are whose path ends in the driver's node. */
size_t find_children_count(void);
/* The file system that lies in the child or a partition of it, or NULL. */
EFI_HANDLE find_volume(void);
/* What stands after prefix in path, or NULL when path does not begin so. */
EFI_DEVICE_PATH_PROTOCOL *path_after(EFI_DEVICE_PATH_PROTOCOL *path,
                                     EFI_DEVICE_PATH_PROTOCOL *prefix);
bool equal(const void *left, const void *right, size_t len);

/* CRC-32 as zlib has it, continued from crc. */
uint32_t crc32_more(uint32_t crc, const uint8_t *bytes, size_t len);
/* The content that test and agent agree on: sectors that tell seed and place (vm.py, pattern). */
void pattern(uint8_t *buf, uint64_t seed, uint64_t first_sector, size_t sectors_count);
/* One line "check NAME PASS" or FAIL; right also means that the task priority is as it was. */
void judge(const char *name, EFI_STATUS got, EFI_STATUS want);
/*
 * blocks.c: where a request of count blocks has its bytes, in a buffer so many times as far off as
 * the disk allows. NULL where there is no disk, or no room: that was said.
 */
uint8_t *find_room(EFI_BLOCK_IO_PROTOCOL *blocks, const char *count, const char *times,
                   size_t *ret_len);

/* files.c. EFI_NO_MEDIA: the handle, which may be NULL, is no volume's. */
EFI_STATUS open_root(EFI_HANDLE volume, EFI_FILE_HANDLE *ret_root);
/* A file of the volume inside the image; mode is FILE_READ, or one of the other two. */
EFI_STATUS open_file(const char *name, uint64_t mode, EFI_FILE_HANDLE *ret_file);
/* The same of the volume that lies on the chosen disk itself. */
EFI_STATUS open_own(const char *name, uint64_t mode, EFI_FILE_HANDLE *ret_file);
/* Gives a file a new name, or where that is NULL a size, and closes it. */
EFI_STATUS change_info(EFI_FILE_HANDLE file, const char *new_name, uint64_t size_bytes);

/*
 * ways.c: a call in the way that the script chose. blocks NULL: the child's function gets NULL as
 * its own protocol.
 */
EFI_STATUS way_read(EFI_BLOCK_IO_PROTOCOL *blocks, uint32_t id, uint64_t lba, size_t len,
                    void *buf);
EFI_STATUS way_write(EFI_BLOCK_IO_PROTOCOL *blocks, uint32_t id, uint64_t lba, size_t len,
                     void *buf);
EFI_STATUS way_flush(EFI_BLOCK_IO_PROTOCOL *blocks);
EFI_STATUS way_reset(EFI_BLOCK_IO_PROTOCOL *blocks, bool extended);

/* What the driver tells the operating system of slot digit (handover.c). */
void say_variable(uint64_t digit);

/* The orders. words[0] is the order itself; missing words are "". */
uint64_t number(const char *word);
void order_load(char **words);
void order_unload(char **words);
void order_connect(char **words);
void order_disconnect(char **words);
void order_reconnect(char **words);
void order_select(char **words);
void order_handles(char **words);
void order_opens(char **words);
void order_start(char **words);
void order_stop(char **words);
void order_names(char **words);
void order_read(char **words);
void order_sum(char **words);
void order_file(char **words);
void order_media(char **words);
void order_path(char **words);
void order_count(char **words);
void order_checks(char **words);
void order_medium(char **words);
void order_watch(char **words);
void order_tpl(char **words);
void order_console(char **words);
void watch_console(void);
EFI_TPL current_tpl(void);
void order_write(char **words);
void order_flush(char **words);
void order_reset(char **words);
void order_erase(char **words);
void order_checkwrites(char **words);
void order_stall(char **words);
void order_wait(char **words);
void order_hammer(char **words);
void order_exit(char **words);
void order_shutdown(char **words);
void order_fault(char **words);
void order_signal(char **words);
void order_latewrite(char **words);
void order_put(char **words);
void order_rename(char **words);
void order_delete(char **words);
void order_copy(char **words);
void order_config(char **words);
void order_reenter(char **words);
void order_interrupt(char **words);
void order_answered(char **words);
void order_way(char **words);
void order_chain(char **words);
void order_layers(char **words);
void order_disk2(char **words);
void order_diagnose(char **words);
void order_checkdiagnose(char **words);
void order_below(char **words);
void order_hold(char **words);
void order_wrap(char **words);
void order_memory(char **words);
void order_warm(char **words);
void order_race(char **words);
void order_edit(char **words);
void order_sync(char **words);
void order_settle(char **words);
void order_peek(char **words);
void order_remove(char **words);
void order_attach(char **words);
void order_reattach(char **words);
void order_detach(char **words);
void order_pause(char **words);
void order_resume(char **words);
void order_list(char **words);
void order_into(char **words);
void order_outer(char **words);
void order_rounds(char **words);
void order_move(char **words);
void order_cut(char **words);
void order_variable(char **words);
void order_acpi(char **words);
void order_plant(char **words);

#endif
