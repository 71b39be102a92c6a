/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Images that are refused, as a table: each row makes a good image wrong in one way, with the
 * answer and the line it gets, and then takes the nearest right value of one field, which opens.
 * Then what opens for reading alone.
 *
 * Promises: a refusal reads little, writes nothing and changes no byte (rig_expect).
 *
 * Left to others: longer walks along one field (test_header.c, test_extensions.c), names and layers
 * (test_bases.c), damage that only a request meets (test_damage.c).
 */
#include "support.h"

#define K4    4096u
#define GUEST (64u * K4)
#define END   (9u * K4) /* of the image that build makes: five tables and four clusters */

/* Offsets of header fields, in bytes. */
enum {
    AT_MAGIC = 0,
    AT_VERSION = 4,
    AT_BACKING_OFF = 8,
    AT_BACKING_BYTES = 16,
    AT_CLUSTER_BITS = 20,
    AT_SIZE = 24,
    AT_CRYPT = 32,
    AT_L1_ENTRIES = 36,
    AT_L1_OFF = 40,
    AT_REFTABLE_OFF = 48,
    AT_REFTABLE_CLUSTERS = 56,
    AT_SNAPSHOTS_COUNT = 60,
    AT_SNAPSHOTS_OFF = 64,
    AT_INCOMPATIBLE = 72,
    AT_AUTOCLEAR = 88,
    AT_REFCOUNT_ORDER = 96,
    AT_HEADER_BYTES = 100,
    AT_COMPRESSION = 104,
    AT_EXTENSIONS = 112,
};

struct field {
    unsigned off;
    uint64_t value;
};

struct refusal {
    uint32_t version;
    uint64_t disk_bytes;   /* of END */
    struct field wrong[2]; /* what makes it wrong; the second may be the same as the first */
    qc_status status;
    const char *line;
    struct field good; /* put over the wrong ones: now it opens */
};

/* Type and length of one. */
#define EXTENSION(type, len) ((uint64_t)(type) << 32 | (len))
#define ROW2(version, status, line, off1, wrong1, off2, wrong2, good_off, good)                    \
    {                                                                                              \
        version, END, {{off1, wrong1}, {off2, wrong2}}, QC_##status, line,                         \
        {                                                                                          \
            good_off, good                                                                         \
        }                                                                                          \
    }
#define ROW(version, status, line, off, wrong, good)                                               \
    ROW2(version, status, line, off, wrong, off, wrong, off, good)
#define SHORT(version, disk_bytes, status, line)                                                   \
    {                                                                                              \
        version, disk_bytes, {{AT_VERSION, version}, {AT_VERSION, version}}, QC_##status, line,    \
        {                                                                                          \
            AT_VERSION, version                                                                    \
        }                                                                                          \
    }

