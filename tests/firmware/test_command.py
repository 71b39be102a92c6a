# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The command in the EFI shell: every verb, right and wrong, beside qemu-img where it has the verb.

All tests of the file type into one machine, one after another; the last one looks at the disk when
the machine has ended.
"""

import json
import os
import re
import struct
import subprocess

import pytest

import logwrites
import machine
import shells
from conftest import judge
from images import disks

MIB = 1 << 20
SECTOR, CLUSTER = 512, 65536
FAT_CLUSTER = shells.CLUSTER_SECTORS * SECTOR
IMAGES = r"\images"
REPORTED = ("plain", "over", "v2", "packed", "hurt")
TIMEOUT_S = 60
WHOLE = "PciRoot(0x0)/Pci(0x11,0x0)"
BREAK = "\x03"
SNAPSHOTS_COUNT = 30
STRANGE = "\\\U0001f4be\\\u00fc.qcow2"  # names not of ASCII: one of them not even of UCS-2
NAMES = rf"""@echo -off
mkdir {STRANGE[:2]}
cp \images\lists.qcow2 fs0:{STRANGE}
qcow2 attach {STRANGE}
echo %lasterror% > \statuses
qcow2 list > \listed
qcow2 detach {STRANGE[:-5]}QCOW2
echo %lasterror% >> \statuses
qcow2 list >> \listed
qcow2 snapshot -c é {STRANGE}
echo %lasterror% >> \statuses
cp {STRANGE} fs0:\images\names.qcow2
"""
ABORTED, FAILED, CORRUPT, LEAKS = 0x15, 1, 2, 3


def create(path, *words):
    disks.run("qemu-img", "create", "-f", "qcow2", *words[:-1], path, words[-1])


def fill(path, *commands):
    words = [word for command in commands for word in ("-c", command)]
    disks.run("qemu-io", "-f", "qcow2", *words, path)


def set_count(path, cluster, count):
    """Puts a number into the image's only block of 16-bit counts."""
    with open(path, "r+b") as image:
        image.seek(48)
        table = struct.unpack(">Q", image.read(8))[0]
        image.seek(table)
        block = struct.unpack(">Q", image.read(8))[0]
        image.seek(block + 2 * cluster)
        image.write(struct.pack(">H", count))


def make_images(folder):
    """{name: path} of all that the volume gets."""
    made = {name: folder / f"{name}.qcow2"
            for name in (*REPORTED, "leaks", "long", "disk", "lists", "pages", "short", "grown")}
    create(made["plain"], "32M")
    fill(made["plain"], "write -P 1 0 1M", "write -P 2 9M 128k", "write -z 12M 1M")
    disks.run("qemu-img", "snapshot", "-c", "first", made["plain"])
    create(made["over"], "-b", "plain.qcow2", "-F", "qcow2", "32M")
    fill(made["over"], "write -P 3 64k 64k", "discard 9M 64k")
    create(made["v2"], "-o", "compat=0.10,cluster_size=4096", "8M")
    fill(made["v2"], "write -P 1 0 1M")
    disks.run("qemu-img", "convert", "-c", "-O", "qcow2", made["plain"], made["packed"])
    for name, cluster, count in (("leaks", 30, 1), ("hurt", 5, 0)):
        create(made[name], "16M")
        fill(made[name], "write -P 1 0 1M")
        with open(made[name], "r+b") as image:
            image.truncate(64 << 16)
        set_count(made[name], cluster, count)
    create(made["lists"], "8M")
    for name in ("short", "grown"):  # ends within a cluster, behind which it reads as zeros
        create(made[name], "8M")
        fill(made[name], "write -P 1 0 20k")
        os.truncate(made[name], os.path.getsize(made[name]) - (40 << 10))
    create(made["pages"], "64M")
    fill(made["pages"], *(f"write -P 1 {number * 128}k 64k" for number in range(60)))
    create(made["long"], "-o", "cluster_size=512", "64M")
    fill(made["long"], "write -P 1 0 8M")
    for number in range(SNAPSHOTS_COUNT):
        disks.run("qemu-img", "snapshot", "-c", f"s{number}", made["long"])
    content = folder / "hello"
    content.write_bytes(b"hello\n")
    inside = disks.make_fat(folder / "inside.fat", {"HELLO.TXT": content})
    raw = disks.write_gpt(folder / "inside.raw", [(disks.ESP_TYPE, inside)], name="inside")
    disks.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, made["disk"])
    return made


