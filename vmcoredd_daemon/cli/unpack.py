# SPDX-License-Identifier: LGPL-2.1-or-later
"""``extract --unpack``: a device dump that is a tar archive as a directory.

An archive may be hostile: its names may lead out of the directory, through links, too, and it may have any number
of members. So only regular files are made, each new, in a directory that is new, and gets its name at the end.
"""

import errno
import itertools
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from ..decoders.members import Member, read_members
from ..errors import InvalidDump
from ..files import BLOCK_SIZE, write_all
from ..text import printable

MAX_DEPTH = 32
"""Directories in each other."""
MAX_NAME = 200
"""Bytes of the name of a file or a directory; a file system takes 255, and a suffix may follow."""
_TAKEN = frozenset({errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR})


def unpack(archive: BinaryIO, directory: Path, rename: Callable[[str], str]) -> list[str]:
    """Make *directory* of *archive*; return what was left out, one line each.

    If the name is taken, a number follows it. *rename* makes the name of a file of a part of a member's name.
    Raises InvalidDump if it is no archive, and OSError, and then nothing is left behind.
    """
    members = read_members(archive)
    temporary = directory.with_name(f".vmcoredd-{os.urandom(8).hex()}")
    try:
        # A signal may end this program as soon as there is a directory.
        temporary.mkdir(mode=0o700)
        tree = _Tree(temporary, rename)
        left_out = list(members.problems)
        for name, member in members.files.items():
            try:
                tree.add(name, member)
            except InvalidDump as error:
                left_out.append(f"{printable(name)}: {error}")
        _give_name(temporary, directory)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return left_out


def _give_name(temporary: Path, directory: Path) -> None:
    names = (directory.with_name(f"{directory.name}.{number}") for number in itertools.count(1))
    for name in itertools.chain([directory], names):
        try:
            # A directory replaces only an empty one, and nothing else.
            temporary.rename(name)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
        else:
            return


class _Tree:
    """A directory that is filled. No name in it is ever used twice, so a link or a file never is a directory."""

    def __init__(self, top: Path, rename: Callable[[str], str]) -> None:
        self._rename = rename
        self._directories: dict[tuple[str, ...], Path] = {(): top}
        self._numbers: dict[Path, int] = {}

    def add(self, name: str, member: Member) -> None:
        """Add a file. Raises InvalidDump if it is left out, or not complete."""
        parts = _parts(name)
        parent = self._directory(parts[:-1])
        path = self._new(parent, parts[-1], lambda path: path.touch(mode=0o600, exist_ok=False))
        with path.open("r+b", buffering=0) as file:
            missing = _copy(member, file.fileno())
            with suppress(OSError, OverflowError):
                os.utime(file.fileno(), (member.mtime, member.mtime))
        if missing:
            raise InvalidDump(f"its last {missing} bytes are missing")

    def _directory(self, parts: tuple[str, ...]) -> Path:
        if parts not in self._directories:
            parent = self._directory(parts[:-1])
            self._directories[parts] = self._new(parent, parts[-1], lambda path: path.mkdir(mode=0o700))
        return self._directories[parts]

    def _new(self, parent: Path, part: str, make: Callable[[Path], object]) -> Path:
        """Make a file or a directory; its name gets a number if it is taken, by another spelling of it, too."""
        wanted = parent / self._rename(part)
        # What is taken once is taken for good: each number is tried once, however many members have this name.
        for number in itertools.count(self._numbers.get(wanted, 0)):
            path = wanted.with_name(f"{wanted.name}.{number}") if number else wanted
            with suppress(FileExistsError):
                make(path)
                self._numbers[wanted] = number + 1
                return path
        raise AssertionError("numbers are endless")


def _parts(name: str) -> tuple[str, ...]:
    """Return the parts of a member's name. Raises InvalidDump if it leads out of the archive."""
    if name.startswith("/"):
        raise InvalidDump("its name is absolute")
    parts = tuple(part for part in name.split("/") if part not in {"", "."})
    if ".." in parts:
        raise InvalidDump("its name leads out of the archive")
    if not parts:
        raise InvalidDump("it has no name")
    if len(parts) > MAX_DEPTH or any(len(os.fsencode(printable(part))) > MAX_NAME for part in parts):
        raise InvalidDump("its name is too long")
    return parts


def _copy(member: Member, out: int) -> int:
    """Write the content of *member* to the file *out*; return how many bytes are missing."""
    left = max(0, member.size)
    member.archive.seek(member.offset)
    while left and (block := member.archive.read(min(BLOCK_SIZE, left))):
        write_all(out, block)
        left -= len(block)
    return left
