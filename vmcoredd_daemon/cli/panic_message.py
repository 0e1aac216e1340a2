# SPDX-License-Identifier: LGPL-2.1-or-later
"""The line of the kernel log that says why it crashed: from the log beside the vmcore, or in the vmcore itself."""

import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ..errors import VmcoreddError
from ..writer import makedumpfile
from ..writer.kernel_log import KERNEL_LOG

MAKEDUMPFILE_TIMEOUT = 10.0
"""Seconds that makedumpfile may take without output."""
_TAIL = 1 << 20
"""Bytes at the end of a log that are searched for the panic."""

_OF_KDUMP_TOOLS = re.compile(r"(?:dump|vmcore)\.([^.]+)")
"""What kdump-tools calls its vmcore; it appends ``.gz`` to a compressed one, but not to the log."""

# The most informative first; crash looks for the same (get_panicmsg() in its kernel.c).
_PANIC = tuple(
    re.compile(pattern)
    for pattern in (
        rb"Kernel panic - not syncing[^\r\n]*",
        rb"BUG: [^\r\n]*",
        rb"kernel BUG at [^\r\n]*",
        rb"Unable to handle kernel [^\r\n]*",
        rb"(?:general protection fault|divide error|Internal error|Oops)[:, ][^\r\n]*",
        rb"sysrq: Trigger a crash[^\r\n]*",
    )
)


def panic_line(vmcore: str, *, flattened: bool, inside: str | None = None) -> str | None:
    """Return the line, None if there is no log, or no panic in it. Never fails.

    *inside* is a name by which makedumpfile can open the vmcore, if that is not *vmcore*: see :func:`.name_of`.
    """
    return panic_beside(vmcore) or (None if flattened else _panic(_dumped(inside or vmcore)))


def panic_beside(vmcore: str) -> str | None:
    """Do as :func:`panic_line`, but read only a log that lies beside the vmcore."""
    return next(filter(None, map(_panic, _logs(vmcore))), None)


def panic_and_log(vmcore: str, *, flattened: bool, inside: str | None = None) -> tuple[str | None, bytes]:
    """Do as :func:`panic_line`; return the end of the log, too: of the one with the line, else of the first."""
    logs = list(_logs(vmcore))
    if not flattened and not any(map(_panic, logs)):
        logs.append(_dumped(inside or vmcore))
    log = next((each for each in logs if _panic(each)), next(filter(None, logs), b""))
    return _panic(log), log


def _panic(log: bytes) -> str | None:
    found = next(filter(None, (pattern.search(log) for pattern in _PANIC)), None)
    return found and found[0].decode("utf-8", "backslashreplace").strip()


def _logs(vmcore: str) -> Iterator[bytes]:
    """Yield what kdump-utils and we save, and what kdump-tools saves beside its dump.TIME."""
    path = Path(vmcore)
    yield _tail(path.with_name(KERNEL_LOG))
    if found := _OF_KDUMP_TOOLS.match(path.name):
        yield _tail(path.with_name(f"dmesg.{found[1]}"))


def _tail(log: Path) -> bytes:
    with suppress(OSError):
        fd = os.open(log, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            state = os.fstat(fd)
            if stat.S_ISREG(state.st_mode):
                return os.pread(fd, _TAIL, max(0, state.st_size - _TAIL))
        finally:
            os.close(fd)
    return b""


def _dumped(vmcore: str) -> bytes:
    """Return the end of the log in the vmcore, if makedumpfile is installed and finds it."""
    if not makedumpfile.available():
        return b""
    try:
        with tempfile.TemporaryDirectory(prefix="vmcoredd-") as directory:
            log = Path(directory, "dmesg")
            # An absolute path never starts with a dash. --non-mmap: with mmap, version 1.7.2 sometimes crashes.
            makedumpfile.run(["--non-mmap", "--dump-dmesg", os.path.abspath(vmcore), log], MAKEDUMPFILE_TIMEOUT)
            return _tail(log)
    except (OSError, VmcoreddError):
        return b""
