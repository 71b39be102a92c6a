/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Files found on FAT volumes that are built here byte by byte: every width, every field made wrong,
 * chains that loop, lead away, or are too short or long, and what changes later. Names are
 * test_fat_names.c's, volumes that other tools made tests/host/test_fat.py's.
 */
#include "opened_volume.h"

#define RUNS 16u

static struct qc_run runs[RUNS];

/* The numbers of clusters at which the width changes. */
static const struct {
    uint32_t clusters_count, width;
} edges[] = {{1, 12}, {4084, 12}, {4085, 16}, {65524, 16}, {65525, 32}};

/* A volume with one file whose chain the list has. */
static void start_file(uint32_t clusters_count, const uint32_t *clusters, uint32_t size_bytes)
{
    start(clusters_count);
    volume_entry(&volume, &entry_off, FILE_NAME, 0x20, clusters[0], size_bytes);
    volume_chain(&volume, clusters);
    assert_int_equal(open_volume(), QC_OK);
    assert_int_equal(find(PATH), QC_OK);
}

static qc_status place(size_t max, size_t *ret_count)
{
    return qc_fat_extents(&fat, &file, runs, max, ret_count);
}

/* ---- the volume -------------------------------------------------------------------------- */

static void the_count_of_clusters_makes_the_width(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof(edges) / sizeof(edges[0]); i++) {
        start(edges[i].clusters_count);
        assert_int_equal(open_volume(), QC_OK);
        assert_int_equal(fat.width, edges[i].width);
        assert_int_equal(fat.clusters_count, edges[i].clusters_count);
        assert_int_equal(fat.root_off, volume.root_off);
        assert_int_equal(fat.data_off, volume.data_off);
    }
}

static void large_sectors_and_clusters(void **state)
{
    (void)state;
    volume_init(&volume, VOLUME_BYTES_MAX);
    volume.sector_bytes = 4096;
    volume.sectors_a_cluster = 16;
    volume.root_entries_count = 100; /* of a sector, 3,200 bytes */
    volume_format(&volume, 300);
    assert_int_equal(open_volume(), QC_OK);
    assert_int_equal(fat.cluster_bytes, 65536);
    assert_int_equal(fat.root_bytes, 3200);
    assert_int_equal(fat.data_off, fat.root_off + 4096);
    volume.disk.block_bytes = 4096;
    assert_int_equal(open_volume(), QC_OK);
}

static void small_sectors_on_large_blocks(void **state)
{
    (void)state;
    start(100);
    volume.disk.block_bytes = 4096;
    assert_int_equal(open_volume(), QC_UNSUPPORTED);
}

/* One field each; a volume of the width named that is right but for it. */
static const struct {
    unsigned width, place, bytes, value;
} wrong_fields[] = {
    {12, 510, 1, 0},         {12, 511, 1, 0},     {12, 11, 2, 0},      {12, 11, 2, 256},
    {12, 11, 2, 768},        {12, 11, 2, 8192},   {12, 13, 1, 0},      {12, 13, 1, 3},
    {12, 14, 2, 0},          {12, 16, 1, 0},      {12, 21, 1, 0xF7},   {12, 17, 2, 0},
    {12, 19, 2, 0},          {12, 19, 2, 40},     {12, 19, 2, 0xFFFF}, {12, 22, 2, 0},
    {12, 22, 2, 8},          {12, 22, 2, 0xFFFF}, {12, 14, 2, 0xFFFF}, {16, 22, 2, 19},
    {16, 22, 2, 0},          {16, 17, 2, 0},      {32, 36, 4, 0},      {32, 36, 4, 512},
    {32, 36, 4, 0xFFFFFFFF}, {32, 17, 2, 16},     {32, 40, 1, 0x80},   {32, 42, 2, 1},
    {32, 44, 4, 0},          {32, 44, 4, 1},      {32, 44, 4, 65602},  {32, 32, 4, 0},
    {32, 32, 4, 0xFFFFFFFF}, {32, 32, 4, 60000},  {32, 19, 2, 2000},   {12, 16, 1, 3},
    {32, 13, 1, 2},
};

