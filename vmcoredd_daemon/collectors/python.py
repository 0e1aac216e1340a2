# SPDX-License-Identifier: LGPL-2.1-or-later
"""Collectors in Python: classes that packages register as entry points of the group ``vmcoredd.collectors``.

They run in threads of their own, so that one that hangs costs a thread and nothing else.
"""

import asyncio
import errno
import io
import itertools
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path, PurePath
from typing import BinaryIO, Protocol, TypeVar

from ..dumps.buffer import Buffer
from ..dumps.collector import Collected
from ..errors import CollectorFailed, TimedOut, TooLarge, VmcoreddError, of_storage
from ..files import pwrite
from ..text import shortened
from ..threads.loop import AbandonedThreads, run_apart, run_in_own_thread, wait_for

GROUP = "vmcoredd.collectors"

MAX_DUMPS = 64
"""Device dumps of one collector."""

_T = TypeVar("_T")


class DeviceCollector(Protocol):
    """What an entry point names: a class that is called without arguments. Its methods run in threads."""

    def device_dumps(self) -> Iterable[tuple[str, int]]:
        """Return the device dumps that it would make: name, and how many bytes it may hold at most."""

    def collect(self, dump_name: str, data: BinaryIO) -> None:
        """Write one of them to *data*; what it wrote is kept even if it raises then, or is cut off."""


Load = Callable[[], Callable[[], DeviceCollector]]
"""Import the module of a collector, and return its class."""


def registered() -> dict[str, Load]:
    """Return how to load each entry point, by name. Blocks."""
    if not _some_registered():
        return {}
    # Imported late: it needs some forty modules.
    from importlib.metadata import entry_points

    return {entry_point.name: entry_point.load for entry_point in entry_points(group=GROUP)}


def plan(name: str, load: Load) -> tuple[DeviceCollector, list[tuple[str, int]]]:
    """Load a collector, and ask which device dumps it would make. Blocks. Raises CollectorFailed."""
    what = f"collector {shortened(name)}"
    collector: DeviceCollector = _guarded(what, _guarded(what, load))
    # An endless iterator must not fill the memory.
    dumps = _guarded(what, lambda: list(itertools.islice(collector.device_dumps(), MAX_DUMPS + 1)))
    if len(dumps) > MAX_DUMPS:
        raise CollectorFailed(f"{what}: more than {MAX_DUMPS} device dumps", errno.EOVERFLOW)
    for dump in dumps:
        match dump:
            case (str(), int(size)) if size > 0:
                pass
            case _:
                raise CollectorFailed(
                    f"{what}: {shortened(repr(dump))} is not a dump name and a size", errno.EINVAL
                )
    return collector, dumps


def _some_registered() -> bool:
    """Tell whether a package may have entry points of the group.

    On most machines importlib.metadata would find nothing. It reads the same files: those of packages that are
    installed as wheels, as eggs, or in archives.
    """
    for entry in map(Path, sys.path):
        if entry.is_file():
            return True
        for file in entry.glob("*-[iI][nN][fF][oO]/entry_points.txt"):
            with suppress(OSError):
                if GROUP.encode() in file.read_bytes():
                    return True
    return False


class PythonCollector:
    """A device dump of the registered collector *name*, which has *timeout* seconds."""

    def __init__(
        self, name: str, collector: DeviceCollector, timeout: float, abandoned: AbandonedThreads | None = None
    ) -> None:
        """*abandoned* counts the threads of those that were cut off."""
        kind = type(collector)
        ours = kind.__module__.startswith(f"{__package__}.builtin.")
        self.description = shortened(
            f"{name} (built-in)" if ours else f"{name}: {kind.__module__}.{kind.__qualname__}"
        )
        self._collector = collector
        self._timeout = timeout
        self._abandoned = abandoned

    async def collect(self, dump_name: str, buffer: Buffer) -> Collected:
        """Run the collector. When this is cancelled, the collector is cut off; what it wrote so far is returned.

        Raises CollectorFailed or TimedOut when there is nothing to keep.
        """
        what = f"device dump {dump_name}"
        try:
            data = _Data(what, buffer)
        except OSError as error:
            raise _cannot_run(what, error) from error
        problem = await self._run(what, dump_name, data)
        size = await self._cut_off(data)
        problem = data.problem or problem
        if size == 0:
            raise problem or CollectorFailed(f"{what}: the collector wrote nothing")
        return Collected(size, truncated=problem is not None, error=problem)

    async def _run(self, what: str, dump_name: str, data: "_Data") -> VmcoreddError | None:
        """Return why it did not finish by itself."""
        try:
            collecting = run_in_own_thread(_guarded, what, lambda: self._collector.collect(dump_name, data))
            await wait_for(collecting, self._timeout, self._abandoned)
        except TimeoutError:
            return TimedOut(f"{what}: the collector did not finish within {self._timeout:g} s")
        except asyncio.CancelledError:
            return TimedOut(f"{what}: the collector did not finish before the shutdown")
        except VmcoreddError as error:
            return error
        except OSError as error:
            return _cannot_run(what, error)
        return None

    async def _cut_off(self, data: "_Data") -> int:
        # A write may keep it waiting for the lock: what it writes may be mapped from a device that hangs.
        return await wait_for(run_apart(data.cut_off), abandoned=self._abandoned)

    def close(self) -> None:
        """Nothing is held: a thread that hangs keeps its duplicate of the buffer."""


class _Data(io.RawIOBase, BinaryIO):
    """The file that a collector writes to. After :meth:`cut_off` no write reaches the buffer."""

    def __init__(self, what: str, buffer: Buffer) -> None:
        self.problem: VmcoreddError | None = None
        """Why it took no more."""
        self._what = what
        self._offset = buffer.offset
        self._limit = buffer.size
        self._position = 0
        self._open = True
        self._lock = threading.Lock()
        # The buffer may be closed before a thread that hangs comes back.
        self._buffer = os.dup(buffer.fd)

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data: object) -> int:
        """Write all of *data*. Raises TooLarge when the buffer cannot hold it, TimedOut after :meth:`cut_off`."""
        view = memoryview(data).cast("B")  # type: ignore[arg-type]
        with self._lock:
            if not self._open:
                raise TimedOut(f"{self._what}: the time of the collector is over")
            fits = view[: self._limit - self._position]
            try:
                pwrite(self._buffer, fits, self._offset + self._position)
            except OSError as error:
                self.problem = of_storage(error, f"{self._what}: cannot be kept in the spool")
                raise self.problem from error
            self._position += len(fits)
            if len(fits) < len(view):
                self.problem = TooLarge(f"{self._what}: the collector wrote more than {self._limit} bytes")
                raise self.problem
        return len(view)

    def cut_off(self) -> int:
        """Refuse writes from now on; return how many bytes were written. Blocks during a write."""
        with self._lock:
            if self._open:
                self._open = False
                os.close(self._buffer)
            return self._position


def _cannot_run(what: str, error: OSError) -> CollectorFailed:
    code = error.errno or errno.EIO
    return CollectorFailed(f"{what}: cannot run the collector: {error.strerror}", code)


def _guarded(what: str, function: Callable[[], _T]) -> _T:
    """Call a collector's code. Raises CollectorFailed for each exception of it."""
    try:
        return function()
    except BaseException as error:
        # BaseException, because SystemExit would end the thread without a message.
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{PurePath(frame.filename).name}:{frame.lineno}"
        raise CollectorFailed(shortened(f"{what}: {type(error).__name__}: {error} ({where})")) from error
