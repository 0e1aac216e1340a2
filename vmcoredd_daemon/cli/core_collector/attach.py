# SPDX-License-Identifier: LGPL-2.1-or-later
"""Device dumps for what makedumpfile writes: gathered, and attached to the file when it is finished."""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ...errors import QuotaExceeded
from ...manifest import ManifestSource
from ...note import MAX_DEVICE_DUMPS, DeviceDumpNote
from ...progress import Progress
from ...terminal.stdio import complain
from ...vmcore.attach.attach import attach
from ...writer.manifest_note import manifest_note
from .gather import Gathered, gather
from .makedumpfile_options import OWN_PREFIX, Call
from .messages import TIMEOUT, Wanted, failure

_MAX_TIMEOUT = 3600


def gather_for(call: Call, directory: Path | None) -> Gathered:
    """Return the device dumps for a vmcore, and say what is wrong; *directory* is where they can lie.

    Raises OSError.
    """
    config = call.own.get("config")
    wanted = Wanted(call.own.get("bus-address"), Path(config) if config else None, _timeout(call), directory)
    with _progress() as progress:
        gathered = gather(wanted, progress)
    for problem in gathered.problems:
        complain(problem)
    return gathered


def attach_to_file(call: Call, path: str, status: int) -> None:
    """Attach to the vmcore at *path*, with which makedumpfile ended with *status*. Raises VmcoreddError, OSError.

    The vmcore is then as makedumpfile has left it.
    """
    gathered = gather_for(call, Path(os.path.realpath(path)).parent)
    try:
        if not gathered.notes and not gathered.failures:
            complain(f"there are no device dumps to attach to {path}")
            return
        error = f"makedumpfile ended with status {status}" if status else ""
        source = ManifestSource(call.operands[0], error=error)
        keep_first(gathered, MAX_DEVICE_DUMPS)
        with ExitStack() as stack:
            note = manifest_note(gathered.snapshot, source)
            notes: Sequence[DeviceDumpNote] = [*gathered.notes, stack.enter_context(note)[0]]
            attached = attach(path, notes, stack.enter_context(_progress()))
        for name in attached.altered:
            complain(f"{path}: device dump {name} was altered after it was taken")
        tell(gathered, path)
    finally:
        gathered.close()


@contextmanager
def _progress() -> Iterator[Progress]:
    """Provide what shows how far it is, where there is a terminal or a console: that takes memory."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield Progress()
        return
    from ...terminal.progress_line import progress

    with progress() as shown:
        yield shown


def keep_first(gathered: Gathered, count: int) -> None:
    """Keep the first *count* device dumps, which is what crash reads; the others are failures."""
    for record, note in zip(gathered.records[count:], gathered.notes[count:], strict=True):
        os.close(note.fd)
        error = QuotaExceeded(f"device dump {record.name}: there are {count} already, crash reads no more")
        gathered.failures.append(failure(record.name, record.collector, error))
    del gathered.records[count:], gathered.notes[count:]


def tell(gathered: Gathered, where: str) -> None:
    """Say what was attached, and what could not be."""
    count = len(gathered.records)
    failed = f", {len(gathered.failures)} failed" if gathered.failures else ""
    complain(f"{count} device dump{'' if count == 1 else 's'} attached to {where}{failed}")
    for failed_dump in gathered.failures:
        complain(f"device dump {failed_dump.name} failed: {failed_dump.message}")


def _timeout(call: Call) -> float:
    text = call.own.get("timeout", "")
    if re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,3})?", text) and 0 < float(text) <= _MAX_TIMEOUT:
        return float(text)
    if text:
        complain(f"{OWN_PREFIX}timeout: {text[:80]!a} is not a time of at most {_MAX_TIMEOUT} seconds")
    return TIMEOUT
