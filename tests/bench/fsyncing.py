# SPDX-License-Identifier: LGPL-2.1-or-later
"""A simple service on dbus-next that keeps what it is given: one file and one fsync for each call.

`python fsyncing.py ADDRESS DIRECTORY`
"""

import asyncio
import os
import sys
import typing

# dbus-next 0.2.3 imports it, and Python 3.15 has it no longer.
vars(typing).setdefault("no_type_check_decorator", lambda decorator: decorator)

from dbus_next.aio import MessageBus  # noqa: E402
from dbus_next.service import ServiceInterface, method  # noqa: E402


class Fsyncing(ServiceInterface):
    """org.vmcoredd1.Fsyncing."""

    def __init__(self, directory: str) -> None:
        super().__init__("org.vmcoredd1.Fsyncing")
        self._directory = directory

    @method()
    def Keep(self, name: "s", size: "u", data: "h") -> None:
        fd = os.open(os.path.join(self._directory, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(fd, os.read(data, size))
            os.fsync(fd)
        finally:
            os.close(fd)
            os.close(data)


async def main(address: str, directory: str) -> None:
    """Serve until it is killed."""
    bus = await MessageBus(bus_address=address, negotiate_unix_fd=True).connect()
    bus.export("/org/vmcoredd1", Fsyncing(directory))
    await bus.request_name("org.vmcoredd1")
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
