# SPDX-License-Identifier: LGPL-2.1-or-later
"""The spool at the start of the service: device dumps that an earlier daemon acknowledged are recovered.

They can be read even if the disk is full, or read-only since an error: then new device dumps are kept in memory,
or refused.
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path

from ..config.config import PROC_VMCORE, Configuration
from ..config.vmcore_format import Format
from ..dumps.hand_over import HandedOver, handed_over, remembered_vmcore
from ..dumps.recovery import SpooledDump, left_by_other_boots, may_hold_notes
from ..dumps.spool import Spool
from ..errors import NameInUse, NoSpace, VmcoreddError, WriteFailed, of_storage
from ..files import MEMORY_FILE_SYSTEMS, file_system, free_space
from ..journal import Event, record
from ..lookup import exists
from ..note import system_byteorder, system_page_size
from ..progress import Progress

log = logging.getLogger(__name__)


@dataclass(slots=True)
class RecoveredDumps:
    """What an earlier daemon has left in the spool, as far as it has been read."""

    dumps: list[SpooledDump] = field(default_factory=list)
    problems: list[tuple[str, VmcoreddError]] = field(default_factory=list)
    """Names of files, and why they were not recovered."""
    done: str = ""
    """How an earlier daemon has ended its part in the crash of this boot, if it has."""
    left: HandedOver = field(default_factory=HandedOver)
    """What it has handed over to the program that writes the vmcore."""
    progress: Progress = field(default_factory=Progress)
    """Advances with each file that is read."""

    @property
    def complete(self) -> bool:
        """Whether nothing is missing: one that a later device dump has superseded was never acknowledged."""
        return all(isinstance(error, NameInUse) for _, error in self.problems)

    def report(self, name: str, error: VmcoreddError) -> None:
        """Add a file that was not recovered."""
        self.problems.append((name, error))


def open_spool(configuration: Configuration, recovered: RecoveredDumps) -> Spool:
    """Open the spool, and read into *recovered* what is there. Blocks. Raises Busy when another daemon has it."""
    path, page_size, byteorder = configuration.spool_directory, system_page_size(), system_byteorder()
    in_vain = not _make_target(configuration)
    try:
        spool = Spool.lock(path, page_size, byteorder, configuration.kept_free(_free_space(path)))
    except (NoSpace, WriteFailed) as error:
        if may_hold_notes(path):
            recovered.report(path.name, error)
        spool = Spool.in_memory(page_size, byteorder)
        _write_elsewhere(spool, error, configuration, in_vain=in_vain)
        return spool
    try:
        recovered.dumps += spool.recover(recovered.report, recovered.progress.advance)
    except WriteFailed as error:
        recovered.report(path.name, error)
    if spool.directory is not None and configuration.source == PROC_VMCORE:
        _look_whether_done(spool.directory, configuration, recovered)
    try:
        spool.check_writable()
    except (NoSpace, WriteFailed) as error:
        _write_elsewhere(spool, type(error)(f"{path}: {error}"), configuration, in_vain=in_vain)
    _report_other_boots(path)
    return spool


def _look_whether_done(directory: int, configuration: Configuration, recovered: RecoveredDumps) -> None:
    if configuration.output.format is Format.NONE:
        if (left := handed_over(directory)) is not None:
            writer = "the program that writes the vmcore"
            recovered.done = f"the service has stopped, and left its device dumps to {writer}"
            recovered.left = left
    elif (path := remembered_vmcore(directory)) is not None and not (recovered.dumps or recovered.problems):
        recovered.done = f"the vmcore of this crash is written: {path}"


def _make_target(configuration: Configuration) -> bool:
    """Make the target, as kdump does, and log what will become of a vmcore there; return False if it has none."""
    target = configuration.target
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if configuration.output.format is Format.NONE:
            return True
        message = f"{of_storage(error, f'{target}: cannot make the target')}; no vmcore can be written"
        record(Event.VMCORE_FAILED, logging.ERROR, message, source=configuration.source, target=target)
        return False
    if (kind := file_system(target)) in MEMORY_FILE_SYSTEMS:
        log.warning("%s: is in memory (%s): what is written there is lost when the machine restarts", target, kind)
    return True


def _write_elsewhere(
    spool: Spool, error: NoSpace | WriteFailed, configuration: Configuration, *, in_vain: bool
) -> None:
    path, full = configuration.spool_directory, isinstance(error, NoSpace)
    # Kept in memory, they would be acknowledged, and have no space in the target, or no vmcore at all.
    if in_vain or (full and _same_file_system(path, configuration.target)):
        spool.refuse(error)
        record(Event.SPOOL_UNUSABLE, logging.ERROR, f"{error}; device dumps are refused", spool=path)
    else:
        spool.keep_in_memory()
        record(Event.SPOOL_UNUSABLE, logging.WARNING, f"{error}; device dumps are kept in memory", spool=path)


def _report_other_boots(path: Path) -> None:
    try:
        for directory in left_by_other_boots(path):
            message = f"{directory}: unsaved device dumps from another boot"
            record(Event.DUMP_LEFT_BEHIND, logging.WARNING, message, spool=directory)
    except WriteFailed as error:
        log.warning("%s", error)


def _free_space(path: Path) -> int | None:
    """Return the bytes that the file system of *path*, which may not exist, has left; None if that is unknown."""
    try:
        return free_space(_existing(path))
    except OSError:
        return None


def _existing(path: Path) -> Path:
    """Return *path*, or the nearest directory above that exists. Raises OSError."""
    return next(parent for parent in (path, *path.absolute().parents) if exists(parent))


def _same_file_system(path: Path, target: Path) -> bool:
    """Tell whether *path*, which may not exist, would be in the file system of *target*; True if in doubt."""
    try:
        return _existing(path).stat().st_dev == target.stat().st_dev
    except OSError:
        return True
