/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The disk in memory and the image builder; see support.h for what they promise. Everything here
 * checks the engine's own promises to a disk too: no empty request, none past the end.
 */
#include "support.h"

#include "../../core/bytes.h"
#include "../../core/seeded.h"

#define COPIED          (UINT64_C(1) << 63)
#define V3_HEADER_BYTES 112u

#define FEATURES_OFF      72u
#define FEATURES_LOW_BYTE 79u /* of the incompatible ones, which are big endian */
#define DATA_FILE_MAGIC   0x44415441u
#define DATA_FILE_NAME    "data"

static qc_status mem_read(struct qc_disk *disk, uint64_t host_off, void *buf, size_t len)
{
    struct mem_disk *mem = (struct mem_disk *)disk;

    assert_true(len > 0);
    assert_true(host_off <= disk->size_bytes && len <= disk->size_bytes - host_off);
    mem->reads_count++;
    mem->read_off_last = host_off;
    mem->read_len_last = len;
    if (mem->reads_count == mem->fail_at) {
        memset(buf, 0xee, len); /* a failed read may leave anything behind */
        return QC_IO;
    }
    memcpy(buf, mem->bytes + host_off, len);
    return QC_OK;
}

static qc_status mem_write(struct qc_disk *disk, uint64_t host_off, const void *buf, size_t len)
{
    struct mem_disk *mem = (struct mem_disk *)disk;

    assert_false(disk->readonly);
    assert_true(len > 0);
    assert_true(host_off <= disk->size_bytes && len <= disk->size_bytes - host_off);
    mem->writes_count++;
    mem->write_off_last = host_off;
    mem->write_bytes += len;
    if (mem->writes_count == mem->fail_write_at)
        len /= 2; /* a failed write may land in part */
    memcpy(mem->bytes + host_off, buf, len);
    return mem->writes_count == mem->fail_write_at ? QC_IO : QC_OK;
}

static qc_status mem_flush(struct qc_disk *disk)
{
    struct mem_disk *mem = (struct mem_disk *)disk;

    assert_false(disk->readonly);
    mem->flushes_count++;
    return mem->flushes_count == mem->fail_flush_at ? QC_IO : QC_OK;
}

static qc_status mem_grow(struct qc_disk *disk, uint64_t size_bytes)
{
    struct mem_disk *mem = (struct mem_disk *)disk;

    assert_false(disk->readonly);
    assert_true(size_bytes > disk->size_bytes);
    if (size_bytes > MEM_DISK_BYTES || mem->is_full)
        return QC_NOSPACE;
    memset(mem->bytes + disk->size_bytes, 0, size_bytes - disk->size_bytes);
    disk->size_bytes = size_bytes;
    return QC_OK;
}

static void mem_trim(struct qc_disk *disk, uint64_t host_off, uint64_t len)
{
    struct mem_disk *mem = (struct mem_disk *)disk;

    assert_false(disk->readonly);
    assert_true(host_off <= disk->size_bytes && len <= disk->size_bytes - host_off);
    mem->trims_count++;
    memset(mem->bytes + host_off, 0xee, len);
}

static const struct qc_disk_ops mem_ops = {mem_read, mem_write, mem_flush, mem_grow, mem_trim};
static const struct qc_disk_ops fixed_ops = {mem_read, mem_write, mem_flush, NULL, NULL};

void rig_fix_size(struct rig *rig, uint64_t size_bytes)
{
    rig->disk.disk.ops = &fixed_ops;
    rig->disk.disk.size_bytes = size_bytes;
}

void put_be32(uint8_t *bytes, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        bytes[i] = (uint8_t)(value >> (24 - 8 * i));
}

void put_be64(uint8_t *bytes, uint64_t value)
{
    put_be32(bytes, (uint32_t)(value >> 32));
    put_be32(bytes + 4, (uint32_t)value);
}

