/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Wrong arguments of reads and writes, in every way of calling: which error each gets, that a stale
 * MediaId is told before anything else, and that a refused call changes nothing (UEFI 2.10, 13.9
 * and 13.10).
 *
 * A driver that does not look at MediaId carries such writes out: the disk must be a scratch disk.
 */
#include "conformance.h"

#define SEED_REFUSED      77u
#define REACHED_BYTES_MAX (4 * BLOCK_SIZE_MAX)

enum from { FROM_START, FROM_LAST };
enum place { GOOD, NOWHERE };

/* A request. bytes: blocks of the disk, and delta more or less. */
struct shape {
    enum from from;
    uint64_t lba;
    uint64_t blocks;
    int64_t delta;
    enum place place;
};

#define SIZE  EFI_BAD_BUFFER_SIZE
#define RANGE EFI_INVALID_PARAMETER

/* With the right MediaId. */
static const struct {
    const char *name;
    struct shape shape;
    EFI_STATUS want;
    enum kind kind;
} wrongs[] = {
    {"size 0", {FROM_START, 0, 0, 0, GOOD}, EFI_SUCCESS, KIND_NONE},
    {"size 0 at LastBlock", {FROM_LAST, 0, 0, 0, GOOD}, EFI_SUCCESS, KIND_NONE},
    {"size 0 past the end", {FROM_LAST, 1, 0, 0, GOOD}, EFI_SUCCESS, KIND_OWN},
    {"size 0, Buffer NULL", {FROM_START, 0, 0, 0, NOWHERE}, EFI_SUCCESS, KIND_OWN},
    {"size of 1 byte", {FROM_START, 0, 0, 1, GOOD}, SIZE, KIND_NONE},
    {"size a byte below 1 block", {FROM_START, 0, 1, -1, GOOD}, SIZE, KIND_NONE},
    {"size a byte above 1 block", {FROM_START, 0, 1, 1, GOOD}, SIZE, KIND_NONE},
    {"size a byte below 2 blocks", {FROM_START, 0, 2, -1, GOOD}, SIZE, KIND_NONE},
    {"size a byte above 2 blocks", {FROM_START, 0, 2, 1, GOOD}, SIZE, KIND_NONE},
    {"size a byte below 3 blocks", {FROM_START, 0, 3, -1, GOOD}, SIZE, KIND_NONE},
    {"odd size and LBA past the end", {FROM_LAST, 1, 1, 1, GOOD}, SIZE, KIND_OWN},
    {"LBA LastBlock+1", {FROM_LAST, 1, 1, 0, GOOD}, RANGE, KIND_NONE},
    {"LBA LastBlock+100", {FROM_LAST, 100, 1, 0, GOOD}, RANGE, KIND_NONE},
    {"1 block across the end", {FROM_LAST, 0, 2, 0, GOOD}, RANGE, KIND_NONE},
    {"2 blocks across the end", {FROM_LAST, 0, 3, 0, GOOD}, RANGE, KIND_NONE},
    {"3 blocks across the end", {FROM_LAST, 0, 4, 0, GOOD}, RANGE, KIND_NONE},
    {"100 blocks across the end", {FROM_LAST, 0, 101, 0, GOOD}, RANGE, KIND_NONE},
    {"1 block across the end, from before", {FROM_LAST, -1ull, 3, 0, GOOD}, RANGE, KIND_NONE},
    {"LBA 2^63", {FROM_START, 1ull << 63, 1, 0, GOOD}, RANGE, KIND_NONE},
    {"LBA whose byte offset is 2^64", {FROM_START, 1ull << 55, 1, 0, GOOD}, RANGE, KIND_NONE},
    {"LBA 2^64-1", {FROM_START, -1ull, 1, 0, GOOD}, RANGE, KIND_NONE},
    {"2 blocks whose LBAs wrap to 0", {FROM_START, -1ull, 2, 0, GOOD}, RANGE, KIND_WRAP},
    {"4 blocks whose LBAs wrap to 1", {FROM_START, -2ull, 4, 0, GOOD}, RANGE, KIND_WRAP},
    {"size 4 GiB", {FROM_START, 0, 0, 1ll << 32, GOOD}, RANGE, KIND_OWN},
    {"size near 2^64", {FROM_START, 0, 0, -512, GOOD}, RANGE, KIND_OWN},
    {"size near 2^64 at LastBlock", {FROM_LAST, 0, 0, -512, GOOD}, RANGE, KIND_OWN},
    {"Buffer NULL", {FROM_START, 0, 1, 0, NOWHERE}, RANGE, KIND_OWN},
    {"Buffer NULL and odd size", {FROM_START, 0, 1, 1, NOWHERE}, RANGE, KIND_OWN},
};

