# SPDX-License-Identifier: LGPL-2.1-or-later
"""Values as people write them, in configuration files and on command lines.

Each function returns the value, or raises ValueError that ends the sentence "... is not".
"""

import re
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

_E = TypeVar("_E", bound=StrEnum)

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_TIME_UNITS = {"ms": 0.001, "min": 60.0, "s": 1.0, "": 1.0}
_BOOLEANS = {
    "yes": True,
    "true": True,
    "on": True,
    "1": True,
    "no": False,
    "false": False,
    "off": False,
    "0": False,
}


def boolean(value: str) -> bool:
    """Return what systemd.syntax(7) calls a boolean."""
    try:
        return _BOOLEANS[value.lower()]
    except KeyError:
        raise ValueError("a boolean (yes, no)") from None


def choice(kind: type[_E]) -> Callable[[str], _E]:
    """Return the function that returns the member of *kind* with a value."""

    def member(value: str) -> _E:
        try:
            return kind(value)
        except ValueError:
            raise ValueError(f"one of {', '.join(kind)}") from None

    return member


def path(value: str) -> Path:
    """Return an absolute path."""
    if not value.startswith("/") or "\0" in value:
        raise ValueError("an absolute path")
    return Path(value)


def size(value: str) -> int:
    """Return bytes; K, M and G are powers of 1024."""
    match = re.fullmatch(r"([0-9]{1,15})([KMG]?)", value)
    if match is None:
        raise ValueError("a size in bytes (with K, M or G)")
    return int(match[1]) * _UNITS[match[2]]


def size_above_0(value: str) -> int:
    """Return bytes, at least one."""
    if size(value) == 0:
        raise ValueError("a size in bytes (with K, M or G), above 0")
    return size(value)


def count(most: int = 65535, least: int = 1) -> Callable[[str], int]:
    """Return the function that returns a number from *least* to *most*."""

    def number(value: str) -> int:
        # int() raises an error of its own at more than 4300 digits.
        if not re.fullmatch("[0-9]{1,20}", value) or not least <= int(value) <= most:
            raise ValueError(f"a number from {least} to {most}")
        return int(value)

    return number


def seconds(value: str) -> float:
    """Return a time in seconds, above 0."""
    match = re.fullmatch(r"([0-9]{0,20}(?:\.[0-9]{0,20})?)\s*(ms|min|s|)", value)
    if match is None or not re.search("[1-9]", match[1]):
        raise ValueError("a time above 0 (in s, or with ms or min)")
    return float(match[1]) * _TIME_UNITS[match[2]]
