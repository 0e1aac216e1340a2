# SPDX-License-Identifier: LGPL-2.1-or-later
"""The subcommand crashes: the vmcores of one machine or many, as ``coredumpctl list`` shows core dumps."""

import argparse
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

from ..config.config import load
from ..errors import InvalidVmcore, VmcoreddError
from ..manifest import MANIFEST_NAME
from ..terminal.exit import FAILURE, SUCCESS
from ..terminal.stdio import complain
from ..terminal.view import Cell, Mark, View
from ..text import utc
from ..vmcore.image import file_image
from ..vmcore.inspect.crash import Crash, read_beginning, read_crash
from .compressed import MAGIC_SIZE, Compression, beginning, compression_of
from .operands import opened
from .panic_message import panic_beside
from .vmcores import is_incomplete, vmcores_of

COLUMNS = ("TIME", "HOST", "KERNEL", "PANIC", "DUMPS", "FAILED", "STATE", "FILE")
_SHRINK = ("PANIC", "KERNEL", "HOST", "FILE")
_DROP = ("FAILED", "KERNEL", "HOST", "DUMPS")

_BEGINNING = 256 << 10
"""Bytes of a compressed vmcore that are unpacked; without device dumps, all notes are in them."""
_PANIC = "Kernel panic - not syncing: "
"""What most lines begin with; the table has no space for it."""

_DIRECTORIES = (
    # Of kdump-utils and of ours; without colons on FAT. A second crash of that second has a number.
    re.compile(r"(?:(.+)-)?(\d{4}-\d\d-\d\d)-(\d\d)[:-](\d\d)(?:[:-](\d\d))?(?:\.\d+)?", re.DOTALL),
    # Of kdump-tools.
    re.compile(r"(?:(.+)-)?(\d{8})(\d\d)(\d\d)()", re.DOTALL),
)
_NO_HOSTS = frozenset({"127.0.0.1", "localhost"})
"""What kdump-utils calls a machine that keeps its own vmcores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One vmcore; None is what is not known."""

    path: str
    size: int
    """Bytes of the file."""
    time: int
    """Seconds since the epoch: of the crash, else of its directory, else of the file."""
    host: str | None = None
    kernel_release: str | None = None
    panic: str | None = None
    format: str | None = None
    machine: str | None = None
    compression: str | None = None
    incomplete: bool = False
    device_dumps: tuple[str, ...] | None = None
    """Names, without the manifest."""
    failures: tuple[str, ...] | None = None
    """Names of device dumps whose collectors failed; None without a manifest."""
    error: str | None = None
    """Why it cannot be read."""

    @property
    def state(self) -> str:
        """In one word, empty if all is well."""
        if self.incomplete:
            return "incomplete"
        return "damaged" if self.error is not None else "compressed" if self.compression else ""


def run(options: argparse.Namespace) -> int:
    """Show them; return the exit status: 1 if there is none, or if one could not be read."""
    view = View.of(options)
    operands = options.vmcores or [str(load(options.config).target)]
    problems: list[str] = []
    found = [row for row in _rows(operands, problems) if _is_wanted(row, options)]
    found.sort(key=lambda row: (row.time, row.path))
    if options.newest:
        found = found[-1:]
    if options.reverse:
        found.reverse()
    for problem in problems:
        complain(problem)
    if not found and not problems:
        filters = (options.since, options.until, options.host, options.dump)
        what = "vmcore" if filters == (None,) * len(filters) else "vmcore that matches"
        complain(f"no {what} is found in {', '.join(operands)}")
    if view.as_json and (found or not problems):
        view.show_json([_object(row) for row in found])
    elif found:
        view.show(_table(view, found))
    return FAILURE if problems or not found else SUCCESS


def _rows(operands: list[str], problems: list[str]) -> Iterator[Row]:
    for path in vmcores_of(operands, problems):
        try:
            yield read_row(path, named=path in operands)
        except VmcoreddError as error:
            problems.append(str(error))


def _is_wanted(row: Row, options: argparse.Namespace) -> bool:
    if options.since is not None and row.time < options.since:
        return False
    if options.until is not None and row.time > options.until:
        return False
    if options.host is not None and not fnmatchcase(row.host or "", options.host):
        return False
    return options.dump is None or any(fnmatchcase(name, options.dump) for name in row.device_dumps or ())