uint8_t pattern_at(uint64_t host_off)
{
    return (uint8_t)(host_off * 7 + (host_off >> 9) * 13 + (host_off >> 16) * 31 + 1);
}

static uint64_t cluster_bytes_of(const struct mem_disk *mem)
{
    return UINT64_C(1) << mem->bytes[23];
}

void image_build(struct mem_disk *mem, uint32_t version, unsigned cluster_bits,
                 uint64_t guest_bytes, unsigned data_clusters)
{
    uint64_t cluster = UINT64_C(1) << cluster_bits;
    uint8_t *bytes = mem->bytes;
    uint64_t reach = cluster * (cluster / 8);

    memset(bytes, 0, cluster * AT_DATA);
    mem->disk.ops = &mem_ops;
    mem->disk.block_bytes = 512;
    mem->disk.size_bytes = cluster * (AT_DATA + data_clusters);
    assert_true(mem->disk.size_bytes <= MEM_DISK_BYTES);
    for (uint64_t off = cluster * AT_DATA; off < mem->disk.size_bytes; off++)
        bytes[off] = pattern_at(off);

    memcpy(bytes, "QFI\xfb", 4);
    put_be32(bytes + 4, version);
    put_be32(bytes + 20, cluster_bits);
    put_be64(bytes + 24, guest_bytes);
    put_be32(bytes + 36, (uint32_t)((guest_bytes + reach - 1) / reach));
    put_be64(bytes + 40, cluster * AT_L1);
    put_be64(bytes + 48, cluster * AT_REFTABLE);
    put_be32(bytes + 56, 1);
    if (version >= 3) {
        put_be32(bytes + 96, 4);
        put_be32(bytes + 100, V3_HEADER_BYTES);
    }
    put_be64(bytes + cluster * AT_REFTABLE, cluster * AT_REFBLOCK);
    for (unsigned i = 0; i < AT_DATA + data_clusters && i < cluster / 2; i++)
        bytes[cluster * AT_REFBLOCK + 2 * i + 1] = 1; /* 16-bit counts */
    put_be64(bytes + cluster * AT_L1, cluster * AT_L2 | COPIED);
}

void image_set_l2(struct mem_disk *mem, uint64_t entry_index, uint64_t entry)
{
    put_be64(mem->bytes + cluster_bytes_of(mem) * AT_L2 + entry_index * 8, entry);
}

uint64_t image_l2(const struct mem_disk *mem, uint64_t entry_index)
{
    return qc_be64(mem->bytes + cluster_bytes_of(mem) * AT_L2 + entry_index * 8);
}

static size_t count_at(const struct mem_disk *mem, uint64_t host_off)
{
    return cluster_bytes_of(mem) * AT_REFBLOCK + host_off / cluster_bytes_of(mem) * 2;
}

unsigned image_count(const struct mem_disk *mem, uint64_t host_off)
{
    const uint8_t *bytes = mem->bytes + count_at(mem, host_off);

    return bytes[0] << 8 | bytes[1];
}

void image_set_count(struct mem_disk *mem, uint64_t host_off, unsigned count)
{
    mem->bytes[count_at(mem, host_off)] = (uint8_t)(count >> 8);
    mem->bytes[count_at(mem, host_off) + 1] = (uint8_t)count;
}

/* One header extension, the end of extensions, and the name behind it. */
void image_set_below(struct mem_disk *mem, const char *name, const char *format)
{
    uint32_t version = mem->bytes[7];
    uint8_t *extension = mem->bytes + (version >= 3 ? V3_HEADER_BYTES : QC_HEADER_V2_BYTES);
    uint8_t *end = extension;

    if (format[0] != '\0') {
        put_be32(extension, 0xe2792acau);
        put_be32(extension + 4, (uint32_t)strlen(format));
        memcpy(extension + 8, format, strlen(format));
        end = extension + 8 + (strlen(format) + 7) / 8 * 8;
    }
    memset(end, 0, 8);
    memcpy(end + 8, name, strlen(name));
    put_be64(mem->bytes + 8, (uint64_t)(end + 8 - mem->bytes));
    put_be32(mem->bytes + 16, (uint32_t)strlen(name));
}

