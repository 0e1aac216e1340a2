# SPDX-License-Identifier: LGPL-2.1-or-later
"""Gathers device dumps for what makedumpfile writes, and attaches them to its file when that is finished."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from ...errors import InvalidVmcore
from ...manifest import ManifestDump, ManifestMachine, ManifestSource, reason
from ...progress import Progress
from ...terminal.stdio import complain
from ...text import counted
from ...vmcore.attach.attach import attach
from ...vmcore.formats import recognise
from ...vmcore.image import file_image
from ...writer.machine import this_machine
from ...writer.manifest_note import manifest_note
from .gather import GATHER_TIMEOUT, GatheredDumps, Request, Send, gather, run_in_child
from .makedumpfile import OWN_PREFIX, Call, be_killed_first

_MAX_TIMEOUT = 3600
CLEAR_TIMEOUT = 30.0
"""Seconds to clear the spool."""


def gather_for(call: Call, directory: Path | None) -> GatheredDumps:
    """Return the device dumps for a vmcore, and report problems; *directory* may keep them meanwhile.

    Raises OSError.
    """
    request = _request(call, directory)

    def find(request: Request, send: Send) -> None:
        call.hang_up()
        be_killed_first()
        # Only the child imports this: see there.
        from . import sources

        sources.run(request, send)

    with _progress() as progress:
        gathered = gather(request, find, progress)
    for problem in gathered.problems:
        complain(problem)
    return gathered


def _request(call: Call, directory: Path | None = None) -> Request:
    config, spool = (Path(call.own[name]) if name in call.own else None for name in ("config", "spool"))
    return Request(call.own.get("bus-address"), config, _timeout(call), directory, spool)


def attach_to_file(call: Call, path: str, status: int) -> None:
    """Attach device dumps to the vmcore at *path*; makedumpfile ended with *status*.

    Raises VmcoreddError, OSError; the vmcore is then as makedumpfile left it.
    """
    gathered = gather_for(call, Path(os.path.realpath(path)).parent)
    try:
        if not gathered.notes and not gathered.failures:
            complain(f"there are no device dumps to attach to {path}")
            return
        error = f"makedumpfile ended with status {status}" if status else ""
        source = ManifestSource(call.operands[0], error=error)
        gathered.drop_excess()
        with ExitStack() as stack:
            note, _ = stack.enter_context(manifest_note(gathered.snapshot, source, machine_of_source(call)))
            notes = [*gathered.notes, note]
            # Also to a file that makedumpfile could not finish: there will be no other for these device dumps.
            attached = attach(path, notes, stack.enter_context(_progress()), force=True)
        for warning in attached.warnings:
            complain(f"{path}: {warning}")
        for name in attached.altered:
            complain(f"{path}: device dump {name} was altered after it was taken")
        report(gathered, path)
        if not status:
            _clear_spool(call, path, frozenset(gathered.records))
    finally:
        gathered.close()


def _clear_spool(call: Call, path: str, records: frozenset[ManifestDump]) -> None:
    """Have the device dumps that are in the vmcore at *path* leave the spool; what stays, a next boot clears."""

    def clear(request: Request, _: Send) -> None:
        be_killed_first()
        # Only the child imports this: see there.
        from . import clear

        clear.run(request, path, records)

    keeps = f"the spool keeps device dumps that are in {path}"
    try:
        cleared = run_in_child(replace(_request(call), timeout=CLEAR_TIMEOUT), clear, Progress())
    except OSError as error:
        complain(f"{keeps}: {error.strerror}")
        return
    for problem in cleared.problems:
        complain(f"{keeps}: {problem}")
    if not cleared.finished:
        complain(f"{keeps}: the process that clears it failed")


def machine_of_source(call: Call) -> ManifestMachine:
    """Return what is known of the machine, by the vmcore that makedumpfile reads. Blocks; never fails."""
    path = call.operands[0]
    try:
        with open(path, "rb", buffering=0) as file:
            return this_machine(recognise(file_image(file.fileno(), path)))
    except (OSError, InvalidVmcore):
        # makedumpfile says what is wrong with it.
        return this_machine()


@contextmanager
def _progress() -> Iterator[Progress]:
    """Show progress if standard error is a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield Progress()
        return
    # Imported late: without a terminal it would only take memory.
    from ...terminal.progress_line import progress

    with progress() as shown:
        yield shown


def report(gathered: GatheredDumps, where: str) -> None:
    """Report how many device dumps were attached, and which failed."""
    count = len(gathered.records)
    failed = f", {len(gathered.failures)} failed" if gathered.failures else ""
    complain(f"{counted(count, 'device dump')} attached to {where}{failed}")
    for failed_dump in gathered.failures:
        complain(f"device dump {failed_dump.name} failed: {reason(failed_dump.message, failed_dump.name)}")


def _timeout(call: Call) -> float:
    text = call.own.get("timeout", "")
    if re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,3})?", text) and 0 < float(text) <= _MAX_TIMEOUT:
        return float(text)
    if text:
        complain(f"{OWN_PREFIX}timeout={text[:80]!a} is not up to {_MAX_TIMEOUT} s: using {GATHER_TIMEOUT:g}")
    return GATHER_TIMEOUT
