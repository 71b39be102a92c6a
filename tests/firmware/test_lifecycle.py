# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Load, connect, disconnect, reconnect, unload: in any order, for ever, and nothing stays behind.

"Nothing" is no handle, no event, no memory that the driver asked for, and no protocol of the disk
that is still open; the memory that other drivers hold does not grow with the number of rounds.
"""

import pytest

from conftest import DRIVER, crc, select, virtio
from images import disks

LOAD = f"load {DRIVER}"
EVENTS_OF_AN_IMAGE = 2
LOADED = {"load": "SUCCESS", "start": "SUCCESS"}


@pytest.fixture(scope="module")
def two_images(rig):
    """Two partitions with an image each; the first holds a volume with a file."""
    inside = rig.folder / "inside"
    inside.write_bytes(bytes(range(251)) * 9000)
    volume = disks.make_fat(rig.folder / "inside.fat", {"FOLDER/FILE.BIN": inside})
    raw = disks.write_gpt(rig.folder / "inside.raw", [(disks.ESP_TYPE, volume)], name="inside")
    qcow2 = rig.folder / "inside.qcow2"
    disks.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, qcow2)
    disk = rig.partitioned("two", [qcow2, rig.image("zero-v3-64k")])
    return virtio(disk), inside.read_bytes(), raw.read_bytes()


def assert_nothing_left(report, rounds=1, events=0):
    for watch in report.all("watch"):
        assert (watch["pool"], watch["pages"], watch["events"]) == ("0", "0", str(events))
        assert watch["lost"] == "0"
        assert watch["handlesafter"] == watch["handlesbefore"]
    assert len(report.all("watch")) == rounds
    assert report.all("opens")[-1] == report.all("opens")[0]
    assert report.one("tpl")["tpl"] == "4"


def assert_others_hold_equal(report):
    """Memory that others get for the driver to free, such as a path's text, shows only here."""
    without, beside = (int(watch["others"]) for watch in report.all("watch"))
    assert without == beside


@pytest.mark.parametrize("last", [["disconnect", "unload", "connect"], ["unload", "connect"]])
def test_nothing_is_left(rig, two_images, last):
    """Disconnected first, or unloaded while images are attached."""
    disk, _, raw = two_images
    orders = ["connect", select(part=1), "handles", "opens", "watch begin", LOAD, "connect",
              "handles", "opens", "sum child 64", "reconnect 10", "handles", "sum child 64",
              *last, "watch end", "handles", "opens", "tpl"]
    report = rig.run(orders, disk)
    assert report.one("load") == LOADED
    assert report.one("reconnect") == {"worst": "SUCCESS"}
    assert report.one("unload") == {"status": "SUCCESS"}
    before, attached, again, after = report.all("handles")
    assert (before["children"], attached["children"], after["children"]) == ("0", "2", "0")
    assert attached == again and before == after
    assert report.all("opens")[1]["ours"] == "2"
    assert [answer["crc"] for answer in report.all("sum")] == [crc(raw)] * 2
    assert_nothing_left(report)


def test_others_do_not_grow(rig, two_images):
    """What other drivers keep after ten reconnects is what they keep after one."""
    disk = two_images[0]
    orders = ["connect", select(part=1), LOAD, "connect", "opens", "reconnect 1"]
    for rounds in (1, 10):
        orders += ["watch begin", f"reconnect {rounds}", "watch end"]
    report = rig.run(orders + ["opens", "tpl"], disk)
    # The image's own events are new ones, in place of two that were there before the watch.
    assert_nothing_left(report, 2, EVENTS_OF_AN_IMAGE)
    assert_others_hold_equal(report)


def test_load_and_unload_again(rig, two_images):
    disk = two_images[0]
    one_round = [LOAD, "connect", "handles", "unload"]
    orders = ["connect", select(part=1), "opens", *one_round]
    # The firmware itself keeps a little of every connect; the driver must not add to that.
    for rounds in (["connect"] * 5, one_round * 5):
        orders += ["watch begin"] + rounds + ["watch end"]
    report = rig.run(orders + ["opens", "tpl"], disk)
    assert report.all("load") == [LOADED] * 6
    assert report.all("unload") == [{"status": "SUCCESS"}] * 6
    assert {answer["children"] for answer in report.all("handles")} == {"2"}
    assert_nothing_left(report, 2)
    assert_others_hold_equal(report)


