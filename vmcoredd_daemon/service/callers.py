# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who calls: the unit and the program behind a name on the bus, as journald names who logs."""

import asyncio
import os
import re
from collections import OrderedDict
from pathlib import Path

from ..bus import Connection
from ..bus.dbus_names import DBUS
from ..dumps.buffer import Buffer
from ..dumps.collector import Collected, Collector
from ..errors import BusUnavailable, CallFailed
from ..text import shortened
from ..threads.loop import run_in_own_thread, wait_for

TIMEOUT = 1.0
"""Seconds that the bus, and then /proc, may take to answer; then the caller is known by its name on the bus."""

MAX_KNOWN = 256
"""Callers that are remembered; a name on the bus is never given twice."""

_UNIT = re.compile(r"(?:^|/)([^/]+\.(?:service|scope))(?=/|$)")
_MAX = 4096
"""Bytes of a file in /proc that are read."""


class Callers:
    """The callers on one bus."""

    def __init__(self, bus: Connection) -> None:
        self._bus = bus
        self._known: OrderedDict[str, str] = OrderedDict()

    async def describe(self, sender: str) -> str:
        """Return ``acme.service (acme-helper)``; without a unit the program, else *sender* itself."""
        if sender not in self._known:
            described = await self._look(sender)
            if described == sender:
                # The next call may have more luck.
                return sender
            self._known[sender] = described
            while len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
        return self._known.get(sender, sender)

    async def _look(self, sender: str) -> str:
        try:
            async with asyncio.timeout(TIMEOUT):
                reply = await self._bus.method_call(*DBUS, "GetConnectionUnixProcessID", "s", (sender,))
            if reply.signature != "u":
                return sender
            return await wait_for(run_in_own_thread(_process, reply.body[0]), TIMEOUT) or sender
        except (TimeoutError, BusUnavailable, CallFailed, OSError):
            # It may have ended already, or be in another PID namespace.
            return sender


class IntroducedCollector:
    """A *collector* that a caller brought; when it has run, it is known by the caller's unit and program.

    The call itself does not wait for that: its place in the list, and the limits, are decided before.
    """

    def __init__(self, collector: Collector, callers: Callers, sender: str) -> None:
        self.description = collector.description
        self._collector = collector
        self._callers = callers
        self._sender = sender

    async def collect(self, dump_name: str, buffer: Buffer) -> Collected:
        """Run the collector. Raises CollectorFailed."""
        self.description = await self._callers.describe(self._sender)
        return await self._collector.collect(dump_name, buffer)

    def close(self) -> None:
        """Close the collector."""
        self._collector.close()


def _process(pid: int) -> str:
    """Return the unit and the program of a process, empty if it has ended. Blocks."""
    program, cgroup = (_read(Path("/proc", str(pid), name)) for name in ("comm", "cgroup"))
    # The last one: a unit can be inside of another.
    units = [unit for line in cgroup.splitlines() for unit in _UNIT.findall(line.split(":", 2)[-1])]
    if units and program:
        return shortened(f"{units[-1]} ({program.strip()})")
    return shortened(f"{program.strip()}[{pid}]") if program else ""


def _read(path: Path) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, _MAX).decode(errors="backslashreplace")
    except OSError:
        return ""
    finally:
        os.close(fd)
