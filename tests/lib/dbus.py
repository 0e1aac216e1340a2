# SPDX-License-Identifier: LGPL-2.1-or-later
# ruff: noqa: I001
"""dbus-next for the tests: our bus imports it first, with the names that it uses and this Python may lack."""

import vmcoredd_daemon.bus  # noqa: F401
from dbus_next import DBusError, Message, MessageFlag, MessageType, Variant
from dbus_next._private.marshaller import Marshaller
from dbus_next.aio import MessageBus
from dbus_next.service import ServiceInterface, method
from dbus_next.signature import SignatureTree, SignatureType

__all__ = [
    "DBusError",
    "Marshaller",
    "Message",
    "MessageBus",
    "MessageFlag",
    "MessageType",
    "ServiceInterface",
    "SignatureTree",
    "SignatureType",
    "Variant",
    "method",
]
