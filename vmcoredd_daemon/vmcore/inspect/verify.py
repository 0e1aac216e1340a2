# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether a vmcore is as it should be, and what crash and makedumpfile do with it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from ...errors import InvalidVmcore
from ...manifest import State, reason
from .. import flattened, kdump
from ..formats import Vmcore, recognise
from ..image import Image
from ..vmcoreinfo import lines
from . import elf_rules, kdump_rules
from .compat import Verdict
from .inspect import READ_SIZE, Inspection, check, find_in
from .machines import judge_makedumpfile, judge_page_tables
from .summary import summarize


@dataclass(frozen=True, slots=True)
class Verification:
    """What is right and wrong with a file."""

    problems: tuple[str, ...]
    """What is wrong with the file, each in one line."""
    inspection: Inspection | None
    """The device dumps, with their checksums verified; None if they could not be read."""
    crash: Verdict
    makedumpfile: Verdict
    remarks: tuple[str, ...] = ()
    """What else the user should know of the device dumps, each in one line."""

    @property
    def good(self) -> bool:
        """Whether nothing is wrong, and both programs read the complete file."""
        return not self.problems and all(
            verdict.reads and not verdict.problems for verdict in (self.crash, self.makedumpfile)
        )


def verify(image: Image, progress: Callable[[int], None] = lambda size: None) -> Verification:
    """Verify the file *image*: read its headers, its notes, and all data that has a checksum.

    *progress* is called with the number of bytes just read. Raises OSError if the file cannot be read at all.
    """
    problems: list[str] = []
    inspection, path, machine = None, image.path, None
    info: dict[str, str] = {}
    try:
        vmcore = recognise(image)
        machine = vmcore.machine
        info = lines(vmcore.image, vmcore.notes())
        inspection = find_in(vmcore)
        inspection = check(inspection, progress)
        problems.extend(_behind_notes(vmcore))
        # If makedumpfile ran out of space, the problems already say so.
        if summarize(vmcore).incomplete and not vmcore.problems:
            problems.append("the file ends before its memory")
    except InvalidVmcore as error:
        problems.append(str(error).removeprefix(f"{path}: "))
    problems[:0] = inspection.problems if inspection else ()
    remarks = tuple(_incomplete(inspection)) if inspection else ()
    crash, makedumpfile = _predict(image, problems, progress)
    if machine is not None:
        judge_page_tables(crash, machine, info)
        judge_makedumpfile(makedumpfile, machine, info)
    return Verification(tuple(dict.fromkeys(problems)), inspection, crash, makedumpfile, remarks)


def _predict(image: Image, problems: list[str], progress: Callable[[int], None]) -> tuple[Verdict, Verdict]:
    """Return what crash and makedumpfile do with *image*; pages that are missing are *problems*, too."""
    flat = image.pread(len(flattened.SIGNATURE), 0) == flattened.SIGNATURE
    try:
        inner = replace(flattened.unflatten(image), path=image.path) if flat else image
    except InvalidVmcore as error:
        problem = str(error).removeprefix(f"{image.path}: ")
        return Verdict().refuse(problem), Verdict().refuse(problem)
    rules = kdump_rules if kdump.is_kdump(inner) else elf_rules
    crash, makedumpfile = rules.predict_crash(inner), rules.predict_makedumpfile(inner)
    if rules is kdump_rules:
        missing = kdump_rules.check_pages(inner, progress)
        problems.extend(missing)
        if missing:
            makedumpfile.refuse(missing[0])
    if flat:
        # It seeks in the flattened file itself, with offsets of the rearranged one.
        crash.remarks.append("its dev -v extracts wrong bytes from a flattened file: use vmcoredd extract")
        makedumpfile.remarks.append("reads a flattened file only with -R, which rearranges it")
    return crash, makedumpfile


def _incomplete(inspection: Inspection) -> Iterator[str]:
    """Yield which device dumps are incomplete, as their manifest says."""
    for dump in inspection.device_dumps:
        if dump.entry is not None and dump.entry.state != State.COMPLETE:
            why = f": {reason(dump.entry.error, dump.name)}" if dump.entry.error else ""
            yield f"device dump {dump.name} is {dump.entry.state}{why}"


def _behind_notes(vmcore: Vmcore) -> Iterator[str]:
    """Yield what is wrong behind the last note of each run of notes: only zeros may be there."""
    for offset, size in vmcore.note_ranges:
        end = last = offset + size
        for note in vmcore.image.notes(offset, size, vmcore.byteorder):
            last = note.end
        while last < end and (data := vmcore.image.pread(min(READ_SIZE, end - last), last)):
            if data.count(0) != len(data):
                yield f"the bytes behind the last note, at {last:#x}, are not a note"
                return
            last += len(data)
