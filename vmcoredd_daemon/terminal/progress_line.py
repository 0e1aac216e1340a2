# SPDX-License-Identifier: LGPL-2.1-or-later
"""How far something long is, on standard error: bytes, rate, and the time that is left.

On a terminal a bar, which tqdm draws where it is installed (``pip install vmcoredd[progress]``), else a line that
renews itself; on a console, and on a terminal that is dumb, a line a second: the serial line of a capture kernel
is one, and is logged. Elsewhere nothing: a pipe, a file and the journal are read by programs, or later. What takes
no longer than a moment shows nothing anywhere.
"""

import importlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from ..progress import Step, how_far
from .stdio import complain, printable
from .view import is_dumb

DELAY = 0.5
"""Seconds until anything is shown."""
_INTERVAL = 0.2
"""Seconds between two states of a line that renews itself."""
_LINE_INTERVAL = 1.0
"""Seconds between two lines."""
_WIDTH = 79


class Progress(Protocol):
    """Somewhere to say how far it is."""

    def advance(self, size: int) -> None:
        """Count *size* more bytes."""

    def reach(self, done: int, total: int) -> None:
        """Say that *done* of *total* bytes are done, 0 where the total is not known."""


def wanted() -> bool:
    """Tell whether standard error is somewhere to show it."""
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except ValueError:
        return False


@contextmanager
def progress(what: str, total: int = 0) -> Iterator[Progress]:
    """Show how *what* goes on while the context lasts; *total* bytes are to be done, 0: nobody knows."""
    shown = _choose(printable(what), total)
    try:
        yield shown
    finally:
        shown.close()


@contextmanager
def steps() -> Iterator[Step]:
    """Provide a function that shows one step after the other while the context lasts."""
    shown, current = _Silent(), ""

    def step(what: str, total: int, size: int) -> None:
        nonlocal shown, current
        if what != current:
            shown.close()
            shown, current = _choose(printable(what), total), what
        shown.advance(size)

    try:
        yield step
    finally:
        shown.close()


def _choose(what: str, total: int) -> "_Silent":
    if not wanted():
        return _Silent()
    try:
        console = os.ttyname(sys.stderr.fileno()) == "/dev/console"
    except OSError:
        console = False
    if console or is_dumb():
        return Text(what, total, complain, _LINE_INTERVAL)
    try:
        # Whatever a module of ours imports by its plain name gets into the initramfs, which needs no bar.
        tqdm = importlib.import_module("tqdm.std").tqdm
    except ImportError:
        return Text(what, total, _rewrite, _INTERVAL)
    return _Bar(tqdm, what, total)


class _Silent:
    def advance(self, size: int) -> None:
        """Say nothing."""

    def reach(self, done: int, total: int) -> None:
        """Say nothing."""

    def close(self) -> None:
        """End."""


class Text(_Silent):
    """Says it in words: ``nic: 45%, 540.0M of 1.2G, 120.0M/s, 5s left``."""

    def __init__(
        self,
        what: str,
        total: int,
        say: Callable[[str], None],
        interval: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """*say* is given each state, not more often than every *interval* seconds; an empty one is the end."""
        self._what = what
        self._done, self._total = 0, total
        self._say = say
        self._interval = interval
        self._clock = clock
        self._started = clock()
        self._next = self._started + DELAY
        self._said = False

    def advance(self, size: int) -> None:
        """Count *size* more bytes."""
        self.reach(self._done + size, self._total)

    def reach(self, done: int, total: int) -> None:
        """Say it, if the last time is long enough ago."""
        self._done, self._total = done, total
        now = self._clock()
        if now >= self._next:
            self._next = now + self._interval
            self._said = True
            self._say(f"{self._what}: {how_far(done, total, now - self._started)}")

    def close(self) -> None:
        """Clear a line that renews itself."""
        if self._said and self._say is _rewrite:
            _rewrite("")


class _Bar(_Silent):
    def __init__(self, tqdm: Any, what: str, total: int) -> None:
        # Its thread would only look after bars that nobody moves.
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

    def advance(self, size: int) -> None:
        with suppress(OSError):
            self._bar.update(size)

    def reach(self, done: int, total: int) -> None:
        self._bar.total = total or None
        self.advance(done - self._bar.n)

    def close(self) -> None:
        with suppress(OSError):
            self._bar.close()


def _rewrite(text: str) -> None:
    with suppress(OSError, ValueError):
        sys.stderr.write(f"\r{text[:_WIDTH]}\033[K")
        sys.stderr.flush()
