# SPDX-License-Identifier: LGPL-2.1-or-later

import io
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz import stream as fuzz
from tests.lib import external_tools as judges
from tests.lib.elf_writer import Core, Load, device_dump, note
from tests.lib.flattened_writer import END, HEADER, flatten, makedumpfile_flat, overlaps, restore, split
from tests.lib.kdump_writer import Kdump, notes
from tests.lib.resources import tmpfs
from vmcoredd_daemon import files
from vmcoredd_daemon.errors import InvalidVmcore, NameInUse, QuotaExceeded, VmcoreddError, WriteFailed
from vmcoredd_daemon.manifest import MANIFEST_NAME
from vmcoredd_daemon.vmcore.attach import stream
from vmcoredd_daemon.vmcore.attach.dump_files import FileAdditions, OpenFile
from vmcoredd_daemon.vmcore.attach.stream import attach_stream
from vmcoredd_daemon.vmcore.inspect.inspect import inspect

DATA = bytes(range(256)) * 40
LOADS = (Load(0x1000, b"\1" * 5000), Load(0x9000, b"\2" * 4096))
VMCOREINFO = note(0, b"OSRELEASE=6.1\n", b"VMCOREINFO\0")


@contextmanager
def additions(*names: str, size: int = len(DATA)) -> Iterator[FileAdditions]:
    fd = os.memfd_create("data")
    try:
        os.write(fd, DATA)
        yield FileAdditions(tuple(OpenFile(name, "FILE", fd, size) for name in names))
    finally:
        os.close(fd)


def run(data: bytes, *names: str) -> tuple[bytes, VmcoreddError | list[str]]:
    sink = io.BytesIO()
    with additions(*names) as more:
        try:
            result: VmcoreddError | list[str] = attach_stream(io.BytesIO(data), sink, more, "FILE")
        except VmcoreddError as error:
            result = error
    return sink.getvalue(), result


def dumps(path: Path) -> list[tuple[str, int | None, bool | None]]:
    with path.open("rb") as file:
        found = inspect(file.fileno(), "FILE")
    assert not found.problems
    return [(dump.name, dump.true_size, dump.verified) for dump in found.device_dumps]


def core(tmp_path: Path, notes: bytes = VMCOREINFO) -> bytes:
    return Core(notes, LOADS).write(tmp_path / "core").read_bytes()


@given(st.lists(st.integers(1, 20_000), max_size=12))
def test_elf_in_any_pieces(tmp_path_factory: pytest.TempPathFactory, cuts: list[int]) -> None:
    directory = tmp_path_factory.getbasetemp()
    whole = core(directory)
    edges = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    pieces = [(a, whole[a:b]) for a, b in pairwise(edges)]
    output, problems = run(flatten(pieces), "nic")
    assert problems == []
    assert not overlaps(split(output))
    path = directory / "restored"
    path.write_bytes(restore(split(output)))
    (directory / "whole").write_bytes(whole)
    assert dumps(path)[0] == ("nic", len(DATA), True)
    assert judges.same_memory(path, directory / "whole")


def test_described_device_dumps_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "out"
    data, problems = run(flatten([(0, core(tmp_path))]), "nic", "disk")
    assert problems == []
    for _ in range(2):
        data, problems = run(data, "nic", "wifi")
        assert problems == []
        path.write_bytes(data)
        assert [dump[0] for dump in dumps(path)] == ["disk", "nic", "wifi", MANIFEST_NAME]


def test_kdump_that_has_been_here_before(source_vmcore: Path, tmp_path: Path) -> None:
    data = makedumpfile_flat(source_vmcore, tmp_path / "flat", "-d", "0").read_bytes()
    output, problems = run(data, "nic")
    assert problems == []
    again, error = run(output, "disk")
    assert again == output
    reason = "FILE: its sub header comes last: device dumps were attached to this stream before; save it, and use"
    assert str(error).startswith(f"{reason} vmcoredd attach (after ")


