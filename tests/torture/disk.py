# SPDX-License-Identifier: LGPL-2.1-or-later
"""Judges what a daemon has left on disk, without the code under test: struct, hashlib and json.

The data of a device dump follows from its name, so that whatever is found under a name is known bit for bit.
"""

import hashlib
import json
import struct
from collections.abc import Container, Iterator
from pathlib import Path

from tests.lib import elf_writer

PAGE = 4096
HEADER = 64
CRASH_DIRECTORY, VMCORE_WRITTEN, VMCOREINFO = "crash-directory", "vmcore-written", "vmcoreinfo"
FINAL_NAMES = ("vmcore", "vmcore-device-dumps")
LOAD_SIZE = 12 << 20
"""Bytes of memory in the source, where nothing else is said."""


class Lost(AssertionError):
    """A promise is broken."""


def data_of(name: str) -> bytes:
    """Return what the device dump *name* holds; its size, with the state, is in the name, as in a-17-c4096."""
    return hashlib.shake_128(name.encode()).digest(int(name.rpartition("-")[2][1:]))


def truncated(name: str) -> bool:
    """Tell whether the source of the device dump had more than it may hold."""
    return name.rpartition("-")[2][0] == "t"


def note_of(name: str) -> bytes:
    """Return the note that the kernel would make of it."""
    return elf_writer.device_dump(name.encode(), data_of(name))


def write_source(path: Path, size: int = LOAD_SIZE) -> Path:
    """Write a vmcore with *size* bytes of memory."""
    notes = elf_writer.note(elf_writer.NT_PRSTATUS, bytes(336)) + elf_writer.note(
        0, b"OSRELEASE=6.1\n", b"VMCOREINFO\0"
    )
    memory = hashlib.shake_128(b"memory").digest(size)
    return elf_writer.Core(notes, (elf_writer.Load(0x100000, memory),)).write(path)


def check_spool(target: Path) -> set[str]:
    """Return the names of the device dumps in the spool; raise Lost where one is not whole."""
    found = set()
    for path in sorted(target.rglob(".vmcoredd-spool/*/*")):
        if (path.name == CRASH_DIRECTORY and path.is_symlink()) or path.name in {VMCORE_WRITTEN, VMCOREINFO}:
            continue
        if path.suffix != ".note":
            raise Lost(f"{path} lies in the spool")
        content = path.read_bytes()
        name = content[20:64].rstrip(b"\0").decode("ascii", "replace")
        try:
            note = note_of(name)
            described = json.loads(content.rpartition(b"\0")[2])
        except ValueError as error:
            raise Lost(f"{path} is partial: {error}") from error
        if content[: len(note)] != note:
            raise Lost(f"{path}: device dump {name} is altered")
        if described["name"] != name or described["sha256"] != hashlib.sha256(data_of(name)).hexdigest():
            raise Lost(f"{path}: device dump {name} is described as {described}")
        if name in found:
            raise Lost(f"{path}: device dump {name} is there twice")
        found.add(name)
    return found


def check_vmcores(target: Path, source: Path | None, altered: Container[str] = ()) -> set[str]:
    """Return the names of the device dumps in files with final names; raise Lost where one is not whole.

    Device dumps that the log calls *altered* are not counted.
    """
    found = set()
    for path in target.rglob("vmcore*"):
        if path.name in FINAL_NAMES:
            found.update(check_vmcore(path, source if path.name == "vmcore" else None, altered))
    return found


def check_vmcore(path: Path, source: Path | None, altered: Container[str] = ()) -> list[str]:
    """Return the names of the device dumps in a vmcore; the memory of one in ELF is that of *source*, if any."""
    content = path.read_bytes()
    if content[:8] == b"KDUMP   ":
        return _whole_device_dumps(content, *_kdump_notes(content, path), path, altered)
    (_, offset, size), *loads = _segments(content, path)
    if source is not None:
        theirs = source.read_bytes()
        expected = [theirs[offset : offset + size] for _, offset, size in _segments(theirs, source)[1:]]
        if [content[offset : offset + size] for _, offset, size in loads] != expected:
            raise Lost(f"{path}: the memory is not that of the source")
    return _whole_device_dumps(content, offset, size, path, altered)


def _whole_device_dumps(content: bytes, offset: int, size: int, path: Path, altered: Container[str]) -> list[str]:
    names: list[str] = []
    whole = []
    for name, note in _device_dumps(content, offset, offset + size, path):
        if name == "vmcoredd_manifest":
            described = json.loads(note[HEADER:].rstrip(b"\0"))
            listed = [dump["name"] for dump in described["device_dumps"]]
            if listed != names:
                raise Lost(f"{path}: the manifest lists {listed}, the notes are {names}")
        else:
            names.append(name)
            if note == note_of(name):
                whole.append(name)
            elif name not in altered:
                raise Lost(f"{path}: device dump {name} is altered")
    return whole


def _segments(content: bytes, path: Path) -> list[tuple[int, int, int]]:
    if content[:4] != b"\x7fELF" or len(content) < PAGE:
        raise Lost(f"{path} is partial: no ELF header")
    segments = []
    for number in range(struct.unpack_from("<H", content, 56)[0]):
        p_type, _, p_offset, _, _, p_filesz = struct.unpack_from("<IIQQQQ", content, 64 + 56 * number)
        segments.append((p_type, p_offset, p_filesz))
        if p_offset + p_filesz > len(content):
            raise Lost(f"{path} is partial: segment {number} ends at {p_offset + p_filesz:#x}")
    return segments


def _kdump_notes(content: bytes, path: Path) -> tuple[int, int]:
    """Return where the notes of a kdump-compressed vmcore lie, by makedumpfile's diskdump_mod.h."""
    block_size = struct.unpack_from("<i", content, 428)[0]
    offset, size = struct.unpack_from("<QQ", content, block_size + 48)
    if not 0 < offset < offset + size <= len(content):
        raise Lost(f"{path} is partial: its notes are at {offset:#x}, {size} bytes")
    return offset, size


def _device_dumps(content: bytes, offset: int, end: int, path: Path) -> Iterator[tuple[str, bytes]]:
    while offset < end:
        namesz, descsz, n_type = struct.unpack_from("<III", content, offset)
        after = offset + 12 + (namesz + 3 & ~3) + (descsz + 3 & ~3)
        if namesz == 0 or after > len(content):
            raise Lost(f"{path} is partial: no note at {offset:#x}")
        if n_type == elf_writer.NT_VMCOREDD:
            yield (
                content[offset + 20 : offset + 64].rstrip(b"\0").decode("ascii", "replace"),
                content[offset:after],
            )
        offset = after
