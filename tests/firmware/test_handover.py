# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What the operating system is told of an attached image, in a variable and in an ACPI table.

Each payload is read twice: here, from the layout in efi/proto/qcow2_handover.h, and by the shell
functions of images/handover, which must make the same of it. What the initramfs does with them is
shown by `make run IMAGE=debian`.
"""

import struct
import subprocess
import uuid
import zlib
from pathlib import Path

import pytest

import machine
from conftest import entry, select
from images import disks
from outer import Outer
from test_layers import Layered

READER = Path(__file__).resolve().parents[2] / "images/handover/reader.sh"
VOLATILE = "6"  # boot services and runtime access, and nothing more
DISK, PARTITION, FILE = range(3)
READONLY, UNSETTLED, LAYERED, OTHER_STATE = 1, 2, 4, 8
LAYOUT = struct.Struct("<IIIIQQQHBBI16sHH")
NAMES = ("version", "total", "crc", "flags", "virtual", "size", "digest", "header", "kind",
         "type", "number", "signature", "file_bytes", "path_bytes")
TABLE_BYTES = 36
NODE_BYTES = 22
GONE = {"status": "NOT_FOUND"}
TOLD = ["variable 0", "acpi"]
FIRST_READONLY = "variable 2"  # images that take no writes have slots of their own


def fnv(content):
    value = 0xcbf29ce484222325
    for byte in content:
        value = (value ^ byte) * 0x100000001b3 & 2 ** 64 - 1
    return value


def digest(image):
    """Of a header, but for what writes may move."""
    return fnv(image[:48] + image[60:72])


def parse(payload):
    """The payload's fields, after its checksum."""
    told = dict(zip(NAMES, LAYOUT.unpack_from(payload)))
    assert told["version"] == 1 and told["header"] == LAYOUT.size
    assert told["total"] == len(payload) == LAYOUT.size + told["file_bytes"] + told["path_bytes"]
    assert told["crc"] == zlib.crc32(payload[:8] + bytes(4) + payload[12:])
    at = LAYOUT.size + told["file_bytes"]
    return told | {"file": payload[LAYOUT.size:at].decode(), "path": payload[at:]}


def read_by_hook(payload, folder, start=4):
    """What the initramfs makes of it: its variables, or why it takes none of it."""
    told = folder / "told"
    told.write_bytes(bytes(start) + payload)
    script = (f". {READER}\nif handover_read {told} {start}; then\n"
              "for name in flags virtual size digest kind number partuuid file; do\n"
              'eval "printf \'%s=%s\\n\' $name \\"\\$handover_$name\\""; done\n'
              'else echo "why=$handover_why"; fi\n')
    said = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60,
                          check=True)
    assert said.stderr == ""
    return dict(line.split("=", 1) for line in said.stdout.splitlines())


def partuuid(told):
    if told["type"] == 1:
        return f"{int.from_bytes(told['signature'][:4], 'little'):08x}-{told['number']:02x}"
    return str(uuid.UUID(bytes_le=told["signature"])) if told["type"] == 2 else ""


def assert_hook_agrees(payload, told, folder):
    signed = told["digest"] - (told["digest"] >> 63 << 64)
    assert read_by_hook(payload, folder) == {
        "flags": str(told["flags"]), "virtual": str(told["virtual"]), "size": str(told["size"]),
        "digest": str(signed), "kind": str(told["kind"]), "number": str(told["number"]),
        "partuuid": partuuid(told), "file": told["file"].replace("\\", "/")}


def told_in(report, folder, which=0):
    """What stands in the variable; the table says the same."""
    variable = report.all("variable")[which]
    assert (variable["status"], variable["attributes"]) == ("SUCCESS", VOLATILE)
    payload = bytes.fromhex(variable["value"])
    told = parse(payload)
    assert_hook_agrees(payload, told, folder)
    tables = [bytes.fromhex(table["value"]) for table in report.all("table")]
    assert payload in [table[TABLE_BYTES:] for table in tables]
    for table in tables:
        assert table[:4] == b"QCW2" and sum(table) % 256 == 0
        assert int.from_bytes(table[4:8], "little") == len(table)
    return told


