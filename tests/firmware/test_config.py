# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What the configuration makes the driver do, and what it refuses where the file does not help.

The file's language has its own tests (tests/unit/test_config.c); here it is read from the volume
that the driver comes from, in the firmware.
"""

import re

import pytest

import machine
import vm
from conftest import base, crc, entry, select
from console import Console
from images import disks
from images.menu import make_image
from menu import ENTER, UP, choose, started
from test_write import SUCCESS

NOWHERE = "0fc63daf-8483-4772-8e79-000000000000"
FORMAT_EXTENSION = b"\xe2\x79\x2a\xca"
REFUSED = ": refused: "
BACKING = "backing name refused: "


@pytest.fixture(scope="module")
def layers(rig):
    """A base, an overlay on it, one on that, and one that does not say its base's format."""
    folder = rig.folder / "layers"
    folder.mkdir()
    noise = vm.pattern(1, 0, 2048)
    (folder / "raw").write_bytes(noise)
    disks.run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "raw", "base", cwd=folder)
    for name, below in (("over", "base"), ("top", "over")):
        disks.run("qemu-img", "create", "-q", "-f", "qcow2", "-b", below, "-F", "qcow2", name,
                  cwd=folder)
    plain = (folder / "over").read_bytes()
    assert plain.count(FORMAT_EXTENSION) == 1
    (folder / "unsaid").write_bytes(plain.replace(FORMAT_EXTENSION, b"none"))
    return folder, noise


# What is on the disk "d", what the configuration says, and why part 1 is refused.
CASES = {
    "nothing": (("over", "base"), [], BACKING + "no base in the configuration"),
    "no-base": (("over", "base"), entry("a", "d", 1, "backing yes"),
                BACKING + "no base in the configuration"),
    "missing": (("over", "base"), entry("a", "d", 1, f"base {NOWHERE}"),
                BACKING + "the base is not found"),
    "itself": (("over", "base"), entry("a", "d", 1, base("d", 1)),
               BACKING + "no base in the configuration"),
    "format": (("over", "base"), entry("a", "d", 1, base("d", 2) + " raw"),
               BACKING + "image and configuration differ on the format"),
    "unsaid": (("unsaid", "base"), entry("a", "d", 1, base("d", 2)), BACKING + "no format given"),
    "foreign": (("over", "raw"), entry("a", "d", 1, base("d", 2)), "layer 1: not a qcow2 image"),
    "middle": (("top", "over", "base"), entry("a", "d", 1, base("d", 2)),
               "layer 1: " + BACKING + "no base in the configuration"),
    "circle": (("top", "over", "over"),
               entry("a", "d", 1, base("d", 2)) + entry("b", "d", 2, base("d", 3))
               + entry("c", "d", 3, base("d", 2)),
               "layer 2: " + BACKING + "the base lies above itself"),
}


@pytest.mark.parametrize("name", CASES)
def test_refused(rig, layers, name):
    """One line that says why, no child, no byte written, and the disk stays usable."""
    names, config, reason = CASES[name]
    disk = vm.Kept(rig.partitioned("d", [layers[0] / part for part in names]),
                   slot=vm.SLOTS["virtio"])
    before = disk.path.read_bytes()
    report = rig.configured(config, [select(part=1), "start", "handles", "console", "sum parent 64",
                                     "reconnect 1", "console", "unload", "tpl"], disk)
    refusals = [line for line in report.console() if REFUSED in line]
    assert [line.split(REFUSED)[1] for line in refusals if "/HD(1,GPT," in line] == [reason]
    status = "VOLUME_CORRUPTED" if name == "foreign" else "ACCESS_DENIED"
    assert report.one("start") == {"supported": "SUCCESS", "started": status, "child": "0"}
    assert report.one("sum")["crc"] == crc(disks.partition_bytes(disk.path, 1))
    assert report.one("unload") == SUCCESS and report.one("tpl")["tpl"] == "4"
    assert disk.path.read_bytes() == before


def test_several_partitions_are_the_base(rig, layers):
    """A copy of the base's disk has the same GUIDs: neither is trusted."""
    overlay = machine.Disk(rig.partitioned("above", [layers[0] / "over"]))
    copies = [machine.Disk(rig.partitioned("below", [layers[0] / "base"]), device)
              for device in ("usb", "ahci")]
    config = entry("a", "above", 1, base("below", 1))
    report = rig.configured(config, [select(part=1), "start", "console"], overlay, *copies)
    assert report.one("start")["started"] == "ACCESS_DENIED"
    refusals = [line for line in report.console() if REFUSED in line]
    assert len(refusals) == 1
    assert refusals[0].endswith(REFUSED + BACKING + "several partitions are the base")


