# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every state that a power cut during an attach can leave: the old device dumps or the new ones, and readable.

What is written is recorded as it happens. Up to the last fsync all of it is on disk; of what was written since,
any part may be, down to a sector, in any order.
"""

import os
import random
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.lib.attaching import attach_data, contents, other_notes
from tests.lib.elf_writer import PAGE, Core, Load
from tests.lib.external_tools import crash, makedumpfile, osrelease
from tests.lib.kdump_writer import MACHINES, Kdump, notes

SECTOR = 512
WRITE, TRUNCATE, FSYNC = "write", "truncate", "fsync"
Operation = tuple[str, int, bytes]


class Recorder:
    """Lets through what is done to one file, and keeps it."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.operations: list[Operation] = []
        self._inode = path.stat().st_ino
        for name in ("pwrite", "ftruncate", "fsync", "copy_file_range"):
            monkeypatch.setattr(os, name, self._recorded(getattr(os, name), getattr(self, f"_{name}")))

    def _recorded(self, call: Any, keep: Any) -> Any:
        def recorded(*arguments: Any) -> Any:
            result = call(*arguments)
            keep(result, *arguments)
            return result

        return recorded

    def _keep(self, fd: int, *operation: Any) -> None:
        if os.fstat(fd).st_ino == self._inode:
            self.operations.append(operation)

    def _pwrite(self, size: int, fd: int, data: bytes, offset: int) -> None:
        self._keep(fd, WRITE, offset, bytes(data[:size]))

    def _ftruncate(self, _: None, fd: int, size: int) -> None:
        self._keep(fd, TRUNCATE, size, b"")

    def _fsync(self, _: None, fd: int) -> None:
        self._keep(fd, FSYNC, 0, b"")

    def _copy_file_range(self, size: int, _: int, fd: int, __: int, ___: int, offset: int) -> None:
        self._keep(fd, WRITE, offset, os.pread(fd, size, offset))


def apply(data: bytearray, operation: Operation) -> None:
    kind, offset, written = operation
    if kind == TRUNCATE:
        del data[offset:]
        data.extend(bytes(offset - len(data)))
    elif kind == WRITE:
        data.extend(bytes(max(0, offset - len(data))))
        data[offset : offset + len(written)] = written


def sectors(operation: Operation) -> list[Operation]:
    """Return the parts of an operation that a disk does completely or not at all: sectors."""
    kind, offset, written = operation
    if kind != WRITE:
        return [operation]
    cuts = [0, *range(SECTOR - offset % SECTOR, len(written), SECTOR), len(written)]
    return [(WRITE, offset + a, written[a:b]) for a, b in pairwise(cuts)]


def subsets(pending: list[Operation], chance: random.Random) -> Iterator[list[Operation]]:
    """Yield what may be on disk of operations that were not synced."""
    for count in range(len(pending) + 1):
        yield pending[:count]
        yield pending[count:]
        yield pending[:count][::-1]
    torn = [part for operation in pending for part in sectors(operation)]
    for _ in range(6):
        yield chance.sample(torn, chance.randint(0, len(torn)))


def states(before: bytes, operations: list[Operation], chance: random.Random) -> Iterator[tuple[int, bytes]]:
    """Yield the file after a power cut, with the number of fsyncs that were done."""
    data, pending, synced = bytearray(before), [], 0
    for operation in [*operations, (FSYNC, 0, b"")]:
        if operation[0] != FSYNC:
            pending.append(operation)
            continue
        for subset in subsets(pending, chance):
            cut = bytearray(data)
            for part in subset:
                apply(cut, part)
            yield synced, bytes(cut)
        for part in pending:
            apply(data, part)
        pending, synced = [], synced + 1


def record(vmcore: Path, dumps: dict[str, bytes]) -> tuple[bytes, list[Operation]]:
    """Attach; return the file as it was, and what was done to it."""
    before = vmcore.read_bytes()
    with pytest.MonkeyPatch.context() as monkeypatch:
        recorder = Recorder(vmcore, monkeypatch)
        attach_data(vmcore, **dumps)
    # What was recorded is what happened: the file comes out of it.
    data = bytearray(before)
    for operation in recorder.operations:
        apply(data, operation)
    assert bytes(data) == vmcore.read_bytes()
    return before, recorder.operations


