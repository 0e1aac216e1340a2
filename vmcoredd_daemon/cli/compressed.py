# SPDX-License-Identifier: LGPL-2.1-or-later
"""Compressed vmcores, as kdump-tools writes them with ``KDUMP_COMPRESSION=``: unpacked into a file without a name.

Notes may lie anywhere in a vmcore, and a compressed file has no offsets: so all of it is unpacked. gzip, bzip2 and
xz are read by Python's library, lz4 and zstd by their programs. Pages of zeros, of which a vmcore has many, become
holes.
"""

import bz2
import lzma
import os
import subprocess
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import BinaryIO, cast

from ..errors import InvalidVmcore, NoSpace, of_storage
from ..files import BLOCK_SIZE, free_space, pwrite
from ..progress import Progress, human_size
from ..terminal.progress_line import progress
from ..vmcore.copy.zero_pages import ZeroPages

_XZ_MEMORY = 256 << 20
"""Bytes that a decompressor of xz may take: ``xz -9`` needs 65 MiB, but a file may ask for any number."""
_PAGE = 4096
_KEPT_FREE = 16 << 20
"""Bytes that stay free where the file is unpacked."""
_CHECKED = 16 << 20
"""Bytes after which the free space is looked at again."""
_LOOKED_AT = 16 << 20
"""Bytes of a compressed file that are read for its beginning, and a little more."""
_ERRORS = (EOFError, OSError, ValueError, lzma.LZMAError, zlib.error)
"""What decompressors of the library raise for damaged data; of a disk that cannot be read, too."""


@dataclass(frozen=True, slots=True)
class Compression:
    """One way of compression, named as its program."""

    name: str
    magics: tuple[bytes, ...]
    unpack: Callable[[BinaryIO], Iterator[bytes]] | None = None
    """Yields blocks of bounded size; None if only the program does it."""


def compression_of(start: bytes) -> Compression | None:
    """Return how a file that begins with *start*, of :data:`MAGIC_SIZE` bytes or more, is compressed, if it is."""
    return next((each for each in COMPRESSIONS if start.startswith(each.magics)), None)


@contextmanager
def unpacked(fd: int, path: str, compression: Compression) -> Iterator[int]:
    """Provide the descriptor of a file with what the file open at *fd* becomes when it is unpacked.

    It is in the directory of temporary files ($TMPDIR). Shows progress. Raises InvalidVmcore if the data are
    damaged or no program can unpack them, NoSpace or WriteFailed if the file cannot be written.
    """
    where = tempfile.gettempdir()
    try:
        file = tempfile.TemporaryFile(prefix="vmcoredd-", buffering=0)  # noqa: SIM115
    except OSError as error:
        raise of_storage(error, f"{where}: cannot unpack {path} there") from error
    with file:
        with progress("unpacking", os.fstat(fd).st_size) as shown:
            _write(_blocks(fd, path, compression), file.fileno(), _Place(path, where, compression), shown, fd)
        yield file.fileno()


def beginning(fd: int, compression: Compression, size: int) -> bytes | None:
    """Return the first *size* bytes of what the file becomes, fewer if it ends before, or its data are damaged.

    None if that needs a program.
    """
    if compression.unpack is None:
        return None
    data = bytearray()
    with suppress(*_ERRORS), _opened(fd) as file:
        for block in compression.unpack(cast(BinaryIO, _Start(file, size + _LOOKED_AT))):
            data += block
            if len(data) >= size:
                break
    return bytes(data[:size])


