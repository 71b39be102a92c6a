# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Makes the disk of a machine whose system was broken by an upgrade, with a snapshot of before.

Promises: the image's disk as it is now has no loader that starts; as it was at the snapshot
"before-upgrade" it has the demo's system with this run's nonce (images/demo.py), which the machine
has nowhere else. Going back to it is left to others.
"""

import os
import secrets

from images import disks
from images.demo import SECTOR, system_disk
from images.kernel import kernel

STATE = "before-upgrade"
NAME = "demo"
CONFIG = """\
timeout 30
default {name}
image   {name}
  partition {guid}
"""


def overwrite(qcow2, raw, wanted, changed):
    """Writes over the one place of the disk in qcow2, whose bytes are in raw, that is wanted."""
    content = raw.read_bytes()
    at = content.find(wanted)
    if at < 0 or content.find(wanted, at + 1) >= 0 or len(changed) != len(wanted):
        raise RuntimeError("what is to be written over is not once in the disk")
    start, end = at // SECTOR * SECTOR, disks.round_up(at + len(wanted), SECTOR)
    piece = qcow2.with_suffix(".piece")
    piece.write_bytes(content[start:at] + changed + content[at + len(wanted):end])
    disks.run("qemu-io", "-f", "qcow2", "-c", f"write -q -s {piece} {start} {end - start}", qcow2)


def rollback_disk(folder, cache, driver, boot_program):
    """(this run's nonce, the machine's disk), made anew in folder."""
    folder.mkdir(parents=True, exist_ok=True)
    nonce = secrets.token_hex(16)
    raw = system_disk(folder, kernel(cache), nonce, None)
    qcow2 = folder / "system.qcow2"
    disks.run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", raw, qcow2)
    disks.run("qemu-img", "snapshot", "-c", STATE, qcow2)
    start = (folder / "uki.efi").read_bytes()[:4 * SECTOR]
    overwrite(qcow2, raw, start, b"upgraded".ljust(len(start), b"\0"))
    os.truncate(qcow2, disks.round_up(qcow2.stat().st_size + 8 * disks.MIB, disks.MIB))
    config = folder / "qcow2.conf"
    config.write_text(CONFIG.format(name=NAME, guid=disks.partition_guid("machine", 2)))
    esp = disks.make_esp(folder / "esp.fat", driver, boot_program, config)
    return nonce, disks.write_gpt(folder / "machine.raw", [(disks.ESP_TYPE, esp),
                                                           (disks.DATA_TYPE, qcow2)],
                                  name="machine")
