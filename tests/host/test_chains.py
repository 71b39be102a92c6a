# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Which layers below an image the plugin opens, how, and which names it refuses.

A refusal ends nbdkit before it serves, says exactly one line and leaves every file as it was, byte
for byte. What chains read and take is tested with the other images, in test_matrix.py and
test_writes.py.
"""

import json
import os
import subprocess

import pytest

from images.recipe import KIB
from serve import client, export, plugin_of
from test_refusals import SECONDS_MAX, be32, be64, serve
from tools import connected, created, poke, state_of

SIZE = 256 * KIB
LAYERS_MAX = 8
LINE_CHARS_MAX = 159  # the rest is cut


def overlay(path, name, form="qcow2", version=3):
    """An image that names what lies below it; nothing is looked up."""
    options = f"compat={'1.1' if version == 3 else '0.10'}"
    client("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-o", options, "-b", name, "-F", form,
           path, SIZE)
    return path


def raw(path, byte=0x5a):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(bytes([byte]) * SIZE)
    return path


def files_below(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)


def assert_chain_refused(build, image, line, folder):
    files = files_below(folder)
    before = state_of(files)
    run = serve(build, image)
    assert run.stderr == f"nbdkit: error: {line}\n"
    assert (run.returncode, run.stdout) == (1, "")
    assert files_below(folder) == files and state_of(files) == before


def assert_reads(build, folder, image, byte, *parameters):
    with connected(build, folder, image, *parameters) as link:
        assert link.pread(SIZE, 0) == bytes([byte]) * SIZE


# ---- names -----------------------------------------------------------------------------------

NAMES = {
    "json": ('json:{"driver":"raw","file":{"driver":"file","filename":"base.raw"}}',
             "not a plain file: "),
    "nbd": ("nbd:localhost:10809", "not a plain file: "),
    "nbd-url": ("nbd+unix:///?socket=base.raw", "not a plain file: "),
    "file-url": ("file:base.raw", "not a plain file: "),
    "colon": ("a:base.raw", "not a plain file: "),
    "absolute": ("/base.raw", "absolute: "),
    "up": ("../base.raw", "it leads out: "),
    "up-later": ("folder/../../base.raw", "it leads out: "),
    "only-up": ("..", "it leads out: "),
}


@pytest.mark.parametrize("name", NAMES)
def test_name(name, build, tmp_path):
    """Refused whether or not such a file is there."""
    text, rule = NAMES[name]
    raw(tmp_path / "base.raw")
    raw(tmp_path / "images" / "base.raw")
    (tmp_path / "images" / "folder").mkdir()
    image = overlay(tmp_path / "images" / "image.qcow2", text, "raw")
    line = f"backing name refused: {rule}{text}"
    assert_chain_refused(build, image, line, tmp_path)


def test_absolute_name_of_a_file(build, tmp_path):
    """Even where it is the very file that a relative name would lead to."""
    base = raw(tmp_path / "base.raw")
    image = overlay(tmp_path / "image.qcow2", base, "raw")
    line = f"backing name refused: absolute: {base}"[:LINE_CHARS_MAX]
    assert_chain_refused(build, image, line, tmp_path)


def test_dots_in_names(build, tmp_path):
    """What only looks like a way out is a name like any other."""
    for number, name in enumerate(("..base.raw", "base..raw", ".../base.raw", "./base.raw")):
        raw(tmp_path / name, number + 1)
        image = overlay(tmp_path / f"{number}.qcow2", name, "raw")
        assert_reads(build, tmp_path, image, number + 1)


def name_field(image):
    """(offset, length) of the name in the image's header."""
    header = image.read_bytes()[:20]
    return int.from_bytes(header[8:16], "big"), int.from_bytes(header[16:20], "big")


def test_nul_in_name(build, tmp_path):
    """Nobody else sees more of the name than what stands before the NUL."""
    raw(tmp_path / "base")
    image = overlay(tmp_path / "image.qcow2", "base.raw", "raw")
    poke(image, name_field(image)[0] + 4, b"\0")
    assert_chain_refused(build, image, "backing name refused: it ends early", tmp_path)