def test_damaged_manifest_is_kept(tmp_path: Path) -> None:
    whole = core(tmp_path, device_dump(MANIFEST_NAME.encode(), b"{") + VMCOREINFO)
    output, problems = run(flatten([(0, whole)]), "nic")
    assert isinstance(problems, list)
    assert [problem.endswith("; it is kept as it is") for problem in problems] == [True]
    assert output.count(MANIFEST_NAME.encode()) == 2


def split_kdump(source_vmcore: Path, tmp_path: Path) -> bytes:
    data = bytearray(makedumpfile_flat(source_vmcore, tmp_path / "flat", "-l").read_bytes())
    sub_header = data.index(struct.pack(">qq", 4096, 104)) + 16
    data[sub_header + 12] = 1
    return bytes(data)


def vmcoreinfo_behind_the_notes() -> bytes:
    kdump = Kdump(notes() + bytes(64))
    return kdump.but(offset_vmcoreinfo=4096 + 104 + len(notes()) + 8).pack()


def test_what_cannot_be_extended_passes_unchanged(source_vmcore: Path, tmp_path: Path) -> None:
    taken = core(tmp_path, device_dump(b"nic", b"x") + VMCOREINFO)
    full = core(tmp_path, b"".join(device_dump(b"%d" % number, b"x") for number in range(64)) + VMCOREINFO)
    whole = core(tmp_path)
    cases: list[tuple[bytes, type[VmcoreddError], str]] = [
        (b"", InvalidVmcore, "is not flattened"),
        (whole, InvalidVmcore, "is not flattened"),
        (HEADER[:99], InvalidVmcore, "is truncated: it ends at offset 0x63, inside its header"),
        (HEADER, InvalidVmcore, "is truncated: it ends at offset 0x1000"),
        (flatten([]), InvalidVmcore, "ends at offset 0x1010, before its notes are complete"),
        (flatten([(0, b"neither" * 99)]) + b"rest", InvalidVmcore, "is neither an ELF nor"),
        (flatten([(0, whole[:64]), (0x100000, whole)]), InvalidVmcore, "ends at offset"),
        (flatten([(0, b"")]) + whole, InvalidVmcore, "the piece at offset 0x1000 has size 0"),
        (flatten([(0, taken)]), NameInUse, "has a device dump nic that no manifest describes: it is not replaced"),
        (flatten([(0, full)]), QuotaExceeded, "cannot add device dump nic: it would have more than the 64"),
        (split_kdump(source_vmcore, tmp_path), InvalidVmcore, "split is set"),
        (flatten([(0, vmcoreinfo_behind_the_notes())]), InvalidVmcore, "offset_vmcoreinfo is 0x"),
    ]
    for data, kind, message in cases:
        output, error = run(data, "nic")
        assert output == data, message
        assert type(error) is kind, message
        assert str(error).startswith(f"FILE: {message}")


@pytest.mark.parametrize("options", ["-E", "-l"])
def test_truncated_anywhere(source_vmcore: Path, tmp_path: Path, options: str) -> None:
    data = makedumpfile_flat(source_vmcore, tmp_path / "flat", options).read_bytes()
    for end in [5, 4096, 4100, 4112, 4200, 4700, 5500, 9000, 9300, 9400, 50_000, 70_000, 1 << 20, len(data) - 1]:
        output, error = run(data[:end], "nic")
        assert isinstance(error, InvalidVmcore)
        assert "is truncated" in str(error) or "is not flattened" in str(error)
        assert not output.endswith(END)
        if len(output) > end:
            # All memory is there.
            theirs = split(data[: end - 1][: _whole(data, end)] + END)
            passed = {piece for _, piece in split(output + END)}
            assert {piece for _, piece in theirs if len(piece) > 10_000} <= passed
        else:
            assert output == data[:end]


