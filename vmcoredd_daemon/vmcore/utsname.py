# SPDX-License-Identifier: LGPL-2.1-or-later
"""The names of the kernel that died, as its uname(2) gave them: its host name, too.

``struct new_utsname``, Linux ``include/uapi/linux/utsname.h``. A kdump-compressed file has it in its header; in an
ELF file it is in the memory, at ``init_uts_ns`` of VMCOREINFO (Linux ``kernel/crash_core.c``).
"""

from contextlib import suppress
from dataclasses import dataclass

from ..errors import InvalidVmcore
from . import kdump
from .elf import read_headers
from .formats import Vmcore
from .vmcoreinfo import lines

FIELD = 65
"""Bytes of each field, ``__NEW_UTS_LEN`` and a NUL."""
_FIELDS = 6
_IN_KDUMP_HEADER = 12
"""Offset behind signature and header_version."""


@dataclass(frozen=True, slots=True)
class Utsname:
    """Texts as in the file: bytes other than ASCII are escaped, control characters stay."""

    nodename: str
    """Empty if the kernel had none: ``(none)``."""
    release: str
    version: str
    machine: str


def read_utsname(vmcore: Vmcore) -> Utsname | None:
    """Return the names; None if the file does not have them, or they cannot be read: all else may be intact."""
    with suppress(InvalidVmcore):
        return _read(vmcore)
    return None


def _read(vmcore: Vmcore) -> Utsname | None:
    offset = _IN_KDUMP_HEADER if kdump.is_kdump(vmcore.image) else _in_elf(vmcore)
    if offset is None or offset + _FIELDS * FIELD > vmcore.image.size:
        return None
    data = vmcore.image.read(_FIELDS * FIELD, offset, "utsname")
    fields = [
        data[start : start + FIELD].split(b"\0", 1)[0].decode("ascii", "backslashreplace")
        for start in range(0, len(data), FIELD)
    ]
    sysname, nodename, release, version, machine, _ = fields
    # Whatever else is there, a page that was filtered out among it.
    if sysname != "Linux":
        return None
    return Utsname("" if nodename == "(none)" else nodename, release, version, machine)


def _in_elf(vmcore: Vmcore) -> int | None:
    info = lines(vmcore.image, vmcore.notes())
    try:
        address = int(info["SYMBOL(init_uts_ns)"][:16], 16) + int(info["OFFSET(uts_namespace.name)"][:9])
    except (KeyError, ValueError):
        return None
    for load in read_headers(vmcore.image).loads:
        if load.p_vaddr <= address and address + _FIELDS * FIELD <= load.p_vaddr + load.p_filesz:
            return load.p_offset + address - load.p_vaddr
    return None
