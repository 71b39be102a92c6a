# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The medium below goes, is another one, or comes back; the disk itself is unplugged.

Whatever happens to it, nothing is written to a medium that is not the one the image was opened on,
nobody waits for a disk that is not there, and what is in the disk by then gets a child of its own.
"""

import os

import pytest

import machine
import vm
from conftest import ROOM, base, crc, entry, judge_disk, select, virtio
from images import disks

SUCCESS = {"status": "SUCCESS"}
NO_MEDIA = {"status": "NO_MEDIA"}
STREAM = [f"write child {number * 128} 8 1" for number in range(40)]  # the end is not committed
GONE = ": its medium is gone: what was not flushed is lost"


@pytest.fixture(scope="module")
def volume(rig):
    """(an image with a file system in it, the file's content)"""
    inside = rig.folder / "media.bin"
    inside.write_bytes(bytes(range(241)) * 3000)
    fat = disks.make_fat(rig.folder / "media.fat", {"A.BIN": inside})
    raw = disks.write_gpt(rig.folder / "media.raw", [(disks.ESP_TYPE, fat)], name="media")
    qcow2 = rig.folder / "media.qcow2"
    disks.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, qcow2)
    return qcow2, inside.read_bytes()


@pytest.mark.parametrize("how,error", [("below changed", "MEDIA_CHANGED"),
                                       ("fault changed", "MEDIA_CHANGED"),
                                       ("fault empty", "NO_MEDIA")])
def test_fresh_child(rig, volume, how, error):
    """At the first safe moment the image goes with all above it, and what is there now is new."""
    image, content = volume
    report = rig.loaded([select(), "media child", "file A.BIN", "console", how, "read child 2048 8",
                         "read child 2048 8", "handles", "fault none", "media child", "wait 50",
                         "console", "handles", "media child", "file A.BIN", "sum child 64",
                         "opens", "tpl"],
                        virtio(image))
    assert report.all("read") == [{"status": error, "crc": "0"}, {"status": "NO_MEDIA", "crc": "0"}]
    before, lost, fresh = report.all("media")
    assert (before["present"], lost["present"], fresh["present"]) == ("1", "0", "1")
    assert before["id"] == lost["id"] != fresh["id"]
    assert report.all("handles")[0] == report.all("handles")[1]
    assert report.console()[1].endswith(GONE) and len(report.console()) == 2
    assert report.all("file") == [{"status": "SUCCESS", "bytes": str(len(content)),
                                   "crc": crc(content)}] * 2
    assert report.one("sum")["crc"] == crc(rig.content(image))
    assert report.one("opens")["ours"] == "2" and report.one("tpl")["tpl"] == "4"


def test_gone_and_back(rig, volume):
    """Without a medium there is no child; connecting the disk when it is back makes one."""
    image, content = volume
    report = rig.loaded([select(), "below gone", "file A.BIN", "wait 50", "handles", "opens",
                         "media parent", "below back", "connect", "handles", "file A.BIN", "tpl"],
                        virtio(image))
    gone, back = report.all("handles")
    assert (gone["children"], back["children"]) == ("0", "1")
    assert report.all("opens")[0]["ours"] == "0"
    failed, good = report.all("file")
    assert failed["status"] != "SUCCESS"
    assert good == {"status": "SUCCESS", "bytes": str(len(content)), "crc": crc(content)}
    assert report.one("tpl")["tpl"] == "4"


def test_nothing_is_written(rig):
    """What was not committed is dropped, though the disk, or another one, would take it again."""
    disk = rig.container("dropped", rig.image("empty-v3-64k"))
    report = rig.loaded([select(part=1), *STREAM, "fault changed", "read child 0 8", "fault none",
                         "count begin", "write child 8 8 2", "flush child", "erase 0 128",
                         "signal ready", "wait 700", "disconnect", "count end"], disk)
    assert report.all("write") == [SUCCESS] * 40 + [NO_MEDIA]
    assert report.one("flush") == NO_MEDIA
    assert report.one("erase")["status"] == "NO_MEDIA"
    assert report.one("counted") == {"writes": "0"}
    kept = judge_disk(disk, leaks=True)
    assert kept[:4096] == vm.pattern(1, 0, 8) and kept[39 * 65536:][:4096] == bytes(4096)


def test_not_while_it_is_used(rig):
    """Those who poll keep their handles: the image goes when somebody waits for an event."""
    report = rig.loaded([select(), "fault empty", "read child 1024 8", "fault none", "stall 700",
                         "handles", "read child 1024 8", "wait 50", "handles", "read child 1024 8"],
                        virtio(rig.image("data-v3-64k")))
    assert [answer["status"] for answer in report.all("read")] == ["NO_MEDIA"] * 2 + ["SUCCESS"]
    assert [answer["children"] for answer in report.all("handles")] == ["1", "1"]


