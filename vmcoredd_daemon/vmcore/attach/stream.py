# SPDX-License-Identifier: LGPL-2.1-or-later
"""A filter that puts device dumps into a flattened vmcore as it passes: one pass, bounded memory.

::

    makedumpfile -F /proc/vmcore | vmcoredd attach --stream NAME=FILE | ssh HOST 'cat > vmcore.flat'

The first pieces are kept until there is a plan (``stream_kdump``, ``stream_elf``); from then on everything passes
immediately, in the order in which it comes. No pieces of the output overlap, unless pieces of the input do behind
its headers.

The memory is worth more than the device dumps: if there can be no plan, the input passes unchanged to its last
byte, and only then is the reason raised. A truncated input passes as far as it goes, without an end mark.
"""

import os
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from ...errors import InvalidVmcore, VmcoreddError, WriteFailed
from ...files import BLOCK_SIZE, check_space, pwrite
from .. import kdump
from ..elf import MAGIC
from ..flattened import END, HEADER_SIZE, PIECE, Index, check_header, check_piece, pieces
from ..image import MAX_FILE_SIZE, Image
from . import stream_elf, stream_kdump
from .stream_plan import Action, Additions, NotYet, Plan

MAX_START = 16 << 20
"""Bytes of pieces after which there has to be a plan; the last one, which may hold the notes, can be longer."""
MAX_START_PIECES = 1024
_PREFIX_MEMORY = 4 << 20
"""Bytes of the start that are kept in memory."""


def attach_stream(
    source: BinaryIO,
    sink: BinaryIO,
    additions: Additions,
    path: str,
    known: Image | None = None,
    directory: Path | None = None,
) -> list[str]:
    """Copy a flattened vmcore from *source* to *sink*, and put *additions* into it; *path* is for messages.

    *known* is the complete flattened file, if *source* is a file. *directory* is for the temporary file that keeps
    the start of the vmcore if it is long; if that is memory, 64 MiB are left available.

    Return what went wrong with device dumps, each in one line. Raises VmcoreddError if the vmcore cannot be
    extended or is truncated, after all its bytes were copied, and OSError of *sink*.
    """
    prefix = _StreamPrefix(directory)
    try:
        return _Stream(source, sink, additions, path, prefix).run(known)
    finally:
        prefix.close()


def pass_on(source: BinaryIO, sink: BinaryIO, path: str) -> None:
    """Copy all of *source* to *sink*. Raises InvalidVmcore if it cannot be read, OSError of *sink*."""
    read = _Reader(source, path)
    while data := read(BLOCK_SIZE):
        sink.write(data)
    sink.flush()
    if read.error is not None:
        raise read.error


class _Reader:
    """Reads as many bytes as asked for, fewer at the end of the input or after an error."""

    def __init__(self, source: BinaryIO, path: str) -> None:
        self._source = source
        self._path = path
        self.position = 0
        self.error: InvalidVmcore | None = None

    def __call__(self, size: int) -> bytes:
        blocks, rest = [], size
        while rest and self.error is None:
            try:
                block = self._source.read(rest)
            except OSError as error:
                reason = os.strerror(error.errno) if error.errno else str(error)
                self.error = InvalidVmcore(f"{self._path}: cannot be read: {reason}")
                break
            if not block:
                break
            blocks.append(block)
            rest -= len(block)
        data = blocks[0] if len(blocks) == 1 else b"".join(blocks)
        self.position += len(data)
        return data

    def truncated(self) -> InvalidVmcore:
        """Return the error of an input that ends here."""
        return self.error or InvalidVmcore(f"{self._path}: is truncated: it ends at offset {self.position:#x}")


