/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * What single calls of the child's Block I/O, or Block I/O 2, must answer, several wrong arguments
 * at once included: the specification and its conformance tests fix which of them wins
 * (UEFI 2.10, 13.9, 13.10). One line a check, PASS or FAIL. What may be written at all is
 * changes.c's; here no write gets through.
 */
#include "agent.h"

#define GUARD_BYTE  0xA5u
#define GUARD_BYTES 64u

enum buffer_kind { GOOD, NOWHERE };

/* One call: the arguments that are off, and the answer. lba counts from the last block if at_end.
 */
static const struct {
    const char *name;
    int32_t id_delta;
    bool at_end;
    uint64_t lba;
    uint64_t len;
    enum buffer_kind buffer;
    EFI_STATUS want;
} reads[] = {
    {"first", 0, false, 0, 512, GOOD, EFI_SUCCESS},
    {"last", 0, true, 0, 512, GOOD, EFI_SUCCESS},
    {"nothing", 0, false, 0, 0, GOOD, EFI_SUCCESS},
    {"nothing-past-end", 0, true, 1, 0, GOOD, EFI_SUCCESS},
    {"id-plus-1", 1, false, 0, 512, GOOD, EFI_MEDIA_CHANGED},
    {"id-minus-1", -1, false, 0, 512, GOOD, EFI_MEDIA_CHANGED},
    {"id-and-lba", 1, true, 1, 512, GOOD, EFI_MEDIA_CHANGED},
    {"id-and-odd-size", 5, false, 0, 511, GOOD, EFI_MEDIA_CHANGED},
    {"id-and-no-size", -5, false, 0, 0, GOOD, EFI_MEDIA_CHANGED},
    {"id-and-null", 1, false, 0, 512, NOWHERE, EFI_MEDIA_CHANGED},
    {"id-lba-size-null", 1, true, 100, 513, NOWHERE, EFI_MEDIA_CHANGED},
    {"null", 0, false, 0, 512, NOWHERE, EFI_INVALID_PARAMETER},
    {"null-and-odd-size", 0, false, 0, 513, NOWHERE, EFI_INVALID_PARAMETER},
    {"size-1", 0, false, 0, 1, GOOD, EFI_BAD_BUFFER_SIZE},
    {"size-511", 0, false, 0, 511, GOOD, EFI_BAD_BUFFER_SIZE},
    {"size-513", 0, false, 0, 513, GOOD, EFI_BAD_BUFFER_SIZE},
    {"size-1023", 0, false, 0, 1023, GOOD, EFI_BAD_BUFFER_SIZE},
    {"size-1535", 0, false, 0, 1535, GOOD, EFI_BAD_BUFFER_SIZE},
    {"odd-size-past-end", 0, true, 1, 513, GOOD, EFI_BAD_BUFFER_SIZE},
    {"past-end-by-1", 0, true, 1, 512, GOOD, EFI_INVALID_PARAMETER},
    {"past-end-by-100", 0, true, 100, 512, GOOD, EFI_INVALID_PARAMETER},
    {"across-end", 0, true, 0, 1024, GOOD, EFI_INVALID_PARAMETER},
    {"across-end-by-1", 0, true, -1ull, 1536, GOOD, EFI_INVALID_PARAMETER},
    {"lba-max", 0, false, -1ull, 512, GOOD, EFI_INVALID_PARAMETER},
    {"lba-wraps", 0, false, -1ull, 1024, GOOD, EFI_INVALID_PARAMETER},
    {"byte-offset-wraps", 0, false, 1ull << 55, 512, GOOD, EFI_INVALID_PARAMETER},
    {"size-4g", 0, false, 0, 1ull << 32, GOOD, EFI_INVALID_PARAMETER},
    {"size-max", 0, true, 0, -512ull, GOOD, EFI_INVALID_PARAMETER},
};