static void a_wrong_field_is_no_volume(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof(wrong_fields) / sizeof(wrong_fields[0]); i++) {
        unsigned width = wrong_fields[i].width;
        uint8_t value[4];

        start(sizes[width == 12 ? 0 : width == 16 ? 1 : 2]);
        volume.disk.size_bytes = VOLUME_BYTES_MAX; /* no field is wrong for lack of room */
        assert_int_equal(open_volume(), QC_OK);
        put_le32(value, wrong_fields[i].value);
        memcpy(volume.bytes + wrong_fields[i].place, value, wrong_fields[i].bytes);
        if (open_volume() != QC_FOREIGN)
            fail_msg("field %u of FAT%u as %#x", wrong_fields[i].place, width,
                     wrong_fields[i].value);
    }
}

static void a_disk_too_small(void **state)
{
    (void)state;
    start(3000);
    volume.disk.size_bytes--;
    assert_int_equal(open_volume(), QC_FOREIGN);
    volume.disk.size_bytes = 511;
    assert_int_equal(open_volume(), QC_FOREIGN);
    volume_init(&volume, 512);
    assert_int_equal(open_volume(), QC_FOREIGN);
    start(0);
    assert_int_equal(open_volume(), QC_FOREIGN);
}

static void tables_too_short(void **state)
{
    (void)state;
    volume_init(&volume, VOLUME_BYTES_MAX);
    volume.table_sectors = 20; /* 5,120 entries, the first two for no cluster */
    volume_format(&volume, 5118);
    assert_int_equal(open_volume(), QC_OK);
    volume_format(&volume, 5119);
    assert_int_equal(open_volume(), QC_FOREIGN);
}

/* As many as numbers of 28 bits allow; only the first sector of the volume is there. */
static void too_many_clusters(void **state)
{
    uint32_t overhead;

    (void)state;
    start(65600);
    put_le32(volume.bytes + 36, 0x02000000);
    overhead = 32 + 2 * 0x02000000u;
    volume.disk.size_bytes = UINT64_C(1) << 42;
    put_le32(volume.bytes + 32, overhead + 0x0FFFFFF4);
    assert_int_equal(open_volume(), QC_OK);
    assert_int_equal(fat.clusters_count, 0x0FFFFFF4);
    put_le32(volume.bytes + 32, overhead + 0x0FFFFFF5);
    assert_int_equal(open_volume(), QC_FOREIGN);
    put_le32(volume.bytes + 32, UINT32_MAX);
    assert_int_equal(open_volume(), QC_FOREIGN);
}

/* ---- chains ------------------------------------------------------------------------------ */

static void clusters_that_touch_are_one_run(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        uint32_t last = sizes[i] + 1;
        const uint32_t chain[] = {last, 5, 6, 7, 9, 4, last - 2, last - 1, 0};
        static const uint32_t at[] = {0, 1, 4, 5, 6};
        size_t count;

        start_file(sizes[i], chain, 7 * CLUSTER + 1);
        assert_int_equal(place(RUNS, &count), QC_OK);
        assert_int_equal(count, 5);
        for (unsigned j = 0; j < count; j++) {
            assert_int_equal(runs[j].file_off, at[j] * CLUSTER);
            assert_int_equal(runs[j].host_off, volume_cluster_off(&volume, chain[at[j]]));
        }
        assert_int_equal(place(5, &count), QC_OK);
        assert_int_equal(place(4, &count), QC_UNSUPPORTED);
        assert_int_equal(qc_fat_verify(&fat, &file, runs, 4), QC_REFUSED);
    }
}

static void sizes_and_chains_agree(void **state)
{
    static const uint32_t chain[] = {5, 6, 7, 0};
    size_t count;

    (void)state;
    for (uint32_t size = 1; size <= 5 * CLUSTER; size += size % CLUSTER > 1 ? CLUSTER - 2 : 1) {
        start_file(3000, chain, size);
        assert_int_equal(place(RUNS, &count),
                         size > 2 * CLUSTER && size <= 3 * CLUSTER ? QC_OK : QC_CORRUPT);
    }
    start_file(3000, chain, 0);
    assert_int_equal(place(RUNS, &count), QC_CORRUPT);
    start_file(3000, chain, UINT32_MAX);
    assert_int_equal(place(RUNS, &count), QC_CORRUPT);
    start_file(3000, chain + 3, 0);
    assert_int_equal(place(RUNS, &count), QC_OK);
    assert_int_equal(count, 0);
}

