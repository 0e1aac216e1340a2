# SPDX-License-Identifier: LGPL-2.1-or-later
"""dbus-next's asyncio connection, made safe for a service that must not die.

dbus-next 0.2.3 (2021) is the last release, so its internals, which this package overrides, do not move. Repaired
here:

- a full socket (EAGAIN) ends the connection in dbus-next; here the writer waits until it is writable;
- received file descriptors leak unless a method takes them; here each is owned, not inheritable, and closed,
  in a thread because that may hang;
- sent file descriptors must stay open until the message is out; here the writer has duplicates of its own;
- an unexpected exception sends its traceback to the caller; here only the name of an internal error leaves;
- a cancelled handler never replies, and handler tasks have no owner; here every call is answered by an owned task;
- handlers cannot tell who called; here :data:`SENDER` says it;
- a call whose reply never comes stays in a table for ever; here it is removed with its deadline;
- a lost connection leaves its socket open; here it is closed;
- a bus that hangs, ends or refuses us while we connect stops the loop or is not noticed; here each has a deadline;
- a flood of messages starves everything else; here so many are taken at a time;
- whatever it does not know, or cannot parse, ends the connection; here only that message is refused;
- messages are unpacked whatever their size, and every signature is kept for ever; here both are bounded;
- introspection invents children, of objects whose paths begin alike; here it lists those below a path;
- a signal looks for its object among all, and each value for its type; here both are found at once;
- GLib is loaded where it is installed, 4 MB for an event loop that is not used; here it is not.

So dbus-next is imported here, before anybody else can; others have its names from here.
"""

import importlib
import sys


def _import_without_glib() -> None:
    # None: there is no such module. Only while this is imported, because a collector may want it.
    absent = "gi" not in sys.modules
    if absent:
        sys.modules["gi"] = None  # type: ignore[assignment]
    try:
        importlib.import_module("dbus_next")
    finally:
        if absent:
            del sys.modules["gi"]


_import_without_glib()

from dbus_next import PropertyAccess, Variant  # noqa: E402
from dbus_next.service import dbus_property, method, signal  # noqa: E402

from ..threads.fd_closer import close_fds  # noqa: E402
from .connection import Connection, take_fds  # noqa: E402
from .objects import ServiceInterface  # noqa: E402
from .reply import SENDER, bus_text  # noqa: E402

__all__ = [
    "SENDER",
    "Connection",
    "PropertyAccess",
    "ServiceInterface",
    "Variant",
    "bus_text",
    "close_fds",
    "dbus_property",
    "method",
    "signal",
    "take_fds",
]
