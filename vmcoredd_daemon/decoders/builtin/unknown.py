# SPDX-License-Identifier: LGPL-2.1-or-later
"""What no other decoder takes: the members of an archive, text, or bytes in hexadecimal."""

from typing import BinaryIO

from ...errors import InvalidDump
from ...text import counted, utc
from ..decoded import Decoded, Section, Table, Text
from ..excerpt import MAX_BYTES, MAX_SHOWN, MAX_TEXT, excerpt, is_text
from ..members import Member, is_archive, read_members

BLOCK = 1 << 20

COLUMNS = ("Member", "Size", "Time")


def decode(dump_name: str, data: BinaryIO) -> Decoded:
    """Decode anything. Raises InvalidDump if there is nothing."""
    size = data.seek(0, 2)
    if size == 0:
        raise InvalidDump("it is empty")
    if is_archive(data):
        try:
            return _archive(data)
        except InvalidDump:
            # It only begins as one.
            pass
    data.seek(0)
    if _is_zero(data):
        return Decoded(f"only zeros: {size} bytes")
    data.seek(0)
    start = data.read(MAX_TEXT)
    kind = "text" if is_text(start) else "unknown"
    return Decoded(f"{kind}, {size} bytes", sections=(Section("", (excerpt("", start, size),)),))


def _archive(data: BinaryIO) -> Decoded:
    members = read_members(data)
    files = list(members.files.values())
    rows = tuple((file.name, file.size, utc(file.mtime * 10**6) or "") for file in files)
    sections: list[Section] = []
    shown = left_out = 0
    for file in files:
        text = _shown(file)
        shown += len(text.text)
        if text.text and shown <= MAX_SHOWN:
            sections.append(Section(file.name, (text,)))
        else:
            left_out += bool(text.text)
    problems = list(members.problems)
    if left_out:
        problems.append(f"too much text: {counted(left_out, 'member')} not shown")
    return Decoded(
        f"archive of {counted(len(files), 'file')}",
        sections=(Section("", (Table("Members", COLUMNS, rows),)), *sections),
        problems=tuple(problems),
    )


def _shown(file: Member) -> Text:
    start = file.read(MAX_BYTES)
    return excerpt("", file.read(MAX_TEXT) if is_text(start) else start, file.size)


def _is_zero(data: BinaryIO) -> bool:
    while block := data.read(BLOCK):
        if block.count(0) != len(block):
            return False
    return True