SCENARIOS = [
    ({}, {"nic": b"registers"}, 2),
    ({"nic": b"old" * 2000}, {"disk": b"new" * 3000}, 5),
    ({"nic": b"old" * 9000, "disk": b"d"}, {"nic": b"small"}, 5),
    ({"nic": b"old"}, {"nic": b"large" * 9000}, 5),
]


@pytest.mark.parametrize(
    "machine", [MACHINES[0], MACHINES[2], MACHINES[5], MACHINES[6]], ids=lambda m: m[0].decode()
)
@pytest.mark.parametrize(("earlier", "now", "fsyncs"), SCENARIOS)
def test_kdump(
    tmp_path: Path,
    machine: tuple[bytes, int, str, str],
    earlier: dict[str, bytes],
    now: dict[str, bytes],
    fsyncs: int,
) -> None:
    vmcore = Kdump(notes(machine[2]), *machine).write(tmp_path / "vmcore")
    if earlier:
        attach_data(vmcore, **earlier)
    others = other_notes(vmcore)
    before, operations = record(vmcore, now)
    assert [operation[0] for operation in operations].count(FSYNC) == fsyncs
    seen = check(tmp_path / "cut", before, operations, earlier, now, others)
    assert seen == {0: {"old"}, 1: {"old", "new"}} | {count: {"new"} for count in range(2, fsyncs + 1)}


def test_elf_in_place(tmp_path: Path) -> None:
    core = Core(notes(), (Load(0x1000, b"memory", offset=32 * PAGE),))
    vmcore, earlier, now = core.write(tmp_path / "vmcore"), {"nic": b"old"}, {"nic": b"new" * 3000}
    attach_data(vmcore, **earlier)
    others = other_notes(vmcore)
    before, operations = record(vmcore, now)
    seen = check(tmp_path / "cut", before, operations, earlier, now, others)
    assert seen == {0: {"old"}, 1: {"old", "new"}, 2: {"new"}, 3: {"new"}}


def check(
    cut: Path,
    before: bytes,
    operations: list[Operation],
    earlier: dict[str, bytes],
    now: dict[str, bytes],
    others: list[tuple[bytes, bytes]],
) -> dict[int, set[str]]:
    """Return what the device dumps are, old or new, by the number of fsyncs done. Anything else fails."""
    seen: dict[int, set[str]] = {}
    for synced, data in set(states(before, operations, random.Random(1))):
        cut.write_bytes(data)
        found = contents(cut)
        assert found in (earlier, earlier | now), synced
        assert other_notes(cut) == others
        seen.setdefault(synced, set()).add("old" if found == earlier else "new")
    return seen


def test_crash_reads_what_a_power_cut_leaves(source_vmcore: Path, tmp_path: Path) -> None:
    vmcore, cut = makedumpfile(source_vmcore, tmp_path / "vmcore", "-c", "-d", "31"), tmp_path / "cut"
    attach_data(vmcore, nic=b"old")
    before, operations = record(vmcore, {"disk": b"new" * 20_000})
    found = set()
    for synced, data in random.Random(1).sample(list(states(before, operations, random.Random(2))), 8):
        cut.write_bytes(data)
        names = [dump.name for dump in crash(cut)]
        assert names in (["nic", "vmcoredd_manifest"], ["nic", "disk", "vmcoredd_manifest"]), synced
        assert osrelease(cut).startswith("6.1.0")
        found.add(len(names))
    assert found == {2, 3}


@pytest.mark.parametrize("fails_at", range(1, 6))
def test_disk_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int) -> None:
    vmcore = Kdump(notes()).write(tmp_path / "vmcore")
    attach_data(vmcore, nic=b"old")
    before, calls, fsync = vmcore.read_bytes(), 0, os.fsync

    def failing(fd: int) -> None:
        nonlocal calls
        calls += 1
        if calls == fails_at:
            raise OSError(5, "Input/output error")
        fsync(fd)

    monkeypatch.setattr(os, "fsync", failing)
    copy = shutil.copy(vmcore, tmp_path / "copy")
    if fails_at <= 2:
        with pytest.raises(Exception, match="cannot attach; the file is unchanged: Input/output error"):
            attach_data(vmcore, disk=b"new")
        assert vmcore.read_bytes() == before
    else:
        (warning,) = attach_data(vmcore, disk=b"new").warnings
        assert warning == "is longer than necessary: Input/output error"
        assert contents(vmcore) == {"nic": b"old", "disk": b"new"}
    assert contents(Path(copy)) == {"nic": b"old"}
