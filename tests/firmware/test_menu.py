# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The boot program's menu on the serial line and on the screen, and what its entries ask for."""

import os
import re
import shutil
import struct
import subprocess
import time

import pytest

import machine
import rollback
from conftest import judge
from console import PROMPT, Console
from images import disks, loaders
from images.menu import make_image
from images.rollback import overwrite
from menu import DOWN, ENTER, ESC, UP, choose, started
from picture import SCREEN
from terminal import Terminal

SLOT = 0x11  # of the disks with an image on a partition
LETTER_ROWS = 19  # of the firmware's font
FILE = "file \\vm\\{}.qcow2"
COUNTS = "load_env\necho \"boots are [$boots]\"\nset boots=\"x$boots\"\nsave_env boots\n"
BLANKS = r"\s{40}"  # what a row ends with
KEY_BYTES_MAX = 400  # that a step in the menu sends over the line
CLUSTER = 65536
LISTED = 16  # rows of the list on such a terminal
MENU_ROWS_MAX = 256
KEYS = "Up, Down: choose   Enter: boot it read-only   r: go back to it   Esc: back"


def image_of(folder, content, name):
    """The image of that file on the machine's own volume, as it is now."""
    taken = folder / f"{name}.taken"
    volume = folder / "taken.fat"
    volume.write_bytes(disks.partition_bytes(content, 1))
    disks.run("mcopy", "-n", "-o", "-i", volume, f"::vm/{name}", taken)
    return taken


