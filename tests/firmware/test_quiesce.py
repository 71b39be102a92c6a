# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What becomes durable though nobody flushes, and how an image is left behind.

Every machine here ends at once after its last order, as if power went: what counts as durable is
what the log of the disk shows in front of its last flush. On disks without a log it is what lies
on the disk when the machine is gone.
"""

import pytest

import logwrites
import machine
import vm
from conftest import crc, image_of, judge, judge_disk, select

SECTOR = 512
SUCCESS = {"status": "SUCCESS"}
STREAM = 40  # writes: more than are committed before they return
UNWAITED = 16
CLUSTER_SECTORS = 128


def stream(count=STREAM, seed=1):
    """Orders: every write into a cluster of its own, none flushed."""
    return [f"write child {number * CLUSTER_SECTORS} 8 {seed}" for number in range(count)]


def streamed(count=STREAM, seed=1):
    """What the clusters of stream() hold."""
    parts = [vm.pattern(seed, number * CLUSTER_SECTORS, 8) for number in range(count)]
    return b"".join(part.ljust(CLUSTER_SECTORS * SECTOR, b"\0") for part in parts)


@pytest.fixture
def logged(rig, request):
    """(a logged container with an empty image, its bytes)"""
    name = request.node.name.replace("[", "-").replace("]", "")
    device = request.node.callspec.params.get("device", "virtio") \
        if hasattr(request.node, "callspec") else "virtio"
    disk = rig.container(name, rig.image("empty-v3-64k"), device, log=True)
    return disk, disk.path.read_bytes()


def durable(rig, disk, before, leaks=False):
    """The guest's bytes after a power cut that lost all that was not flushed."""
    kept = logwrites.segments(logwrites.entries(disk.log))[:-1]
    after = bytearray(before)
    for writes in kept:
        logwrites.apply(after, writes)
    qcow2 = rig.folder / "durable.qcow2"
    qcow2.write_bytes(image_of(after))
    return judge(qcow2, leaks)


def assert_written(report, count=STREAM):
    assert report.all("write") == [SUCCESS] * count
    assert all(line["status"] == "SUCCESS" for line in report.all("wait") + report.all("signal"))


@pytest.mark.parametrize("last", ["wait 700", "signal ready", "signal before", "disconnect",
                                  "unload", "flush child", "reset child"])
def test_stream_is_committed(rig, logged, last):
    disk, before = logged
    report = rig.loaded([select(part=1), *stream(), last], disk)
    assert_written(report)
    assert durable(rig, disk, before)[:len(streamed())] == streamed()


def test_stream_is_not_committed(rig, logged):
    """The counterpart: without any of these the end of the stream is lost, and only that."""
    disk, before = logged
    report = rig.loaded([select(part=1), *stream()], disk)
    assert_written(report)
    kept = durable(rig, disk, before, leaks=True)
    assert kept[:len(streamed(UNWAITED))] == streamed(UNWAITED)
    assert kept[:len(streamed())] != streamed()


def test_few_writes_do_not_wait(rig, logged):
    """A caller that never flushes and never comes back: its first writes are durable at once."""
    disk, before = logged
    report = rig.loaded([select(part=1), *stream(3)], disk)
    assert_written(report, 3)
    assert durable(rig, disk, before)[:len(streamed(3))] == streamed(3)


def test_pause_starts_afresh(rig, logged):
    """After a flush and a pause, the next writes are committed at once again."""
    disk, before = logged
    report = rig.loaded([select(part=1), *stream(), "flush child", "stall 900",
                         *stream(4, seed=2)], disk)
    assert_written(report, STREAM + 4)
    kept = durable(rig, disk, before)
    assert kept[:len(streamed(4))] == streamed(4, seed=2)


def test_poller_comes_back(rig, logged):
    """After a pause without WaitForEvent, the next request commits what is due."""
    disk, before = logged
    report = rig.loaded([select(part=1), *stream(), "stall 500", "read child 0 8"], disk)
    assert_written(report)
    assert durable(rig, disk, before)[:len(streamed())] == streamed()


