# SPDX-License-Identifier: LGPL-2.1-or-later
"""What crash and makedumpfile do with a kdump-compressed vmcore.

Mirrors ``read_dump_header()`` and ``process_elf64_notes()`` of crash's diskdump.c, and
``get_kdump_compressed_header_info()`` and ``initialize_bitmap_memory()`` of makedumpfile.c.
"""

from collections.abc import Callable

from ...errors import InvalidVmcore
from ...note import MAX_NOTES_END, NT_VMCOREDD
from ..image import Image
from ..kdump import MAX_VERSION, KdumpHeader, read_header
from ..page_data import page_data
from .compat import Verdict, count_for_crash, raw_notes
from .machines import judge_crash


def predict_crash(image: Image) -> Verdict:
    """Predict what crash does with the file *image*. Raises InvalidVmcore, and OSError of a read."""
    verdict = Verdict()
    header = _header(image)
    if isinstance(header, str):
        return verdict.refuse(header)
    if 2 * header.block_size > image.size:
        return verdict.refuse("ends inside the sub header")
    if reason := _why_both_refuse(image, header):
        return verdict.refuse(reason)
    offset, size = _note_range(header)
    if size >= MAX_NOTES_END:
        return verdict.refuse(f"cannot read the notes: size_note is {size}")
    count_for_crash(verdict, raw_notes(image, offset, size, header.byteorder))
    verdict.vmcoreinfo = _has_vmcoreinfo(image, header)
    if not verdict.vmcoreinfo:
        verdict.problems.append("finds no VMCOREINFO at offset_vmcoreinfo")
    if header.split:
        verdict.remarks.append("needs all parts: the file is one of several")
    judge_crash(verdict, header.machine, kdump=True)
    return verdict


def predict_makedumpfile(image: Image) -> Verdict:
    """Predict what makedumpfile does with the file *image*. Raises as :func:`predict_crash`."""
    verdict = Verdict()
    header = _header(image)
    if isinstance(header, str):
        return verdict.refuse(header)
    if header.header_version < 1:
        return verdict.refuse("header_version is 0, which has no dump_level")
    if reason := _why_both_refuse(image, header):
        return verdict.refuse(reason)
    notes = raw_notes(image, *_note_range(header), header.byteorder)
    verdict.device_dumps = sum(note.n_type == NT_VMCOREDD for note in notes)
    verdict.vmcoreinfo = _has_vmcoreinfo(image, header)
    if not verdict.vmcoreinfo:
        verdict.problems.append("finds no VMCOREINFO at offset_vmcoreinfo, and so filters only zero pages")
    if header.vmcoreinfo_is_apart:
        # write_kdump_header() computes the new offset_vmcoreinfo from its distance to the notes.
        verdict.remarks.append("in what it makes of this file, VMCOREINFO is not found: it is not among the notes")
    if header.split:
        verdict.remarks.append("the file is one part of several, which makedumpfile --reassemble joins")
    return verdict


def _why_both_refuse(image: Image, header: KdumpHeader) -> str:
    if header.data_offset > image.size:
        return f"the bitmaps end at {header.data_offset:#x}, beyond the file"
    if (max_mapnr := _max_mapnr(header)) > header.bitmap_blocks * header.block_size * 4:
        return f"misreads it: the bitmaps are too small for max_mapnr {max_mapnr:#x}"
    offset, size = _note_range(header)
    if offset + size > image.size:
        return f"cannot read the notes: size_note is {size}, offset_note {offset:#x}"
    return ""


def _note_range(header: KdumpHeader) -> tuple[int, int]:
    return (header.offset_note, header.size_note) if header.offset_note and header.size_note else (0, 0)


def check_pages(image: Image, progress: Callable[[int], None] = lambda size: None) -> list[str]:
    """Return what is wrong with the page descriptors, each in one line; *progress* is called with the bytes read.

    Raises OSError.
    """
    header = _header(image)
    if isinstance(header, str) or header.data_offset > image.size:
        return []
    data = page_data(image, header)
    missing = data.missing(progress) if data is not None else 0
    if data is None or not missing:
        return []
    where = f"the page data, which are from {data.start:#x} to {data.end:#x}"
    return [f"{missing} of {data.pages} pages are not in {where}"]


def _header(image: Image) -> KdumpHeader | str:
    """Return the headers, checked only as far as these programs do, or why they cannot be read."""
    try:
        header = read_header(image, strict=False)
    except InvalidVmcore as error:
        return str(error).removeprefix(f"{image.path}: ")
    if not header.header_version >= 0 or header.sub_hdr_size < 1:
        return f"header_version is {header.header_version}, sub_hdr_size {header.sub_hdr_size}"
    return header


def _max_mapnr(header: KdumpHeader) -> int:
    """Return how many bits each bitmap has; 0 if an old version has that elsewhere, in 32 bits."""
    if header.header_version < MAX_VERSION:
        return 0
    return int.from_bytes(header.sub_header[-8:], header.byteorder.value)


def _has_vmcoreinfo(image: Image, header: KdumpHeader) -> bool:
    end = header.offset_vmcoreinfo + header.size_vmcoreinfo
    if not header.offset_vmcoreinfo or not header.size_vmcoreinfo or end > image.size:
        return False
    return b"OSRELEASE=" in image.pread(min(header.size_vmcoreinfo, 1 << 16), header.offset_vmcoreinfo)