def snapshots(qcow2):
    """The names of its snapshots."""
    listed = subprocess.run(["qemu-img", "snapshot", "-l", qcow2], capture_output=True, text=True,
                            timeout=60, check=True).stdout
    return [line.split()[1] for line in listed.splitlines()[2:]]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Images that say which one they are."""
    folder = tmp_path_factory.mktemp("menu")
    return {name: make_image(folder, name) for name in ("one", "two")}


def entries(*names, first=()):
    lines = list(first)
    for name in names:
        lines += [f"image {name}", FILE.format(name)]
    return lines


def test_keys(rig, tmp_path, made):
    """Up and down, over both ends; what is sent is what changed; Esc leaves to who started it."""
    command = started(tmp_path, rig.build, entries("one", "two", "three", first=["default two"]),
                      made.values())
    with Console(command, tmp_path) as console:
        console.wait(" > two")
        console.wait("Starts in 3 s")
        console.type(DOWN)
        console.wait(" > three")
        sent = len(console.text)
        console.type(DOWN)
        assert "two" not in console.wait(" > one")
        console.type(UP)
        console.wait(" > three")
        assert len(console.text) - sent < KEY_BYTES_MAX
        console.type(ENTER)
        console.wait(r"three: not found: \\vm\\three.qcow2")
        console.wait(" > three")
        assert "Starts in" not in console.wait("Esc: leave")
        console.type(ESC)
        console.enter_shell()
        console.type("fs0:\\EFI\\BOOT\\BOOTX64.EFI boot\r")
        console.wait(" > two")
        console.type(ESC)
        console.wait(PROMPT)
        assert "(0x1)" in console.shell("echo (%lasterror%)")


def test_clock(rig, tmp_path, made):
    """Nobody types: the default is not there, the next one boots."""
    command = started(tmp_path, rig.build,
                      entries("one", "three", first=["timeout 2", "default three"]), made.values())
    with Console(command, tmp_path) as console:
        console.wait("Starts in 1 s")
        console.wait(r"three: not found: \\vm\\three.qcow2")
        console.wait(" > one")
        console.wait("Starts in 2 s")
        console.wait("inside one")


def test_at_once(rig, tmp_path):
    """Without time for a menu there is none, but before the firmware goes on alone."""
    command = started(tmp_path, rig.build, entries("one", "two", first=["timeout 0"]))
    with Console(command, tmp_path) as console:
        said = console.wait("Gives up in 10 s")
        assert [name for name in re.findall(r"(\w+): not found", said)] == ["one", "two"]
        assert said.count("choose an image") == 1
        console.wait("no volume of a qcow2 image has ")
        console.wait("BdsDxe: |Shell> ")


def test_screen(rig, tmp_path, made):
    """The same on a screen, with its keyboard."""
    command = started(tmp_path, rig.build, entries("one", "two", first=["timeout 60"]),
                      made.values())
    with Console(command + SCREEN, tmp_path) as console:
        console.wait("Starts in")
        pictures = []
        for key, name in (("down", "two"), ("up", "one")):
            console.ask("send-key", keys=[{"type": "qcode", "data": key}])
            console.wait(f" > {name}")
            console.wait(BLANKS)
            pictures.append(shot(console, tmp_path / name))
        console.ask("send-key", keys=[{"type": "qcode", "data": "ret"}])
        console.wait("inside one")
    changed = changed_rows(*pictures)
    assert changed and max(changed) - min(changed) < 2 * LETTER_ROWS


def shot(console, path):
    """The rows of the screen, each as bytes."""
    console.ask("screendump", filename=str(path))
    head, size, _, pixels = path.read_bytes().split(b"\n", 3)
    width = int(size.split()[0])
    assert head == b"P6" and len(set(pixels)) > 1
    return [pixels[at:at + 3 * width] for at in range(0, len(pixels), 3 * width)]


def changed_rows(before, after):
    return [number for number, rows in enumerate(zip(before, after)) if rows[0] != rows[1]]


def test_snapshots(rig, tmp_path):
    """A snapshot's state boots read-only; going back to one is asked for once, and then is so."""
    image = make_image(tmp_path, "state-old")
    disks.run("qemu-img", "snapshot", "-c", "upgrade", image)
    overwrite(image, tmp_path / "state-old.disk", b"inside state-old", b"inside state-new")
    disks.run("qemu-img", "snapshot", "-c", "newer", image)
    command = started(tmp_path, rig.build, entries("state-old", first=["timeout 60"]), [image])
    with Console(command, tmp_path) as console:
        console.wait("Starts in")
        console.type("s")
        console.wait(" > [^\n]*newer")
        console.type(UP)
        console.wait(" > [^\n]*upgrade")
        console.type("r")
        console.wait("what is newer is lost. y: yes")
        console.type("n")
        assert "is what it was" not in console.wait("Esc: leave")
        console.type("s")
        console.wait("Esc: back")
        console.type(UP + ENTER)
        console.wait("snapshot 1: read-only")
        console.wait("inside state-old")
    with Console(command, tmp_path) as console:
        console.wait("Starts in")
        console.type("s")
        console.wait("Esc: back")
        console.type(UP + "r")
        console.wait("y: yes")
        console.type("y")
        console.wait("state-old is what it was: [^\n]*upgrade")
        console.wait("Esc: leave")
        console.type(ENTER)
        console.wait("inside state-old")
    judge(image_of(tmp_path, tmp_path / "machine.raw", "state-old.qcow2"))


def test_autosnapshot(rig, tmp_path):
    """One before each boot, of which the newest are kept, and all that have other names."""
    image = make_image(tmp_path, "auto")
    for name in ("boot-20200101-000000", "mine", "boot-20200102-000000", "boot-1"):
        disks.run("qemu-img", "snapshot", "-c", name, image)
    overwrite(image, tmp_path / "auto.disk", b"inside auto", b"inside anew")
    disk = rig.container("auto", image, slot=SLOT)
    lines = ["timeout 0", "image auto", f"partition {disks.partition_guid('auto', 1)}",
             "autosnapshot 2"]
    command = started(tmp_path, rig.build, lines, attached=[disk])
    with Console(command, tmp_path) as console:
        said = console.wait(r"auto: snapshot boot-\d{8}-\d{6}")
        console.wait("inside anew")
    after = tmp_path / "after.qcow2"
    after.write_bytes(disks.partition_bytes(disk.path, 1))
    judge(after)
    assert snapshots(after) == ["mine", "boot-20200102-000000", "boot-1", said.split()[-1]]


