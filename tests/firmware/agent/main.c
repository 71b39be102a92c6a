/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Takes the script: says READY, waits until the fw_cfg file "opt/qcow2/go" reads 1, then carries
 * out the orders of "opt/qcow2/script", one a line, says END and ends the machine.
 *
 * The wait is where the machine's state is saved: a test restores it with a script of its own, and
 * the firmware's start-up is behind it. An order nobody knows ends the machine at once.
 */
#include "agent.h"

#define SCRIPT_BYTES 8192u
#define POLL_US      2000u
#define EXIT_GOOD    0x10u
#define EXIT_BAD     0x11u

struct agent agent;

static const struct {
    const char *name;
    void (*run)(char **words);
} orders[] = {
    {"load", order_load},           {"unload", order_unload},
    {"connect", order_connect},     {"disconnect", order_disconnect},
    {"reconnect", order_reconnect}, {"select", order_select},
    {"handles", order_handles},     {"opens", order_opens},
    {"start", order_start},         {"names", order_names},
    {"read", order_read},           {"sum", order_sum},
    {"file", order_file},           {"media", order_media},
    {"path", order_path},           {"count", order_count},
    {"checks", order_checks},       {"medium", order_medium},
    {"watch", order_watch},         {"tpl", order_tpl},
    {"console", order_console},     {"write", order_write},
    {"flush", order_flush},         {"reset", order_reset},
    {"erase", order_erase},         {"checkwrites", order_checkwrites},
    {"stall", order_stall},         {"wait", order_wait},
    {"hammer", order_hammer},       {"exit", order_exit},
    {"shutdown", order_shutdown},   {"put", order_put},
    {"rename", order_rename},       {"delete", order_delete},
    {"copy", order_copy},           {"fault", order_fault},
    {"signal", order_signal},       {"stop", order_stop},
    {"latewrite", order_latewrite}, {"config", order_config},
    {"reenter", order_reenter},     {"interrupt", order_interrupt},
    {"answered", order_answered},   {"way", order_way},
    {"chain", order_chain},         {"layers", order_layers},
    {"disk2", order_disk2},         {"diagnose", order_diagnose},
    {"below", order_below},         {"checkdiagnose", order_checkdiagnose},
    {"hold", order_hold},           {"wrap", order_wrap},
    {"memory", order_memory},       {"warm", order_warm},
    {"race", order_race},           {"edit", order_edit},
    {"sync", order_sync},           {"settle", order_settle},
    {"peek", order_peek},           {"remove", order_remove},
    {"reattach", order_reattach},
    {"attach", order_attach},       {"detach", order_detach},
    {"pause", order_pause},         {"resume", order_resume},
    {"list", order_list},           {"into", order_into},
    {"outer", order_outer},         {"rounds", order_rounds},
    {"move", order_move},           {"cut", order_cut},
    {"variable", order_variable},   {"acpi", order_acpi},
    {"plant", order_plant},
};

uint64_t number(const char *word)
{
    uint64_t value = 0;
    for (size_t i = 0; word[i] >= '0' && word[i] <= '9'; i++)
        value = value * 10 + (uint64_t)(word[i] - '0');
    return value;
}

static size_t length(const char *text)
{
    size_t len = 0;
    while (text[len] != '\0')
        len++;
    return len;
}

static void carry_out(char *line)
{
    static char nothing[] = "";
    char *words[AGENT_WORDS_MAX];
    size_t count = 0;
    for (size_t i = 0; i < AGENT_WORDS_MAX; i++)
        words[i] = nothing;
    for (size_t i = 0; line[i] != '\0' && count < AGENT_WORDS_MAX; i++)
        if (line[i] == ' ')
            line[i] = '\0';
        else if (i == 0 || line[i - 1] == '\0')
            words[count++] = line + i;
    for (size_t i = 0; i < sizeof(orders) / sizeof(orders[0]); i++) {
        size_t len = length(orders[i].name);
        if (equal(words[0], orders[i].name, len + 1)) {
            orders[i].run(words);
            return;
        }
    }
    say("unknown order ");
    say(words[0]);
    say_end();
    port_exit(EXIT_BAD);
}

static void run_script(char *script)
{
    char *line = script;
    for (size_t i = 0; i < SCRIPT_BYTES; i++) {
        if (script[i] == '\n') {
            script[i] = '\0';
            if (line[0] != '\0')
                carry_out(line);
            line = script + i + 1;
        }
    }
}

EFI_STATUS EFIAPI efi_main(EFI_HANDLE image, EFI_SYSTEM_TABLE *st)
{
    static char script[SCRIPT_BYTES + 1];
    char go = '0';
    agent.image = image;
    agent.st = st;
    agent.bs = st->BootServices;
    agent.bs->SetWatchdogTimer(0, 0, 0, NULL);
    say("READY\n");
    while (port_file("opt/qcow2/go", &go, 1) && go != '1')
        agent.bs->Stall(POLL_US);
    if (go != '1' || !port_file("opt/qcow2/script", script, SCRIPT_BYTES)) {
        say("no script\n");
        port_exit(EXIT_BAD);
    }
    watch_console();
    run_script(script);
    say("END\n");
    port_exit(EXIT_GOOD);
}