class _Stream:
    """One vmcore that passes."""

    def __init__(
        self, source: BinaryIO, sink: BinaryIO, additions: Additions, path: str, prefix: "_StreamPrefix"
    ) -> None:
        self._read = _Reader(source, path)
        self._sink = sink
        self._additions = additions
        self._path = path
        self._prefix = prefix
        self._unsaved = b""
        self._end = 0
        self._late = False

    def run(self, known: Image | None) -> list[str]:
        try:
            check_header(self._keep(HEADER_SIZE), self._path)
            plan = self._collect() if known is None else self._plan_known(known)
        except VmcoreddError:
            self._pass_unchanged()
            raise
        return self._extend(plan, streamed=known is None)

    def _pass_unchanged(self) -> None:
        """Pass on the complete input unchanged."""
        image, offset = self._prefix.image(self._path), 0
        while offset < image.size:
            block = image.read(min(BLOCK_SIZE, image.size - offset), offset, "what was kept")
            self._sink.write(block)
            offset += len(block)
        self._sink.write(self._unsaved)
        self._pass_rest()

    def _pass_rest(self) -> None:
        while data := self._read(BLOCK_SIZE):
            self._sink.write(data)
        self._sink.flush()

    def _collect(self) -> Plan:
        """Keep pieces until there is a plan."""
        start = 0
        for _ in range(MAX_START_PIECES):
            header = self._take(PIECE.size)
            if header == END:
                reason = f"{self._path}: ends at offset {self._read.position:#x}, before its notes are complete"
                raise InvalidVmcore(reason)
            offset, size = PIECE.unpack(header)
            check_piece(self._path, self._read.position - PIECE.size, offset, size)
            for _ in range(0, size, BLOCK_SIZE):
                self._take(min(BLOCK_SIZE, size))
                size -= BLOCK_SIZE
            try:
                return self._plan(*self._known_so_far())
            except NotYet as error:
                start = self._prefix.size - HEADER_SIZE
                if start > MAX_START:
                    raise InvalidVmcore(f"{error} (after {start} bytes)") from error
                reason = str(error)
        raise InvalidVmcore(f"{reason} (after {MAX_START_PIECES} pieces)")

    def _plan_known(self, known: Image) -> Plan:
        index = Index(known)
        return self._plan(Image(index.pread, index.size, self._path), index)

    def _keep(self, size: int) -> bytes:
        self._unsaved = data = self._read(size)
        try:
            self._prefix.append(data)
        except OSError as error:
            raise WriteFailed(f"{self._path}: no space to keep its start: {error.strerror}") from error
        self._unsaved = b""
        return data

    def _take(self, size: int) -> bytes:
        data = self._keep(size)
        if len(data) < size:
            raise self._read.truncated()
        return data

    def _known_so_far(self) -> tuple[Image, Index]:
        index = Index(self._prefix.image(self._path), complete=False)

        def pread(size: int, offset: int) -> bytes:
            return index.pread(min(size, index.known(offset) - offset), offset)

        return Image(pread, MAX_FILE_SIZE, self._path), index

    def _plan(self, image: Image, index: Index) -> Plan:
        if index.known(0) < 16:
            raise NotYet(f"{self._path}: its bytes at offset 0 come too late")
        start = index.pread(16, 0)
        try:
            if start.startswith(kdump.SIGNATURE):
                return stream_kdump.plan(image, index, self._additions)
            if start.startswith(MAGIC):
                return stream_elf.plan(image, index, self._additions)
        except InvalidVmcore as error:
            if str(error).startswith(self._path):
                raise
            raise type(error)(f"{self._path}: {error}") from error
        raise InvalidVmcore(f"{self._path}: is neither an ELF nor a kdump-compressed vmcore: {start[:8]!r}")

    def _extend(self, plan: Plan, *, streamed: bool) -> list[str]:
        self._sink.write(self._prefix.image(self._path).read(HEADER_SIZE, 0, "the header"))
        plan.begin(self._emit)
        start = self._prefix.image(self._path)
        for position, offset, size in pieces(start, complete=False):
            self._route(plan, offset, size, _Replay(start, position + PIECE.size))
        # From here on, a dropped byte is one that the plan does not know, and is lost.
        self._late = streamed
        failure, rest = self._follow(plan)
        problems = plan.finish(self._emit, self._end) + plan.area.problems
        self._sink.write(rest)
        self._pass_rest()
        if failure is not None:
            raise failure
        return problems

    def _follow(self, plan: Plan) -> tuple[VmcoreddError | None, bytes]:
        """Pass on pieces up to the end mark; return what is wrong, and bytes that were read but not passed on."""
        while True:
            header = self._read(PIECE.size)
            if header == END:
                return None, header
            if len(header) < PIECE.size:
                return self._read.truncated(), b""
            offset, size = PIECE.unpack(header)
            try:
                position = self._read.position - PIECE.size
                check_piece(self._path, position, offset, size)
                check_piece(self._path, position, offset + max(plan.ranges[-1].shift, 0), size)
            except InvalidVmcore as error:
                return error, header
            if not self._route(plan, offset, size, self._read):
                return self._read.truncated(), b""

    def _route(self, plan: Plan, offset: int, size: int, read: Callable[[int], bytes]) -> bool:
        """Do with the bytes of a piece what the plan says; return False if they end early."""
        end = offset + size
        stops = [*(part.start for part in plan.ranges[1:]), MAX_FILE_SIZE + 1]
        for part, stop in zip(plan.ranges, stops, strict=True):
            while offset < min(end, stop):
                wanted = min(BLOCK_SIZE, min(end, stop) - offset)
                data = read(wanted)
                if data and part.action is Action.PASS:
                    self._emit(offset + part.shift, len(data), [data])
                elif data and part.action is Action.HOLD:
                    plan.hold(offset, data)
                elif data and self._late:
                    plan.area.problems.append(f"{len(data)} bytes at offset {offset:#x} came twice")
                if len(data) < wanted:
                    return False
                offset += len(data)
        return True

    def _emit(self, offset: int, size: int, blocks: Iterable[bytes]) -> None:
        self._sink.write(PIECE.pack(offset, size))
        for block in blocks:
            self._sink.write(block)
        self._end = max(self._end, offset + size)


