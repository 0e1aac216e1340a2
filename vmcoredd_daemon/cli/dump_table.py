# SPDX-License-Identifier: LGPL-2.1-or-later
"""The table of the service's device dumps, and of those that collectors have just made."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..manifest import State
from ..terminal.view import Cell, Mark, Size, View

_GOOD = {State.COMPLETE: True, State.FAILED: False, State.TRUNCATED: False}


def dump_table(view: View, dumps: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of *dumps*, with the fields of :class:`~..client.DumpInfo`."""
    columns = ["NAME", "STATE", "SIZE", "COLLECTOR", "ERROR"]
    # Without a failure the last column would be empty.
    columns = columns if any(dump["error"] for dump in dumps) else columns[:-1]
    rows = [_row(dump)[: len(columns)] for dump in dumps]
    return view.table(columns, rows, shrink=("COLLECTOR", "ERROR", "NAME"), drop=("COLLECTOR", "SIZE"))


def _row(dump: Mapping[str, Any]) -> list[Cell]:
    state = dump["state"]
    shown: Cell = Mark(state, _GOOD[state]) if state in _GOOD else state
    return [dump["name"], shown, Size(dump["size"]), dump["collector"], dump["error"]]