def test_second_copy_leaves(rig, two_images):
    disk = two_images[0]
    report = rig.run(["connect", select(part=1), LOAD, "connect", "watch begin", "opens", "handles",
                      LOAD, "connect", "handles", "watch end", "opens", "tpl"], disk)
    assert report.all("load") == [LOADED, {"load": "SUCCESS", "start": "ALREADY_STARTED"}]
    first, second = report.all("handles")
    assert first == second
    assert_nothing_left(report)


def test_stop_fails(rig, two_images):
    """Somebody does not let go of a protocol: all of the image is as before, and goes later."""
    disk, content, raw = two_images
    report = rig.loaded([select(part=1), "opens", "handles", "hold", "stop", "disconnect", "unload",
                         "opens", "sum child 64", "way event", "sum child 64", "way plain",
                         "erase 0 0", "write child 100 8 1", "hold end", "disconnect", "opens",
                         "reconnect 1", "handles", "file FOLDER\\FILE.BIN", "tpl"], disk)
    assert report.all("hold") == [{"status": "SUCCESS"}] * 2
    for answer in (report.one("stop"), report.all("disconnect")[0], report.one("unload")):
        assert answer["status"] != "SUCCESS"
    assert report.all("disconnect")[1] == {"status": "SUCCESS"}
    assert [answer["ours"] for answer in report.all("opens")] == ["2", "2", "0"]
    assert [answer["crc"] for answer in report.all("sum")] == [crc(raw)] * 2
    assert report.one("erase")["status"] == report.one("write")["status"] == "SUCCESS"
    first, second = report.all("handles")
    assert first == second and first["children"] == "2"
    assert report.one("file")["crc"] == crc(content)
    assert report.one("tpl")["tpl"] == "4"


def test_whole_disk_reconnects(rig, two_images):
    """Reconnecting the disk takes its partitions, and the images on them, down and up again."""
    disk, _, raw = two_images
    report = rig.loaded([select(), "handles", "reconnect 3", "handles", select(part=1),
                         "sum child 64"], disk)
    first, second = report.all("handles")
    assert first == second and first["children"] == "2"
    assert report.one("reconnect") == {"worst": "SUCCESS"}
    assert report.one("sum")["crc"] == crc(raw)


@pytest.mark.parametrize("reads", [2, 3])
def test_stopped_while_opening(rig, reads):
    """The disk tells its users to go in the middle of an image's opening: not now, they answer."""
    image = rig.image("snapshot-v2-64k")
    report = rig.loaded([select(part=1), "disconnect", "reconnect 1", "disconnect",
                         f"interrupt {reads}", "connect", "answered", "sum child 64", "opens",
                         "disconnect", "opens", "tpl"],
                        virtio(rig.partitioned("opening", [image])))
    assert report.one("answered")["status"] != "SUCCESS"
    assert report.one("sum")["crc"] == crc(rig.content(image))
    assert [answer["ours"] for answer in report.all("opens")] == ["2", "0"]
    assert report.one("tpl")["tpl"] == "4"


def test_volume_inside(rig, two_images):
    """A file system in the image on a disk with file systems; nobody is left at a raised level."""
    disk, content, _ = two_images
    report = rig.loaded([select(part=1), "tpl", "file FOLDER\\FILE.BIN", "reconnect 1",
                         "file FOLDER\\FILE.BIN", "tpl"], disk)
    assert report.all("file") == [{"status": "SUCCESS", "bytes": str(len(content)),
                                   "crc": crc(content)}] * 2
    assert [answer["tpl"] for answer in report.all("tpl")] == ["4", "4"]


def test_said_once(rig, two_images):
    """One line an image, not again on a reconnect; again when the driver is loaded anew."""
    report = rig.loaded([select(part=1), "console", "reconnect 3", "connect", "console"],
                        two_images[0])
    lines = report.console()
    assert len(lines) == 2
    assert all(line.startswith("qcow2: PciRoot(0x0)/Pci(0x10,0x0)/HD(") for line in lines)
    assert lines[1].endswith(": 4.0 MiB, 64 KiB clusters")


def test_image_in_an_image(rig):
    """The child is a disk whose first bytes are a qcow2 header, and stays one."""
    inner = rig.image("data-v3-64k")
    outer = rig.folder / "outer.qcow2"
    disks.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", inner, outer)
    report = rig.loaded([select(), "handles", "sum child 64", "reconnect 1", "handles"],
                        virtio(outer))
    assert {answer["children"] for answer in report.all("handles")} == {"1"}
    content = inner.read_bytes()
    whole = content.ljust(-(-len(content) // 512) * 512, b"\0")
    assert report.one("sum") == {"status": "SUCCESS", "blocks": str(len(whole) // 512),
                                 "crc": crc(whole)}
