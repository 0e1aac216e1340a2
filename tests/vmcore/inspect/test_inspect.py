# SPDX-License-Identifier: LGPL-2.1-or-later
import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.lib.elf_writer import EM_386, EM_S390, EM_X86_64, NT_PRSTATUS, Core, device_dump, note
from tests.lib.paths import DATA_DIRECTORY
from vmcoredd_daemon.config.config import load as load_configuration
from vmcoredd_daemon.errors import InvalidVmcore
from vmcoredd_daemon.manifest import MANIFEST_NAME, MAX_SIZE, Failure, Manifest, ManifestDump
from vmcoredd_daemon.note import MOST_DEVICE_DUMPS
from vmcoredd_daemon.vmcore.inspect import inspect as module
from vmcoredd_daemon.vmcore.inspect.inspect import Inspection, copy_data, find, inspect

GOLDEN = DATA_DIRECTORY / "proc-vmcore-prefix.bin"
FAILURE = Failure("wifi", ":1.9/wifi", "org.vmcoredd1.Error.TimedOut", "late", 5)


class Vmcore:
    """A small vmcore with these notes, opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = -1

    def __call__(self, *notes: bytes, **fields: object) -> Inspection:
        Core(b"".join(notes), **fields).write(self.path)  # type: ignore[arg-type]
        self.fd = os.open(self.path, os.O_RDONLY)
        return inspect(self.fd, "FILE")


@pytest.fixture
def vmcore(tmp_path: Path) -> Iterator[Vmcore]:
    vmcore = Vmcore(tmp_path / "vmcore")
    yield vmcore
    if vmcore.fd >= 0:
        os.close(vmcore.fd)


def entry(name: str, data: bytes) -> ManifestDump:
    return ManifestDump(name, len(data), 4096, hashlib.sha256(data).hexdigest(), "test", "complete", 1, 2)


def manifest(*entries: ManifestDump, failures: tuple[Failure, ...] = ()) -> bytes:
    return device_dump(MANIFEST_NAME.encode(), Manifest("vmcoredd 0", 3, entries, failures).dump())


def found(inspection: Inspection) -> list[tuple[str, int | None, bool | None]]:
    return [(dump.name, dump.true_size, dump.verified) for dump in inspection.device_dumps]


def test_what_the_kernel_wrote_is_listed_as_crash_does() -> None:
    with GOLDEN.open("rb") as file:
        inspection = inspect(file.fileno(), "golden")
    assert [(dump.index, dump.offset, dump.size, dump.name) for dump in inspection.device_dumps] == [
        (0, 0x1040, 4032, "golden_a"),
        (1, 0x2040, 4032, "golden_b"),
        (2, 0x3040, 8128, "golden_c"),
        (3, 0x5040, 69568, "golden_d_65536"),
        (4, 0x16040, 4032, "0123456789" * 4 + "ABCD"),
        (5, 0x17040, 12224, "golden_a"),
    ]
    assert {(dump.true_size, dump.sha256, dump.verified) for dump in inspection.device_dumps} == {
        (None, None, None)
    }
    assert (inspection.format, inspection.elfclass, inspection.byteorder) == ("elf", 64, "little")
    assert inspection.machine == "x86_64"


def test_manifest_gives_true_sizes_checksums_and_failures(vmcore: Vmcore) -> None:
    text = Manifest("vmcoredd 0", 3, (entry("nic", b"registers"),), (FAILURE,)).dump()
    inspection = vmcore(
        device_dump(b"nic", b"registers"), device_dump(MANIFEST_NAME.encode(), text), note(NT_PRSTATUS, bytes(8))
    )
    assert found(inspection) == [("nic", 9, True), (MANIFEST_NAME, len(text), None)]
    assert inspection.device_dumps[0].sha256 == hashlib.sha256(b"registers").hexdigest()
    assert inspection.device_dumps[1].sha256 is None
    assert inspection.failures == (FAILURE,)
    assert inspection.problems == ()


def test_altered_data_is_found_out(vmcore: Vmcore) -> None:
    inspection = vmcore(device_dump(b"nic", b"regist3rs"), manifest(entry("nic", b"registers")))
    assert found(inspection)[0] == ("nic", 9, False)
    assert inspection.problems == ("device dump nic does not match the SHA-256 in its manifest",)


def test_find_reads_no_data(vmcore: Vmcore) -> None:
    vmcore(device_dump(b"nic", b"regist3rs"), manifest(entry("nic", b"registers")))
    assert find(vmcore.fd, "FILE").device_dumps[0].verified is None


def test_kernel_dump_of_the_same_name_is_not_taken_for_ours(vmcore: Vmcore) -> None:
    inspection = vmcore(
        device_dump(b"nic", b"kernel"), device_dump(b"nic", b"ours"), manifest(entry("nic", b"ours"))
    )
    assert found(inspection)[:2] == [("nic", None, None), ("nic", 4, True)]


def test_equal_names_in_one_manifest_go_by_their_order(vmcore: Vmcore) -> None:
    first, second = entry("nic", b"first"), entry("nic", b"second")
    inspection = vmcore(device_dump(b"nic", b"first"), device_dump(b"nic", b"second"), manifest(first, second))
    assert found(inspection)[:2] == [("nic", 5, True), ("nic", 6, True)]


def test_each_manifest_describes_what_stands_before_it(vmcore: Vmcore) -> None:
    later = replace(FAILURE, name="disk")
    inspection = vmcore(
        device_dump(b"nic", b"before"),
        manifest(entry("nic", b"before"), failures=(FAILURE,)),
        device_dump(b"nic", b"after"),
        manifest(entry("nic", b"after"), failures=(later,)),
        device_dump(b"nic", b"undescribed"),
    )
    dumps = [dump for dump in found(inspection) if dump[0] == "nic"]
    assert dumps == [("nic", 6, True), ("nic", 5, True), ("nic", None, None)]
    assert inspection.failures == (FAILURE, later)


def test_manifest_may_describe_what_is_not_there(vmcore: Vmcore) -> None:
    inspection = vmcore(device_dump(b"nic", b"x"), manifest(entry("disk", b"y"), entry("nic", b"x")))
    assert found(inspection)[0] == ("nic", 1, True)


@pytest.mark.parametrize("size", [-1, 4033, 1 << 80])
def test_impossible_true_size_is_not_believed(vmcore: Vmcore, size: int) -> None:
    inspection = vmcore(device_dump(b"nic", b"x"), manifest(replace(entry("nic", b"x"), size=size)))
    assert found(inspection)[0] == ("nic", None, False)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b'{"version": 1, "producer"', "not JSON"),
        (b'{"version": 2}', "not of version 1"),
        (b"", "not JSON"),
        (b"\xff\xfe\xfd", "not JSON"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_damaged_manifest_is_a_problem_not_a_failure(vmcore: Vmcore, data: bytes, problem: str) -> None:
    inspection = vmcore(device_dump(b"nic", b"x"), device_dump(MANIFEST_NAME.encode(), data))
    assert found(inspection) == [("nic", None, None), (MANIFEST_NAME, None, None)]
    (told,) = inspection.problems
    assert told.startswith(f"{MANIFEST_NAME}: {problem}")


def test_manifest_is_read_up_to_its_limit_only(vmcore: Vmcore) -> None:
    text = Manifest("vmcoredd 0", 3, (entry("nic", b"x"),)).dump()
    inspection = vmcore(device_dump(b"nic", b"x"), device_dump(MANIFEST_NAME.encode(), text.ljust(MAX_SIZE, b" ")))
    assert found(inspection)[0] == ("nic", None, None)
    assert f"but readers accept {MAX_SIZE}" in inspection.problems[0]


@pytest.mark.parametrize(
    ("elfclass", "byteorder", "e_machine", "machine"),
    [
        (64, "little", EM_X86_64, "x86_64"),
        (32, "little", EM_386, "i686"),
        (64, "big", EM_S390, "s390x"),
        (64, "big", 21, "ppc64"),
        (64, "little", 21, "ppc64le"),
        (32, "little", 243, "riscv32"),
        (64, "little", 0xF00D, "e_machine 61453"),
    ],
)
def test_any_machine(vmcore: Vmcore, elfclass: int, byteorder: str, e_machine: int, machine: str) -> None:
    dump = device_dump(b"nic", b"registers", byteorder)
    own = device_dump(MANIFEST_NAME.encode(), Manifest("x", 3, (entry("nic", b"registers"),)).dump(), byteorder)
    inspection = vmcore(dump, own, elfclass=elfclass, byteorder=byteorder, e_machine=e_machine)
    assert (inspection.elfclass, inspection.byteorder, inspection.machine) == (elfclass, byteorder, machine)
    assert found(inspection)[0] == ("nic", 9, True)


def test_name_that_is_not_ascii(vmcore: Vmcore) -> None:
    assert found(vmcore(device_dump(b"\x1b[m\xe4", b"x"), device_dump(b"", b"y"))) == [
        ("\x1b[m\\xe4", None, None),
        ("", None, None),
    ]


def test_device_dumps_are_counted_up_to_a_limit(vmcore: Vmcore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_IN_A_FILE", 2)
    with pytest.raises(InvalidVmcore, match=r"^FILE: has more than 2 device dumps$"):
        vmcore(*(device_dump(name, b"x") for name in (b"a", b"b", b"c")))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"not an ELF file, but text", "is neither ELF, kdump-compressed nor flattened"),
        (GOLDEN.read_bytes()[:30], "not an ELF vmcore"),
        (GOLDEN.read_bytes()[:100], "the file ends at offset 0x64, inside the program headers"),
        (GOLDEN.read_bytes()[:0x5000], "PT_NOTE ends at 0x1ae04, but the file ends at 0x5000"),
    ],
)
def test_file_that_is_no_vmcore(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "vmcore"
    path.write_bytes(content)
    with path.open("rb") as file, pytest.raises(InvalidVmcore, match=f"^FILE: {reason}"):
        inspect(file.fileno(), "FILE")


def test_data_is_copied_without_its_padding_where_that_is_known(vmcore: Vmcore) -> None:
    described, other = b"registers\0\0", b"unknown"
    inspection = vmcore(
        device_dump(b"nic", described), device_dump(b"x", other), manifest(entry("nic", described))
    )
    outputs = []
    for dump in inspection.device_dumps[:2]:
        outputs.append(io.BytesIO())
        intact = copy_data(inspection.image, dump, outputs[-1].write)
        assert intact is (True if dump.name == "nic" else None)
    assert outputs[0].getvalue() == described
    assert outputs[1].getvalue() == other.ljust(4032, b"\0")


def test_file_that_shrinks_meanwhile(vmcore: Vmcore) -> None:
    inspection = vmcore(device_dump(b"nic", b"registers"))
    os.truncate(vmcore.path, 0x1045)
    with pytest.raises(InvalidVmcore, match=r"^FILE: the file ends at offset 0x1045, inside device dump nic$"):
        copy_data(inspection.image, inspection.device_dumps[0], lambda block: None)


def test_every_reader_takes_as_many_device_dumps_as_can_be_configured(tmp_path: Path) -> None:
    conf = tmp_path / "conf"
    conf.write_text(f"[Vmcoredd]\nMaxDumps={MOST_DEVICE_DUMPS}\n")
    most = load_configuration(conf).limits.max_dumps
    entries = [
        ManifestDump(
            f"{number:043}", 1, 1, hashlib.sha256(b"x").hexdigest(), "c" * 200, "truncated", 1, 2, "e" * 200
        )
        for number in range(most)
    ]
    manifest = Manifest("test", 1, tuple(entries)).dump()
    assert len(manifest) <= MAX_SIZE
    others = [device_dump(f"kernel{number}".encode(), b"k") for number in range(100)]
    ours = [device_dump(entry.name.encode(), b"x") for entry in entries]
    path = Core(b"".join([*others, *ours, device_dump(MANIFEST_NAME.encode(), manifest)])).write(
        tmp_path / "vmcore"
    )
    with path.open("rb") as file:
        found = inspect(file.fileno(), str(path))
    assert found.problems == ()
    assert [dump.verified for dump in found.device_dumps] == [None] * 100 + [True] * most + [None]