def read_row(path: str, *, named: bool) -> Row:
    """Return what is known of the vmcore at *path*. Raises InvalidVmcore if it cannot be read at all.

    A damaged one has a row, too, unless it is *named*.
    """
    with opened(path) as fd:
        image = file_image(fd, path)
        row = _described(Row(path=path, size=image.size, time=int(os.fstat(fd).st_mtime)), path)
        if compression := compression_of(image.read(min(MAGIC_SIZE, image.size), 0, "the beginning")):
            return _compressed(row, fd, compression)
        try:
            return _with(row, read_crash(image))
        except InvalidVmcore as error:
            if named:
                raise
            return replace(row, error=str(error).removeprefix(f"{path}: "))


def _described(row: Row, path: str) -> Row:
    """Add what the names beside the vmcore say."""
    host, seconds = _of_directory(os.path.basename(os.path.dirname(os.path.abspath(path))))
    return replace(
        row,
        host=host,
        time=row.time if seconds is None else seconds,
        panic=panic_beside(path),
        incomplete=is_incomplete(path),
    )


def _of_directory(name: str) -> tuple[str | None, int | None]:
    """Return host and time in the name of a crash directory, if it is one."""
    for pattern in _DIRECTORIES:
        if found := pattern.fullmatch(name):
            host, date, hours, minutes, seconds = found.groups()
            digits = f"{date.replace('-', '')}{hours}{minutes}{seconds or '00'}"
            with suppress(ValueError, OverflowError):
                time = datetime.strptime(digits, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
                return None if host in _NO_HOSTS else host, int(time.timestamp())
    return None, None


def _compressed(row: Row, fd: int, compression: Compression) -> Row:
    row = replace(row, compression=compression.name)
    data = beginning(fd, compression, _BEGINNING)
    if data is None:
        return row
    # Where it ends is not known: so neither whether that is too early.
    return replace(_with(row, read_beginning(data, row.path)), incomplete=row.incomplete)


def _with(row: Row, crash: Crash) -> Row:
    row = replace(
        row,
        host=crash.host or row.host,
        kernel_release=crash.kernel_release,
        time=row.time if crash.crash_time is None else crash.crash_time,
        incomplete=row.incomplete or crash.incomplete,
    )
    found = crash.inspection
    if found is None:
        return row
    failures = tuple(failure.name for failure in found.failures)
    return replace(
        row,
        format=found.format,
        machine=found.machine,
        device_dumps=tuple(dump.name for dump in found.device_dumps if dump.name != MANIFEST_NAME),
        failures=None if found.manifest is None else failures,
    )


def _object(row: Row) -> dict[str, Any]:
    return {
        "path": row.path,
        "size": row.size,
        "crash_usec": row.time * 10**6,
        "host": row.host,
        "kernel_release": row.kernel_release,
        "panic": row.panic,
        "format": row.format,
        "machine": row.machine,
        "file_compression": row.compression,
        "incomplete": row.incomplete,
        "device_dumps": _named(row.device_dumps),
        "failures": _named(row.failures),
        "error": row.error,
    }


def _named(names: Iterable[str] | None) -> list[dict[str, str]] | None:
    return None if names is None else [{"name": name} for name in names]


def _table(view: View, rows: list[Row]) -> str:
    # If all are complete, the column is not worth its space.
    columns = [name for name in COLUMNS if name != "STATE" or any(row.state for row in rows)]
    cells = [[cell[name] for name in columns] for cell in map(_cells, rows)]
    return view.table(columns, cells, _SHRINK, _DROP)


def _cells(row: Row) -> dict[str, Cell]:
    return {
        "TIME": utc(row.time * 10**6),
        "HOST": row.host,
        "KERNEL": row.kernel_release,
        "PANIC": row.panic and row.panic.removeprefix(_PANIC),
        "DUMPS": None if row.device_dumps is None else len(row.device_dumps),
        "FAILED": None if row.failures is None else len(row.failures),
        "STATE": Mark(row.state, False) if row.state in {"incomplete", "damaged"} else row.state or None,
        "FILE": row.path,
    }