static const struct refusal refusals[] = {
    /* What is no image is nobody's business, and says so silently. */
    ROW(3, FOREIGN, "", 0, 'q', 'Q'),
    ROW(3, FOREIGN, "", 1, 'f', 'F'),
    ROW(3, FOREIGN, "", 2, 'i', 'I'),
    ROW(3, FOREIGN, "", 3, 0, 0xfb),
    SHORT(2, 71, FOREIGN, ""),
    SHORT(2, 72, CORRUPT, "L1 table offset 0x3000 invalid"),
    SHORT(3, 111, CORRUPT, "header length 111 invalid"),
    SHORT(3, 112, CORRUPT, "L1 table offset 0x3000 invalid"),
    ROW(3, UNSUPPORTED, "version 0 not supported", AT_VERSION, 0, 3),
    ROW(2, UNSUPPORTED, "version 1 not supported", AT_VERSION, 1, 2),
    ROW(3, UNSUPPORTED, "version 4 not supported", AT_VERSION, 4, 3),
    ROW(3, UNSUPPORTED, "version 4294967295 not supported", AT_VERSION, UINT32_MAX, 3),
    ROW(3, CORRUPT, "cluster_bits 0 out of range 9..21", AT_CLUSTER_BITS, 0, 12),
    ROW(3, CORRUPT, "cluster_bits 8 out of range 9..21", AT_CLUSTER_BITS, 8, 12),
    ROW(3, UNSUPPORTED, "cluster_bits 22 out of range 9..21", AT_CLUSTER_BITS, 22, 12),
    ROW(3, UNSUPPORTED, "cluster_bits 64 out of range 9..21", AT_CLUSTER_BITS, 64, 12),
    ROW(3, CORRUPT, "header length 0 invalid", AT_HEADER_BYTES, 0, 104),
    ROW(3, CORRUPT, "header length 72 invalid", AT_HEADER_BYTES, 72, 104),
    ROW(3, CORRUPT, "header length 105 invalid", AT_HEADER_BYTES, 105, 112),
    ROW(3, CORRUPT, "header length 4104 invalid", AT_HEADER_BYTES, K4 + 8, K4),
    ROW(3, UNSUPPORTED, "encryption method 1 not supported", AT_CRYPT, 1, 0),
    ROW(2, UNSUPPORTED, "encryption method 1 not supported", AT_CRYPT, 1, 0),
    ROW(3, UNSUPPORTED, "encryption method 2 not supported", AT_CRYPT, 2, 0),
    ROW(3, CORRUPT, "encryption method 3 not supported", AT_CRYPT, 3, 0),
    ROW(3, CORRUPT, "encryption method 4294967295 not supported", AT_CRYPT, UINT32_MAX, 0),
    ROW(3, CORRUPT, "refcount_order 7 invalid", AT_REFCOUNT_ORDER, 7, 6),
    ROW(3, CORRUPT, "refcount_order 32 invalid", AT_REFCOUNT_ORDER, 32, 0),
    ROW(3, UNSUPPORTED, "virtual size 0 not supported", AT_SIZE, 0, 512),
    ROW(3, UNSUPPORTED, "virtual size 511 not supported", AT_SIZE, 511, 512),
    ROW(3, UNSUPPORTED, "virtual size 18446744073709551615 not supported", AT_SIZE, UINT64_MAX,
        512 * K4),
    ROW(3, CORRUPT, "L1 table too small: 1 entries", AT_SIZE, 512 * K4 + 1, 512 * K4),
    ROW(3, CORRUPT, "L1 table too small: 0 entries", AT_L1_ENTRIES, 0, 1),
    ROW(3, UNSUPPORTED, "L1 table too large: 4194305 entries", AT_L1_ENTRIES, 4194305, 512),
    ROW(3, CORRUPT, "L1 table offset 0x3000 invalid", AT_L1_ENTRIES, 6 * 512 + 1, 6 * 512),
    ROW(3, CORRUPT, "L1 table offset 0x0 invalid", AT_L1_OFF, 0, AT_L1 *K4),
    ROW(3, CORRUPT, "L1 table offset 0x3008 invalid", AT_L1_OFF, 3 * K4 + 8, 3 * K4),
    ROW(3, CORRUPT, "L1 table offset 0x9000 invalid", AT_L1_OFF, END, END - K4),
    ROW(3, CORRUPT, "L1 table offset 0x100000000000000 invalid", AT_L1_OFF, UINT64_C(1) << 56,
        3 * K4),
    ROW2(3, CORRUPT, "L1 table offset 0xfffffffffffff000 invalid", AT_L1_OFF, UINT64_MAX - K4 + 1,
         AT_L1_ENTRIES, 512, AT_L1_OFF, 3 * K4),
    ROW(3, CORRUPT, "no refcount table", AT_REFTABLE_CLUSTERS, 0, 1),
    ROW(3, UNSUPPORTED, "refcount table too large: 2049 clusters", AT_REFTABLE_CLUSTERS, 2049, 2),
    ROW(3, CORRUPT, "refcount table offset 0x1000 invalid", AT_REFTABLE_CLUSTERS, 2048, 2),
    ROW(3, CORRUPT, "refcount table offset 0x0 invalid", AT_REFTABLE_OFF, 0, K4),
    ROW(3, CORRUPT, "refcount table offset 0x1200 invalid", AT_REFTABLE_OFF, K4 + 512, K4),
    ROW(3, CORRUPT, "refcount table offset 0x9000 invalid", AT_REFTABLE_OFF, END, END - K4),
    ROW(3, CORRUPT, "refcount table offset 0xfffffffffffff000 invalid", AT_REFTABLE_OFF,
        UINT64_MAX - K4 + 1, K4),
    ROW(3, CORRUPT, "refcount table overlaps L1 table", AT_REFTABLE_OFF, 3 * K4, 4 * K4),
    ROW(3, CORRUPT, "snapshot table offset 0x1 invalid", AT_SNAPSHOTS_OFF, 1, K4),
    ROW(3, CORRUPT, "snapshot table offset 0x8000000000000000 invalid", AT_SNAPSHOTS_OFF,
        UINT64_C(1) << 63, UINT64_C(1) << 62),
    ROW2(3, CORRUPT, "snapshot table offset 0x0 invalid", AT_SNAPSHOTS_COUNT, 1, AT_SNAPSHOTS_COUNT,
         1, AT_SNAPSHOTS_OFF, 5 * K4),
    ROW2(3, CORRUPT, "snapshot table offset 0x5008 invalid", AT_SNAPSHOTS_COUNT, 1,
         AT_SNAPSHOTS_OFF, 5 * K4 + 8, AT_SNAPSHOTS_OFF, 5 * K4),
    ROW2(3, CORRUPT, "snapshot table offset 0x9000 invalid", AT_SNAPSHOTS_COUNT, 1,
         AT_SNAPSHOTS_OFF, END, AT_SNAPSHOTS_OFF, END - K4),
    ROW2(3, CORRUPT, "snapshot table offset 0xfffffffffffff000 invalid", AT_SNAPSHOTS_COUNT, 1,
         AT_SNAPSHOTS_OFF, UINT64_MAX - K4 + 1, AT_SNAPSHOTS_OFF, 5 * K4),
    ROW2(3, UNSUPPORTED, "snapshot table too large: 65537 snapshots", AT_SNAPSHOTS_COUNT, 65537,
         AT_SNAPSHOTS_OFF, 5 * K4, AT_SNAPSHOTS_COUNT, 1),
    ROW2(3, CORRUPT, "snapshot table overlaps L1 table", AT_SNAPSHOTS_COUNT, 1, AT_SNAPSHOTS_OFF,
         3 * K4, AT_SNAPSHOTS_OFF, 5 * K4),
    ROW2(3, CORRUPT, "snapshot table overlaps refcount table", AT_SNAPSHOTS_COUNT, 1,
         AT_SNAPSHOTS_OFF, K4, AT_SNAPSHOTS_COUNT, 0),
    ROW2(3, CORRUPT, "backing name field invalid", AT_BACKING_OFF, 512, AT_BACKING_BYTES, 1024,
         AT_BACKING_BYTES, 0),
    ROW2(3, CORRUPT, "backing name field invalid", AT_BACKING_OFF, K4 - 8, AT_BACKING_BYTES, 9,
         AT_BACKING_BYTES, 0),
    ROW2(3, CORRUPT, "backing name field invalid", AT_BACKING_OFF, 104, AT_BACKING_BYTES, 8,
         AT_BACKING_OFF, 0),
    ROW2(3, REFUSED, "backing name refused: nothing says where it lies", AT_BACKING_OFF, 512,
         AT_BACKING_BYTES, 1023, AT_BACKING_BYTES, 0),
    ROW2(3, UNSUPPORTED, "compression type 2 not supported", AT_INCOMPATIBLE, 8, AT_COMPRESSION, 2,
         AT_COMPRESSION, 1),
    ROW(3, UNSUPPORTED, "compression type 255 not supported", AT_COMPRESSION, 255, 0),
    ROW2(3, CORRUPT, "compression type 1 against its feature bit", AT_COMPRESSION, 1,
         AT_COMPRESSION, 1, AT_INCOMPATIBLE, 8),
    ROW2(3, CORRUPT, "compression type 0 against its feature bit", AT_INCOMPATIBLE, 8,
         AT_INCOMPATIBLE, 8, AT_COMPRESSION, 1),
    ROW2(3, CORRUPT, "compression type 0 against its feature bit", AT_INCOMPATIBLE, 8,
         AT_HEADER_BYTES, 104, AT_INCOMPATIBLE, 0),
    ROW(3, CORRUPT, "extended L2 entries with clusters of 4096", AT_INCOMPATIBLE, 16, 0),
    ROW(3, CORRUPT, "raw external data without an external data file", AT_AUTOCLEAR, 2, 4),
    ROW(3, REFUSED, "backing name refused: no data file named", AT_INCOMPATIBLE, 4, 0),
    ROW(3, CORRUPT, "header extension 0x1000 invalid", AT_EXTENSIONS, EXTENSION(0x1000, K4 - 119),
        EXTENSION(0x1000, K4 - 120)),
    ROW2(3, CORRUPT, "header extension 0x1000 invalid", AT_EXTENSIONS, EXTENSION(0x1000, 9),
         AT_BACKING_OFF, 128, AT_EXTENSIONS, EXTENSION(0x1000, 8)),
    ROW(2, CORRUPT, "header extension 0x1000 invalid", AT_INCOMPATIBLE, EXTENSION(0x1000, K4 - 79),
        EXTENSION(0x1000, K4 - 80)),
    ROW(3, CORRUPT, "header extension 0xe2792aca invalid", AT_EXTENSIONS, EXTENSION(0xe2792aca, 16),
        EXTENSION(0xe2792aca, 15)),
    ROW(3, CORRUPT, "header extension 0x44415441 invalid", AT_EXTENSIONS,
        EXTENSION(0x44415441, 1024), EXTENSION(0x44415441, 1023)),
    ROW(3, CORRUPT, "header extension 0x23852875 invalid", AT_EXTENSIONS, EXTENSION(0x23852875, 23),
        EXTENSION(0x23852875, 24)),
    ROW(3, CORRUPT, "header extension 0x537be77 invalid", AT_EXTENSIONS, EXTENSION(0x0537be77, 16),
        EXTENSION(0x0537be78, 16)),
};

