# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Images in files of FAT volumes: attached, read, written, let go, and never at others' expense."""

import random

import pytest

import demo
import logwrites
import machine
import vm
from conftest import crc, judge, select
from images import disks
from images.demo import demo_disks
from outer import Outer, page_base, scatter

SECTOR = 512
GUEST_BYTES = 2 * disks.MIB
RUNS_MAX = 1024
ATTACHED_MAX, FILES_MAX = 6, 12
GOOD = {"status": "SUCCESS", "tpl": "4"}
OPENED = {"found": "1", "child": "1"}


@pytest.fixture(scope="module")
def guest():
    return random.Random(0x66696C65).randbytes(GUEST_BYTES // 2).ljust(GUEST_BYTES, b"\0")


@pytest.fixture(scope="module")
def qcow2(rig, guest):
    """An image that is half full, so that writes allocate."""
    raw, made = rig.folder / "guest.raw", rig.folder / "guest.qcow2"
    raw.write_bytes(guest)
    disks.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, made)
    return made


def overlay(rig, name, base, form="qcow2"):
    """An overlay that names a file which need not be there."""
    path = rig.folder / name
    disks.run("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", base, "-F", form, path,
              GUEST_BYTES)
    return path


def written(content, lba, count, seed):
    content[lba * SECTOR:(lba + count) * SECTOR] = vm.pattern(seed, lba, count)
    return f"write child {lba} {count} {seed}"


def run(rig, outer, orders, log=False):
    return rig.loaded([select(part=1), *orders], outer.disk(log))


def statuses(report, order):
    return [answer["status"] for answer in report.all(order)]


@pytest.mark.parametrize("width", [12, 16, 32])
def test_every_width(rig, guest, qcow2, width):
    """Written while its neighbours are, through the firmware's driver, on both sides."""
    outer, want = Outer(rig, f"width-{width}", width), bytearray(guest)
    outer.mkdir("IMAGES")
    outer.put("BEFORE", b"b" * outer.cluster)
    outer.image("IMAGES/demo-image.qcow2", qcow2)
    outer.put("AFTER", b"a" * 3000)
    name = "\\IMAGES\\demo-image.qcow2"
    report = run(rig, outer, [
        "peek BEFORE 0 512", "peek AFTER 0 512", f"attach {name}", f"into {name}", "sum child 64",
        written(want, 10, 20, 3), written(want, 3000, 300, 4), "flush child", "outer",
        "edit AFTER 100 900 5", "edit NEW 0 70000 6", "edit BEFORE 0 100 7", f"into {name}",
        written(want, 2500, 100, 8), "list", "sum child 64", f"detach {name}", "list", "tpl",
        "console"])
    assert report.one("attach") == report.one("detach") == GOOD
    assert report.all("into") == [OPENED] * 2
    assert report.all("sum")[0]["crc"] == crc(guest) and report.all("sum")[1]["crc"] == crc(want)
    assert set(statuses(report, "write") + statuses(report, "edit")) == {"SUCCESS"}
    assert report.all("list") == [{"file": "1", "readonly": "0", "bytes": str(GUEST_BYTES),
                                   "reason": ""}]
    assert [answer["count"] for answer in report.all("listed")] == ["1", "0"]
    assert any("demo-image.qcow2: 2.0 MiB, 64 KiB clusters" in line for line in report.console())
    outer.check()
    assert judge(outer.qcow2("IMAGES/demo-image.qcow2")) == want
    assert outer.content("NEW")[:512] == vm.pattern(6, 0, 1)


def test_fifty_rounds(rig, guest, qcow2):
    outer = Outer(rig, "rounds")
    outer.image("IMAGE", qcow2)
    outer.put("NEXT", bytes(64 * SECTOR))
    report = run(rig, outer, ["rounds IMAGE NEXT 1", "handles", "watch begin",
                              "rounds IMAGE NEXT 50", "watch end", "handles"])
    assert report.all("rounds")[1] == {"done": "50", "status": "SUCCESS", "tpl": "4"}
    watch = report.one("watch")
    assert [watch[key] for key in ("pool", "pages", "events", "lost")] == ["0"] * 4
    assert report.all("handles")[0] == report.all("handles")[1]
    outer.check()
    content = judge(outer.qcow2("IMAGE"))
    assert content == vm.pattern(50, 0, 64) + guest[64 * SECTOR:]
    rounds = b"".join(vm.pattern(number, 0, 1) for number in range(1, 51))
    assert outer.content("NEXT") == rounds.ljust(64 * SECTOR, b"\0")