/* On a child that takes no writes, and what the same calls answer on one that does. */
static const struct {
    const char *name;
    int32_t id_delta;
    bool at_end;
    uint64_t lba;
    uint64_t len;
    enum buffer_kind buffer;
    EFI_STATUS want;
    EFI_STATUS want_writable;
} writes[] = {
    {"write", 0, false, 0, 512, GOOD, EFI_WRITE_PROTECTED, EFI_SUCCESS},
    {"write-last", 0, true, 0, 512, GOOD, EFI_WRITE_PROTECTED, EFI_SUCCESS},
    {"write-nothing", 0, false, 0, 0, GOOD, EFI_WRITE_PROTECTED, EFI_SUCCESS},
    {"write-nothing-null", 0, true, 1, 0, NOWHERE, EFI_WRITE_PROTECTED, EFI_SUCCESS},
    {"write-null", 0, false, 0, 512, NOWHERE, EFI_WRITE_PROTECTED, EFI_INVALID_PARAMETER},
    {"write-null-and-odd", 0, false, 0, 513, NOWHERE, EFI_WRITE_PROTECTED, EFI_INVALID_PARAMETER},
    {"write-odd-size", 0, false, 0, 513, GOOD, EFI_WRITE_PROTECTED, EFI_BAD_BUFFER_SIZE},
    {"write-odd-past-end", 0, true, 1, 511, GOOD, EFI_WRITE_PROTECTED, EFI_BAD_BUFFER_SIZE},
    {"write-past-end", 0, true, 1, 512, GOOD, EFI_WRITE_PROTECTED, EFI_INVALID_PARAMETER},
    {"write-across-end", 0, true, 0, 1024, GOOD, EFI_WRITE_PROTECTED, EFI_INVALID_PARAMETER},
    {"write-wraps", 0, false, -1ull, 1024, GOOD, EFI_WRITE_PROTECTED, EFI_INVALID_PARAMETER},
    {"write-id", 1, false, 0, 512, GOOD, EFI_MEDIA_CHANGED, EFI_MEDIA_CHANGED},
    {"write-id-and-null", 1, false, 0, 512, NOWHERE, EFI_MEDIA_CHANGED, EFI_MEDIA_CHANGED},
    {"write-id-odd-past", -1, true, 1, 513, GOOD, EFI_MEDIA_CHANGED, EFI_MEDIA_CHANGED},
};

void judge(const char *name, EFI_STATUS got, EFI_STATUS want)
{
    bool right = got == want && current_tpl() == TPL_APPLICATION;
    say("check ");
    say(name);
    say(right ? " PASS" : " FAIL");
    if (!right) {
        say_status("got", got);
        say_status("want", want);
        say_number("tpl", current_tpl());
    }
    say_end();
}

static void check_reads(EFI_BLOCK_IO_PROTOCOL *blocks)
{
    for (size_t i = 0; i < sizeof(reads) / sizeof(reads[0]); i++) {
        uint64_t lba = reads[i].lba + (reads[i].at_end ? blocks->Media->LastBlock : 0);
        void *buf = reads[i].buffer == GOOD ? agent_buffer : NULL;
        judge(reads[i].name,
              way_read(blocks, blocks->Media->MediaId + (uint32_t)reads[i].id_delta, lba,
                       reads[i].len, buf),
              reads[i].want);
    }
}

static void check_writes(EFI_BLOCK_IO_PROTOCOL *blocks)
{
    for (size_t i = 0; i < sizeof(writes) / sizeof(writes[0]); i++) {
        uint64_t lba = writes[i].lba + (writes[i].at_end ? blocks->Media->LastBlock : 0);
        void *buf = writes[i].buffer == GOOD ? agent_buffer : NULL;
        judge(writes[i].name,
              way_write(blocks, blocks->Media->MediaId + (uint32_t)writes[i].id_delta, lba,
                        writes[i].len, buf),
              blocks->Media->ReadOnly ? writes[i].want : writes[i].want_writable);
    }
}

/* Every misalignment below IoAlign is refused; where the disk asks for none, there is nothing. */
static void check_alignment(EFI_BLOCK_IO_PROTOCOL *blocks)
{
    EFI_BLOCK_IO_MEDIA *media = blocks->Media;
    for (uint32_t off = 1; off < media->IoAlign && off < AGENT_SLACK_BYTES; off *= 2) {
        judge("misaligned", way_read(blocks, media->MediaId, 0, 512, agent_buffer + off),
              EFI_INVALID_PARAMETER);
        judge("misaligned-and-id", way_read(blocks, media->MediaId + 1, 0, 512, agent_buffer + off),
              EFI_MEDIA_CHANGED);
        if (!media->ReadOnly)
            judge("misaligned-write", way_write(blocks, media->MediaId, 0, 512, agent_buffer + off),
                  EFI_INVALID_PARAMETER);
    }
}

/* A read changes its buffer and not a byte more. */
static void check_guards(EFI_BLOCK_IO_PROTOCOL *blocks)
{
    uint8_t *buf = agent_buffer + 4096;
    bool kept = true;
    agent.bs->SetMem(buf - GUARD_BYTES, 512 + 2 * GUARD_BYTES, GUARD_BYTE);
    EFI_STATUS status = way_read(blocks, blocks->Media->MediaId, 1, 512, buf);
    for (size_t i = 1; i <= GUARD_BYTES; i++)
        kept = kept && buf[0 - i] == GUARD_BYTE && buf[511 + i] == GUARD_BYTE;
    judge("guards", kept ? status : EFI_BUFFER_TOO_SMALL, EFI_SUCCESS);
}

