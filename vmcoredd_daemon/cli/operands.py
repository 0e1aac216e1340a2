# SPDX-License-Identifier: LGPL-2.1-or-later
"""The operands of commands: VMCORE, NAME|INDEX|GLOB, NAME=FILE or SPOOL.note; and file names for device dumps."""

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase

from ..dumps.recovery import load_note
from ..errors import InvalidArgs, InvalidVmcore, UnknownDump, VmcoreddError
from ..terminal.exit import UsageError
from ..text import printable
from ..vmcore.attach.dump_files import NamedFile
from ..vmcore.inspect.inspect import FoundDump, Inspection
from .compressed import MAGIC_SIZE, compression_of, unpacked


def named_files(arguments: Iterable[str]) -> list[NamedFile]:
    """Parse *arguments*. Raises UsageError, and InvalidArgs for a *.note that is damaged or not from a spool."""
    files = []
    for argument in arguments:
        if "=" not in argument and argument.endswith(".note"):
            files.append(_spooled(argument))
            continue
        name, equals, path = argument.partition("=")
        if not equals or not path:
            raise UsageError(f"{argument[:80]!a} is not NAME=FILE")
        files.append(NamedFile(name, path))
    return files


def _spooled(path: str) -> NamedFile:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            described, note = load_note(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise InvalidArgs(f"{path}: {error.strerror}") from error
    except VmcoreddError as error:
        raise InvalidArgs(f"{path}: {error}") from error
    return NamedFile(described.name, path, described=described, note_size=note.note_size)


def file_name(dump_name: str) -> str:
    """Return *dump_name* as a file name, escaped as by systemd-escape(1)."""
    name = printable(dump_name).replace("/", "\\x2f") or "device_dump"
    return f"\\x2e{name[1:]}" if name.startswith(".") else name


def unused_file_name(dump_name: str, index: int, taken: set[str]) -> str:
    """Return *dump_name* as a file name, with ``.INDEX`` if *taken* has it, and add it to *taken*."""
    # A kernel may use a name twice, and another name may be equal to what we make of this one.
    name = file_name(dump_name)
    while name in taken:
        name = f"{name}.{index}"
    taken.add(name)
    return name


def chosen_dump(inspection: Inspection, path: str, name: str) -> FoundDump:
    """Return the device dump NAME or INDEX of the vmcore *path*. Raises UnknownDump unless it is one."""
    found = _named(inspection, name)
    if not found:
        raise UnknownDump(f"{path}: has no device dump {name[:80]}")
    if len(found) > 1:
        indices = ", ".join(str(dump.index) for dump in found)
        raise UnknownDump(f"{path}: several device dumps are named {name}, choose by index: {indices}")
    return found[0]


def chosen_dumps(inspection: Inspection, path: str, names: Iterable[str]) -> list[FoundDump]:
    """Return the device dumps of each NAME, INDEX or GLOB, each once. Raises UnknownDump if one stands for none.

    A name may have characters of globs: only what no device dump is named is a glob.
    """
    chosen: dict[int, FoundDump] = {}
    for name in names:
        found = _named(inspection, name)
        found = found or [dump for dump in inspection.device_dumps if fnmatchcase(dump.name, name)]
        if not found:
            raise UnknownDump(f"{path}: has no device dump {name[:80]}")
        chosen.update((dump.index, dump) for dump in found)
    return list(chosen.values())


def _named(inspection: Inspection, name: str) -> list[FoundDump]:
    if name.isascii() and name.isdecimal():
        return [dump for dump in inspection.device_dumps if str(dump.index) == name]
    return [dump for dump in inspection.device_dumps if dump.name == name]


@contextmanager
def open_vmcore(path: str) -> Iterator[int]:
    """Open the file or block device at *path*; of a compressed file, what it becomes, see :func:`.unpacked`.

    Raises InvalidVmcore, also for any other kind of file; for a compressed one, NoSpace and WriteFailed, too.
    """
    with opened(path) as fd:
        try:
            start = os.pread(fd, MAGIC_SIZE, 0)
        except OSError:
            # What reads it next says so.
            start = b""
        compression = compression_of(start)
        if compression is None:
            yield fd
            return
        with unpacked(fd, path, compression) as file:
            yield file


def refuse_compressed(path: str) -> None:
    """Raise InvalidVmcore if the file at *path* is compressed: it cannot be changed in place."""
    try:
        with opened(path) as fd:
            compression = compression_of(os.pread(fd, MAGIC_SIZE, 0))
    except (OSError, InvalidVmcore):
        # What opens it next says so.
        return
    if compression is not None:
        name = compression.name
        raise InvalidVmcore(
            f"{path}: is compressed by {name}: unpack it with {name} -d, and compress it afterwards"
        )


def name_of(fd: int, path: str) -> str:
    """Return a name by which another program can open the file *fd* of :func:`open_vmcore`, for *path*."""
    try:
        if os.path.samestat(os.fstat(fd), os.stat(path)):
            return path
    except OSError:
        pass
    return f"/proc/{os.getpid()}/fd/{fd}"


@contextmanager
def opened(path: str) -> Iterator[int]:
    """Open the file or block device at *path*, as it is. Raises InvalidVmcore, also for any other kind of file."""
    try:
        # O_NONBLOCK: opening a pipe would block, only for it to be refused.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise InvalidVmcore(f"{path}: {error.strerror}") from error
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            raise InvalidVmcore(f"{path}: is a directory, not a vmcore")
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            raise InvalidVmcore(f"{path}: is neither a regular file nor a block device")
        yield fd
    finally:
        os.close(fd)
