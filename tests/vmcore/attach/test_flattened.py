# SPDX-License-Identifier: LGPL-2.1-or-later
"""Attaching to flattened files; tests/vmcore/test_matrix.py has makedumpfile's own."""

import fcntl
import os
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.lib.attaching import attach_data, contents, other_notes
from tests.lib.elf_writer import PAGE, Core, Load, device_dump, note
from tests.lib.external_tools import same_memory
from tests.lib.flattened_writer import flatten, overlaps, restore, split
from tests.lib.kdump_writer import MACHINES, VMCOREINFO, Kdump, notes
from tests.lib.resources import open_fds, tmpfs
from tests.lib.vmcore_rig import Rig
from vmcoredd_daemon.errors import (
    Busy,
    InvalidVmcore,
    NameInUse,
    NoSpace,
    QuotaExceeded,
    VmcoreddError,
    WriteFailed,
)
from vmcoredd_daemon.note import ByteOrder, note_size
from vmcoredd_daemon.vmcore.attach.attach import attach
from vmcoredd_daemon.vmcore.inspect.inspect import find


@pytest.fixture
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with Rig(tmp_path_factory.mktemp("target")) as rig:
        yield rig


LOADS = (Load(0x1000, b"\1" * 5000), Load(0x9000, b"\2" * 4096))


def in_pieces(whole: bytes, size: int = 5000) -> bytes:
    edges = [*range(0, len(whole), size), len(whole)]
    return flatten((start, whole[start:end]) for start, end in pairwise(edges))


def elf(directory: Path, area: bytes) -> bytes:
    return Core(area, LOADS).write(directory / "core").read_bytes()


def restored(flat: Path) -> Path:
    path = flat.with_name("restored")
    path.write_bytes(restore(split(flat.read_bytes())))
    return path


@given(
    machine=st.sampled_from([None, *MACHINES]),
    rounds=st.lists(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 150_000), min_size=1), max_size=4),
)
def test_any_sequence_of_attaches(
    tmp_path_factory: pytest.TempPathFactory,
    machine: tuple[bytes, int, str, str] | None,
    rounds: list[dict[str, int]],
) -> None:
    directory = tmp_path_factory.mktemp("any")
    flat = directory / "flat"
    whole = elf(directory, notes()) if machine is None else Kdump(notes(machine[2]), *machine).pack()
    flat.write_bytes(in_pieces(whole))
    others, size, expected = other_notes(flat), flat.stat().st_size, {}
    for sizes in rounds:
        dumps = {name: bytes([size % 256]) * size for name, size in sizes.items()}
        assert not attach_data(flat, **dumps).in_place
        expected |= dumps
        assert contents(flat) == expected
        assert other_notes(flat) == others
        assert not overlaps(split(flat.read_bytes()))
        # No attach leaves anything behind but what counts.
        ours = sum(note_size(len(data), PAGE) for data in expected.values())
        assert flat.stat().st_size <= size + ours + 4 * PAGE
        assert restored(flat).stat().st_size <= len(whole) + ours + 4 * PAGE
        if machine is None:
            assert same_memory(restored(flat), directory / "core")


def test_keeps_owner_mode_attributes_and_links(tmp_path: Path) -> None:
    flat, link = tmp_path / "flat", tmp_path / "link"
    flat.write_bytes(in_pieces(elf(tmp_path, notes())))
    link.symlink_to(flat)
    os.chmod(flat, 0o640)
    os.chown(flat, 12, 34)
    os.setxattr(flat, "user.note", b"kept")
    attach_data(link, nic=b"registers")
    assert link.is_symlink()
    state = flat.stat()
    assert (state.st_mode & 0o7777, state.st_uid, state.st_gid) == (0o640, 12, 34)
    assert os.getxattr(flat, "user.note") == b"kept"
    assert contents(flat) == {"nic": b"registers"}
    assert sorted(os.listdir(tmp_path)) == ["core", "flat", "link", "link.nic"]