def test_base_inside_an_image(rig, layers):
    """A partition of an image's own disk is nobody's base."""
    inner = rig.partitioned("inner", [layers[0] / "base"])
    disks.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", inner, layers[0] / "outer")
    disk = machine.Disk(rig.partitioned("inside", [layers[0] / "over", layers[0] / "outer"]))
    report = rig.configured(entry("a", "inside", 1, base("inner", 1)),
                            ["handles", select(part=1), "start", "console"], disk)
    assert report.one("handles")["children"] == "1"
    assert report.one("start")["started"] == "ACCESS_DENIED"
    refusals = [line for line in report.console() if REFUSED in line]
    assert [line.split(REFUSED)[1] for line in refusals] == [BACKING + "the base is not found"]


def test_format_from_the_configuration(rig, layers):
    disk = machine.Disk(rig.partitioned("said", [layers[0] / "unsaid", layers[0] / "base"]))
    report = rig.configured(entry("a", "said", 1, base("said", 2) + " qcow2"),
                            [select(part=1), "sum child 64"], disk)
    assert report.one("sum")["crc"] == crc(layers[1])


@pytest.mark.parametrize("key,words", [
    ("readonly yes", "read-only"), ("temporary yes", "read-only"),
])
def test_read_only(rig, key, words):
    """The image is not written, and the line says so; nothing else changes."""
    image = rig.image("data-v3-64k")
    disk = vm.Kept(rig.partitioned("ro", [image]), slot=vm.SLOTS["virtio"])
    before = disk.path.read_bytes()
    report = rig.configured(entry("a", "ro", 1, key),
                            [select(part=1), "console", "media child", "write child 0 8 1",
                             "sum child 64", "unload"], disk)
    assert [line.split(": ")[-1] for line in report.console()] == [
        "4.0 MiB, 64 KiB clusters, " + words]
    assert report.one("media")["readonly"] == "1"
    assert report.one("write") == {"status": "WRITE_PROTECTED"}
    assert report.one("sum")["crc"] == crc(rig.content(image))
    assert disk.path.read_bytes() == before


@pytest.fixture(scope="module")
def snapshots(rig):
    """An image with two snapshots, and what its disk held at each and holds now."""
    path, contents = rig.folder / "snapshots.qcow2", []
    disks.run("qemu-img", "create", "-q", "-f", "qcow2", path, "1M")
    for number, name in enumerate(("before the upgrade", "\N{SNOWMAN}", None)):
        disks.run("qemu-io", "-f", "qcow2", "-c", f"write -q -P {number + 1} {number * 65536} 300k",
                  path)
        raw = rig.folder / f"snapshots.{number}"
        disks.run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, raw)
        contents.append(raw.read_bytes())
        if name:
            disks.run("qemu-img", "snapshot", "-c", name, path)
    return path, contents


@pytest.mark.parametrize("key,number,words", [
    ("snapshot before the upgrade # a comment", 0, ", snapshot before the upgrade: read-only"),
    ("snapshot 2", 1, ", snapshot 2: read-only"),
    (None, 2, " clusters"),
], ids=["name", "id", "now"])
def test_snapshot(rig, snapshots, key, number, words):
    """The disk as it was, which takes no writes; without the key, as it is now."""
    disk = vm.Kept(rig.partitioned("shot", [snapshots[0]]), slot=vm.SLOTS["virtio"])
    before = disk.path.read_bytes()
    report = rig.configured(entry("a", "shot", 1, *([key] if key else [])),
                            [select(part=1), "console", "media child", "sum child 64",
                             *(["write child 0 8 1"] if key else []), "unload"], disk)
    assert report.console()[0].endswith(words) and len(report.console()) == 1
    assert report.one("media")["readonly"] == ("1" if key else "0")
    assert report.one("sum")["crc"] == crc(snapshots[1][number])
    if key:
        assert report.one("write") == {"status": "WRITE_PROTECTED"}
    assert report.one("unload") == SUCCESS
    assert disk.path.read_bytes() == before


def test_missing_snapshot(rig, snapshots):
    """No other state is shown in place of the one that was asked for."""
    disk = machine.Disk(rig.partitioned("shot", [snapshots[0]]))
    report = rig.configured(entry("a", "shot", 1, "snapshot before"),
                            [select(part=1), "start", "handles", "console", "tpl"], disk)
    assert report.one("start") == {"supported": "SUCCESS", "started": "NOT_FOUND", "child": "0"}
    assert report.one("handles")["children"] == "0" and report.one("tpl")["tpl"] == "4"
    assert [line.split(REFUSED)[1] for line in report.console()] == ["no snapshot before"]


