# SPDX-License-Identifier: LGPL-2.1-or-later
"""One line a second on the console of the capture kernel: how far the vmcore is.

With kdump, makedumpfile prints there, too. A terabyte takes hours, and the console, often a serial line, is all
that can be seen of the machine. Such a line may be slow, or stopped by its other end. So a thread of its own
writes to it, never waits for space in its buffer, and drops what does not fit.
"""

import _thread
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ..files import close
from ..text import printable

INTERVAL = 1.0
"""Seconds between two lines."""

STOP_TIMEOUT = 1.0
"""Seconds that the last line may take."""


class ConsoleStatus:
    """Writes to the terminal *path* what *line* returns, whenever that has changed and is not empty."""

    def __init__(self, path: Path, line: Callable[[], str]) -> None:
        self._path = path
        self._line = line
        self._last = ""
        self._fd = -1
        self._truncated = False
        self._stopping = threading.Event()
        self._stopped = threading.Event()
        # Without a thread, only the status is missing. threading.Thread would wait until it runs.
        with suppress(RuntimeError):
            _thread.start_new_thread(self._run, ())

    def stop(self) -> None:
        """Write the last line, and end; a thread that hangs is abandoned."""
        self._stopping.set()
        self._stopped.wait(STOP_TIMEOUT)

    def _run(self) -> None:
        while not self._stopping.wait(INTERVAL):
            self._poll()
        self._poll()
        self._close()
        self._stopped.set()

    def _poll(self) -> None:
        line = self._line()
        if line and line != self._last:
            self._last = line
            # What is not printable would be a command to the terminal.
            self._write_line(printable(line).encode("ascii", "backslashreplace"))

    def _write_line(self, line: bytes) -> None:
        try:
            if self._fd < 0:
                # It must not become our controlling terminal, nor wait for a carrier.
                flags = os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC
                self._fd = os.open(self._path, flags)
            if os.isatty(self._fd):
                text = (b"\n" if self._truncated else b"") + b"vmcoredd: " + line + b"\n"
                self._truncated = os.write(self._fd, text) < len(text)
        except BlockingIOError:
            # The line is slow, or stopped.
            return
        except OSError:
            # It was hung up, as by vhangup(2) of a getty: the next line opens it again.
            self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            close(self._fd)
            self._fd = -1