def test_autosnapshot_of_nothing(rig, tmp_path):
    """Boots that write nothing make none and drop none; the one after a write does again."""
    disk = rig.container("auto", make_image(tmp_path, "auto", COUNTS), slot=SLOT)
    place = [f"partition {disks.partition_guid('auto', 1)}", "autosnapshot 2"]
    lines = ["timeout 60", "image idle", *place, "loader \\EFI\\none.efi", "image busy", *place]
    command = started(tmp_path, rig.build, lines, attached=[disk])
    with Console(command, tmp_path) as console:
        console.wait("Starts in")
        console.type(ENTER)
        first = console.wait(r"idle: snapshot boot-\d{8}-\d{6}").split()[-1]
        console.wait("Esc: leave")
        console.type(ENTER)
        console.wait(f"idle: nothing was written since {first}")
        console.wait("Esc: leave")
        console.type(DOWN + ENTER)
        console.wait(f"busy: nothing was written since {first}")
        console.wait("inside auto")
    with Console(command, tmp_path) as console:
        console.wait("Starts in")
        console.type(ENTER)
        second = console.wait(r"idle: snapshot boot-\d{8}-\d{6}").split()[-1]
        console.wait("no volume of a qcow2 image")
    after = tmp_path / "after.qcow2"
    after.write_bytes(disks.partition_bytes(disk.path, 1))
    judge(after, leaks=True)  # the busy one's power was cut
    assert snapshots(after) == [first, second] and first != second


def make_states(folder, count):
    """An image with so many snapshots s1, s2, ... of nothing, a second apart, of one L1 table."""
    path = folder / f"of{count}.qcow2"
    disks.run("qemu-img", "create", "-q", "-f", "qcow2", path, 8 * disks.MIB)
    image = bytearray(path.read_bytes().ljust(4 * CLUSTER, b"\0"))
    table = b""
    for number in range(1, count + 1):
        id_, name = f"{number}".encode(), f"s{number}".encode()
        table += struct.pack(">QIHHIIQIIQQQ", 4 * CLUSTER, 1, len(id_), len(name), number, 0, 0, 0,
                             24, 0, 8 * disks.MIB, 2 ** 64 - 1) + id_ + name
        table += bytes(-len(table) % 8)
    assert len(table) <= CLUSTER
    image[60:72] = struct.pack(">IQ", count, 5 * CLUSTER)
    counts = int.from_bytes(image[CLUSTER:CLUSTER + 8], "big") + 2 * 4
    image[counts:counts + 4] = struct.pack(">HH", count, 1)
    path.write_bytes(image + bytes(CLUSTER) + table.ljust(CLUSTER, b"\0"))
    judge(path)
    return path


class States:
    """The menu of an image's snapshots, on a terminal."""

    def __init__(self, console, count):
        self.console, self.terminal, self.fed = console, Terminal(), 0
        self.count, self.selected = count, count
        self.first = max(count - MENU_ROWS_MAX, 0) + 1
        self.top = count - LISTED + 1

    def is_seen(self):
        """Whether all of the menu is in sight as it should be, and nothing else of it."""
        self.terminal.feed(self.console.raw[self.fed:].decode("latin-1"))
        self.fed = len(self.console.raw)
        wanted = ["qcow2: snapshots", ""]
        for number in range(self.top, self.top + LISTED):
            date = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(number))
            wanted.append(f"{' > ' if number == self.selected else '   '}{date}  s{number}")
        rows = self.terminal.rows()
        return rows[-len(wanted) - 4:] == wanted + ["", KEYS, "", ""]

    def step(self, key, count=1):
        """Rows up or down, over both ends; each is looked at."""
        for _ in range(count):
            self.console.type(key)
            self.selected += 1 if key == DOWN else -1
            if self.selected < self.first:
                self.selected = self.count
            if self.selected > self.count:
                self.selected = self.first
            self.top = max(min(self.top, self.selected), self.selected - LISTED + 1)
            self.console.wait_for(self.is_seen, 30)