/* What may stand in the table behind the second of three clusters. */
static void broken_chains(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        uint32_t bad = i == 0 ? 0xFF7 : i == 1 ? 0xFFF7 : 0x0FFFFFF7;
        const uint32_t nexts[] = {0, 1, bad, sizes[i] + 2, 5, 6, bad - 1, bad + 1, bad + 8, 7};
        unsigned nexts_count = sizeof(nexts) / sizeof(nexts[0]);

        for (unsigned j = 0; j < nexts_count; j++) {
            size_t count = 0;

            start_file(sizes[i], (const uint32_t[]){5, 6, 7, 0}, 3 * CLUSTER);
            volume_link(&volume, 6, nexts[j]);
            assert_int_equal(place(RUNS, &count), j < nexts_count - 1 ? QC_CORRUPT : QC_OK);
        }
        for (unsigned j = 0; j < 4; j++) { /* the file begins nowhere */
            static const uint32_t none[] = {1, 1};
            size_t count;

            start_file(sizes[i], (const uint32_t[]){5, 0}, 1);
            file.cluster = j == 0 ? 0 : j == 1 ? none[0] : j == 2 ? sizes[i] + 2 : UINT32_MAX;
            assert_int_equal(place(RUNS, &count), QC_CORRUPT);
        }
    }
}

/* The eight values that close a chain. */
static void chain_ends(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        for (uint32_t end = 0xFFFFFF8; end <= 0xFFFFFFF; end++) {
            size_t count;

            start_file(sizes[i], (const uint32_t[]){5, 6, 0}, 2 * CLUSTER);
            volume_link(&volume, 6, end & (i == 0 ? 0xFFF : i == 1 ? 0xFFFF : UINT32_MAX));
            assert_int_equal(place(RUNS, &count), QC_OK);
        }
    }
}

/* Another file's chain runs into this one's: that is its affair; the other way it is refused. */
static void crossed_chains(void **state)
{
    size_t count;

    (void)state;
    start_file(3000, (const uint32_t[]){5, 6, 7, 0}, 3 * CLUSTER);
    volume_link(&volume, 6, 20);
    volume_chain(&volume, (const uint32_t[]){20, 21, 22, 0});
    assert_int_equal(place(RUNS, &count), QC_CORRUPT);
}

/* ---- later ------------------------------------------------------------------------------- */

static void what_changed_is_seen(void **state)
{
    static const struct {
        unsigned place; /* in the entry; 32: in the table */
        qc_status entry, all;
    } cases[] = {{0, QC_REFUSED, QC_REFUSED},  {10, QC_REFUSED, QC_REFUSED},
                 {18, QC_OK, QC_OK}, /* it was only read */
                 {20, QC_REFUSED, QC_REFUSED}, {22, QC_REFUSED, QC_REFUSED},
                 {24, QC_REFUSED, QC_REFUSED}, {26, QC_REFUSED, QC_REFUSED},
                 {28, QC_REFUSED, QC_REFUSED}, {31, QC_REFUSED, QC_REFUSED},
                 {32, QC_OK, QC_REFUSED}};

    (void)state;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t count;

        start_file(65600, (const uint32_t[]){5, 9, 7, 0}, 3 * CLUSTER);
        assert_int_equal(place(RUNS, &count), QC_OK);
        assert_int_equal(qc_fat_verify_entry(&fat, &file), QC_OK);
        assert_int_equal(qc_fat_verify(&fat, &file, runs, count), QC_OK);
        if (cases[i].place == 32)
            volume_chain(&volume, (const uint32_t[]){5, 9, 8, 0});
        else
            volume.bytes[file.entry_off + cases[i].place] ^= 1;
        assert_int_equal(qc_fat_verify_entry(&fat, &file), cases[i].entry);
        assert_int_equal(qc_fat_verify(&fat, &file, runs, count), cases[i].all);
    }
}

