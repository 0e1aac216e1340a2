# SPDX-License-Identifier: LGPL-2.1-or-later
"""What somebody sees who watches the console of the capture kernel: once a second, how far the vmcore is.

As with kdump, where makedumpfile prints there; a terabyte takes hours, and the console is often a serial line that
is all there is to see of the machine. Such a line may be slow, or stopped by its other end. So a thread of its own
writes to it, without waiting for room, and leaves out what has none.
"""

import _thread
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

INTERVAL = 1.0
"""Seconds between two lines."""

STOP_TIMEOUT = 1.0
"""Seconds that the last line may take."""


class ConsoleStatus:
    """Writes to the terminal *path* what *line* returns, whenever that has changed; nothing where it is empty."""

    def __init__(self, path: Path, line: Callable[[], str]) -> None:
        self._path = path
        self._line = line
        self._last = ""
        self._fd = -1
        self._truncated = False
        self._stopping = threading.Event()
        self._stopped = threading.Event()
        # Without a thread nobody is told, and nothing else is missing. threading.Thread waits until it runs.
        with suppress(RuntimeError):
            _thread.start_new_thread(self._run, ())

    def stop(self) -> None:
        """Say the last line, and end; what hangs is left to itself."""
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
            self._write_line(line.encode("unicode_escape"))

    def _write_line(self, line: bytes) -> None:
        try:
            if self._fd < 0:
                # Not the terminal that sends us signals, and not one that waits for a carrier.
                flags = os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC
                self._fd = os.open(self._path, flags)
            if os.isatty(self._fd):
                text = (b"\n" if self._truncated else b"") + b"vmcoredd: " + line + b"\n"
                self._truncated = os.write(self._fd, text) < len(text)
        except BlockingIOError:
            # It is slow, or stopped.
            return
        except OSError:
            # It hangs up when somebody else takes it: the next line opens it again.
            self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            with suppress(OSError):
                os.close(self._fd)
            self._fd = -1
