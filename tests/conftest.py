# SPDX-License-Identifier: LGPL-2.1-or-later
"""Real parts for the tests: a message bus, the daemon as a process, a real vmcore."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import settings

from tests.lib.bus import private_bus
from tests.lib.sample import unpack
from tests.lib.service import Service
from tests.lib.tools import require
from vmcoredd_daemon.bus import Connection

# No test fails because its machine is slow.
settings.register_profile("vmcoredd", deadline=None)
settings.load_profile("vmcoredd")

# A shell's background jobs, and nohup, have them ignored, and the programs of the tests would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGQUIT, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)


@pytest.fixture(scope="session")
def source_vmcore(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample; tests that change it copy it first."""
    return unpack(tmp_path_factory.mktemp("sample") / "vmcore")


@pytest.fixture
def tools() -> None:
    """makedumpfile, and crash as the judge of what it writes."""
    require("makedumpfile", "crash")


@pytest.fixture
def bus_address(tmp_path: Path) -> Iterator[str]:
    """A private bus with the rules of the stock system bus."""
    require("dbus-daemon")
    with private_bus(tmp_path) as address:
        yield address


@pytest.fixture
def start_daemon(bus_address: str, source_vmcore: Path, tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Start a daemon with lines of configuration."""
    with ExitStack() as stack:
        started = []

        def start(configuration: str = "", source: Path = source_vmcore, *, dev_mode: bool = True) -> Service:
            service = Service(bus_address, source, tmp_path, configuration, dev_mode=dev_mode)
            started.append(service)
            return stack.enter_context(service).start()

        yield start
    for service in started:
        assert "Traceback" not in service.log()
        assert "Warning" not in service.log()


@pytest.fixture
def daemon(start_daemon: Callable[..., Service]) -> Service:
    """A running daemon with the default configuration."""
    return start_daemon()


@pytest_asyncio.fixture
async def bus(bus_address: str) -> AsyncIterator[Connection]:
    """A connection to the private bus."""
    connection = await Connection.open(bus_address, 5)
    yield connection
    await connection.close()
    # The transport's last callbacks run before the loop is closed.
    await asyncio.sleep(0)