def test_empty_name(build, tmp_path):
    """As for QEMU, it is no name: there is no layer below."""
    image = overlay(tmp_path / "image.qcow2", "base.raw", "raw")
    poke(image, 16, be32(0))
    assert_reads(build, tmp_path, image, 0)


# ---- links -----------------------------------------------------------------------------------


def folder_with_outside(tmp_path):
    outside = raw(tmp_path / "outside" / "secret.raw")
    folder = tmp_path / "images"
    folder.mkdir()
    return outside, folder


def test_link_to_outside_cve_2026_27211(build, tmp_path):
    """A backing name that is below the folder by its letters, and a link by its file."""
    outside, folder = folder_with_outside(tmp_path)
    for name, target in (("relative.raw", "../outside/secret.raw"), ("absolute.raw", outside)):
        (folder / name).symlink_to(target)
        image = overlay(folder / f"{name}.qcow2", name, "raw")
        line = f"backing name refused: symbolic link in {name}"
        assert_chain_refused(build, image, line, tmp_path)


def test_folder_link_to_outside_cve_2026_27211(build, tmp_path):
    outside, folder = folder_with_outside(tmp_path)
    (folder / "sub").symlink_to(outside.parent)
    image = overlay(folder / "image.qcow2", "sub/secret.raw", "raw")
    line = "backing name refused: symbolic link in sub/secret.raw"
    assert_chain_refused(build, image, line, tmp_path)


def test_link_to_image(build, tmp_path):
    """The user's own name may be a link: the folder is the link's, as for QEMU."""
    raw(tmp_path / "elsewhere" / "base.raw", 1)
    image = overlay(tmp_path / "elsewhere" / "image.qcow2", "base.raw", "raw")
    raw(tmp_path / "here" / "base.raw", 2)
    link = tmp_path / "here" / "link.qcow2"
    link.symlink_to(image)
    assert_reads(build, tmp_path, link, 2)
    assert_reads(build, tmp_path, image, 1)


# ---- formats ---------------------------------------------------------------------------------


def test_format_not_given(build, tmp_path):
    """It is not guessed: a raw layer's guest could have written a header."""
    raw(tmp_path / "base.raw")
    image = overlay(tmp_path / "image.qcow2", "base.raw", "raw")
    at = image.read_bytes().index(bytes.fromhex("e2792aca"))
    poke(image, at, be32(0x12345678))
    assert_chain_refused(build, image, "backing name refused: no format given", tmp_path)


@pytest.mark.parametrize("form", ["vmdk", "qcow", "file", "QCOW2", "raw2"])
def test_format_unknown(form, build, tmp_path):
    raw(tmp_path / "base.raw")
    image = overlay(tmp_path / "image.qcow2", "base.raw", "raw")
    at = image.read_bytes().index(bytes.fromhex("e2792aca"))
    poke(image, at + 4, be32(len(form)) + form.encode().ljust(8, b"\0"))
    assert_chain_refused(build, image, f"backing format {form} not supported", tmp_path)


def test_raw_layer_with_header(build, tmp_path):
    """A raw layer is raw whatever its first bytes are, and names nothing."""
    secret = raw(tmp_path / "secret.raw")
    base = overlay(tmp_path / "base.raw", secret.name, "raw")
    content = base.read_bytes()
    image = overlay(tmp_path / "image.qcow2", "base.raw", "raw")
    with connected(build, tmp_path, image) as link:
        assert link.pread(SIZE, 0) == content[:SIZE].ljust(SIZE, b"\0")


def test_layer_that_is_no_qcow2(build, tmp_path):
    raw(tmp_path / "base.raw")
    image = overlay(tmp_path / "image.qcow2", "base.raw", "qcow2")
    assert_chain_refused(build, image, "layer 1: not a qcow2 image", tmp_path)


