# SPDX-License-Identifier: LGPL-2.1-or-later
"""The members of a device dump that is a tar archive, as the built-in collectors write them."""

import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from ..errors import InvalidDump
from ..text import printable
from .decoded import Part, Section

MAX_MEMBERS = 8192
"""Members that are looked at."""

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

    Other members (links, devices, directories) are problems: no collector writes them.
    """
    files: dict[str, Member] = {}
    problems: list[str] = []
    data.seek(0)
    try:
        # A header at a time: what cannot be read later must not cost what was read before.
        with tarfile.open(fileobj=data, mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
            for info in _each(archive):
                if not info.isreg() or info.issparse():
                    problems.append(f"{printable(info.name)}: is no regular file")
                elif len(files) == MAX_MEMBERS:
                    problems.append(f"only the first {MAX_MEMBERS} members are read")
                    break
                else:
                    mtime = int(info.mtime)
                    files[info.name] = Member(printable(info.name), info.size, mtime, info.offset_data, data)
    except (tarfile.TarError, OSError, ValueError, OverflowError, RecursionError) as error:
        problems.append(f"the archive is damaged: {printable(str(error))}")
    if not files:
        raise InvalidDump(f"no archive: {problems[0] if problems else 'it is empty'}")
    return Members(files, tuple(problems))


def _each(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (info := archive.next()) is not None:
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
