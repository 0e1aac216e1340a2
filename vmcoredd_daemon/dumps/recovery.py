# SPDX-License-Identifier: LGPL-2.1-or-later
"""What an earlier daemon has left in the spool: complete device dumps are recovered, others are set aside.

A file that has the name of a note was complete and on disk when it got that name. It is read and verified anyway:
the disk may have changed it.
"""

import errno
import os
import re
import stat
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..digest import sha256
from ..errors import InvalidVmcore, NameInUse, VmcoreddError, WriteFailed
from ..files import close, pread
from ..manifest import MAX_SIZE, ManifestDump, State, load_dump
from ..note import (
    PAGE_SIZES,
    VMCOREDD_HEADER_SIZE,
    DeviceDumpNote,
    check_dump_name,
    note_byteorder,
    note_size,
    pack_vmcoredd_header,
    system_page_size,
    walk_notes,
)
from .spool_directory import (
    DAMAGED,
    NO_DUMPS,
    NOTE,
    SEPARATOR,
    SUPERSEDED,
    boot_id,
    note_name,
    note_number,
)

Report = Callable[[str, VmcoreddError], None]
"""Called with the name of a file, and why it is not recovered."""

_NO_FILE = {errno.ELOOP, errno.EISDIR, errno.ESPIPE, errno.ENXIO}
"""Errors of files that the spool has not made."""


@dataclass(frozen=True, slots=True)
class SpooledDump:
    """A complete device dump in the spool."""

    number: int
    record: ManifestDump
    note: DeviceDumpNote


def recover(
    directory: int,
    report: Report,
    advance: Callable[[], None] = lambda: None,
) -> Iterator[SpooledDump]:
    """Yield the device dumps in *directory*, in their order. Blocks. Raises WriteFailed when it cannot be listed.

    All are read before the first is yielded; *advance* is called after each.

    A file that is damaged is renamed to ``*.damaged``, and each later daemon reports it; one that cannot be read
    stays, because it may be readable later, and is reported as WriteFailed. If a later device dump has the same
    name, the earlier one is renamed to ``*.superseded``, and reported as NameInUse: nothing is lost with it.
    """
    try:
        listed = os.listdir(directory)
    except OSError as error:
        raise WriteFailed(f"cannot list the spool: {error.strerror}") from error
    for name in sorted(name for name in listed if name.endswith(DAMAGED)):
        report(name, InvalidVmcore("was damaged, and set aside by an earlier daemon"))
    found: dict[str, SpooledDump] = {}
    for name in sorted((name for name in listed if name.endswith(NOTE)), key=note_number, reverse=True):
        try:
            spooled = _open_note(directory, name, found)
        except WriteFailed as error:
            report(name, error)
        except NameInUse as error:
            report(name, _set_aside(directory, name, SUPERSEDED, error))
        except VmcoreddError as error:
            report(name, _set_aside(directory, name, DAMAGED, error))
        else:
            found[spooled.record.name] = spooled
        advance()
    yield from reversed(found.values())


def may_hold_notes(path: Path) -> bool:
    """Tell whether the spool *path*, which cannot be opened, may hold device dumps of this boot. Blocks."""
    try:
        boot = boot_id()
        # The second is an older version's.
        return any(_entries(above / boot) for above in (path, path.parent))
    except OSError:
        return True


