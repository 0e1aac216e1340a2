# SPDX-License-Identifier: LGPL-2.1-or-later
"""The ``a{sv}`` of the methods that collect."""

from collections.abc import Mapping
from dataclasses import dataclass

from .bus import Variant
from .errors import InvalidArgs

_SIGNATURES = {"timeout": "t", "wait": "b"}


@dataclass(frozen=True, slots=True)
class Options:
    """What a caller may choose."""

    timeout: float
    """Seconds."""
    wait: bool = True

    @classmethod
    def of(cls, options: Mapping[str, Variant], default_timeout: float) -> "Options":
        """Return the *options* of a method call. Raises InvalidArgs for one that is unknown or of another type."""
        for name, value in options.items():
            if name not in _SIGNATURES:
                raise InvalidArgs(f"unknown option {name[:64]!a}")
            if value.signature != _SIGNATURES[name]:
                raise InvalidArgs(f"option {name} has signature {value.signature!a}, not {_SIGNATURES[name]!a}")
        timeout = options["timeout"].value / 1e6 if "timeout" in options else default_timeout
        return cls(timeout, options["wait"].value if "wait" in options else True)
