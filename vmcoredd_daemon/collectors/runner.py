# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs registered collectors, all at the same time, and adds each failure to the list of device dumps."""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..dumps.dump_list import DumpList
from ..errors import CollectorFailed, InvalidArgs, NameInUse, TimedOut, VmcoreddError
from ..journal import journal_fields
from ..manifest import State
from ..text import shortened
from ..threads.loop import AbandonedThreads, run_in_own_thread, wait_for

if TYPE_CHECKING:
    from .registry import Planned, Registered

CUT_OFF_MARGIN = 15.0
"""Seconds beyond a collector's own, in which it is ended and its output is read."""

MAX_RUNS = 4
"""Calls that look for collectors at the same time; each takes a thread, and one for each collector."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Begun:
    """The device dumps of one collector."""

    begun: list[int]
    """Numbers of those that began, or failed to."""
    present: list[str] = field(default_factory=list)
    """Names of those that are not made again."""


class CollectorRunner:
    """Runs the collectors of *directories*; each has *timeout* seconds, unless a file or caller says otherwise.

    One *for_service* runs those of the service's start, which go on when the service is told to stop.
    """

    def __init__(
        self, dumps: DumpList, directories: Sequence[Path], timeout: float, *, for_service: bool = False
    ) -> None:
        self._dumps = dumps
        self._directories = directories
        self._timeout = timeout
        self._for_service = for_service
        self._runs = asyncio.Semaphore(MAX_RUNS)

    async def run(
        self,
        names: Collection[str] = (),
        *,
        timeout: float | None = None,
        wait: bool = True,
        present: Collection[str] = (),
    ) -> list[int]:
        """Run the collectors *names*, or all that are enabled; return the numbers of their device dumps.

        Failed ones are among them. Returns when all have finished or, with *wait* false, when all have begun.
        Device dumps that are *present* or in the list are not made again: an earlier daemon of this boot may have
        made some. No caller's limit counts them. Raises InvalidArgs for an unknown name or a masked collector,
        NameInUse when all others are made if a collector in *names* has one that is in the list, Busy, Disabled or
        TimedOut.
        """
        self._dumps.check_enabled()
        if not self._for_service:
            self._dumps.check_open()
        self._dumps.abandoned.check()
        async with self._runs:
            known = await registered(self._directories, self._timeout, self._dumps.abandoned)
            chosen = _choose(known, names)
            for name, collector in known.items():
                if not collector.enabled and collector not in chosen:
                    self._dumps.set_idle(shortened(name), "masked" if collector.masked else "switched off")
            there = {dump.name for dump in self._dumps if dump.state is not State.FAILED}
            present = {*present, *there}
            begun = await asyncio.gather(*(self._begin(collector, timeout, present) for collector in chosen))
        numbers = [number for group in begun for number in group.begun]
        if wait:
            await self._dumps.finished(numbers)
        if names and (taken := [name for group in begun for name in group.present if name in there]):
            raise NameInUse(f"device dump {taken[0]}: the name is in use")
        return numbers

    async def _begin(self, collector: "Registered", timeout: float | None, present: Collection[str]) -> _Begun:
        """Begin the device dumps of one collector, but those that are *present*."""
        name = shortened(collector.name)
        try:
            planned = await plan(collector, timeout, self._timeout)
        except asyncio.CancelledError:
            self._fail(collector, TimedOut(f"collector {name}: did not begin before the shutdown"))
            raise
        except VmcoreddError as error:
            return _Begun([self._fail(collector, error)])
        reason = "" if planned else collector.settings.unmet() or "nothing to collect here"
        self._dumps.set_idle(name, reason)
        if reason:
            log.info("Collector %s has nothing to collect here", name, extra=journal_fields(collector=name))
        new = [dump for dump in planned if dump.dump_name not in present]
        old = [dump.dump_name for dump in planned if dump.dump_name in present]
        return _Begun([await self._add(dump) for dump in new], old)

    async def _add(self, planned: "Planned") -> int:
        try:
            dump = await self._dumps.add_device_dump(
                planned.dump_name,
                planned.size,
                planned.collector,
                timeout=planned.timeout + CUT_OFF_MARGIN,
                wait=False,
                keep_size=planned.keep_size,
                kind=planned.kind,
                for_service=self._for_service,
            )
        except VmcoreddError as error:
            dump = self._dumps.add_failed(shortened(planned.dump_name), planned.collector.description, error)
        return dump.number

    def _fail(self, collector: "Registered", error: VmcoreddError) -> int:
        name = shortened(collector.name)
        return self._dumps.add_failed(name, name, error).number


async def registered(
    directories: Sequence[Path], timeout: float, abandoned: AbandonedThreads | None = None
) -> "dict[str, Registered]":
    """Return the registered collectors by name; *abandoned* counts threads that hang.

    Raises CollectorFailed, or TimedOut after *timeout* seconds.
    """

    def find() -> dict[str, "Registered"]:
        # Imported in the thread, and only when needed, because that takes a while.
        from . import registry

        return registry.find(directories, abandoned)

    try:
        return await wait_for(run_in_own_thread(find), timeout, abandoned)
    except TimeoutError:
        raise TimedOut(f"the collectors could not be read within {timeout:g} s") from None
    except OSError as error:
        raise CollectorFailed(f"the collectors cannot be read: {error.strerror}") from error


async def plan(collector: "Registered", timeout: float | None, default_timeout: float) -> "list[Planned]":
    """Return the device dumps that *collector* would make now.

    Raises as :meth:`.registry.Registered.plan`, TimedOut or CollectorFailed.
    """
    try:
        planning = run_in_own_thread(collector.plan, timeout, default_timeout)
        return await wait_for(planning, default_timeout, collector.abandoned)
    except TimeoutError:
        problem = f"did not name its device dumps within {default_timeout:g} s"
        raise TimedOut(f"collector {shortened(collector.name)}: {problem}") from None
    except OSError as error:
        reason = f"collector {shortened(collector.name)}: cannot be asked for its device dumps: {error.strerror}"
        raise CollectorFailed(reason) from error


async def missing_program(collector: "Registered", timeout: float, *is_program: Callable[[str], bool]) -> str:
    """Return a program of *collector* that *is_program* does not find, or an empty text. Raises TimedOut."""
    looking = run_in_own_thread(collector.settings.missing_program, collector.name, *is_program)
    try:
        return await wait_for(looking, timeout, collector.abandoned)
    except TimeoutError:
        name = shortened(collector.name)
        raise TimedOut(f"collector {name}: its program was not found within {timeout:g} s") from None


def check_known(known: Collection[str], names: Iterable[str]) -> None:
    """Raise InvalidArgs if one of *names* is not that of a *known* collector."""
    for name in names:
        if name not in known:
            raise InvalidArgs(f"there is no collector {name[:80]!a}")


def _choose(known: "dict[str, Registered]", names: Collection[str]) -> "list[Registered]":
    check_known(known, names)
    for name in names:
        if known[name].masked:
            raise InvalidArgs(f"collector {name} is masked")
    return [collector for name, collector in known.items() if (name in names if names else collector.enabled)]
