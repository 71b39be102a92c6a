# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Secure Boot: what is signed runs, nothing else does, and the configuration cannot widen anything.

One boot of firmware that trusts one key, which all the world has. The saved state of other tests
does not serve here, so that everything happens in this boot; the tests below read its report.
"""

import subprocess
import tempfile
from pathlib import Path

import pytest

import machine
import making
import vm
from conftest import base, crc, entry, select
from images import disks
from test_write import SUCCESS

ROOT = Path(__file__).resolve().parents[2]
SIGN = ROOT / "tests/rig/sign.sh"
# Which of the two is the firmware's policy.
DENIED = ({"load": "ACCESS_DENIED"}, {"load": "800000000000001a"})
FOLDER = "EFI\\BOOT\\"
ENTRIES = (entry("plain", "sb", 1, "readonly yes") + entry("over", "sb", 2, base("sb", 3))
           + entry("apart", "sb", 4, f"data {disks.partition_guid('sb', 5)}"))
ORDERS = [
    "connect",
    f"load {FOLDER}unsigned.efi", f"load {FOLDER}tampered.efi",
    *(f"config {line}" for line in ENTRIES),
    f"load {FOLDER}qcow2x64.efi", "connect", "console",
    select(part=1), "media child", "sum child 64", "write child 0 8 1",
    select(part=2), "start", select(part=4), "start",
    "console", "unload",
    # The boot program, beside a driver that is not signed, and beside one that is.
    "handles", "load bad\\boot.efi", "handles", "load good\\boot.efi", "handles",
    "console",
]


class Keys:
    """The key that the firmware trusts, without its password, and another one."""

    def __init__(self, folder):
        self.key, self.cert = folder / "key.pem", machine.SNAKEOIL.with_suffix(".pem")
        disks.run("openssl", "rsa", "-in", machine.SNAKEOIL.with_suffix(".key"), "-passin",
                  f"pass:{machine.SNAKEOIL_PASSWORD}", "-out", self.key)
        self.other_key, self.other_cert = folder / "other.key", folder / "other.pem"
        disks.run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=other",
                  "-keyout", self.other_key, "-out", self.other_cert)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def signed(build, keys):
    """The folder of the signed binaries."""
    making.make(build, "sign", f"KEY={keys.key}", f"CERT={keys.cert}")
    return build / "x64/signed"


def tampered(driver, path):
    """A byte of the code is another one, as behind a signature that was right once."""
    content = bytearray(driver.read_bytes())
    content[0x1000] ^= 1
    path.write_bytes(content)
    return path


def agent_disk(folder, build, signed, keys):
    disks.run(SIGN, keys.key, keys.cert, folder, build / "x64/agent.efi")
    driver = signed / "qcow2x64.efi"
    files = {"EFI/BOOT/BOOTX64.EFI": folder / "agent.efi", "EFI/BOOT/qcow2x64.efi": driver,
             "EFI/BOOT/unsigned.efi": build / "x64/qcow2x64.efi",
             "EFI/BOOT/tampered.efi": tampered(driver, folder / "tampered.efi"),
             "bad/boot.efi": signed / "qcow2.efi", "bad/qcow2x64.efi": build / "x64/qcow2x64.efi",
             "good/boot.efi": signed / "qcow2.efi", "good/qcow2x64.efi": driver}
    esp = disks.make_fat(folder / "esp.fat", files)
    return disks.write_gpt(folder / "esp.raw", [(disks.ESP_TYPE, esp)], name="agent")


def system_image(folder, name, loader):
    """An image with an EFI system partition that starts this loader."""
    esp = disks.make_fat(folder / f"{name}.fat", {"EFI/BOOT/BOOTX64.EFI": loader})
    disk = disks.write_gpt(folder / f"{name}.raw", [(disks.ESP_TYPE, esp)], name=name)
    disks.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, folder / name)
    return folder / name


class Images:
    """A disk: 1 an image, 2 one over 3, 4 one with its data in 5, 6 and 7 systems to boot."""

    def __init__(self, folder, build, signed):
        self.content = vm.pattern(7, 0, 2048)
        (folder / "raw").write_bytes(self.content)
        disks.run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "raw", "base",
                  cwd=folder)
        disks.run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "over",
                  cwd=folder)
        disks.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-o", "data_file=data", "raw",
                  "apart", cwd=folder)
        parts = [folder / name for name in ("base", "over", "base", "apart", "data")]
        # A boot program inside an image says so and starts nothing: enough to see that it ran.
        parts += [system_image(folder, "unsigned", build / "x64/qcow2.efi"),
                  system_image(folder, "signed", signed / "qcow2.efi")]
        path = disks.write_gpt(folder / "sb.raw", [(disks.DATA_TYPE, part) for part in parts],
                               name="sb")
        self.disk = vm.Kept(path, slot=vm.SLOTS["virtio"])
        self.before = path.read_bytes()


@pytest.fixture(scope="module")
def images(tmp_path_factory, build, signed):
    return Images(tmp_path_factory.mktemp("images"), build, signed)


@pytest.fixture(scope="module")
def report(tmp_path_factory, build, signed, keys, images):
    esp = agent_disk(tmp_path_factory.mktemp("esp"), build, signed, keys)
    with tempfile.TemporaryDirectory(prefix="qcow2-sb-") as folder, \
            pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "firmware", machine.secure_firmware)
        vm.write_script(Path(folder), ORDERS)
        command = vm.command_line(Path(folder), esp, [images.disk], 1)
        return vm.execute(command, Path(folder), vm.BOOT_TIMEOUT_S)


def said(report):
    """Our lines on the console: before the driver was unloaded, and of the boot programs after."""
    parts = ([], [])
    unloaded = False
    for line in report.lines:
        unloaded |= line.startswith("unload:")
        if line.startswith("console| qcow2: "):
            parts[unloaded].append(line.removeprefix("console| qcow2: "))
    return parts


def test_only_what_is_signed_is_loaded(report):
    unsigned, altered, right = report.all("load")[:3]
    assert unsigned in DENIED and altered in DENIED
    assert right == {"load": "SUCCESS", "start": "SUCCESS"}


def test_signed_driver_reads(report, images):
    assert report.one("sum")["crc"] == crc(images.content)


def test_configuration_narrows(report):
    """readonly acts; base and data do not, which one line says for all entries."""
    assert report.one("media")["readonly"] == "1"
    assert report.one("write") == {"status": "WRITE_PROTECTED"}
    lines = [line for line in said(report)[0] if "Secure Boot" in line]
    assert len(lines) == 1
    assert lines[0].endswith(": qcow2.conf base, data and file are not followed: Secure Boot is on")


def test_layers_elsewhere_are_refused(report, images):
    for started in report.all("start"):
        assert started == {"supported": "SUCCESS", "started": "ACCESS_DENIED", "child": "0"}
    lines = said(report)[0]
    assert [(line.split("/HD(")[1][0], line.split("refused: ")[-1]) for line in lines
            if ": refused: " in line] == [
                ("2", "no base in the configuration"), ("4", "no data file in the configuration")]
    # What they name is nobody's disk for all that.
    assert any("a base in" in line for line in lines)
    assert any("a data file in" in line for line in lines)
    assert images.disk.path.read_bytes() == images.before


def test_boot_program(report):
    """It starts neither a driver nor a loader that is not signed, and says why."""
    refused, reached = report.all("load")[3:]
    assert refused == {"load": "SUCCESS", "start": "ACCESS_DENIED"}
    # What the loader in the image answers is what the boot program answers.
    assert reached == {"load": "SUCCESS", "start": "UNSUPPORTED"}
    assert report.one("unload") == SUCCESS
    assert [answer["children"] for answer in report.all("handles")] == ["0", "0", "3"]


def test_boot_program_says(report):
    lines = said(report)[1]
    assert lines[0] == "driver qcow2x64.efi: refused by Secure Boot"
    refused, started, reached = lines[-3:]
    assert refused.startswith("\\EFI\\BOOT\\BOOTX64.EFI from ") and "/HD(6," in refused
    assert refused.endswith(": refused by Secure Boot")
    assert started.startswith("starting \\EFI\\BOOT\\BOOTX64.EFI from ") and "/HD(7," in started
    assert reached == "the boot program does not start from inside an image"


# ---- make sign -------------------------------------------------------------------------------


def test_sign_leaves_the_originals(build, signed):
    for name in ("qcow2x64.efi", "qcow2.efi"):
        original = (build / "x64" / name).read_bytes()
        assert len((signed / name).read_bytes()) > len(original)


@pytest.mark.parametrize("given", [["KEY=k"], ["CERT=c"]])
def test_sign_without_a_key(build, given):
    with pytest.raises(making.BuildError, match="usage: make sign KEY=file CERT=file"):
        making.make(build, "sign", *given)


@pytest.mark.parametrize("key,cert,status", [
    ("key", "other_cert", 1), ("other_key", "cert", 1), ("other_key", "other_cert", 0),
])
def test_sign_verifies(build, keys, tmp_path, key, cert, status):
    """A key that is not the certificate's signs nothing that stays."""
    done = subprocess.run([SIGN, getattr(keys, key), getattr(keys, cert), tmp_path,
                           build / "x64/qcow2.efi"], capture_output=True, timeout=60, check=False)
    assert done.returncode == status, done.stderr
    assert (tmp_path / "qcow2.efi").exists() == (status == 0)
