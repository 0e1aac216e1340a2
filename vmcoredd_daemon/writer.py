# SPDX-License-Identifier: LGPL-2.1-or-later
"""Turn the dump list into a vmcore: snapshot, manifest, layout, copy; and fall back rather than lose.

First choice is the source's memory with the device dumps in it. Where the source cannot be read, or the target
has no room for it, the device dumps alone are written, as an ELF core file without memory.
"""

import asyncio
import errno
import logging
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from . import __version__
from .device_dump import Snapshot
from .dumps import DumpList
from .errors import Busy, InvalidVmcore, NoSpace, VmcoreddError, WriteFailed
from .journal import Event, record
from .manifest import MANIFEST_NAME, Manifest, ManifestSource
from .note import VMCOREDD_HEADER_SIZE, note_size, pack_vmcoredd_header
from .vmcore.copy import CopyReport, write_vmcore
from .vmcore.elf import Headers, native_headers, read_headers, walk
from .vmcore.layout import DeviceDumpNote, Layout, Source, plan

VMCORE = "vmcore"
DEVICE_DUMPS_ONLY = "vmcore-device-dumps"
"""Name of the file that holds device dumps and no memory, so that nobody takes it for the vmcore."""

_REPORT_ROOM = 512
"""Bytes that the manifest may grow by when the copy is done: counts, and why the memory is missing."""


@dataclass(frozen=True, slots=True)
class Written:
    """A vmcore that is on disk."""

    path: Path
    size: int
    device_dumps: int
    report: CopyReport
    error: str = ""
    """Why it has no memory, where it has none."""


