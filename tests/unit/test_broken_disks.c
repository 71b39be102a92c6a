/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Disks that do not do what a disk does: reads that fail, once or for ever, below everything that
 * only reads; disks shorter than the header says or that lose their end while an image is open; and
 * disks whose reads answer something else each time.
 *
 * Promises: a failed read is told as one, is forgotten once the disk works, and harms no write. On
 * any disk every call ends after a bounded number of requests, none of them outside the disk, and
 * what the guest writes lands neither on the header nor on a table that the header names.
 *
 * Left to others: failing writes and flushes (tests/crash, test_failures.c), damage that stays
 * (test_damage.c). The address sanitizer watches.
 */
#include "support.h"

#include "../../core/bytes.h"
#include "../sim/deflate.h"

#define COPIED     (UINT64_C(1) << 63)
#define COMPRESSED (UINT64_C(1) << 62)
#define CLUSTER    4096u
#define GUEST      (64u * CLUSTER)
#define DATA       12u    /* clusters of data */
#define CALLS_MAX  20000u /* of one session; a good one makes some hundred */
#define MARKER     0x5au  /* what the guest writes */
#define DICE_RUNS  400u
#define AT_END     (AT_DATA + DATA)

static uint8_t buf[GUEST], expected[GUEST], packed[8192];
static struct mem_disk base, data;
static struct mem_layers layers;
static struct qc_unpacker unpacker;

/* ---- a disk that is none ----------------------------------------------------------------------
 */

enum lie { TRUTH, FAILING, SHORT, CUT_OFF, RANDOM_BYTES, RANDOM_ENTRIES, ALTERNATING, CHANGING };

static struct {
    const struct qc_disk_ops *plain;
    struct qc_disk_ops ops;
    const struct qc_image *image;
    enum lie lie;
    unsigned calls_count;
    unsigned fail_at;      /* FAILING: the read of this number, from 1 */
    bool is_forever;       /* and all later ones */
    uint64_t end;          /* CUT_OFF: what lies behind it fails */
    uint64_t spared_bytes; /* RANDOM, ALTERNATING: the disk tells the truth below */
    uint64_t entry_off;    /* CHANGING: what is read there, */
    uint64_t entry;        /* is this from then on when it was read so often */
    unsigned truths_count;
    uint32_t dice;
    unsigned reads_count;
} broken;

static uint32_t roll(void)
{
    broken.dice ^= broken.dice << 13;
    broken.dice ^= broken.dice >> 17;
    broken.dice ^= broken.dice << 5;
    return broken.dice;
}

/* Changes what was read from host_off. */
static void lie_about(uint64_t host_off, uint8_t *bytes, size_t len)
{
    if (host_off < broken.spared_bytes)
        return;
    if (broken.lie == RANDOM_BYTES && roll() % 4 == 0) {
        for (unsigned i = 0; i < 1 + len / 512; i++)
            bytes[roll() % len] = (uint8_t)roll();
    }
    /* Whole entries, so that they are pointers which look right. */
    if (broken.lie == RANDOM_ENTRIES && roll() % 4 == 0) {
        size_t at = roll() % len & ~(size_t)7;

        if (at + 8 <= len)
            put_be64(bytes + at, (uint64_t)(roll() % 24) * CLUSTER | (roll() % 2 ? COPIED : 0));
    }
    if (broken.lie == CHANGING && host_off <= broken.entry_off &&
        host_off + len >= broken.entry_off + 8 && broken.truths_count-- == 0) {
        put_be64(bytes + (broken.entry_off - host_off), broken.entry);
        broken.truths_count = 0;
    }
    if (broken.lie == ALTERNATING && broken.reads_count % 2 == 0)
        memset(bytes, 0, len);
}

static qc_status broken_read(struct qc_disk *disk, uint64_t host_off, void *bytes, size_t len)
{
    qc_status status;

    assert_in_range(++broken.calls_count, 1, CALLS_MAX);
    broken.reads_count++;
    if (broken.lie == CUT_OFF && host_off + len > broken.end)
        return QC_IO;
    if (broken.lie == FAILING && (broken.reads_count == broken.fail_at ||
                                  (broken.is_forever && broken.reads_count > broken.fail_at))) {
        memset(bytes, 0xee, len); /* a failed read may leave anything behind */
        return QC_IO;
    }
    status = broken.plain->read(disk, host_off, bytes, len);
    lie_about(host_off, bytes, len);
    return status;
}

/* What the guest wrote is told by its bytes, and must not come where the header has its tables. */
static void expect_no_table(uint64_t host_off)
{
    const struct qc_header *header = qc_info(broken.image);
    uint64_t cluster = host_off / CLUSTER;

    assert_false(cluster == AT_HEADER || cluster == header->l1_off / CLUSTER ||
                 cluster == header->reftable_off / CLUSTER ||
                 (header->snapshots_count > 0 && cluster == header->snapshots_off / CLUSTER));
}

