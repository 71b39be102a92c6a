/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * See menu.h. The menu begins as lines that follow what was said; from then on every row has a
 * fixed position.
 */
#include "menu.h"

#include "console.h"
#include "firmware.h"

#define SECOND_100NS (10u * 1000 * 1000)
#define COLUMNS_MIN  20u
#define COLUMNS_MAX  110u
#define OTHER_ROWS   5u   /* title, two blank ones, keys, the clock's */
#define SAID_ROWS    4u   /* that stay in sight above it, where there is room */
#define WATCHDOG_S   300u /* as the firmware arms it for what it starts */

/* Where the menu is on the console. */
static struct {
    UINTN columns, first_row;
    unsigned window; /* rows of the list that are seen */
    unsigned top;    /* the first of them */
} place;

char *menu_add(struct menu *menu)
{
    char *row;

    if (menu->rows_count == MENU_ROWS_MAX)
        return NULL;
    row = menu->rows[menu->rows_count++];
    row[0] = '\0';
    return row;
}

static bool is_inside_char(char byte)
{
    return ((unsigned char)byte & 0xc0) == 0x80;
}

void menu_put(char row[MENU_ROW_BYTES], const char *more)
{
    size_t len = text_find(row, '\0'), more_len = text_find(more, '\0');

    if (more_len > MENU_ROW_BYTES - 1 - len)
        more_len = MENU_ROW_BYTES - 1 - len;
    while (more_len > 0 && is_inside_char(more[more_len]))
        more_len--;
    __builtin_memcpy(row + len, more, more_len);
    row[len + more_len] = '\0';
}

/* ---- drawing -------------------------------------------------------------------------------- */

/* Writes two texts, cut where the row ends; the columns that are left. */
static size_t put(const char *mark, const char *text)
{
    size_t width = place.columns - text_find(mark, '\0'), bytes = 0;

    out_text(&console, mark);
    while (text[bytes] != '\0' && (width > 0 || is_inside_char(text[bytes])))
        width -= !is_inside_char(text[bytes++]);
    console.put(&console, text, bytes);
    return width;
}

/* Writes over one row of the menu. */
static void draw(unsigned row, const char *mark, const char *text)
{
    SIMPLE_TEXT_OUTPUT_INTERFACE *screen = efi_system->ConOut;

    screen->SetCursorPosition(screen, 0, place.first_row + row);
    out_spaces(&console, put(mark, text));
}

static const char *mark_of(const struct menu *menu, unsigned number)
{
    return number == menu->selected ? " > " : "   ";
}

static void draw_row(const struct menu *menu, unsigned number)
{
    draw(2 + number - place.top, mark_of(menu, number), menu->rows[number]);
}

static unsigned status_row(void)
{
    return place.window + OTHER_ROWS - 1;
}

/* Moves the window so that the selected row is seen; all rows where that moved it. */
static void draw_moved(const struct menu *menu, unsigned before)
{
    unsigned top = place.top;

    if (menu->selected < place.top)
        place.top = menu->selected;
    if (menu->selected >= place.top + place.window)
        place.top = menu->selected - place.window + 1;
    if (place.top == top) {
        draw_row(menu, before);
        draw_row(menu, menu->selected);
        return;
    }
    for (unsigned i = 0; i < place.window; i++)
        draw_row(menu, place.top + i);
}

static void measure(const struct menu *menu)
{
    SIMPLE_TEXT_OUTPUT_INTERFACE *screen = efi_system->ConOut;
    UINTN columns = 80, rows = 25, others = OTHER_ROWS + SAID_ROWS;

    screen->QueryMode(screen, (UINTN)screen->Mode->Mode, &columns, &rows);
    place.columns = columns < COLUMNS_MIN ? COLUMNS_MIN : columns;
    /* A character in the last column may turn the line. */
    place.columns = place.columns > COLUMNS_MAX ? COLUMNS_MAX : place.columns - 1;
    place.window = rows > others ? (unsigned)(rows - others) : 1;
    if (place.window > menu->rows_count)
        place.window = menu->rows_count;
    place.top = 0;
    if (menu->selected >= place.window)
        place.top = menu->selected - place.window + 1;
}

/* Writes all of it as lines, and sees where they came to be: the console may have moved up. */
static void begin(const struct menu *menu)
{
    SIMPLE_TEXT_OUTPUT_INTERFACE *screen = efi_system->ConOut;
    UINTN height;

    measure(menu);
    height = place.window + OTHER_ROWS;
    screen->EnableCursor(screen, FALSE);
    out_text(&console, screen->Mode->CursorColumn > 0 ? "\n\n" : "\n");
    put("", menu->title);
    out_text(&console, "\n\n");
    for (unsigned i = place.top; i < place.top + place.window; i++) {
        put(mark_of(menu, i), menu->rows[i]);
        out_text(&console, "\n");
    }
    out_text(&console, "\n");
    put("", menu->keys);
    out_text(&console, "\n\n");
    place.first_row = (UINTN)screen->Mode->CursorRow;
    place.first_row = place.first_row > height ? place.first_row - height : 0;
}

