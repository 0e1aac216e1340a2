# SPDX-License-Identifier: LGPL-2.1-or-later
"""The members of a device dump that is a tar archive, as the built-in collectors write them."""

import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO, cast

from ..errors import InvalidDump
from ..text import printable
from .decoded import Part, Section

MAX_MEMBERS = 8192
"""Members that are looked at."""

MAX_HEADER = 1 << 20
"""Bytes of one header: GNU's and POSIX's have long names and other values behind it, of any size."""

MAX_READ = 16 << 20
"""Bytes of a member that are in memory; a decoder of more reads it piece by piece."""


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file in the archive."""

    name: str
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
    data.seek(0)
    try:
        # A header at a time: what cannot be read later must not cost what was read before.
        headers = cast(BinaryIO, _Headers(data))
        with tarfile.open(fileobj=headers, mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
            for number, info in enumerate(_each(archive)):
                if number == MAX_MEMBERS:
                    problems.append(f"only the first {MAX_MEMBERS} members are read")
                    break
                if info.isdir():
                    # What tar makes of a directory has its files, too.
                    continue
                if not info.isreg() or info.issparse():
                    problems.append(f"{printable(info.name)}: is no regular file")
                else:
                    mtime = int(info.mtime)
                    files[info.name] = Member(printable(info.name), info.size, mtime, info.offset_data, data)
    except (tarfile.TarError, OSError, ValueError, OverflowError, RecursionError) as error:
        problems.append(f"the archive is damaged: {printable(str(error))}")
    if not files:
        raise InvalidDump(f"no archive: {problems[0] if problems else 'it is empty'}")
    return Members(files, tuple(problems))


class _Headers:
    """What tarfile reads of an archive: headers, which it takes to be of any size."""

    def __init__(self, data: BinaryIO) -> None:
        self._data = data
        self.tell, self.seek = data.tell, data.seek

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._data.read(size)


def _each(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (info := archive.next()) is not None:
        # The next header would be one that was read before, for ever (CVE-2025-8194).
        if info.size < 0:
            raise tarfile.ReadError(f"{info.name}: its size is {info.size}")
        # The list that tarfile keeps would be as long as the archive has headers.
        archive.members = []  # type: ignore[attr-defined]
        yield info


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
