/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * What the configuration says of a partition: as an image, as a base, as a data file. See config.h.
 */
#include "config.h"

bool config_is_same_guid(const struct config_guid *a, const struct config_guid *b)
{
    return __builtin_memcmp(a, b, sizeof(*a)) == 0;
}

const struct config_entry *config_entry_of(const struct config *config,
                                           const struct config_guid *partition)
{
    for (unsigned i = 0; i < config->entries_count; i++) {
        if (config->entries[i].has_partition &&
            config_is_same_guid(&config->entries[i].partition, partition))
            return &config->entries[i];
    }
    return NULL;
}

unsigned config_base_number(const struct config *config, const struct config_guid *base)
{
    for (unsigned i = 0; i < config->entries_count; i++) {
        if (config->entries[i].has_base && config_is_same_guid(&config->entries[i].base, base))
            return i;
    }
    return CONFIG_ENTRIES_MAX;
}

unsigned config_data_number(const struct config *config, const struct config_guid *data)
{
    /* It is written, so that whatever else it is said to be counts more. */
    if (config_entry_of(config, data) != NULL ||
        config_base_number(config, data) != CONFIG_ENTRIES_MAX)
        return CONFIG_ENTRIES_MAX;
    for (unsigned i = 0; i < config->entries_count; i++) {
        if (config->entries[i].has_data && config_is_same_guid(&config->entries[i].data, data))
            return i;
    }
    return CONFIG_ENTRIES_MAX;
}

bool config_is_written(const struct config_entry *entry)
{
    return entry == NULL || (!entry->is_readonly && entry->snapshot[0] == '\0');
}
