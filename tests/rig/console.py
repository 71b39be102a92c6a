# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A machine whose serial console a test types on and reads, with QEMU's monitor beside it.

For clients that talk to people: the EFI shell, GRUB, systemd-boot. And for what vm.py cannot do:
disks that come and go while the machine runs, machines that lose their power.

Promises: a machine never outlives its "with"; every wait ends, with ConsoleError and the last lines
that were said when in vain; a machine that was ended by kill() has written nothing after that.
"""

import json
import os
import re
import select
import socket
import subprocess
import time

WAIT_TIMEOUT_S = 90
END_TIMEOUT_S = 30
TAIL_LINES = 25
POLL_S = 0.02
USB, STICK = "usbhot", "stick"
USB_CONTROLLER = ["-device", f"qemu-xhci,id={USB}"]
PROMPT = r"(Shell|[A-Z]+\d\w*:\\[^\n]*)> "
ESCAPE = re.compile(r"\x1b(?:\[[0-9;?=]*[A-Za-z]|[()][A-Za-z0-9]|[=>78A-Z])")
HALF_ESCAPE = re.compile(r"\x1b(?:\[[0-9;?=]*|[()])?$")


class ConsoleError(Exception):
    pass


class Console:
    """command: a machine without -serial and -qmp. scratch: a folder for the monitor's socket."""

    def __init__(self, command, scratch):
        self.path = scratch / "monitor"
        self.command = command + ["-serial", "stdio",
                                  "-qmp", f"unix:{self.path},server=on,wait=off"]
        self.qemu = self.monitor = self.messages = None
        self.raw = b""  # all that came
        self.text = ""  # all that was said, without cursor movements
        self.seen = 0  # characters of it that a wait has passed
        self.half = ""  # the beginning of an escape sequence

    def __enter__(self):
        self.qemu = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                     stderr=subprocess.STDOUT)
        return self

    def __exit__(self, *_):
        self.kill()
        if self.monitor:
            self.monitor.close()
        self.qemu.stdin.close()
        self.qemu.stdout.close()

    def failure(self, why):
        tail = "\n".join(self.text.splitlines()[-TAIL_LINES:])
        return ConsoleError(f"{why}\n--- last lines of the console:\n{tail}")

    def read(self, timeout_s):
        """Takes what comes within the time; False at the console's end."""
        if not select.select([self.qemu.stdout], [], [], timeout_s)[0]:
            return True
        chunk = os.read(self.qemu.stdout.fileno(), 65536)
        self.raw += chunk
        text = ESCAPE.sub("", self.half + chunk.decode("ascii", "replace").replace("\r", ""))
        half = HALF_ESCAPE.search(text)
        cut = half.start() if half else len(text)
        self.text += text[:cut]
        self.half = text[cut:]
        return bool(chunk)

    def wait(self, pattern, timeout_s=WAIT_TIMEOUT_S):
        """What was said from the last wait's end to the end of the pattern's first match."""
        deadline = time.monotonic() + timeout_s
        while not (found := re.compile(pattern).search(self.text, self.seen)):
            if time.monotonic() > deadline:
                raise self.failure(f"{pattern!r} did not come within {timeout_s} s")
            if not self.read(0.5):
                raise self.failure(f"the machine ended before {pattern!r}")
        said = self.text[self.seen:found.end()]
        self.seen = found.end()
        return said

    def wait_for(self, condition, timeout_s=WAIT_TIMEOUT_S):
        """The same for what is seen elsewhere than on the console."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline or not self.read(POLL_S):
                raise self.failure("what was waited for did not happen")

    def shell(self, line, timeout_s=WAIT_TIMEOUT_S):
        """What the EFI shell says to a line, from the echo of the line to the next prompt."""
        self.type(line + "\r")
        return self.wait(PROMPT, timeout_s)

    def enter_shell(self):
        """Past the delay in front of startup.nsh, which is not there."""
        self.wait("any other key to continue")
        self.type("\r")
        self.wait(PROMPT)

    def type(self, text):
        self.qemu.stdin.write(text.encode())
        self.qemu.stdin.flush()

    def ask(self, command, **arguments):
        """One command to QEMU's monitor; what it returns."""
        if not self.monitor:
            self.monitor = socket.socket(socket.AF_UNIX)
            self.monitor.settimeout(END_TIMEOUT_S)
            self.monitor.connect(str(self.path))
            self.messages = self.monitor.makefile()
            self.ask("qmp_capabilities")
        self.monitor.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        answer = self.receive(lambda message: "return" in message or "error" in message)
        if "error" in answer:
            raise ConsoleError(f"{command}: {answer['error']['desc']}")
        return answer["return"]

    def receive(self, is_wanted):
        """The next message of the monitor that is wanted; the others are dropped."""
        for line in self.messages:
            message = json.loads(line)
            if is_wanted(message):
                return message
        raise ConsoleError("the monitor ended")

    def plug(self, path):
        """A USB stick with the file as its raw content, on the controller of that name."""
        self.ask("blockdev-add", **{"driver": "raw", "node-name": STICK,
                                    "file": {"driver": "file", "filename": str(path)}})
        self.ask("device_add", driver="usb-storage", id=STICK, bus=f"{USB}.0", port="1",
                 drive=STICK)

    def unplug(self):
        """It is gone when this returns; the firmware finds out in its own time."""
        self.ask("device_del", id=STICK)
        self.receive(lambda message: message.get("event") == "DEVICE_DELETED"
                     and message["data"].get("device") == STICK)
        self.ask("blockdev-del", **{"node-name": STICK})

    def ended(self, timeout_s=END_TIMEOUT_S):
        """The status of a machine that ends by itself."""
        deadline = time.monotonic() + timeout_s
        while self.read(0.5):
            if time.monotonic() > deadline:
                raise self.failure(f"the machine did not end within {timeout_s} s")
        return self.qemu.wait(END_TIMEOUT_S)

    def kill(self):
        """The end of the power."""
        self.qemu.kill()
        self.qemu.wait()
