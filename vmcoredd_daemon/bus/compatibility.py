# SPDX-License-Identifier: LGPL-2.1-or-later
"""Imports dbus-next 0.2.3 (2021) with what it takes from Python, and Python has removed or deprecated since.

- ``typing.no_type_check_decorator``: Python 3.13 deprecates and 3.15 removes it. dbus-next has no other use for it
  than to keep type checkers from its signatures.
- ``asyncio.iscoroutinefunction()``: Python 3.14 deprecates and 3.16 removes it, for ``inspect`` has the same.

Only dbus-next gets these names, so that its warnings reach no user, and a collector sees Python as it is.
"""

import asyncio
import importlib
import inspect
import sys
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, TypeVar

_T = TypeVar("_T")


def import_dbus_next() -> None:
    """Import dbus-next before anything else does; whoever imports it later gets the same modules."""
    # None means that there is no such module; where GLib is installed, dbus-next would load it.
    with _entry(sys.modules, "gi", None), _entry(vars(typing), "no_type_check_decorator", _same):
        modules = [importlib.import_module(f"dbus_next.{name}") for name in ("service", "aio.message_bus")]
    own = ModuleType("asyncio")
    vars(own).update(vars(asyncio), iscoroutinefunction=inspect.iscoroutinefunction)
    for module in modules:
        vars(module)["asyncio"] = own


@contextmanager
def _entry(names: dict[str, Any], name: str, value: object) -> Iterator[None]:
    """Have *value* at *name* while the context lasts."""
    before = names.get(name, names)
    names[name] = value
    try:
        yield
    finally:
        if before is names:
            del names[name]
        else:
            names[name] = before


def _same(decorator: Callable[..., _T]) -> Callable[..., _T]:
    return decorator