static EFI_STATUS read_at_tpl(EFI_BLOCK_IO_PROTOCOL *blocks, EFI_TPL tpl, bool *ret_kept)
{
    EFI_TPL before = agent.bs->RaiseTPL(tpl);
    EFI_STATUS status = way_read(blocks, blocks->Media->MediaId, 0, 512, agent_buffer);
    *ret_kept = current_tpl() == tpl;
    agent.bs->RestoreTPL(before);
    return status;
}

/* Block I/O may be called up to TPL_CALLBACK; above, a refusal is all that is safe. */
static void check_tpl(EFI_BLOCK_IO_PROTOCOL *blocks)
{
    bool kept;
    EFI_STATUS status = read_at_tpl(blocks, TPL_CALLBACK, &kept);
    judge("tpl-callback", kept ? status : EFI_NOT_READY, EFI_SUCCESS);
    status = read_at_tpl(blocks, TPL_NOTIFY, &kept);
    judge("tpl-notify", kept ? status : EFI_NOT_READY, EFI_DEVICE_ERROR);
    judge("after-tpl-notify", way_read(blocks, blocks->Media->MediaId, 0, 512, agent_buffer),
          EFI_SUCCESS);
}

void order_checks(char **words)
{
    (void)words;
    EFI_BLOCK_IO_PROTOCOL *blocks = find_child(NULL);
    if (blocks == NULL) {
        say("check child FAIL\n");
        return;
    }
    uint32_t id = blocks->Media->MediaId;
    check_reads(blocks);
    check_writes(blocks);
    check_alignment(blocks);
    check_guards(blocks);
    check_tpl(blocks);
    judge("flush", way_flush(blocks), EFI_SUCCESS);
    judge("reset", way_reset(blocks, FALSE), EFI_SUCCESS);
    judge("reset-extended", way_reset(blocks, TRUE), EFI_SUCCESS);
    judge("this-read", way_read(NULL, id, 0, 512, agent_buffer), EFI_INVALID_PARAMETER);
    judge("this-write", way_write(NULL, id, 0, 512, agent_buffer), EFI_INVALID_PARAMETER);
    judge("this-flush", way_flush(NULL), EFI_INVALID_PARAMETER);
    judge("this-reset", way_reset(NULL, FALSE), EFI_INVALID_PARAMETER);
}

/*
 * medium gone, medium changed: the disk below loses its medium, or gets another one, behind the
 * driver's back. The child says so whatever else is wrong, and its medium does not return when the
 * one below does.
 */
void order_medium(char **words)
{
    bool gone = words[1][0] == 'g';
    EFI_BLOCK_IO_PROTOCOL *below = find_protocol(agent.parent, &guid_block_io);
    EFI_BLOCK_IO_PROTOCOL *blocks = find_child(NULL);
    if (below == NULL || blocks == NULL) {
        say("check child FAIL\n");
        return;
    }
    uint32_t id = blocks->Media->MediaId;
    uint32_t id_below = below->Media->MediaId;
    below->Media->MediaPresent = !gone;
    below->Media->MediaId = gone ? id_below : id_below + 1;
    judge("medium-read", way_read(blocks, id, 0, 512, agent_buffer),
          gone ? EFI_NO_MEDIA : EFI_MEDIA_CHANGED);
    judge("medium-id", way_read(blocks, id + 1, 0, 512, agent_buffer), EFI_NO_MEDIA);
    judge("medium-size", way_read(blocks, id, 0, 513, agent_buffer), EFI_NO_MEDIA);
    judge("medium-null", way_read(blocks, id, 0, 512, NULL), EFI_NO_MEDIA);
    judge("medium-write", way_write(blocks, id, 0, 512, agent_buffer), EFI_NO_MEDIA);
    judge("medium-flush", way_flush(blocks), EFI_NO_MEDIA);
    below->Media->MediaPresent = TRUE;
    below->Media->MediaId = id_below;
    judge("medium-back", way_read(blocks, id, 0, 512, agent_buffer), EFI_NO_MEDIA);
    judge("medium-field", blocks->Media->MediaPresent ? EFI_NOT_READY : EFI_SUCCESS, EFI_SUCCESS);
}
