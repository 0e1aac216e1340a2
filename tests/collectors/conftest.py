# SPDX-License-Identifier: LGPL-2.1-or-later
"""A buffer for the data of one device dump."""

import gc
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.lib.resources import open_fds
from vmcoredd_daemon.dumps.buffer import Buffer
from vmcoredd_daemon.dumps.spool import Spool
from vmcoredd_daemon.note import ByteOrder


@pytest_asyncio.fixture
async def buffer(request: pytest.FixtureRequest) -> AsyncIterator[Buffer]:
    """A buffer in memory, of the SIZE that the test's module has; the test leaves no descriptor open."""
    buffer = await Spool.in_memory(4096, ByteOrder.LITTLE).create("nic0", request.module.SIZE)
    # What an earlier test left to the collector of garbage would be closed in between.
    gc.collect()
    before = open_fds()
    yield buffer
    assert open_fds() == before
    buffer.close()