def test_locked_file(rig: Rig, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.write_bytes(in_pieces(Kdump(notes()).pack()))
    with flat.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(Busy, match="another process has locked it"):
            attach(str(flat), [rig.dump("nic", b"x")])


def test_ready_notes_get_the_byte_order_of_the_vmcore(rig: Rig, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.write_bytes(in_pieces(Kdump(notes("big"), *MACHINES[3]).pack()))
    altered = rig.dump("disk", b"sectors", ByteOrder.LITTLE)
    os.pwrite(altered.fd, b"!", 64)
    assert attach(str(flat), [rig.dump("nic", b"ours", ByteOrder.LITTLE), altered]).altered == ("disk",)
    with flat.open("rb") as file:
        assert [dump.name for dump in find(file.fileno(), "FILE").device_dumps] == ["nic", "disk"]


MANY = notes("little", *(device_dump(b"dump%d" % number, b"x") for number in range(64)))


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (in_pieces(Kdump(notes(), split=1).pack()), InvalidVmcore, "split is set: it is one part of several"),
        (
            in_pieces(Kdump(notes(), header_version=3).pack()),
            InvalidVmcore,
            "header_version is 3, but notes need 4",
        ),
        (
            in_pieces(Kdump(MANY).pack()),
            QuotaExceeded,
            "cannot add device dump nic: it would have more than the 64",
        ),
        (in_pieces(Kdump(notes("little", device_dump(b"nic", b"x"))).pack()), NameInUse, "has a device dump nic"),
        (
            in_pieces(Kdump(notes() + bytes(64)).but(offset_vmcoreinfo=4096 + 104 + len(notes()) + 8).pack()),
            InvalidVmcore,
            "offset_vmcoreinfo is 0x[0-9a-f]+, outside of all notes",
        ),
        (in_pieces(Kdump(notes()).pack())[:-1], InvalidVmcore, "is truncated: "),
        (in_pieces(Kdump(notes()).pack()[:9000]), InvalidVmcore, ""),
    ],
)
def test_refused_and_left_as_it_is(tmp_path: Path, data: bytes, error: type[VmcoreddError], message: str) -> None:
    flat = tmp_path / "flat"
    flat.write_bytes(data)
    fds, state = open_fds(), flat.stat()
    with pytest.raises(error, match=f"^{re.escape(str(flat))}: {message}"):
        attach_data(flat, nic=b"x")
    assert (flat.read_bytes(), flat.stat().st_ino, open_fds()) == (data, state.st_ino, fds)
    assert sorted(os.listdir(tmp_path)) == ["flat", "flat.nic"]


def test_device_dump_that_cannot_be_read(rig: Rig, tmp_path: Path) -> None:
    flat, dump = tmp_path / "flat", rig.dump("nic", b"x")
    data = in_pieces(Kdump(notes()).pack())
    flat.write_bytes(data)
    os.ftruncate(dump.fd, 70)
    with pytest.raises(WriteFailed, match=f"^{flat}: cannot attach: device dump nic ends early, zeros stand for"):
        attach(str(flat), [dump])
    assert (flat.read_bytes(), os.listdir(tmp_path)) == (data, ["flat"])


def test_no_space_leaves_the_file_as_it_was(rig: Rig, tmp_path: Path) -> None:
    with tmpfs(tmp_path / "small", 256 << 10) as small:
        flat = small / "flat"
        data = in_pieces(Kdump(notes(), pages=b"memory" * 10_000).pack())
        flat.write_bytes(data)
        with pytest.raises(
            NoSpace, match=f"^{flat}: cannot attach; the file is unchanged: No space left on device"
        ):
            attach(str(flat), [rig.dump("nic", b"x" * (150 << 10))])
        assert (flat.read_bytes(), os.listdir(small)) == (data, ["flat"])


@pytest.mark.parametrize("page_size", [PAGE, 1 << 16])
@pytest.mark.parametrize("kdump", [False, True])
def test_pages_are_those_of_the_machine_that_crashed(tmp_path: Path, page_size: int, kdump: bool) -> None:
    info = note(0, VMCOREINFO.replace(b"4096", b"%d" % page_size), b"VMCOREINFO\0")
    whole = Kdump(info, b"aarch64", block_size=page_size).pack() if kdump else elf(tmp_path, info)
    flat = tmp_path / "flat"
    flat.write_bytes(in_pieces(whole))
    attach_data(flat, nic=b"x")
    with flat.open("rb") as file:
        assert [dump.size for dump in find(file.fileno(), "FILE").device_dumps] == [page_size - 64] * 2