def _whole(data: bytes, end: int) -> int:
    """Return where the last complete piece before *end* ends."""
    place = 4096
    while place + 16 <= end:
        size = struct.unpack_from(">q", data, place + 8)[0]
        if size < 0 or place + 16 + size > end - 1:
            break
        place += 16 + size
    return place


def test_no_space_to_keep_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_PREFIX_MEMORY", 4200)
    monkeypatch.setattr(stream.tempfile, "tempdir", str(tmp_path / "missing"))
    data = flatten([(0, core(tmp_path))])
    output, error = run(data, "nic")
    assert output == data
    assert isinstance(error, WriteFailed)
    assert str(error) == "FILE: no space to keep its start: No such file or directory"


def test_start_kept_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_PREFIX_MEMORY", 4200)
    output, problems = run(flatten([(0, core(tmp_path))]), "nic")
    assert problems == []
    assert len(output) > 20_000


def test_start_kept_where_the_caller_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_PREFIX_MEMORY", 4200)
    monkeypatch.setattr(stream.tempfile, "tempdir", str(tmp_path / "missing"))
    sink = io.BytesIO()
    with additions("nic") as more:
        data = io.BytesIO(flatten([(0, core(tmp_path))]))
        assert attach_stream(data, sink, more, "FILE", directory=tmp_path) == []


def test_start_kept_in_a_tmpfs_leaves_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The capture kernel may have little more than that."""
    monkeypatch.setattr(stream, "_PREFIX_MEMORY", 4200)
    data = flatten([(0, core(tmp_path))])
    with tmpfs(tmp_path / "tmp", 1 << 20) as directory:
        monkeypatch.setattr(stream.tempfile, "tempdir", str(directory))
        assert run(data, "nic")[1] == []
        monkeypatch.setattr(files, "MEMORY_RESERVE", 1 << 60)
        output, error = run(data, "nic")
    assert (output, str(error)) == (data, "FILE: no space to keep its start: No space left on device")


def test_file_that_shrinks(tmp_path: Path) -> None:
    sink = io.BytesIO()
    with additions("nic", size=len(DATA) + 9000) as more:
        problems = attach_stream(io.BytesIO(flatten([(0, core(tmp_path))])), sink, more, "FILE")
    assert problems == [f"device dump nic: FILE ends early, zeros stand for 9000 of {len(DATA) + 9000} bytes"]
    path = tmp_path / "out"
    path.write_bytes(sink.getvalue())
    assert dumps(path)[0] == ("nic", len(DATA), True)


def test_memory_is_bounded(tmp_path: Path) -> None:
    """3 GiB through the filter."""
    script = (
        "import sys\n"
        "from vmcoredd_daemon.vmcore.attach.dump_files import FileAdditions\n"
        "from vmcoredd_daemon.vmcore.attach.dump_files import OpenFile\n"
        "from vmcoredd_daemon.vmcore.attach.stream import attach_stream\n"
        "more = FileAdditions((OpenFile('nic', 'FILE', 3, 64 << 20),))\n"
        "print(attach_stream(sys.stdin.buffer, open('/dev/null', 'wb'), more, 'FILE'))\n"
        "print(*(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))\n"
    )
    whole = core(tmp_path)
    with (tmp_path / "dump").open("wb") as dump:
        dump.truncate(64 << 20)
    command = ["bash", "-c", 'exec "$@" 3< ' + str(tmp_path / "dump"), "-", sys.executable, "-c", script]
    block = struct.pack(">qq", 0, 1 << 20) + bytes(1 << 20)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(flatten([(0, whole)], b""))
        for number in range(3 << 10):
            process.stdin.write(struct.pack(">q", (number + 1) << 20))
            process.stdin.write(memoryview(block)[8:])
        output = process.communicate(END)[0].split(b"\n")
    assert output[0] == b"[]"
    assert int(output[1]) << 10 < 64 << 20


def test_fuzz() -> None:
    assert 100 < fuzz.main(500) < 475