def test_shared_pages(rig, guest, qcow2):
    """Without pages of its own an image is read, and says why it is not written."""
    outer = Outer(rig, "shared")
    outer.put("IMAGE", qcow2.read_bytes())
    outer.put("ODD", qcow2.read_bytes() + b"odd")
    report = run(rig, outer, ["attach IMAGE", "into IMAGE", "media child", "sum child 64",
                              "write child 0 1 1", "list", "console", "detach", "attach ODD"])
    assert statuses(report, "attach") == ["SUCCESS"] * 2
    assert report.one("sum")["crc"] == crc(guest)
    assert report.one("write")["status"] == "WRITE_PROTECTED"
    reason = ("its file shares pages with other files: read-only; "
              "qcow2 reserve makes it writable")
    assert report.one("list")["readonly"] == "1" and report.one("list")["reason"] == reason
    assert any(line.endswith(f"64 KiB clusters, {reason}") for line in report.console())
    before = outer.content("IMAGE")
    outer.check()
    assert outer.content("IMAGE") == before


def test_readonly_as_asked(rig, qcow2):
    outer = Outer(rig, "asked")
    outer.image("IMAGE", qcow2)
    report = run(rig, outer, ["attach IMAGE readonly", "list", "detach IMAGE"])
    assert report.one("list")["reason"] == "read-only"


def test_held_back(rig, guest, qcow2):
    """What the firmware's driver had not written when the file was attached is written first."""
    outer, want = Outer(rig, "held"), bytearray(guest)
    place = outer.image("IMAGE", qcow2)["size"] - 4096  # behind the image's end
    report = run(rig, outer, [f"edit IMAGE {place} 512 3 held", "attach IMAGE", "into IMAGE",
                              "read parent 0 1", written(want, 2100, 1990, 4), "detach", "outer",
                              "sync", "tpl"])
    assert report.one("attach") == report.one("detach") == GOOD
    outer.check()
    assert judge(outer.qcow2("IMAGE")) == want


def test_read_again(rig, guest, qcow2):
    """What the firmware's driver read before is not what it reads after the image was let go."""
    outer, want = Outer(rig, "again"), bytearray(guest)
    size = outer.image("IMAGE", qcow2)["size"]
    middle = 5 * 65536 + 100
    report = run(rig, outer, [f"peek IMAGE {middle} 1000", "attach IMAGE", "into IMAGE",
                              written(want, 0, 2048, 4), "detach", "outer",
                              f"peek IMAGE {middle} 1000", f"edit IMAGE {size - 700} 600 5"])
    before, after = (answer["crc"] for answer in report.all("peek"))
    outer.check()
    content = outer.content("IMAGE")
    assert after == crc(content[middle:middle + 1000]) != before
    assert judge(outer.qcow2("IMAGE")) == want


# ---- files that change while they are attached -------------------------------------------------

CHANGES = {"remove": "remove IMAGE", "rename": "move IMAGE OTHER",
           "truncate": "cut IMAGE 70000", "rewrite": "edit IMAGE 0 70000 9"}


