# SPDX-License-Identifier: LGPL-2.1-or-later
"""The text of a health dump: the messages that drivers build with Linux ``devlink_fmsg_*()``, line by line."""

import errno
import sys
from collections.abc import Iterable, Iterator

from ...text import printable

# linux/devlink.h
DEVLINK_ATTR_FMSG_OBJ_NEST_START = 107
DEVLINK_ATTR_FMSG_PAIR_NEST_START = 108
DEVLINK_ATTR_FMSG_ARR_NEST_START = 109
DEVLINK_ATTR_FMSG_NEST_END = 110
DEVLINK_ATTR_FMSG_OBJ_NAME = 111
DEVLINK_ATTR_FMSG_OBJ_VALUE_TYPE = 112
DEVLINK_ATTR_FMSG_OBJ_VALUE_DATA = 113

NLA_FLAG = 6
NLA_NUL_STRING = 10
NLA_BINARY = 11
"""Types of values, from include/net/netlink.h; others are numbers."""

MAX_DEPTH = 32
"""Levels of nesting."""


class HealthText:
    """Makes lines of a driver's message: names and values in their order, indented by nesting."""

    def __init__(self) -> None:
        self._nests: list[int] = []
        """Steps of indentation of each nest."""
        self._label = ""
        self._type = 0

    def lines(self, message: Iterable[tuple[int, bytes]]) -> Iterator[bytes]:
        """Yield the lines of *message*. Raises OSError (EBADMSG) if it is nested too deep."""
        for kind, value in message:
            if kind in (DEVLINK_ATTR_FMSG_OBJ_NEST_START, DEVLINK_ATTR_FMSG_ARR_NEST_START):
                # Objects in an array have no name.
                if self._label or self._nests:
                    yield self._line("" if self._label else "-")
                self._nest(1 if self._label or self._nests else 0)
                self._label = ""
            elif kind == DEVLINK_ATTR_FMSG_PAIR_NEST_START:
                self._nest(0)
            elif kind == DEVLINK_ATTR_FMSG_NEST_END:
                del self._nests[-1:]
            elif kind == DEVLINK_ATTR_FMSG_OBJ_NAME:
                self._label = f"{c_string(value)}:"
            elif kind == DEVLINK_ATTR_FMSG_OBJ_VALUE_TYPE:
                self._type = number(value)
            elif kind == DEVLINK_ATTR_FMSG_OBJ_VALUE_DATA:
                yield self._line(self._value(value))
                self._label = ""

    def _nest(self, steps: int) -> None:
        if len(self._nests) == MAX_DEPTH:
            raise OSError(errno.EBADMSG, f"netlink: nested deeper than {MAX_DEPTH} levels")
        self._nests.append(steps)

    def _line(self, text: str) -> bytes:
        return f"{'  ' * sum(self._nests)}{' '.join(filter(None, (self._label, text)))}\n".encode()

    def _value(self, value: bytes) -> str:
        if self._type == NLA_NUL_STRING:
            return c_string(value)
        if self._type == NLA_BINARY:
            return value.hex(" ")
        if self._type == NLA_FLAG:
            return "true" if any(value) else "false"
        return str(number(value))


def number(value: bytes) -> int:
    """Return an integer in native byte order."""
    return int.from_bytes(value[:8], sys.byteorder)


def c_string(value: bytes) -> str:
    """Return a C string on one line."""
    return printable(value.partition(b"\0")[0].decode(errors="surrogateescape"))
