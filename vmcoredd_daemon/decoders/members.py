# SPDX-License-Identifier: LGPL-2.1-or-later
"""The members of a device dump that is a tar archive, as the built-in collectors write them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from ..errors import InvalidDump
from ..text import printable
from .decoded import Part, Section

MAX_MEMBERS = 8192
"""Members that are looked at."""

MAX_HEADER = 1 << 16
"""Bytes behind one header: GNU's and POSIX's have long names and other values there, of any size."""

MAX_READ = 16 << 20
"""Bytes of a member that are in memory; a decoder of more reads it piece by piece."""


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file in the archive."""

    name: str
    """On one line, unprintable characters escaped."""
    size: int
    """Bytes."""
    mtime: int
    """Seconds since the epoch."""
    offset: int
    """Of its data in the archive."""
    archive: BinaryIO

    def read(self, limit: int = MAX_READ) -> bytes:
        """Return its content, at most *limit* bytes; fewer than its size if the archive ends before."""
        self.archive.seek(self.offset)
        return self.archive.read(max(0, min(self.size, limit)))


@dataclass(frozen=True, slots=True)
class Members:
    """What is in an archive."""

    files: Mapping[str, Member]
    """By name, in their order; of two with one name the last, as tar extracts them."""
    problems: tuple[str, ...]
    """What is wrong with the archive, one line each."""


def is_archive(data: BinaryIO) -> bool:
    """Return whether *data* begins as a tar archive."""
    data.seek(257)
    return data.read(5) == b"ustar"


def read_members(data: BinaryIO) -> Members:
    """Return the regular files in the archive *data*. Raises InvalidDump if there is none.

    Other members (links, devices) are problems: no collector writes them.
    """
    files: dict[str, Member] = {}
    problems: list[str] = []
    try:
        # A header at a time: what cannot be read later must not cost what was read before.
        for number, (kind, name, member) in enumerate(_headers(data)):
            if number == MAX_MEMBERS:
                problems.append(f"only the first {MAX_MEMBERS} members are read")
                break
            if kind in _REGULAR:
                files[name] = member
            # What tar makes of a directory has its files, too.
            elif kind != _DIRECTORY:
                problems.append(f"{member.name}: is no regular file")
    except (_DamagedError, OSError) as error:
        problems.append(f"the archive is damaged: {printable(str(error))}")
    if not files:
        raise InvalidDump(f"no archive: {problems[0] if problems else 'it is empty'}")
    return Members(files, tuple(problems))


# Headers, by "ustar Interchange Format" and "pax Interchange Format" of POSIX, and tar.h of GNU tar. Hostile ones
# take Python's tarfile hours and gigabytes (CVE-2024-6232, CVE-2025-8194).

_BLOCK = 512
_REGULAR, _DIRECTORY = frozenset({b"0", b"\0", b"7"}), b"5"
_LONG_NAME, _LONG_LINK, _EXTENDED, _GLOBAL = b"L", b"K", b"x", b"g"


class _DamagedError(Exception):
    pass


def _headers(data: BinaryIO) -> Iterator[tuple[bytes, str, Member]]:
    """Yield type, name and description of each member. Raises _DamagedError and OSError."""
    end = data.seek(0, 2)
    offset, later = 0, dict[str, str]()
    while (header := _read(data, offset, _BLOCK)).strip(b"\0"):
        name, size = _name(header), _number(header[124:136])
        if len(header) < _BLOCK or _number(header[148:156]) != sum(header[:148] + b" " * 8 + header[156:]):
            raise _DamagedError(f"no header at byte {offset}")
        if size < 0:
            raise _DamagedError(f"{name}: its size is {size}")
        kind, offset = header[156:157], offset + _BLOCK
        if kind in {_LONG_NAME, _LONG_LINK, _EXTENDED, _GLOBAL}:
            later |= _of_the_next(kind, name, _read(data, offset, size) if size <= MAX_HEADER else None)
        else:
            size = int(later.get("size", size))
            mtime = int(later.get("mtime", _number(header[136:148])))
            name = later.get("path", name)
            yield kind, name, Member(printable(name), size, mtime, offset, data)
            if offset + size > end:
                raise _DamagedError(f"it ends inside {name}")
            later.clear()
        offset += -(-size // _BLOCK) * _BLOCK


def _of_the_next(kind: bytes, name: str, body: bytes | None) -> dict[str, str]:
    """Return what a header says of the member behind it: its ``path``, ``size`` and ``mtime``, if it has them."""
    if body is None:
        raise _DamagedError(f"{name}: a header of more than {MAX_HEADER} bytes")
    if kind == _LONG_NAME:
        return {"path": _text(body)}
    found: dict[str, str] = {}
    while kind == _EXTENDED and body:
        # "LENGTH KEY=VALUE\n", of which the length counts all.
        length, blank, _ = body.partition(b" ")
        if not blank or not length.isdigit() or len(length) > 6 or not len(length) + 2 < int(length) <= len(body):
            raise _DamagedError(f"{name}: an extended header that is none")
        key, _, value = body[len(length) + 1 : int(length) - 1].partition(b"=")
        match key:
            case b"path":
                found["path"] = _text(value)
            case b"size" if value.isdigit() and len(value) < 20:
                found["size"] = value.decode()
            case b"mtime" if value.partition(b".")[0].isdigit() and len(value) < 32:
                found["mtime"] = value.partition(b".")[0].decode()
        body = body[int(length) :]
    return found


def _read(data: BinaryIO, offset: int, size: int) -> bytes:
    data.seek(offset)
    return data.read(size)


def _name(header: bytes) -> str:
    name, prefix = _text(header[:100]), _text(header[345:500])
    # GNU's headers have other fields there.
    return f"{prefix}/{name}" if prefix and header[257:263] == b"ustar\0" else name


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _number(field: bytes) -> int:
    """Return a number in octal, or in base 256 as GNU's; -1 if it is neither."""
    if field[:1] in {b"\x80", b"\xff"}:
        return int.from_bytes(field[1:], "big", signed=field[0] == 0xFF)
    text = field.split(b"\0")[0].strip()
    try:
        return int(text, 8) if text else 0
    except ValueError:
        return -1


def decode_members(
    members: Members, decoders: Mapping[str, Callable[[bytes], tuple[Part, ...]]]
) -> tuple[tuple[Section, ...], tuple[str, ...]]:
    """Return a section for each member that *decoders* has, in that order, and the problems of all.

    A decoder that raises InvalidDump costs its own section.
    """
    sections: list[Section] = []
    problems = list(members.problems)
    for name, decode in decoders.items():
        member = members.files.get(name)
        if member is None:
            continue
        try:
            sections.append(Section(name, decode(member.read())))
        except InvalidDump as error:
            problems.append(f"{name}: {error}")
    return tuple(sections), tuple(problems)
