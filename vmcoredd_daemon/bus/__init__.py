# SPDX-License-Identifier: LGPL-2.1-or-later
"""dbus-next's asyncio connection, made safe for a service that must not end.

dbus-next 0.2.3 (2021) is the last release, so its internals, which this package overrides, do not change. Fixed
here:

- a full socket (EAGAIN) ends the connection in dbus-next; here the writer waits until it is writable;
- received file descriptors leak unless a method takes them; here each is owned, not inheritable, and closed,
  in a thread because closing may hang;
- sent file descriptors must stay open until the message is out; here the writer duplicates them;
- an unexpected exception sends its traceback to the caller; here the caller gets "internal error";
- a cancelled handler never replies, and handler tasks have no owner; here every call is answered by an owned task;
- handlers do not know their caller; here :data:`SENDER` has it;
- a call whose reply never comes stays in a table for ever; here it is removed at its deadline;
- a lost connection leaves its socket open; here it is closed;
- a bus that hangs, ends or refuses us while we connect blocks the loop or goes unnoticed; here it has deadlines;
- a flood of messages starves everything else; here a limited number is handled at a time;
- a message that it does not know, or cannot parse, ends the connection; here only that message is refused;
- messages of any size are unpacked, and every signature is cached for ever; here both are bounded;
- introspection invents children if paths of objects have a common prefix; here it lists those below a path;
- introspection has no names for results and for arguments of signals; here it has;
- a signal searches all objects for its own, and each value looks up its type; here both are direct;
- GLib is loaded if it is installed, 4 MB for an event loop that is not used; here it is not;
- it needs names that newer Pythons no longer have; :mod:`.compatibility` gives it those.

So dbus-next is first imported here, and other modules import its names from here.
"""

from .compatibility import import_dbus_next

import_dbus_next()

from dbus_next import PropertyAccess, Variant  # noqa: E402
from dbus_next.service import dbus_property  # noqa: E402

from .connection import Connection, take_fds  # noqa: E402
from .objects import ServiceInterface, method, signal  # noqa: E402
from .reply import SENDER  # noqa: E402

__all__ = [
    "SENDER",
    "Connection",
    "PropertyAccess",
    "ServiceInterface",
    "Variant",
    "dbus_property",
    "method",
    "signal",
    "take_fds",
]
