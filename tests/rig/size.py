# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Prints what the driver costs, and fails where it costs more than it may.

The file and its sections come from the PE header; static objects from the symbols of the object
files: COFF keeps no sizes, so an object reaches to the next symbol of its section or to the
section's end, and padding counts for the object before it. Frames come from the .su files that the
compiler writes beside the objects; what they add up to tells stack.py, for x64. The decoders'
objects count like the project's own. Exit status 1 when a limit is broken.
"""

import argparse
import struct
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

FILE_BYTES_MAX = 160 * 1024
STATIC_BYTES_MAX = 10 * 1024 * 1024
FRAME_BYTES_MAX = 1024
LISTED_BYTES_MIN = 256
LISTED_FRAMES = 3
FORBIDDEN = {
    "malloc", "calloc", "realloc", "free", "alloca",
    "AllocatePool", "AllocateZeroPool", "AllocatePages", "FreePool", "FreePages",
    "__chkstk",  # a frame of a page or more
    "_fltused",  # floating point
}

SECTION_BYTES, SYMBOL_BYTES = 40, 18
CODE = 0x00000020
WRITABLE = 0x80000000
DISCARDABLE = 0x02000000
CLASS_EXTERNAL, CLASS_STATIC = 2, 3


def coff_name(raw, strings):
    """Names longer than 8 bytes lie in the string table."""
    if raw[:4] == bytes(4):
        start = int.from_bytes(raw[4:], "little")
    elif raw[:1] == b"/":
        start = int(raw[1:].rstrip(b"\0"))
    else:
        return raw.rstrip(b"\0").decode()
    return strings[start:strings.index(b"\0", start)].decode()


def sections_of(data, table_off, count, strings=b""):
    """[(name, bytes in memory, bytes in the file, flags)]; objects state only the latter."""
    found = []
    for number in range(count):
        fields = struct.unpack_from("<8sIIIIIIHHI", data, table_off + number * SECTION_BYTES)
        found.append((coff_name(fields[0], strings), fields[1], fields[3], fields[9]))
    return found


def read_object(data):
    """(sections, symbols) of a COFF object; a symbol is (name, section from 1, value, class)."""
    _machine, count, _time, symbols_off, symbols_count, option_bytes, _flags = \
        struct.unpack_from("<HHIIIHH", data)
    strings = data[symbols_off + symbols_count * SYMBOL_BYTES:]
    sections = sections_of(data, 20 + option_bytes, count, strings)
    symbols, skip = [], 0
    for number in range(symbols_count):
        name, value, section, _type, storage, aux_count = \
            struct.unpack_from("<8sIhHBB", data, symbols_off + number * SYMBOL_BYTES)
        if skip:
            skip -= 1
            continue
        skip = aux_count
        is_section = storage == CLASS_STATIC and aux_count > 0
        if storage in (CLASS_EXTERNAL, CLASS_STATIC) and not is_section:
            symbols.append((coff_name(name, strings), section, value, storage))
    return sections, symbols


def read_image(data):
    """The sections of a PE file."""
    pe_off, = struct.unpack_from("<I", data, 0x3c)
    count, = struct.unpack_from("<H", data, pe_off + 6)
    option_bytes, = struct.unpack_from("<H", data, pe_off + 20)
    return sections_of(data, pe_off + 24 + option_bytes, count)


def static_objects(sections, symbols):
    """[(name, bytes)] of every writable section; what no symbol names is the section's own."""
    found = []
    for number, (section, _memory, size, flags) in enumerate(sections, 1):
        if not flags & WRITABLE or flags & DISCARDABLE or size == 0:
            continue
        starts = sorted((value, name) for name, at, value, _class in symbols if at == number)
        if not starts or starts[0][0] > 0:
            starts.insert(0, (0, section))
        ends = [value for value, _name in starts[1:]] + [size]
        found += [(name, end - value) for (value, name), end in zip(starts, ends)]
    return found


def frames(path):
    """[(bytes, function, kind)] of one object; one without code has no .su file."""
    sections, _symbols = read_object(path.read_bytes())
    if not any(flags & CODE and size for _name, _memory, size, flags in sections):
        return []
    found = []
    for line in path.with_suffix(".su").read_text().splitlines():
        place, size, kind = line.split("\t")
        found.append((int(size), f"{place.rsplit(':', 1)[1]} in {place.split(':')[0]}", kind))
    return found


def objects_of(out, folders):
    """The object of every source in these folders; what has no source any more is left out."""
    found = []
    for folder, pattern in folders:
        for source in sorted((ROOT / folder).glob(pattern)):
            found.append(out / "obj" / source.relative_to(ROOT).with_suffix(".obj"))
    return found


def decoders_of(out):
    """zlib and zstd have no sources in the tree: what was built is what is linked."""
    found = sorted((out / "third-party").glob("*.obj"))
    return found or [out / "third-party" / "*.obj"]


def driver_objects(out):
    own = objects_of(out, [("core", "*.c"), ("drivers", "efi_*.c"), ("drivers", "extents.c"),
                           ("drivers", "fat.c"), ("efi", "*.c")])
    return own + decoders_of(out)


def report_file(driver):
    data = driver.read_bytes()
    print(f"{driver.name}: {len(data)} bytes (at most {FILE_BYTES_MAX})")
    for name, memory, in_file, _flags in read_image(data):
        print(f"  {name:<8} {memory:>10} in memory {in_file:>8} in the file")
    return len(data) <= FILE_BYTES_MAX


def report_static(objects):
    found = []
    for path in objects:
        sections, symbols = read_object(path.read_bytes())
        found += [(size, name, path.stem) for name, size in static_objects(sections, symbols)]
    total = sum(size for size, _name, _file in found)
    print(f"static objects: {total} bytes in all (at most {STATIC_BYTES_MAX}), the larger ones:")
    for size, name, stem in sorted(found, reverse=True):
        if size >= LISTED_BYTES_MIN:
            print(f"  {size:>10} {name} ({stem}.c)")
    return total <= STATIC_BYTES_MAX


def report_frames(objects):
    found = sorted((frame for path in objects for frame in frames(path)), reverse=True)
    print(f"frames: {len(found)}, the deepest (at most {FRAME_BYTES_MAX} bytes, fixed):")
    for size, function, kind in found[:LISTED_FRAMES]:
        print(f"  {size:>10} {function}, {kind}")
    return bool(found) and all(size <= FRAME_BYTES_MAX and kind == "static"
                               for size, _function, kind in found)


def report_symbols(objects):
    found = [(path.stem, name) for path in objects
             for name, _section, _value, _class in read_object(path.read_bytes())[1]
             if name in FORBIDDEN]
    print(f"forbidden symbols in {len(objects)} objects: {len(found)}")
    for stem, name in found:
        print(f"  {name} in {stem}.c")
    return not found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, default=ROOT / "build")
    parser.add_argument("--arch", default="x64")
    args = parser.parse_args()

    out = args.build / args.arch
    driver = driver_objects(out)
    firmware = driver + objects_of(out, [("efi/command", "*.c")])
    missing = [path for path in firmware if not path.exists()]
    if missing:
        sys.exit(f"{missing[0]} is not built")
    kept = [report_file(out / f"qcow2{args.arch}.efi"), report_static(driver),
            report_frames(firmware), report_symbols(firmware)]
    if args.arch == "x64":
        import stack  # here, because it reads objects with what stands above
        kept.append(stack.report(out))
    if not all(kept):
        print("a limit is broken")
    sys.exit(0 if all(kept) else 1)


if __name__ == "__main__":
    main()
