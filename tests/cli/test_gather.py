# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is taken of the process that gathers device dumps; all else is in test_core_collector.py."""

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.lib.resources import open_fds
from vmcoredd_daemon.cli.core_collector.gather import (
    MAX_TEXT,
    GatheredDumps,
    _take_dump,
    check,
    send_dump,
    send_failure,
)
from vmcoredd_daemon.errors import InvalidArgs, InvalidVmcore
from vmcoredd_daemon.manifest import Failure, ManifestDump
from vmcoredd_daemon.note import pack_vmcoredd_header, system_byteorder, system_page_size

PAGE = system_page_size()
RECORD = ManifestDump("nic", 9, 9, "0" * 64, "descriptor", "complete", 1, 2)


@pytest.fixture
def fd() -> Iterator[int]:
    """A whole note of one page."""
    fd = os.memfd_create("note")
    os.pwrite(fd, pack_vmcoredd_header(b"nic", PAGE, system_byteorder()), 0)
    os.ftruncate(fd, PAGE)
    yield fd
    os.close(fd)


def test_whole_note(fd: int) -> None:
    check(RECORD, PAGE, fd)


@pytest.mark.parametrize(
    ("record", "note_size", "problem"),
    [
        (replace(RECORD, name=""), PAGE, "the dump name is empty"),
        (replace(RECORD, name="x" * 44), PAGE, "44 bytes"),
        (replace(RECORD, name="hba"), PAGE, "incomplete"),
        (replace(RECORD, size=-1), PAGE, "cannot hold"),
        (replace(RECORD, size=PAGE - 63), PAGE, "cannot hold"),
        (RECORD, PAGE + 1, "cannot hold"),
        (RECORD, 0, "cannot hold"),
        (RECORD, 2 * PAGE, "incomplete"),
    ],
)
def test_note_that_is_not_what_is_said_of_it(fd: int, record: ManifestDump, note_size: int, problem: str) -> None:
    with pytest.raises((InvalidArgs, InvalidVmcore), match=problem):
        check(record, note_size, fd)


def test_bad_note_is_a_failure_and_is_closed(fd: int) -> None:
    sent = []
    send_dump(lambda kind, content, fd: sent.append((content, fd)), RECORD, 2 * PAGE, os.dup(fd))
    before, gathered = open_fds(), GatheredDumps()
    ((content, copy),) = sent
    _take_dump(content, [copy], gathered)
    assert open_fds() == before - 1
    assert (gathered.notes, [failed.name for failed in gathered.failures]) == ([], ["nic"])


def test_descriptor_that_did_not_come_is_a_failure() -> None:
    sent = []
    send_dump(lambda kind, content, fd: sent.append(content), RECORD, PAGE, -1)
    gathered = GatheredDumps()
    _take_dump(sent[0], [], gathered)
    assert [failed.name for failed in gathered.failures] == ["nic"]


def test_long_texts_are_cut() -> None:
    sent = []
    send_failure(lambda kind, content: sent.append(content), Failure("n" * 10**6, "", "", "m" * 10**6, 0))
    assert {len(sent[0]["name"]), len(sent[0]["message"])} == {MAX_TEXT}