static qc_status broken_write(struct qc_disk *disk, uint64_t host_off, const void *bytes,
                              size_t len)
{
    const uint8_t *content = bytes;

    assert_in_range(++broken.calls_count, 1, CALLS_MAX);
    for (size_t i = 0; disk != &data.disk && i + 16 <= len; i += 8) {
        if (content[i] == MARKER && memcmp(content + i, content + i + 1, 15) == 0)
            expect_no_table(host_off + i);
    }
    if (broken.lie == CUT_OFF && host_off + len > broken.end)
        return QC_IO;
    return broken.plain->write(disk, host_off, bytes, len);
}

static qc_status broken_flush(struct qc_disk *disk)
{
    assert_in_range(++broken.calls_count, 1, CALLS_MAX);
    return broken.plain->flush(disk);
}

static void break_disk(struct qc_disk *disk)
{
    if (disk->ops != &broken.ops)
        broken.plain = disk->ops;
    broken.ops = *broken.plain;
    broken.ops.read = broken_read;
    broken.ops.write = broken_write;
    broken.ops.flush = broken_flush;
    disk->ops = &broken.ops;
}

static void start_lying(enum lie lie)
{
    broken.lie = lie;
    broken.calls_count = broken.reads_count = 0;
}

/* ---- images ---------------------------------------------------------------------------------- */

/*
 * Twelve clusters, of which the first four are mapped in order; one snapshot that shares them, so
 * that its L1 table is the fifth, its L2 table the sixth and the snapshot table the seventh.
 */
static struct rig *plain(void **state)
{
    struct rig *rig = *state;
    uint8_t *bytes = rig->disk.bytes;
    uint64_t l1_off, table_off;

    memset(&broken, 0, sizeof(broken));
    broken.dice = 1;
    broken.image = &rig->image;
    memset(&rig->options, 0, sizeof(rig->options));
    rig_build(rig, 3, 12, GUEST, DATA);
    l1_off = rig_data_off(rig, 4);
    table_off = rig_data_off(rig, 6);
    for (unsigned i = 0; i < 4; i++) {
        rig_set_l2(rig, i, rig_data_off(rig, i));
        image_set_count(&rig->disk, rig_data_off(rig, i), 2);
    }
    memset(bytes + l1_off, 0, 3 * CLUSTER);
    put_be64(bytes + l1_off, rig_data_off(rig, 5));
    memcpy(bytes + rig_data_off(rig, 5), bytes + AT_L2 * CLUSTER, CLUSTER);
    put_be64(bytes + table_off, l1_off);
    put_be32(bytes + table_off + 8, 1);
    put_be32(bytes + table_off + 12, 1u << 16 | 3);
    put_be32(bytes + table_off + 36, 16);
    put_be64(bytes + table_off + 48, GUEST);
    memcpy(bytes + table_off + 56, "1one", 4);
    put_be32(bytes + 60, 1);
    put_be64(bytes + 64, table_off);
    for (unsigned i = 7; i < DATA; i++)
        image_set_count(&rig->disk, rig_data_off(rig, i), 0);
    memset(expected, 0, sizeof(expected));
    memcpy(expected, bytes + rig_data_off(rig, 0), 4 * CLUSTER);
    return rig;
}

/* An image with an extension, over a qcow2 layer that has one cluster more. */
static struct rig *layered(void **state)
{
    struct rig *rig = plain(state);

    memset(&base, 0, sizeof(base));
    image_build(&base, 3, 12, GUEST, 1);
    image_set_l2(&base, 9, AT_DATA * CLUSTER | COPIED);
    base.disk.readonly = true;
    memcpy(expected + 9 * CLUSTER, base.bytes + AT_DATA * CLUSTER, CLUSTER);
    layers_init(&layers);
    layers.disks[1] = &base;
    image_set_below(&rig->disk, "base", "qcow2");
    rig->options.bases = &layers.bases;
    break_disk(&base.disk);
    return rig;
}

/* An image whose first four clusters lie in a data file, and no snapshot. */
static struct rig *with_data_file(void **state)
{
    struct rig *rig = plain(state);

    rig_set_data_file(rig, &data, GUEST);
    memcpy(data.bytes, expected, GUEST);
    put_be32(rig->disk.bytes + 60, 0);
    for (unsigned i = 0; i < 4; i++)
        rig_set_l2(rig, i, i * CLUSTER | COPIED);
    break_disk(&data.disk);
    return rig;
}

/* An image that has a compressed cluster as well. */
static struct rig *with_packed(void **state)
{
    struct rig *rig = plain(state);
    uint64_t host_off = rig_data_off(rig, 7);
    size_t len;