static void other_changes_are_seen(void **state)
{
    size_t count;

    (void)state;
    start_file(3000, (const uint32_t[]){5, 6, 9, 0}, 3 * CLUSTER);
    assert_int_equal(place(RUNS, &count), QC_OK);
    volume.bytes[file.entry_off + 11] |= 1; /* made read-only: no harm */
    assert_int_equal(qc_fat_verify(&fat, &file, runs, count), QC_OK);
    volume.bytes[file.entry_off + 11] = DIRECTORY;
    assert_int_equal(qc_fat_verify_entry(&fat, &file), QC_REFUSED);
    volume.bytes[file.entry_off + 11] = 0x20;
    assert_int_equal(qc_fat_verify(&fat, &file, runs, count), QC_OK);
    volume_chain(&volume, (const uint32_t[]){5, 6, 7, 0}); /* one run less */
    assert_int_equal(qc_fat_verify(&fat, &file, runs, count), QC_REFUSED);
    volume_chain(&volume, (const uint32_t[]){5, 6, 0});
    assert_int_equal(qc_fat_verify(&fat, &file, runs, count), QC_REFUSED);
    start_file(3000, (const uint32_t[]){5, 6, 9, 10, 0}, 4 * CLUSTER);
    assert_int_equal(place(RUNS, &count), QC_OK);
    volume_chain(&volume, (const uint32_t[]){5, 9, 10, 11, 0}); /* runs of other lengths */
    assert_int_equal(qc_fat_verify(&fat, &file, runs, count), QC_REFUSED);
    volume_chain(&volume, (const uint32_t[]){5, 0}); /* removed as some do: the entry stays */
    volume_link(&volume, 5, 0);
    assert_int_equal(qc_fat_verify(&fat, &file, runs, count), QC_REFUSED);
}

static void nothing_is_remembered(void **state)
{
    size_t count;

    (void)state;
    start_file(3000, (const uint32_t[]){5, 6, 0}, 2 * CLUSTER);
    assert_int_equal(place(RUNS, &count), QC_OK);
    volume_link(&volume, 6, 7);
    assert_int_equal(place(RUNS, &count), QC_CORRUPT);
    assert_int_equal(find(PATH), QC_OK);
    volume.bytes[file.entry_off] = 'X';
    assert_int_equal(find(PATH), QC_RANGE);
}

/* Pages of 64 KiB, of 8 KiB on FAT12; the root of FAT16 is in the first one. */
static void pages(void **state)
{
    static const struct {
        uint32_t clusters_count, first, last, size_clusters;
        bool owns;
    } cases[] = {
        {65600, 2, 129, 128, true},
        {65600, 130, 385, 256, true},
        {65600, 3, 130, 128, false},
        {65600, 130, 256, 127, false},
        {65600, 130, 258, 129, false},
        {65600, 65538, 65601, 64, true}, /* the last page ends with the volume */
        {5000, 98, 225, 128, true},
        {5000, 2, 97, 96, false},
        {5000, 98, 193, 96, false},
        {3000, 2, 17, 16, true},
        {3000, 18, 49, 32, true},
        {3000, 10, 25, 16, false},
    };
    static uint32_t chain[400];

    (void)state;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint32_t clusters = cases[i].size_clusters;
        size_t count;

        for (uint32_t j = 0; j < clusters; j++)
            chain[j] = cases[i].first + j;
        chain[clusters] = 0;
        start_file(cases[i].clusters_count, chain, clusters * CLUSTER - 100);
        assert_int_equal(place(RUNS, &count), QC_OK);
        assert_int_equal(count, 1);
        if (qc_fat_owns_pages(&fat, &file, runs, count) != cases[i].owns)
            fail_msg("case %u", i);
    }
    for (uint32_t i = 0; i < 32; i++) /* runs that are whole pages, and not */
        chain[i] = (i < 16 ? 50 : 2) + i % 16;
    for (unsigned step = 0; step < 2; step++) {
        size_t count;

        chain[31] += step;
        chain[32] = 0;
        start_file(3000, chain, 32 * CLUSTER);
        assert_int_equal(place(RUNS, &count), QC_OK);
        assert_int_equal(qc_fat_owns_pages(&fat, &file, runs, count), step == 0);
    }
}

