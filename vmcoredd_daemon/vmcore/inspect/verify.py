# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether a vmcore is as it should be, and what crash and makedumpfile do with it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from ...errors import InvalidVmcore
from .. import flattened, kdump
from ..formats import Vmcore, recognise
from ..image import Image
from . import elf_rules, kdump_rules
from .compat import Verdict
from .inspect import BLOCK_SIZE, COMPLETE, Inspection, check, find_in
from .summary import summarize


@dataclass(frozen=True, slots=True)
class Judgement:
    """All that there is to say of a file."""

    problems: tuple[str, ...]
    """What is wrong with it, each in one line."""
    inspection: Inspection | None
    """The device dumps, their checksums checked; None where that could not be read."""
    crash: Verdict
    makedumpfile: Verdict
    remarks: tuple[str, ...] = ()
    """What else is to be known of its device dumps, each in one line."""

    @property
    def good(self) -> bool:
        """Whether nothing is wrong, and both programs read all of it."""
        return not self.problems and all(
            verdict.reads and not verdict.problems for verdict in (self.crash, self.makedumpfile)
        )


def judge(image: Image, progress: Callable[[int], None] = lambda size: None) -> Judgement:
    """Judge the file *image*: read its headers, its notes, and all data that has a checksum.

    *progress* is called with the bytes just read. Raises OSError when the file cannot be read at all.
    """
    problems: list[str] = []
    inspection, path = None, image.path
    try:
        vmcore = recognise(image)
        inspection = find_in(vmcore)
        inspection = check(inspection, progress)
        problems.extend(_behind_notes(vmcore))
        # What is said of makedumpfile running out of space is in the problems already.
        if summarize(vmcore).incomplete and not vmcore.problems:
            problems.append("the file ends before its memory")
    except InvalidVmcore as error:
        problems.append(str(error).removeprefix(f"{path}: "))
    problems[:0] = inspection.problems if inspection else ()
    remarks = tuple(_not_whole(inspection)) if inspection else ()
    try:
        inner, flat = _inner(image)
    except InvalidVmcore as error:
        reason = str(error).removeprefix(f"{path}: ")
        crash, makedumpfile = Verdict().refuse(reason), Verdict().refuse(reason)
        return Judgement(tuple(dict.fromkeys(problems)), inspection, crash, makedumpfile, remarks)
    rules = kdump_rules if inner.pread(len(kdump.SIGNATURE), 0) == kdump.SIGNATURE else elf_rules
    crash, makedumpfile = rules.crash(inner), rules.makedumpfile(inner)
    if rules is kdump_rules:
        missing = kdump_rules.check_pages(inner, progress)
        problems.extend(missing)
        if missing:
            makedumpfile.refuse(missing[0])
    if flat:
        # It seeks in the file as it is, not in what that would be.
        crash.remarks.append(
            "its dev -v extracts wrong bytes of a flattened file, vmcoredd extract the right ones"
        )
        makedumpfile.remarks.append("reads a flattened file with -R only, which puts it in order")
    return Judgement(tuple(dict.fromkeys(problems)), inspection, crash, makedumpfile, remarks)


def _not_whole(inspection: Inspection) -> Iterator[str]:
    """Yield which device dumps are not whole, as their manifest says."""
    for dump in inspection.device_dumps:
        if dump.entry is not None and dump.entry.state != COMPLETE:
            why = f": {dump.entry.error}" if dump.entry.error else ""
            yield f"device dump {dump.name} is {dump.entry.state}{why}"


def _behind_notes(vmcore: Vmcore) -> Iterator[str]:
    """Yield what is wrong with the ends of runs of notes: behind the last note are zeros at most."""
    for offset, size in vmcore.note_ranges:
        end = last = offset + size
        for note in vmcore.image.notes(offset, size, vmcore.byteorder):
            last = note.end
        while last < end and (data := vmcore.image.pread(min(BLOCK_SIZE, end - last), last)):
            if data.count(0) != len(data):
                yield f"what lies behind the last note, at {last:#x}, is no note"
                return
            last += len(data)


def _inner(image: Image) -> tuple[Image, bool]:
    if image.pread(len(flattened.SIGNATURE), 0) != flattened.SIGNATURE:
        return image, False
    return replace(flattened.unflatten(image), path=image.path), True
