/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* See clock.h. The year starts in March here, so that the leap day is its last. */
#include "clock.h"

#include "firmware.h"

#define DAYS_BEFORE_1970 719468u /* from the first of March of the year 0 on */

uint32_t clock_now(uint32_t *ret_nsec)
{
    EFI_TIME time;
    int64_t years, days, seconds;

    *ret_nsec = 0;
    if (EFI_ERROR(efi_system->RuntimeServices->GetTime(&time, NULL)))
        return 0;
    years = time.Year - (time.Month <= 2);
    days = 365 * years + years / 4 - years / 100 + years / 400 +
           (153 * (time.Month + (time.Month > 2 ? -3 : 9)) + 2) / 5 + time.Day - 1 -
           DAYS_BEFORE_1970;
    seconds = ((days * 24 + time.Hour) * 60 + time.Minute) * 60 + time.Second;
    if (time.TimeZone != EFI_UNSPECIFIED_TIMEZONE)
        seconds += time.TimeZone * 60;
    *ret_nsec = time.Nanosecond;
    return seconds < 0 || seconds > UINT32_MAX ? 0 : (uint32_t)seconds;
}