DAMAGES = {
    "cluster-bits": (20, be32(8), "cluster_bits 8 out of range 9..21"),
    "unknown-bit": (72, be64(1 << 63), "unknown incompatible feature bit 63"),
    "luks": (32, be32(2), "encryption method 2 not supported"),
    "size": (24, be64(0), "virtual size 0 not supported"),
}


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_layer(name, depth, build, tmp_path):
    """A layer is held to the same rules as the image; the line says which one it is."""
    host_off, data, line = DAMAGES[name]
    raw(tmp_path / "layer-3")
    for number, form in ((2, "raw"), (1, "qcow2"), (0, "qcow2")):
        overlay(tmp_path / f"layer-{number}", f"layer-{number + 1}", form)
    poke(tmp_path / f"layer-{depth}", host_off, data)
    assert_chain_refused(build, tmp_path / "layer-0", f"layer {depth}: {line}", tmp_path)


@pytest.mark.parametrize("bits", [1, 2], ids=["dirty", "corrupt"])
def test_layer_marked(bits, build, tmp_path):
    """It can be read all the same, and nothing is repaired in it."""
    raw(tmp_path / "base.raw", 7)
    base = overlay(tmp_path / "base.qcow2", "base.raw", "raw")
    poke(base, 72, be64(bits))
    before = state_of([base])
    image = overlay(tmp_path / "image.qcow2", "base.qcow2")
    assert_reads(build, tmp_path, image, 7)
    with connected(build, tmp_path, image) as link:
        link.pwrite(b"a" * 512, 0)
    assert state_of([base]) == before


# ---- chains ----------------------------------------------------------------------------------


def test_missing(build, tmp_path):
    image = overlay(tmp_path / "image.qcow2", "gone.qcow2")
    line = "backing file gone.qcow2: No such file or directory"
    assert_chain_refused(build, image, line, tmp_path)
    top = overlay(tmp_path / "top.qcow2", "image.qcow2")
    assert_chain_refused(build, top, f"layer 1: {line}", tmp_path)


def test_folder_as_layer(build, tmp_path):
    (tmp_path / "base").mkdir()
    image = overlay(tmp_path / "image.qcow2", "base", "raw")
    assert_chain_refused(build, image, "backing file base: Invalid argument", tmp_path)


def test_pipe_as_layer(build, tmp_path):
    """It does not make the server wait for who writes into it."""
    os.mkfifo(tmp_path / "base")
    image = overlay(tmp_path / "image.qcow2", "base", "raw")
    assert_chain_refused(build, image, "backing file base: Invalid argument", tmp_path)


def test_cycle(build, tmp_path):
    """Of one, two and three layers, and through another name of the same file."""
    for name, target in (("self", "self"), ("a", "b"), ("b", "a"), ("1", "2"), ("2", "3"),
                         ("3", "1"), ("one", "other")):
        overlay(tmp_path / name, target)
    os.link(tmp_path / "one", tmp_path / "other")
    line = "backing name refused: {} is a layer above, too"
    for name, target, prefix in (("self", "self", ""), ("a", "a", "layer 1: "),
                                 ("1", "1", "layer 2: "), ("one", "other", "")):
        assert_chain_refused(build, tmp_path / name, prefix + line.format(target), tmp_path)


def test_depth(build, tmp_path):
    """Eight layers are read, nine are not."""
    raw(tmp_path / f"layer-{LAYERS_MAX}", 9)
    for number in reversed(range(LAYERS_MAX)):
        overlay(tmp_path / f"layer-{number}", f"layer-{number + 1}",
                "raw" if number == LAYERS_MAX - 1 else "qcow2")
    line = f"layer {LAYERS_MAX - 1}: backing name refused: more than {LAYERS_MAX} layers"
    assert_chain_refused(build, tmp_path / "layer-0", line, tmp_path)
    assert_reads(build, tmp_path, tmp_path / "layer-1", 9)


