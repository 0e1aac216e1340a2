# SPDX-License-Identifier: LGPL-2.1-or-later
"""Attaching to finished vmcores; tests/vmcore/test_matrix.py has makedumpfile's own, and the judges."""

import fcntl
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.lib.attaching import attach_data, contents, other_notes, padded
from tests.lib.elf_writer import PAGE, Core, Load, device_dump, note
from tests.lib.external_tools import crash
from tests.lib.kdump_writer import MACHINES, VMCOREINFO, Kdump, notes
from tests.lib.resources import open_fds, tmpfs
from tests.lib.tools import require
from tests.lib.vmcore_rig import Rig, load_bytes
from vmcoredd_daemon.errors import Busy, InvalidVmcore, NameInUse, NoSpace, QuotaExceeded, VmcoreddError
from vmcoredd_daemon.manifest import MANIFEST_NAME, Failure, Manifest, ManifestSource, load
from vmcoredd_daemon.note import ByteOrder, note_size
from vmcoredd_daemon.vmcore.attach.attach import attach, attach_files
from vmcoredd_daemon.vmcore.attach.dump_files import NamedFile
from vmcoredd_daemon.vmcore.image import file_image
from vmcoredd_daemon.vmcore.inspect.inspect import find, read_manifest
from vmcoredd_daemon.vmcore.inspect.verify import verify
from vmcoredd_daemon.vmcore.kdump import read_header


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: f"{machine[0].decode()}-{machine[2]}")
def test_every_machine(tmp_path: Path, machine: tuple[bytes, int, str, str]) -> None:
    byteorder = machine[2]
    own = Kdump(notes(byteorder, device_dump(b"kernel", b"k", byteorder)), *machine)
    vmcore = own.write(tmp_path / "vmcore")
    others = other_notes(vmcore)
    for dumps in ({"nic": b"registers"}, {"disk": b"d" * 10_000}, {"nic": b"new"}):
        attach_data(vmcore, **dumps)
        with vmcore.open("rb") as file:
            header = read_header(file_image(file.fileno(), "FILE"))
            vmcoreinfo = os.pread(file.fileno(), header.size_vmcoreinfo, header.offset_vmcoreinfo)
        assert vmcoreinfo == VMCOREINFO
        inside = header.offset_note <= header.offset_vmcoreinfo < header.offset_note + header.size_note
        # libkdumpfile knows a packed sub header by a VMCOREINFO before the bitmaps; makedumpfile wants it inside.
        assert inside == (machine[3] != "packed")
        assert header.offset_note % PAGE == 0
        assert other_notes(vmcore) == others
    assert contents(vmcore) == padded({"kernel": b"k"}) | {"disk": b"d" * 10_000, "nic": b"new"}
    assert list(contents(vmcore)) == ["kernel", "disk", "nic"]
    # The three fields of the sub header, and what is behind the file's old end: nothing else is another.
    before, after = own.pack(), vmcore.read_bytes()
    changed = {i for i in range(len(before)) if before[i] != after[i]}
    assert changed
    assert min(changed) >= 4096 + 20
    assert max(changed) < 4096 + 64


