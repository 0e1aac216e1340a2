# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the crashed kernel says of itself in the note VMCOREINFO (``crash_save_vmcoreinfo_init()``).

It has the second of the panic (``CRASHTIME=``, ``crash_save_vmcoreinfo()`` in Linux ``kernel/crash_core.c``), and
addresses that KASLR has drawn for that boot. makedumpfile copies it as it is: two vmcores with the same one are of
the same crash.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

from ..note import MAX_PAGE_SIZE, MIN_PAGE_SIZE, Note
from .image import Image

_VMCOREINFO = b"VMCOREINFO"
_MAX = 1 << 16
"""Bytes of it that are read; the kernel's has a page."""


def page_size(image: Image, notes: Iterable[Note]) -> int | None:
    """Return PAGESIZE of VMCOREINFO among *notes* in bytes; None if it is missing or no page size."""
    for text in _texts(image, notes):
        match = re.search(rb"^PAGESIZE=(\d{1,9})$", text, re.MULTILINE)
        size = int(match[1]) if match else 0
        if MIN_PAGE_SIZE <= size <= MAX_PAGE_SIZE and not size & (size - 1):
            return size
    return None


def lines(image: Image, notes: Iterable[Note]) -> dict[str, str]:
    """Return the lines KEY=VALUE of the first VMCOREINFO among *notes*; empty without one.

    Bytes other than ASCII are escaped; control characters stay. Raises InvalidVmcore.
    """
    return parsed(next(_texts(image, notes), b""))


def of_panic(image: Image, notes: Iterable[Note]) -> bytes | None:
    """Return the first VMCOREINFO among *notes*; None without one, or if it does not have the time of a panic.

    Raises InvalidVmcore.
    """
    text = next(_texts(image, notes), b"").rstrip(b"\0")
    return text if crash_time(parsed(text)) is not None else None


def crash_time(info: Mapping[str, str]) -> int | None:
    """Return CRASHTIME of VMCOREINFO, in seconds since the epoch; None if it is missing or no number."""
    seconds = info.get("CRASHTIME", "")
    return int(seconds) if re.fullmatch("[0-9]{1,12}", seconds) else None


def parsed(text: bytes) -> dict[str, str]:
    """Return the lines KEY=VALUE of *text*; bytes other than ASCII are escaped."""
    pairs = (line.partition("=") for line in text.decode("ascii", "backslashreplace").split("\n"))
    return {key: value for key, equals, value in pairs if equals}


def _texts(image: Image, notes: Iterable[Note]) -> Iterator[bytes]:
    for note in notes:
        if note.name == _VMCOREINFO:
            yield image.read(min(note.n_descsz, _MAX), note.desc_offset, "VMCOREINFO")
