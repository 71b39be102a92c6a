/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * An order that wraps the driver the way the tools of the UEFI self-certification test do: the
 * pointers of its installed Driver Binding are replaced in place by proxies that watch and pass on.
 *
 * Left to others: making the firmware call them (drive.c).
 */
#include "agent.h"

static EFI_GUID guid_binding = EFI_DRIVER_BINDING_PROTOCOL_GUID;

static EFI_DRIVER_BINDING real;
static uint64_t supported_count, started_count, stopped_count;

static EFI_STATUS EFIAPI watched_supported(EFI_DRIVER_BINDING *self, EFI_HANDLE controller,
                                           EFI_DEVICE_PATH *remaining)
{
    supported_count++;
    return real.Supported(self, controller, remaining);
}

static EFI_STATUS EFIAPI watched_start(EFI_DRIVER_BINDING *self, EFI_HANDLE controller,
                                       EFI_DEVICE_PATH *remaining)
{
    EFI_STATUS status = real.Start(self, controller, remaining);
    started_count += status == EFI_SUCCESS;
    return status;
}

static EFI_STATUS EFIAPI watched_stop(EFI_DRIVER_BINDING *self, EFI_HANDLE controller,
                                      UINTN children_count, EFI_HANDLE *children)
{
    EFI_STATUS status = real.Stop(self, controller, children_count, children);
    stopped_count += status == EFI_SUCCESS;
    return status;
}

/* wrap begin: puts the proxies in; wrap end: takes them out and says what went through them. */
void order_wrap(char **words)
{
    EFI_DRIVER_BINDING *binding = find_protocol(agent.driver, &guid_binding);
    say("wrap:");
    if (binding == NULL) {
        say(" none");
    } else if (words[1][0] == 'b') {
        supported_count = started_count = stopped_count = 0;
        real = *binding;
        binding->Supported = watched_supported;
        binding->Start = watched_start;
        binding->Stop = watched_stop;
    } else {
        binding->Supported = real.Supported;
        binding->Start = real.Start;
        binding->Stop = real.Stop;
        say_number("asked", supported_count != 0);
        say_number("started", started_count);
        say_number("stopped", stopped_count);
    }
    say_end();
}
