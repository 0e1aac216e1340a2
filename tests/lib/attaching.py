# SPDX-License-Identifier: LGPL-2.1-or-later
"""Attaches device dumps to a vmcore, and says what it holds then."""

from pathlib import Path

from tests.lib.elf_writer import PAGE
from vmcoredd_daemon.manifest import MANIFEST_NAME
from vmcoredd_daemon.note import NT_VMCOREDD, note_size
from vmcoredd_daemon.vmcore.attach.attach import Attached, attach_files
from vmcoredd_daemon.vmcore.attach.dump_files import NamedFile
from vmcoredd_daemon.vmcore.formats import recognise
from vmcoredd_daemon.vmcore.image import file_image
from vmcoredd_daemon.vmcore.inspect.inspect import copy_data, inspect


def attach_data(vmcore: Path, **dumps: bytes) -> Attached:
    """Attach device dumps with these data."""
    return attach_files(str(vmcore), named_files(vmcore, dumps), "test")


def named_files(vmcore: Path, dumps: dict[str, bytes]) -> list[NamedFile]:
    """Write a file beside *vmcore* for each device dump."""
    files = []
    for name, data in dumps.items():
        path = vmcore.with_name(f"{vmcore.name}.{name}")
        path.write_bytes(data)
        files.append(NamedFile(name, str(path)))
    return files


def padded(dumps: dict[str, bytes]) -> dict[str, bytes]:
    """Pad the data with zeros to the end of the note, as a reader without a manifest sees it."""
    return {name: data.ljust(note_size(len(data), PAGE) - 64, b"\0") for name, data in dumps.items()}


def contents(vmcore: Path) -> dict[str, bytes]:
    """Return the device dumps by their names, in order, all verified, the manifest not among them but last."""
    with vmcore.open("rb") as file:
        found = inspect(file.fileno(), str(vmcore))
        assert [problem for problem in found.problems if "incomplete" not in problem] == []
        dumps = {}
        for dump in found.device_dumps:
            blocks: list[bytes] = []
            assert copy_data(found.image, dump, blocks.append) is not False
            dumps[dump.name] = b"".join(blocks)
        assert len(dumps) == len(found.device_dumps)
    if dumps:
        last, _ = dumps.popitem()
        assert last == MANIFEST_NAME
    return dumps


def other_notes(vmcore: Path) -> list[tuple[bytes, bytes]]:
    """Return name and descriptor of every note that is no device dump; device dumps come before them."""
    with vmcore.open("rb") as file:
        opened = recognise(file_image(file.fileno(), str(vmcore)))
        notes = list(opened.notes())
        others = [note for note in notes if note.n_type != NT_VMCOREDD]
        assert notes[len(notes) - len(others) :] == others
        return [(note.name, opened.image.pread(note.n_descsz, note.desc_offset)) for note in others]
