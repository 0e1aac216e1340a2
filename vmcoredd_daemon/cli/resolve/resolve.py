# SPDX-License-Identifier: LGPL-2.1-or-later
"""The subcommand resolve: what crashes have left in the spool gets into their vmcores, and leaves the spool.

``vmcoredd-resolve.service`` runs it at each normal boot. A device dump leaves the spool only after a complete
vmcore on the disk has it, byte for byte. It is attached only to the one vmcore that is certain to be of its crash.
A power cut between the two costs nothing: the next run finds that the vmcore has it.
"""

import argparse
import logging
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from ...config.config import Configuration, load
from ...dumps.recovery import left_by_other_boots, remove_without_dumps
from ...errors import VmcoreddError, WriteFailed
from ...journal import Event, logging_started, record
from ...lookup import exists
from ...manifest import PRODUCER, ManifestDump
from ...terminal.exit import FAILURE, SUCCESS
from ...text import counted, utc
from ...vmcore.attach.attach import attach_files
from ...vmcore.attach.merge import Left
from ...vmcore.formats import recognise
from ...vmcore.image import file_image
from ...vmcore.vmcoreinfo import crash_time, parsed
from ...writer.machine import this_machine
from ..attach import INTERRUPTS, ignore_interrupts
from ..check.kdump import DEFAULTS
from ..check.system import System
from ..compressed import MAGIC_SIZE, compression_of
from ..operands import opened, refuse_compressed
from ..vmcores import vmcores_in
from .candidate import Candidate, look_at
from .left_over import LeftOver, locked

WRITTEN_WITHIN = 86400.0
"""Seconds from the last device dump to the end of a vmcore; a compressed one that is newer is not unpacked."""

CAPTURE_ROOTS = ("/sysroot", "/kdumproot")
"""Before the mount points of file systems in the initramfs of kdump-utils, and so in vmcoredd.conf there."""

log = logging.getLogger(__name__)


def run(options: argparse.Namespace) -> int:
    """Resolve; return the exit status: 1 if a device dump stays. What is done is logged."""
    with logging_started("vmcoredd"):
        configuration = load(options.config)
        places = options.vmcores or _places(configuration, standard=options.config is None)
        return _resolve(_here(configuration.spool_directory), places)


def _places(configuration: Configuration, *, standard: bool) -> list[str]:
    """Return the directories that get vmcores: the service's, and that of kdump-tools."""
    target = str(_here(configuration.target))
    other = System().variables(DEFAULTS).get("KDUMP_COREDIR", "") if standard else ""
    return [target, other] if other and os.path.realpath(other) != os.path.realpath(target) else [target]


def _here(path: Path) -> Path:
    """Return where a directory is at a normal boot."""
    roots = (root for root in CAPTURE_ROOTS if path.is_relative_to(root) and not exists(path))
    return next((Path("/", path.relative_to(root)) for root in roots), path)


def _resolve(spool: Path, places: Sequence[str]) -> int:
    if not os.path.lexists(spool):
        return SUCCESS
    state = spool.lstat()
    if not spool.is_dir() or spool.is_symlink() or state.st_uid != os.geteuid():
        raise WriteFailed(f"{spool}: is not read: it is no directory, or belongs to user {state.st_uid}")
    status = SUCCESS
    with ExitStack() as stack:
        lefts = []
        for directory in left_by_other_boots(spool):
            try:
                lefts.append(stack.enter_context(locked(directory, spool)))
            except VmcoreddError as error:
                _stays(directory, str(error))
                status = FAILURE
        candidates = list(_candidates(places, lefts))
        for left in lefts:
            try:
                if not _settle(left, candidates, places):
                    status = FAILURE
            except VmcoreddError as error:
                _stays(left.directory, str(error))
                status = FAILURE
    return status


def _candidates(places: Sequence[str], lefts: Sequence[LeftOver]) -> Iterator[Candidate]:
    """Yield the vmcores in *places* that can be read, if there are device dumps to look for."""
    wanted = frozenset(each for left in lefts for each in left.files)
    if not wanted:
        return
    unread: list[str] = []
    for place in places:
        for path in vmcores_in(place, unread) if os.path.isdir(place) else [place]:
            try:
                if _is_worth_a_look(path, lefts):
                    yield look_at(path, wanted)
            except VmcoreddError as error:
                unread.append(str(error))
    for problem in unread:
        log.warning("%s; not looked at", problem)


def _is_worth_a_look(path: str, lefts: Sequence[LeftOver]) -> bool:
    """Return whether a vmcore is not compressed, or of the time of such a crash: all of it would be unpacked."""
    with opened(path) as fd:
        if compression_of(os.pread(fd, MAGIC_SIZE, 0)) is None:
            return True
        written = os.fstat(fd).st_mtime
    return any(first <= written <= last + WRITTEN_WITHIN for first, last in (left.taken for left in lefts))