def _entries(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _open_note(directory: int, name: str, found: Container[str]) -> SpooledDump:
    number = note_number(name)
    if number < 0 or name != note_name(number):
        raise InvalidVmcore("the spool gives no file this name")
    fd = -1
    try:
        # O_NONBLOCK: a FIFO that was put here has no writer, and open(2) would wait for one.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(name, flags, dir_fd=directory)
        spooled = SpooledDump(number, *load_note(fd))
        if spooled.record.name in found:
            # Its caller got an error after it had its name, and added it again.
            raise NameInUse(f"a later device dump {spooled.record.name} replaces it")
        return spooled
    except BaseException as error:
        if fd >= 0:
            close(fd)
        if isinstance(error, OSError):
            kind = InvalidVmcore if error.errno in _NO_FILE else WriteFailed
            raise kind(f"cannot be {'opened' if fd < 0 else 'read'}: {error.strerror}") from error
        if isinstance(error, MemoryError):
            raise WriteFailed("cannot be read: not enough memory") from error
        raise


def load_note(fd: int) -> tuple[ManifestDump, DeviceDumpNote]:
    """Return what the file *fd* of a spool holds, read and verified. Blocks. Raises InvalidVmcore and OSError.

    Its byte order and its pages are those of the machine that wrote it, which need not be this one.
    """
    file_size = os.fstat(fd).st_size
    # A FIFO cannot be read at an offset.
    byteorder = note_byteorder(pread(fd, VMCOREDD_HEADER_SIZE, 0)) if file_size else None
    header = next(walk_notes(partial(pread, fd), 0, file_size, byteorder), None) if byteorder else None
    if byteorder is None or header is None:
        raise InvalidVmcore("does not begin with an NT_VMCOREDD note")
    behind = pread(fd, MAX_SIZE, max(header.end, file_size - MAX_SIZE))
    _, separator, described = behind.rpartition(SEPARATOR)
    record = load_dump(described)
    check_dump_name(record.name)
    if record.state not in {State.COMPLETE, State.TRUNCATED} or not 0 <= record.size <= record.limit:
        raise InvalidVmcore(f"device dump {record.name} has a description that the spool does not write")
    expected = pack_vmcoredd_header(record.name.encode("ascii"), header.end, byteorder)
    reserved = file_size - len(separator) - len(described)
    if not _is_size(header.end, reserved, record) or pread(fd, VMCOREDD_HEADER_SIZE, 0) != expected:
        raise InvalidVmcore(f"device dump {record.name} has a header that does not match its description")
    if sha256(partial(pread, fd), header.data_offset, record.size) != record.sha256:
        raise InvalidVmcore(f"device dump {record.name} no longer matches its SHA-256")
    size = header.end
    if not separator:
        # An older version wrote none, and notes as large as their buffer, whatever their true size.
        size = min(size, note_size(record.size, system_page_size()))
    return record, DeviceDumpNote(record.name, fd, size, record.size, record.sha256)


def _is_size(size: int, reserved: int, record: ManifestDump) -> bool:
    """Tell whether, on some machine, a note of *size* bytes in a file of *reserved* is what *record* describes."""
    return any(
        size in {note_size(record.size, page_size), reserved} and reserved == note_size(record.limit, page_size)
        for page_size in PAGE_SIZES
    )


def left_by_other_boots(path: Path) -> list[Path]:
    """Return the directories of other boots, whose device dumps are in no vmcore. Blocks.

    Those in the spool *path* are removed if they are empty; those beside it, which an older version has made, are
    left alone. Raises WriteFailed.
    """
    left = []
    try:
        boot = boot_id()
        left += [directory for directory in sorted(path.parent.iterdir()) if _is_older(directory, boot)]
        for directory in sorted(path.iterdir()):
            if directory.name == boot:
                continue
            try:
                kept = stat.S_ISDIR(directory.lstat().st_mode) and not remove_without_dumps(directory)
            except OSError:
                kept = True
            if kept:
                left.append(directory)
    except OSError as error:
        raise WriteFailed(f"{path}: cannot look for device dumps of other boots: {error.strerror}") from error
    return left


def remove_without_dumps(directory: Path) -> bool:
    """Remove the directory of another boot if it has no device dumps; return whether that was done. Blocks."""
    try:
        if NO_DUMPS.issuperset(names := os.listdir(directory)):
            for name in names:
                (directory / name).unlink()
        directory.rmdir()
    except OSError:
        return False
    return True


def _is_older(directory: Path, boot: str) -> bool:
    """Tell whether it is the directory of another boot than *boot*, as an older version made it, with a file."""
    if directory.name == boot or not re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", directory.name):
        return False
    try:
        state = directory.lstat()
        ours = stat.S_ISDIR(state.st_mode) and state.st_uid == os.geteuid()
        return ours and any(note_number(name) > 0 for name in os.listdir(directory))
    except OSError:
        return False


def _set_aside(directory: int, name: str, suffix: str, error: VmcoreddError) -> VmcoreddError:
    """Rename a file that is not recovered; return *error*, or one that says that this failed, too."""
    try:
        os.rename(name, name.removesuffix(NOTE) + suffix, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError as failure:
        return WriteFailed(f"{error}; cannot be set aside: {failure.strerror}")
    return error