/* Puts a value where the header, or the first extension, has a field; as wide as that is. */
static void put_field(struct rig *rig, const struct field *field)
{
    static const unsigned wide[] = {AT_BACKING_OFF,  AT_SIZE,          AT_L1_OFF,
                                    AT_REFTABLE_OFF, AT_SNAPSHOTS_OFF, AT_INCOMPATIBLE,
                                    AT_AUTOCLEAR,    AT_EXTENSIONS};
    uint8_t *bytes = rig->disk.bytes + field->off;

    for (unsigned i = 0; i < sizeof(wide) / sizeof(wide[0]); i++) {
        if (field->off == wide[i]) {
            put_be64(bytes, field->value);
            return;
        }
    }
    if (field->off < AT_VERSION || field->off == AT_COMPRESSION)
        bytes[0] = (uint8_t)field->value;
    else
        put_be32(bytes, (uint32_t)field->value);
}

/* Clusters of 4 KiB, four of data, an L1 table of one entry, and zeros behind the disk's end. */
static struct rig *build(void **state, uint32_t version)
{
    struct rig *rig = *state;

    rig_build(rig, version, 12, GUEST, 4);
    return rig;
}

static void each_row_is_refused_and_its_neighbour_opens(void **state)
{
    for (unsigned i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
        const struct refusal *row = &refusals[i];
        struct rig *rig = build(state, row->version);

        print_message("row %u\n", i);
        put_field(rig, &row->wrong[0]);
        put_field(rig, &row->wrong[1]);
        rig->disk.disk.size_bytes = row->disk_bytes;
        rig_expect(rig, row->status, row->line);
        put_field(rig, &row->good);
        rig->disk.disk.size_bytes = END;
        rig_expect(rig, QC_OK, "");
    }
}

