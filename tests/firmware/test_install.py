# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Installing: on a host, in the shell, and the tour of the README, typed as it stands there.

The tour is read out of README.md: lines behind a prompt are typed, the others must be said, where
"..." stands for anything.
"""

import filecmp
import re
import subprocess

import pytest

import machine
import shells
from images import disks

ROOT = shells.Path(__file__).resolve().parents[2]
TIMEOUT_S = 300
FILES = {"qcow2.efi", "qcow2x64.efi", "qcow2.man", "qcow2.conf"}
OPTION_LINES = ("option", "description", "path", "optional data")  # as bcfg says one
TYPED = re.compile(r"FS0:\\\S*> (.*)")


def installed(rig, folder):
    """What make install says, and what is in the folder then."""
    done = subprocess.run(["make", "install", f"ESP={folder}", f"BUILD={rig.build}"], cwd=ROOT,
                          capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def esp(rig):
    folder = rig.folder / "mounted esp"
    folder.mkdir()
    status, said = installed(rig, folder)
    assert status == 0, said
    return folder


def test_make_install(rig, esp):
    """Four files; a configuration that is there stays; a folder that is not there is an error."""
    there = esp / "EFI" / "qcow2"
    assert {path.name for path in there.iterdir()} == FILES
    for name in FILES - {"qcow2.conf"}:
        assert filecmp.cmp(there / name, rig.build / "x64" / name, shallow=False)
    sample = (there / "qcow2.conf").read_text()
    assert all(not line.strip() or line.startswith("#") for line in sample.splitlines())
    (there / "qcow2.conf").write_text("timeout 1\n")
    assert installed(rig, esp)[0] == 0
    assert (there / "qcow2.conf").read_text() == "timeout 1\n"
    (there / "qcow2.conf").write_text(sample)
    status, said = installed(rig, rig.folder / "nowhere")
    assert status != 0 and "usage: make install" in said


def tour():
    """[(what is typed, the lines that are said)] of the README's section."""
    text = (ROOT / "README.md").read_text().split("\n## The command\n")[1]
    steps = []
    for line in text.split("```")[1].strip().splitlines():
        typed = TYPED.fullmatch(line)
        if typed:
            steps.append((typed[1], []))
        else:
            steps[-1][1].append(line)
    return steps


def is_said(wanted, said):
    """Whether lines are what is wanted, where "..." is anything: a line of its own, any lines."""
    pattern = "".join("(?:.*\n)*" if line == "..." else
                      ".*".join(map(re.escape, line.split("..."))) + "\n" for line in wanted)
    return re.fullmatch(pattern, "".join(f"{line.rstrip()}\n" for line in said)) is not None


def test_matching():
    """It can fail."""
    assert is_said(["a", "...", "b...d"], ["a", "x", "y", "bcd"]) and is_said([], [])
    assert not is_said(["a"], ["a", "b"]) and not is_said(["a", "..."], ["b"])
    assert not is_said([], ["error"])


@pytest.fixture(scope="module")
def machine_disk(rig, esp):
    folder = rig.folder / "tour"
    folder.mkdir()
    content = folder / "hello"
    content.write_bytes(b"hello\n")
    inside = disks.make_fat(folder / "inside.fat", {"HELLO.TXT": content})
    raw = disks.write_gpt(folder / "inside.raw", [(disks.ESP_TYPE, inside)], name="inside")
    disks.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, folder / "debian.qcow2")
    files = {f"EFI/qcow2/{name}": esp / "EFI" / "qcow2" / name for name in sorted(FILES)}
    files["images/debian.qcow2"] = folder / "debian.qcow2"
    volume = shells.make_volume(folder / "esp.fat", files)
    stale = folder / "stale"  # what a cut leaves of a copy, or more
    stale.write_bytes(b"stale" * 10000)
    empty = shells.make_volume(folder / "empty.fat", {"EFI/qcow2/qcow2.man.new": stale})
    return disks.write_gpt(folder / "disk.raw",
                           [(disks.ESP_TYPE, volume), (disks.ESP_TYPE, empty)], name="tour")


def test_tour(rig, machine_disk):
    """As a new user types it, on a machine with one disk and what make install put on it."""
    steps = tour()
    assert len(steps) > 10
    with shells.started(rig.folder / "tour", machine.Disk(machine_disk, slot=0x10,
                                                          snapshot=True)) as console:
        console.enter_shell()
        shell = shells.Shell(console, machine_disk, rig.folder)
        shell.run("fs0:")
        for typed, wanted in steps:
            said = shell.run(typed)
            assert is_said(wanted, said), (typed, said)