def test_backing_off(rig, layers):
    """The overlay alone: what it does not hold reads as zeros, and nothing can be written."""
    disk = machine.Disk(rig.partitioned("off", [layers[0] / "over"]))
    report = rig.configured(entry("a", "off", 1, "backing no"),
                            [select(part=1), "console", "media child", "sum child 64"], disk)
    assert report.one("sum")["crc"] == crc(bytes(len(layers[1])))
    assert report.one("media")["readonly"] == "1"
    assert "read-only" in report.console()[0]


def test_bad_lines(rig):
    """Each is named by its number, and what is good among them counts."""
    image = rig.image("data-v3-64k")
    disk = machine.Disk(rig.partitioned("bad", [image]))
    first, second, third = entry("a", "bad", 1, "readonly yes")
    report = rig.configured(["colour blue", first, "# a comment", "partition 7", second,
                             "readonly maybe", third], ["console", select(part=1), "media child"],
                            disk)
    lines = [line.split("qcow2.conf ")[1] for line in report.console() if "qcow2.conf" in line]
    assert lines == ["line 1 skipped: unknown key",
                     "line 4 skipped: a partition's GUID is expected",
                     "line 6 skipped: yes or no is expected"]
    assert report.console()[0].startswith("qcow2: PciRoot(0x0)/Pci(0xF,0x0)/HD(1,GPT,")
    assert report.one("media")["readonly"] == "1"


def test_many_bad_lines(rig):
    report = rig.configured([f"nonsense {number}" for number in range(20)], ["console"])
    lines = [line.split("qcow2.conf ")[1] for line in report.console()]
    assert lines[:16] == [f"line {number} skipped: unknown key" for number in range(1, 17)]
    assert lines[16:] == ["4 more lines skipped"]


@pytest.mark.parametrize("length,words", [
    (16383, "line 1 skipped: the line is longer than 512 bytes"),
    (16384, "is not used: larger than 16 KiB"),
])
def test_long_file(rig, length, words):
    """16 KiB are read, and not one byte more; the agent writes them as one comment."""
    report = rig.configured([f"# {length}"], ["console"])
    assert [line.split("qcow2.conf ")[1] for line in report.console()] == [words]


MISTAKES = [
    ("colour blue", "unknown key"),
    ("readonly yes", "the key belongs behind an image line"),
    ("timeout soon", "a number of seconds, 0 to 3600, is expected"),
    ("image no place", "a name has no blanks"),
    ("image first", None),
    ("file images\\a.qcow2", "a path that begins with \\ is expected"),
    (f"partition {disks.partition_guid('first', 1)}", None),
    ("file \\a.qcow2", "file and partition exclude each other"),
    ("base 7", "a partition's GUID is expected"),
    ("headroom much", "a size such as 2G is expected"),
    ("backing maybe", "yes or no is expected"),
    ("loader", "the key has no value"),
    ("image first", "there is an image of this name"),
    ("readonly yes", None),  # of the one that was refused
    ("image second", None),
    (f"partition {disks.partition_guid('second', 1)}", None),
    ("autosnapshot all", "a number of snapshots to keep, 0 to 64, is expected"),
    ("default third", "there is no image of this name"),
    ("image missing", None),
    ("file \\nowhere.qcow2", None),
]


def test_mistakes(rig, tmp_path):
    """Each kind is told with its line, and every good entry boots, in the boot program's menu."""
    wrong = [(number, why) for number, (_, why) in enumerate(MISTAKES, 1) if why]
    assert len({why for _, why in wrong}) >= 12
    images = [make_image(tmp_path, name) for name in ("first", "second")]
    command = started(tmp_path, rig.build, [line for line, _ in MISTAKES],
                      attached=[machine.Disk(disks.write_gpt(
                          tmp_path / f"{path.stem}.gpt", [(disks.DATA_TYPE, path)],
                          name=path.stem), slot=slot) for slot, path in enumerate(images, 0x11)])
    with Console(command, tmp_path) as console:
        console.wait("Starts in")
        said = re.findall(r"qcow2\.conf line (\d+) skipped: (.*)\n", console.text)
        assert sorted((int(number), why) for number, why in said) == wrong
        assert "more lines skipped" not in console.text
        console.wait("inside first")
    with Console(command, tmp_path) as console:
        choose(console, "missing", steps=2)
        console.type(ENTER)
        console.wait("missing: not found: \\\\nowhere.qcow2")
        console.wait("Esc: leave")
        console.type(UP)
        console.wait("> second")
        console.type(ENTER)
        console.wait("inside second")