def _settle(left: LeftOver, candidates: Sequence[Candidate], places: Sequence[str]) -> bool:
    """Do what can be done for what one crash has left; return whether nothing stays. Raises VmcoreddError."""
    known = [each for each in candidates if each.complete and each.is_of_crash(left) is not False]
    reasons, attached = [], 0
    if any(_held_by(known, each) is None for each in left.files):
        before = {each for each in left.files if _held_by(known, each) is not None}
        ours = [each for each in known if each.is_of_crash(left)]
        try:
            if len(ours) != 1:
                reasons.append(_uncertain(left, ours, places))
            else:
                rest = [each for each in left.files if each not in before]
                new, reason = _attach(left, ours[0], rest)
                reasons += [reason] if reason else []
                known[known.index(ours[0])] = new
                attached = sum(each in new.held for each in rest)
        except VmcoreddError as error:
            reasons.append(str(error))
    return _clear(left, known, attached, reasons)


def _clear(left: LeftOver, known: Sequence[Candidate], attached: int, reasons: list[str]) -> bool:
    """Remove what vmcores have; log that, and what stays, and return whether nothing does. Raises WriteFailed."""
    held = {each: holder for each in left.files if (holder := _held_by(known, each)) is not None}
    if held:
        left.remove(list(held))
        where = ", ".join(dict.fromkeys(held.values()))
        now = f", {attached} of them attached now" if attached else ""
        are = "is" if len(held) == 1 else "are"
        what = f"{counted(len(held), 'device dump')} {are} in {where}{now}"
        record(
            Event.SPOOL_RESOLVED,
            logging.INFO,
            f"{left.directory}: {what}, and left the spool",
            spool=left.directory,
            path=where,
            dumps=len(held),
            attached=attached,
        )
    if remove_without_dumps(left.directory):
        return True
    if stay := [each.name for each in left.files if each not in held]:
        reasons.insert(0, f"in no vmcore that is certain to have it: {', '.join(stay)}")
    _stays(left.directory, "; ".join([*reasons, *left.problems]) or "it has other files than the spool's")
    return False


def _held_by(candidates: Sequence[Candidate], wanted: ManifestDump) -> str | None:
    return next((each.path for each in candidates if wanted in each.held), None)


def _stays(directory: Path, reason: str) -> None:
    message = f"{directory}: device dumps of an earlier crash stay in the spool: {reason}"
    record(Event.DUMP_LEFT_BEHIND, logging.WARNING, message, spool=directory)


def _uncertain(left: LeftOver, ours: Sequence[Candidate], places: Sequence[str]) -> str:
    by_hand = f"vmcoredd attach VMCORE {left.directory}/*.note"
    if ours:
        return f"several vmcores are of that crash: {', '.join(each.path for each in ours)}; choose one: {by_hand}"
    seconds = crash_time(parsed(left.vmcoreinfo or b""))
    time = utc(seconds * 10**6) if seconds else None
    which = f"of the crash of {time} UTC" if time else "of which that is known"
    return f"there is no complete vmcore {which} in {', '.join(places)}; if you have it: {by_hand}"


def _attach(left: LeftOver, vmcore: Candidate, records: Sequence[ManifestDump]) -> tuple[Candidate, str]:
    """Attach device dumps to *vmcore*; return what it has then, and why one was not attached.

    Raises VmcoreddError.
    """
    other = [each.name for each in records if each.name in vmcore.entries and vmcore.entries[each.name] != each]
    reason = f"{vmcore.path} has other device dumps of these names: {', '.join(other)}" if other else ""
    files = [left.files[each] for each in records if each.name not in other]
    if not files:
        return vmcore, reason
    refuse_compressed(vmcore.path)
    handed_over = left.handed_over
    besides = Left(handed_over.failures, handed_over.idle_collectors)
    if not vmcore.has_manifest:
        with opened(vmcore.path) as fd:
            machine = this_machine(recognise(file_image(fd, vmcore.path)))
        # This system is the one of the capture kernel, but this boot is another.
        besides = replace(besides, machine=replace(machine, boot_id=left.boot_id))
    with _interrupts_restored():
        attached = attach_files(vmcore.path, files, PRODUCER, ignore_interrupts, left=besides)
    for warning in attached.warnings:
        log.warning("%s: %s", vmcore.path, warning)
    return look_at(vmcore.path, frozenset(left.files)), reason


@contextmanager
def _interrupts_restored() -> Iterator[None]:
    """Handle the signals as before when the context ends."""
    handlers = {number: signal.getsignal(number) for number in INTERRUPTS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