@pytest.fixture(scope="module")
def images(rig):
    folder = rig.folder / "command"
    folder.mkdir()
    return make_images(folder)


def shape(volume):
    """Of a FAT32 volume: bytes in front of its table, bytes of that, and where cluster 2 is."""
    sectors, tables, table_sectors = (*struct.unpack_from("<HB", volume, 14),
                                      *struct.unpack_from("<I", volume, 36))
    return sectors * SECTOR, table_sectors * SECTOR, (sectors + tables * table_sectors) * SECTOR


def put_on_page(volume, source, name, folder):
    """A file behind one that fills the page before; what is behind it is free."""
    content, filler = volume.read_bytes(), folder / "filler"
    table_off, table_bytes, _ = shape(content)
    used = (len(content[table_off:table_off + table_bytes].rstrip(b"\0")) + 3) // 4 - 2
    filler.write_bytes(bytes(-used * FAT_CLUSTER % disks.FAT_PAGE_BYTES + disks.FAT_PAGE_BYTES))
    disks.run("mcopy", "-i", volume, filler, "::filler")
    disks.run("mcopy", "-i", volume, source, f"::{name}")


@pytest.fixture(scope="module")
def shell(rig, images):
    folder = rig.folder / "command"
    note = folder / "note"
    note.write_bytes(b"note\n" * 100)
    script = folder / "names.nsh"
    script.write_bytes(NAMES.replace("\n", "\r\n").encode("utf-16"))
    files = {f"images/{name}.qcow2": shells.dense(path, folder / f"dense-{name}")
             for name, path in images.items() if name != "grown"}
    files |= {"images/note": note, "names.nsh": script, **shells.programs(rig.build)}
    volume = shells.make_volume(folder / "esp.fat", files)
    put_on_page(volume, images["grown"], "images/grown.qcow2", folder)
    disk = disks.write_gpt(folder / "esp.raw", [(disks.ESP_TYPE, volume)], name="command")
    log = logwrites.create(folder / "esp.log")
    whole = folder / "whole.raw"
    shells.dense(images["disk"], whole)
    os.truncate(whole, 64 * MIB)
    with shells.started(folder, machine.Disk(disk, slot=0x10, log=log),
                        machine.Disk(whole, slot=0x11)) as console:
        console.enter_shell()
        typed = shells.Shell(console, disk, folder)
        typed.run("fs0:")
        typed.run(r"cd \EFI\qcow2")
        typed.log, typed.before = log, volume
        yield typed