static void each_unknown_bit_is_refused(void **state)
{
    struct rig *rig = build(state, 3);
    char line[QC_DETAIL_BYTES];

    for (unsigned bit = 5; bit < 64; bit++) {
        put_be64(rig->disk.bytes + AT_INCOMPATIBLE, UINT64_C(1) << bit);
        snprintf(line, sizeof(line), "unknown incompatible feature bit %u", bit);
        rig_expect(rig, QC_UNSUPPORTED, line);
    }
    put_be64(rig->disk.bytes + AT_INCOMPATIBLE, UINT64_C(1) << 40 | 1u << 6 | 3);
    rig_expect(rig, QC_UNSUPPORTED, "unknown incompatible feature bit 6");
    build(state, 2); /* where these bytes are no features: an extension, and its length */
    put_be64(rig->disk.bytes + AT_INCOMPATIBLE, UINT64_C(1) << 40);
    rig_expect(rig, QC_OK, "");
}

static void marks_and_blocks_that_take_no_writes(void **state)
{
    struct rig *rig = build(state, 3);

    put_be64(rig->disk.bytes + AT_INCOMPATIBLE, QC_INCOMPATIBLE_CORRUPT);
    rig_expect_readonly(rig, "image is marked corrupt: read-only");
    put_be64(rig->disk.bytes + AT_INCOMPATIBLE, QC_INCOMPATIBLE_CORRUPT | QC_INCOMPATIBLE_DIRTY);
    rig_expect_readonly(rig, "image is marked corrupt: read-only");
    put_be64(rig->disk.bytes + AT_INCOMPATIBLE, 0);
    rig->disk.disk.block_bytes = 8192;
    rig_expect_readonly(rig, "clusters of 4096 on 8192-byte blocks: read-only");
    rig->disk.disk.block_bytes = 4096;
    rig_expect(rig, QC_OK, "");
    assert_string_equal(qc_readonly_reason(&rig->image), "");
    rig->options.readonly = true;
    rig_expect_readonly(rig, "read-only");
    rig->options.readonly = false;
    rig_fix_size(rig, END + 1);
    rig_expect_readonly(rig, "disk of 36865 bytes is no whole blocks: read-only");
    rig_build(rig, 3, 9, 512, 4);
    rig->disk.disk.block_bytes = 4096;
    rig_expect_readonly(rig, "clusters of 512 on 4096-byte blocks: read-only");
}