/* ---- trouble ----------------------------------------------------------------------------- */

static void a_failing_disk(void **state)
{
    static const uint32_t far[] = {5, 65000, 30000, 0};
    unsigned reads;

    (void)state;
    start_file(65600, far, 3 * CLUSTER);
    for (reads = 1; reads < 20; reads++) {
        size_t count;
        qc_status status;

        volume.reads_count = 0;
        volume.fail_at = reads;
        status = open_volume();
        if (status == QC_OK)
            status = find(PATH);
        if (status == QC_OK)
            status = place(RUNS, &count);
        if (status == QC_OK)
            status = qc_fat_verify(&fat, &file, runs, count);
        if (status == QC_OK)
            break;
        assert_int_equal(status, QC_IO);
    }
    assert_int_equal(reads, 10); /* the boot sector, the root, the table thrice, and those again */
}

static void the_volume_is_not_written(void **state)
{
    size_t count;

    (void)state;
    start_file(3000, (const uint32_t[]){5, 6, 7, 0}, 3 * CLUSTER);
    volume.disk.readonly = true;
    assert_int_equal(open_volume(), QC_OK);
    assert_int_equal(find(PATH), QC_OK);
    assert_int_equal(place(RUNS, &count), QC_OK);
    assert_int_equal(qc_fat_verify(&fat, &file, runs, count), QC_OK);
    assert_int_equal(volume.writes_count + volume.flushes_count, 0);
}

/* Random damage: the disk asserts that no read leaves it, and what is taken lies on the volume. */
static void random_damage(void **state)
{
    static const uint32_t chain[] = {5, 6, 900, 901, 40, 0};
    static uint8_t right[64 * 1024]; /* all but the clusters */
    uint32_t seed = 7, taken_count = 0;

    (void)state;
    start_file(1000, chain, 5 * CLUSTER - 3);
    memcpy(right, volume.bytes, sizeof(right));
    for (unsigned i = 0; i < 100000; i++) {
        size_t count;

        if (i % 3 == 0)
            memcpy(volume.bytes, right, sizeof(right));
        for (unsigned j = 0; j < 3; j++) {
            uint64_t from = j == 0 ? 11 : j == 1 ? 512 : volume.root_off;

            seed = seed * 1664525 + 1013904223;
            if (seed >> 30 == j)
                volume.bytes[from + (seed >> 8) % 40] = (uint8_t)(seed >> 16);
        }
        if (open_volume() != QC_OK || find(i % 2 ? "file.bin" : "file.bin/x") != QC_OK ||
            place(RUNS, &count) != QC_OK)
            continue;
        taken_count++;
        for (size_t j = 0; j < count; j++) {
            assert_in_range(runs[j].host_off, fat.data_off, volume.disk.size_bytes - 1);
            assert_true(runs[j].file_off < file.size_bytes);
        }
    }
    assert_in_range(taken_count, 10000, 90000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_count_of_clusters_makes_the_width),
        cmocka_unit_test(large_sectors_and_clusters),
        cmocka_unit_test(small_sectors_on_large_blocks),
        cmocka_unit_test(a_wrong_field_is_no_volume),
        cmocka_unit_test(a_disk_too_small),
        cmocka_unit_test(tables_too_short),
        cmocka_unit_test(too_many_clusters),
        cmocka_unit_test(chain_ends),
        cmocka_unit_test(clusters_that_touch_are_one_run),
        cmocka_unit_test(sizes_and_chains_agree),
        cmocka_unit_test(broken_chains),
        cmocka_unit_test(crossed_chains),
        cmocka_unit_test(what_changed_is_seen),
        cmocka_unit_test(other_changes_are_seen),
        cmocka_unit_test(nothing_is_remembered),
        cmocka_unit_test(pages),
        cmocka_unit_test(a_failing_disk),
        cmocka_unit_test(the_volume_is_not_written),
        cmocka_unit_test(random_damage),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
