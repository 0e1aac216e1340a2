# SPDX-License-Identifier: LGPL-2.1-or-later
"""A collector's program as a process that can be got rid of, whatever it does.

It leads a session of its own, so that its children go with it; who leaves that session is left to the service
manager. It runs at a lower priority, and where memory runs out it goes first. A process in D state cannot be
killed: it is left to itself, and reaped by a thread if it ever ends.
"""

import asyncio
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from ..threads.loop import AbandonedThreads, abandon, run_in_own_thread

GRACE = 1.0
"""Seconds that a process has after SIGTERM, and again after SIGKILL."""

NICE = 10
"""The I/O scheduler's priority follows it where none is set, see ioprio_set(2)."""

OOM_SCORE_ADJ = 500
"""The service itself has -900."""

PATIENCE = 0.2
"""Seconds to wait for the start of another process."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_Started = tuple["subprocess.Popen[bytes]", int, int]


class Process:
    """A running program, and the ends of its pipes, which do not block."""

    def __init__(
        self,
        process: "subprocess.Popen[bytes]",
        stdout: int,
        stderr: int,
        exited: "asyncio.Future[None]",
        abandoned: AbandonedThreads | None = None,
    ) -> None:
        self.stdout = stdout
        self.stderr = stderr
        self.exited = exited
        """Done when the process has ended; it is not reaped then, so that its number stays its own."""
        self._process = process
        self._abandoned = abandoned

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; None before :meth:`close`, and where it did not end."""
        return self._process.returncode

    async def stop(self) -> None:
        """End the process and its children: SIGTERM, SIGKILL, and a while for each."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if not self.exited.done():
                self._signal(number)
                await asyncio.wait([self.exited], timeout=GRACE)

    def kill_children(self) -> None:
        """Kill whoever is still in the process group."""
        self._signal(signal.SIGKILL)

    def close(self) -> None:
        """Kill what is left, reap it, and close the pipes. Does not block; called again, it does nothing."""
        if self.stdout < 0:
            return
        self._signal(signal.SIGKILL)
        for fd in (self.stdout, self.stderr):
            os.close(fd)
        self.stdout = self.stderr = -1
        if self.exited.done():
            self._process.wait()
        else:
            process = self._process
            self.exited.add_done_callback(lambda _: process.wait())
            abandon(self.exited, self._abandoned)

    def _signal(self, number: signal.Signals) -> None:
        # EPERM: all that is left of the group has changed its user.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


class Starter:
    """Starts processes, one after the other as long as that goes well.

    fork() keeps the interpreter's lock for milliseconds. Of many threads that call it at once each may be the next
    to have that lock, and the loop the last: 24 of them have kept it waiting for 100 ms.
    """

    def __init__(self, abandoned: AbandonedThreads | None = None) -> None:
        """*abandoned* counts the threads of what cannot be got rid of."""
        self._turn = threading.Semaphore()
        self._abandoned = abandoned

    async def start(self, command: Sequence[str], environment: Mapping[str, str]) -> Process:
        """Run *command* with *environment* and PATH only. Raises OSError.

        Where nobody waits for it any more, what was started is killed.
        """
        loop = asyncio.get_running_loop()
        started: asyncio.Future[_Started] = loop.create_future()

        def run() -> None:
            process = self._start(command, {"PATH": os.environ.get("PATH", PATH), **environment})
            loop.call_soon_threadsafe(started.set_result, process)
            _wait(process[0].pid)

        # In a thread, because exec() waits for the file system that the program lies in, and that may hang. The
        # same waits for the end: a second one might not start, and nobody would know of the process.
        exited = run_in_own_thread(run)
        either: list[asyncio.Future[Any]] = [started, exited]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            started.add_done_callback(lambda done: Process(*done.result(), exited, self._abandoned).close())
            abandon(exited, self._abandoned)
            raise
        if not started.done():
            await exited
        return Process(*started.result(), exited, self._abandoned)

    def _start(self, command: Sequence[str], environment: Mapping[str, str]) -> _Started:
        # Whoever hangs is overtaken.
        has_turn = self._turn.acquire(timeout=PATIENCE)
        try:
            return _spawn(command, environment)
        finally:
            if has_turn:
                self._turn.release()


def _spawn(command: Sequence[str], environment: Mapping[str, str]) -> _Started:
    stdout, stdout_of_child = os.pipe()
    stderr, stderr_of_child = os.pipe()
    try:
        for fd in (stdout, stderr):
            os.set_blocking(fd, False)
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stdout_of_child,
            stderr=stderr_of_child,
            env=environment,
            cwd="/",
            start_new_session=True,
            # It changes nothing, but with it subprocess calls fork() instead of vfork(): that waits, before Python
            # 3.11.4, with the interpreter's lock held, and all of this process with it while exec() hangs
            # (python/cpython#104372). Debian 12 has 3.11.2.
            group=os.getegid(),
        )
    except BaseException:
        os.close(stdout)
        os.close(stderr)
        raise
    finally:
        os.close(stdout_of_child)
        os.close(stderr_of_child)
    _make_modest(process.pid)
    return process, stdout, stderr


def _make_modest(pid: int) -> None:
    # It may have ended by now; and without these it runs as well.
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, NICE)
    with suppress(OSError), open(f"/proc/{pid}/oom_score_adj", "w", encoding="ascii") as file:
        file.write(str(OOM_SCORE_ADJ))


def _wait(pid: int) -> None:
    with suppress(ChildProcessError):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