/* ---- one test for each CVE that no other test has the name of ---------------------------------
 */

/* An L1 table of a snapshot that is longer than the active one is not read into the latter's room.
 */
static void cve_2014_0145_snapshot_l1_larger(void **state)
{
    static const struct {
        uint64_t l1_off;
        uint32_t l1_entries;
        qc_status status;
        const char *line;
    } cases[] = {
        {3 * K4, 1, QC_OK, ""},
        {3 * K4, 6 * 512, QC_OK, ""}, /* all that the disk holds */
        {3 * K4, 6 * 512 + 1, QC_CORRUPT, "L1 table of snapshot 1 invalid"},
        {3 * K4, 4194304, QC_CORRUPT, "L1 table of snapshot 1 invalid"},
        {3 * K4, 4194305, QC_UNSUPPORTED, "L1 table of snapshot 1 too large"},
        {3 * K4, UINT32_MAX, QC_UNSUPPORTED, "L1 table of snapshot 1 too large"},
        {3 * K4, 0, QC_CORRUPT, "L1 table of snapshot 1 too small"},
        {3 * K4 + 8, 1, QC_CORRUPT, "L1 table of snapshot 1 invalid"},
        {0, 1, QC_CORRUPT, "L1 table of snapshot 1 invalid"},
        {END, 1, QC_CORRUPT, "L1 table of snapshot 1 invalid"},
        {UINT64_MAX - K4 + 1, 512, QC_CORRUPT, "L1 table of snapshot 1 invalid"},
    };

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct rig *rig = build(state, 3);
        uint8_t *entry = rig->disk.bytes + 5 * K4;

        memset(entry, 0, K4);
        put_be64(entry, cases[i].l1_off);
        put_be32(entry + 8, cases[i].l1_entries);
        put_be32(entry + 12, 1u << 16); /* an id of one byte, no name */
        put_be32(entry + 36, 16);
        put_be64(entry + 48, GUEST);
        entry[56] = '1';
        put_be32(rig->disk.bytes + AT_SNAPSHOTS_COUNT, 1);
        put_be64(rig->disk.bytes + AT_SNAPSHOTS_OFF, 5 * K4);
        rig->options.snapshot = "1";
        rig_expect(rig, cases[i].status, cases[i].line);
    }
}

