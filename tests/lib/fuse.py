# SPDX-License-Identifier: LGPL-2.1-or-later
"""A file whose reads fail, come short, end early or never return: a FUSE file system with one file, in a thread.

It speaks the kernel's protocol by itself (``include/uapi/linux/fuse.h``), so that it needs no library. A call that
it has taken and does not answer leaves the caller in D state, which not even SIGKILL ends: as a device that is
gone.
"""

import ctypes
import errno
import os
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.lib.tools import skip_or_fail

NAME = "vmcore"
ROOT, FILE = 1, 2
DIRECT_IO = 1
FORGET, READ, INTERRUPT, BATCH_FORGET = 2, 15, 36, 42
MNT_FORCE, MNT_DETACH = 1, 2
REQUEST = struct.Struct("=IIQQIIII")
REQUEST_SIZE = 1 << 20

Call = Callable[[int, int], "int | None"]


def answers(offset: int, size: int) -> int | None:
    """Read as other files do."""
    return 0


@dataclass
class Source:
    """The file, and how it behaves."""

    path: Path
    """Where it is mounted."""
    fd: int
    """Of the file whose bytes it has."""
    size: int
    """What it says that it has, in bytes."""
    limit: int = 1 << 30
    """Bytes that a read returns at most."""
    end: int | None = None
    """Where reads find the end, if not at its size."""
    read: Call = answers
    """What a read of (offset, size) does: an errno, 0, or None: it is not answered."""
    open: Callable[[], bool] = lambda: True
    """Whether an open is answered."""
    poll: Callable[[], int | None] = lambda: errno.ENOSYS
    """What a poll does: an errno, or None: it is not answered. The kernel asks no more after ENOSYS."""
    flush: Callable[[], int | None] = lambda: errno.ENOSYS
    """What a close of a descriptor does, as *poll*. A program that is started closes a copy of it in vfork(2), for
    which this process waits, so that it cannot answer: the kernel must not ask any more by then.
    """
    reads: int = 0
    """How many there were."""
    hanging: list[tuple[int, int]] = field(default_factory=list)
    """Offset and size of those that were not answered."""
    late: list[tuple[int, int]] = field(default_factory=list)
    """Calls that were not answered: what the kernel calls them, and the bytes that it wants."""
    device: int = -1

    def block_pages(self, *pages: int, page: int = 4096) -> None:
        """Never answer a read in which one of these pages is."""
        self.read = lambda offset, size: (
            None if any(offset < (number + 1) * page and number * page < offset + size for number in pages) else 0
        )

    def answer_late(self, byte: bytes) -> None:
        """Answer what hangs: reads with *byte* and nothing else, others with an error."""
        for unique, size in self.late:
            answer(self.device, unique, 0 if size else errno.EIO, byte * size)
        self.late.clear()


def answer(device: int, unique: int, error: int, data: bytes) -> None:
    """Answer the kernel."""
    # ENOENT: the client is gone.
    with suppress(OSError):
        os.write(device, struct.pack("=IiQ", 16 + len(data), -error, unique) + data)


class Server:
    """Answers the kernel until the file system is gone."""

    def __init__(self, device: int, source: Source) -> None:
        self._device = device
        self._source = source

    def run(self) -> None:
        """Serve; returns when the file system is not mounted any more."""
        while True:
            try:
                request = os.read(self._device, REQUEST_SIZE + 4096)
            except OSError as error:
                if error.errno in {errno.EINTR, errno.ENOENT, errno.EAGAIN}:
                    continue
                # ENODEV: it was unmounted, or aborted.
                return
            _, opcode, unique, node, *_ = REQUEST.unpack_from(request)
            if opcode in {FORGET, BATCH_FORGET, INTERRUPT}:
                continue
            result = self._answer(opcode, node, request[REQUEST.size :])
            if result is None:
                self._source.late.append((unique, self._source.hanging[-1][1] if opcode == READ else 0))
                continue
            error, data = (result, b"") if isinstance(result, int) else (0, result)
            answer(self._device, unique, error, data)

    def _answer(self, opcode: int, node: int, body: bytes) -> bytes | int | None:
        source = self._source
        match opcode:
            case 26:  # INIT
                major, minor, readahead, _ = struct.unpack_from("=IIII", body)
                return struct.pack("=IIIIHHIIHHI28x", major, min(minor, 31), readahead, 0, 0, 0, 4096, 1, 0, 0, 0)
            case 1:  # LOOKUP
                if body.rstrip(b"\0") != NAME.encode():
                    return errno.ENOENT
                return struct.pack("=QQQQII", FILE, 1, 0, 0, 0, 0) + self._attributes(FILE)
            case 3:  # GETATTR
                return struct.pack("=QII", 0, 0, 0) + self._attributes(node)
            case 14:  # OPEN
                return struct.pack("=QII", 0, DIRECT_IO, 0) if source.open() else None
            case 15:  # READ
                _, offset, size = struct.unpack_from("=QQI", body)
                return self._read(offset, size)
            case 25:  # FLUSH
                return source.flush()
            case 18:  # RELEASE
                return b""
            case 40:  # POLL
                return source.poll()
            case _:
                return errno.ENOSYS

    def _attributes(self, node: int) -> bytes:
        mode = stat.S_IFREG | 0o400 if node == FILE else stat.S_IFDIR | 0o700
        size = self._source.size if node == FILE else 0
        return struct.pack(
            "=QQQQQQIIIIIIIIII", node, size, size // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0
        )

    def _read(self, offset: int, size: int) -> bytes | int | None:
        source = self._source
        source.reads += 1
        error = source.read(offset, size)
        if error is None:
            source.hanging.append((offset, size))
            return None
        end = source.size if source.end is None else source.end
        return error or os.pread(source.fd, max(0, min(size, source.limit, end - offset)), offset)


@contextmanager
def fuse_source(original: Path, directory: Path) -> Iterator[Source]:
    """Mount a file system at *directory* with one file, which has the bytes of *original*.

    At the end whatever hangs in it fails with ENOTCONN.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    directory.mkdir()
    try:
        device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        skip_or_fail(["/dev/fuse"])
    fd = os.open(original, os.O_RDONLY | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0"
    if libc.mount(b"vmcoredd-test", bytes(directory), b"fuse", 0, options.encode()):
        os.close(device)
        os.close(fd)
        skip_or_fail(["a FUSE file system (no right to mount)"])
    source = Source(directory / NAME, fd, os.fstat(fd).st_size, device=device)
    thread = threading.Thread(target=Server(device, source).run)
    thread.start()
    try:
        yield source
    finally:
        # With MNT_FORCE all that hangs is ended, and then nothing holds the mount.
        libc.umount2(bytes(directory), MNT_FORCE)
        libc.umount2(bytes(directory), MNT_DETACH)
        thread.join()
        os.close(device)
        os.close(fd)