def test_more_than_rows(rig, tmp_path):
    """Lists longer than a terminal: every step shows what it should, and what is chosen boots.

    Of more than a menu takes the newest are there.
    """
    counts = (40, 300)
    lines = ["timeout 60"]
    for count in counts:
        lines += [f"image of{count}", FILE.format(f"of{count}"), "loader \\EFI\\none.efi"]
    command = started(tmp_path, rig.build, lines, [make_states(tmp_path, n) for n in counts])
    with Console(command, tmp_path) as console:
        console.wait("Starts in")
        console.type(ESC)
        console.enter_shell()
        console.type("mode 80 25\r")
        console.wait(PROMPT)
        console.type("fs0:\\EFI\\BOOT\\BOOTX64.EFI boot\r")
        console.wait("Esc: leave")
        for count in counts:
            console.type("s")
            said = console.wait("Esc: back")
            assert ("too many snapshots" in said) == (count > MENU_ROWS_MAX)
            states = States(console, count)
            console.wait_for(states.is_seen, 30)
            states.step(UP, LISTED + 3)
            states.step(DOWN, LISTED + 4)  # to the first
            states.step(DOWN, LISTED + 2)
            states.step(UP, LISTED + 3)  # to the last
            states.step(DOWN, 2)
            console.type(ENTER)
            console.wait(f"snapshot {states.first + 1}: read-only")
            console.wait("no volume of a qcow2 image has")
            console.wait("Esc: leave")
            console.type(DOWN)


def test_temporary_and_headroom(rig, tmp_path):
    """What is written to a temporary one is gone at the next boot; room is made where asked for."""
    image = make_image(tmp_path, "counts", COUNTS)
    lines = ["timeout 60", "image try", FILE.format("counts"), "temporary yes",
             "image keep", FILE.format("counts"), "headroom 3M"]
    command = started(tmp_path, rig.build, lines, [image])
    before = image_of(tmp_path, tmp_path / "machine.raw", "counts.qcow2").read_bytes()
    with Console(command, tmp_path) as console:
        console.wait("Starts in")
        console.type(ENTER)
        console.wait(r"boots are \[\]")
        console.wait("inside counts")
    same = image_of(tmp_path, tmp_path / "machine.raw", "counts.qcow2")
    assert same.read_bytes() == before
    with Console(command, tmp_path) as console:
        choose(console, "keep")
        console.type(ENTER)
        console.wait(r"boots are \[\]")
        console.wait("inside counts")
    after = image_of(tmp_path, tmp_path / "machine.raw", "counts.qcow2")
    assert len(before) < image.stat().st_size + 2 * disks.MIB < after.stat().st_size
    content = judge(after, leaks=True)
    assert b"\nboots=x\n" in loaders.take_file(content, tmp_path, "EFI/BOOT/grubenv")


def test_partition_twice(rig, tmp_path, made):
    """Two entries for one partition: each is attached in its own way, and temporary is told.

    Two partitions of one GUID, as a copy of a disk has: neither boots.
    """
    attached = [rig.container("twice", made["one"], slot=SLOT),
                rig.container("copied", made["two"], slot=SLOT + 1)]
    copy = shutil.copyfile(attached[1].path, tmp_path / "copy.raw")
    attached.append(machine.Disk(copy, slot=SLOT + 2))
    place, copied = (f"partition {disks.partition_guid(name, 1)}" for name in ("twice", "copied"))
    lines = ["timeout 60", "image plain", place, "image frozen", place, "temporary yes",
             "image other", place, "loader \\EFI\\none.efi", "image copied", copied]
    command = started(tmp_path, rig.build, lines, attached=attached)
    with Console(command, tmp_path) as console:
        choose(console, "copied", UP)
        for key in (ENTER, "s"):
            console.type(key)
            console.wait("copied: several partitions have its GUID")
            console.wait("Esc: leave")
        console.type(UP)
        console.wait(" > other")
        console.type(ENTER)
        console.wait(r"no volume of a qcow2 image has \\EFI\\none.efi")
        console.wait("Esc: leave")
        console.type(UP)
        console.wait(" > frozen")
        console.type(ENTER)
        console.wait("temporary needs an image in a file: it is read-only")
        console.wait("64 KiB clusters, read-only")
        console.wait("inside one")


def test_rollback(build, capsys):
    """What `make run IMAGE=rollback` does."""
    assert rollback.run(build) is None
    assert f"{os.linesep}run: typing r" in capsys.readouterr().out