static qc_status find_layer(struct qc_bases *bases, struct qc_base *base)
{
    struct mem_layers *layers = (struct mem_layers *)bases;
    unsigned i = base->depth;

    assert_in_range(i, 1, QC_LAYERS_MAX - 1);
    layers->asked_count++;
    layers->asked_formats[i] = base->format;
    snprintf(layers->names[i], sizeof(layers->names[i]), "%s", base->name);
    if (layers->answers[i] != QC_OK)
        return qc_fail(&base->detail, layers->answers[i], "not here");
    if (layers->formats[i] != QC_FORMAT_NONE)
        base->format = layers->formats[i];
    base->disk = &layers->disks[i]->disk;
    return QC_OK;
}

void layers_init(struct mem_layers *layers)
{
    memset(layers, 0, sizeof(*layers));
    layers->bases.find = find_layer;
}

void rig_build(struct rig *rig, uint32_t version, unsigned cluster_bits, uint64_t guest_bytes,
               unsigned data_clusters)
{
    memset(rig, 0, sizeof(*rig));
    rig->cluster_bytes = UINT64_C(1) << cluster_bits;
    image_build(&rig->disk, version, cluster_bits, guest_bytes, data_clusters);
}

void rig_set_l2(struct rig *rig, uint64_t entry_index, uint64_t entry)
{
    image_set_l2(&rig->disk, entry_index, entry);
}

void rig_map(struct rig *rig, unsigned clusters_count)
{
    for (unsigned i = 0; i < clusters_count; i++)
        rig_set_l2(rig, i, rig_data_off(rig, i) | COPIED);
}

static qc_status find_data(struct qc_bases *bases, struct qc_base *base)
{
    base->disk = ((struct mem_data *)bases)->disk;
    return QC_OK;
}

void rig_set_data_file(struct rig *rig, struct mem_disk *data, uint64_t size_bytes)
{
    uint8_t *extension = rig->disk.bytes + V3_HEADER_BYTES;

    put_be64(rig->disk.bytes + FEATURES_OFF, QC_INCOMPATIBLE_DATA_FILE);
    put_be32(extension, DATA_FILE_MAGIC);
    put_be32(extension + 4, sizeof(DATA_FILE_NAME) - 1);
    memcpy(extension + 8, DATA_FILE_NAME, sizeof(DATA_FILE_NAME) - 1);
    memset(data, 0, sizeof(*data));
    data->disk = (struct qc_disk){.ops = &mem_ops, .block_bytes = 512, .size_bytes = size_bytes};
    for (uint64_t off = 0; off < size_bytes; off++)
        data->bytes[off] = pattern_at(off);
    rig->data = (struct mem_data){{find_data}, &data->disk};
    rig->options.bases = &rig->data.bases;
}

uint64_t rig_data_off(const struct rig *rig, unsigned data_cluster)
{
    return rig->cluster_bytes * (AT_DATA + data_cluster);
}

qc_status rig_open(struct rig *rig)
{
    qc_cache_init(&rig->cache, rig->pool, sizeof(rig->pool));
    return qc_open(&rig->image, &rig->cache, &rig->disk.disk, &rig->options);
}

void rig_open_ok(struct rig *rig)
{
    assert_int_equal(rig_open(rig), QC_OK);
    assert_string_equal(qc_detail(&rig->image), "");
    assert_string_equal(qc_readonly_reason(&rig->image), "");
}

static qc_status believe(struct qc_image *image)
{
    (void)image;
    return QC_OK;
}

void rig_believe(struct rig *rig)
{
    rig->image.verify = believe;
}

void rig_shrink(struct rig *rig, unsigned pages_count)
{
    rig->cache.pages_count = pages_count;
    rig->cache.lend_pages_max = 1;
    rig->image.epoch.records_max = QC_RECORDS_PER_PAGE;
    qc_cache_reset(&rig->cache);
}

