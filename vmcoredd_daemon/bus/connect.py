# SPDX-License-Identifier: LGPL-2.1-or-later
"""The first steps of a connection: its socket and the authentication."""

import asyncio
import socket
from collections.abc import Iterable, Mapping

from dbus_next import BusType
from dbus_next._private.address import get_bus_address
from dbus_next.errors import InvalidAddressError

from ..errors import BusUnavailable

MAX_AUTH_LINE = 1024
MAX_SHOWN = 160
"""Characters of an address that are shown: the path of a socket has 107 at most."""


def connect_socket(addresses: Iterable[tuple[str, Mapping[str, str]]]) -> socket.socket:
    """Connect to the first address that accepts immediately. Raises the last error."""
    problem: Exception = InvalidAddressError("no unix address")
    for transport, options in addresses:
        if transport != "unix":
            continue
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            connected.connect(options["path"] if "path" in options else f"\0{options['abstract']}")
        except KeyError:
            connected.close()
            problem = InvalidAddressError("a unix address needs path= or abstract=")
        except (OSError, ValueError) as error:
            connected.close()
            problem = error
        else:
            return connected
    raise problem


def unavailable(address: str | None, error: Exception) -> BusUnavailable:
    """Return the error for a bus that cannot be reached; *address* is None for the system bus."""
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    if isinstance(error, TimeoutError):
        reason = "no answer"
    where = address or get_bus_address(BusType.SYSTEM)
    return BusUnavailable(f"cannot connect to the message bus: {where[:MAX_SHOWN]}: {reason[:MAX_SHOWN]}")


async def read_auth_line(connected: socket.socket) -> str:
    """Return a line of the authentication. Raises EOFError if there is none."""
    loop = asyncio.get_running_loop()
    line = b""
    while not line.endswith(b"\r\n"):
        received = await loop.sock_recv(connected, 2)
        if not received or len(line) > MAX_AUTH_LINE:
            raise EOFError("authentication failed")
        line += received
    return line[:-2].decode("ascii", "replace")