class _Start:
    """The first bytes of a file: after them may be terabytes of zeros, as a hole."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._left = size

    def read(self, size: int) -> bytes:
        data = self._file.read(min(size, self._left))
        self._left -= len(data)
        return data


@dataclass(frozen=True, slots=True)
class _Place:
    """Where what is unpacked; for messages."""

    path: str
    where: str
    compression: Compression

    @property
    def advice(self) -> str:
        return f"set TMPDIR to a directory with more space, or unpack it with {self.compression.name} -d"


def _write(blocks: Iterator[bytes], out: int, place: _Place, shown: Progress, source: int) -> None:
    """Write *blocks* to the file *out*, pages of zeros as holes. Raises NoSpace and WriteFailed."""
    zeros, offset, checked = ZeroPages(_PAGE), 0, 0
    total = os.fstat(source).st_size
    try:
        for block in blocks:
            if offset >= checked:
                _check_space(out, place)
                checked = offset + _CHECKED
            for start, end in zeros.data(block, len(block)):
                pwrite(out, memoryview(block)[start:end], offset + start)
            offset += len(block)
            # A program that reads it shares the position of this file.
            shown.reach(min(total, os.lseek(source, 0, os.SEEK_CUR)), total)
        os.ftruncate(out, offset)
    except OSError as error:
        raise of_storage(error, f"{place.where}: cannot unpack {place.path} there: {place.advice}") from error


def _check_space(out: int, place: _Place) -> None:
    free = free_space(out)
    if free is not None and free < _KEPT_FREE + _CHECKED:
        raise NoSpace(
            f"{place.path}: is compressed by {place.compression.name}, and {place.where} has only "
            f"{human_size(free)} left to unpack it: {place.advice}"
        )


def _blocks(fd: int, path: str, compression: Compression) -> Iterator[bytes]:
    """Yield what the file becomes. Raises InvalidVmcore."""
    if compression.unpack is None:
        yield from _by_program(fd, path, compression)
        return
    with _opened(fd) as file:
        blocks = compression.unpack(file)
        while True:
            # Only what the library raises is caught, not what becomes of a block.
            try:
                block = next(blocks, None)
            except _ERRORS as error:
                raise InvalidVmcore(
                    f"{path}: its {compression.name} data are damaged: {_reason(error)}"
                ) from error
            if block is None:
                return
            yield block


def _opened(fd: int) -> BinaryIO:
    os.lseek(fd, 0, os.SEEK_SET)
    return open(fd, "rb", buffering=BLOCK_SIZE, closefd=False)


def _reason(error: Exception) -> str:
    if isinstance(error, EOFError):
        return "they end too early"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _by_program(fd: int, path: str, compression: Compression) -> Iterator[bytes]:
    name = compression.name
    os.lseek(fd, 0, os.SEEK_SET)
    with tempfile.TemporaryFile() as messages:
        try:
            process = subprocess.Popen([name, "-d", "-c"], stdin=fd, stdout=subprocess.PIPE, stderr=messages)
        except OSError as error:
            raise InvalidVmcore(
                f"{path}: is compressed by {name}, which cannot be run ({error.strerror}): unpack it by {name} -d"
            ) from error
        with process:
            assert process.stdout is not None
            try:
                while block := process.stdout.read(BLOCK_SIZE):
                    yield block
            finally:
                # After an error the rest is not read, and the program ends by SIGPIPE.
                process.stdout.close()
                process.wait()
        if process.returncode != 0:
            messages.seek(0)
            lines = messages.read(4096).decode(errors="backslashreplace").strip().splitlines()
            reason = lines[-1].strip() if lines else f"status {process.returncode}"
            raise InvalidVmcore(f"{path}: its {name} data are damaged: {reason}")


class _Gunzip:
    """zlib's decompressor, with the interface of the others. GzipFile skips zeros behind the data one by one."""

    def __init__(self) -> None:
        # RFC 1952, gzip: 16 more than the size of the window.
        self._inner = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self._has_more = False

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._has_more

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, limit: int) -> bytes:
        block = self._inner.decompress(self._inner.unconsumed_tail + data, limit)
        self._has_more = bool(self._inner.unconsumed_tail) or len(block) == limit
        return block


def _gunzip(file: BinaryIO) -> Iterator[bytes]:
    return _streams(file, _Gunzip)


def _bunzip2(file: BinaryIO) -> Iterator[bytes]:
    return _streams(file, bz2.BZ2Decompressor)


def _unxz(file: BinaryIO) -> Iterator[bytes]:
    return _streams(file, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY))


def _streams(
    file: BinaryIO, new: "Callable[[], bz2.BZ2Decompressor | lzma.LZMADecompressor | _Gunzip]"
) -> Iterator[bytes]:
    """Yield what one stream after the other becomes: parallel programs write many. Zeros may lie between them."""
    data = file.read(BLOCK_SIZE)
    while data:
        decompressor = new()
        while not decompressor.eof:
            if block := decompressor.decompress(data, BLOCK_SIZE):
                yield block
            data = b""
            if not decompressor.eof and decompressor.needs_input and not (data := file.read(BLOCK_SIZE)):
                raise EOFError
        data = decompressor.unused_data.lstrip(b"\0")
        while not data and (more := file.read(BLOCK_SIZE)):
            data = more.lstrip(b"\0")


COMPRESSIONS = (
    Compression("gzip", (b"\x1f\x8b\x08",), _gunzip),
    Compression("bzip2", (b"BZh",), _bunzip2),
    Compression("xz", (b"\xfd7zXZ\0",), _unxz),
    # A frame, and what lz4 -l writes, as for a kernel.
    Compression("lz4", (b"\x04\x22\x4d\x18", b"\x02\x21\x4c\x18")),
    Compression("zstd", (b"\x28\xb5\x2f\xfd",)),
)
MAGIC_SIZE = max(len(magic) for each in COMPRESSIONS for magic in each.magics)
