# SPDX-License-Identifier: LGPL-2.1-or-later
"""ELF vmcores of every machine and shape, written and attached to; readelf, pyelftools and crash are judges."""

import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from tests.lib.attaching import attach_data, contents, other_notes
from tests.lib.elf_writer import (
    EM_386,
    EM_S390,
    EM_X86_64,
    NT_PRSTATUS,
    NT_VMCOREDD,
    PN_XNUM,
    Core,
    Load,
    device_dump,
    note,
)
from tests.lib.external_tools import crash, osrelease, pyelftools, readelf
from tests.lib.tools import require
from tests.lib.vmcore_rig import Rig, load_bytes
from vmcoredd_daemon.manifest import MANIFEST_NAME
from vmcoredd_daemon.note import ByteOrder, note_size
from vmcoredd_daemon.vmcore.formats import recognise
from vmcoredd_daemon.vmcore.image import file_image
from vmcoredd_daemon.vmcore.inspect.inspect import find

MAX_MIB = 64
"""Memory that 100,000 segments may take."""


@dataclass(frozen=True)
class Machine:
    name: str
    elfclass: int
    byteorder: str
    e_machine: int
    page: int = 4096

    def note(self, n_type: int, desc: bytes, name: bytes = b"CORE\0") -> bytes:
        return note(n_type, desc, name, self.byteorder)

    @property
    def others(self) -> bytes:
        info = f"OSRELEASE=6.1.0\nPAGESIZE={self.page}\n".encode()
        return self.note(NT_PRSTATUS, b"registers") + self.note(0, info, b"VMCOREINFO\0")

    def kernels(self, name: bytes) -> bytes:
        """A device dump of the kernel's own."""
        return device_dump(name, name * 100, self.byteorder, self.page)

    @property
    def core(self) -> Core:
        """The file as the kernel makes it."""
        loads = (
            Load(0x10_0000, b"text" * 5000, vaddr=0xC000_0000),
            Load(0x20_5123, b"data" * 100, flags=6),
            Load(0x30_0000, b"", memsz=self.page),
        )
        return Core(
            self.others,
            loads,
            self.elfclass,
            self.byteorder,
            e_machine=self.e_machine,
            e_flags=0x102,
            page=self.page,
        )


MACHINES = [
    Machine("i686", 32, "little", EM_386),
    Machine("arm", 32, "little", 40),
    Machine("mips", 32, "big", 8),
    Machine("ppc", 32, "big", 20),
    Machine("x86_64", 64, "little", EM_X86_64),
    Machine("aarch64", 64, "little", 183),
    Machine("aarch64", 64, "little", 183, 16384),
    Machine("aarch64", 64, "little", 183, 65536),
    Machine("riscv64", 64, "little", 243),
    Machine("loongarch64", 64, "little", 258, 16384),
    Machine("s390x", 64, "big", EM_S390),
    Machine("ppc64", 64, "big", 21, 65536),
    Machine("ppc64le", 64, "little", 21, 65536),
]

SHAPES: dict[str, Callable[[Machine], Core]] = {
    "as the kernel's": lambda machine: machine.core,
    "PT_NOTE last": lambda machine: replace(machine.core, notes_at=3),
    "PT_NOTEs in the middle": lambda machine: replace(
        machine.core, notes=(machine.note(1, b"one"), machine.others, machine.note(2, b"two")), notes_at=1
    ),
    "an empty PT_NOTE": lambda machine: replace(machine.core, notes=(b"", machine.others)),
    "p_align 4": lambda machine: replace(machine.core, note_align=4),
    "p_align of a page": lambda machine: replace(
        machine.core,
        note_align=machine.page,
        loads=tuple(replace(load, align=machine.page) for load in machine.core.loads),
    ),
    "packed": lambda machine: replace(
        machine.core,
        loads=tuple(
            replace(load, offset=2 * machine.page + 0x345 + number * 0x8000)
            for number, load in enumerate(machine.core.loads)
        ),
    ),
    "device dumps of the kernel": lambda machine: replace(
        machine.core, notes=machine.kernels(b"x") + machine.kernels(b"y") + machine.others
    ),
    "device dumps of the kernel in several PT_NOTEs": lambda machine: replace(
        machine.core,
        notes=(machine.note(1, b"one") + machine.kernels(b"x"), machine.kernels(b"y"), machine.others),
        notes_at=2,
    ),
    "space before the memory": lambda machine: replace(
        machine.core,
        loads=tuple(
            replace(load, offset=(16 + 8 * number) * machine.page + load.paddr % machine.page)
            for number, load in enumerate(machine.core.loads)
        ),
    ),
}


EVERY_SHAPE = {"i686", "ppc", "x86_64", "s390x", "ppc64"}
EVERY_MACHINE = {"as the kernel's", "device dumps of the kernel in several PT_NOTEs", "space before the memory"}


