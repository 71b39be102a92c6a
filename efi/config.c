/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The parser of the configuration file: lines, keys, values (config.h tells the language); what is
 * looked up in its outcome is in config_find.c.
 *
 * No byte is copied but a name's, an image's or a snapshot's; a value is a stretch of the text.
 * What a key does with its value is one function each, which returns the reason why it cannot, or
 * NULL.
 */
#include "config.h"

struct span {
    const char *bytes;
    size_t len;
};

enum key_place { PLACE_ANYWHERE, PLACE_ENTRY, PLACE_START };

struct parser {
    struct config *config;
    struct config_entry *entry; /* that the next keys belong to, NULL: to none */
    bool is_skipping;           /* they belong to an entry that was refused, and told so */
    uint32_t given;             /* keys that belong to no entry */
    unsigned line;              /* from 1 */
    struct span default_name;   /* of no bytes: there is none */
    unsigned default_line;
};

struct key {
    const char *name;
    enum key_place place;
    const char *(*take)(struct config_entry *entry, struct span value);
    const char *(*set)(struct parser *parser, struct span value); /* PLACE_ANYWHERE */
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static bool is_text(struct span span, const char *text)
{
    size_t i = 0;

    while (i < span.len && text[i] != '\0' && span.bytes[i] == text[i])
        i++;
    return i == span.len && text[i] == '\0';
}

static struct span trim(struct span span)
{
    while (span.len > 0 && is_blank(span.bytes[0])) {
        span.bytes++;
        span.len--;
    }
    while (span.len > 0 && is_blank(span.bytes[span.len - 1]))
        span.len--;
    return span;
}

/* The first word; *rest is what follows it, trimmed. */
static struct span first_word(struct span span, struct span *rest)
{
    struct span word = {span.bytes, 0};

