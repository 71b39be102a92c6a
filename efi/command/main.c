/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * qcow2.efi: the command of the EFI shell, and the boot program where no shell started it.
 *
 * The shell gives words (EFI Shell Specification 2.2, 3.4); a word that begins with - is an option,
 * wherever it stands. What the program returns the shell keeps as %lasterror%.
 *
 * Promises: a command line that is not understood to its end does nothing but say how the verb is
 * used.
 */
#include "boot.h"
#include "console.h"
#include "verbs.h"

#define WORDS_MAX 16u
#define LINE      "\n       qcow2 "

EFI_STATUS EFIAPI efi_main(EFI_HANDLE image_handle, EFI_SYSTEM_TABLE *system);

static const struct verb {
    const char *name;
    const char *usage;
    const char *options; /* letters; one with a value is followed by ':' */
    unsigned words_count;
    bool has_optional_word; /* the last one may be left out */
    bool has_output;        /* --output */
    int (*run)(const struct request *request);
} verbs[] = {
    {"list", "list", "", 0, false, false, verb_list},
    {"attach", "attach [-r] [-s SNAPSHOT] [-t] WHAT", "rs:t", 1, false, false, verb_attach},
    {"detach", "detach WHAT", "", 1, false, false, verb_detach},
    {"info", "info [--output=json] WHAT", "", 1, false, true, verb_info},
    {"map", "map [--output=json] WHAT", "", 1, false, true, verb_map},
    {"check", "check [-r [leaks|all]] [--output=json] WHAT", "r", 1, false, true, verb_check},
    {"snapshot", "snapshot -l | -c NAME | -a NAME | -d NAME WHAT", "lc:a:d:", 1, false, false,
     verb_snapshot},
    {"boot", "boot", "", 0, false, false, verb_boot},
    {"reserve", "reserve FILE SIZE", "", 2, false, false, verb_reserve},
    {"install", "install [VOLUME]", "", 1, true, false, verb_install},
    {"uninstall", "uninstall [VOLUME]", "", 1, true, false, verb_uninstall},
};

#define VERBS_COUNT (sizeof(verbs) / sizeof(verbs[0]))

/* The command line: words in UTF-8, and how far it is read. */
static struct {
    char words[WORDS_MAX][TEXT_BYTES_MAX];
    unsigned words_count, next;
    struct request request;
    bool has_pages;
} line;

static int help(void)
{
    out_text(&console, "usage: qcow2 VERB [-b] [OPTIONS] WHAT");
    for (unsigned i = 0; i < VERBS_COUNT; i++) {
        out_text(&console, LINE);
        out_text(&console, verbs[i].usage);
    }
    out_text(&console, "\n\"help qcow2\" tells more.\n");
    return EXIT_GOOD;
}

static int usage(const struct verb *verb)
{
    return fail("usage: qcow2 ", verb->usage, "");
}

static const char *next_word(void)
{
    return line.next < line.words_count ? line.words[line.next++] : NULL;
}

/* How the verb takes an option; ':' has a value, 0: not at all. */
static char option_kind(const struct verb *verb, char letter)
{
    const char *options = verb->options;
    size_t at = text_find(options, letter);

    return options[at] == '\0' || letter == ':' ? 0 : options[at + 1] == ':' ? ':' : letter;
}

/* The form behind --output= or as the next word. */
static bool take_output(const char *word)
{
    const char *form = word[8] == '=' ? word + 9 : word[8] == '\0' ? next_word() : NULL;

    if (form == NULL || (!text_same(form, "json") && !text_same(form, "human")))
        return false;
    line.request.form = text_same(form, "json") ? REPORT_JSON : REPORT_TEXT;
    return true;
}

/* -r of check says what to repair: the next word, if it is one of these, else all. */
static void take_fix(void)
{
    const char *word = line.next < line.words_count ? line.words[line.next] : "";

    line.request.fix = text_same(word, "leaks") ? QC_FIX_LEAKS : QC_FIX_ALL;
    line.next += text_same(word, "leaks") || text_same(word, "all");
}

static bool take_option(const struct verb *verb, const char *word)
{
    struct request *request = &line.request;
    char letter = word[1], kind;

    if (verb->has_output && text_same_part(word, 8, "--output"))
        return take_output(word);
    if (letter == '\0' || word[2] != '\0')
        return false;
    if (letter == 'b')
        return line.has_pages = true;
    kind = option_kind(verb, letter);
    if (kind == 0)
        return false;
    if (kind == ':' || letter == 'l') {
        if (request->action != 0)
            return false;
        request->action = letter;
        request->snapshot = kind == ':' ? next_word() : NULL;
        return kind != ':' || request->snapshot != NULL;
    }
    if (letter == 'r' && verb->run == verb_check)
        take_fix();
    else if (letter == 'r')
        request->is_readonly = true;
    else if (letter == 't')
        request->is_temporary = true;
    return true;
}

static int run(const struct verb *verb)
{
    struct request *request = &line.request;
    const char *word;
    int status;

    while ((word = next_word()) != NULL) {
        if (word[0] == '-') {
            if (!take_option(verb, word))
                return usage(verb);
        } else if (request->words_count == verb->words_count) {
            return usage(verb);
        } else {
            request->words[request->words_count++] = word;
        }
    }
    if (request->words_count + verb->has_optional_word < verb->words_count ||
        (verb->run == verb_snapshot && request->action == 0))
        return usage(verb);
    console_begin(line.has_pages, request->form == REPORT_TEXT);
    status = verb->run(request);
    console_end();
    return status;
}

/* Takes what the shell has made of the line; the first word is the program's own name. */
static bool take_words(const EFI_SHELL_PARAMETERS_PROTOCOL *shell)
{
    if (shell->Argc > WORDS_MAX + 1)
        return false;
    for (UINTN i = 1; i < shell->Argc; i++) {
        if (!text_narrow(line.words[line.words_count++], TEXT_BYTES_MAX, shell->Argv[i]))
            return false;
    }
    return true;
}

static int command(const EFI_SHELL_PARAMETERS_PROTOCOL *shell)
{
    const char *word;

    if (!take_words(shell))
        return fail("the command line is too long", "", "");
    do {
        word = next_word();
    } while (word != NULL && text_same(word, "-b") && (line.has_pages = true));
    if (word == NULL || text_same(word, "-?") || text_same(word, "help"))
        return help();
    for (unsigned i = 0; i < VERBS_COUNT; i++) {
        if (text_same(word, verbs[i].name))
            return run(&verbs[i]);
    }
    return fail("no such verb: ", word, "; qcow2 alone lists them");
}

EFI_STATUS EFIAPI efi_main(EFI_HANDLE image_handle, EFI_SYSTEM_TABLE *system)
{
    static EFI_GUID guid_parameters = EFI_SHELL_PARAMETERS_PROTOCOL_GUID;
    static EFI_GUID guid_shell = EFI_SHELL_PROTOCOL_GUID;
    EFI_SHELL_PARAMETERS_PROTOCOL *parameters;
    EFI_STATUS status = firmware_init(image_handle, system);

    if (EFI_ERROR(status)) {
        fail("this program", firmware_reason(status), "");
        return status;
    }
    if (EFI_ERROR(firmware_protocol(image_handle, &guid_parameters, (void **)&parameters)) ||
        EFI_ERROR(efi_boot->LocateProtocol(&guid_shell, NULL, (void **)&efi_shell)))
        return boot_run();
    return (EFI_STATUS)command(parameters);
}
