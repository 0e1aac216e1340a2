# SPDX-License-Identifier: LGPL-2.1-or-later
"""A collector's program as a process that the service can always get rid of.

It leads a session of its own, so that its children are killed with it; the service manager kills those that leave
the session. It runs at a lower priority, and is killed first when memory runs out. A process in D state cannot be
killed: it is abandoned, and a thread reaps it if it ever ends.
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
from .settings import PATH

KILL_GRACE = 1.0
"""Seconds that a process has after SIGTERM, and again after SIGKILL."""

NICE = 10
"""The priority of its I/O follows this one, see ioprio_set(2)."""

OOM_SCORE_ADJ = 500
"""The service itself has -900."""

SPAWN_TIMEOUT = 0.2
"""Seconds that a process waits for the start of the one before it."""

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
        """Done when the process has ended. It is not reaped yet, so that no other process gets its number."""
        self._process = process
        self._abandoned = abandoned

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; None before :meth:`close`, or if it did not end."""
        return self._process.returncode

    async def stop(self) -> None:
        """End the process and its children by SIGTERM, then by SIGKILL; wait KILL_GRACE after each."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if not self.exited.done():
                self._signal(number)
                await asyncio.wait([self.exited], timeout=KILL_GRACE)

    def kill_children(self) -> None:
        """Kill the processes that are still in its group."""
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
        # EPERM: all processes that are left in the group have changed their user.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


class Starter:
    """Starts processes, one after the other unless one hangs.

    fork() holds the interpreter's lock for milliseconds. If many threads fork at the same time, all of them may
    get that lock before the loop does: 24 have kept it waiting for 100 ms.
    """

    def __init__(self, abandoned: AbandonedThreads | None = None) -> None:
        """*abandoned* counts the threads of processes that cannot be killed."""
        self._turn = threading.Semaphore()
        self._abandoned = abandoned

    async def start(self, command: Sequence[str], environment: Mapping[str, str]) -> Process:
        """Run *command* with *environment* and PATH only. Raises OSError.

        Cancelled, it kills what was started.
        """
        loop = asyncio.get_running_loop()
        started: asyncio.Future[_Started] = loop.create_future()

        def run() -> None:
            process = self._start(command, {"PATH": os.environ.get("PATH", PATH), **environment})
            loop.call_soon_threadsafe(started.set_result, process)
            _wait(process[0].pid)

        # In a thread, because exec() waits for the file system of the program, and that may hang. The same thread
        # waits for the end: a second one might not start, and then no thread would reap the process.
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
        # A start that hangs is overtaken.
        has_turn = self._turn.acquire(timeout=SPAWN_TIMEOUT)
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
            # It changes no group, but makes subprocess call fork() instead of vfork(): before Python 3.11.4, that
            # holds the interpreter's lock until exec() is done, and if exec() hangs, so does all of this process
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
    # The process may have ended by now, and runs without these, too.
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, NICE)
    with suppress(OSError), open(f"/proc/{pid}/oom_score_adj", "w", encoding="ascii") as file:
        file.write(str(OOM_SCORE_ADJ))


def _wait(pid: int) -> None:
    with suppress(ChildProcessError):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
