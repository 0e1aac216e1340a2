# SPDX-License-Identifier: LGPL-2.1-or-later
"""Log entries for device dumps and vmcores."""

import logging

from ..dumps.device_dump import Change, DeviceDump
from ..journal import Event, record
from ..manifest import State, reason
from ..writer.result import WriteResult


def record_dump(change: Change, dump: DeviceDump) -> None:
    """Log a change of a device dump."""
    fields: dict[str, object] = {"dump_name": dump.name, "collector": dump.collector}
    if change is Change.ADDED:
        fields |= {"size": dump.size, "note_size": dump.note_size, "sha256": dump.sha256}
        if dump.state is State.TRUNCATED:
            why = reason(str(dump.error or ""), dump.name) or "the source has more"
            message = f"Device dump {dump.name} truncated to {dump.size} bytes: {why}"
            record(Event.DUMP_TRUNCATED, logging.WARNING, message, **fields)
        else:
            record(Event.DUMP_ADDED, logging.INFO, f"Device dump {dump.name} added, {dump.size} bytes", **fields)
    elif change is Change.FAILED and dump.error is not None:
        fields |= {"error": dump.error.dbus_name, "errno": dump.error.errno}
        record(Event.DUMP_FAILED, logging.WARNING, f"Collecting failed: {dump.error}", **fields)
    elif change is Change.REMOVED:
        record(Event.DUMP_REMOVED, logging.INFO, f"Device dump {dump.name} removed", **fields)


def record_vmcore(written: WriteResult) -> None:
    """Log that a vmcore was written."""
    fields: dict[str, object] = {"path": written.path, "size": written.size, "dumps": written.device_dumps}
    if written.fallback:
        fields["fallback"] = written.fallback
    level = logging.ERROR if written.error else logging.INFO
    record(Event.VMCORE_WRITTEN, level, written.summary, **fields)
