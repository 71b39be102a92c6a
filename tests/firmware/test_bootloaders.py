# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The loaders people use, on either side of the driver: GRUB and systemd-boot of Debian.

They load the driver, are loaded from inside an image, read and write there, and the machine is then
gone: none of them flushes, and nobody tells the driver that the power will fail.
"""

import hashlib

import machine
import variables
import vm
from conftest import crc, entry, judge_disk, select
from console import Console
from images import disks, loaders

SYSTEM_SLOT = vm.ESP_SLOT
IMAGE_SLOT = vm.SLOTS["virtio"]
OTHER_SLOT = 0x11
MEMORY = ["-m", "256"]
# No name that the firmware would look for by itself.
LOADER = "EFI/systemd/systemd-bootx64.efi"
DRIVER_FILE = "\\EFI\\qcow2\\qcow2x64.efi"
PAYLOAD = bytes(range(251)) * 9000
ENDED_BY_ITSELF = 0

# GRUB's halt would switch the machine off past the firmware, which reboot does not.
GRUB_CONFIG = """\
terminal_output console
ls /FOLDER
cat /FOLDER/SAYS.TXT
hashsum --hash sha256 /FOLDER/FILE.BIN
if cmp /FOLDER/FILE.BIN /FOLDER/COPY.BIN; then echo same; fi
load_env
echo "boots are [$boots]"
set boots="x$boots"
save_env boots
if [ "$boots" = "x" ]; then reboot; fi
save_env --file /FOLDER/OTHERENV boots
echo "saved [$boots]"
sleep 600
"""


def system_disk(folder, files):
    """The machine's own disk, without an image."""
    volume = disks.make_fat(folder / "system.fat", files)
    return disks.write_gpt(folder / "system.raw", [(disks.ESP_TYPE, volume)], name="system")


def test_grub_inside(rig, tmp_path):
    """
    GRUB lies in the image and reads it. What it saves is there after it has restarted the machine,
    and after the power has failed. All of the image is compressed, so that saving allocates.
    """
    files = loaders.grub_files(tmp_path, GRUB_CONFIG)
    for name, content in (("FILE.BIN", PAYLOAD), ("COPY.BIN", PAYLOAD), ("SAYS.TXT", b"hello\n")):
        (tmp_path / name).write_bytes(content)
        files[f"FOLDER/{name}"] = tmp_path / name
    files["FOLDER/OTHERENV"] = files["EFI/BOOT/grubenv"]
    disk = rig.container("grub", loaders.make_system(tmp_path, "grub-inside", files, "-c"))
    system = system_disk(tmp_path, {"EFI/BOOT/BOOTX64.EFI": rig.build / "x64/qcow2.efi",
                                    "EFI/BOOT/qcow2x64.efi": rig.build / "x64/qcow2x64.efi"})
    command = machine.firmware(tmp_path) + MEMORY + machine.attach(disk) \
        + machine.attach(machine.Disk(system, slot=SYSTEM_SLOT))

    with Console(command, tmp_path) as first:
        assert first.ended() == ENDED_BY_ITSELF
    assert "hello" in first.text and "says.txt" in first.text
    assert hashlib.sha256(PAYLOAD).hexdigest() in first.text and "same" in first.text
    assert "boots are []" in first.text
    settled = judge_disk(disk)
    assert b"\nboots=x\n" in loaders.take_file(settled, tmp_path, "EFI/BOOT/grubenv")

    with Console(command, tmp_path) as second:
        assert "boots are [x]" in second.wait(r"saved \[xx\]")
        second.kill()
    cut = judge_disk(disk, leaks=True)
    for name in ("EFI/BOOT/grubenv", "FOLDER/OTHERENV"):
        assert b"\nboots=xx\n" in loaders.take_file(cut, tmp_path, name)


def agent_machine(scratch, system, *attached):
    """As vm.py starts it, but for the boot order, which is left to the firmware's variables."""
    command = vm.command_line(scratch, system, list(attached), 1)
    return [word.removesuffix(",bootindex=0") for word in command]


