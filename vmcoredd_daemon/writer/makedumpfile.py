# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs makedumpfile, follows its progress, and says in one line why it failed.

Its progress comes as ``\\rCopying data : [ 45.3 %] - eta: 12s`` (``print_progress()`` in print_info.c), its
messages as lines; the message level decides which go to standard output and which to standard error.
"""

import errno
import os
import re
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..errors import TimedOut, VmcoreddError

STALL_TIMEOUT = 300.0
"""Seconds without progress after which makedumpfile is killed; it prints it every second, with one decimal."""

MOST_THREADS = 16
"""More gain little, and each takes a megabyte."""
IN_ORDER = frozenset({"x86_64", "i686", "s390x"})
"""Machines whose processors make stores visible in their order, which the threads of makedumpfile before version
1.7.8 rely on: elsewhere pages could be corrupt (issue 15 of makedumpfile)."""

_NO_SPACE = os.strerror(errno.ENOSPC)
_GOES_ON = frozenset({"The kernel version is not supported.", "The makedumpfile operation may be incomplete."})
"""What it prints first if the kernel is newer than it is, and then does its work."""
_PROGRESS = re.compile(rb"\r([^:\r\n]{1,80}): \[ *(\d{1,3}\.\d) %\]")
_COPYING = b"Copying data"
_OVERWRITTEN = re.compile(rb"\r[^\r\n]*: \[ *[0-9.]+ %\][^\r\n]*(?=\r)")
"""A line of progress that is followed by another one."""
_TAIL = 8192
"""Bytes of output that are kept."""


class MakedumpfileMissing(VmcoreddError):
    """makedumpfile is not installed."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How makedumpfile ended."""

    status: int
    """Its exit status, or the negated number of the signal that killed it."""
    messages: tuple[str, ...]
    """The last lines that it printed, without progress."""

    @property
    def no_space(self) -> bool:
        """Whether its target was full."""
        return any(_NO_SPACE in message for message in self.messages)

    @property
    def reason(self) -> str:
        """Why it failed, in one line."""
        return f"makedumpfile failed with status {self.status}: {self.message}"

    @property
    def message(self) -> str:
        """The most informative message."""
        wrong = [message for message in self.messages if message.startswith(("Can't", "Can not"))]
        others = [message for message in self.messages if message not in _GOES_ON]
        return next(iter([*wrong, *others]), "no message")[:200]


def available() -> bool:
    """Tell whether makedumpfile is installed."""
    return shutil.which("makedumpfile") is not None


def threads_option() -> tuple[str, ...]:
    """Return the option for several threads, or none.

    They wait for each other, and its main thread for them, in loops that take a processor each. So one more is
    left to others: if a thread has to share its processor, all take several times as long as one.
    """
    threads = min(len(os.sched_getaffinity(0)) - 2, MOST_THREADS)
    return (f"--num-threads={threads}",) if threads > 1 and os.uname().machine in IN_ORDER else ()


def run(
    arguments: Sequence[str | os.PathLike[str]],
    stall: float = STALL_TIMEOUT,
    copied: Callable[[float], None] = lambda percent: None,
) -> Exit:
    """Run makedumpfile, and call *copied* with the percentage that is copied; also while it only examines pages.

    Blocks. Raises MakedumpfileMissing, and TimedOut after *stall* seconds without progress, whatever else it
    prints; it is killed then.
    """
    program = shutil.which("makedumpfile")
    if program is None:
        raise MakedumpfileMissing("makedumpfile is not installed")
    process = subprocess.Popen(
        [program, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # In the same process group, Control-C would end makedumpfile when the service begins to write.
        process_group=0,
    )
    assert process.stdout is not None
    with process.stdout as output:
        try:
            tail = _follow(output.fileno(), stall, copied)
            return Exit(process.wait(stall), _messages(tail))
        except (TimeoutError, subprocess.TimeoutExpired):
            raise TimedOut(f"makedumpfile made no progress for {stall:g} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                # In D state it cannot be killed, and is abandoned.
                try:
                    process.wait(1)
                except subprocess.TimeoutExpired:
                    # Python warns of a process that it takes for running.
                    process.returncode = -signal.SIGKILL


def _follow(fd: int, stall: float, copied: Callable[[float], None]) -> bytes:
    """Read the output to its end; return the last bytes of it."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    tail, percent, last = b"", 0.0, (b"", b"")
    deadline = time.monotonic() + stall
    while True:
        if not poll.poll(max(deadline - time.monotonic(), 0) * 1000):
            raise TimeoutError
        data = os.read(fd, _TAIL)
        if not data:
            return tail
        tail += data
        found = _PROGRESS.findall(tail)
        if found and found[-1] != last:
            last, deadline = found[-1], time.monotonic() + stall
            percent = next((float(done) for step, done in found[::-1] if step.startswith(_COPYING)), percent)
            copied(percent)
        if len(tail) > _TAIL:
            # A message may be followed by hours of progress, which must not push it out of the tail.
            tail = _OVERWRITTEN.sub(b"", tail)[-_TAIL:]


def _messages(output: bytes) -> tuple[str, ...]:
    lines = re.split(r"[\r\n]+", output.decode("ascii", "backslashreplace"))
    # A message may follow a line of progress without a line break.
    texts = (
        re.sub(r"^.*: \[ *[0-9.]+ %\] [-\\|/]?( *eta: (?:(?:\d+[smhd])+|>100day))?", "", line).strip()
        for line in lines
    )
    return tuple(text for text in texts if text)