    for (unsigned i = 0; i < CLUSTER; i++)
        expected[5 * CLUSTER + i] = (uint8_t)(i * 7 + (i >> 8));
    len = deflate_stored(packed, expected + 5 * CLUSTER, CLUSTER, true);
    assert_true(len <= 2 * CLUSTER);
    memset(rig->disk.bytes + host_off, 0, 2 * CLUSTER);
    memcpy(rig->disk.bytes + host_off, packed, len);
    rig_set_l2(rig, 5, COMPRESSED | (uint64_t)((len - 1) / 512) << (62 - 4) | host_off);
    image_set_count(&rig->disk, host_off, 1);
    image_set_count(&rig->disk, host_off + CLUSTER, 1);
    rig->options.unpacker = &unpacker;
    return rig;
}

static struct rig *of_snapshot(void **state)
{
    struct rig *rig = plain(state);

    rig->options.snapshot = "one";
    return rig;
}

typedef struct rig *build(void **state);

static build *const builds[] = {plain, layered, with_data_file, with_packed, of_snapshot};

#define BUILDS (sizeof(builds) / sizeof(builds[0]))

/* ---- reads that fail ------------------------------------------------------------------------- */

/* Everything that only reads, or one part of it; the first answer that is not QC_OK. */
static qc_status look(struct rig *rig, unsigned part)
{
    struct qc_check_result result = {0};
    struct qc_snapshot snapshot;
    struct qc_extent run;
    uint64_t cursor = 0;
    qc_status status = QC_OK;

    if (part == 0)
        return rig_open(rig);
    if (part == 1) {
        memset(buf, 0, sizeof(buf));
        status = qc_read(&rig->image, 0, buf, GUEST);
        if (status == QC_OK && broken.lie <= FAILING)
            assert_memory_equal(buf, expected, GUEST);
    }
    for (uint64_t off = 0; part == 2 && status == QC_OK && off < GUEST; off += run.len)
        status = qc_map(&rig->image, off, GUEST - off, &run);
    if (part == 3 && rig->options.snapshot == NULL)
        status = qc_check(&rig->image, QC_FIX_NOTHING, NULL, NULL, &result);
    if (part == 3 && status == QC_OK && broken.lie == TRUTH)
        assert_int_equal(result.corruptions + result.check_errors, 0);
    while (part == 4 && status == QC_OK)
        status = qc_snapshot_next(&rig->image, &cursor, &snapshot);
    return part == 4 && status == QC_RANGE ? QC_OK : status;
}

#define PARTS 5u

/*
 * That read fails, and all later ones by choice. It is told, but for the look at the snapshot table
 * that the first change repeats: *ret_untold counts these.
 */
static void expect_told_and_forgotten(struct rig *rig, unsigned part, unsigned nth, bool is_forever,
                                      unsigned *ret_untold)
{
    qc_status status = look(rig, 0);

    assert_int_equal(status, QC_OK);
    start_lying(FAILING);
    broken.fail_at = nth;
    broken.is_forever = is_forever;
    status = look(rig, part);
    if (part == 0 && status == QC_OK)
        ++*ret_untold;
    else
        assert_int_equal(status, QC_IO);
    if (status != QC_OK)
        assert_string_not_equal(qc_detail(&rig->image), "");
    start_lying(TRUTH);
    if (part == 0)
        assert_int_equal(look(rig, 0), QC_OK);
    assert_true(rig->options.snapshot != NULL || qc_readonly_reason(&rig->image)[0] == '\0');
    for (unsigned i = 1; i < PARTS; i++)
        assert_int_equal(look(rig, i), QC_OK);
}

static void failed_reads_are_told_and_forgotten(void **state)
{
    for (unsigned b = 0; b < BUILDS; b++) {
        unsigned untold = 0;

        for (unsigned part = 0; part < PARTS; part++) {
            struct rig *rig = builds[b](state);
            unsigned reads;

            break_disk(&rig->disk.disk);
            assert_int_equal(look(rig, 0), QC_OK);
            start_lying(TRUTH);
            assert_int_equal(look(rig, part), QC_OK);
            reads = broken.reads_count;
            for (unsigned nth = 1; nth <= reads; nth++) {
                expect_told_and_forgotten(rig, part, nth, false, &untold);
                expect_told_and_forgotten(rig, part, nth, true, &untold);
            }
        }
        assert_in_range(untold, 0, 2);
    }
}

/* ---- a session on a disk that cannot be trusted -----------------------------------------------
 */

/* Once an image is open, no answer says that it is none, or that it is refused. */
static void expect_answer(qc_status status)
{
    assert_in_range(status, QC_OK, QC_NOSPACE);
    assert_true(status != QC_FOREIGN && status != QC_REFUSED);
}

