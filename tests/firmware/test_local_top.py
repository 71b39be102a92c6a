# SPDX-License-Identifier: BSD-2-Clause-Patent
"""images/handover/local-top, run on this host in a folder that stands for the initramfs.

The script is the one that is installed, with the folder in front of its paths. QEMU's own qemu-nbd
serves real images; what needs a kernel (mounts, /dev/nbdN, blkid) is played by small scripts that
keep a log. The same on a real machine is `make run IMAGE=debian`.
"""

import os
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from images import disks
from test_handover import (DISK, DURABLE, FILE, LAYERED, MARKED, OTHER_STATE, READER, READONLY,
                           UNSETTLED, digest, made)

SCRIPTS = READER.parent
GUID = "53632efa-155c-4c05-b390-1b624e1b93b6"
PLACES = ("/scripts/", "/usr/lib/qcow2", "/sys/", "/run/initramfs", "/dev/")
MARKS_OFF = 79
PLAYED = {
    "modprobe": "",
    "sleep": "exec /bin/sleep 0.2",
    "blkid": 'cat "$root/partuuids/${6#PARTUUID=}" 2>/dev/null',
    # A volume that is mounted is a copy of its folder.
    "mount": """case $2 in vfat)
        [ -d "$root/volumes/${5##*/}" ] || exit 1
        echo "mount ${6##*/}" >>"$root/log"; cp -r "$root/volumes/${5##*/}/." "$6" ;;
        esac""",
    "umount": """case $1 in */qcow2/*)
        echo "umount ${1##*/}" >>"$root/log"; rm -r "$1" ;;
        esac""",
    "nbd-client": """case $1 in
        -unix) [ -S "$2" ] || exit 1
            [ ! -e "$root/fails-${3##*/}" ] || exit 1
            mkdir -p "$root/sys/block/${3##*/}"; : >"$root/sys/block/${3##*/}/pid"
            [ -e "$root/unreadable-${3##*/}" ] || : >"$3" ;;
        -d) echo "let go ${2##*/}" >>"$root/log"; rm -r "$root/sys/block/${2##*/}" ;;
        esac""",
}