class _Replay:
    """Reads the data of a piece that was kept."""

    def __init__(self, image: Image, position: int) -> None:
        self._pread = partial(image.read, what="what was kept")
        self._position = position

    def __call__(self, size: int) -> bytes:
        data = self._pread(size, self._position)
        self._position += len(data)
        return data


class _StreamPrefix:
    """The start of the stream, kept for later: in memory while it is small, then in an unnamed file. Close it.

    Not tempfile.SpooledTemporaryFile: that loses what it held in memory if the disk is full.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._memory: bytearray | None = bytearray()
        self._file: BinaryIO | None = None
        self.size = 0
        """Bytes."""

    def append(self, data: bytes) -> None:
        """Add *data*. Raises OSError if there is no space; what was added before is still there."""
        if self._memory is not None and self.size + len(data) > _PREFIX_MEMORY:
            self._roll_over(bytes(self._memory))
        if self._memory is not None:
            self._memory += data
        else:
            self._write(data)
        self.size += len(data)

    def image(self, path: str) -> Image:
        """Return the bytes so far; *path* is for messages."""
        size = self.size
        return Image(lambda count, offset: self._pread(min(count, max(size - offset, 0)), offset), size, path)

    def close(self) -> None:
        """Free the memory and the file."""
        self._memory = bytearray()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _roll_over(self, data: bytes) -> None:
        if self._file is None:
            self._file = cast(BinaryIO, tempfile.TemporaryFile(dir=self._directory, buffering=0))  # noqa: SIM115
        self._write(data, 0)
        self._memory = None

    def _write(self, data: bytes, offset: int | None = None) -> None:
        assert self._file is not None
        # The directory may be a tmpfs, of the memory of a capture kernel.
        check_space(self._file.fileno(), len(data))
        pwrite(self._file.fileno(), data, self.size if offset is None else offset)

    def _pread(self, size: int, offset: int) -> bytes:
        if self._memory is not None:
            return bytes(self._memory[offset : offset + size])
        assert self._file is not None
        return os.pread(self._file.fileno(), size, offset)
