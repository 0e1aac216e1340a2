# SPDX-License-Identifier: LGPL-2.1-or-later
"""How far a change of a file is, for whoever wants to show it."""

from collections.abc import Callable

Step = Callable[[str, int, int], None]
"""``step(what, total, size)``: of *what*, a verb and its object, *size* more bytes of *total* are done."""


def ignore_steps(what: str, total: int, size: int) -> None:
    """Show nothing."""
