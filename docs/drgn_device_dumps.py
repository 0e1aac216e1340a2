# SPDX-License-Identifier: LGPL-2.1-or-later
"""Device dumps in drgn: ``drgn -c VMCORE drgn_device_dumps.py [DIRECTORY]`` lists them, and saves each as a file.

In a session of drgn::

    >>> from drgn_device_dumps import device_dumps
    >>> dumps = device_dumps(prog)
    >>> dumps["hba_0000:03:00.0"].read()[:40]

Needs neither debugging symbols nor, but for ``decoded()``, vmcoredd. drgn has no interface for notes, so they are
read here, from where an ELF vmcore has them (PT_NOTE) and a kdump-compressed one (offset_note in ``struct
kdump_sub_header``), both of 64 bits. A note is a ``struct vmcoredd_header`` (``include/uapi/linux/vmcore.h``) and
its data.
"""

import hashlib
import json
import os
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

NT_VMCOREDD, PT_NOTE = 0x700, 4
HEADER_SIZE, NAME_SIZE = 64, 44
"""Bytes of ``struct vmcoredd_header``, and of dump_name at its end."""
MANIFEST = "vmcoredd_manifest"


@dataclass(frozen=True)
class DeviceDump:
    """One device dump; offset and size are those of crash's ``dev -V``."""

    name: str
    path: str
    offset: int
    size: int
    """Bytes, padding to a page included."""
    true_size: int | None = None
    """Bytes without it, where the manifest of vmcoredd says it."""
    sha256: str | None = None
    """When it was collected."""

    def read(self) -> bytes:
        """Return its data, without the padding where that is known."""
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size if self.true_size is None else self.true_size)

    @property
    def intact(self) -> bool | None:
        """Whether it has the SHA-256 that it had; None if that is not known."""
        return None if self.sha256 is None else hashlib.sha256(self.read()).hexdigest() == self.sha256


def device_dumps(program: Any) -> dict[str, DeviceDump]:
    """Return the device dumps of the vmcore that *program*, a ``drgn.Program``, is of, by name and in their order.

    Of several with one name, which a kernel may make, later ones have their index behind it. Raises ValueError.
    """
    path = program.core_dump_path
    found: dict[str, DeviceDump] = {}
    try:
        for index, (name, offset, size) in enumerate(_notes(path)):
            found[f"{name}.{index}" if name in found else name] = DeviceDump(name, path, offset, size)
    except struct.error as error:
        raise ValueError(f"{path}: ends inside its headers or notes") from error
    for manifest in [dump for dump in found.values() if dump.name == MANIFEST]:
        # A damaged manifest costs the sizes and the checksums, no device dump.
        with suppress(ValueError, LookupError, TypeError):
            for entry in json.loads(manifest.read().rstrip(b"\0"))["device_dumps"]:
                dump = found[entry["name"]]
                found[dump.name] = replace(dump, true_size=min(entry["size"], dump.size), sha256=entry["sha256"])
    return found


def decoded(program: Any, reader: str | None = None) -> dict[str, Any]:
    """Return what vmcoredd's decoders say of each device dump, by its name: title, findings, sections.

    *reader* is the file that ``make reader`` has made; without it, the package vmcoredd must be installed. Raises
    ModuleNotFoundError if it is not, and its InvalidVmcore.
    """
    if reader is not None:
        sys.path.insert(0, reader)
    from vmcoredd_daemon.decoders.registry import Decoders
    from vmcoredd_daemon.vmcore.inspect.inspect import find

    decoders = Decoders.load()
    with open(program.core_dump_path, "rb") as file:
        found = find(file.fileno(), program.core_dump_path)
        return {dump.name: decoders.decode(found.image, dump) for dump in found.device_dumps}


def _notes(path: str) -> Iterator[tuple[str, int, int]]:
    """Yield name, offset and size of each NT_VMCOREDD note."""
    with open(path, "rb") as file:
        order, offset, size = _place(file)
        end = offset + size
        while end - offset >= 12:
            n_namesz, n_descsz, n_type = _values(file, f"{order}III", offset)
            if n_namesz == 0:
                return
            if n_type == NT_VMCOREDD and n_descsz >= NAME_SIZE:
                (field,) = _values(file, f"{NAME_SIZE}s", offset + HEADER_SIZE - NAME_SIZE)
                name = field.split(b"\0")[0].decode("latin-1")
                # A vmcore may come from anywhere, and a name is shown on a terminal.
                yield name.encode("unicode_escape").decode(), offset + HEADER_SIZE, n_descsz - NAME_SIZE
            offset += 12 + (n_namesz + 3 & ~3) + (n_descsz + 3 & ~3)


def _place(file: BinaryIO) -> tuple[str, int, int]:
    """Return the byte order, and where the notes are: offset and size."""
    start = file.read(8)
    if start.startswith(b"\x7fELF\x02"):
        order = "<" if start[5] == 1 else ">"
        (first,), (size, count) = _values(file, f"{order}Q", 32), _values(file, f"{order}HH", 54)
        for number in range(count):
            p_type, _, p_offset, _, _, p_filesz = _values(file, f"{order}IIQQQQ", first + size * number)
            if p_type == PT_NOTE:
                return order, p_offset, p_filesz
        raise ValueError(f"{file.name}: has no PT_NOTE")
    if start == b"KDUMP   ":
        # block_size says which byte order it is in: at most 256 KiB in one, a great deal in the other.
        order = "<" if _values(file, "<I", 428)[0] <= 1 << 18 else ">"
        (block_size,) = _values(file, f"{order}I", 428)
        return order, *_values(file, f"{order}QQ", block_size + 48)
    raise ValueError(
        f"{file.name}: not a 64-bit ELF or kdump-compressed vmcore (of a flattened one makedumpfile -R makes one)"
    )


def _values(file: BinaryIO, kind: str, offset: int) -> tuple[Any, ...]:
    # What is damaged may name an offset that no file can have; seek() has an error of its own for that.
    if offset > os.fstat(file.fileno()).st_size:
        raise struct.error
    file.seek(offset)
    return struct.unpack(kind, file.read(struct.calcsize(kind)))


def main(program: Any, arguments: list[str]) -> int:
    """List the device dumps; write each into the directory that *arguments* name. Return the exit status."""
    try:
        dumps = device_dumps(program)
        for index, (name, dump) in enumerate(dumps.items()):
            state = {True: "ok", False: "altered", None: "-"}[dump.intact]
            print(f"{index:5} {dump.offset:#14x} {dump.size:12} {state:7} {name}")
            for directory in arguments:
                os.makedirs(directory, exist_ok=True)
                with open(os.path.join(directory, name.replace("/", "_")), "wb") as file:
                    file.write(dump.read())
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    # drgn gives it to its scripts.
    sys.exit(main(globals()["prog"], sys.argv[1:]))