def make_full(folder):
    """A disk with an older driver, and room for less than a new one, even if the old one goes."""
    old, filler = folder / "old", folder / "filler"
    old.write_bytes(b"old driver" * 1000)
    volume = disks.make_fat(folder / "full.fat", {"EFI/qcow2/qcow2x64.efi": old})
    free = re.search(r"([\d ]+) bytes free", disks.run("mdir", "-i", volume))[1]
    filler.write_bytes(bytes(int(free.replace(" ", "")) - (64 << 10)))
    disks.run("mcopy", "-i", volume, filler, "::filler")
    return disks.write_gpt(folder / "full.raw", [(disks.ESP_TYPE, volume)], name="full"), old


def refused_by_full(shell, full, old):
    """What was there is there, whole, and nothing else."""
    said = shell.run("qcow2 install fs2:")
    assert said == [r"qcow2: FS2:\EFI\qcow2\qcow2x64.efi cannot be written: "
                    "not enough free space on its volume"]
    assert shell.status() == 1
    taken, = shells.take(full, shell.folder, "EFI/qcow2/qcow2x64.efi")
    assert taken.read_bytes() == old.read_bytes()
    listed = disks.run("mdir", "-b", "-i", shell.folder / "taken.fat", "::EFI/qcow2")
    assert listed.split() == ["::/EFI/qcow2/qcow2x64.efi"]


def are_installed(rig, disk, folder):
    """What the second volume of a disk has."""
    volume = folder / "installed.fat"
    volume.write_bytes(disks.partition_bytes(disk, 2))
    listed = disks.run("mdir", "-b", "-i", volume, "::EFI/qcow2").split()
    assert {name.rpartition("/")[2] for name in listed} == FILES
    for name in FILES - {"qcow2.conf"}:
        taken = folder / "taken"
        disks.run("mcopy", "-n", "-o", "-i", volume, f"::EFI/qcow2/{name}", taken)
        assert filecmp.cmp(taken, rig.build / "x64" / name, shallow=False)


def test_install_and_back(rig, machine_disk):
    """On another volume: every step said, once; the driver runs at the next start; all undone."""
    scratch = rig.folder / "tour"
    disk = shells.shutil.copyfile(machine_disk, scratch / "installed.raw")
    full, old = make_full(scratch)
    first = shells.started(scratch, machine.Disk(disk, slot=0x10), machine.Disk(full, slot=0x11))
    with first as console:
        console.enter_shell()
        shell = shells.Shell(console, disk, scratch)
        shell.run("fs0:")
        shell.run(r"cd \EFI\qcow2")
        before = shell.run("bcfg boot dump"), shell.run("bcfg driver dump")
        said = shell.fresh("qcow2 install fs1:")
        assert [line.rpartition(" ")[2] for line in said[:4]] == ["copied"] * len(FILES)
        assert said[4] == r"qcow2: Driver0000 starts \EFI\qcow2\qcow2x64.efi"
        assert re.fullmatch(r"qcow2: Boot\d{4} starts \\EFI\\qcow2\\qcow2.efi", said[5])
        assert [line for line in shell.fresh("qcow2 install fs1:") if " starts " in line] == []
        assert "qcow2x64.efi" in "\n".join(shell.run("bcfg driver dump"))
        refused_by_full(shell, full, old)
        are_installed(rig, disk, scratch)
        console.type("reset -s\r")
        console.ended()
    with shells.Console(first.command[:-4], scratch) as console:
        console.enter_shell()
        shell = shells.Shell(console, disk, scratch)
        shell.run("fs1:")
        shell.run(r"cd \EFI\qcow2")
        assert "qcow2" in "\n".join(shell.run("drivers"))
        shell.run("echo timeout 1 >a qcow2.conf")
        ours = shell.run("bcfg boot dump").index("  Desc    - qcow2") // len(OPTION_LINES)
        shell.run(f"bcfg boot mv {ours} 0")
        said = shell.fresh("qcow2 uninstall fs1:")
        assert sum(line.endswith(" removed") for line in said) == len(FILES) + 1
        assert r"qcow2: FS1:\EFI\qcow2\qcow2.conf stays: it is your configuration" in said
        assert (shell.run("bcfg boot dump"), shell.run("bcfg driver dump")) == before
