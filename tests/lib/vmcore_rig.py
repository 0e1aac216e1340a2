# SPDX-License-Identifier: LGPL-2.1-or-later
"""Plans and writes vmcores from real files, and closes what it opened."""

import hashlib
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.lib.elf_writer import PAGE
from vmcoredd_daemon.note import VMCOREDD_HEADER_SIZE, ByteOrder, DeviceDumpNote, note_size, pack_vmcoredd_header
from vmcoredd_daemon.progress import Progress
from vmcoredd_daemon.vmcore.copy.extents import CopyReport
from vmcoredd_daemon.vmcore.copy.write import Complete, write_vmcore
from vmcoredd_daemon.vmcore.elf import Headers, read_headers, walk
from vmcoredd_daemon.vmcore.formats import recognise
from vmcoredd_daemon.vmcore.image import file_image
from vmcoredd_daemon.vmcore.layout import Layout, Source, plan

VMCORE = "vmcore"
VMCORE_INCOMPLETE = "vmcore-incomplete"


class Rig(ExitStack):
    """Writes vmcores with pages of *page_size* bytes into *target*."""

    def __init__(self, target: Path, page_size: int = PAGE) -> None:
        super().__init__()
        self.page_size = page_size
        self.target = target
        self.progress = Progress()

    def open(self, path: Path) -> int:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.callback(os.close, fd)
        return fd

    def dump(self, name: str, data: bytes, byteorder: ByteOrder = ByteOrder.LITTLE) -> DeviceDumpNote:
        """Make a device dump as the spool does, but of any name."""
        size = note_size(len(data), self.page_size)
        fd = os.memfd_create("note", os.MFD_CLOEXEC)
        self.callback(os.close, fd)
        os.write(fd, pack_vmcoredd_header(name.encode("ascii"), size, byteorder) + data)
        os.ftruncate(fd, size)
        return DeviceDumpNote(name, fd, size, len(data), hashlib.sha256(data).hexdigest())

    def plan(self, path: Path, dumps: Sequence[DeviceDumpNote] = ()) -> Layout:
        fd = self.open(path)
        headers = read_headers(file_image(fd, "FILE"))
        source = Source(fd, os.fstat(fd).st_size)
        return plan(source, headers, walk(file_image(fd, "FILE"), headers), dumps, self.page_size)

    def write(self, layout: Layout, complete: Complete | None = None) -> CopyReport:
        self.progress = Progress()
        return write_vmcore(layout, self.target, VMCORE, self.progress, complete)

    def convert(self, path: Path, *dumps: DeviceDumpNote) -> CopyReport:
        """Write a vmcore from the source at *path*."""
        return self.write(self.plan(path, dumps))

    @property
    def vmcore(self) -> Path:
        return self.target / VMCORE

    def headers(self) -> Headers:
        """Read the headers of what was written."""
        return read_headers(file_image(self.open(self.vmcore), "FILE"))

    def names(self) -> list[bytes | None]:
        """Return the names of the device dumps in what was written."""
        fd = self.open(self.vmcore)
        return [note.dump_name for note in recognise(file_image(fd, "FILE")).device_dumps()]

    def data(self, index: int, size: int) -> bytes:
        """Return the first *size* bytes of a device dump in what was written."""
        fd = self.open(self.vmcore)
        note = list(recognise(file_image(fd, "FILE")).device_dumps())[index]
        assert note.data_offset == note.offset + VMCOREDD_HEADER_SIZE
        return os.pread(fd, size, note.data_offset)


def load_bytes(path: Path) -> list[tuple[int, bytes]]:
    """Return p_paddr and the bytes of every PT_LOAD."""
    with path.open("rb") as file:
        headers = read_headers(file_image(file.fileno(), "FILE"))
        return [
            (load.p_paddr, os.pread(file.fileno(), load.p_filesz, load.p_offset).ljust(load.p_filesz, b"\0"))
            for load in headers.loads
        ]
