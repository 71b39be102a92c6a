/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The configuration file's parser, and the rule for names that are looked up as files: any bytes.
 *
 * The parser is pure code of the driver and is taken in by its source; the text is a copy of its
 * exact length. What comes out is within its limits, ended, and the same for the same bytes.
 */
#include "../../efi/config.c"
#include "../../efi/config_find.c"

#include "disk.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t len);

static bool is_ended(const char *text, size_t room)
{
    return memchr(text, '\0', room) != NULL;
}

static void check_entry(const struct config *config, const struct config_entry *entry)
{
    if (!is_ended(entry->name, sizeof(entry->name)) ||
        !is_ended(entry->snapshot, sizeof(entry->snapshot)))
        fuzz_fail("a text of an entry has no end");
    if (entry->has_partition && config_entry_of(config, &entry->partition) == NULL)
        fuzz_fail("an entry's partition has no entry");
    if (entry->has_data && config_data_number(config, &entry->data) > CONFIG_ENTRIES_MAX)
        fuzz_fail("an entry of no number");
    if (entry->has_base && config_base_number(config, &entry->base) >= config->entries_count)
        fuzz_fail("an entry's base has no entry");
    if (config_is_written(entry) && entry->is_readonly)
        fuzz_fail("a read-only entry is written");
}

/* What passes lies below the image's own folder, whatever a file system makes of slashes. */
static void check_rule(const char *name)
{
    struct qc_detail detail;
    bool is_start = true;

    if (qc_name_check(name, &detail) != QC_OK)
        return;
    if (name[0] == '\0' || name[0] == '/' || name[0] == '\\' || strchr(name, ':') != NULL)
        fuzz_fail("the name passed: %s", name);
    for (size_t i = 0; name[i] != '\0'; i++) {
        bool is_end;

        is_end = is_start && name[i] == '.' && name[i + 1] == '.' &&
                 (name[i + 2] == '\0' || name[i + 2] == '/' || name[i + 2] == '\\');
        if (is_end)
            fuzz_fail("the name passed: %s", name);
        is_start = name[i] == '/' || name[i] == '\\';
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t len)
{
    static struct config config, again;
    char *text = malloc(len + 1);

    memcpy(text, input, len);
    text[len] = '\0';
    if (len <= QC_BACKING_NAME_BYTES_MAX)
        check_rule(text);
    text = realloc(text, len > 0 ? len : 1);
    config_parse(&config, text, len);
    config_parse(&again, text, len);
    if (config.entries_count > CONFIG_ENTRIES_MAX || config.entries_count != again.entries_count ||
        config.bad_count != again.bad_count)
        fuzz_fail("%u entries", config.entries_count);
    for (unsigned i = 0; i < config.bad_count && i < CONFIG_BAD_KEPT; i++) {
        if (config.bad[i].line == 0 || config.bad[i].reason == NULL)
            fuzz_fail("a bad line of no number or reason");
    }
    for (unsigned i = 0; i < config.entries_count; i++)
        check_entry(&config, &config.entries[i]);
    fuzz_count(config.entries_count > 0);
    free(text);
    return 0;
}