@given(
    machine=st.sampled_from(MACHINES),
    rounds=st.lists(
        st.dictionaries(st.sampled_from("abcd"), st.binary(min_size=1, max_size=9000), min_size=1), max_size=4
    ),
)
def test_any_sequence_of_attaches(
    tmp_path_factory: pytest.TempPathFactory,
    machine: tuple[bytes, int, str, str],
    rounds: list[dict[str, bytes]],
) -> None:
    vmcore = Kdump(notes(machine[2]), *machine).write(tmp_path_factory.mktemp("any") / "vmcore")
    size, expected = vmcore.stat().st_size, {}
    for dumps in rounds:
        attach_data(vmcore, **dumps)
        expected |= dumps
        assert contents(vmcore) == expected
        # No attach leaves anything behind but what counts.
        ours = sum(note_size(len(data), PAGE) for data in expected.values())
        assert vmcore.stat().st_size <= -(-size // PAGE) * PAGE + ours + 2 * PAGE


def test_ready_notes_with_a_manifest_as_the_daemon_has_them(rig: Rig, tmp_path: Path) -> None:
    vmcore = Kdump(notes("little", device_dump(b"nic", b"kernel"))).write(tmp_path / "vmcore")
    attached = attach(str(vmcore), [rig.dump("nic", b"ours"), rig.dump(MANIFEST_NAME, b"{}")])
    assert (attached.in_place, attached.altered, attached.warnings) == (True, (), ())
    with vmcore.open("rb") as file:
        names = [dump.name for dump in find(file.fileno(), "FILE").device_dumps]
    assert names == ["nic", "nic", MANIFEST_NAME]


def test_ready_notes_get_the_byte_order_of_the_vmcore(rig: Rig, tmp_path: Path) -> None:
    vmcore = Kdump(notes("big"), *MACHINES[3]).write(tmp_path / "vmcore")
    attach(str(vmcore), [rig.dump("nic", b"ours", ByteOrder.LITTLE)])
    with vmcore.open("rb") as file:
        assert [dump.name for dump in find(file.fileno(), "FILE").device_dumps] == ["nic"]


def test_data_that_changed_since_it_was_taken_is_told(rig: Rig, tmp_path: Path) -> None:
    vmcore, dump = Kdump(notes()).write(tmp_path / "vmcore"), rig.dump("nic", b"ours")
    os.pwrite(dump.fd, b"!", 64)
    assert attach(str(vmcore), [dump]).altered == ("nic",)


def test_manifests_become_one(tmp_path: Path) -> None:
    failure = Failure("wifi", ":1.9/wifi", "org.vmcoredd1.Error.TimedOut", "late", 5)
    source = ManifestSource("/proc/vmcore", 3, 4)
    old = Manifest("vmcoredd 0", 3, (), (failure,), 2, source).dump()
    dumps = device_dump(b"kernel", b"k"), device_dump(MANIFEST_NAME.encode(), old)
    vmcore = Kdump(notes("little", *dumps)).write(tmp_path / "vmcore")
    attach_data(vmcore, nic=b"registers")
    attach_data(vmcore, disk=b"sectors")
    with vmcore.open("rb") as file:
        found = find(file.fileno(), "FILE")
        assert [dump.name for dump in found.device_dumps] == ["kernel", "nic", "disk", MANIFEST_NAME]
        merged = load(read_manifest(found.image, found.device_dumps[-1]))
    assert [(dump.name, dump.size, dump.collector) for dump in merged.device_dumps] == [
        ("nic", 9, "vmcoredd attach"),
        ("disk", 7, "vmcoredd attach"),
    ]
    assert all(0 < dump.started_usec <= dump.finished_usec <= merged.written_usec for dump in merged.device_dumps)
    assert (merged.failures, merged.failures_forgotten, merged.source) == ((failure,), 2, source)


def test_damaged_manifest_is_kept(tmp_path: Path) -> None:
    vmcore = Kdump(notes("little", device_dump(MANIFEST_NAME.encode(), b"{"))).write(tmp_path / "vmcore")
    assert re.match(
        "vmcoredd_manifest: not JSON: .*; it is kept as it is", *attach_data(vmcore, nic=b"x").warnings
    )
    with vmcore.open("rb") as file:
        names = [dump.name for dump in find(file.fileno(), "FILE").device_dumps]
    assert names == [MANIFEST_NAME, "nic", MANIFEST_NAME]


MANY = notes("little", *(device_dump(b"dump%d" % number, b"x") for number in range(63)))


@pytest.mark.parametrize(
    ("kdump", "dumps", "error", "message"),
    [
        (Kdump(notes(), split=1), {"nic": b"x"}, InvalidVmcore, "split is set: it is one part of several"),
        (Kdump(notes(), header_version=3), {"nic": b"x"}, InvalidVmcore, "header_version is 3, but notes need 4"),
        (Kdump(MANY), {"nic": b"x", "disk": b"y"}, QuotaExceeded, "cannot add device dump"),
        (Kdump(notes("little", device_dump(b"nic", b"x"))), {"nic": b"x"}, NameInUse, "has a device dump nic"),
        (Kdump(notes()[:-8]), {"nic": b"x"}, InvalidVmcore, "the note at offset"),
        (
            Kdump(notes() + bytes(64)).but(offset_vmcoreinfo=4096 + 104 + len(notes()) + 8),
            {"nic": b"x"},
            InvalidVmcore,
            "offset_vmcoreinfo is 0x[0-9a-f]+, outside of all notes",
        ),
    ],
)
def test_refused_before_anything_is_written(
    tmp_path: Path, kdump: Kdump, dumps: dict[str, bytes], error: type[VmcoreddError], message: str
) -> None:
    vmcore = kdump.write(tmp_path / "vmcore")
    fds, before, state = open_fds(), vmcore.read_bytes(), vmcore.stat()
    with pytest.raises(error, match=f"^{re.escape(str(vmcore))}: {message}"):
        attach_data(vmcore, **dumps)
    assert (vmcore.read_bytes(), vmcore.stat().st_mtime_ns, open_fds()) == (before, state.st_mtime_ns, fds)


def test_sixty_four_device_dumps(tmp_path: Path) -> None:
    vmcore = Kdump(MANY).write(tmp_path / "vmcore")
    attach_data(vmcore, nic=b"x")
    with vmcore.open("rb") as file:
        # With the manifest: it is the last, and crash not finding it is no harm.
        assert len(find(file.fileno(), "FILE").device_dumps) == 65


def test_notes_that_crash_cannot_read_with_one_read(rig: Rig, tmp_path: Path) -> None:
    dump = rig.dump("nic", b"x")
    os.ftruncate(dump.fd, 0x7FFFF000)
    large = type(dump)("nic", dump.fd, 0x7FFFF000, 1, "")
    for vmcore in (
        Kdump(notes()).write(tmp_path / "kdump"),
        Core(notes(), (Load(0x1000, b"memory"),)).write(tmp_path / "elf"),
    ):
        before = vmcore.read_bytes()
        with pytest.raises(QuotaExceeded, match="crash reads"):
            attach(str(vmcore), [large])
        assert vmcore.read_bytes() == before


def test_two_of_one_name(rig: Rig, tmp_path: Path) -> None:
    vmcore = Kdump(notes()).write(tmp_path / "vmcore")
    with pytest.raises(NameInUse, match="dump name nic is given twice"):
        attach(str(vmcore), [rig.dump("nic", b"x"), rig.dump("nic", b"y")])


def test_locked_file(rig: Rig, tmp_path: Path) -> None:
    vmcore = Kdump(notes()).write(tmp_path / "vmcore")
    with vmcore.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(Busy, match="another process has locked it"):
            attach(str(vmcore), [rig.dump("nic", b"x")])
    attach(str(vmcore), [rig.dump("nic", b"x")])


def test_incomplete_file_is_attached_to_with_a_warning(tmp_path: Path) -> None:
    # It ends in the page descriptors of the four pages that the bitmap has.
    vmcore = Kdump(notes(), status=9, pages=b"").write(tmp_path / "vmcore")
    size = vmcore.stat().st_size
    assert attach_data(vmcore, nic=b"x").warnings == (
        "is incomplete: makedumpfile had no space for all of the memory",
    )
    assert contents(vmcore) == {"nic": b"x"}
    with vmcore.open("rb") as file:
        assert read_header(file_image(file.fileno(), "FILE")).offset_note >= size + 4 * 24


@pytest.mark.parametrize(
    ("e_machine", "pages"), [(62, 4096), (3, 4096), (22, 4096), (183, 65536), (21, 65536), (258, 65536)]
)
def test_pages_of_an_elf_file_that_does_not_say_how_large_they_are(
    tmp_path: Path, e_machine: int, pages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of this machine they are neither.
    monkeypatch.setattr(os, "sysconf", lambda name: 8192)
    vmcore = Core(note(1, b"r"), (Load(0x1000, b"m"),), e_machine=e_machine).write(tmp_path / "vmcore")
    attach_data(vmcore, nic=b"x")
    with vmcore.open("rb") as file:
        assert find(file.fileno(), "FILE").device_dumps[0].size + 64 == pages


@pytest.mark.parametrize("pages", [2, 4])
def test_file_that_was_cut_off_is_refused(tmp_path: Path, pages: int) -> None:
    vmcore = Kdump(notes()).write(tmp_path / "vmcore")
    # In the last page data, or in the descriptors.
    os.truncate(vmcore, vmcore.stat().st_size - (1 if pages == 4 else 4 * 1125 + 2 * 24))
    before = vmcore.read_bytes()
    with pytest.raises(
        InvalidVmcore, match=r"/vmcore: is cut off: its page data end at 0x\w+, before the last page"
    ):
        attach_data(vmcore, nic=b"x")
    assert vmcore.read_bytes() == before


def test_forced_attach_to_a_file_that_was_cut_off_hides_nothing(tmp_path: Path) -> None:
    vmcore = Kdump(notes()).write(tmp_path / "vmcore")
    os.truncate(vmcore, vmcore.stat().st_size - 2000)
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    files = [NamedFile("nic", str(tmp_path / "file"))]
    for _ in range(2):
        (warning,) = attach_files(str(vmcore), files, "test", force=True).warnings
        assert warning.startswith("is cut off: ")
        with vmcore.open("rb") as file:
            problems = verify(file_image(file.fileno(), str(vmcore))).problems
        (missing,) = [problem for problem in problems if "pages" in problem]
        assert re.fullmatch(r"2 of 4 pages are not in the page data, which are from 0x\w+ to 0x\w+", missing)
        with pytest.raises(InvalidVmcore, match="is cut off"):
            attach_data(vmcore, disk=b"x")


@pytest.mark.parametrize("elf", [False, True])
def test_no_space_leaves_the_file_as_it_was(rig: Rig, tmp_path: Path, elf: bool) -> None:
    with tmpfs(tmp_path / "small", 256 << 10) as small:
        vmcore = small / "vmcore"
        if elf:
            Core(notes(), (Load(0x1000, b"memory" * 10_000),)).write(vmcore)
        else:
            Kdump(notes(), pages=b"memory" * 10_000).write(vmcore)
        before, state = vmcore.read_bytes(), os.statvfs(small)
        with pytest.raises(
            NoSpace, match=f"^{vmcore}: cannot attach; the file is unchanged: No space left on device"
        ):
            attach(str(vmcore), [rig.dump("nic", b"x" * (300 << 10))])
        (tmp_path / "large").write_bytes(b"x" * (300 << 10))
        with pytest.raises(
            NoSpace, match=f"^device dump nic: cannot be kept in {small}: No space left on device$"
        ):
            attach_files(str(vmcore), [NamedFile("nic", str(tmp_path / "large"))], "test")
        assert vmcore.read_bytes() == before
        assert os.listdir(small) == ["vmcore"]
        assert os.statvfs(small).f_bfree == state.f_bfree


def test_eraseinfo_behind_the_notes_keeps_their_place_from_being_used_again(tmp_path: Path) -> None:
    vmcore = Kdump(notes()).write(tmp_path / "vmcore")
    attach_data(vmcore, nic=b"x")
    size = vmcore.stat().st_size
    with vmcore.open("r+b") as file:
        file.seek(4096 + 64)
        file.write((size - 4).to_bytes(8, "little") + (4).to_bytes(8, "little"))
    kept = vmcore.read_bytes()[size - 4 :]
    attach_data(vmcore, nic=b"y")
    assert vmcore.read_bytes()[size - 4 : size] == kept
    assert contents(vmcore) == {"nic": b"y"}


def test_elf_in_place_where_there_is_room(tmp_path: Path) -> None:
    vmcore = Core(notes(), (Load(0x1000, b"memory", offset=32 * PAGE),)).write(tmp_path / "vmcore")
    state, memory, others = vmcore.stat(), load_bytes(vmcore), other_notes(vmcore)
    expected = {}
    for dumps in ({"nic": b"registers"}, {"disk": b"d" * 9000}, {"nic": b"new"}):
        assert attach_data(vmcore, **dumps).in_place
        expected |= dumps
        assert contents(vmcore) == expected
        assert (load_bytes(vmcore), other_notes(vmcore)) == (memory, others)
    assert (vmcore.stat().st_ino, vmcore.stat().st_size) == (state.st_ino, state.st_size)
    assert not attach_data(vmcore, nic=b"x" * 30 * PAGE).in_place
    assert load_bytes(vmcore) == memory


def test_elf_as_a_new_file_keeps_owner_mode_holes_and_links(tmp_path: Path) -> None:
    loads = (Load(0x1000, b"memory"), Load(0x100_0000, b"more"), Load(0x200_0000, filesz=64 << 20))
    vmcore = Core(notes(), loads).write(tmp_path / "vmcore")
    link = tmp_path / "link"
    link.symlink_to(vmcore)
    os.chmod(vmcore, 0o640)
    os.chown(vmcore, 12, 34)
    memory = load_bytes(vmcore)
    assert not attach_data(link, nic=b"registers").in_place
    assert link.is_symlink()
    state = vmcore.stat()
    assert (state.st_mode & 0o7777, state.st_uid, state.st_gid) == (0o640, 12, 34)
    assert state.st_blocks * 512 < 1 << 20
    assert (load_bytes(vmcore), contents(vmcore)) == (memory, {"nic": b"registers"})
    assert sorted(os.listdir(tmp_path)) == ["link", "link.nic", "vmcore"]


def test_truncated_elf_stays_truncated(tmp_path: Path) -> None:
    vmcore = Core(notes(), (Load(0x1000, b"m" * 100_000),)).write(tmp_path / "vmcore")
    load = vmcore.read_bytes().index(b"mmm")
    os.truncate(vmcore, load + 5000)
    (warning,) = attach_data(vmcore, nic=b"x").warnings
    assert re.fullmatch(r"is truncated: its memory ends at 0x\w+, the file at 0x\w+", warning)
    written = vmcore.read_bytes()
    assert written[written.index(b"m" * 100) :] == b"m" * 5000


@pytest.mark.parametrize("page_size", [PAGE, 1 << 16])
def test_pages_are_those_of_the_machine_that_crashed(tmp_path: Path, page_size: int) -> None:
    info = note(0, VMCOREINFO.replace(b"4096", b"%d" % page_size), b"VMCOREINFO\0")
    vmcore = Kdump(info, b"aarch64", block_size=page_size).write(tmp_path / "vmcore")
    attach_data(vmcore, nic=b"x")
    with vmcore.open("rb") as file:
        (dump, _) = find(file.fileno(), "FILE").device_dumps
    assert (dump.offset % page_size, dump.size) == (64, page_size - 64)


def test_cost_is_that_of_the_notes(tmp_path: Path) -> None:
    vmcore = Kdump(notes()).write(tmp_path / "vmcore")
    os.truncate(vmcore, 20 << 30)
    (tmp_path / "dump").write_bytes(os.urandom(1 << 20))
    program = (
        "import sys; from vmcoredd_daemon.cli.main import main; status = main(sys.argv[1:]);"
        "print(open('/proc/self/io').read()); sys.exit(status)"
    )
    command = [sys.executable, "-c", program, "attach", str(vmcore), f"nic={tmp_path / 'dump'}"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    written = {key: int(value) for key, value in re.findall(r"(\w+): (\d+)", output)}
    assert 1 << 20 < written["wchar"] < 3 << 20
    assert written["write_bytes"] < 3 << 20
    assert contents(vmcore)["nic"] == (tmp_path / "dump").read_bytes()
    assert vmcore.stat().st_blocks * 512 < 3 << 20


def test_reassembled_parts_can_be_attached_to(source_vmcore: Path, tmp_path: Path) -> None:
    require("makedumpfile")
    parts = [str(tmp_path / "first"), str(tmp_path / "second")]
    quiet = ["makedumpfile", "--message-level", "0"]
    subprocess.run([*quiet, "--split", "-c", "-d", "31", source_vmcore, *parts], check=True, capture_output=True)
    with pytest.raises(InvalidVmcore, match="split is set"):
        attach_data(Path(parts[0]), nic=b"x")
    subprocess.run([*quiet, "--reassemble", *parts, tmp_path / "vmcore"], check=True, capture_output=True)
    attach_data(tmp_path / "vmcore", nic=b"x")
    assert [dump.name for dump in crash(tmp_path / "vmcore")] == ["nic", MANIFEST_NAME]
