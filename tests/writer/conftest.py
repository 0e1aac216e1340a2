# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the writer takes its device dumps from."""

from collections.abc import Iterator

import pytest

from vmcoredd_daemon.config.limits import Limits
from vmcoredd_daemon.dumps.dump_list import DumpList
from vmcoredd_daemon.dumps.spool import Spool
from vmcoredd_daemon.note import ByteOrder


@pytest.fixture
def dumps() -> Iterator[DumpList]:
    """An empty dump list, in memory."""
    dumps = DumpList(Spool.in_memory(4096, ByteOrder.LITTLE), Limits())
    yield dumps
    dumps.close()