def flags_in(report):
    """The flags of each variable that was shown, in turn."""
    return [parse(bytes.fromhex(answer["value"]))["flags"] for answer in report.all("variable")]


def test_partition(rig, tmp_path):
    image = rig.image("data-v3-64k")
    disk = rig.container("handover", image)
    report = rig.loaded([select(part=1), *TOLD], disk)
    told = told_in(report, tmp_path)
    assert report.one("acpi")["tables"] == "1"
    assert (told["kind"], told["flags"], told["number"], told["file"]) == (PARTITION, 0, 1, "")
    assert partuuid(told) == str(disks.partition_guid("handover", 1))
    assert told["digest"] == digest(image.read_bytes())
    assert told["virtual"] == len(rig.content(image))
    assert told["size"] == disk.path.stat().st_size - 2 * disks.ALIGN
    # The path ends at the partition, without the image's own node.
    assert told["path"].endswith(b"\2\2\x7f\xff\4\0") and b"\4\3\x16\0" not in told["path"]


def test_whole_disk(rig, tmp_path):
    image = rig.image("data-v3-64k")
    disk = rig.container("handover-whole", image, whole=True)
    told = told_in(rig.loaded([select(), *TOLD], disk), tmp_path)
    assert (told["kind"], told["type"], told["number"]) == (DISK, 0, 0)
    assert (told["size"], told["digest"]) == (disk.path.stat().st_size, digest(image.read_bytes()))


def test_old_header(rig, tmp_path):
    """Version 2 has no marks; the same bytes are digested."""
    image = rig.image("data-v2-64k")
    disk = rig.container("handover-v2", image)
    told = told_in(rig.loaded([select(part=1), *TOLD], disk), tmp_path)
    assert told["digest"] == digest(image.read_bytes())


def test_file(rig, tmp_path):
    """A file: by its volume's partition and its path from the root."""
    outer, image = Outer(rig, "handover"), rig.image("data-v3-64k")
    outer.mkdir("images")
    size = outer.image("images/disk.qcow2", image)["size"]
    orders = [select(part=1), "attach \\images\\disk.qcow2", *TOLD]
    report = rig.loaded(orders, outer.disk())
    told = told_in(report, tmp_path)
    assert (told["kind"], told["file"]) == (FILE, "\\images\\disk.qcow2")
    assert partuuid(told) == str(disks.partition_guid("outer", 1))
    assert (told["size"], told["digest"]) == (size, digest(image.read_bytes()))


def test_two_images(rig, tmp_path):
    """Each has a variable and a table of its own; one that goes leaves the other's."""
    first = rig.container("handover-first", rig.image("data-v3-64k"))
    second = rig.container("handover-second", rig.image("empty-v3-64k"), "usb")
    report = rig.loaded(["variable 0", "variable 1", "acpi", select(part=1), "disconnect",
                         "variable 0", "variable 1", "acpi"], first, second)
    guids = [partuuid(told_in(report, tmp_path, which)) for which in (0, 1)]
    expected = [str(disks.partition_guid(name, 1))
                for name in ("handover-first", "handover-second")]
    assert sorted(guids) == sorted(expected)
    assert [answer["tables"] for answer in report.all("acpi")] == ["2", "1"]
    assert report.all("variable")[2 + guids.index(expected[0])] == GONE
    assert told_in(report, tmp_path, 2 + guids.index(expected[1]))["flags"] == 0


@pytest.mark.parametrize("last", ["disconnect", "unload"])
def test_gone_with_the_child(rig, last, tmp_path):
    disk = rig.container(f"handover-{last}", rig.image("data-v3-64k"))
    report = rig.loaded([select(part=1), *TOLD, last, *TOLD], disk)
    told_in(report, tmp_path)
    assert report.all("variable")[1] == GONE
    assert [answer["tables"] for answer in report.all("acpi")] == ["1", "0"]


def test_comes_back(rig, tmp_path):
    disk = rig.container("handover-again", rig.image("data-v3-64k"))
    report = rig.loaded([select(part=1), "disconnect", "connect", *TOLD], disk)
    told_in(report, tmp_path)
    assert report.one("acpi")["tables"] == "1"


