# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes makedumpfile believe that memory behind the sample's own is the kernel's, so that it is kept at any level.

For that it wants what the kernel has for all memory: sections (``struct mem_section``, include/linux/mmzone.h),
which lead to one ``struct page`` for each page, and page tables that lead to these. The ``struct page`` lie in the
first pages of those that they describe; each says slab, which is nothing that a dump level leaves out, or that it
is a user's, which dump level 31 leaves out.
"""

import os
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from tests.lib.elf_writer import PAGE, round_out

START_KERNEL_MAP = 0xFFFFFFFF80000000
"""``__START_KERNEL_map`` of x86_64."""
_FLAG_BITS = 0x1F
"""What of section_mem_map says how far the section is (``SECTION_MAP_LAST_BIT``)."""
_ADDRESS = 0x000FFFFFFFFFF000
_LARGE_PAGE = 0x1E3
"""Present, writable, accessed, dirty, large, global."""
_TABLE = 0x63
"""Present, writable, accessed, dirty."""
_PUD_SHIFT, _PGD_SHIFT = 30, 39
_ANON = 1
"""``PAGE_MAPPING_ANON``."""
_CHUNK = 1 << 16
"""``struct page`` that are written at once: 4 MiB."""
_CACHED_PAGES = 512
"""``PGMM_CACHED`` of makedumpfile: it reads so many ``struct page`` at a time."""
_U64 = struct.Struct("<Q")
_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Mapped:
    """Memory at *p_paddr*, and where in the file it is."""

    p_paddr: int
    p_vaddr: int
    p_offset: int
    p_filesz: int


class Kernel:
    """The kernel whose memory is in the file *fd*, with the VMCOREINFO in *notes*."""

    def __init__(self, fd: int, notes: bytes, loads: Sequence[Mapped]) -> None:
        self._fd = fd
        self._loads = loads
        found = re.findall(rb"^(\w+)\(([\w.]+)\)=(\S+)$", notes, re.MULTILINE)
        self._info = {
            f"{kind.decode()}({name.decode()})": int(value, 16 if kind == b"SYMBOL" else 10)
            for kind, name, value in found
        }
        self._page_offset = next(load.p_vaddr - load.p_paddr for load in loads if load.p_paddr == PAGE)

    def keep(self, more: Mapped, *, user: bool = False) -> int:
        """Describe the memory *more*; return how much of its beginning that takes. The rest may be a *user*'s."""
        size = self._info["SIZE(page)"]
        pages = round_out(more.p_filesz // PAGE, _CACHED_PAGES)
        described = round_out(pages * size)
        described += self._add_sections(more, pages, described)
        described += self._map(more, described)
        slab = self._page(1 << self._info["NUMBER(PG_slab)"], 0)
        kept = described // PAGE if user else pages
        self._fill(more.p_offset, slab, kept)
        self._fill(more.p_offset + kept * size, self._page(0, _ANON), pages - kept)
        return described

    def _add_sections(self, more: Mapped, pages: int, behind: int) -> int:
        """Have the kernel's sections lead to the ``struct page`` at the beginning of *more*.

        The first ``SECTIONS_PER_ROOT`` are there; return how many bytes the others take *behind* these.
        """
        per_section = 1 << (self._info["NUMBER(SECTION_SIZE_BITS)"] - 12)
        entry = self._info["SIZE(mem_section)"]
        per_root = PAGE // entry
        roots = self._direct(self._info["SYMBOL(mem_section)"])
        root = self._direct(self._read(roots))
        flags = self._read(root) & _FLAG_BITS
        first = more.p_paddr // PAGE
        # section_mem_map is encoded so that it is indexed with the number of the page itself.
        encoded = (more.p_vaddr - first * self._info["SIZE(page)"]) & _MASK | flags
        last = (first + pages - 1) // per_section
        for section in range(first // per_section, min(last + 1, per_root)):
            self._write(root + section * entry, encoded)
        for number in range(1, last // per_root + 1):
            self._write(roots + number * 8, more.p_vaddr + behind + (number - 1) * PAGE)
        for section in range(per_root, last + 1):
            self._write(more.p_paddr + behind + (section - per_root) * entry, encoded)
        return round_out((last + 1 - per_root) * entry) if last >= per_root else 0

    def _fill(self, offset: int, page: bytes, count: int) -> None:
        for done in range(0, count, _CHUNK):
            os.pwrite(self._fd, page * min(_CHUNK, count - done), offset + done * len(page))

    def _page(self, flags: int, mapping: int) -> bytes:
        page = bytearray(self._info["SIZE(page)"])
        _U64.pack_into(page, self._info["OFFSET(page.flags)"], flags)
        _U64.pack_into(page, self._info["OFFSET(page.mapping)"], mapping)
        struct.pack_into("<i", page, self._info["OFFSET(page._mapcount)"], -1)
        struct.pack_into("<i", page, self._info["OFFSET(page._refcount)"], 1)
        return bytes(page)

    def _map(self, more: Mapped, behind: int) -> int:
        """Map it where the kernel's direct mapping would have it, in pages of 1 GiB.

        Return how many bytes the page tables take *behind* what else is at its beginning.
        """
        table = self._info["SYMBOL(init_top_pgt)"] - START_KERNEL_MAP + self._info["NUMBER(phys_base)"]
        used = 0
        for done in range(0, more.p_filesz, 1 << _PUD_SHIFT):
            vaddr, paddr = more.p_vaddr + done, more.p_paddr + done
            entry = table + 8 * (vaddr >> _PGD_SHIFT & 511)
            upper = self._read(entry) & _ADDRESS
            if not upper:
                upper = more.p_paddr + behind + used
                self._write(entry, upper | _TABLE)
                used += PAGE
            self._write(upper + 8 * (vaddr >> _PUD_SHIFT & 511), paddr | _LARGE_PAGE)
        return used

    def _direct(self, vaddr: int) -> int:
        return vaddr - self._page_offset

    def _read(self, paddr: int) -> int:
        (value,) = _U64.unpack(os.pread(self._fd, 8, self._offsets(paddr)[0]))
        return int(value)

    def _write(self, paddr: int, value: int) -> None:
        for offset in self._offsets(paddr):
            os.pwrite(self._fd, _U64.pack(value), offset)

    def _offsets(self, paddr: int) -> list[int]:
        # The kernel itself is in two PT_LOADs.
        found = [load for load in self._loads if load.p_paddr <= paddr < load.p_paddr + load.p_filesz]
        if not found:
            raise ValueError(f"physical address {paddr:#x} is not in the sample")
        return [load.p_offset + paddr - load.p_paddr for load in found]
