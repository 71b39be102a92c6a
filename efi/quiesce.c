/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * When an image is committed though nobody called FlushBlocks, and how it is left behind.
 *
 * Promises: the first writes of a burst are durable when they return; what is not is committed the
 * idle time later, at the first moment at which that is safe, and at the end of boot services. No
 * disk I/O is done from a timer. A commit that fails is said once and tried again.
 *
 * Left to others: FlushBlocks of callers (request.c) and the order of a commit (core/commit.c).
 */
#include "handover.h"
#include "proto/event_groups.h"
#include "proto/reset_notification.h"

/*
 * Why no timer: it interrupts code at TPL_APPLICATION, which may be inside the driver of the disk
 * below. EDK2's VirtioBlkDxe waits for its one request with the priority down, and a second request
 * on that ring leaves the first waiting for ever. So the timer only marks an image as due, and disk
 * I/O is done where the interrupted code cannot be in a disk's driver:
 *
 *   - in a request to the image itself: the caller has come to us, not to the disk below;
 *   - in the group that EDK2's WaitForEvent signals while it has nothing: the caller is in there;
 *   - at ReadyToBoot, ExitBootServices and ResetSystem, which are called, not interrupted into.
 *
 * Wrapping the disk's Block I/O so that it runs at TPL_CALLBACK would let the timer commit, but it
 * means to patch another driver's protocol under the feet of everyone else who may have done so.
 *
 * Callers that poll the keyboard and never come back (GRUB's menu) pass none of these for long, and
 * they often never flush. Hence the second rule: the first UNWAITED_WRITES_MAX writes of a burst
 * are committed before they return, until the caller shows that it flushes by itself; a burst ends
 * with a pause of the idle time. The rest of a stream is committed once in the idle time.
 *
 * What remains: the end of a longer stream, or writes right behind another's flush, from a caller
 * who then neither flushes, nor waits for events, nor touches the image again, stay uncommitted
 * until boot services end. Losing power before that loses them, and harms nothing else.
 */
#define IDLE_100NS          (250u * 10000)
#define UNWAITED_WRITES_MAX 16u

static EFI_GUID guid_reset_notification = EFI_RESET_NOTIFICATION_PROTOCOL_GUID;
static EFI_RESET_NOTIFICATION_PROTOCOL *reset_notification; /* NULL: the firmware has none */

static void arm(struct attached *attached)
{
    attached->has_written = false;
    attached->is_armed =
        !EFI_ERROR(efi_boot->SetTimer(attached->idle_timer, TimerRelative, IDLE_100NS));
}

static void EFIAPI on_timer(EFI_EVENT event, void *context)
{
    struct attached *attached = context;

    (void)event;
    attached->is_armed = false;
    attached->is_due = attached->is_unsettled;
    if (attached->has_written)
        arm(attached);
    else
        attached->unwaited_count = 0;
}

/* An image that takes no writes any more has nothing left that could be made durable. */
static qc_status settle(struct attached *attached)
{
    qc_status why = qc_settle(&attached->image);

    attached->is_unsettled = why != QC_OK && why != QC_READONLY;
    attached->is_due = false;
    return why == QC_READONLY ? QC_OK : why;
}

/* Whether there is something to settle, and nothing against doing it now. */
static bool is_settleable(struct attached *attached)
{
    return attached->child != NULL && attached->is_unsettled && !attached->is_gone &&
           !request_is_running() && !EFI_ERROR(medium_status(attached));
}

EFI_STATUS quiesce_settle(struct attached *attached)
{
    EFI_STATUS status = EFI_SUCCESS;
    qc_status why;

    if (!is_settleable(attached))
        return EFI_SUCCESS;
    request_claim();
    why = settle(attached);
    if (why != QC_OK) {
        status = request_failed(attached, "flush", why);
        arm(attached); /* the next try */
    }
    request_follow_image(attached);
    handover_follow(attached);
    request_release();
    return status;
}

void quiesce_before_change(struct attached *attached)
{
    attached->is_unsettled = true;
}

qc_status quiesce_after_change(struct attached *attached)
{
    if (attached->is_write_through || attached->is_stopping)
        return settle(attached);
    if (!attached->is_armed)
        arm(attached);
    attached->has_written = true;
    if (attached->unwaited_count == UNWAITED_WRITES_MAX)
        return QC_OK;
    attached->unwaited_count++;
    return qc_flush(&attached->image);
}

qc_status quiesce_flush(struct attached *attached)
{
    /* This caller flushes by itself; outside of a burst it says nothing about the next one's. */
    if (attached->is_armed)
        attached->unwaited_count = UNWAITED_WRITES_MAX;
    attached->is_due = false;
    return qc_flush(&attached->image);
}

void quiesce_if_due(struct attached *attached)
{
    qc_status why;

    if (!attached->is_due || EFI_ERROR(medium_status(attached)))
        return;
    attached->is_due = false;
    why = qc_flush(&attached->image);
    if (why != QC_OK) {
        request_failed(attached, "flush", why);
        arm(attached);
    }
}

