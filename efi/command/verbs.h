/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * What a command line asks for, and the verbs that do it.
 *
 * Promises of every verb: it returns what the program returns (console.h), and has said why that is
 * not EXIT_GOOD.
 */
#ifndef COMMAND_VERBS_H
#define COMMAND_VERBS_H

#include "file_disk.h"
#include "opened.h"

#define VERB_WORDS_MAX 2u

struct request {
    const char *words[VERB_WORDS_MAX]; /* behind the options */
    unsigned words_count;
    enum report_form form;
    bool is_readonly;  /* attach -r */
    bool is_temporary; /* attach -t */
    enum qc_check_fix fix;
    char action;          /* snapshot: its option's letter */
    const char *snapshot; /* that option's value, or attach -s; NULL: none */
};

/* attach.c */
int verb_list(const struct request *request);
int verb_attach(const struct request *request);
int verb_detach(const struct request *request);
/* look.c */
int verb_info(const struct request *request);
int verb_map(const struct request *request);
int verb_check(const struct request *request);
int verb_snapshot(const struct request *request);
/* boot.c */
int verb_boot(const struct request *request);
/* install.c */
int verb_install(const struct request *request);
int verb_uninstall(const struct request *request);
/* reserve.c */
int verb_reserve(const struct request *request);

#endif
