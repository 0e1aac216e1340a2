# SPDX-License-Identifier: LGPL-2.1-or-later
"""The operands of commands that take many vmcores: files, and directories in which vmcores are looked for.

A directory has what our service, kdump-tools and kdump-utils make in theirs, or a copy of it::

    HOST-2026-11-24-10:20:30/vmcore, vmcore-incomplete, vmcore-device-dumps
    202611241020/dump.202611241020, dump.202611241020.gz, vmcore.202611241020; on a server HOST-202611241020/
    127.0.0.1-2026-11-24-10:20:30/vmcore, vmcore.flat; on a server HOST-2026-11-24-10:20:30/

So a vmcore is a file that is named ``vmcore`` or ``dump``, with more behind it, and begins as a vmcore does.
"""

import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from ..errors import VmcoreddError
from ..terminal.exit import FAILURE, SUCCESS
from ..terminal.stdio import complain, show
from ..terminal.view import View
from ..vmcore import flattened, kdump
from ..vmcore.elf import ET_CORE, MAGIC
from .compressed import COMPRESSIONS, beginning, compression_of

MAX_DEPTH = 4
"""Directories below the one that is named: an export of NFS has one for each host, and each host's own path."""
_NAME = re.compile(r"(vmcore|dump)([-._0-9].*)?", re.DOTALL)
_INCOMPLETE = re.compile(rf"-incomplete(\.(gz|bz2|{'|'.join(each.name for each in COMPRESSIONS)}))?$")
_SIGNATURES = (kdump.SIGNATURE, kdump.DISKDUMP_SIGNATURE, flattened.SIGNATURE)
_START = 4096
"""Bytes that tell a vmcore from another file."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command says of one vmcore."""

    value: object
    """What JSON has, or a text."""
    complaint: str = ""
    """What is wrong with it, so that the command fails."""


def for_each(view: View, operands: Iterable[str], answer: Callable[[str], Answer]) -> int:
    """Show the answer to each vmcore of *operands*; return the exit status, which is the worst of all.

    One file is shown as it is; texts of several are separated by empty lines, and their JSON is a list. A file of
    several that cannot be read costs its own answer. Raises what *answer* raises for one file.
    """
    operands = list(operands)
    if len(operands) == 1 and not os.path.isdir(operands[0]):
        only = answer(operands[0])
        (view.show_json if view.as_json else _show_text(view))(only.value)
        return _status(only.complaint)
    status, values, shown = SUCCESS, list[object](), 0
    problems: list[str] = []
    for path in vmcores_of(operands, problems):
        try:
            each = answer(path)
        except VmcoreddError as error:
            status |= _status(str(error))
            continue
        if view.as_lines:
            view.show_json([each.value])
        elif view.as_json:
            values.append(each.value)
        else:
            # Each as soon as it is known, and so without a pager: a thousand files take time.
            show(f"{chr(10) if shown else ''}{each.value}")
        shown += 1
        status |= _status(each.complaint)
    status = max([status, *map(_status, problems)])
    if view.as_json and not view.as_lines and (values or status == SUCCESS):
        view.show_json(values)
    return status


def _show_text(view: View) -> Callable[[object], None]:
    return lambda text: view.show(str(text))


def _status(complaint: str) -> int:
    if complaint:
        complain(complaint)
    return FAILURE if complaint else SUCCESS


def vmcores_of(operands: Iterable[str], problems: list[str]) -> Iterator[str]:
    """Yield the paths of files that are named, and of vmcores in directories that are named, by their names.

    What could not be looked at is added to *problems*, one line each.
    """
    for operand in operands:
        if not os.path.isdir(operand):
            yield operand
            continue
        unread: list[str] = []
        empty = True
        for path in vmcores_in(operand, unread):
            empty = False
            yield path
        if unread:
            others = f"; and {len(unread) - 1} more" if unread[1:] else ""
            problems.append(f"{unread[0]}{others}")
        elif empty:
            problems.append(f"{operand}: is a directory without a vmcore")


def vmcores_in(directory: str, unread: list[str], depth: int = MAX_DEPTH) -> Iterator[str]:
    """Yield the paths of the vmcores in *directory*, and in directories below, by their names.

    Symbolic links to directories are not followed, and hidden directories, as the spool, are left out. What cannot
    be read is added to *unread*.
    """
    try:
        with os.scandir(directory) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        unread.append(f"{directory}: {error.strerror}")
        return
    for entry in found:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            if depth > 0:
                yield from vmcores_in(entry.path, unread, depth - 1)
        elif _NAME.fullmatch(entry.name) and _is_vmcore(entry.path, unread):
            yield entry.path


def is_incomplete(path: str) -> bool:
    """Return whether a file has the name of one whose writing was not finished."""
    return _INCOMPLETE.search(path) is not None


def _is_vmcore(path: str, unread: list[str]) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        # A link that leads nowhere.
        return False
    except OSError as error:
        unread.append(f"{path}: {error.strerror}")
        return False
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return False
        start = os.pread(fd, _START, 0)
        if compression := compression_of(start):
            data = beginning(fd, compression, _START)
            # What needs a program is judged by its name: a log is compressed, too.
            return _begins_as_vmcore(data) if data is not None else "dmesg" not in os.path.basename(path)
        # makedumpfile writes the header last.
        return _begins_as_vmcore(start) or is_incomplete(path)
    except OSError as error:
        unread.append(f"{path}: {error.strerror}")
        return False
    finally:
        os.close(fd)


def _begins_as_vmcore(start: bytes) -> bool:
    if start.startswith(_SIGNATURES):
        return True
    # e_type is the same for all classes; its byte order is that of EI_DATA.
    order = "big" if start[5:6] == b"\x02" else "little"
    return start.startswith(MAGIC) and int.from_bytes(start[16:18], order) == ET_CORE  # type: ignore[arg-type]