/* An error at the opening, whichever read it comes from, leaves nothing half made. */
static void cve_2014_0146_error_path(void **state)
{
    struct rig *rig = build(state, 3);
    char name[] = "base";
    unsigned reads;

    image_set_below(&rig->disk, name, "raw");
    rig_expect(rig, QC_REFUSED, "backing name refused: nothing says where it lies");
    reads = rig->disk.reads_count;
    for (unsigned nth = 1; nth <= reads; nth++) {
        rig->disk.fail_at = nth;
        rig_expect(rig, QC_IO, "header cannot be read");
    }
    rig->disk.fail_at = 0;
    put_be64(rig->disk.bytes + AT_BACKING_OFF, 0);
    rig_expect(rig, QC_OK, "");
    assert_int_equal(qc_settle(&rig->image), QC_OK);
}

/* A cluster that no refcount block counts is none of ours, and nothing is counted behind a table.
 */
static void cve_2014_0147_cluster_beyond_all_refblocks(void **state)
{
    static uint8_t data[K4];
    struct rig *rig = *state;
    uint64_t far_off = 256 * 512; /* the first that a block of 512 bytes does not count */

    rig_build(rig, 3, 9, 64 * 512, 400);
    rig_set_l2(rig, 0, far_off | UINT64_C(1) << 63);
    assert_int_equal(rig_open(rig), QC_OK);
    assert_int_equal(qc_read(&rig->image, 0, data, 512), QC_OK);
    rig_keep(rig);
    rig_expect_damage(rig, qc_write(&rig->image, 0, data, 512), QC_CORRUPT,
                      "COPIED flag wrong at guest 0x0", RIG_UNMARKED);
    far_off = 64 * 64 * 512; /* with counts of 64 bits behind the refcount table's last entry */
    rig_build(rig, 3, 9, 64 * 512, MEM_DISK_BYTES / 512 - AT_DATA);
    put_be32(rig->disk.bytes + AT_REFCOUNT_ORDER, 6);
    rig_set_l2(rig, 0, far_off | UINT64_C(1) << 63);
    assert_int_equal(rig_open(rig), QC_OK);
    rig_keep(rig);
    rig_expect_damage(rig, qc_discard(&rig->image, 0, 512), QC_CORRUPT,
                      "COPIED flag wrong at guest 0x0", RIG_UNMARKED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(each_row_is_refused_and_its_neighbour_opens),
        RIG_TEST(each_unknown_bit_is_refused),
        RIG_TEST(marks_and_blocks_that_take_no_writes),
        RIG_TEST(cve_2014_0145_snapshot_l1_larger),
        RIG_TEST(cve_2014_0146_error_path),
        RIG_TEST(cve_2014_0147_cluster_beyond_all_refblocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
