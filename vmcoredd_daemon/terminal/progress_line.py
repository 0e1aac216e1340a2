# SPDX-License-Identifier: LGPL-2.1-or-later
"""How far something long is, on standard error: bytes, rate, and the time that is left.

On a terminal it is a bar, drawn by tqdm if that is installed (``pip install vmcoredd[progress]``), else a line
that is rewritten; on a console, and on a dumb terminal, one line a second: the serial line of a capture kernel is
one, and is logged. Elsewhere nothing is shown: programs read a pipe, a file and the journal. Nor is anything shown
that takes only a moment.
"""

import importlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ..progress import Progress, how_far
from ..text import printable
from .stdio import complain
from .view import is_dumb

DELAY = 0.5
"""Seconds until anything is shown."""
_INTERVAL = 0.2
"""Seconds between two states of a line that is rewritten."""
_LINE_INTERVAL = 1.0
"""Seconds between two lines."""
_WIDTH = 79


class TerminalProgress(Progress):
    """What is counted is shown on standard error, if that is a terminal."""

    def __init__(self) -> None:
        super().__init__()
        self._shown: Line | _Bar | None = None

    def start(self, what: str, total: int = 0) -> None:
        """Show *what*, in the place of what was shown before."""
        super().start(what, total)
        self.close()
        self._shown = _choose(printable(what), total)

    def reach(self, done: int, total: int) -> None:
        """Show how far it is."""
        super().reach(done, total)
        if self._shown is not None:
            self._shown.show(done, total)

    def close(self) -> None:
        """Show nothing more."""
        if self._shown is not None:
            self._shown.close()


def wanted() -> bool:
    """Tell whether standard error is a terminal."""
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except ValueError:
        return False


@contextmanager
def progress(what: str = "", total: int = 0) -> Iterator[Progress]:
    """Show *what*, and what is started later, while the context lasts; a *total* of 0 is not known."""
    shown = TerminalProgress()
    try:
        if what:
            shown.start(what, total)
        yield shown
    finally:
        shown.close()


def _choose(what: str, total: int) -> "Line | _Bar | None":
    if not wanted():
        return None
    try:
        console = os.ttyname(sys.stderr.fileno()) == "/dev/console"
    except OSError:
        console = False
    if console or is_dumb():
        return Line(what, complain, _LINE_INTERVAL)
    try:
        # A plain import would bring tqdm into the initramfs, which needs no bar.
        tqdm = importlib.import_module("tqdm.std").tqdm
    except ImportError:
        return Line(what, _rewrite, _INTERVAL)
    return _Bar(tqdm, what, total)


class Line:
    """Shows it in words: ``nic: 45%, 540.0M of 1.2G, 120.0M/s, 5s left``."""

    def __init__(
        self, what: str, write: Callable[[str], None], interval: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """*write* is given one state every *interval* seconds at most; at the end, an empty one."""
        self._what = what
        self._write = write
        self._interval = interval
        self._clock = clock
        self._started = clock()
        self._next = self._started + DELAY
        self._written: tuple[int, int] | None = None

    def show(self, done: int, total: int) -> None:
        """Show it, if the last time is long enough ago, and something has happened since."""
        now = self._clock()
        if now >= self._next and (done, total) != self._written:
            self._next = now + self._interval
            self._written = (done, total)
            self._write(f"{self._what}: {how_far(done, total, now - self._started)}")

    def close(self) -> None:
        """Clear a line that is rewritten."""
        if self._written is not None and self._write is _rewrite:
            _rewrite("")


class _Bar:
    def __init__(self, tqdm: Any, what: str, total: int) -> None:
        # Its thread would only refresh bars that do not move.
        tqdm.monitor_interval = 0
        self._bar = tqdm(
            total=total or None,
            desc=what,
            unit="B",
            unit_scale=True,
            unit_divisor=1024,
            miniters=1,
            mininterval=_INTERVAL,
            delay=DELAY,
            leave=False,
            dynamic_ncols=True,
            file=sys.stderr,
        )

    def show(self, done: int, total: int) -> None:
        self._bar.total = total or None
        with suppress(OSError):
            self._bar.update(done - self._bar.n)

    def close(self) -> None:
        with suppress(OSError):
            self._bar.close()


def _rewrite(text: str) -> None:
    with suppress(OSError, ValueError):
        sys.stderr.write(f"\r{text[:_WIDTH]}\033[K")
        sys.stderr.flush()
