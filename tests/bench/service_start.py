# SPDX-License-Identifier: LGPL-2.1-or-later
"""Starts services, ours or simple ones, and sees when they own their name, and what memory they take."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.bench.rig import connected
from tests.lib.caller import NAME
from tests.lib.dbus import Message
from vmcoredd_daemon.bus import Connection

PATIENCE = 60.0
SAMPLE = 0.01
"""Seconds between two looks at the memory of a process."""
_BUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")


def command(module: str, *arguments: str | os.PathLike[str]) -> list[str]:
    """Return the command line of a simple service in this directory."""
    return [sys.executable, str(Path(__file__).with_name(f"{module}.py")), *map(str, arguments)]


@contextmanager
def started(address: str, command: Sequence[str]) -> Iterator[tuple["subprocess.Popen[bytes]", float]]:
    """Start a service; yield it when it owns its name, and the seconds from exec to then."""
    with connected(address) as (runner, bus):
        process, seconds = runner.run(_start(bus, command))
    with process:
        try:
            yield process, seconds
        finally:
            process.kill()


async def _start(bus: Connection, command: Sequence[str]) -> tuple["subprocess.Popen[bytes]", float]:
    owned = asyncio.Event()

    def see(message: Message) -> None:
        if message.member == "NameOwnerChanged" and message.body[0] == NAME and message.body[2]:
            owned.set()

    bus.add_message_handler(see)
    match = f"type='signal',sender='{_BUS[0]}',member='NameOwnerChanged',arg0='{NAME}'"
    await bus.method_call(*_BUS, "AddMatch", "s", [match])
    begun = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)  # noqa: ASYNC220
    try:
        async with asyncio.timeout(PATIENCE):
            await owned.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise
    return process, time.perf_counter() - begun


def memory(process: int, name: str) -> float:
    """Return MiB of a process: Rss or Pss of smaps_rollup, VmHWM, RssAnon of status (proc(5))."""
    file = "smaps_rollup" if name in {"Rss", "Pss"} else "status"
    lines = Path(f"/proc/{process}/{file}").read_text().splitlines()
    (value,) = (line.split()[1] for line in lines if line.startswith(f"{name}:"))
    return int(value) / 1024


@contextmanager
def sampled(value: Callable[[], float]) -> Iterator[list[float]]:
    """Yield what *value* returns again and again; nothing when a process that it looks at ends."""
    seen: list[float] = []
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(SAMPLE):
            # A process that has ended, and is not reaped, has no memory in its status.
            with suppress(FileNotFoundError, ProcessLookupError, ValueError):
                seen.append(value())

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()