static uint8_t kept[MEM_DISK_BYTES];
static unsigned kept_flushes, refusals_count;

static void say_refusals(void)
{
    printf("# refusal cases %u\n", refusals_count);
}

static void count_refusal(void)
{
    if (refusals_count++ == 0)
        assert_int_equal(atexit(say_refusals), 0);
}

void rig_keep(const struct rig *rig)
{
    memcpy(kept, rig->disk.bytes, sizeof(kept));
    kept_flushes = rig->disk.flushes_count;
}

void rig_expect(struct rig *rig, qc_status status, const char *detail)
{
    struct mem_disk *mem = &rig->disk;
    unsigned changes = mem->writes_count + mem->flushes_count + mem->trims_count;
    uint64_t size_bytes = mem->disk.size_bytes;

    rig_keep(rig);
    mem->reads_count = 0;
    assert_int_equal(rig_open(rig), status);
    assert_string_equal(qc_detail(&rig->image), detail);
    assert_in_range(mem->reads_count, 0, OPEN_READS_MAX);
    assert_int_equal(mem->writes_count + mem->flushes_count + mem->trims_count, changes);
    assert_true(mem->disk.size_bytes == size_bytes);
    assert_memory_equal(mem->bytes, kept, sizeof(kept));
    if (status != QC_OK)
        count_refusal();
}

void rig_expect_readonly(struct rig *rig, const char *reason)
{
    rig_expect(rig, QC_OK, "");
    assert_string_equal(qc_readonly_reason(&rig->image), reason);
    rig_expect_damage(rig, qc_zero(&rig->image, 0, QC_SECTOR_BYTES, false), QC_READONLY, reason,
                      RIG_UNMARKED);
}

void rig_expect_damage(struct rig *rig, qc_status answer, qc_status status, const char *detail,
                       enum rig_mark mark)
{
    assert_int_equal(answer, status);
    assert_string_equal(qc_detail(&rig->image), detail);
    if (status == QC_CORRUPT) {
        assert_string_equal(qc_readonly_reason(&rig->image), detail);
        assert_int_equal(qc_zero(&rig->image, 0, QC_SECTOR_BYTES, false), QC_READONLY);
        assert_string_equal(qc_detail(&rig->image), detail);
    }
    if (mark == RIG_MARKED)
        assert_true(rig->disk.flushes_count > kept_flushes);
    assert_int_equal(qc_settle(&rig->image), QC_OK);
    if (mark == RIG_MARKED)
        kept[FEATURES_LOW_BYTE] |= QC_INCOMPATIBLE_CORRUPT;
    assert_memory_equal(rig->disk.bytes, kept, sizeof(kept));
    count_refusal();
}

#if defined(QC_SEEDS_AT_RUN_TIME)
enum qc_seed_number qc_seed;

/* Builds in the named bug that the environment asks for; one that is none fails every test. */
static void choose_seed(void)
{
    static const char *const names[] = {"none",
#define NAME(name, what) #name,
                                        QC_SEEDS(NAME)
#undef NAME
    };
    const char *wanted = getenv("QC_UNIT_SEED");
    unsigned i = 0;

    while (wanted != NULL && strcmp(names[i], wanted) != 0)
        assert_in_range(++i, 1, sizeof(names) / sizeof(names[0]) - 1);
    qc_seed = (enum qc_seed_number)i;
}
#else
static void choose_seed(void)
{
}
#endif

int rig_setup(void **state)
{
    choose_seed();
    *state = aligned_alloc(QC_PAGE_BYTES,
                           (sizeof(struct rig) + QC_PAGE_BYTES - 1) & ~(size_t)(QC_PAGE_BYTES - 1));
    if (*state == NULL)
        return -1;
    memset(*state, 0, sizeof(struct rig));
    return 0;
}

int rig_teardown(void **state)
{
    free(*state);
    return 0;
}