def test_nothing_is_told(rig):
    """No image, or one that is refused: no word of it."""
    broken = bytearray(rig.image("data-v3-64k").read_bytes())
    broken[23] = 30  # cluster_bits
    path = rig.folder / "handover-broken.qcow2"
    path.write_bytes(broken)
    report = rig.loaded(TOLD, rig.container("handover-broken", path))
    assert report.one("variable") == GONE and report.one("acpi")["tables"] == "0"


def test_planted(rig, tmp_path):
    """A variable of that name that somebody left in the flash does not stay."""
    disk = rig.container("handover-planted", rig.image("data-v3-64k"))
    report = rig.run(["plant 0", "connect", "load EFI\\BOOT\\qcow2x64.efi", "connect",
                      select(part=1), *TOLD], disk)
    assert report.one("plant")["status"] == "SUCCESS"
    told_in(report, tmp_path)


def test_readonly_disk(rig):
    disk = machine.Disk(rig.container("handover-ro", rig.image("data-v3-64k")).path, readonly=True)
    assert flags_in(rig.loaded([FIRST_READONLY], disk)) == [READONLY]


def test_turns_readonly(rig, tmp_path):
    """The disk below fails to flush: from then on the image is told of as read-only."""
    disk = rig.container("handover-turns", rig.image("empty-v3-64k"))
    report = rig.loaded([select(part=1), "variable 0", "fault flush", "write child 0 8 1",
                         "fault none", *TOLD], disk)
    before, after = flags_in(report)
    assert before == 0 and after & READONLY
    assert told_in(report, tmp_path, 1)["flags"] == after
    assert report.one("acpi")["tables"] == "1"


def test_unsettled(rig):
    """What cannot be written when the system is about to start is told, and told no more later."""
    disk = rig.container("handover-unsettled", rig.image("empty-v3-64k"))
    writes = [f"write child {number * 128} 8 1" for number in range(40)]
    report = rig.loaded([select(part=1), *writes, "fault write", "signal ready", "variable 0",
                         "fault none", "signal ready", "variable 0"], disk)
    assert flags_in(report) == [UNSETTLED, 0]


def test_layered(rig):
    layered = Layered(rig, "chain-v3-512-four")
    report = rig.configured(layered.config, [select(part=1), "variable 0"], layered.disk)
    assert flags_in(report) == [LAYERED]


def test_snapshot(rig):
    """What was booted is not what another program would find in the image."""
    image = rig.folder / "handover-snapshot.qcow2"
    disks.run("cp", rig.image("empty-v3-64k"), image)
    disks.run("qemu-img", "snapshot", "-c", "one", image)
    disk = rig.container("handover-snap", image)
    report = rig.configured(entry("old", "handover-snap", 1, "snapshot one"), [FIRST_READONLY],
                            disk)
    assert flags_in(report) == [READONLY | OTHER_STATE]


@pytest.mark.parametrize("recipe,flags", [("chain-v3-512-four", READONLY | OTHER_STATE),
                                          ("data-v3-64k", 0)])
def test_backing_off(rig, recipe, flags):
    """Without its layers it is another disk; an image that has none is the same."""
    layered = Layered(rig, recipe)
    report = rig.configured(entry("alone", layered.name, 1, "backing no"), ["variable 0"],
                            layered.disk)
    assert flags_in(report) == [flags]


def test_after_exit(rig, tmp_path):
    """The variable is there when boot services have ended; so is the image it tells of."""
    disk = rig.container("handover-exit", rig.image("data-v3-64k"))
    report = rig.loaded([select(part=1), *TOLD, "write child 0 8 1", "exit"], disk)
    before, after = report.all("variable")
    assert before == after
    assert told_in(report, tmp_path, 1)["digest"] == \
        digest(disks.partition_bytes(disk.path, 1)[:72])


def test_digest_outlives_writes(rig):
    """Writes that make a larger refcount table move its place in the header, and no more."""
    image = rig.folder / "handover-small.qcow2"
    disks.run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=512,refcount_bits=64",
              image, 8 * disks.MIB)
    disk = rig.container("handover-grows", image)
    before = disks.partition_bytes(disk.path, 1)[:72]
    report = rig.loaded([select(part=1), "variable 0", "write child 0 8192 1", "flush child",
                         "disconnect", "connect", select(part=1), "variable 0"], disk)
    first, second = [parse(bytes.fromhex(answer["value"])) for answer in report.all("variable")]
    after = disks.partition_bytes(disk.path, 1)[:72]
    assert before[48:60] != after[48:60]
    assert first["digest"] == second["digest"] == digest(before) == digest(after)