/* What else is wrong beside MediaId. misaligned: only where the disk wants its buffers aligned. */
static const struct {
    const char *name;
    struct shape shape;
    bool is_misaligned;
} companions[] = {
    {"alone", {FROM_LAST, 0, 1, 0, GOOD}, false},
    {"and LBA LastBlock+1", {FROM_LAST, 1, 1, 0, GOOD}, false},
    {"and LBA 2^64-1", {FROM_START, -1ull, 1, 0, GOOD}, false},
    {"and a byte too little", {FROM_LAST, 0, 1, -1, GOOD}, false},
    {"and size 0", {FROM_LAST, 0, 0, 0, GOOD}, false},
    {"and Buffer NULL", {FROM_LAST, -1ull, 1, 0, NOWHERE}, false},
    {"and LBA, size and Buffer", {FROM_LAST, 1, 1, -1, NOWHERE}, false},
    {"and Buffer misaligned", {FROM_LAST, 0, 1, 0, GOOD}, true},
};

/* Against the right one; the last is the MediaId 0. */
static const struct {
    const char *name;
    int32_t delta;
    bool is_zero;
} stale_ids[] = {
    {"MediaId+5", 5, false},  {"MediaId+1", 1, false}, {"MediaId-1", -1, false},
    {"MediaId-5", -5, false}, {"MediaId 0", 0, true},
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static struct transfer prepare(enum way way, enum action action, const struct shape *shape)
{
    return (struct transfer){
        .way = way,
        .action = action,
        .media_id = target.media->MediaId,
        .lba = shape->lba + (shape->from == FROM_LAST ? target.media->LastBlock : 0),
        .bytes = shape->blocks * target.media->BlockSize + (uint64_t)shape->delta,
        .buffer = shape->place == GOOD ? buffer_a : NULL,
    };
}

static void try_wrongs(enum way way, enum action action)
{
    bool is_protected = action == WRITE && target.media->ReadOnly;

    about(way_name(way, action), "");
    for (size_t i = 0; i < COUNT(wrongs); i++) {
        struct transfer call = prepare(way, action, &wrongs[i].shape);
        EFI_STATUS want = is_protected ? EFI_WRITE_PROTECTED : wrongs[i].want;

        of_kind(wrongs[i].kind);
        if (wrongs[i].kind == KIND_OWN && !target.is_ours)
            skip(1);
        else
            expect(wrongs[i].name, transfer(&call), want);
    }
    of_kind(KIND_NONE);
}

static void try_stale_id(enum way way, enum action action, uint32_t media_id)
{
    for (size_t i = 0; i < COUNT(companions); i++) {
        struct transfer call = prepare(way, action, &companions[i].shape);

        call.media_id = media_id;
        if (companions[i].is_misaligned && target.media->IoAlign <= 1) {
            skip(1);
            continue;
        }
        if (companions[i].is_misaligned)
            call.buffer = buffer_a + 1;
        expect(companions[i].name, transfer(&call), EFI_MEDIA_CHANGED);
    }
}

static void try_stale_ids(enum way way, enum action action)
{
    of_kind(KIND_MEDIA_ID);
    for (size_t i = 0; i < COUNT(stale_ids); i++) {
        uint32_t right = target.media->MediaId;
        uint32_t media_id = stale_ids[i].is_zero ? 0 : right + (uint32_t)stale_ids[i].delta;

        about(way_name(way, action), stale_ids[i].name);
        if (media_id == right)
            skip(COUNT(companions));
        else
            try_stale_id(way, action, media_id);
    }
    of_kind(KIND_NONE);
}

/* Every smaller power of two is too little; where none is asked for, any place will do. */
static void try_alignment(enum way way, enum action action)
{
    uint32_t io_align = target.media->IoAlign;
    uint64_t middle = target.media->LastBlock / 2;
    struct transfer call = {
        way, action, target.media->MediaId, middle, target.media->BlockSize, buffer_b + 1};
    bool is_protected = action == WRITE && target.media->ReadOnly;
    unsigned accepted_count = 0;

    about(way_name(way, action), "");
    if (io_align > 1) {
        for (uint32_t off = 1; off < io_align && off < ALIGN_MAX; off *= 2) {
            call.buffer = buffer_b + off;
            accepted_count += transfer(&call) != (is_protected ? EFI_WRITE_PROTECTED : RANGE);
        }
        expect_number("places of Buffer below IoAlign that are not refused", accepted_count, 0);
        skip(1);
        return;
    }
    skip(1);
    agent.bs->CopyMem(buffer_b + 1, buffer_b + ALIGN_MAX, target.media->BlockSize);
    expect("Buffer at an odd address", transfer(&call),
           is_protected ? EFI_WRITE_PROTECTED : EFI_SUCCESS);
}

/* Keeps and later compares the blocks that a refused write might reach: all that are named above.
 */
static const struct {
    enum from from;
    uint64_t back; /* blocks before LastBlock */
    uint64_t count;
} reached[] = {{FROM_START, 0, 4}, {FROM_LAST, 1, 2}};

static bool each_reached(uint8_t *kept, bool is_compared)
{
    bool is_equal = true;
    uint8_t *now = is_compared ? buffer_a : kept;
    size_t block_bytes = target.media->BlockSize;

    for (size_t i = 0; i < COUNT(reached); i++) {
        uint64_t lba = reached[i].from == FROM_LAST ? target.media->LastBlock - reached[i].back : 0;
        size_t off = i * REACHED_BYTES_MAX;
        size_t bytes = reached[i].count * block_bytes;

        if (read_blocks(lba, reached[i].count, now + off) != EFI_SUCCESS)
            return false;
        is_equal = is_equal && equal(now + off, kept + off, bytes);
    }
    return is_equal;
}

static void try_writes(enum way way)
{
    static _Alignas(ALIGN_MAX) uint8_t kept[COUNT(reached) * REACHED_BYTES_MAX];
    uint64_t count = BLOCKS_BYTES_MAX / target.media->BlockSize;

    if (!each_reached(kept, false)) {
        expect_that("the disk can be read", false);
        return;
    }
    fill(buffer_a, SEED_REFUSED, 0, count);
    try_wrongs(way, WRITE);
    about(way_name(way, WRITE), "");
    expect_that("refused calls wrote nothing", each_reached(kept, true));
    fill(buffer_a, SEED_REFUSED, 0, count);
    try_stale_ids(way, WRITE);
    about(way_name(way, WRITE), "");
    of_kind(KIND_MEDIA_ID);
    expect_that("calls with a wrong MediaId wrote nothing", each_reached(kept, true));
    of_kind(KIND_NONE);
    read_blocks(target.media->LastBlock / 2, 1, buffer_b + ALIGN_MAX);
    try_alignment(way, WRITE);
}

static bool is_same_media(const EFI_BLOCK_IO_MEDIA *before)
{
    const EFI_BLOCK_IO_MEDIA *now = target.media;

    return before->MediaId == now->MediaId && before->MediaPresent == now->MediaPresent &&
           before->ReadOnly == now->ReadOnly && before->BlockSize == now->BlockSize &&
           before->IoAlign == now->IoAlign && before->LastBlock == now->LastBlock;
}

static void try_way(enum way way)
{
    EFI_BLOCK_IO_MEDIA before = *target.media;

    try_wrongs(way, READ);
    try_stale_ids(way, READ);
    try_alignment(way, READ);
    try_writes(way);
    expect_that("refused calls changed nothing of Media", is_same_media(&before));
}

static void try_this(void)
{
    EFI_BLOCK_IO_PROTOCOL *io = target.block_io;
    uint32_t media_id = target.media->MediaId;
    UINTN bytes = target.media->BlockSize;

    if (!target.is_ours) {
        skip(4);
        return;
    }
    about("This NULL", "");
    expect("Reset", io->Reset(NULL, FALSE), EFI_INVALID_PARAMETER);
    expect("ReadBlocks", io->ReadBlocks(NULL, media_id, 0, bytes, buffer_a), EFI_INVALID_PARAMETER);
    expect("WriteBlocks", io->WriteBlocks(NULL, media_id, 0, bytes, buffer_a),
           EFI_INVALID_PARAMETER);
    expect("FlushBlocks", io->FlushBlocks(NULL), EFI_INVALID_PARAMETER);
}

static void try_tpl(void)
{
    EFI_TPL tpl = agent.bs->RaiseTPL(TPL_CALLBACK);
    EFI_STATUS status = read_blocks(0, 1, buffer_a);
    EFI_TPL after = tpl_now();

    agent.bs->RestoreTPL(tpl);
    about("ReadBlocks at TPL_CALLBACK", "");
    expect("answers", status, EFI_SUCCESS);
    expect_number("leaves the task priority", after, TPL_CALLBACK);
}

void group_arguments(unsigned number)
{
    group_begin(number, "Block I/O, wrong arguments");
    try_way(WAY_PLAIN);
    try_this();
    try_tpl();
    group_end();
}

void group_arguments2(unsigned number)
{
    if (target.block_io2 == NULL) {
        group_absent(number, "Block I/O 2, wrong arguments");
        return;
    }
    group_begin(number, "Block I/O 2, wrong arguments");
    calls_begin();
    try_way(WAY_NO_TOKEN);
    try_way(WAY_NO_EVENT);
    try_way(WAY_EVENT);
    calls_end();
    calls_judge();
    group_end();
}
