# SPDX-License-Identifier: LGPL-2.1-or-later
"""The smallest service on dbus-next: one method that does nothing. `python minimal_service.py ADDRESS`."""

import asyncio
import sys
import typing

# dbus-next 0.2.3 imports it, and Python 3.15 has it no longer.
vars(typing).setdefault("no_type_check_decorator", lambda decorator: decorator)

from dbus_next.aio import MessageBus  # noqa: E402
from dbus_next.service import ServiceInterface, method  # noqa: E402


class Minimal(ServiceInterface):
    """org.vmcoredd1.Minimal."""

    @method()
    def Nothing(self) -> None:
        pass


async def main(address: str) -> None:
    """Serve until it is killed."""
    bus = await MessageBus(bus_address=address).connect()
    bus.export("/org/vmcoredd1", Minimal("org.vmcoredd1.Minimal"))
    await bus.request_name("org.vmcoredd1")
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