class VmcoreWriter:
    """Writes the vmcore, once at a time, and knows whether that is still to be done."""

    def __init__(self, dumps: DumpList, source: Path, target: Path, page_size: int, *, manifest: bool) -> None:
        self.source = source
        self.written: Written | None = None
        self.bytes_total = 0
        self.bytes_done = 0
        self.writing = False
        self.listeners: list[Callable[[Written], None]] = []
        self._dumps = dumps
        self._target = target
        self._page_size = page_size
        self._manifest = manifest
        self._generation: int | None = None
        self.directory: Path | None = None

    @property
    def outdated(self) -> bool:
        """True unless a vmcore is on disk that holds all device dumps."""
        return self._generation != self._dumps.generation or self.written is None or bool(self.written.error)

    async def write(self) -> Written:
        """Write a vmcore with all complete device dumps. Raises Busy, NoSpace or WriteFailed."""
        if self.writing:
            raise Busy("a vmcore is being written")
        self.writing, self.bytes_done = True, 0
        try:
            with self._dumps.sealed("a vmcore is being written"):
                snapshot = await self._dumps.snapshot()
                self.written = await asyncio.to_thread(self._write, snapshot)
                self._generation = snapshot.generation
        except VmcoreddError as error:
            record(Event.VMCORE_FAILED, logging.ERROR, f"No vmcore written: {error}")
            raise
        finally:
            self.writing = False
        for listener in self.listeners:
            listener(self.written)
        return self.written

    def _write(self, snapshot: Snapshot) -> Written:
        directory = self._make_directory()
        try:
            try:
                return self._write_with_memory(directory, snapshot)
            except InvalidVmcore as error:
                record(Event.SOURCE_UNREADABLE, logging.ERROR, str(error), source=self.source)
                return self._write_device_dumps_only(directory, snapshot, str(error))
            except NoSpace as error:
                record(Event.VMCORE_FAILED, logging.ERROR, f"No room for the memory: {error}", target=self._target)
                return self._write_device_dumps_only(directory, snapshot, str(error))
        except VmcoreddError:
            if not any(directory.iterdir()):
                directory.rmdir()
                self.directory = None
            raise

    def _make_directory(self) -> Path:
        """Make the directory of this crash, named as kdump-utils does: host and UTC time."""
        if self.directory is None:
            name = f"{platform.node() or 'localhost'}-{time.strftime('%Y-%m-%d-%H:%M:%S', time.gmtime())}"
            try:
                (self._target / name).mkdir(mode=0o700, exist_ok=True)
            except OSError as error:
                kind = NoSpace if error.errno in {errno.ENOSPC, errno.EDQUOT} else WriteFailed
                raise kind(f"{self._target}: cannot make a directory in the target: {error.strerror}") from error
            self.directory = self._target / name
        return self.directory

    def _write_with_memory(self, directory: Path, snapshot: Snapshot) -> Written:
        try:
            fd = os.open(self.source, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise InvalidVmcore(f"{self.source}: cannot open the source: {error.strerror}") from error
        try:
            headers = read_headers(fd, str(self.source))
            if headers.byteorder is not native_headers().byteorder:
                raise InvalidVmcore(
                    f"{self.source}: has the byte order of another machine, {headers.byteorder} endian"
                )
            return self._copy(directory, VMCORE, snapshot, Source(fd, os.fstat(fd).st_size), headers, "")
        finally:
            os.close(fd)

    def _write_device_dumps_only(self, directory: Path, snapshot: Snapshot, error: str) -> Written:
        return self._copy(directory, DEVICE_DUMPS_ONLY, snapshot, Source(-1, 0), native_headers(), error)

    def _copy(
        self, directory: Path, name: str, snapshot: Snapshot, source: Source, headers: Headers, error: str
    ) -> Written:
        described = ManifestSource(str(self.source), error=error[: _REPORT_ROOM // 4])
        own = self._manifest_note(snapshot, described) if self._manifest else None
        dumps = [*snapshot.notes, own] if own else [*snapshot.notes]
        complete = partial(self._complete_manifest, snapshot, described, own.note_size) if own else None
        try:
            layout = plan(source, headers, walk(source.fd, headers, str(self.source)), dumps, self._page_size)
            self.bytes_total, self.bytes_done = layout.copied, 0
            report = write_vmcore(layout, dumps, directory, name, self._page_size, self._advance, complete)
        finally:
            if own:
                os.close(own.fd)
        return self._result(directory / name, layout, snapshot, report, error)

    def _result(self, path: Path, layout: Layout, snapshot: Snapshot, report: CopyReport, error: str) -> Written:
        for dump in report.altered:
            record(
                Event.DUMP_DAMAGED,
                logging.WARNING,
                f"Device dump {dump} was altered after it was taken",
                dump_name=dump,
            )
        if report.unreadable_pages or report.missing_bytes:
            record(
                Event.SOURCE_UNREADABLE,
                logging.WARNING,
                f"{self.source}: {report.unreadable_pages} pages could not be read and "
                f"{report.missing_bytes} bytes are missing at the end; zeros are in their place",
                source=self.source,
                unreadable_pages=report.unreadable_pages,
                missing_bytes=report.missing_bytes,
            )
        return Written(path, layout.size, len(snapshot.notes), report, error)

    def _advance(self, size: int) -> None:
        self.bytes_done += size

    def _manifest_note(self, snapshot: Snapshot, source: ManifestSource) -> DeviceDumpNote:
        data = _manifest(snapshot, source)
        size = note_size(len(data) + _REPORT_ROOM, self._page_size)
        header = pack_vmcoredd_header(MANIFEST_NAME.encode("ascii"), size, native_headers().byteorder)
        fd = os.memfd_create(MANIFEST_NAME, os.MFD_CLOEXEC)
        with os.fdopen(os.dup(fd), "wb") as file:
            file.write(header + data)
            file.truncate(size)
        return DeviceDumpNote(MANIFEST_NAME, fd, size, len(data), "")

    def _complete_manifest(
        self, snapshot: Snapshot, source: ManifestSource, size: int, report: CopyReport
    ) -> bytes:
        counted = replace(source, unreadable_pages=report.unreadable_pages, missing_bytes=report.missing_bytes)
        data = _manifest(snapshot, counted)
        return data if len(data) <= size - VMCOREDD_HEADER_SIZE else b""


def _manifest(snapshot: Snapshot, source: ManifestSource) -> bytes:
    written = time.time_ns() // 1000
    return Manifest(
        f"vmcoredd {__version__}",
        written,
        snapshot.records,
        snapshot.failures,
        snapshot.failures_forgotten,
        source,
    ).dump()