@pytest.mark.parametrize("flushed", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_changed_file(rig, qcow2, change, flushed):
    """
    The next flush tells, be it of a write in place, which writes nothing else; or the first write
    behind one. Then nothing is written any more.
    """
    outer = Outer(rig, f"changed-{change}-{flushed}")
    outer.image("IMAGE", qcow2)
    told = "flush child" if not flushed else "write child 9 1 1"
    report = run(rig, outer, [
        "attach IMAGE", "into IMAGE", "write child 2500 100 8", "flush child",
        *([] if flushed else ["write child 2500 100 9"]), "outer", CHANGES[change], "into", told,
        "count begin", "write child 0 200 3", "flush child", "count end", "wait 20", "console",
        "tpl", "detach", "list", "outer", "attach IMAGE"])
    errors = statuses(report, "write")[2 - flushed:] + statuses(report, "flush")[1:]
    assert set(errors) <= {"NO_MEDIA", "NOT_FOUND", "DEVICE_ERROR"}, report.lines
    assert errors[0] == "NO_MEDIA"
    assert report.one("counted")["writes"] == "0"
    assert any("its medium is gone" in line for line in report.console())
    assert report.all("attach")[1]["status"] != "ALREADY_STARTED"
    assert report.one("tpl")["tpl"] == "4"
    outer.check()


def test_changed_and_attached_anew(rig, qcow2):
    """An image that is only read is looked at when it is connected again."""
    outer = Outer(rig, "anew")
    outer.put("IMAGE", qcow2.read_bytes())
    report = run(rig, outer, ["attach IMAGE", "into IMAGE", "reconnect 1", "into", "outer",
                              "remove IMAGE", "into", "reconnect 1", "into"])
    assert [answer["child"] for answer in report.all("into")] == ["1", "1", "1", "0"]


def test_new_owner(rig, guest, qcow2):
    """The clusters of a removed file are another's, who keeps what it wrote there."""
    outer = Outer(rig, "owner")
    size = outer.image("IMAGE", qcow2)["size"]
    report = run(rig, outer, [
        "attach IMAGE", "into IMAGE", "write child 0 200 8", "flush child", "outer",
        "remove IMAGE", f"edit MINE 0 {size} 7", "into", "write child 0 200 9", "flush child",
        "outer", "attach MINE"])
    assert statuses(report, "write")[1] == "NO_MEDIA"
    outer.check()
    assert outer.content("MINE") == vm.pattern(7, 0, size // SECTOR)


def test_changed_base(rig, guest, qcow2):
    """Without its base the image goes; it can be attached when there is one again."""
    outer = Outer(rig, "changed-base")
    outer.put("BASE", qcow2.read_bytes())
    outer.put("COPY", qcow2.read_bytes())
    outer.image("TOP", overlay(rig, "top-changed.qcow2", "BASE"))
    want = bytearray(guest)
    report = run(rig, outer, [
        "attach TOP", "into TOP", written(want, 0, 8, 8), "flush child", "outer", "remove BASE",
        "into", "write child 0 8 9", "read child 0 8", "wait 20", "console", "outer",
        "attach TOP", "move COPY BASE", "attach TOP", "into TOP", "sum child 64", "tpl"])
    assert statuses(report, "write") == ["SUCCESS", "NO_MEDIA"]
    assert any("refused: " in line and "not found" in line for line in report.console())
    assert statuses(report, "attach") == ["SUCCESS", "UNSUPPORTED", "SUCCESS"]
    assert report.one("sum")["crc"] == crc(want)
    outer.check()


# ---- layers ------------------------------------------------------------------------------------

def test_layers_by_name(rig, guest, qcow2):
    """An overlay, its base beside it, and that one's raw base in a folder below."""
    outer, want = Outer(rig, "layers"), bytearray(guest)
    raw = rig.folder / "guest.raw"
    outer.mkdir("VM")
    outer.mkdir("VM/OLD")
    outer.put("VM/OLD/raw.img", raw.read_bytes())
    outer.put("VM/middle.qcow2", overlay(rig, "middle.qcow2", "OLD/raw.img", "raw").read_bytes())
    outer.image("VM/top.qcow2", overlay(rig, "top.qcow2", "middle.qcow2"))
    below = [outer.content("VM/OLD/raw.img"), outer.content("VM/middle.qcow2")]
    report = run(rig, outer, [
        "attach VM\\top.qcow2", "into VM\\top.qcow2", "sum child 64", written(want, 1, 30, 3),
        written(want, 2000, 200, 4), "sum child 64", "outer", "attach VM\\middle.qcow2",
        "into VM\\top.qcow2", "detach", "outer", "attach VM\\middle.qcow2", "tpl", "console"])
    assert statuses(report, "attach") == ["SUCCESS", "ACCESS_DENIED", "SUCCESS"]
    assert [answer["crc"] for answer in report.all("sum")] == [crc(guest), crc(want)]
    assert any("refused: it is part of another image" in line for line in report.console())
    outer.check()
    assert [outer.content("VM/OLD/raw.img"), outer.content("VM/middle.qcow2")] == below
    parts = {"OLD/raw.img": "VM/OLD/raw.img", "middle.qcow2": "VM/middle.qcow2",
             "top.qcow2": "VM/top.qcow2"}
    (outer.folder / "OLD").mkdir(exist_ok=True)
    for name, path in parts.items():
        (outer.folder / name).write_bytes(outer.content(path))
    assert judge(outer.folder / "top.qcow2") == want


def test_data_file(rig, monkeypatch):
    """Written beside its image; the second time nothing but the data file is."""
    outer, want = Outer(rig, "data"), bytearray(GUEST_BYTES)
    orders = [written(want, 0, 110, 3), written(want, 3000, 1000, 4)]
    first = bytes(want)
    qcow2 = rig.folder / "with-data.qcow2"
    disks.run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file=disk.raw", qcow2.name,
              GUEST_BYTES, cwd=rig.folder)
    outer.image("disk.raw", rig.folder / "disk.raw", 0)
    outer.image("with-data.qcow2", qcow2)
    report = run(rig, outer, [
        "peek disk.raw 51400 512", "attach with-data.qcow2", "into with-data.qcow2", *orders,
        "flush child", "sum child 64",
        "detach", "outer", "peek disk.raw 51400 512", "attach with-data.qcow2",
        "into with-data.qcow2", written(want, 100, 2, 5), "detach", "outer",
        "peek disk.raw 51400 512", "tpl"])
    assert report.all("attach") == report.all("detach") == [GOOD] * 2
    assert report.one("sum")["crc"] == crc(first)
    assert [answer["crc"] for answer in report.all("peek")] == [
        crc(bytes(512)), crc(first[51400:51912]), crc(want[51400:51912])]
    outer.check()
    for name in ("disk.raw", "with-data.qcow2"):
        (outer.folder / name).write_bytes(outer.content(name))
    monkeypatch.chdir(outer.folder)
    assert judge("with-data.qcow2") == want


REFUSALS = {"up": ("../BASE", "backing name"), "absolute": ("/BASE", "backing name"),
            "drive": ("C:BASE", "backing name"), "missing": ("NONE", "the file is not found"),
            "cycle": ("TOP", "the base lies above itself"), "taken": ("BASE", "in use by others")}


@pytest.mark.parametrize("kind", REFUSALS)
def test_refused_names(rig, qcow2, kind):
    name, reason = REFUSALS[kind]
    outer = Outer(rig, f"refused-{kind}")
    outer.put("BASE", qcow2.read_bytes())
    outer.put("TOP", overlay(rig, f"refused-{kind}.qcow2", name).read_bytes())
    first = ["attach BASE"] if kind == "taken" else []
    report = run(rig, outer, [*first, "attach TOP", "console", "tpl", "list"])
    assert report.all("attach")[-1]["status"] == "UNSUPPORTED"
    lines = [line for line in report.console() if "TOP: refused: " in line]
    assert len(lines) == 1 and reason in lines[0], report.console()
    assert report.one("tpl")["tpl"] == "4"


def test_refused_files(rig, qcow2):
    """No file, a folder, an empty file, no image, the same one twice, no name."""
    outer = Outer(rig, "refused")
    outer.mkdir("FOLDER")
    outer.put("EMPTY", b"")
    outer.put("TEXT", b"text" * 1000)
    outer.put("IMAGE", qcow2.read_bytes())
    names = ["NONE", "FOLDER", "EMPTY", "TEXT", "IMAGE", "IMAGE", "A" * 300]
    report = run(rig, outer, ["handles", *[f"attach {name}" for name in names], "detach IMAGE",
                              "handles", "detach IMAGE", "console"])
    assert statuses(report, "attach") == ["NOT_FOUND", "ACCESS_DENIED", "UNSUPPORTED",
                                          "UNSUPPORTED", "SUCCESS", "ALREADY_STARTED",
                                          "UNSUPPORTED"]
    assert statuses(report, "detach") == ["SUCCESS", "NOT_FOUND"]
    assert report.all("handles")[0] == report.all("handles")[1]
    said = "\n".join(report.console())
    for reason in ("the file is not found", "the file is no image",
                   "the file's path is longer than 255 bytes"):
        assert f": refused: {reason}" in said


# ---- pieces, slots, the configuration ----------------------------------------------------------

def test_fragmented(rig, guest, qcow2):
    """In pieces of a page each, out of order; written across their ends."""
    outer, want = Outer(rig, "pieces"), bytearray(guest)
    told = outer.image("IMAGE", qcow2)
    base = page_base(outer.fat.read_bytes()[:SECTOR])
    pages = told["size"] // outer.page
    start = (told["runs"][0][1] - base) // outer.page + pages + 1
    order = random.Random(7).sample(range(0, 2 * pages, 2), pages)
    told = scatter(outer, "IMAGE", [base + (start + at) * outer.page + off for at in order
                                    for off in range(0, outer.page, SECTOR)])
    assert len(told["runs"]) == pages and told["owns"]
    report = run(rig, outer, ["attach IMAGE", "into IMAGE", "sum child 300",
                              written(want, 100, 1900, 3), written(want, 3001, 900, 4),
                              "outer", "edit NEW 0 200000 5", "into", "sum child 300", "detach"])
    assert report.one("attach") == report.one("detach") == GOOD
    assert [answer["crc"] for answer in report.all("sum")] == [crc(guest), crc(want)]
    outer.check()
    assert judge(outer.qcow2("IMAGE")) == want


@pytest.mark.parametrize("more", [0, 1])
def test_most_pieces(rig, guest, qcow2, more):
    outer = Outer(rig, f"most-{more}")
    content = qcow2.read_bytes()
    count = len(content) // SECTOR
    assert count > RUNS_MAX + more
    told = outer.put("IMAGE", content)
    start = told["runs"][0][1] + len(content) + SECTOR
    # All but the last piece are one cluster; the rest of the file is the last.
    places = [start + 2 * SECTOR * at for at in range(RUNS_MAX + more)]
    places += [places[-1] + SECTOR * at for at in range(1, count - len(places) + 1)]
    assert len(scatter(outer, "IMAGE", places)["runs"]) == RUNS_MAX + more
    report = run(rig, outer, ["attach IMAGE", "into IMAGE", "sum child 64", "console"])
    if more:
        assert statuses(report, "attach") == ["UNSUPPORTED"]
        assert any("IMAGE: refused: the file lies in too many pieces" in line
                   for line in report.console())
    else:
        assert report.one("sum")["crc"] == crc(guest)


def test_more_than_slots(rig, qcow2):
    outer = Outer(rig, "slots")
    names = [f"IMAGE{number}" for number in range(ATTACHED_MAX + 1)]
    for name in names:
        outer.put(name, qcow2.read_bytes())
    report = run(rig, outer, [*[f"attach {name}" for name in names], "list", "detach IMAGE3",
                              f"attach {names[-1]}", "list", "console", "unload", "tpl"])
    assert statuses(report, "attach") == ["SUCCESS"] * ATTACHED_MAX + ["UNSUPPORTED", "SUCCESS"]
    assert [answer["count"] for answer in report.all("listed")] == [str(ATTACHED_MAX)] * 2
    assert any("no more images can be attached" in line for line in report.console())
    assert report.one("unload")["status"] == "SUCCESS"


def test_more_files_than_slots(rig, qcow2):
    """Layers take a file each; what does not fit is refused, and fits when others have gone."""
    outer = Outer(rig, "files")
    for letter, count in (("A", 7), ("B", FILES_MAX - 6)):
        outer.put(f"{letter}0", qcow2.read_bytes())
        for above in range(1, count):
            top = overlay(rig, f"{letter}{above}.qcow2", f"{letter}{above - 1}")
            outer.put(f"{letter}{above}", top.read_bytes())
    report = run(rig, outer, ["attach A6", "attach B5", "console", "detach A6", "attach B5"])
    assert statuses(report, "attach") == ["SUCCESS", "UNSUPPORTED", "SUCCESS"]
    assert "B5: refused: layer 4: no more files can be attached" in report.console()[-1]


def test_configured(rig):
    """Files that cannot be opened are one line each, however often; the driver loads anyway."""
    files = {"NONE.qcow2": "the file is not found", "EFI\\BOOT": "the file is no image",
             "EFI\\BOOT\\qcow2x64.efi": "the file is no image"}
    lines = [f"{key}{name}" for time in "12" for name in files
             for key, name in (("image ", name[-4:] + time), ("file \\", name))]
    report = rig.configured(lines, ["tpl", "console"])
    assert report.one("load") == {"load": "SUCCESS", "start": "SUCCESS"}
    for name, reason in files.items():
        assert sum(f"\\{name}: refused: {reason}" in line for line in report.console()) == 1
    assert report.one("tpl")["tpl"] == "4"


def test_linux_is_reached(build, cache, tmp_path):
    """
    The system's volume and the one that the images lie on are FAT32, an overlay above a base; the
    driver's configuration names it.
    """
    made = demo_disks(tmp_path / "demo", cache, build / "x64/qcow2x64.efi",
                      build / "x64/qcow2.efi", "file", image="overlay")
    command = machine.firmware(tmp_path) + ["-m", "512", "-serial", "stdio"]
    command += machine.attach(machine.Disk(made.disks[0]))
    assert demo.boot(command, made.nonce) is None
    assert made.sum_of_base() == made.base_sum


# ---- leaving -----------------------------------------------------------------------------------

def test_unload(rig, guest, qcow2):
    """With a file attached and something unwritten; nothing stays behind."""
    outer, want = Outer(rig, "unload"), bytearray(guest)
    outer.image("IMAGE", qcow2)
    report = rig.run(["connect", select(part=1), "handles", "opens", "load EFI\\BOOT\\qcow2x64.efi",
                      "attach IMAGE", "into IMAGE", written(want, 2500, 700, 4), "unload", "outer",
                      "handles", "opens", "peek IMAGE 0 512", "tpl"], outer.disk())
    assert report.one("unload")["status"] == "SUCCESS"
    assert report.all("handles")[0] == report.all("handles")[1]
    assert report.all("opens")[0] == report.all("opens")[1]
    assert report.one("peek")["status"] == "SUCCESS" and report.one("tpl")["tpl"] == "4"
    outer.check()
    assert judge(outer.qcow2("IMAGE")) == want


def test_pause(rig, guest, qcow2):
    outer, want = Outer(rig, "pause"), bytearray(guest)
    outer.image("IMAGE", qcow2)
    report = run(rig, outer, [
        "attach IMAGE", "into IMAGE", written(want, 2500, 7, 4), "pause IMAGE",
        "write child 0 1 1", "pause IMAGE", "resume IMAGE", written(want, 0, 9, 5), "pause IMAGE",
        "resume IMAGE changed", "resume IMAGE", "sum child 64", "detach IMAGE", "tpl"])
    assert statuses(report, "pause") == ["SUCCESS", "NOT_FOUND", "SUCCESS"]
    assert statuses(report, "resume") == ["SUCCESS", "SUCCESS", "NOT_FOUND"]
    assert statuses(report, "write") == ["SUCCESS", "DEVICE_ERROR", "SUCCESS"]
    assert {answer["tpl"] for order in ("pause", "resume") for answer in report.all(order)} == {"4"}
    assert report.one("sum")["crc"] == crc(want)


def test_volume_taken(rig, guest, qcow2):
    """Its file system driver goes: nothing happens. Its disk goes: the image goes too."""
    outer, want = Outer(rig, "taken"), bytearray(guest)
    outer.image("IMAGE", qcow2)
    report = run(rig, outer, [
        "attach IMAGE", "disconnect", "into IMAGE", written(want, 0, 200, 4), "flush child",
        "sum child 64", select(part=0), "disconnect", "into", "read child 0 1",
        "write child 0 1 9", "flush child", "wait 20", "console", "list", "detach", "tpl",
        "connect", select(part=1), "attach IMAGE", "into IMAGE", "sum child 64", "detach"])
    assert statuses(report, "read") == statuses(report, "write")[1:] == ["NO_MEDIA"]
    assert any("its medium is gone" in line for line in report.console())
    assert statuses(report, "attach") == ["SUCCESS"] * 2
    assert [answer["crc"] for answer in report.all("sum")] == [crc(want)] * 2
    assert report.one("tpl")["tpl"] == "4"
    outer.check()
    assert judge(outer.qcow2("IMAGE")) == want


# ---- power cuts --------------------------------------------------------------------------------

def test_every_flush(rig, guest, qcow2):
    """
    The outer disk at each of its flushes: a clean volume, neighbours whole, an image without a
    fault that has all that was flushed.
    """
    outer, want = Outer(rig, "cuts"), bytearray(guest)
    outer.image("IMAGE", qcow2)
    outer.put("NEXT", b"n" * 5000)
    orders, durable = [], [bytes(guest)]
    for step in range(6):
        orders += [written(want, 400 * step, 300, step + 1), written(want, 3990, 8, step + 1),
                   "flush child"]
        durable.append(bytes(want))
    before = outer.disk().path.read_bytes()
    report = run(rig, outer, ["attach IMAGE", "into IMAGE", "count begin", "flush child", *orders,
                              "count end", "detach"], log=True)
    assert set(statuses(report, "write") + statuses(report, "flush")) == {"SUCCESS"}
    marks = [int(answer["downflushes"]) for answer in report.all("flush")]
    parts = logwrites.segments(logwrites.entries(outer.kept.log))
    disk = bytearray(before)
    for over, writes in enumerate(parts):
        outer.check(bytes(disk))
        content = judge(outer.qcow2("IMAGE"), leaks=True)
        assert outer.content("NEXT") == b"n" * 5000
        ended = sum(mark <= over for mark in marks) - 1
        for sector in range(0, GUEST_BYTES, SECTOR) if ended >= 0 else ():
            known = [state[sector:sector + SECTOR] for state in durable[ended:]]
            assert content[sector:sector + SECTOR] in known, (over, sector // SECTOR)
        logwrites.apply(disk, writes)
    assert len(parts) > 6 and marks[-1] - marks[0] >= 6
