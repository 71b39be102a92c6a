# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What UEFI asks of a disk and of its driver holds for images; the client that says so can say no.

One boot for images on virtio-blk, on a disk that takes no writes, and on NVMe; one for the handle
of OVMF's own virtio-blk driver, which never looks at MediaId, on a disk of its own.
"""

import pytest

import conformance

# What is asserted of each at least; less would mean that something was not tried.
IMAGES = [("virtio", False, 1400), ("virtio", True, 950), ("nvme", False, 1400)]
OF_MEDIA_ID_MIN = 50


def test_images(build, tmp_path):
    wanted = [("image", conformance.make_disk(tmp_path, "image", slot, device, readonly))
              for slot, (device, readonly, _) in enumerate(IMAGES, conformance.FIRST_SLOT)]
    handles = conformance.run(tmp_path, build, wanted)[1]
    assert [line for handle in handles for line in handle.failures] == []
    assert conformance.verdict(handles, "virtio", "image") == (0, None)
    for handle, (_, _, assertions_min) in zip(handles, IMAGES):
        assert handle.assertions >= assertions_min


def test_known_fault(build, tmp_path):
    """Exactly what depends on MediaId fails on a driver that ignores it."""
    wanted = conformance.disks_for(tmp_path, "virtio", "parent")
    handle, = conformance.run(tmp_path, build, wanted)[1]
    status, closing = conformance.verdict([handle], "virtio", "parent")
    assert status == 0, handle.failures
    assert closing == ("known fault of VirtioBlkDxe: MediaId is not looked at: "
                       f"{len(handle.failures)} assertions")
    assert handle.kinds["MediaId"] == (len(handle.failures),) * 2
    assert len(handle.failures) >= OF_MEDIA_ID_MIN


def made_up(total, failed, of_kind, kind_failed):
    text = ("handle parent\n" + "FAIL 2.1 something\n" * failed +
            f"kind MediaId: {of_kind} assertions, {kind_failed} failed\n"
            f"sum: {total} assertions, {total - failed} passed, {failed} failed\n")
    return conformance.parse(text)


@pytest.mark.parametrize("target, numbers, status", [
    ("parent", (9, 0, 4, 0), 0), ("parent", (9, 4, 4, 4), 0), ("image", (9, 4, 4, 4), 1),
    ("parent", (9, 5, 4, 4), 1), ("parent", (9, 3, 4, 3), 1), ("parent", (9, 1, 4, 0), 1)])
def test_verdict(target, numbers, status):
    """The whole kind and nothing else is the known fault; of an image nothing is."""
    assert conformance.verdict(made_up(*numbers), "virtio", target)[0] == status
