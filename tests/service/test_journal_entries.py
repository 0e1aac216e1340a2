# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is logged of device dumps and vmcores, with the fields that the manual page lists."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from vmcoredd_daemon.dumps.device_dump import Change, DeviceDump
from vmcoredd_daemon.errors import CollectorFailed
from vmcoredd_daemon.journal import FIELDS, Event
from vmcoredd_daemon.manifest import State
from vmcoredd_daemon.service.journal_entries import record_dump, record_vmcore
from vmcoredd_daemon.writer.result import WriteResult

DUMP = DeviceDump(1, "nic0", 100, 4096, "collector", 0, State.COMPLETE, 100)
WRITTEN = WriteResult(Path("vmcore"), 4096, 1)


def event(caplog: pytest.LogCaptureFixture) -> tuple[Event, set[str], int]:
    """Return event, fields and level of the only entry."""
    (entry,) = caplog.records
    names = {name for name in vars(entry) if name.startswith("VMCOREDD_")}
    return Event(vars(entry)["MESSAGE_ID"]), names, entry.levelno


def fields(of: Event) -> set[str]:
    return {f"VMCOREDD_{name.upper()}" for name in FIELDS[of]}


@pytest.mark.parametrize(
    ("change", "dump", "expected", "level"),
    [
        (Change.ADDED, DUMP, Event.DUMP_ADDED, logging.INFO),
        (Change.ADDED, replace(DUMP, state=State.TRUNCATED), Event.DUMP_TRUNCATED, logging.WARNING),
        (Change.FAILED, replace(DUMP, error=CollectorFailed("no")), Event.DUMP_FAILED, logging.WARNING),
        (Change.REMOVED, DUMP, Event.DUMP_REMOVED, logging.INFO),
    ],
)
def test_device_dump(
    caplog: pytest.LogCaptureFixture, change: Change, dump: DeviceDump, expected: Event, level: int
) -> None:
    with caplog.at_level(logging.INFO):
        record_dump(change, dump)
    assert event(caplog) == (expected, fields(expected), level)


@pytest.mark.parametrize(("error", "level"), [("", logging.INFO), ("no room", logging.ERROR)])
@pytest.mark.parametrize("fallback", ["", "no makedumpfile"])
def test_vmcore(caplog: pytest.LogCaptureFixture, error: str, fallback: str, level: int) -> None:
    with caplog.at_level(logging.INFO):
        record_vmcore(replace(WRITTEN, error=error, fallback=fallback))
    expected = fields(Event.VMCORE_WRITTEN) - (set() if fallback else {"VMCOREDD_FALLBACK"})
    assert event(caplog) == (Event.VMCORE_WRITTEN, expected, level)