/* What is said next begins below it, on a line of its own in a log too. */
static void end(void)
{
    SIMPLE_TEXT_OUTPUT_INTERFACE *screen = efi_system->ConOut;

    draw(status_row(), "", "");
    out_text(&console, "\n");
    screen->EnableCursor(screen, TRUE);
}

static void draw_seconds(const struct menu *menu, unsigned seconds)
{
    char line[MENU_ROW_BYTES], number[OUT_NUMBER_BYTES];

    line[0] = '\0';
    number_uint(number, seconds, 1);
    menu_put(line, menu->clock);
    menu_put(line, number);
    menu_put(line, " s. Any key stops the clock.");
    draw(status_row(), "", line);
}

/* ---- keys ----------------------------------------------------------------------------------- */

/* False where a second passed, or nothing can be waited for. */
static bool wait_key(EFI_EVENT timer, EFI_INPUT_KEY *ret_key)
{
    SIMPLE_INPUT_INTERFACE *keyboard = efi_system->ConIn;
    EFI_EVENT events[2] = {timer, keyboard->WaitForKey};
    UINTN number;

    return !EFI_ERROR(efi_boot->WaitForEvent(2, events, &number)) && number == 1 &&
           !EFI_ERROR(keyboard->ReadKeyStroke(keyboard, ret_key));
}

/* True where the key ends the menu. */
static bool take_key(struct menu *menu, const EFI_INPUT_KEY *key, char *ret_end)
{
    unsigned before = menu->selected, last = menu->rows_count - 1;
    CHAR16 c = key->UnicodeChar;

    if (key->ScanCode == SCAN_UP)
        menu->selected = before == 0 ? last : before - 1;
    else if (key->ScanCode == SCAN_DOWN)
        menu->selected = before == last ? 0 : before + 1;
    if (menu->selected != before)
        draw_moved(menu, before);
    if (c >= L'A' && c <= L'Z')
        c += L'a' - L'A';
    *ret_end = key->ScanCode == SCAN_ESC || c == MENU_ESC ? MENU_ESC : c < 0x7f ? (char)c : 0;
    return *ret_end == MENU_ESC || *ret_end == MENU_ENTER ||
           (*ret_end != 0 && menu->letters[text_find(menu->letters, *ret_end)] != '\0');
}

static char wait_end(struct menu *menu, unsigned timeout_s, EFI_EVENT timer)
{
    EFI_INPUT_KEY key;
    char ended = MENU_TIMEOUT;

    if (timeout_s > 0)
        draw_seconds(menu, timeout_s);
    /* Until somebody ends it, or the seconds do. */
    for (;;) {
        if (wait_key(timer, &key)) {
            if (timeout_s > 0)
                draw(status_row(), "", "");
            timeout_s = 0;
            if (take_key(menu, &key, &ended))
                return ended;
        } else if (timeout_s > 0) {
            if (--timeout_s == 0)
                return MENU_TIMEOUT;
            draw_seconds(menu, timeout_s);
        }
    }
}

/*
 * Sets the watchdog that the firmware arms before it starts a boot option: who thinks for long is
 * not a boot that hangs. Under a shell there is none.
 */
static void set_watchdog(UINTN seconds)
{
    if (efi_shell == NULL)
        efi_boot->SetWatchdogTimer(seconds, 0, 0, NULL);
}

/* A timer of seconds; NULL where there is none, or no console. */
static EFI_EVENT start_timer(void)
{
    EFI_EVENT timer;

    if (efi_system->ConOut == NULL || efi_system->ConIn == NULL ||
        EFI_ERROR(efi_boot->CreateEvent(EVT_TIMER, TPL_CALLBACK, NULL, NULL, &timer)))
        return NULL;
    if (EFI_ERROR(efi_boot->SetTimer(timer, TimerPeriodic, SECOND_100NS))) {
        efi_boot->CloseEvent(timer);
        return NULL;
    }
    set_watchdog(0);
    return timer;
}

static void stop_timer(EFI_EVENT timer)
{
    set_watchdog(WATCHDOG_S);
    efi_boot->CloseEvent(timer);
}

char menu_run(struct menu *menu, unsigned timeout_s)
{
    EFI_EVENT timer = start_timer();
    char ended;

    if (timer == NULL)
        return timeout_s > 0 ? MENU_TIMEOUT : MENU_ESC;
    begin(menu);
    ended = wait_end(menu, timeout_s, timer);
    end();
    stop_timer(timer);
    return ended;
}

bool menu_ask(const char *a, const char *b, const char *c)
{
    EFI_EVENT timer = start_timer();
    EFI_INPUT_KEY key = {0};

    if (timer == NULL)
        return false;
    say(a, b, c);
    while (!wait_key(timer, &key))
        continue;
    stop_timer(timer);
    return key.UnicodeChar == L'y' || key.UnicodeChar == L'Y';
}
