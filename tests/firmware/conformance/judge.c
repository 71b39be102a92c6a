/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Counts and reports: a line for each assertion that failed, with its number and what was expected
 * and what came; a line for each group, for each handle, and for all.
 *
 * An assertion's number is its group's and its own place in it, whether it was tried or not.
 */
#include "conformance.h"

struct counts {
    unsigned passed, failed, not_applicable;
    struct {
        unsigned passed, failed;
    } of_kind[KINDS_COUNT]; /* parts of the first two */
};

static struct counts of_group, of_handle, of_all;
static struct {
    unsigned group, number;
    const char *group_name;
    const char *subject, *detail;
    enum kind kind;
} at = {.subject = "", .detail = ""};
static const char *const kind_names[KINDS_COUNT] = {"", "", "MediaId", "wrap"};

EFI_TPL tpl_now(void)
{
    EFI_TPL tpl = agent.bs->RaiseTPL(TPL_HIGH_LEVEL);

    agent.bs->RestoreTPL(tpl);
    return tpl;
}

static void say_count(uint64_t count, const char *what)
{
    char digits[21];
    size_t i = sizeof(digits) - 1;

    digits[i] = '\0';
    do {
        digits[--i] = (char)('0' + count % 10);
        count /= 10;
    } while (count > 0 && i > 0);
    say(&digits[i]);
    say(what);
}

static void say_part(const char *part)
{
    if (part[0] == '\0')
        return;
    say(part);
    say(": ");
}

static void add(struct counts *sum, const struct counts *counts)
{
    sum->passed += counts->passed;
    sum->failed += counts->failed;
    sum->not_applicable += counts->not_applicable;
    for (size_t i = 0; i < KINDS_COUNT; i++) {
        sum->of_kind[i].passed += counts->of_kind[i].passed;
        sum->of_kind[i].failed += counts->of_kind[i].failed;
    }
}

void group_begin(unsigned number, const char *name)
{
    of_group = (struct counts){0};
    at.group = number;
    at.number = 0;
    at.group_name = name;
    at.kind = KIND_NONE;
    about("", "");
}

void group_end(void)
{
    say("group ");
    say_count(at.group, " ");
    say_part(at.group_name);
    say_count(of_group.passed, " passed, ");
    say_count(of_group.failed, " failed, ");
    say_count(of_group.not_applicable, " not applicable\n");
    add(&of_handle, &of_group);
}

void group_absent(unsigned number, const char *name)
{
    group_begin(number, name);
    if (target.is_ours)
        expect_that("is installed", false);
    else
        skip(1);
    group_end();
}

void about(const char *subject, const char *detail)
{
    at.subject = subject;
    at.detail = detail;
}

void of_kind(enum kind kind)
{
    at.kind = kind;
}

/* Counts one assertion. True: it failed, and the line is begun. */
static bool has_failed(const char *name, bool holds)
{
    EFI_TPL tpl = tpl_now();

    if (at.kind == KIND_OWN && !target.is_ours) {
        skip(1);
        return false;
    }
    at.number++;
    if (holds && tpl == TPL_APPLICATION) {
        of_group.passed++;
        of_group.of_kind[at.kind].passed++;
        return false;
    }
    of_group.failed++;
    of_group.of_kind[at.kind].failed++;
    say("FAIL ");
    say_count(at.group, ".");
    say_count(at.number, " ");
    say_part(at.group_name);
    say_part(at.subject);
    say_part(at.detail);
    say(name);
    if (tpl != TPL_APPLICATION)
        say_number("left-at-tpl", tpl);
    say(":");
    return true;
}

void expect(const char *name, EFI_STATUS got, EFI_STATUS want)
{
    if (!has_failed(name, got == want))
        return;
    say_status("expected", want);
    say_status("got", got);
    say_end();
}

void expect_number(const char *name, uint64_t got, uint64_t want)
{
    if (!has_failed(name, got == want))
        return;
    say_number("expected", want);
    say_number("got", got);
    say_end();
}

void expect_that(const char *name, bool holds)
{
    if (has_failed(name, holds))
        say(" expected=yes got=no\n");
}

void skip(unsigned count)
{
    at.number += count;
    of_group.not_applicable += count;
}

static void say_counts(const struct counts *counts)
{
    say_count(counts->passed + counts->failed, " assertions, ");
    say_count(counts->passed, " passed, ");
    say_count(counts->failed, " failed\n");
}

void handle_begin(const char *kind)
{
    of_handle = (struct counts){0};
    say("handle ");
    say(kind);
    say_end();
}

void handle_end(void)
{
    for (size_t i = KIND_MEDIA_ID; i < KINDS_COUNT; i++) {
        unsigned failed = of_handle.of_kind[i].failed;

        say("kind ");
        say_part(kind_names[i]);
        say_count(of_handle.of_kind[i].passed + failed, " assertions, ");
        say_count(failed, " failed\n");
    }
    say("not applicable: ");
    say_count(of_handle.not_applicable, "\nsum: ");
    say_counts(&of_handle);
    add(&of_all, &of_handle);
}

void judge_end(void)
{
    say_counts(&of_all);
}