static void EFIAPI on_idle(EFI_EVENT event, void *context)
{
    (void)event;
    (void)context;
    for (unsigned i = 0; i < ATTACHED_MAX; i++) {
        struct attached *attached = attached_slot(i);

        if (attached->is_due || (attached->is_unsettled && !attached->is_armed))
            quiesce_settle(attached);
    }
    medium_tend();
}

static void EFIAPI on_ready_to_boot(EFI_EVENT event, void *context)
{
    (void)event;
    (void)context;
    for (unsigned i = 0; i < ATTACHED_MAX; i++)
        quiesce_settle(attached_slot(i));
}

/* Signalled once, though ExitBootServices may fail and be called again: no write may wait now. */
static void EFIAPI on_before_exit(EFI_EVENT event, void *context)
{
    for (unsigned i = 0; i < ATTACHED_MAX; i++)
        attached_slot(i)->is_write_through = true;
    on_ready_to_boot(event, context);
}

/*
 * Events of one level run in reverse order of their creation in EDK2; this one, created when the
 * child is, comes before those of the disk's driver. There is no memory, event or console any more.
 */
static void EFIAPI on_exit(EFI_EVENT event, void *context)
{
    struct attached *attached = context;

    (void)event;
    if (is_settleable(attached))
        settle(attached);
    attached->is_gone = true;
}

/*
 * Best effort: the oldest notification runs first, and some disks' drivers shut them down in
 * theirs. gnu-efi lets this type of function return a status, which nobody looks at.
 */
static EFI_STATUS EFIAPI on_reset(EFI_RESET_TYPE type, EFI_STATUS reason, UINTN data_bytes,
                                  CHAR16 *data)
{
    EFI_TPL tpl = efi_boot->RaiseTPL(TPL_HIGH_LEVEL);

    (void)type;
    (void)reason;
    (void)data_bytes;
    (void)data;
    efi_boot->RestoreTPL(tpl);
    /* Anything higher, a watchdog say, may have interrupted a disk's driver. */
    if (tpl != TPL_APPLICATION)
        return EFI_DEVICE_ERROR;
    tpl = efi_boot->RaiseTPL(TPL_CALLBACK);
    on_ready_to_boot(NULL, NULL);
    efi_boot->RestoreTPL(tpl);
    return EFI_SUCCESS;
}

static struct {
    EFI_GUID group;
    EFI_EVENT_NOTIFY notify;
    EFI_EVENT event;
} groups[] = {
    {EDK2_EVENT_GROUP_IDLE_LOOP_GUID, on_idle, NULL},
    {EFI_EVENT_GROUP_READY_TO_BOOT_GUID, on_ready_to_boot, NULL},
    {EFI_EVENT_GROUP_BEFORE_EXIT_BOOT_SERVICES_GUID, on_before_exit, NULL},
};
#define GROUPS_COUNT (sizeof(groups) / sizeof(groups[0]))

static void close_event(EFI_EVENT *event)
{
    if (*event != NULL)
        efi_boot->CloseEvent(*event);
    *event = NULL;
}

EFI_STATUS quiesce_load(void)
{
    for (unsigned i = 0; i < GROUPS_COUNT; i++) {
        EFI_STATUS status =
            efi_boot->CreateEventEx(EVT_NOTIFY_SIGNAL, TPL_CALLBACK, groups[i].notify, NULL,
                                    &groups[i].group, &groups[i].event);
        if (EFI_ERROR(status)) {
            groups[i].event = NULL;
            quiesce_unload();
            return status;
        }
    }
    if (EFI_ERROR(efi_boot->LocateProtocol(&guid_reset_notification, NULL,
                                           (void **)&reset_notification)) ||
        EFI_ERROR(reset_notification->RegisterResetNotify(reset_notification, on_reset)))
        reset_notification = NULL;
    return EFI_SUCCESS;
}

void quiesce_unload(void)
{
    if (reset_notification != NULL)
        reset_notification->UnregisterResetNotify(reset_notification, on_reset);
    reset_notification = NULL;
    for (unsigned i = 0; i < GROUPS_COUNT; i++)
        close_event(&groups[i].event);
}

EFI_STATUS quiesce_start(struct attached *attached)
{
    EFI_STATUS status;

    attached->is_gone = attached->is_unsettled = attached->is_write_through = false;
    attached->is_armed = attached->has_written = attached->is_due = false;
    attached->unwaited_count = 0;
    status = efi_boot->CreateEvent(EVT_TIMER | EVT_NOTIFY_SIGNAL, TPL_CALLBACK, on_timer, attached,
                                   &attached->idle_timer);
    if (EFI_ERROR(status)) {
        attached->idle_timer = NULL;
        return status;
    }
    status = efi_boot->CreateEvent(EVT_SIGNAL_EXIT_BOOT_SERVICES, TPL_CALLBACK, on_exit, attached,
                                   &attached->exit_event);
    if (EFI_ERROR(status))
        attached->exit_event = NULL;
    return status;
}

void quiesce_stop(struct attached *attached)
{
    close_event(&attached->exit_event);
    close_event(&attached->idle_timer);
}
