# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Reads the headers of a PE file (Microsoft's PE format, revision 11), and judges what they say.

Promises: complaints() names each thing that keeps firmware from loading the file, or from guarding
its memory while it runs ("UEFI CA memory mitigation requirements"), and what is wrong with its
.sbat (shim, SBAT.md). A file that is no PE32+ image raises PeError. Whether a signature is right is
sbverify's to say.
"""

import struct
from dataclasses import dataclass

SECTION_BYTES = 40
DISCARDABLE, EXECUTABLE, WRITABLE = 0x02000000, 0x20000000, 0x80000000
MACHINES = {"x64": 0x8664, "aa64": 0xaa64}
# Of DllCharacteristics.
DYNAMIC_BASE, NX_COMPAT = 0x40, 0x100
# Of Subsystem.
APPLICATION, BOOT_DRIVER = 10, 11
RELOCS_STRIPPED = 0x0001
# Data directories, by number.
RELOCATIONS, DEBUG = 5, 6
PAGE_BYTES = 4096
SBAT = ("sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md",
        "qcow2efi,1,qcow2-efi,qcow2-efi,")


class PeError(Exception):
    pass


@dataclass
class Section:
    name: str
    memory_off: int
    memory_bytes: int
    file_off: int
    file_bytes: int
    flags: int


@dataclass
class Pe:
    machine: int
    flags: int
    subsystem: int
    dll_flags: int
    section_align: int
    file_align: int
    directories: list  # [(offset in memory, bytes)]
    sections: list
    data: bytes

    def section(self, name):
        found = [section for section in self.sections if section.name == name]
        if len(found) != 1:
            raise PeError(f"{len(found)} sections {name}")
        return found[0]

    def content(self, name):
        """A section's bytes, without what fills it up to the file's alignment."""
        section = self.section(name)
        return self.data[section.file_off:section.file_off
                         + min(section.memory_bytes, section.file_bytes)]


def read_section(data, at):
    name, memory_bytes, memory_off, file_bytes, file_off = struct.unpack_from("<8sIIII", data, at)
    flags, = struct.unpack_from("<I", data, at + 36)
    return Section(name.rstrip(b"\0").decode(), memory_off, memory_bytes, file_off, file_bytes,
                   flags)


def parse(data):
    pe_off, = struct.unpack_from("<I", data, 0x3c)
    if data[:2] != b"MZ" or data[pe_off:pe_off + 4] != b"PE\0\0":
        raise PeError("not a PE file")
    machine, sections_count = struct.unpack_from("<HH", data, pe_off + 4)
    option_bytes, flags = struct.unpack_from("<HH", data, pe_off + 20)
    option = pe_off + 24
    if struct.unpack_from("<H", data, option)[0] != 0x20b:
        raise PeError("not PE32+")
    section_align, file_align = struct.unpack_from("<II", data, option + 32)
    subsystem, dll_flags = struct.unpack_from("<HH", data, option + 68)
    directories_count, = struct.unpack_from("<I", data, option + 108)
    directories = [struct.unpack_from("<II", data, option + 112 + 8 * number)
                   for number in range(directories_count)]
    sections = [read_section(data, option + option_bytes + SECTION_BYTES * number)
                for number in range(sections_count)]
    return Pe(machine, flags, subsystem, dll_flags, section_align, file_align, directories,
              sections, data)


def check_headers(image, machine, subsystem):
    if image.machine != machine:
        yield f"machine {image.machine:#x}"
    if image.subsystem != subsystem:
        yield f"subsystem {image.subsystem}"
    if image.section_align < PAGE_BYTES or image.section_align % PAGE_BYTES:
        yield f"sections are aligned to {image.section_align}"
    for flag in (NX_COMPAT, DYNAMIC_BASE):
        if not image.dll_flags & flag:
            yield f"flag {flag:#x} is missing"
    if image.directories[DEBUG][1] and b".pdb" in image.data:
        yield "it names a debug file"


def check_relocations(image):
    """Code without an absolute address has none, and may still be loaded anywhere."""
    at, size = image.directories[RELOCATIONS]
    if image.flags & RELOCS_STRIPPED:
        yield "it cannot be relocated"
    if not size and image.subsystem == BOOT_DRIVER:
        yield "it has no relocations"
    if size and at != image.section(".reloc").memory_off:
        yield ".reloc is not what the header calls relocations"


def check_sections(image):
    for section in image.sections:
        if section.memory_off % PAGE_BYTES:
            yield f"{section.name} begins at {section.memory_off:#x}"
        if section.flags & WRITABLE and section.flags & EXECUTABLE:
            yield f"{section.name} is writable and executable"


def check_sbat(image):
    section = image.section(".sbat")
    if section.flags & (WRITABLE | EXECUTABLE | DISCARDABLE):
        yield f".sbat has flags {section.flags:#x}"
    lines = image.content(".sbat").rstrip(b"\0").decode().split("\n")
    if len(lines) != 3 or lines[2]:
        yield f".sbat has {len(lines)} lines"
    for line, wanted in zip(lines, SBAT):
        if not line.startswith(wanted) or line.count(",") != 5:
            yield f".sbat says {line}"


def complaints(image, machine, subsystem):
    yield from check_headers(image, machine, subsystem)
    yield from check_relocations(image)
    yield from check_sections(image)
    yield from check_sbat(image)
