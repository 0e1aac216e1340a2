# SPDX-License-Identifier: LGPL-2.1-or-later
"""Turn the dump list into a vmcore: snapshot, manifest, layout, copy; and fall back rather than lose.

First choice is the source's memory with the device dumps in it. Where the source cannot be read, the device dumps
alone are written, as an ELF core file without memory; where the target has no room for all of the memory, as much
as fits.
"""

import asyncio
import itertools
import logging
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from .device_dump import Snapshot
from .dumps import DumpList
from .errors import Busy, InvalidVmcore, NoSpace, QuotaExceeded, VmcoreddError, WriteFailed
from .journal import Event, record
from .kernel_log import KERNEL_LOG, save_kernel_log
from .manifest import ManifestSource
from .manifest_note import manifest_note
from .note import Note, system_byteorder
from .vmcore.copy import NO_SPACE, VMCORE_INCOMPLETE, CopyReport, sync_directory, write_vmcore
from .vmcore.elf import Headers, empty_headers, read_headers, walk
from .vmcore.image import file_image
from .vmcore.layout import Layout, Source, plan

VMCORE = "vmcore"
DEVICE_DUMPS_ONLY = "vmcore-device-dumps"
"""Name of the file that holds device dumps and no memory, so that nobody takes it for the vmcore."""


