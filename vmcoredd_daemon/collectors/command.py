# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs a command whose standard output is the device dump.

What it wrote before it failed, or was cut off, is kept in state ``truncated``: after a crash half of a device's
state is worth more than none.
"""

import asyncio
import logging
import os
import shlex
import signal
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from ..dumps.buffer import Buffer
from ..dumps.collector import Collected
from ..errors import CollectorFailed, TimedOut, TooLarge, VmcoreddError
from ..journal import journal_fields
from ..text import shortened
from .descriptor import DescriptorCollector, readable
from .process import Process, Starter

STDERR_KEPT = 4096
"""Bytes of standard error that are kept for the log."""

STDERR_LINES = 20
STDERR_PAUSE = 0.01
"""Seconds between two reads of output that is discarded, so that a flood costs little."""

OUTPUT_IDLE = 1.0
"""Seconds without output after which a command that has ended is expected to have no more."""

PIPE_DRAIN_TIMEOUT = 5.0
"""Seconds to read what is left in the pipe of a command that has ended."""

_ReadTask = asyncio.Task[Collected]

log = logging.getLogger(__name__)


class CommandCollector:
    """The command of the registered collector *name*, which has *timeout* seconds."""

    def __init__(self, name: str, command: Sequence[str], timeout: float, starter: Starter | None = None) -> None:
        self.description = shortened(f"{name}: {shlex.join(command)}")
        self._name = name
        self._command = command
        self._timeout = timeout
        self._starter = starter or Starter()
        self._stopping = asyncio.Event()

    async def collect(self, dump_name: str, buffer: Buffer) -> Collected:
        """Run the command. When this is cancelled, the command is cut off, and what it wrote so far is returned.

        Raises CollectorFailed or TimedOut when there is nothing to keep.
        """
        work = asyncio.create_task(self._collect(dump_name, buffer))
        while True:
            try:
                return await asyncio.shield(work)
            except asyncio.CancelledError:
                # A second time, as when the deadline follows a shutdown, this changes nothing.
                self._stopping.set()
                if work.cancelled():
                    raise

    async def _collect(self, dump_name: str, buffer: Buffer) -> Collected:
        deadline = asyncio.get_running_loop().time() + self._timeout
        process = await self._start(dump_name, buffer.size, deadline)
        output = DescriptorCollector(process.stdout, self.description, loop_polls=True)
        reading = asyncio.create_task(output.collect(dump_name, buffer))
        stderr = _Stderr(process.stderr)
        try:
            problem = await self._watch(process, reading, output, deadline)
            if problem is not None or _truncated(reading):
                await process.stop()
            process.kill_children()
            with suppress(TimeoutError):
                async with asyncio.timeout(PIPE_DRAIN_TIMEOUT):
                    await _rest(reading, output)
            await _cancel(reading)
            await buffer.idle()
            # A command that filled the buffer may have written more only later.
            more = _truncated(reading) or bool(_read(process.stdout, 1))
        finally:
            await _cancel(reading)
            await stderr.finish()
            process.close()
        self._log(dump_name, stderr.text)
        if not reading.cancelled() and (failure := reading.exception()) is not None:
            raise failure
        if problem is None and more:
            problem = TooLarge(f"the command wrote more than {buffer.size} bytes")
        problem = problem or _problem(process.returncode, output.position)
        if problem is None:
            return Collected(output.position)
        texts = filter(None, (f"device dump {dump_name}", str(problem), stderr.first_line))
        problem = type(problem)(": ".join(texts))
        if output.position == 0:
            raise problem
        return Collected(output.position, truncated=True, error=problem)

    async def _start(self, dump_name: str, size: int, deadline: float) -> Process:
        environment = {"LANG": "C.UTF-8", "VMCOREDD_DUMP_NAME": dump_name, "VMCOREDD_SIZE": str(size)}
        try:
            async with asyncio.timeout_at(deadline):
                return await self._starter.start(self._command, environment)
        except TimeoutError:
            raise TimedOut(f"device dump {dump_name}: {self._late()}") from None
        except OSError as error:
            problem = f"device dump {dump_name}: cannot run {shortened(self._command[0])}: {error.strerror}"
            raise CollectorFailed(problem, error.errno or CollectorFailed.errno) from error

    async def _watch(
        self, process: Process, reading: _ReadTask, output: DescriptorCollector, deadline: float
    ) -> VmcoreddError | None:
        """Wait until the command has ended by itself, or must be ended; return why it must."""
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            async with asyncio.timeout_at(deadline):
                await _first(reading, process.exited, stopping)
                if reading.done() and not _truncated(reading):
                    # It has closed its output, or filled the buffer, and has not ended yet.
                    await _first(process.exited, stopping)
        except TimeoutError:
            return TimedOut(self._late())
        finally:
            stopping.cancel()
        if self._stopping.is_set() and not process.exited.done():
            return TimedOut("the command did not finish before the shutdown")
        # Its children may still write, or just have the pipe open.
        try:
            async with asyncio.timeout_at(max(deadline, asyncio.get_running_loop().time() + PIPE_DRAIN_TIMEOUT)):
                await _rest(reading, output, self._stopping)
        except TimeoutError:
            return TimedOut("children of the command did not finish in time")
        return None

    def _late(self) -> str:
        return f"the command did not finish within {self._timeout:g} s"

    def _log(self, dump_name: str, text: bytes) -> None:
        fields = journal_fields(collector=self.description, dump_name=dump_name)
        for line in text.splitlines()[:STDERR_LINES]:
            shown = shortened(line.decode(errors="surrogateescape"))
            log.info("Collector %s: %s", shortened(self._name), shown, extra=fields)

    def close(self) -> None:
        """Nothing is held."""


class _Stderr:
    """Reads standard error as long as the process writes to it, and keeps the beginning."""

    def __init__(self, fd: int) -> None:
        self.text = b""
        self._fd = fd
        self._task = asyncio.create_task(self._read())

    @property
    def first_line(self) -> str:
        lines = (line.strip() for line in self.text.decode(errors="surrogateescape").splitlines())
        return shortened(next(filter(None, lines), ""))

    async def finish(self) -> None:
        """Read what is there now, and no more."""
        await _cancel(self._task)
        self._keep(_read(self._fd, STDERR_KEPT) or b"")

    async def _read(self) -> None:
        while True:
            await readable(self._fd)
            data = _read(self._fd, 1 << 16)
            if data == b"":
                return
            self._keep(data or b"")
            if len(self.text) == STDERR_KEPT:
                await asyncio.sleep(STDERR_PAUSE)

    def _keep(self, data: bytes) -> None:
        self.text += data[: STDERR_KEPT - len(self.text)]


async def _first(*waits: "asyncio.Future[Any]") -> None:
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)


async def _rest(reading: _ReadTask, output: DescriptorCollector, stopping: asyncio.Event | None = None) -> None:
    """Wait until all output is read, or none has come for a while."""
    seen = -1
    while not reading.done() and output.position != seen and not (stopping and stopping.is_set()):
        seen = output.position
        await asyncio.wait([reading], timeout=OUTPUT_IDLE)


async def _cancel(task: "asyncio.Task[Any]") -> None:
    """Cancel *task*, and wait until it does not use its descriptor any more."""
    task.cancel()
    await asyncio.wait([task])


def _truncated(reading: _ReadTask) -> bool:
    """Return whether the command wrote more than the buffer holds, or reading failed."""
    if not reading.done() or reading.cancelled():
        return False
    return reading.exception() is not None or reading.result().truncated


def _problem(returncode: int | None, size: int) -> VmcoreddError | None:
    if returncode is None:
        return CollectorFailed("the command did not end")
    if returncode < 0:
        # Real-time signals have no names.
        name = next((known.name for known in signal.Signals if known == -returncode), f"signal {-returncode}")
        return CollectorFailed(f"the command was killed by {name}")
    if returncode > 0:
        return CollectorFailed(f"the command failed with exit status {returncode}")
    return None if size else CollectorFailed("the command printed nothing")


def _read(fd: int, size: int) -> bytes | None:
    """Return what can be read now: empty at the end, None if there is nothing yet."""
    with suppress(BlockingIOError):
        return os.read(fd, size)
    return None
