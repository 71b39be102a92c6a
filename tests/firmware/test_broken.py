# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A disk whose device itself answers with errors: QEMU's blkdebug under virtio.

What the driver makes of them is what it makes of the errors that the agent puts in the way (its
orders "fault"; test_media.py, test_quiesce.py): a line, and an image that stays as whole as it can.
USB is not asked: the firmware's own driver repeats a failed request for minutes.
"""

from pathlib import Path

import vm
from conftest import crc, judge_disk, select
from images import disks

SUCCESS = {"status": "SUCCESS"}
FAILED = {"status": "DEVICE_ERROR"}
PROTECTED = {"status": "WRITE_PROTECTED"}
CLUSTER_SECTORS = 128
FIRST_SECTOR = disks.ALIGN // 512  # of the partition
DATA = FIRST_SECTOR + 5 * CLUSTER_SECTORS  # the first cluster behind an image's five of tables


def breaking(rig, disk, kind, sector=None):
    """The same disk behind a layer that fails every request of that kind, or those at a sector."""
    rules = rig.folder / f"{disk.path.stem}.rules"
    lines = ["[inject-error]", 'event = "none"', f'iotype = "{kind}"', 'errno = "5"']
    if sector is not None:
        lines.append(f'sector = "{sector}"')
    rules.write_text("\n".join(lines) + "\n")
    return vm.Kept(Path(f"blkdebug:{rules}:{disk.path}"))


def test_flush_fails(rig):
    """The first write is made durable at once, or fails: no more is taken, what was written is
    read, and what the disk kept is whole."""
    disk = rig.container("unflushed", rig.image("empty-v3-64k"))
    report = rig.loaded([select(part=1), "write child 0 8 1", "flush child", "write child 0 8 2",
                         "read child 0 8", "media child", "flush child", "console", "unload",
                         "tpl"], breaking(rig, disk, "flush"))
    assert report.all("write") == [FAILED, PROTECTED]
    assert report.all("flush") == [FAILED, FAILED]
    assert report.one("read") == {"status": "SUCCESS", "crc": crc(vm.pattern(1, 0, 8))}
    assert report.one("media")["readonly"] == "1"
    errors = [line for line in report.console() if " error: " in line]
    assert len(errors) == 1 and ": write error: " in errors[0]
    assert errors[0].endswith("; no more writes are taken")
    assert report.one("unload") == SUCCESS and report.one("tpl")["tpl"] == "4"
    judge_disk(disk, leaks=True)


def test_write_fails(rig):
    """One sector cannot be written: that write fails, with a line, and all others are taken."""
    disk = rig.container("unwritten", rig.image("data-v3-64k"))
    content = rig.content(rig.image("data-v3-64k"))
    report = rig.loaded([select(part=1), "write child 0 8 1", "write child 128 8 2", "flush child",
                         "read child 0 8", "media child", "console", "unload"],
                        breaking(rig, disk, "write", DATA))
    assert report.all("write") == [FAILED, SUCCESS] and report.one("flush") == SUCCESS
    assert report.one("read") == {"status": "SUCCESS", "crc": crc(content[:4096])}
    assert report.one("media")["readonly"] == "0"
    errors = [line for line in report.console() if " error: " in line]
    assert len(errors) == 1
    assert errors[0].endswith(": write error: data at 0x50000 cannot be written")
    assert report.one("unload") == SUCCESS
    assert judge_disk(disk) == content[:65536] + vm.pattern(2, 128, 8) + content[65536 + 4096:]


def test_read_fails(rig):
    """One sector cannot be read: no request but those for it fails."""
    image = rig.image("data-v3-64k")
    disk = rig.container("unread", image)
    content = rig.content(image)
    report = rig.loaded([select(part=1), "read child 0 8", "read child 8 8", "read child 128 8",
                         "write child 0 8 1", "flush child", "media child", "console", "unload"],
                        breaking(rig, disk, "read", DATA))
    assert report.all("read") == [FAILED | {"crc": "0"}] + [
        {"status": "SUCCESS", "crc": crc(content[off:off + 4096])} for off in (4096, 65536)]
    assert report.one("write") == report.one("flush") == report.one("unload") == SUCCESS
    assert report.one("media")["readonly"] == "0"
    assert sum(": read error: data at 0x50000 cannot be read" in line
               for line in report.console()) == 1
    assert judge_disk(disk) == vm.pattern(1, 0, 8) + content[4096:]
