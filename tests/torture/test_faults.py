# SPDX-License-Identifier: LGPL-2.1-or-later
"""Some of the failures that ``make torture`` injects: at least one for each fault that was found by them."""

import itertools
import re
from errno import EAGAIN, EINTR, EINVAL, EIO, EMFILE, ENOSPC, EROFS

import pytest

from tests.lib.tools import require
from tests.torture.faults import bench, cases, close_cases, memory_cases
from tests.torture.rig import Mode

NOTE = r"SPOOL/\S+/#"
Chosen = tuple[str, Mode, int, str]
"""The call, what happens to it, and what the caller is answered."""

ADD: list[Chosen] = [
    (
        "fcntl ?$",
        Mode.FAIL,
        EMFILE,
        "CollectorFailed: device dump new-1-c9000: cannot read its data: Too many open files",
    ),
    (
        f"stat {NOTE}",
        Mode.FAIL,
        EIO,
        "WriteFailed: device dump new-1-c9000: cannot be kept in the spool: Input/output error",
    ),
    (f"fsync {NOTE}", Mode.FAIL, EINVAL, "done"),
    ("link SPOOL", Mode.KILL_AFTER, 0, "killed"),
]
PIPE: list[Chosen] = [
    # What may hang is read by a thread of its own.
    ("pthread_create ?$", Mode.FAIL, EAGAIN, "cannot read its data: Resource temporarily unavailable"),
]
WRITE: list[Chosen] = [
    (f"read {NOTE}", Mode.FAIL, EIO, "done"),
    (r"mkdir /target/[^./]+$", Mode.FAIL, EINVAL, "done vmcore"),
    (r"statvfs /target/[^./]+$", Mode.FAIL, EIO, "done vmcore"),
    (r"fsync .*/vmcore-incomplete$", Mode.FAIL, ENOSPC, "done vmcore-incomplete"),
    # That of the manifest.
    ("memfd_create ?$", Mode.FAIL, EMFILE, "done vmcore"),
    ("pthread_create ?$", Mode.FAIL, EAGAIN, "done vmcore"),
    ("rename .*/vmcore$", Mode.KILL, 0, "killed"),
]
REMOVE: list[Chosen] = [(r"fsync SPOOL/\S+$", Mode.FAIL, EIO, "done")]
OPEN: list[Chosen] = [("fcntl ?$", Mode.FAIL, EMFILE, "refused: org.freedesktop.DBus.Error.IOError: Too many")]
CALLBACK: list[Chosen] = [("fcntl ?$", Mode.FAIL, EMFILE, "cannot send it the buffer: Too many open files")]
STOP: list[Chosen] = [("rename .*/vmcore$", Mode.FAIL, EIO, "exit status 1, log: ")]
START: list[Chosen] = [
    (r"read SPOOL/\S+/000001.note", Mode.FAIL, EIO, "starts"),
    (r"read SPOOL/\S+/000001.note", Mode.SHORT, 0, "starts"),
    (r"readdir SPOOL/\S+$", Mode.FAIL, EIO, "starts in memory"),
]

RESTART: list[Chosen] = [
    # Whether it can be written says nothing of what can be read.
    (r"open SPOOL/[^/]+/\.$", Mode.FAIL, EROFS, "exit status 0"),
    (r"fsync SPOOL$", Mode.FAIL, EIO, "exit status 0"),
    (r"readdir SPOOL/\S+$", Mode.FAIL, EIO, "exit status 1"),
    (r"read SPOOL/\S+/000001.note", Mode.FAIL, EIO, "exit status 1"),
    (r"close SPOOL/\S+/000001.note", Mode.FAIL, EIO, "exit status 0"),
    # Room that is kept free, see write_job.py.
    (r"close /target/[^./]+/#\d+", Mode.FAIL, EIO, "exit status 0"),
]
KDUMP: list[Chosen] = [
    (r"fork", Mode.FAIL, EAGAIN, "done vmcore"),
    (r"flock /target/", Mode.FAIL, EINTR, "done vmcore"),
    (r"rename .*/vmcore$", Mode.FAIL, EIO, "done vmcore"),
    (r"rename .*/vmcore$", Mode.KILL, 0, "killed"),
]


async def test_steps_that_make_it_durable() -> None:
    """What a power cut leaves follows from the order: data, then name, then the directory, then the answer."""
    require("dbus-daemon", "gcc")
    spool = r"/target/\.vmcoredd-spool/[^/]+"
    crash = r"/target/[^./]+"
    async with bench() as one:
        add, stop = await one.count("add file"), await one.count("stop")
    in_order(add, rf"write {spool}/#", rf"fsync {spool}/#", rf"link {spool}/\d+\.note", rf"fsync {spool}$")
    parts = [rf"write {crash}/vmcore-incomplete", rf"fsync {crash}/vmcore-incomplete", rf"rename {crash}/vmcore$"]
    in_order(stop, *parts, rf"fsync {crash}$", rf"unlink {spool}/\d+\.note")
    # It may not start, or never begin: no other waits for the one that has the disk work (page_cache.py). What the
    # other two do, to clear the spool and to close the device dumps, the executor does then.
    assert stop.count("pthread_create") == 3


def in_order(steps: list[str], *patterns: str) -> None:
    """See that the last step of each pattern comes before the first of the next."""
    found = [[number for number, step in enumerate(steps) if re.match(pattern, step)] for pattern in patterns]
    assert all(found)
    assert all(before[-1] < after[0] for before, after in itertools.pairwise(found))


@pytest.mark.parametrize(
    ("scenario", "chosen"),
    [
        ("add file", ADD),
        ("add pipe", PIPE),
        ("add callback", CALLBACK),
        ("open", OPEN),
        ("write", WRITE),
        ("remove", REMOVE),
        ("stop", STOP),
        ("start", START),
        ("restart", RESTART),
        ("write kdump", KDUMP),
    ],
)
async def test_failures(scenario: str, chosen: list[Chosen]) -> None:
    require("dbus-daemon", "gcc", *(["makedumpfile"] if "kdump" in scenario else []))
    async with bench() as one:
        possible = list(cases(scenario, await one.count(scenario)))
        possible += close_cases(scenario, await one.count(scenario, "close"))
        for call, mode, error, answer in chosen:
            pattern = call.replace("SPOOL", r"/target/\.vmcoredd-spool")
            case = next(
                case
                for case in possible
                if re.match(pattern, case.call) and case.mode is mode and case.error == error and not case.lasting
            )
            outcome = await one.run(case)
            assert outcome.problems == [], f"{outcome.line()}\n{outcome.log}"
            assert answer in outcome.answer, outcome.line()
            assert outcome.hit


@pytest.mark.parametrize(("scenario", "answer"), [("remove", "done"), ("stop", "exit status 0")])
async def test_threads_without_memory_for_their_first_frame(scenario: str, answer: str) -> None:
    """Such a thread ends before any of its code has run: no future is settled by it."""
    require("dbus-daemon", "gcc")
    async with bench() as one:
        steps = await one.count(scenario, "memory")
        for case in (case for case in memory_cases(scenario, steps) if case.call.startswith("mmap")):
            outcome = await one.run(case)
            assert outcome.problems == [], f"{outcome.line()}\n{outcome.log}"
            assert outcome.answer.startswith(answer), outcome.line()
