# SPDX-License-Identifier: LGPL-2.1-or-later
"""A driver's userspace helper in a process of its own: exports a collector and fills its buffer by mmap.

Written against dbus-next alone, as a vendor would: `python -m tests.lib.helper_process ADDRESS NAME SIZE`.
"""

import asyncio
import mmap
import os
import sys
import typing

# dbus-next 0.2.3 imports it, and Python 3.15 has it no longer.
vars(typing).setdefault("no_type_check_decorator", lambda decorator: decorator)

from dbus_next import Message, MessageType, Variant  # noqa: E402
from dbus_next.aio import MessageBus  # noqa: E402
from dbus_next.service import ServiceInterface, method  # noqa: E402


def pattern(size: int) -> bytes:
    """Return what this device's registers hold: byte i is (i * 7 + 3) modulo 256."""
    return bytes((i * 7 + 3) & 0xFF for i in range(256)) * (size // 256 + 1)


class Collector(ServiceInterface):
    """org.vmcoredd1.Collector."""

    def __init__(self) -> None:
        super().__init__("org.vmcoredd1.Collector")

    @method()
    def Collect(self, dump_name: "s", buffer: "h", offset: "t", size: "u") -> "u":
        with mmap.mmap(buffer, offset + size) as memory:
            memory[offset : offset + size] = pattern(size)[:size]
        os.close(buffer)
        return size


async def main(address: str, name: str, size: int) -> int:
    """Add one device dump; return an exit status."""
    bus = await MessageBus(bus_address=address, negotiate_unix_fd=True).connect()
    bus.export("/collector", Collector())
    reply = await bus.call(
        Message(
            destination="org.vmcoredd1",
            path="/org/vmcoredd1",
            interface="org.vmcoredd1.Manager",
            member="AddDeviceDump",
            signature="suoa{sv}",
            body=[name, size, "/collector", {"timeout": Variant("t", 10_000_000)}],
        )
    )
    if reply.message_type is MessageType.ERROR:
        print(f"{reply.error_name}: {reply.body[0]}", file=sys.stderr)
        return 1
    print(reply.body[0])
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
