# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who added a device dump: by the unit and the program, not by a name that only this bus knows."""

import asyncio
import os
from pathlib import Path

import pytest

from tests.lib.bus import private_bus
from vmcoredd_daemon.bus import Connection
from vmcoredd_daemon.service import callers
from vmcoredd_daemon.service.callers import Callers


async def test_caller_is_known_by_its_program(tmp_path: Path) -> None:
    with private_bus(tmp_path) as address:
        bus, caller = await Connection.open(address, 5), await Connection.open(address, 5)
        known = Callers(bus)
        program = Path("/proc/self/comm").read_text().strip()
        described = await known.describe(caller.unique_name or "")
        # In a container, the tests may run in a unit of the machine.
        assert described in {f"{program}[{os.getpid()}]", callers._process(os.getpid())}
        assert program in described
        sender = caller.unique_name or ""
        await caller.close()
        # It is remembered: a name on the bus is never given twice.
        assert await known.describe(sender) == described
        # Another that has ended already is known by its name on the bus.
        assert await Callers(bus).describe(sender) == sender
        await bus.close()


async def test_few_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "MAX_KNOWN", 2)
    with private_bus(tmp_path) as address:
        bus, *others = [await Connection.open(address, 5) for _ in range(6)]
        known = Callers(bus)
        described = await asyncio.gather(*(known.describe(other.unique_name or "") for other in others))
        assert len(set(described)) == 1
        assert len(known._known) == 2
        # Who is not found is asked for again.
        assert await known.describe(":1.999") == ":1.999"
        assert ":1.999" not in known._known
        for connection in (bus, *others):
            await connection.close()


@pytest.mark.parametrize(
    ("cgroup", "described"),
    [
        ("0::/system.slice/acme-dump.service\n", "acme-dump.service (acme)"),
        ("0::/system.slice/acme@0000:03:00.0.service/payload\n", "acme@0000:03:00.0.service (acme)"),
        ("0::/user.slice/user-0.slice/user@0.service/app.slice/run-1.scope\n", "run-1.scope (acme)"),
        ("0::/machine.slice/a.service/b.service\n", "b.service (acme)"),
        ("1:name=systemd:/system.slice/ssh.service\n", "ssh.service (acme)"),
        ("0::/\n", "acme[7]"),
        ("", "acme[7]"),
        ("0::/system.slice/\x1b[31m.service\n", r"\x1b[31m.service (acme)"),
    ],
)
def test_unit_of_a_process(cgroup: str, described: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"comm": "acme\n", "cgroup": cgroup}
    monkeypatch.setattr(callers, "_read", lambda path: files[path.name])
    assert callers._process(7) == described


def test_process_that_has_ended() -> None:
    assert callers._process(1 << 30) == ""