static void use(struct rig *rig)
{
    struct qc_check_result result;

    for (unsigned part = 2; part < PARTS; part++)
        expect_answer(look(rig, part));
    expect_answer(qc_read(&rig->image, 0, buf, GUEST));
    memset(buf, MARKER, sizeof(buf));
    expect_answer(qc_write(&rig->image, CLUSTER, buf, CLUSTER));
    expect_answer(qc_write(&rig->image, 2 * CLUSTER + 512, buf, 1024));
    expect_answer(qc_write(&rig->image, 20 * CLUSTER, buf, 3 * CLUSTER));
    expect_answer(qc_flush(&rig->image));
    expect_answer(qc_zero(&rig->image, 0, CLUSTER + 512, false));
    expect_answer(qc_discard(&rig->image, 3 * CLUSTER, 18 * CLUSTER));
    expect_answer(qc_snapshot_create(&rig->image, "two", 1, 2));
    expect_answer(qc_write(&rig->image, 22 * CLUSTER, buf, CLUSTER));
    expect_answer(qc_snapshot_apply(&rig->image, "1"));
    expect_answer(qc_write(&rig->image, 0, buf, 2 * CLUSTER));
    expect_answer(qc_resize(&rig->image, 2 * GUEST));
    expect_answer(qc_snapshot_delete(&rig->image, "1"));
    expect_answer(qc_settle(&rig->image));
    expect_answer(qc_check(&rig->image, QC_FIX_ALL, NULL, NULL, &result));
    expect_answer(qc_settle(&rig->image));
}

/* A disk of every size that the image does not fit, fixed or growing. */
static void disks_may_be_shorter_than_the_header_says(void **state)
{
    for (uint64_t size = 0; size <= AT_END * CLUSTER; size += size % CLUSTER < 1024 ? 264 : 1024) {
        for (unsigned is_fixed = 0; is_fixed < 2; is_fixed++) {
            struct rig *rig = with_packed(state);

            if (is_fixed)
                rig_fix_size(rig, size);
            rig->disk.disk.size_bytes = size;
            break_disk(&rig->disk.disk);
            start_lying(SHORT);
            if (rig_open(rig) == QC_OK)
                use(rig);
        }
    }
}

/* The end goes while the image is open; what lies behind it fails from then on. */
static void disks_may_lose_their_end(void **state)
{
    for (uint64_t cut = 0; cut < AT_END * CLUSTER; cut += CLUSTER / 2) {
        struct rig *rig = with_packed(state);

        break_disk(&rig->disk.disk);
        start_lying(TRUTH);
        assert_int_equal(rig_open(rig), QC_OK);
        start_lying(CUT_OFF);
        broken.end = cut;
        use(rig);
    }
}

static void session_of_lies(void **state, build *made, enum lie lie, uint32_t seed,
                            uint64_t spared_bytes)
{
    struct rig *rig = made(state);

    break_disk(&rig->disk.disk);
    start_lying(lie);
    broken.dice = seed * 2654435761u | 1;
    broken.spared_bytes = spared_bytes;
    if (rig_open(rig) == QC_OK)
        use(rig);
}

/* The header stays, so that nearly every run gets past the opening; then nothing does. */
static void reads_may_answer_anything(void **state)
{
    static const enum lie lies[] = {RANDOM_BYTES, RANDOM_ENTRIES, ALTERNATING};

    for (uint32_t seed = 1; seed <= DICE_RUNS; seed++) {
        for (unsigned i = 0; i < 3; i++) {
            session_of_lies(state, builds[seed % 4], lies[i], seed, CLUSTER);
            session_of_lies(state, builds[seed % BUILDS], lies[i], seed, 0);
        }
    }
}

/* A table reads right when it is looked for and wrong when it is used. */
static void tables_may_change_between_reads(void **state)
{
    static const unsigned tables[] = {AT_REFTABLE, AT_REFBLOCK, AT_L1, AT_L2};

    for (unsigned i = 0; i < 4 * AT_END * 4; i++) {
        struct rig *rig = plain(state);

        break_disk(&rig->disk.disk);
        start_lying(CHANGING);
        broken.entry_off = tables[i / AT_END / 4] * CLUSTER;
        broken.entry = i / 4 % AT_END * CLUSTER | COPIED;
        broken.truths_count = i % 4;
        assert_int_equal(rig_open(rig), QC_OK);
        use(rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(failed_reads_are_told_and_forgotten),
        RIG_TEST(disks_may_be_shorter_than_the_header_says),
        RIG_TEST(disks_may_lose_their_end),
        RIG_TEST(reads_may_answer_anything),
        RIG_TEST(tables_may_change_between_reads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