def of_the_kernel(machine: Machine, shape: str) -> dict[str, bytes]:
    if "kernel in" not in shape and not shape.startswith("device"):
        return {}
    return {name: (name.encode() * 100).ljust(note_size(100, machine.page) - 64, b"\0") for name in ("x", "y")}


def program_headers(vmcore: Path) -> tuple[int, int]:
    """Return how many program headers readelf lists and how many pyelftools counts; neither may warn."""
    require("readelf")
    command = ["readelf", "-lW", str(vmcore)]
    run = subprocess.run(
        command, check=True, capture_output=True, text=True, env={"LC_ALL": "C", "PATH": "/usr/bin"}
    )
    assert run.stderr == ""
    assert "arning" not in run.stdout
    listed = re.findall(r"^  \S+ +0x\w+ 0x\w+ 0x\w+ 0x\w+ 0x\w+ [R ][W ][E ] 0x?\w*$", run.stdout, re.MULTILINE)
    with vmcore.open("rb") as file:
        return len(listed), ELFFile(file).num_segments()


def all_notes(vmcore: Path) -> list[tuple[bytes, bytes]]:
    """Return name and descriptor of every note, in the order of the file."""
    with vmcore.open("rb") as file:
        notes = recognise(file_image(file.fileno(), str(vmcore))).notes()
        return [(note.name, os.pread(file.fileno(), note.n_descsz, note.desc_offset)) for note in notes]


def places(vmcore: Path, field: str, page: int) -> list[int]:
    """Return where in a page *field* of each PT_LOAD is."""
    with vmcore.open("rb") as file:
        return [
            segment[field] % page for segment in ELFFile(file).iter_segments() if segment["p_type"] == "PT_LOAD"
        ]


def check(vmcore: Path, machine: Machine, source: Path, names: list[str]) -> None:
    """Look at a vmcore that was made of *source*."""
    assert program_headers(vmcore) == (4, 4)
    others = [note for note in all_notes(source) if note[0] != b"LINUX"]
    assert other_notes(vmcore) == others
    dumps: list[tuple[str, int | str]] = [("LINUX", NT_VMCOREDD)] * len(names)
    found = pyelftools(vmcore)
    assert found[: len(names)] == dumps
    assert [name for name, _ in found[len(names) :]] == [name.decode() for name, _ in others]
    owners = [owner for owner, _ in readelf(vmcore)]
    assert owners == ["LINUX"] * len(names) + [name.decode() for name, _ in others]
    assert load_bytes(vmcore) == load_bytes(source)
    with vmcore.open("rb") as file:
        inspected = find(file.fileno(), str(vmcore))
        segments = list(ELFFile(file).iter_segments())
    assert (inspected.machine, inspected.elfclass, inspected.byteorder) == (
        machine.name,
        machine.elfclass,
        machine.byteorder,
    )
    assert [dump.name for dump in inspected.device_dumps] == names
    assert {dump.offset % machine.page for dump in inspected.device_dumps} == {64}
    assert {(dump.size + 64) % machine.page for dump in inspected.device_dumps} == {0}
    assert [segment["p_type"] for segment in segments] == ["PT_NOTE"] + ["PT_LOAD"] * 3
    assert segments[0]["p_align"] in {0, 4}
    # With another p_align it takes neither the source nor this for kdump's; the kernel writes 0.
    if machine.name == "x86_64" and segments[1]["p_align"] == 0:
        assert [dump.name for dump in crash(vmcore)] == names
        assert osrelease(vmcore) == "6.1.0"


@pytest.mark.parametrize(
    ("machine", "shape"),
    [
        (machine, shape)
        for machine in MACHINES
        for shape in SHAPES
        if machine.name in EVERY_SHAPE or shape in EVERY_MACHINE
    ],
    ids=lambda value: f"{value.name}-{value.page}" if isinstance(value, Machine) else value,
)
def test_every_machine_and_shape(tmp_path: Path, machine: Machine, shape: str) -> None:
    source = SHAPES[shape](machine).write(tmp_path / "source")
    kernels = of_the_kernel(machine, shape)
    data = b"d" * (machine.page + 5)
    (tmp_path / "target").mkdir()
    with Rig(tmp_path / "target", machine.page) as rig:
        report = rig.convert(source, rig.dump("nic", data, ByteOrder(machine.byteorder)))
        assert (report.unreadable_pages, report.missing_bytes, report.altered) == (0, 0, ())
        assert [rig.data(index, len(kernel)) for index, kernel in enumerate(kernels.values())] == [
            *kernels.values()
        ]
        assert rig.data(len(kernels), len(data)) == data
        check(rig.vmcore, machine, source, [*kernels, "nic"])
        assert places(rig.vmcore, "p_offset", machine.page) == places(source, "p_paddr", machine.page)

    attached = tmp_path / "attached"
    attached.write_bytes(source.read_bytes())
    in_place = shape == "space before the memory"
    for dumps in ({"nic": b"first"}, {"disk": data}, {"nic": data}):
        assert attach_data(attached, **dumps).in_place is in_place
    assert contents(attached) == kernels | {"disk": data, "nic": data}
    if not in_place:
        check(attached, machine, source, [*kernels, "disk", "nic", MANIFEST_NAME])
        assert places(attached, "p_offset", machine.page) == places(source, "p_offset", machine.page)


