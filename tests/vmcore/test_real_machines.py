# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every sample of tests/data, through every command that reads or changes a vmcore."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from tests.lib.attaching import contents, other_notes
from tests.lib.core_collector import NOWHERE, add_collector
from tests.lib.external_tools import pyelftools, readelf
from tests.lib.flattened_writer import overlaps, restore, split
from tests.lib.paths import DATA_DIRECTORY
from tests.lib.sample import unpack_machine
from tests.lib.service import mask_built_in
from tests.lib.shell_program import shell_program
from tests.lib.tools import skip_or_fail
from tests.lib.vmcoredd import run
from vmcoredd_daemon.manifest import MANIFEST_NAME

FIRST, SECOND = b"registers" * 9000, b"again"


@dataclass(frozen=True)
class Sample:
    name: str
    format: str
    elfclass: int
    endian: str
    machine: str
    page: int
    release: str | None
    incomplete: bool = False
    crash_lists: bool | None = True
    """Whether crash of that machine lists device dumps; None: not known."""
    drgn: str = ""
    """What drgn calls its machine; empty if its libkdumpfile does not know that."""

    @property
    def is_flat(self) -> bool:
        return self.format == "flattened"


RELEASE = "6.1.0-50-"
SAMPLES = [
    Sample("i386-6.1.kdump", "kdump", 32, "little", "i686", 4096, f"{RELEASE}686-pae", drgn="I386"),
    Sample("i386-6.1.flattened", "flattened", 32, "little", "i686", 4096, f"{RELEASE}686-pae", drgn="I386"),
    Sample("arm64-6.1.head", "elf", 64, "little", "aarch64", 4096, f"{RELEASE}arm64", True, drgn="AARCH64"),
    Sample("arm64-6.1.kdump", "kdump", 64, "little", "aarch64", 4096, f"{RELEASE}arm64", drgn="AARCH64"),
    Sample("arm64-6.1.flattened", "flattened", 64, "little", "aarch64", 4096, f"{RELEASE}arm64", drgn="AARCH64"),
    Sample("ppc64el-6.1.kdump", "kdump", 64, "little", "ppc64le", 65536, f"{RELEASE}powerpc64le", drgn="PPC64"),
    Sample("s390x-6.1-qemu.flattened", "flattened", 64, "big", "S390X", 4096, None, crash_lists=False),
    Sample("armhf-6.1-qemu.flattened", "flattened", 32, "little", "Unknown", 4096, None, crash_lists=None),
]