def made(**given):
    """A payload as the firmware makes it."""
    fields = {"version": 1, "flags": 0, "virtual": 1 << 30, "size": 1 << 31, "digest": 7,
              "header": LAYOUT.size, "kind": PARTITION, "type": 2, "number": 1,
              "signature": bytes(range(16)), "file": b"", "crc": 0} | given
    texts = fields["file"] + b"\x7f\xff\4\0"
    fields |= {"total": LAYOUT.size + len(texts), "file_bytes": len(fields["file"]),
               "path_bytes": 4}

    def packed():
        return LAYOUT.pack(*(fields[name] for name in NAMES)) + texts
    fields["crc"] = zlib.crc32(packed())
    return bytearray(packed())


@pytest.mark.parametrize("at", [0, 4, 8, 12, 24, 44, 66, 68, -1])
def test_hook_sees_damage(at, tmp_path):
    """Any byte that is not as the firmware wrote it: the hook takes nothing of it."""
    payload = made(kind=FILE, file=b"\\a.qcow2")
    assert read_by_hook(payload, tmp_path, TABLE_BYTES)["file"] == "/a.qcow2"
    payload[at] ^= 0x10
    why = "its version is unknown" if at == 0 else "it is damaged"
    assert read_by_hook(payload, tmp_path, TABLE_BYTES) == {"why": why}


HEADER = struct.pack(">4sIQIIQIIQQIIQQ", b"QFI\xfb", 3, 0, 0, 16, 1 << 30, 0, 2, 0x30000, 0x10000,
                     1, 0, 0, 0) + bytes(24)
V2 = HEADER[:7] + b"\2" + HEADER[8:72] + b"\xff" * 32
LAYERS, OTHER = "it has layers in other partitions", "it is another image: "
DURABLE, MARKED = "the firmware could not make durable", "it is marked dirty or corrupt"


def marked(mark):
    return HEADER[:79] + bytes([mark]) + HEADER[80:]


@pytest.mark.parametrize("given,header,why", [
    ({}, HEADER, ""),
    ({}, V2, ""),
    ({}, HEADER[:48] + b"\1" * 12 + HEADER[60:], ""),
    ({"flags": 16}, HEADER, "it has flags of a later version"),
    ({"flags": READONLY | OTHER_STATE}, HEADER, "a snapshot of it was booted"),
    ({"flags": LAYERED}, HEADER, LAYERS),
    ({"flags": LAYERED, "kind": DISK}, HEADER, LAYERS),
    ({"flags": LAYERED, "kind": FILE}, HEADER, ""),
    ({"size": 1025}, HEADER, "it has 1024 bytes, the firmware saw 1025"),
    ({"digest": 7}, HEADER, OTHER),
    ({"digest": digest(HEADER)}, HEADER[:47] + b"\1" + HEADER[48:], OTHER),
    ({"digest": digest(HEADER)}, HEADER[:60] + b"\1" + HEADER[61:], OTHER),
    ({"flags": UNSETTLED}, HEADER, DURABLE),
    ({"flags": UNSETTLED | READONLY}, HEADER, ""),
    ({}, marked(1), MARKED), ({}, marked(2), MARKED), ({}, marked(3), MARKED),
    ({"flags": READONLY}, marked(1), ""), ({}, marked(4), ""),
])
def test_hook_judges(given, header, why, tmp_path):
    """What the initramfs attaches, and why it refuses."""
    image, told = tmp_path / "image", tmp_path / "told"
    image.write_bytes(header.ljust(1024, b"\0"))
    told.write_bytes(made(**{"size": 1024, "digest": digest(header)} | given))
    script = (f". {READER}\nhandover_read {told} 0 && handover_judge {image} 1024\n"
              'echo "$? $handover_why"')
    said = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60,
                          check=True).stdout
    assert said.startswith(f"1 {why}" if why else "0 ") and (why or said == "0 \n")