@pytest.mark.parametrize(("crashed", "capturing"), [(65536, 4096), (4096, 65536), (16384, 65536)])
def test_capture_kernel_with_other_pages(tmp_path: Path, crashed: int, capturing: int) -> None:
    """It lays /proc/vmcore out by its own pages, and so does the service; attach goes by the crashed one's."""
    machine = Machine("aarch64", 64, "little", 183, crashed)
    # VMCOREINFO is that of the crashed kernel.
    source = replace(machine.core, page=capturing).write(tmp_path / "source")
    data = b"d" * 70000
    (tmp_path / "target").mkdir()
    with Rig(tmp_path / "target", capturing) as rig:
        report = rig.convert(source, rig.dump("nic", data))
        assert (report.unreadable_pages, report.missing_bytes, report.altered) == (0, 0, ())
        assert rig.data(0, len(data)) == data
        check(rig.vmcore, replace(machine, page=capturing), source, ["nic"])
        assert places(rig.vmcore, "p_offset", capturing) == places(source, "p_paddr", capturing)
        for _ in range(2):
            attach_data(rig.vmcore, disk=data)
        assert list(contents(rig.vmcore)) == ["nic", "disk"]
        assert other_notes(rig.vmcore) == other_notes(source)
        assert load_bytes(rig.vmcore) == load_bytes(source)
        assert program_headers(rig.vmcore) == (4, 4)
        with rig.vmcore.open("rb") as file:
            _, disk, manifest = find(file.fileno(), "FILE").device_dumps
        assert {(disk.size + 64) % crashed, (manifest.size + 64) % crashed} == {0}


@pytest.mark.parametrize(("count", "attaching"), [(PN_XNUM - 2, False), (PN_XNUM - 1, False), (PN_XNUM - 1, True)])
def test_more_segments_than_e_phnum_can_count(tmp_path: Path, count: int, attaching: bool) -> None:
    machine = MACHINES[4]
    loads = tuple(
        Load(0x10_0000 + number * 8192, b"m" if number % 1000 == 0 else b"", 1) for number in range(count)
    )
    source = Core(machine.others, loads).write(tmp_path / "source")
    (tmp_path / "target").mkdir()
    with Rig(tmp_path / "target") as rig:
        if attaching:
            vmcore = source.rename(tmp_path / "vmcore")
            Core(machine.others, loads).write(source)
            attach_data(vmcore, nic=b"registers")
        else:
            vmcore = rig.vmcore
            rig.convert(source, rig.dump("nic", b"registers"))
    assert program_headers(vmcore) == (count + 1, count + 1)
    output = crash_says(vmcore)
    assert f"num_pt_load_segments: {count}\n" in output
    assert output.endswith("\n6.1.0\n")
    assert re.findall(r'\(NT_VMCOREDD\)\s+name: "([^"]*)"', output) == ["nic", MANIFEST_NAME][: 1 + attaching]
    assert load_bytes(vmcore) == load_bytes(source)
    # e_phnum, e_shnum
    assert struct.unpack_from("<H2xH", vmcore.read_bytes()[:64], 56) == (
        min(count + 1, PN_XNUM),
        int(count >= PN_XNUM - 1),
    )


def crash_says(vmcore: Path) -> str:
    require("crash")
    command = ["crash", "-d", "8", "--osrelease", str(vmcore)]
    return subprocess.run(command, check=True, capture_output=True, text=True, errors="replace").stdout


MEASURE = """
import os, re, sys
from elftools.elf.elffile import ELFFile
from vmcoredd_daemon.vmcore.elf import read_headers, walk
from vmcoredd_daemon.vmcore.image import file_image
from vmcoredd_daemon.vmcore.layout import Source, plan

def peak():
    with open("/proc/self/status") as file:
        return int(re.search(r"VmHWM:\\s+(\\d+) kB", file.read())[1]) >> 10

with open(sys.argv[1], "rb") as file:
    before = peak()
    image = file_image(file.fileno(), sys.argv[1])
    headers = read_headers(image)
    layout = plan(Source(file.fileno(), image.size), headers, walk(image, headers), [], 4096)
    assert len(layout.loads) == 100_000
    layout.headers.pack()
    print(peak() - before)
"""


def test_memory_for_100_000_segments(tmp_path: Path) -> None:
    loads = tuple(Load(1 << 40 | number << 13, filesz=100) for number in range(100_000))
    source = Core(MACHINES[4].others, loads).write(tmp_path / "source")
    command = [sys.executable, "-c", MEASURE, str(source)]
    mib = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert 8 < mib < MAX_MIB
