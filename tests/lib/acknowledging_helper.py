# SPDX-License-Identifier: LGPL-2.1-or-later
"""A helper that prints what the service answers on the console, which survives everything.

Runs in the capture kernel: `acknowledging_helper.py ADDRESS NAME...`. Size and data follow from the name of
a dump, as in tests/torture/disk.py. Every other one goes through a pipe, the rest by a callback.
"""

import asyncio
import hashlib
import os
import sys

from dbus_next import Message, MessageType
from dbus_next.aio import MessageBus
from dbus_next.service import ServiceInterface, method


def say(text: str) -> None:
    """Write a line to the kernel log, and with it to the serial console."""
    with open("/dev/kmsg", "w", encoding="ascii") as log:
        log.write(f"vmcoredd rig: {text}\n")


def data_of(name: str) -> bytes:
    """Return what the device dump holds."""
    return hashlib.shake_128(name.encode()).digest(int(name.rpartition("-")[2][1:]))


class Collector(ServiceInterface):
    """org.vmcoredd1.Collector."""

    def __init__(self) -> None:
        super().__init__("org.vmcoredd1.Collector")

    @method()
    def Collect(self, dump_name: "s", buffer: "h", offset: "t", size: "u") -> "u":
        data, done = data_of(dump_name), 0
        while done < size:
            done += os.pwrite(buffer, data[done:], offset + done)
        os.close(buffer)
        return size


def call(member: str, signature: str, body: list, fds: list) -> Message:
    """Return a call of the service."""
    path, interface = "/org/vmcoredd1", "org.vmcoredd1.Manager"
    return Message(
        destination="org.vmcoredd1",
        path=path,
        interface=interface,
        member=member,
        signature=signature,
        body=body,
        unix_fds=fds,
    )


async def add(bus: MessageBus, name: str, *, piped: bool) -> None:
    """Add one device dump, and say what comes of it."""
    data = data_of(name)
    if piped:
        reading, writing = os.pipe()
        feeding = asyncio.create_task(asyncio.to_thread(feed, writing, data))
        reply = await bus.call(call("AddDeviceDumpFd", "suha{sv}", [name, len(data), 0, {}], [reading]))
        os.close(reading)
        await feeding
    else:
        reply = await bus.call(call("AddDeviceDump", "suoa{sv}", [name, len(data), "/collector", {}], []))
    if reply.message_type is MessageType.ERROR:
        say(f"refused {name}: {reply.error_name}")
    else:
        say(f"acknowledged {name} {hashlib.sha256(data).hexdigest()}")


def feed(fd: int, data: bytes) -> None:
    """Write to a pipe; a service that refuses the device dump does not read it."""
    with os.fdopen(fd, "wb", buffering=0) as pipe:
        try:
            while data:
                data = data[pipe.write(data) :]
        except BrokenPipeError:
            pass


async def main(address: str, names: list[str]) -> None:
    """Add device dumps one after the other."""
    bus = await MessageBus(bus_address=address, negotiate_unix_fd=True).connect()
    bus.export("/collector", Collector())
    for number, name in enumerate(names):
        await add(bus, name, piped=bool(number % 2))
    say("all are answered")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