def each(samples: Iterable[Sample]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("sample", [*samples], ids=lambda sample: sample.name)


@pytest.fixture
def vmcore(sample: Sample, tmp_path: Path) -> Path:
    """It, unpacked."""
    return unpack_machine(sample.name, tmp_path / "vmcore")


def inspected(vmcore: Path) -> dict[str, Any]:
    done = run("inspect", "--json", vmcore)
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def attach(vmcore: Path, sample: Sample, **dumps: bytes) -> None:
    for name, data in dumps.items():
        vmcore.with_name(name).write_bytes(data)
    done = run("attach", vmcore, *(f"{name}={vmcore.with_name(name)}" for name in dumps))
    assert done.returncode == 0
    assert done.stderr.count("\n") == ("is truncated" in done.stderr) == sample.incomplete, done.stderr


def judge(vmcore: Path, sample: Sample, dumps: dict[str, bytes], others: list[tuple[bytes, bytes]]) -> None:
    """Look at a vmcore that *dumps* were put into."""
    assert contents(vmcore) == dumps
    assert other_notes(vmcore) == others
    *found, last = inspected(vmcore)["device_dumps"]
    assert [(dump["name"], dump["size"], dump["verified"]) for dump in found] == [
        (name, len(data), True) for name, data in dumps.items()
    ]
    assert (last["name"], last["verified"]) == (MANIFEST_NAME, None)
    assert {(dump["buffer_size"] + 64) % sample.page for dump in (*found, last)} == {0}
    (name, data) = list(dumps.items())[-1]
    assert run("extract", vmcore, name, text=False).stdout == data
    if sample.format == "elf":
        assert [owner for owner, _ in readelf(vmcore)] == ["LINUX"] * (len(dumps) + 1) + ["CORE", "VMCOREINFO"]
        assert [name for name, _ in pyelftools(vmcore)] == [owner for owner, _ in readelf(vmcore)]
        with vmcore.open("rb") as file:
            assert ELFFile(file)["e_machine"] == "EM_AARCH64"
    if sample.is_flat:
        assert not overlaps(split(vmcore.read_bytes()))


@each(SAMPLES)
def test_inspect(vmcore: Path, sample: Sample) -> None:
    found = inspected(vmcore)
    said = (found["format"], found["class"], found["endian"], found["machine"], found["kernel_release"])
    assert said == (sample.format, sample.elfclass, sample.endian, sample.machine, sample.release)
    assert (found["incomplete"], found["device_dumps"]) == (sample.incomplete, [])
    assert found["memory"] > 100 << 20
    done = run("inspect", "--map", vmcore)
    assert (done.returncode, done.stderr) == (0, "")


@each(SAMPLES)
def test_verify(vmcore: Path, sample: Sample) -> None:
    attach(vmcore, sample, nic=FIRST)
    done = run("verify", "--json", vmcore)
    said = json.loads(done.stdout)
    assert said["problems"] == (["the file ends before its memory"] if sample.incomplete else [])
    assert said["checksums"] == {"ok": 1, "altered": 0, "none": 0}
    expected = {True: 2, False: 0, None: None}[sample.crash_lists]
    assert said["crash"]["device_dump_count"] == expected
    assert done.returncode == (not said["good"])
    # Whatever is said of a program for another machine, it is needed for that.
    remarks = said["crash"]["remarks"]
    assert any("not known" in remark or "built for" in remark for remark in remarks)


@each(SAMPLES)
def test_attach_twice(vmcore: Path, sample: Sample) -> None:
    others = other_notes(vmcore)
    assert others
    attach(vmcore, sample, nic=FIRST)
    judge(vmcore, sample, {"nic": FIRST}, others)
    attach(vmcore, sample, disk=SECOND)
    judge(vmcore, sample, {"nic": FIRST, "disk": SECOND}, others)
    attach(vmcore, sample, nic=SECOND)
    judge(vmcore, sample, {"disk": SECOND, "nic": SECOND}, others)
    if sample.is_flat:
        vmcore.write_bytes(restore(split(vmcore.read_bytes())))
        assert contents(vmcore) == {"disk": SECOND, "nic": SECOND}


@each(SAMPLES)
def test_spool_of_a_kernel_with_other_pages(vmcore: Path, sample: Sample) -> None:
    """A capture kernel with pages of 16 KiB has left the note."""
    done = run("attach", vmcore, DATA_DIRECTORY / "arm64-16k.note")
    assert done.returncode == 0
    dump, _ = inspected(vmcore)["device_dumps"]
    assert dump["verified"]
    assert (dump["buffer_size"] + 64) % sample.page == 0


@each(sample for sample in SAMPLES if sample.is_flat)
def test_stream(vmcore: Path, sample: Sample) -> None:
    others = other_notes(vmcore)
    dumps = {"nic": FIRST, "disk": SECOND}
    for name, data in dumps.items():
        vmcore.with_name(name).write_bytes(data)
    operands = [f"{name}={vmcore.with_name(name)}" for name in dumps]
    done = run("attach", "--stream", *operands, input=vmcore.read_bytes(), text=False)
    assert (done.returncode, done.stderr) == (0, b"")
    vmcore.write_bytes(done.stdout)
    judge(vmcore, sample, dumps, others)
    again = run("attach", "--stream", *operands, input=done.stdout, text=False)
    assert (again.returncode, again.stdout == done.stdout) == (1, True)
    assert again.stderr.count(b"\n") == 1
    attach(vmcore, sample, nic=SECOND)
    judge(vmcore, sample, {"disk": SECOND, "nic": SECOND}, others)


@each(sample for sample in SAMPLES if sample.format != "elf")
def test_core_collector(vmcore: Path, sample: Sample, tmp_path: Path) -> None:
    """Of that machine makedumpfile has written the sample: here a program copies it."""
    others = other_notes(vmcore)
    (tmp_path / "vmcoredd.conf").write_text("[Vmcoredd]\n")
    mask_built_in(tmp_path / "collectors.d")
    add_collector(tmp_path / "vmcoredd.conf", "nic", "echo registers")
    own = [f"--vmcoredd-config={tmp_path / 'vmcoredd.conf'}", f"--vmcoredd-bus-address={NOWHERE}"]
    written = tmp_path / "written"
    if sample.is_flat:
        program = shell_program(tmp_path / "makedumpfile", f"cat {vmcore}")
        done = run("core-collector", *own, program, "-F", "-l", "/proc/vmcore", text=False)
        written.write_bytes(done.stdout)
    else:
        program = shell_program(tmp_path / "makedumpfile", f"cp {vmcore} {written}")
        done = run("core-collector", *own, program, "-l", "/proc/vmcore", written, text=False)
    assert done.returncode == 0, done.stderr
    assert b"1 device dump attached" in done.stderr
    assert contents(written) == {"nic": b"registers\n"}
    assert other_notes(written) == others


DRGN = """
import sys
from drgn import Program
program = Program()
program.set_core_dump(sys.argv[1])
print(program.platform.arch.name, program["UTS_RELEASE"].string_().decode())
"""


@pytest.mark.debuginfo
@each(sample for sample in SAMPLES if sample.drgn)
def test_drgn_reads_what_it_has_read(sample: Sample, vmcore: Path, drgn: Callable[[Path], str]) -> None:
    before = drgn(vmcore)
    assert before == f"{sample.drgn} {sample.release}\n"
    for name in ("nic", "disk", "nic"):
        attach(vmcore, sample, **{name: FIRST})
        assert drgn(vmcore) == before


@pytest.fixture
def drgn() -> Callable[[Path], str]:
    """Return machine and release as drgn reads them."""
    if importlib.util.find_spec("drgn") is None:
        skip_or_fail(["drgn"])

    def drgn(vmcore: Path) -> str:
        done = subprocess.run([sys.executable, "-c", DRGN, vmcore], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return drgn
