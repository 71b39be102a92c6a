/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Orders that measure: what a read of the image takes beside the same read of the disk below it.
 * For that there is a disk in memory, whose every read takes the same number of instructions.
 *
 * Promises: both are read by the same loop, into the same buffer, as often as told. What the time
 * stamp counter counts, instructions or time, is up to how the machine was started.
 */
#include "agent.h"

#define SECTOR_BYTES 512u
#define MEMORY_BYTES (2u << 20)
#define WARM_BYTES   4096u
#define WARM_UNITS   256u /* the first MiB, all of which the image has */
#define WARM_STEP    157u /* odd: every unit once, no two neighbours in turn */
#define WARM_ROUNDS  5u

static _Alignas(4096) uint8_t memory[MEMORY_BYTES];
static uint64_t memory_reads;

static EFI_STATUS EFIAPI memory_reset(EFI_BLOCK_IO_PROTOCOL *self, BOOLEAN extended)
{
    (void)self;
    (void)extended;
    return EFI_SUCCESS;
}

static bool is_inside(EFI_LBA lba, UINTN len)
{
    return len <= MEMORY_BYTES && lba <= (MEMORY_BYTES - len) / SECTOR_BYTES;
}

static EFI_STATUS EFIAPI memory_read(EFI_BLOCK_IO_PROTOCOL *self, UINT32 media_id, EFI_LBA lba,
                                     UINTN len, VOID *buf)
{
    (void)self;
    (void)media_id;
    memory_reads++;
    if (!is_inside(lba, len))
        return EFI_INVALID_PARAMETER;
    __builtin_memcpy(buf, memory + lba * SECTOR_BYTES, len);
    return EFI_SUCCESS;
}

static EFI_STATUS EFIAPI memory_write(EFI_BLOCK_IO_PROTOCOL *self, UINT32 media_id, EFI_LBA lba,
                                      UINTN len, VOID *buf)
{
    (void)self;
    (void)media_id;
    if (!is_inside(lba, len))
        return EFI_INVALID_PARAMETER;
    __builtin_memcpy(memory + lba * SECTOR_BYTES, buf, len);
    return EFI_SUCCESS;
}

static EFI_STATUS EFIAPI memory_flush(EFI_BLOCK_IO_PROTOCOL *self)
{
    (void)self;
    return EFI_SUCCESS;
}

/* memory: a new disk, which holds the fw_cfg file "opt/qcow2/memory"; chosen and connected. */
void order_memory(char **words)
{
    static EFI_BLOCK_IO_MEDIA media = {.MediaId = 1,
                                       .MediaPresent = TRUE,
                                       .BlockSize = SECTOR_BYTES,
                                       .LastBlock = MEMORY_BYTES / SECTOR_BYTES - 1};
    static EFI_BLOCK_IO_PROTOCOL blocks = {.Revision = EFI_BLOCK_IO_PROTOCOL_REVISION,
                                           .Media = &media,
                                           .Reset = memory_reset,
                                           .ReadBlocks = memory_read,
                                           .WriteBlocks = memory_write,
                                           .FlushBlocks = memory_flush};
    static struct {
        VENDOR_DEVICE_PATH vendor;
        EFI_DEVICE_PATH end;
    } path = {{{HARDWARE_DEVICE_PATH, HW_VENDOR_DP, {sizeof(VENDOR_DEVICE_PATH), 0}},
               {0x6ea4f6c2, 0x1d5b, 0x4c29, {0x93, 0x0e, 0x5b, 0x77, 0x21, 0x4d, 0xa8, 0xf0}}},
              {END_DEVICE_PATH_TYPE, END_ENTIRE_DEVICE_PATH_SUBTYPE, {sizeof(path.end), 0}}};
    (void)words;
    say("memory:");
    agent.parent = NULL;
    if (!port_file("opt/qcow2/memory", memory, MEMORY_BYTES)) {
        say(" none");
    } else {
        say_status("install",
                   agent.bs->InstallMultipleProtocolInterfaces(
                       &agent.parent, &guid_block_io, &blocks, &guid_device_path, &path, NULL));
        agent.bs->ConnectController(agent.parent, NULL, NULL, TRUE);
        say_number("child", find_child(NULL) != NULL);
    }
    say_end();
}

