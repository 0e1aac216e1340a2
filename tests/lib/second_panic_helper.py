# SPDX-License-Identifier: LGPL-2.1-or-later
"""Stops the service, which then writes the vmcore, and prints its progress on the console; may panic there.

Runs in the capture kernel: `second_panic_helper.py ADDRESS say|panic PERCENT...`.
"""

import asyncio
import subprocess
import sys

from dbus_next import Message, MessageFlag, MessageType
from dbus_next.aio import MessageBus


def say(text: str) -> None:
    """Write a line to the kernel log, and with it to the serial console."""
    with open("/dev/kmsg", "w", encoding="ascii") as log:
        log.write(f"vmcoredd rig: {text}\n")


def panic() -> None:
    """Crash the kernel, immediately."""
    with open("/proc/sysrq-trigger", "w", encoding="ascii") as trigger:
        trigger.write("c")


async def progress(bus: MessageBus) -> tuple[int, int] | None:
    """Return BytesDone and BytesTotal, or None when the service is gone."""
    values = []
    for name in ("BytesDone", "BytesTotal"):
        reply = await bus.call(
            Message(
                destination="org.vmcoredd1",
                path="/org/vmcoredd1",
                interface="org.freedesktop.DBus.Properties",
                member="Get",
                signature="ss",
                body=["org.vmcoredd1.Manager", name],
                # Who asks a service that has stopped would start it again.
                flags=MessageFlag.NO_AUTOSTART,
            )
        )
        if reply.message_type is MessageType.ERROR:
            return None
        values.append(reply.body[0].value)
    return values[0], values[1]


async def main(address: str, what: str, marks: list[int]) -> None:
    """Follow what is written, to the end or to a panic."""
    bus = await MessageBus(bus_address=address).connect()
    subprocess.run(["systemctl", "--no-block", "stop", "vmcoredd.service"], check=True)
    while (state := await progress(bus)) is not None:
        done, total = state
        if total and marks and 100 * done >= marks[0] * total:
            say(f"BytesDone {done} of {total}: {marks.pop(0)} percent")
            if what == "panic":
                panic()
    say(f"the service is gone, without {marks}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], [int(mark) for mark in sys.argv[3:]]))