def test_systemd_boot_loads_the_driver(rig, tmp_path):
    """It connects everything after that: its entry, the agent, finds the image's volume there."""
    (tmp_path / "FILE.BIN").write_bytes(PAYLOAD)
    image = loaders.make_system(tmp_path, "data-inside", {"FOLDER/FILE.BIN": tmp_path / "FILE.BIN"})
    files = loaders.systemd_boot_files(tmp_path, rig.build / "x64/agent.efi")
    files["EFI/systemd/drivers/qcow2x64.efi"] = rig.build / "x64/qcow2x64.efi"
    vm.write_script(tmp_path, [select(part=1), "file FOLDER\\FILE.BIN", "tpl"])
    command = agent_machine(tmp_path, system_disk(tmp_path, files), rig.container("sd", image))
    report = vm.execute(command, tmp_path, vm.BOOT_TIMEOUT_S)
    assert report.one("select") == {"found": "1", "child": "1"}
    assert report.one("file") == {"status": "SUCCESS", "bytes": str(len(PAYLOAD)),
                                  "crc": crc(PAYLOAD)}
    assert report.one("tpl")["tpl"] == "4"


def firmware_options(scratch, system, disk):
    """The variables that load the driver and then boot what lies in the image on the disk."""
    driver = variables.disk_nodes(SYSTEM_SLOT) + variables.partition_node(system, 1) \
        + variables.file_node(DRIVER_FILE)
    loader = variables.disk_nodes(IMAGE_SLOT) + variables.partition_node(disk.path, 1) \
        + variables.image_node() + variables.partition_node(scratch / "system-inside.disk", 1) \
        + variables.file_node("\\" + LOADER.replace("/", "\\"))
    return {"Driver0000": variables.option("qcow2", driver, variables.ACTIVE
                                           | variables.FORCE_RECONNECT),
            "DriverOrder": variables.order(0),
            "Boot0010": variables.option("inside", loader),
            "BootOrder": variables.order(0x10)}


def test_firmware_loads_the_driver(rig, tmp_path):
    """
    Driver#### and Boot#### alone, three times over: the driver comes with its configuration, and
    the loader in the image, systemd-boot, counts its tries there by renaming its entry.
    """
    files = loaders.systemd_boot_files(tmp_path, rig.build / "x64/agent.efi", LOADER, "probe+3")
    disk = rig.container("holds", loaders.make_system(tmp_path, "system-inside", files))
    other = rig.container("other", rig.image("data-v3-64k"), slot=OTHER_SLOT)
    config = loaders.written(tmp_path, "qcow2.conf", "\n".join(entry("other", "other", 1,
                                                                     "readonly yes")) + "\n")
    system = system_disk(tmp_path, {"EFI/qcow2/qcow2x64.efi": rig.build / "x64/qcow2x64.efi",
                                    "EFI/qcow2/qcow2.conf": config})
    vm.write_script(tmp_path, [select(part=1), "handles", "media child", f"select {OTHER_SLOT} 1",
                               "media child", "tpl"])
    command = agent_machine(tmp_path, system, disk, other)
    options = firmware_options(tmp_path, system, disk)
    variables.write(tmp_path / "vars.fd", options)
    for left, done in ((2, 1), (1, 2), (0, 3)):
        report = vm.execute(command, tmp_path, vm.BOOT_TIMEOUT_S)
        assert report.all("select") == [{"found": "1", "child": "1"}] * 2
        assert report.one("handles")["children"] == "2"
        assert [media["readonly"] for media in report.all("media")] == ["0", "1"]
        assert report.one("tpl")["tpl"] == "4"
        kept = variables.read(tmp_path / "vars.fd")
        assert {name: kept[name] for name in options if name != "BootOrder"} == \
            {name: data for name, data in options.items() if name != "BootOrder"}
        assert kept["BootOrder"].startswith(options["BootOrder"])
        assert loaders.take_file(judge_disk(disk, leaks=True), tmp_path,
                                 f"loader/entries/probe+{left}-{done}.conf")
    assert judge_disk(other) == rig.content(rig.image("data-v3-64k"))