/* Ticks of count reads of WARM_BYTES all over the first WARM_UNITS; 0 where one failed. */
static uint64_t warm_reads(EFI_BLOCK_IO_PROTOCOL *blocks, uint64_t count)
{
    uint32_t id = blocks->Media->MediaId;
    EFI_STATUS status = EFI_SUCCESS;
    uint64_t unit = 0, start = __builtin_ia32_rdtsc();
    for (uint64_t i = 0; i < count; i++) {
        status |= blocks->ReadBlocks(blocks, id, unit * (WARM_BYTES / SECTOR_BYTES), WARM_BYTES,
                                     agent_buffer);
        unit = (unit + WARM_STEP) % WARM_UNITS;
    }
    return status == EFI_SUCCESS ? __builtin_ia32_rdtsc() - start : 0;
}

/*
 * warm COUNT: ticks of so many reads of the image, and of the disk below; the least of some rounds,
 * because the firmware's timer interrupts some. What the disk has to do for those of the image.
 */
void order_warm(char **words)
{
    EFI_BLOCK_IO_PROTOCOL *child = find_child(NULL);
    EFI_BLOCK_IO_PROTOCOL *parent = find_protocol(agent.parent, &guid_block_io);
    uint64_t count = number(words[1]), image = UINT64_MAX, below = UINT64_MAX, reads = 0;
    say("warm:");
    if (child == NULL || warm_reads(child, WARM_UNITS) == 0) {
        say(" none");
        say_end();
        return;
    }
    for (unsigned round = 0; round < WARM_ROUNDS; round++) {
        memory_reads = 0;
        uint64_t ticks = warm_reads(child, count);
        image = ticks < image ? ticks : image;
        reads = memory_reads > reads ? memory_reads : reads;
        ticks = warm_reads(parent, count);
        below = ticks < below ? ticks : below;
    }
    say_number("image", image);
    say_number("below", below);
    say_number("reads", reads);
    say_end();
}

static uint64_t timed(EFI_BLOCK_IO_PROTOCOL *blocks, uint64_t lba, size_t len, EFI_STATUS *status)
{
    uint64_t start = __builtin_ia32_rdtsc();
    *status |= blocks->ReadBlocks(blocks, blocks->Media->MediaId, lba, len, agent_buffer);
    return __builtin_ia32_rdtsc() - start;
}

/*
 * race BYTES COUNT STEP SPAN: ticks of so many reads of the image, and of the disk below at the
 * same addresses, in turn; each begins every second time. STEP and SPAN are in units of BYTES.
 */
void order_race(char **words)
{
    EFI_BLOCK_IO_PROTOCOL *child = find_child(NULL);
    EFI_BLOCK_IO_PROTOCOL *parent = find_protocol(agent.parent, &guid_block_io);
    size_t len = number(words[1]);
    uint64_t count = number(words[2]), step = number(words[3]), span = number(words[4]);
    uint64_t image = 0, below = 0;
    EFI_STATUS status = EFI_SUCCESS;
    say("race:");
    if (child == NULL || len > AGENT_BUFFER_BYTES || span == 0) {
        say(" none");
        say_end();
        return;
    }
    for (uint64_t i = 0; i < count; i++) {
        uint64_t lba = i * step % span * (len / SECTOR_BYTES);
        if (i % 2 == 0)
            image += timed(child, lba, len, &status);
        below += timed(parent, lba, len, &status);
        if (i % 2 != 0)
            image += timed(child, lba, len, &status);
    }
    say_status("status", status);
    say_number("image", image);
    say_number("below", below);
    say_end();
}