    while (word.len < span.len && !is_blank(span.bytes[word.len]))
        word.len++;
    *rest = trim((struct span){span.bytes + word.len, span.len - word.len});
    return word;
}

/* ---- values ------------------------------------------------------------------------------- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The text form has the first three fields as numbers, the bytes have them little-endian. */
static bool parse_guid(struct span text, struct config_guid *ret_guid)
{
    static const uint8_t place[16] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
    struct config_guid guid;
    size_t off = 0;

    if (text.len != 36)
        return false;
    for (unsigned i = 0; i < sizeof(place); i++) {
        int high, low;

        if ((i == 4 || i == 6 || i == 8 || i == 10) && text.bytes[off++] != '-')
            return false;
        high = hex_digit(text.bytes[off++]);
        low = hex_digit(text.bytes[off++]);
        if (high < 0 || low < 0)
            return false;
        guid.bytes[place[i]] = (uint8_t)(high << 4 | low);
    }
    *ret_guid = guid;
    return true;
}

/* At most max; false without a digit at the start. *ret_rest is what stands behind the digits. */
static bool parse_number(struct span text, uint64_t max, uint64_t *ret_value, struct span *ret_rest)
{
    uint64_t value = 0;
    size_t i = 0;

    for (; i < text.len && text.bytes[i] >= '0' && text.bytes[i] <= '9'; i++) {
        value = value * 10 + (uint64_t)(text.bytes[i] - '0');
        if (value > max)
            return false;
    }
    *ret_value = value;
    *ret_rest = (struct span){text.bytes + i, text.len - i};
    return i > 0;
}

static const char *take_yes_no(struct span value, bool *ret_is_yes)
{
    if (!is_text(value, "yes") && !is_text(value, "no"))
        return "yes or no is expected";
    *ret_is_yes = value.len == 3;
    return NULL;
}

/* ---- keys --------------------------------------------------------------------------------- */

static const char *set_timeout(struct parser *parser, struct span value)
{
    uint64_t seconds;
    struct span rest;

    if (!parse_number(value, CONFIG_SECONDS_MAX, &seconds, &rest) || rest.len > 0)
        return "a number of seconds, 0 to 3600, is expected";
    parser->config->timeout_s = (unsigned)seconds;
    return NULL;
}

static const char *check_name(struct span value)
{
    for (size_t i = 0; i < value.len; i++) {
        if (is_blank(value.bytes[i]))
            return "a name has no blanks";
    }
    return value.len > CONFIG_NAME_BYTES_MAX ? "the name is longer than 32 bytes" : NULL;
}

/* Whether there is one of this name shows at the file's end. */
static const char *set_default(struct parser *parser, struct span value)
{
    const char *reason = check_name(value);

    if (reason != NULL)
        return reason;
    parser->default_name = value;
    parser->default_line = parser->line;
    return NULL;
}

static const char *take_image(struct config_entry *entry, struct span value)
{
    const char *reason = check_name(value);

    if (reason == NULL)
        __builtin_memcpy(entry->name, value.bytes, value.len);
    return reason;
}

static const char *check_path(struct span value)
{
    if (value.bytes[0] != '\\')
        return "a path that begins with \\ is expected";
    return value.len > CONFIG_TEXT_BYTES_MAX ? "the path is longer than 255 bytes" : NULL;
}

static const char *const two_places = "file and partition exclude each other";

static const char *take_file(struct config_entry *entry, struct span value)
{
    const char *reason = check_path(value);

    if (reason == NULL && entry->has_partition)
        return two_places;
    entry->has_file = reason == NULL;
    if (entry->has_file)
        __builtin_memcpy(entry->file, value.bytes, value.len);
    return reason;
}

static const char *refuse_circle(struct config_entry *entry)
{
    const char *reason = NULL;

    if (!entry->has_partition)
        return NULL;
    if (entry->has_base && config_is_same_guid(&entry->partition, &entry->base)) {
        entry->has_base = false;
        reason = "the base is the image's own partition";
    }
    if (entry->has_data && config_is_same_guid(&entry->partition, &entry->data)) {
        entry->has_data = false;
        reason = "the data file is the image's own partition";
    }
    return reason;
}

static const char *take_partition(struct config_entry *entry, struct span value)
{
    if (entry->has_file)
        return two_places;
    if (!parse_guid(value, &entry->partition))
        return "a partition's GUID is expected";
    entry->has_partition = true;
    return refuse_circle(entry);
}

static const char *take_base(struct config_entry *entry, struct span value)
{
    struct span format;

    value = first_word(value, &format);
    if (format.len > 0 && !is_text(format, "raw") && !is_text(format, "qcow2"))
        return "the base's format is raw or qcow2";
    if (!parse_guid(value, &entry->base))
        return "a partition's GUID is expected";
    if (format.len > 0)
        entry->base_format = is_text(format, "raw") ? QC_FORMAT_RAW : QC_FORMAT_QCOW2;
    entry->has_base = true;
    return refuse_circle(entry);
}

static const char *take_data(struct config_entry *entry, struct span value)
{
    if (!parse_guid(value, &entry->data))
        return "a partition's GUID is expected";
    entry->has_data = true;
    return refuse_circle(entry);
}

static const char *take_readonly(struct config_entry *entry, struct span value)
{
    bool is_yes = false;
    const char *reason = take_yes_no(value, &is_yes);

    entry->is_readonly |= is_yes;
    return reason;
}

static const char *take_temporary(struct config_entry *entry, struct span value)
{
    const char *reason = take_yes_no(value, &entry->is_temporary);

    entry->is_readonly |= entry->is_temporary;
    return reason;
}

static const char *take_snapshot(struct config_entry *entry, struct span value)
{
    if (value.len > CONFIG_TEXT_BYTES_MAX)
        return "the snapshot's name is longer than 255 bytes";
    __builtin_memcpy(entry->snapshot, value.bytes, value.len);
    return NULL;
}

static const char *take_backing(struct config_entry *entry, struct span value)
{
    bool is_yes = true;
    const char *reason = take_yes_no(value, &is_yes);

    entry->is_backing_off = !is_yes;
    return reason;
}

static const char *take_headroom(struct config_entry *entry, struct span value)
{
    static const char *const units[] = {"", "K", "M", "G", "T"};
    uint64_t count;
    struct span unit;
    unsigned number = 0;

    /* The largest unit must not carry the product over 64 bits. */
    if (!parse_number(value, (UINT64_C(1) << 24) - 1, &count, &unit))
        number = sizeof(units) / sizeof(units[0]);
    while (number < sizeof(units) / sizeof(units[0]) && !is_text(unit, units[number]))
        number++;
    if (number == sizeof(units) / sizeof(units[0]))
        return "a size such as 2G is expected";
    entry->headroom_bytes = count << 10 * number;
    return NULL;
}

static const char *take_autosnapshot(struct config_entry *entry, struct span value)
{
    uint64_t count;
    struct span rest;

    if (!parse_number(value, CONFIG_KEPT_MAX, &count, &rest) || rest.len > 0)
        return "a number of snapshots to keep, 0 to 64, is expected";
    entry->autosnapshots_count = (unsigned)count;
    return NULL;
}

static const char *take_loader(struct config_entry *entry, struct span value)
{
    const char *reason = check_path(value);

    if (reason == NULL)
        __builtin_memcpy(entry->loader, value.bytes, value.len);
    return reason;
}

static const struct key keys[] = {
    {"timeout", PLACE_ANYWHERE, NULL, set_timeout},
    {"default", PLACE_ANYWHERE, NULL, set_default},
    {"image", PLACE_START, NULL, NULL},
    {"file", PLACE_ENTRY, take_file, NULL},
    {"partition", PLACE_ENTRY, take_partition, NULL},
    {"readonly", PLACE_ENTRY, take_readonly, NULL},
    {"snapshot", PLACE_ENTRY, take_snapshot, NULL},
    {"temporary", PLACE_ENTRY, take_temporary, NULL},
    {"headroom", PLACE_ENTRY, take_headroom, NULL},
    {"autosnapshot", PLACE_ENTRY, take_autosnapshot, NULL},
    {"backing", PLACE_ENTRY, take_backing, NULL},
    {"base", PLACE_ENTRY, take_base, NULL},
    {"data", PLACE_ENTRY, take_data, NULL},
    {"loader", PLACE_ENTRY, take_loader, NULL},
};
#define KEYS_COUNT (sizeof(keys) / sizeof(keys[0]))
_Static_assert(KEYS_COUNT <= 32, "a bit each in config_entry.given");

static unsigned find_key(struct span name)
{
    unsigned i = 0;

    while (i < KEYS_COUNT && !is_text(name, keys[i].name))
        i++;
    return i;
}

/* ---- lines -------------------------------------------------------------------------------- */

/* The entry of that name; CONFIG_ENTRIES_MAX where there is none. */
static unsigned find_entry(const struct config *config, struct span name)
{
    for (unsigned i = 0; i < config->entries_count; i++) {
        if (is_text(name, config->entries[i].name))
            return i;
    }
    return CONFIG_ENTRIES_MAX;
}

static const char *begin_entry(struct parser *parser, struct span value)
{
    struct config *config = parser->config;
    const char *reason;

    parser->is_skipping = true;
    if (config->entries_count == CONFIG_ENTRIES_MAX)
        return "more than 16 images";
    if (find_entry(config, value) != CONFIG_ENTRIES_MAX)
        return "there is an image of this name";
    reason = take_image(&config->entries[config->entries_count], value);
    if (reason != NULL)
        return reason;
    parser->entry = &config->entries[config->entries_count++];
    parser->is_skipping = false;
    return NULL;
}

static const char *take_key(struct parser *parser, unsigned number, struct span value)
{
    const struct key *key = &keys[number];
    uint32_t *given = key->place == PLACE_ENTRY ? &parser->entry->given : &parser->given;
    const char *reason;

    if (*given & UINT32_C(1) << number)
        return "the key was given before";
    reason = key->place == PLACE_ENTRY ? key->take(parser->entry, value) : key->set(parser, value);
    if (reason == NULL)
        *given |= UINT32_C(1) << number;
    return reason;
}

static const char *parse_line(struct parser *parser, struct span line)
{
    struct span value, name = first_word(line, &value);
    unsigned number = find_key(name);

    if (number == KEYS_COUNT)
        return "unknown key";
    if (value.len == 0)
        return "the key has no value";
    if (keys[number].place == PLACE_START)
        return begin_entry(parser, value);
    if (keys[number].place == PLACE_ENTRY && parser->is_skipping)
        return NULL;
    if (keys[number].place == PLACE_ENTRY && parser->entry == NULL)
        return "the key belongs behind an image line";
    return take_key(parser, number, value);
}

/* What is behind a '#' at the line's start or behind a blank is a comment, whatever it holds. */
static struct span without_comment(struct span line)
{
    for (size_t i = 0; i < line.len; i++) {
        if (line.bytes[i] == '#' && (i == 0 || is_blank(line.bytes[i - 1])))
            line.len = i;
    }
    return trim(line);
}

static bool is_plain(struct span line)
{
    for (size_t i = 0; i < line.len; i++) {
        unsigned char c = (unsigned char)line.bytes[i];

        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return false;
    }
    return true;
}

static const char *look_at_line(struct parser *parser, struct span line)
{
    if (line.len > 0 && line.bytes[line.len - 1] == '\r')
        line.len--;
    if (line.len > CONFIG_LINE_BYTES_MAX)
        return "the line is longer than 512 bytes";
    line = without_comment(line);
    if (!is_plain(line))
        return "not plain text: save it as UTF-8";
    return line.len > 0 ? parse_line(parser, line) : NULL;
}

static void skip_line(struct config *config, unsigned line, const char *reason)
{
    if (config->bad_count < CONFIG_BAD_KEPT) {
        config->bad[config->bad_count].line = line;
        config->bad[config->bad_count].reason = reason;
    }
    config->bad_count++;
}

static void choose_default(struct parser *parser)
{
    struct config *config = parser->config;
    unsigned number = find_entry(config, parser->default_name);

    if (number != CONFIG_ENTRIES_MAX)
        config->default_number = number;
    else if (parser->default_name.len > 0)
        skip_line(config, parser->default_line, "there is no image of this name");
}

void config_parse(struct config *config, const char *text, size_t len)
{
    static const char mark[3] = {'\xef', '\xbb', '\xbf'}; /* some editors begin UTF-8 with it */
    struct parser parser = {.config = config};
    size_t off = 0;

    __builtin_memset(config, 0, sizeof(*config));
    config->timeout_s = CONFIG_SECONDS;
    if (len > CONFIG_FILE_BYTES_MAX)
        len = CONFIG_FILE_BYTES_MAX;
    if (len >= sizeof(mark) && __builtin_memcmp(text, mark, sizeof(mark)) == 0)
        off = sizeof(mark);
    for (parser.line = 1; off < len; parser.line++) {
        struct span line = {text + off, 0};
        const char *reason;

        while (off + line.len < len && line.bytes[line.len] != '\n')
            line.len++;
        off += line.len + 1;
        reason = look_at_line(&parser, line);
        if (reason != NULL)
            skip_line(config, parser.line, reason);
    }
    choose_default(&parser);
}