def test_sub_folders(build, tmp_path):
    """A name is relative to the folder of the file that has it."""
    raw(tmp_path / "one" / "base.raw", 1)
    raw(tmp_path / "one" / "two" / "base.raw", 2)
    raw(tmp_path / "base.raw", 3)
    overlay(tmp_path / "one" / "two" / "low.qcow2", "base.raw", "raw")
    overlay(tmp_path / "one" / "middle.qcow2", "two//low.qcow2")
    image = overlay(tmp_path / "image.qcow2", "one/./middle.qcow2")
    assert_reads(build, tmp_path, image, 2)
    overlay(tmp_path / "one" / "middle.qcow2", "../base.raw", "raw")
    line = "layer 1: backing name refused: it leads out: ../base.raw"
    assert_chain_refused(build, image, line, tmp_path)


def test_image_without_folder_in_its_name(build, tmp_path):
    raw(tmp_path / "base.raw", 6)
    overlay(tmp_path / "image.qcow2", "base.raw", "raw")
    run = subprocess.run(["nbdkit", "-U", "-", plugin_of(build), "file=image.qcow2", "--run",
                          f'qemu-io -r -f raw -c "read -q -P 6 0 {SIZE}" "$uri"'], cwd=tmp_path,
                         capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
    assert (run.returncode, run.stderr, run.stdout) == (0, "", "")


def opened_files(pid):
    """{path: access mode} of the files that a process has open."""
    found = {}
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with open(f"/proc/{pid}/fdinfo/{entry.name}", encoding="ascii") as info:
            flags = int(next(line for line in info if line.startswith("flags:")).split()[1], 8)
        found[os.readlink(entry.path)] = flags & os.O_ACCMODE
    return found


def test_layers_are_opened_for_reading(build, tmp_path):
    base = raw(tmp_path / "base.raw")
    middle = overlay(tmp_path / "middle.qcow2", "base.raw", "raw")
    image = overlay(tmp_path / "image.qcow2", "middle.qcow2")
    with export(build, tmp_path, image):
        modes = opened_files((tmp_path / "nbd.pid").read_text().strip())
    assert modes[str(image)] == os.O_RDWR
    assert modes[str(middle)] == modes[str(base)] == os.O_RDONLY


# ---- without what is below -------------------------------------------------------------------


@pytest.mark.parametrize("is_there", [True, False])
def test_backing_off(is_there, build, tmp_path):
    """The image alone, for reading: what it does not hold reads as zeros, and is a hole."""
    base = raw(tmp_path / "base.raw")
    image = overlay(tmp_path / "image.qcow2", "base.raw", "raw")
    with connected(build, tmp_path, image) as link:
        link.pwrite(b"a" * 64 * KIB, 64 * KIB)
    if not is_there:
        base.unlink()
    files = files_below(tmp_path)
    before = state_of(files)
    look = (f"nbdinfo --is readonly $uri && nbdinfo --map --json $uri && "
            f"qemu-io -r -f raw -c 'read -q -P 0 0 64k' -c 'read -q -P 97 64k 64k' "
            f"-c 'read -q -P 0 128k {SIZE - 128 * KIB}' $uri")
    run = subprocess.run(["nbdkit", "-U", "-", plugin_of(build), f"file={image}", "backing=off",
                          "--run", look], capture_output=True, text=True, timeout=SECONDS_MAX,
                         check=False)
    assert (run.returncode, run.stderr) == \
        (0, "nbdkit: without the layers below: read-only\n"), run.stdout
    assert [(entry["offset"], entry["type"]) for entry in json.loads(run.stdout)] == \
        [(0, 3), (64 * KIB, 0), (128 * KIB, 3)]
    assert state_of(files) == before


def test_backing_off_without_layers(build, tmp_path):
    """There is nothing to leave out: the image takes writes."""
    image = created(tmp_path / "image.qcow2", SIZE)
    with connected(build, tmp_path, image, "backing=off") as link:
        link.pwrite(b"a" * 512, 0)
