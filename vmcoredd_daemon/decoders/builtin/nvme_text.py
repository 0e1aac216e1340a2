# SPDX-License-Identifier: LGPL-2.1-or-later
"""How values of NVMe are shown to people."""

from collections.abc import Callable
from functools import partial

from ...errors import InvalidDump


def present(data: bytes) -> bytes:
    """Return *data*. Raises InvalidDump if nothing was read: the collector has written zeros, or the bus ones."""
    if not data:
        raise InvalidDump("is empty")
    if data[0] in (0, 0xFF) and data.count(data[0]) == len(data):
        raise InvalidDump(f"was not read: all bytes are {data[0]:#04x}")
    return data


def thousands(value: int) -> str:
    """Return a number with separators."""
    return f"{value:,}"


def byte_size(value: int) -> str:
    """Return bytes, and rounded with the unit that vendors of disks use: ``869,901,824,000 bytes, 869.90 GB``."""
    unit, shown = "", float(value)
    for larger in ("kB", "MB", "GB", "TB", "PB", "EB"):
        if shown < 1000:
            break
        unit, shown = larger, shown / 1000
    exact = f"{value:,} byte{'s' * (value != 1)}"
    return f"{exact}, {shown:,.2f} {unit}" if unit else exact


def _zero_is(text: str, show: Callable[[int], str], value: int) -> str:
    return show(value) if value else text


def zero_or(show: Callable[[int], str], none: str = "not reported") -> Callable[[int], str]:
    """Return a way to show values of which zero has another meaning."""
    return partial(_zero_is, none, show)


def in_unit(unit: str) -> Callable[[int], str]:
    """Return a way to show values with their unit."""
    return lambda value: f"{value:,} {unit}"


def times(factor: int, unit: str) -> Callable[[int], str]:
    """Return a way to show multiples of *factor*."""
    return lambda value: f"{value * factor:,} {unit}"


def plus_one(value: int) -> str:
    """Return the number that a zero-based value stands for."""
    return f"{value + 1:,}"


def celsius(kelvin: int) -> str:
    """Return a temperature: ``354 K (81 C)``."""
    return f"{kelvin} K ({kelvin - 273} C)"


def percent(value: int) -> str:
    """Return a percentage."""
    return f"{value} %"


def data_units(value: int) -> str:
    """Return units of 1000 times 512 bytes."""
    return f"{value:,} ({byte_size(value * 512_000)})"


def oui(value: int) -> str:
    """Return an IEEE OUI Identifier as IEEE writes it."""
    return f"{value >> 16:02x}-{value >> 8 & 0xFF:02x}-{value & 0xFF:02x}"
