/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The media an image lies on: its container's, its bases' and its data file's. When one of them
 * goes, the image goes with it.
 *
 * Promises: from the first sign on, nothing is written any more, and the image answers EFI_NO_MEDIA
 * even if the medium returns: what its tables looked like meanwhile nobody knows. At the next safe
 * moment the child is taken away, so that those above notice, and the container is connected anew:
 * whatever is in it by then gets a child of its own.
 *
 * Left to others: the signs (drivers/efi_block.c), the safe moment (quiesce.c).
 */
#include "driver.h"
#include "say.h"

/*
 * Why the child goes, instead of staying as a disk without a medium whose Block I/O is reinstalled:
 * a disk's driver that sees a new medium does so in the middle of a request, ours, and in there it
 * is refused (binding.c). Nobody would ask again, and the new medium would stay ours and unusable.
 *
 * Why not at once: whoever made the request may have come through the drivers of partitions and
 * file systems, which would be taken away under their own feet.
 *
 * An image that only turns read-only stays as it is: it can be read, and a loader that holds a file
 * or a partition on it would lose both. Writers are told by EFI_WRITE_PROTECTED.
 */
static bool is_any_lost;

EFI_STATUS medium_status(const struct attached *attached)
{
    EFI_STATUS status;

    if (!attached->media.MediaPresent)
        return EFI_NO_MEDIA;
    status = efi_block_medium(&attached->block);
    return EFI_ERROR(status) || attached->bases_count == 0 ? status : base_medium(attached);
}

/* Apart from its caller, which every request comes by: a sentence takes room and time. */
__attribute__((noinline)) static void lose(struct attached *attached)
{
    struct say_text text = {0};

    attached->media.MediaPresent = FALSE;
    is_any_lost = true;
    say_add(&text, "its medium is gone: what was not flushed is lost");
    say_once(say_digest(attached->digest, text.bytes, text.len),
             (const EFI_DEVICE_PATH *)attached->path, &text);
}

EFI_STATUS medium_check(struct attached *attached)
{
    EFI_STATUS status = medium_status(attached);

    if (EFI_ERROR(status) && attached->media.MediaPresent)
        lose(attached);
    return status;
}

EFI_STATUS medium_probe(struct attached *attached)
{
    efi_block_probe(&attached->block);
    base_probe(attached);
    return medium_check(attached);
}

void medium_reconnect(EFI_HANDLE container)
{
    efi_boot->DisconnectController(container, driver_binding.DriverBindingHandle, NULL);
    efi_boot->ConnectController(container, NULL, NULL, TRUE);
}

/*
 * Once for each loss: where somebody does not let go, asking again does not help. Nor does it where
 * an image is lost again while those above are connected to it; this must not go round for ever.
 */
void medium_tend(void)
{
    if (!is_any_lost || request_is_running())
        return;
    base_tend(); /* takes the images above with it, and brings them back */
    for (unsigned i = 0; i < ATTACHED_MAX; i++) {
        struct attached *attached = attached_slot(i);

        if (attached->container != NULL && attached->child != NULL &&
            EFI_ERROR(efi_block_medium(&attached->block)))
            medium_reconnect(attached->container);
    }
    is_any_lost = false;
}