@dataclass(frozen=True, slots=True)
class Written:
    """A vmcore that is on disk."""

    path: Path
    size: int
    device_dumps: int
    """Those of ours, without the manifest."""
    error: str = ""
    """Why it has not all of the memory."""


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
        self._snapshot: Snapshot | None = None
        self._lock = asyncio.Lock()
        self.directory: Path | None = None

    @property
    def outdated(self) -> bool:
        """True unless a vmcore is on disk that holds all device dumps."""
        return self._behind or self.written is None or bool(self.written.error)

    @property
    def _behind(self) -> bool:
        return self._snapshot is None or self._snapshot.generation != self._dumps.generation

    async def write(self) -> Written:
        """Write a vmcore with all complete device dumps, because somebody asks for it now.

        Raises Busy, NoSpace or WriteFailed.
        """
        if self.writing:
            raise Busy("a vmcore is being written")
        self._dumps.check_open()
        async with self._lock:
            return await self._write_snapshot()

    async def finish(self) -> bool:
        """Write a vmcore unless that is done, because the service stops; return whether it has everything.

        A write that is under way ends first. Raises NoSpace or WriteFailed.
        """
        async with self._lock:
            if self.outdated:
                await self._write_snapshot()
            # A device dump may have become durable while that was being written. An error is no reason to write
            # again: where the target has no room, it would have none again.
            if self._behind:
                await self._write_snapshot()
        return not self.outdated

    async def _write_snapshot(self) -> Written:
        self.writing, self.bytes_done, self.bytes_total = True, 0, 0
        try:
            with self._dumps.sealed("a vmcore is being written"):
                snapshot = await self._dumps.snapshot()
                self.written = await asyncio.to_thread(self._write, snapshot)
                self._snapshot = snapshot
        except VmcoreddError as error:
            record(Event.VMCORE_FAILED, logging.ERROR, f"No vmcore written: {error}")
            raise
        finally:
            self.writing = False
        for listener in self.listeners:
            listener(self.written)
        return self.written

    def _write(self, snapshot: Snapshot) -> Written:
        try:
            directory = self._make_directory()
            if problem := save_kernel_log(self.source, directory):
                message = f"No {KERNEL_LOG}: {problem}"
                record(Event.KERNEL_LOG_MISSING, logging.WARNING, message, source=self.source)
            return self._write_or_fall_back(directory, snapshot)
        except OSError as error:
            raise WriteFailed(f"{self._target}: {error.strerror}") from error

    def _write_or_fall_back(self, directory: Path, snapshot: Snapshot) -> Written:
        try:
            return self._write_with_memory(directory, snapshot)
        except QuotaExceeded as error:
            # All notes together are more than crash reads: the memory goes without ours.
            reason = str(error)
            self._write_with_memory(directory, replace(snapshot, records=(), notes=()))
        except (InvalidVmcore, WriteFailed) as error:
            reason = str(error)
        record(Event.SOURCE_UNREADABLE, logging.ERROR, reason, source=self.source)
        described = ManifestSource(str(self.source), error=reason)
        return self._copy(directory / DEVICE_DUMPS_ONLY, snapshot, Source(-1, 0), empty_headers(), described)

    def _make_directory(self) -> Path:
        """Make the directory of this crash, named as kdump-utils does: host and UTC time."""
        if self.directory is not None and self.directory.is_dir():
            return self.directory
        name = f"{platform.node() or 'localhost'}-{time.strftime('%Y-%m-%d-%H:%M:%S', time.gmtime())}"
        # The clock of a capture kernel may be wrong; what an earlier crash has left stays.
        names = itertools.chain([name], (f"{name}.{number}" for number in itertools.count(1)))
        try:
            path = next(self._target / name for name in names if not (self._target / name).exists())
            path.mkdir(mode=0o700)
            sync_directory(self._target)
        except OSError as error:
            kind = NoSpace if error.errno in NO_SPACE else WriteFailed
            raise kind(f"{self._target}: cannot make a directory in the target: {error.strerror}") from error
        self.directory = path
        return path

    def _write_with_memory(self, directory: Path, snapshot: Snapshot) -> Written:
        try:
            fd = os.open(self.source, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise InvalidVmcore(f"{self.source}: cannot open the source: {error.strerror}") from error
        try:
            headers = read_headers(file_image(fd, str(self.source)))
            if headers.byteorder is not system_byteorder():
                raise InvalidVmcore(
                    f"{self.source}: has the byte order of another machine, {headers.byteorder} endian"
                )
            source = Source(fd, os.fstat(fd).st_size)
            return self._copy(directory / VMCORE, snapshot, source, headers, ManifestSource(str(self.source)))
        finally:
            os.close(fd)

    def _copy(
        self, path: Path, snapshot: Snapshot, source: Source, headers: Headers, described: ManifestSource
    ) -> Written:
        with ExitStack() as stack:
            dumps, complete = [*snapshot.notes], None
            if self._manifest:
                note = manifest_note(snapshot, described, self._page_size, headers.byteorder)
                own, complete = stack.enter_context(note)
                dumps.append(own)
            layout = plan(source, headers, self._notes(source, headers), dumps, self._page_size)
            self._warn_if_small(path.parent, layout)
            self.bytes_total, self.bytes_done = layout.copied, 0
            report = write_vmcore(layout, dumps, path.parent, path.name, self._page_size, self._advance, complete)
        self._report(report)
        error = described.error
        if report.left_out:
            path = path.with_name(VMCORE_INCOMPLETE)
            error = f"the target has no room for {report.left_out} of {layout.size} bytes"
        return Written(path, path.stat().st_size, len(snapshot.notes), error)

    def _notes(self, source: Source, headers: Headers) -> Iterator[Note]:
        """Yield the source's notes up to the first broken one, as the kernel does: the memory is worth more."""
        try:
            yield from walk(file_image(source.fd, str(self.source)), headers)
        except InvalidVmcore as error:
            record(Event.SOURCE_UNREADABLE, logging.ERROR, f"{error}; the notes behind it are lost")

    def _warn_if_small(self, directory: Path, layout: Layout) -> None:
        state = os.statvfs(directory)
        free = state.f_bavail * state.f_frsize
        if layout.size > free:
            message = f"{directory}: {free} bytes are free, the vmcore has {layout.size} less its runs of zeros"
            record(Event.SPACE_SHORT, logging.WARNING, message, free=free, size=layout.size)

    def _report(self, report: CopyReport) -> None:
        for dump in report.altered:
            message = f"Device dump {dump} was altered after it was taken"
            record(Event.DUMP_DAMAGED, logging.WARNING, message, dump_name=dump)
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

    def _advance(self, size: int) -> None:
        self.bytes_done += size