def test_reserve_under_cuts(shell, images):
    """The first of all, while the room behind the file is free: it moves, then it is extended.

    After every write that the disk got, what of the image is in its file is right.
    """
    for size in ("1M", "1216K"):
        shell.fresh(rf"qcow2 reserve {IMAGES}\grown.qcow2 {size}")
    image = images["grown"].read_bytes()
    image = image.ljust(-(-len(image) // CLUSTER) * CLUSTER, b"\0")
    volume, found = bytearray(shell.before.read_bytes()), []
    data_off = shape(volume)[2]
    for write in logwrites.entries(shell.log):
        off = write.off - disks.ALIGN
        volume[off:off + len(write.data)] = write.data
        at = volume.find(b"GROWN~1 QCO")
        if at < 0:
            continue  # the one of another name is whole
        high, low, size = struct.unpack_from("<H4xHI", volume, at + 20)
        off = data_off + ((high << 16 | low) - 2) * FAT_CLUSTER
        of_image = min(size, len(image))
        assert volume[off:off + of_image] == image[:of_image]
        found.append((off, size))
    moved = found[-1][0], len(image) + MIB
    assert set(found) == {found[0], moved, (moved[0], moved[1] + (192 << 10))}
    assert found[0][0] != moved[0] and found[0][1] < len(image)


def told_by_qemu(folder, *words):
    """(exit status, what qemu-img says)"""
    done = subprocess.run(["qemu-img", *words], capture_output=True, text=True, check=False,
                          timeout=TIMEOUT_S, cwd=folder, env={**os.environ, "TZ": "UTC"})
    return done.returncode, done.stdout


def without_places(answer):
    """Names of files, and what they take on their volume, are the volume's."""
    if isinstance(answer, list):
        return [without_places(part) for part in answer]
    if not isinstance(answer, dict):
        return answer
    places = ("filename", "full-backing-filename", "actual-size", "file")
    return {key: without_places(value) for key, value in answer.items() if key not in places}


@pytest.mark.parametrize("name", REPORTED)
@pytest.mark.parametrize("verb", ["info", "check", "map"])
def test_json(shell, images, verb, name):
    """The same fields and exit status as qemu-img's, of a file without holes."""
    host = shell.folder / "reported"
    host.mkdir(exist_ok=True)
    for part in ("plain", name):
        shells.dense(images[part], host / f"{part}.qcow2")
    status, told = told_by_qemu(host, verb, "--output=json", f"{name}.qcow2")
    said = shell.run(rf"qcow2 {verb} --output=json {IMAGES}\{name}.qcow2")
    assert without_places(json.loads("\n".join(said))) == without_places(json.loads(told))
    assert shell.status() == status


@pytest.mark.parametrize("words", [("info",), ("snapshot", "-l"), ("check",), ("map",)],
                         ids=lambda words: words[0])
def test_text(shell, images, words):
    """The same lines, but for names and what the file takes."""
    def comparable(lines):
        lines = [line.rstrip() for line in lines if not line.startswith(("image:", "disk size:"))]
        return [re.sub(r"\S*plain.qcow2", "plain", line) for line in lines]

    status, told = told_by_qemu(shell.folder, *words, images["plain"])
    said = shell.run(rf"qcow2 {' '.join(words)} {IMAGES}\plain.qcow2")
    assert comparable(said) == comparable(told.splitlines())
    assert shell.status() == status


WRONG = {
    "frob": "no such verb: frob; qcow2 alone lists them",
    "info": "usage: qcow2 info [--output=json] WHAT",
    "info -r a": "usage: qcow2 info [--output=json] WHAT",
    "info --output=yaml a": "usage: qcow2 info [--output=json] WHAT",
    "list a": "usage: qcow2 list",
    "attach -s": "usage: qcow2 attach [-r] [-s SNAPSHOT] [-t] WHAT",
    "snapshot a": "usage: qcow2 snapshot -l | -c NAME | -a NAME | -d NAME WHAT",
    "reserve a": "usage: qcow2 reserve FILE SIZE",
    r"reserve \images\plain.qcow2 x": "not a size: x",
    **{rf"reserve \images\plain.qcow2 {size}": r"FS0:\images\plain.qcow2: a file on FAT has less "
                                               "than 4 GiB"
       for size in ("5G", "4194304k", "16777216T", "18446744073709551616")},  # two are 2^64
    r"info \images\none.qcow2": r"\images\none.qcow2 not found",
    "info blk9:": "blk9: not found",
    r"info \images": r"FS0:\images: cannot be opened",
    r"info \images\note": r"\images\note: not a qcow2 image",
    r"check \images\note": r"\images\note: not a qcow2 image",
    "info blk0:": "blk0:: not a qcow2 image",
    r"detach \images\plain.qcow2": r"FS0:\images\plain.qcow2 is not attached",
    r"attach \images\note": r"FS0:\images\note was not attached",
    r"snapshot -a none \images\plain.qcow2": r"\images\plain.qcow2: no such snapshot",
    "install nowhere": "not a volume: nowhere",
}


@pytest.mark.parametrize("line", WRONG)
def test_wrong(shell, line):
    """One line says what is wrong."""
    said = shell.run(f"qcow2 {line}")
    assert said[-1] == f"qcow2: {WRONG[line]}"
    assert all(line.startswith("qcow2: ") for line in said) and len(said) <= 2
    assert shell.status() == FAILED


def test_help(shell):
    assert shell.fresh("qcow2")[0] == "usage: qcow2 VERB [-b] [OPTIONS] WHAT"
    verbs = ("list", "attach", "detach", "info", "map", "check", "snapshot", "reserve", "install",
             "uninstall")
    for line in ("help qcow2", "qcow2 -?"):
        said = "\n".join(shell.run(line))
        assert all(f"QCOW2 {verb}" in said for verb in verbs), said


def test_repairs(shell):
    """Exit status as qemu-img's: 2 damage, 3 leaks; afterwards none."""
    for name, status in (("leaks", LEAKS), ("hurt", CORRUPT)):
        shell.run(rf"qcow2 check {IMAGES}\{name}.qcow2")
        assert shell.status() == status
    said = shell.fresh(rf"qcow2 check -r leaks {IMAGES}\leaks.qcow2")
    assert "    1 leaked clusters" in said
    shell.fresh(rf"qcow2 check -r {IMAGES}\hurt.qcow2")
    for name in ("leaks", "hurt"):
        shell.fresh(rf"qcow2 check {IMAGES}\{name}.qcow2")


def test_snapshots(shell):
    """Made, applied and deleted in a file; spaces in a name, and a name that is a number."""
    what = rf"{IMAGES}\lists.qcow2"
    for name in ("one", '"two words"', "7"):
        shell.fresh(f"qcow2 snapshot -c {name} {what}")
    shell.fresh(f"qcow2 snapshot -a one {what}")
    shell.fresh(f"qcow2 snapshot -d 7 {what}")
    said = shell.fresh(f"qcow2 snapshot -l {what}")
    assert [line[10:24].strip() for line in said[2:]] == ["one", "two words"]


def test_names(shell):
    """A file with a name in a folder with another: attached, listed, detached, changed."""
    shell.run(r"\names.nsh")
    said, statuses, image = shells.take(shell.disk, shell.folder, "listed", "statuses",
                                        "images/names.qcow2")
    assert statuses.read_text("utf-16").split() == ["0x0"] * 3
    lines = said.read_text("utf-16").splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"FS0:{STRANGE}: 8 MiB, read-"), lines
    judge(image)
    assert " \u00e9" in told_by_qemu(shell.folder, "snapshot", "-l", image)[1]


def test_interrupted(shell):
    """Ctrl-C ends a long check, and a copy, of which nothing is left."""
    for line in (rf"qcow2 check {IMAGES}\long.qcow2", rf"qcow2 reserve {IMAGES}\long.qcow2 1M"):
        shell.console.type(line + "\r")
        shell.console.wait(r"(checking|measuring): \d+%")
        shell.console.type(BREAK)
        assert "qcow2: interrupted" in shell.console.wait(r"FS0:\\EFI\\qcow2\\> ")
        assert shell.status() == ABORTED


def test_pages(shell):
    """-b: a key after each screenful, q ends."""
    line = rf"qcow2 map -b {IMAGES}\pages.qcow2"
    shell.console.type(line + "\r")
    shell.console.wait("ENTER to continue")
    shell.console.type("q")
    said = shell.console.wait(r"FS0:\\EFI\\qcow2\\> ")
    assert "0x760000" not in said
    assert any(row.startswith("0x760000") for row in shell.run(line.replace("-b ", "")))


def attached(shell, what, *words):
    shell.fresh(" ".join(["qcow2 attach", *words, what]))
    shell.run("map -r")
    return shell.fresh("qcow2 list")


def test_attach_and_reserve(shell):
    """A file that shares pages is read-only and says so; reserve makes it writable, with room."""
    what = rf"{IMAGES}\disk.qcow2"
    said = attached(shell, what)
    assert said == [r"FS0:\images\disk.qcow2: 6 MiB, read-only (its file shares pages with other "
                    r"files: read-only; qcow2 reserve makes it writable), FS1:"]
    shell.run(f"qcow2 reserve {what} 1M")
    assert shell.status() == FAILED
    shell.run(f"qcow2 attach {what}")
    assert shell.status() == FAILED
    shell.fresh(r"qcow2 detach fs0:\IMAGES\DISK~1.QCO")
    assert shell.fresh("qcow2 list") == []
    shell.fresh(f"qcow2 reserve {what} 16M")
    assert attached(shell, what) == [r"FS0:\images\disk.qcow2: 6 MiB, read-write, FS1:"]
    shell.run(r"cp \images\note fs1:\note", wait=r"\[ok\]")
    for name in (what, "fs1:"):  # while it is attached
        shell.fresh(f"qcow2 check {name}")
        shell.fresh(f"qcow2 snapshot -c now {name}")
    assert len(shell.fresh("qcow2 snapshot -l fs1:")) == 4
    shell.run(r"del fs1:\HELLO.TXT")
    shell.fresh(f"qcow2 detach {what}")


def test_reserve_short(shell):
    """Bytes behind the file's end read as zeros, and so they do when it is longer."""
    shell.fresh(rf"qcow2 reserve {IMAGES}\short.qcow2 1M")


def test_attach_options(shell):
    """-r takes no writes; -s shows the state of a snapshot: what was deleted since is there."""
    what = rf"{IMAGES}\disk.qcow2"
    assert attached(shell, what, "-r") == [r"FS0:\images\disk.qcow2: 6 MiB, read-only, FS1:"]
    assert "HELLO.TXT" not in "\n".join(shell.run("ls fs1:\\"))
    shell.fresh(r"qcow2 detach FS0:\images\disk.qcow2")
    said = attached(shell, what, "-s", "now")
    assert said == [r"FS0:\images\disk.qcow2: 6 MiB, read-only (snapshot now: read-only), FS1:"]
    assert "HELLO.TXT" in "\n".join(shell.run("ls fs1:\\"))
    shell.fresh("qcow2 detach fs1:")


def test_temporary(shell):
    """-t: what is written is there until the next -t, and never in the image."""
    what = rf"{IMAGES}\disk.qcow2"
    assert attached(shell, what, "-t") == [r"FS0:\images\disk.qcow2.tmp: 6 MiB, read-write, FS1:"]
    shell.run(r"cp \images\note fs1:\other", wait=r"\[ok\]")
    assert "other" in "\n".join(shell.run("ls fs1:\\"))
    for line in (f"attach -t {what}", f"check -r {what}", f"reserve {what} 1M",
                 f"snapshot -a now {what}", f"attach {what}"):  # the base is in use
        shell.run(f"qcow2 {line}")
        assert shell.status() == FAILED
    shell.fresh(f"qcow2 check {what}")
    shell.fresh("qcow2 detach fs1:")
    shell.fresh(f"qcow2 check {what}.tmp")
    attached(shell, what, "-t")
    assert "other" not in "\n".join(shell.run("ls fs1:\\"))
    shell.fresh("qcow2 detach fs1:")


def test_disk(shell):
    """An image raw on a disk, by the names that the shell has for it."""
    lines = shell.run("map -r")
    found = [number for number, line in enumerate(lines) if line.strip() == WHOLE]
    name = lines[found[0] - 1].split()[0]
    shell.fresh(f"qcow2 check {name}")
    assert attached(shell, name)[0].endswith(" 6 MiB, read-write, FS1:")
    shell.fresh("qcow2 snapshot -c kept fs1:")
    shell.run("map -r")
    shell.fresh("qcow2 detach fs1:")
    assert shell.fresh("qcow2 list") == []


def test_host_agrees(shell):
    """QEMU finds nothing wrong with anything, and the content is what it was or was made."""
    shell.console.kill()
    names = [f"images/{name}.qcow2"
             for name in ("leaks", "short", "grown", "hurt", "lists", "long", "disk")]
    leaks, short, grown, *others, image = shells.take(shell.disk, shell.folder, *names)
    assert judge(leaks)[:MIB] == b"\1" * MIB
    for shorter in (short, grown):
        assert judge(shorter) == (b"\1" * (20 << 10)).ljust(8 * MIB, b"\0")
    for other in others:
        judge(other)
    assert image.stat().st_size >= 16 * MIB
    raw = shell.folder / "disk.judged"
    raw.write_bytes(judge(image))
    fat = shell.folder / "disk.fat"
    fat.write_bytes(disks.partition_bytes(raw, 1))
    assert disks.run("mdir", "-b", "-i", fat).split() == ["::/note"]
    whole = shell.folder / "whole.raw"
    judge(whole)
    assert "kept" in told_by_qemu(shell.folder, "snapshot", "-l", whole)[1]
    check = subprocess.run(["fsck.vfat", "-n", shell.folder / "taken.fat"], capture_output=True,
                           text=True, timeout=TIMEOUT_S, check=False)
    assert check.returncode == 0 and ".pad" not in check.stdout, check.stdout