@pytest.mark.parametrize("device", ["virtio"])
def test_timer_beside_raw_reads(rig, logged, device):
    """
    The image's timer fires while the application is inside the driver of the very disk. The raw
    reads go on, and nothing of the image is lost.
    """
    disk, before = logged
    rounds = []
    for seed in range(1, 6):
        rounds += [*stream(20, seed), f"hammer 400 {vm.SLOTS[device]}"]
    report = rig.loaded([select(part=1), *rounds, "sum child 64", "flush child", "tpl"], disk)
    assert report.all("hammer") == [{"status": "SUCCESS", "some": "1"}] * 5
    assert_written(report, 100)
    assert report.one("tpl")["tpl"] == "4"
    kept = durable(rig, disk, before)
    assert kept[:len(streamed(20))] == streamed(20, seed=5)
    assert report.one("sum")["crc"] == crc(kept)


@pytest.mark.parametrize("orders,asked,logged_count", [
    # What was there before may not be durable yet. QEMU itself passes over a flush of nothing.
    (["flush child"], 1, 0),
    (["flush child", "flush child"], 1, 0),
    (["write child 0 8 1"], 2, 2),
    (["write child 0 8 1", "flush child"], 2, 2),
    (["write child 0 8 1", "flush child", "flush child"], 2, 2),
    (["write child 0 8 1", "flush child", "write child 8 8 1", "flush child"], 3, 3),
    (["write child 0 8 1", "flush child", "write child 1024 8 1", "flush child"], 4, 4),
    (["read child 0 8", "erase 0 0"], 0, 0),
], ids=["first", "twice", "write", "allocate", "nothing", "in-place", "again", "none"])
def test_flushes(rig, orders, asked, logged_count):
    """Flushes the disk's driver is asked for, and those that reach the disk."""
    disk = rig.container(f"flushes-{len(orders)}-{asked}", rig.image("empty-v3-64k"), log=True)
    report = rig.loaded([select(part=1), "count begin", *orders, "count end"], disk)
    assert report.all("count")[-1]["flushes"] == str(asked)
    assert logwrites.flushes(logwrites.entries(disk.log)) == logged_count


def test_stream_flushes(rig):
    """
    A caller that has flushed is trusted to do so again: its writes wait for it, but for a commit
    in each idle time that they take. Were each committed, that would be 60 flushes and more.
    """
    disk = rig.container("flushes-stream", rig.image("empty-v3-64k"))
    report = rig.loaded([select(part=1), "write child 0 8 1", "flush child", "count begin",
                         *stream(30), "flush child", "count end"], disk)
    assert 2 <= int(report.all("count")[-1]["flushes"]) <= 30


def test_flushes_nvme(rig):
    disk = rig.container("flushes-nvme", rig.image("empty-v3-64k"), "nvme", log=True)
    rig.loaded([select("nvme", 1), "write child 0 8 1", "flush child"], disk, cold=True)
    assert logwrites.flushes(logwrites.entries(disk.log)) == 2


@pytest.mark.parametrize("device", ["virtio", "nvme", "ahci", "usb"])
def test_exit_boot_services(rig, device):
    """What was not flushed is there afterwards; the child answers nothing any more."""
    disk = rig.container(f"exit-{device}", rig.image("data-v3-64k"), device)
    orders = [select(device, 1), *stream(), "erase 5120 256", "exit"]
    report = rig.loaded(orders, disk, cold=device == "nvme")
    assert_written(report)
    gone = "DEVICE_ERROR"
    assert report.one("exit") == {"status": "SUCCESS", "read": gone, "write": gone, "flush": gone,
                                  "reset": gone, "erase": gone}
    content = bytearray(rig.content(rig.image("data-v3-64k")))
    for number in range(STREAM):
        at = number * CLUSTER_SECTORS * SECTOR
        content[at:at + 8 * SECTOR] = vm.pattern(1, number * CLUSTER_SECTORS, 8)
    content[5120 * SECTOR:5376 * SECTOR] = bytes(256 * SECTOR)
    # The USB controller's driver has stopped it by then: what was not committed is lost.
    found = judge_disk(disk, leaks=device == "usb")
    assert device == "usb" or found == content


def test_shutdown(rig):
    disk = rig.container("shutdown", rig.image("empty-v3-64k"))
    report = rig.loaded([select(part=1), *stream(), "erase 0 128", "shutdown"], disk)
    assert_written(report)
    content = bytes(128 * SECTOR) + streamed()[128 * SECTOR:]
    assert judge_disk(disk)[:len(content)] == content