class Initramfs:
    def __init__(self, root):
        self.root, self.count = Path(root), 0
        for name in ("bin", "partuuids", "sys/block", "sys/firmware/acpi/tables", "scripts",
                     "sys/firmware/efi/efivars", "usr/lib/qcow2", "dev", "run/initramfs"):
            (self.root / name).mkdir(parents=True)
        for name, what in PLAYED.items():
            self.program(f"bin/{name}", what)
        # Not every host's folder for tests takes requests past the page cache.
        self.program("usr/lib/qcow2/@qemu-nbd", """for word; do
            [ "$word" = --cache=none ] && word=--cache=writeback
            set -- "$@" "$word"; shift; done; exec qemu-nbd "$@" """)
        self.path("scripts/functions").write_text(
            'panic() { echo "panic: $1"; exit 9; }\nwait_for_udev() { :; }\n')
        self.path("dev/null").symlink_to("/dev/null")
        self.path("usr/lib/qcow2/reader.sh").symlink_to(READER)

    def path(self, name):
        return self.root / name

    def program(self, name, what):
        self.path(name).write_text(f"#!/bin/sh\nroot={self.root}\n{what}\n")
        self.path(name).chmod(0o755)

    def device(self, content):
        """A partition of that content, and its signature."""
        self.count += 1
        name, signature = f"sda{self.count}", bytes([self.count] * 16)
        self.path(f"dev/{name}").write_bytes(content)
        self.path(f"sys/class/block/{name}").mkdir(parents=True)
        self.path(f"sys/class/block/{name}/size").write_text(f"{len(content) // 512}\n")
        digits = signature.hex()
        uuid = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
        self.path(f"partuuids/{uuid}").write_text(f"{self.root}/dev/{name}\n")
        return name, signature

    def told(self, payload, name=None):
        """The variable of the next number."""
        folder = self.path("sys/firmware/efi/efivars")
        name = name or f"Qcow2Boot{len(list(folder.iterdir())):04}"
        (folder / f"{name}-{GUID}").write_bytes(b"\6\0\0\0" + payload)

    def image(self, content, **given):
        """A partition with the image, and the variable that tells of it."""
        name, signature = self.device(content)
        self.told(made(signature=signature, **{"size": len(content), "digest": digest(content)}
                       | given))
        return name

    def volume(self, *files):
        """A FAT volume with files (name, bytes); its signature."""
        name, signature = self.device(bytes(512))
        for file, content in files:
            path = self.path(f"volumes/{name}{file}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return signature

    def file(self, signature, name, content, **given):
        """The variable that tells of a file on the volume."""
        self.told(made(kind=FILE, signature=signature, file=name, **{
            "size": len(content), "digest": digest(content)} | given))

    def run(self):
        """The script's lines, without the folder's name."""
        script = (SCRIPTS / "local-top").read_text().replace("WAIT_S=60", "WAIT_S=2")
        for place in PLACES:
            script = script.replace(place, f"{self.root}{place}")
        done = subprocess.run(["sh", "-c", script], capture_output=True, timeout=120, check=False,
                              env={"PATH": f"{self.root}/bin:{os.environ['PATH']}"})
        assert (done.returncode, done.stderr) == (0, b"")
        return done.stdout.decode("ascii").replace(str(self.root), "").splitlines()

    def log(self):
        """What was mounted and let go."""
        return self.path("log").read_text().splitlines() if self.path("log").exists() else []

    def attached(self):
        return sorted(path.name for path in self.path("sys/block").iterdir())

    def servers(self):
        """The processes that serve images of this folder."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes()
            except OSError:
                continue
            if words.startswith(b"qemu-nbd\0") and bytes(self.root) in words:
                found.append(int(path.parent.name))
        return found


@pytest.fixture
def initramfs():
    with tempfile.TemporaryDirectory(prefix="q") as root:  # short, as names of sockets are
        made_here = Initramfs(root)
        yield made_here
        for pid in made_here.servers():
            os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """The bytes of a real image, in whole blocks."""
    path = tmp_path_factory.mktemp("told") / "image.qcow2"
    disks.run("qemu-img", "create", "-q", "-f", "qcow2", path, 8 * disks.MIB)
    content = path.read_bytes()
    return content + bytes(-len(content) % 4096)


def line(number, why):
    return f"qcow2: Qcow2Boot{number:04}: refused: {why}"


def test_others_go_on(initramfs, image):
    """One that is refused, whatever for, keeps no other from being attached."""
    initramfs.image(image, flags=LAYERED)
    initramfs.image(image)
    initramfs.image(image, flags=UNSETTLED)
    initramfs.image(image, flags=READONLY | OTHER_STATE)
    initramfs.told(b"\1" + bytes(80))
    initramfs.told(made(digest=digest(image)))
    initramfs.image(image, flags=READONLY)
    said = initramfs.run()
    assert said[0] == line(0, "/dev/sda1: it has layers in other partitions")
    assert said[1] == "qcow2: Qcow2Boot0001: /dev/sda2 is /dev/nbd0"
    assert said[2].startswith(line(2, f"/dev/sda3: {DURABLE}"))
    assert said[3].startswith(line(3, "/dev/sda4: a snapshot of it was booted"))
    assert said[4] == line(4, "what the firmware left: it is damaged")
    assert said[5] == line(5, "there is no disk or partition that holds it")
    assert said[6:] == ["qcow2: Qcow2Boot0006: /dev/sda5 is /dev/nbd1, read-only"]
    assert initramfs.attached() == ["nbd0", "nbd1"] and len(initramfs.servers()) == 2
    assert initramfs.log() == []


@pytest.mark.parametrize("mark", [1, 2])
def test_marked_since(initramfs, image, mark):
    """A mark that came after the firmware told of the image: no writes to it any more."""
    names = [initramfs.image(image), initramfs.image(image, flags=READONLY)]
    for name in names:
        with open(initramfs.path(f"dev/{name}"), "r+b") as device:
            device.seek(MARKS_OFF)
            device.write(bytes([mark]))
    # QEMU repairs what is dirty where it may, and only reads what is marked corrupt.
    assert initramfs.run() == [line(0, f"/dev/sda1: {MARKED}"),
                               "qcow2: Qcow2Boot0001: /dev/sda2 is /dev/nbd0, read-only"]


def test_one_volume_of_two(initramfs, image):
    """A volume that was mounted for one that is refused is let go; for the other it stays."""
    other = image[:24] + b"\1" + image[25:]
    signature = initramfs.volume(("/vm/a.qcow2", other), ("/vm/b.qcow2", image))
    initramfs.file(signature, b"\\vm\\a.qcow2", image)
    initramfs.file(signature, b"\\vm\\b.qcow2", image)
    initramfs.file(signature, b"\\vm\\c.qcow2", image)
    said = initramfs.run()
    assert said == [
        line(0, "/run/initramfs/qcow2/Qcow2Boot0000/vm/a.qcow2: "
                "it is another image: its header's digest differs"),
        "qcow2: Qcow2Boot0001: /run/initramfs/qcow2/Qcow2Boot0001/vm/b.qcow2 is /dev/nbd0",
        line(2, "there is no file /vm/c.qcow2 on /dev/sda1")]
    assert initramfs.log() == ["mount Qcow2Boot0000", "umount Qcow2Boot0000", "mount Qcow2Boot0001",
                               "mount Qcow2Boot0002", "umount Qcow2Boot0002"]


@pytest.mark.parametrize("fault,why,log", [
    ("fails", "/dev/nbd1 does not take it", []),
    ("unreadable", "/dev/nbd1 cannot be read", ["let go nbd1"])])
def test_half_attached(initramfs, image, fault, why, log):
    """The kernel does not take what qemu-nbd serves: that ends, and nothing tells of it."""
    initramfs.image(image)
    initramfs.file(initramfs.volume(("/a.qcow2", image)), b"\\a.qcow2", image)
    initramfs.path(f"{fault}-nbd1").touch()
    assert initramfs.run() == ["qcow2: Qcow2Boot0000: /dev/sda1 is /dev/nbd0", line(1, why)]
    assert initramfs.log() == ["mount Qcow2Boot0001", *log, "umount Qcow2Boot0001"]
    assert initramfs.attached() == ["nbd0"] and len(initramfs.servers()) == 1
    left = {path.name for path in initramfs.path("run/initramfs/qcow2").iterdir()}
    assert left == {"nbd0", "nbd0.pid", "said", "told"}


def test_qemu_refuses(initramfs, image):
    """What only qemu-nbd finds wrong is said in one line."""
    broken = image[:40] + b"\xff" * 8 + image[48:]  # the L1 table's place
    initramfs.image(broken)
    initramfs.image(image)
    said = initramfs.run()
    assert said[0].startswith(line(0, "qemu-nbd does not take it: qemu-nbd: "))
    assert said[1:] == ["qcow2: Qcow2Boot0001: /dev/sda2 is /dev/nbd0"]


@pytest.mark.parametrize("name,shown", [
    ("/a b.qcow2", "/a b.qcow2"), ("/-r*?[a]$(id)`id`;'\"&.qcow2",) * 2, ("/a:b.qcow2",) * 2,
    ("/json:{}",) * 2, ("/...",) * 2, ("/ü/a..qcow2", "/??/a..qcow2"), ("/\x9b2J", "/??2J")])
def test_odd_names(initramfs, image, name, shown):
    """Names are names: no words, patterns, options, protocols, or orders to a terminal."""
    signature = initramfs.volume((name, image))
    initramfs.file(signature, name.replace("/", "\\").encode(), image)
    said = initramfs.run()
    assert said == [f"qcow2: Qcow2Boot0000: /run/initramfs/qcow2/Qcow2Boot0000{shown} is /dev/nbd0"]


@pytest.mark.parametrize("name", [b"\\..\\..\\..\\..\\dev\\sda1", b"\\a\\..\\image", b"\\a\\..",
                                  b"\\\x1b[2J", b"\\a\nqcow2: all is well", b"\\image\n",
                                  b"\\image\0", b"\\\x7f", b"image", b".\\image"])
def test_hostile_names(initramfs, image, name):
    """Names that lead elsewhere or are orders to a terminal: nothing is mounted for them."""
    signature = initramfs.volume(("/image", image))
    initramfs.path("volumes/sda1/a").mkdir()
    initramfs.file(signature, name, image)
    assert initramfs.run() == [line(0, "what the firmware left: its file has no plain name")]
    assert initramfs.log() == []


def test_other_variables(initramfs, image):
    """What has a name that the driver gives none is not looked at."""
    for name in ("Qcow2Boot", "Qcow2Boot*", "Qcow2Boot0000 0001", "Qcow2Boot000a", "Qcow2Boot\x1b"):
        initramfs.told(made(digest=digest(image)), name)
    assert initramfs.run() == []
    assert not initramfs.path("run/initramfs/qcow2").exists()


def test_tables(initramfs, image):
    """Without variables there are tables; a disk that is gone meanwhile does no harm."""
    initramfs.path("sys/block/sda").mkdir()  # without a size
    initramfs.path("sys/block/sdb").mkdir()
    initramfs.path("sys/block/sdb/size").write_text(f"{len(image) // 512}\n")
    initramfs.device(image)
    initramfs.path("dev/sdb").write_bytes(image)
    initramfs.path("sys/class/block/sdb").symlink_to(initramfs.path("sys/block/sdb"))
    payload = made(kind=DISK, type=0, size=len(image), digest=digest(image))
    for number, bad in ((1, True), (2, False)):
        table = bytes(36) + (payload[:-1] + b"?" if bad else payload)
        initramfs.path(f"sys/firmware/acpi/tables/QCW2{number}").write_bytes(table)
    assert initramfs.run() == ["qcow2: QCW21: refused: what the firmware left: it is damaged",
                               "qcow2: QCW22: /dev/sdb is /dev/nbd0"]


def test_texts_stay_inside(initramfs):
    """A length that leads behind what the firmware left."""
    payload = made(kind=FILE, file=b"\\a")
    initramfs.told(made(kind=FILE, file=b"\\a", header=len(payload) + 1))
    assert initramfs.run() == [line(0, "what the firmware left: it is damaged")]