def test_unplugged(rig):
    """A disk that answers nothing any more is let go, with what can never be made durable."""
    disk = rig.container("unplugged", rig.image("empty-v3-64k"))
    report = rig.loaded([select(part=1), *STREAM, "console", "fault all", "stop", "handles",
                         "disconnect", "opens", "console", "fault none", "reconnect 1", "handles",
                         "read child 0 8", "tpl"], disk)
    assert report.one("stop") == SUCCESS and report.one("disconnect") == SUCCESS
    assert [answer["children"] for answer in report.all("handles")] == ["0", "1"]
    assert report.one("opens")["ours"] == "0"
    errors = report.console()[1:]
    assert ": flush error: " in errors[0] and errors[1].endswith(GONE) and len(errors) == 2
    assert report.one("read") == {"status": "SUCCESS", "crc": crc(vm.pattern(1, 0, 8))}
    assert report.one("tpl")["tpl"] == "4"
    judge_disk(disk, leaks=True)


def test_unplugged_unwritten(rig):
    """Nothing is to be made durable there, and the flush that nobody needs stops nobody."""
    image = rig.image("data-v3-64k")
    report = rig.loaded([select(), "read child 2048 8", "console", "fault all", "stop",
                         "disconnect", "opens", "console", "fault none", "reconnect 1",
                         "sum child 64"], virtio(image))
    assert report.one("stop") == SUCCESS and report.one("disconnect") == SUCCESS
    assert report.one("opens")["ours"] == "0" and len(report.console()) == 1
    assert report.one("sum")["crc"] == crc(rig.content(image))


def test_unplugged_and_unloaded(rig):
    """Unloading does not wait for such a disk either, and leaves nothing."""
    disk = rig.container("unplugged-unload", rig.image("empty-v3-64k"))
    report = rig.loaded([select(part=1), *STREAM, "fault all", "unload", "fault none", "handles",
                         "tpl"], disk)
    assert report.one("unload") == SUCCESS
    assert report.one("handles")["children"] == "0" and report.one("tpl")["tpl"] == "4"


def test_failing_is_not_gone(rig):
    """A disk that still reads may take writes again: the image stays, as it was."""
    disk = rig.container("stays", rig.image("empty-v3-64k"))
    report = rig.loaded([select(part=1), *STREAM, "fault write", "stop", "handles", "media child",
                         "fault none", "disconnect"], disk)
    assert report.one("stop") == {"status": "DEVICE_ERROR"}
    assert report.one("handles")["children"] == report.one("media")["present"] == "1"
    assert report.one("disconnect") == SUCCESS
    assert judge_disk(disk)[39 * 65536:][:4096] == vm.pattern(1, 39 * 128, 8)


@pytest.fixture(scope="module")
def overlaid(rig):
    """(a disk with an overlay and its raw base, the content, the configuration)"""
    folder = rig.folder / "media-layers"
    folder.mkdir()
    content = rig.content(rig.image("data-v3-64k"))
    (folder / "base").write_bytes(content)
    disks.run("qemu-img", "create", "-f", "qcow2", "-b", "base", "-F", "raw", folder / "overlay")
    os.truncate(folder / "overlay", disks.round_up((folder / "overlay").stat().st_size + ROOM,
                                                   disks.MIB))
    disk = rig.partitioned("media-layers", [folder / "overlay", folder / "base"])
    return machine.Disk(disk), content, entry("a", "media-layers", 1, base("media-layers", 2))


def test_base_is_gone(rig, overlaid):
    """The medium of a base is the image's too; it returns with the base."""
    disk, content, config = overlaid
    report = rig.configured(config, [
        select(part=2), "console", "fault empty", select(part=1), "read child 1024 8",
        "media child", "flush child", "wait 50", "handles", "console", select(part=2), "fault none",
        "reconnect 1", select(part=1), "handles", "sum child 64", "tpl"], disk)
    assert report.one("read") == {"status": "NO_MEDIA", "crc": "0"}
    assert report.one("media")["present"] == "0" and report.one("flush") == NO_MEDIA
    assert [answer["children"] for answer in report.all("handles")] == ["0", "1"]
    assert sum(line.endswith(GONE) for line in report.console()) == 1
    assert report.one("sum")["crc"] == crc(content)
    assert report.one("tpl")["tpl"] == "4"


def test_lost_again(rig, overlaid):
    """An image whose data cannot be had comes back once, and not for ever."""
    disk, _, config = overlaid
    report = rig.configured(config, [
        select(part=2), "fault changed", select(part=1), "read child 1024 8", select(part=2),
        "fault late", select(part=1), "wait 700", "handles", "media child", "console", "wait 700",
        "media child", "count begin", "wait 700", "count end", "tpl"], disk)
    first, second = report.all("media")
    assert first == second and first["present"] == "0"
    assert report.one("handles")["children"] == "1" and report.all("count")[-1]["reads"] == "0"
    assert report.one("tpl")["tpl"] == "4"


def test_base_has_changed(rig, overlaid):
    """A base that is there again by the first safe moment brings its image back by itself."""
    disk, content, config = overlaid
    report = rig.configured(config, [
        select(part=2), "fault changed", select(part=1), "read child 1024 8", select(part=2),
        "fault none", select(part=1), "read child 1024 8", "wait 50", "handles", "sum child 64"],
        disk)
    assert [answer["status"] for answer in report.all("read")] == ["MEDIA_CHANGED", "NO_MEDIA"]
    assert report.one("handles")["children"] == "1"
    assert report.one("sum")["crc"] == crc(content)