def test_stop_is_refused(rig):
    """The disk below takes no write: the image stays attached, works, and is saved later."""
    disk = rig.container("refused", rig.image("empty-v3-64k"))
    orders = [select(part=1), *stream(), "console", "fault write", "stop", "disconnect",
              "handles", "unload", "read child 0 8", "fault none", "disconnect", "handles",
              "console", "tpl"]
    report = rig.loaded(orders, disk)
    assert_written(report)
    assert report.one("stop") == {"status": "DEVICE_ERROR"}
    first, second = report.all("disconnect")
    assert first != SUCCESS and second == SUCCESS
    assert report.one("unload")["status"] != "SUCCESS"
    assert [line["children"] for line in report.all("handles")] == ["1", "0"]
    assert report.one("read") == {"status": "SUCCESS", "crc": crc(vm.pattern(1, 0, 8))}
    assert sum(": flush error: " in line for line in report.console()) == 1
    assert report.one("tpl")["tpl"] == "4"
    assert judge_disk(disk)[:len(streamed())] == streamed()


def test_write_while_stopping(rig, logged):
    """Those above write back when they are told to let go: that is durable too."""
    disk, before = logged
    report = rig.loaded([select(part=1), *stream(), "latewrite 9", "stop"], disk)
    assert report.one("latewrite") == report.one("stop") == SUCCESS
    kept = durable(rig, disk, before)
    assert kept[:len(streamed())] == vm.pattern(9, 0, 1) + streamed()[SECTOR:]


def test_failed_flush(rig):
    """The disk below fails to flush: the image takes no more writes, and can be let go."""
    disk = rig.container("noflush", rig.image("empty-v3-64k"))
    orders = [select(part=1), *stream(4), "fault flush", "write child 1024 8 2", "media child",
              "write child 0 8 3", "flush child", "read child 0 8", "fault none", "flush child",
              "console", "unload"]
    report = rig.loaded(orders, disk)
    assert [answer["status"] for answer in report.all("write")] == \
        ["SUCCESS"] * 4 + ["DEVICE_ERROR", "WRITE_PROTECTED"]
    media = report.one("media")
    assert (media["readonly"], media["caching"]) == ("1", "0")
    assert report.all("flush") == [{"status": "DEVICE_ERROR"}] * 2
    assert report.one("read") == {"status": "SUCCESS", "crc": crc(vm.pattern(1, 0, 8))}
    assert report.console()[-1].endswith("; no more writes are taken")
    assert report.one("unload") == SUCCESS
    assert judge_disk(disk, leaks=True)[:len(streamed(4))] == streamed(4)


def test_flush_fails_at_idle(rig):
    """Nobody asked for that flush: the medium says that something happened, and so does a line."""
    disk = rig.container("idlefail", rig.image("empty-v3-64k"))
    report = rig.loaded([select(part=1), *stream(), "fault flush", "wait 700", "media child",
                         "fault none", "console", "unload"], disk)
    assert report.one("media")["readonly"] == "1"
    errors = [line for line in report.console() if ": flush error: " in line]
    assert len(errors) == 1 and errors[0].endswith("; no more writes are taken")
    assert report.one("unload") == SUCCESS
    assert judge_disk(disk, leaks=True)[:len(streamed(UNWAITED))] == streamed(UNWAITED)


def test_medium_changes_while_unsettled(rig, logged):
    """The disk gets another medium: what was not committed to the old one never is."""
    disk, before = logged
    report = rig.loaded([select(part=1), *stream(), "medium changed", "flush parent", "wait 600",
                         "signal ready", "unload"], disk)
    assert report.one("unload") == SUCCESS
    kept = durable(rig, disk, before, leaks=True)
    assert kept[:len(streamed(UNWAITED))] == streamed(UNWAITED)
    assert kept[:len(streamed())] != streamed()


def test_no_write_waits_before_exit(rig, logged):
    """Once boot services are about to end, every write is durable when it returns."""
    disk, before = logged
    report = rig.loaded([select(part=1), *stream(), "signal before", *stream(seed=2)], disk)
    assert_written(report, 2 * STREAM)
    assert durable(rig, disk, before)[:len(streamed())] == streamed(seed=2)


def test_read_only_disk(rig):
    """A disk that takes no writes gives an image that takes none."""
    disk = machine.Disk(rig.container("rodisk", rig.image("data-v3-64k")).path, readonly=True)
    report = rig.loaded([select(part=1), "media parent", "media child", "checks", "console",
                         "unload"], disk)
    assert [answer["readonly"] for answer in report.all("media")] == ["1", "1"]
    assert [line for line in report.lines if line.startswith("check ")
            and not line.endswith(" PASS")] == []
    assert report.console()[0].endswith(" 64 KiB clusters, read-only")
    assert report.one("unload") == SUCCESS
