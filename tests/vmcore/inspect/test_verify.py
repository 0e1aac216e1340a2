# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is predicted of crash and makedumpfile, and what the two do with the same file."""

import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis.strategies import DataObject, binary, data, sampled_from

from tests.lib import qemu_elf
from tests.lib.attaching import attach_data
from tests.lib.corrupt_vmcores import ELF, KDUMP
from tests.lib.elf_writer import Core, Load, device_dump, note
from tests.lib.external_tools import makedumpfile
from tests.lib.flattened_writer import makedumpfile_flat, makedumpfile_restore
from tests.lib.kdump_writer import Kdump, notes
from tests.lib.sample import unpack_machine
from tests.lib.tools import require
from tests.lib.vmcore_rig import Rig
from vmcoredd_daemon.errors import InvalidVmcore
from vmcoredd_daemon.manifest import MANIFEST_NAME, Manifest, ManifestDump
from vmcoredd_daemon.vmcore.image import Image, file_image
from vmcoredd_daemon.vmcore.inspect.inspect import find
from vmcoredd_daemon.vmcore.inspect.verify import Verification, verify

DUMPS = {"nic": bytes(range(256)) * 100, "disk": b"d"}


@pytest.fixture(scope="module")
def bases(source_vmcore: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("whole")
    elf = copy(source_vmcore, directory / "elf")
    attach_data(elf, **DUMPS)
    return {"ELF": elf, "KDUMP": makedumpfile(elf, directory / "kdump", "-l", "-d", "31")}


def copy(source: Path, destination: Path) -> Path:
    subprocess.run(["cp", "--sparse=always", source, destination], check=True)
    return destination


def verified(path: Path) -> Verification:
    with path.open("rb") as file:
        return verify(file_image(file.fileno(), str(path)))


def crash(path: Path) -> tuple[bool, int]:
    """Return whether crash reads the kernel's release, and how many device dumps it lists."""
    require("crash")
    command = ["crash", "-d", "8", "--osrelease", path]
    run = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    return run.returncode == 0, len(re.findall(r"\(NT_VMCOREDD\)", run.stdout))


def crash_log(path: Path) -> str:
    """Return what crash says when it is to read the kernel's log, for which it sorts a flattened file."""
    require("crash")
    command = ["crash", "--log", path]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False).stdout


def kept(path: Path, output: Path) -> int | None:
    """Return how many device dumps are in what makedumpfile makes of the file; None where it fails."""
    require("makedumpfile")
    command = ["makedumpfile", "--non-mmap", "-l", "-d", "31", path, output]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        return None
    with output.open("rb") as file:
        try:
            return len(find(file.fileno(), str(output)).device_dumps)
        except InvalidVmcore:
            # It copies what it does not understand.
            return -1


GOOD = {"whole", "e_machine", "no notes", "split"}
CRASH_SAYS_NOTHING = {
    # It takes the memory for that of its own machine.
    ("ELF", "e_machine"),
    # It would read the wrong pages, but it reads none for this.
    ("KDUMP", "half the bitmaps"),
}
MAKEDUMPFILE_SAYS_NOTHING = {
    # It takes page descriptors for the rest of the bitmaps.
    ("KDUMP", "max_mapnr beyond the bitmaps"),
}


CASES = [*(("ELF", name) for name in ELF), *(("KDUMP", name) for name in KDUMP)]


@pytest.mark.parametrize(("base", "name"), CASES)
def test_as_predicted(bases: dict[str, Path], tmp_path: Path, base: str, name: str) -> None:
    path = copy(bases[base], tmp_path / "vmcore")
    {"ELF": ELF, "KDUMP": KDUMP}[base][name](path)
    verification = verified(path)
    assert verification.good == (name in GOOD), verification
    if (base, name) not in CRASH_SAYS_NOTHING:
        predicted = verification.crash
        assert crash(path) == (predicted.reads and predicted.vmcoreinfo, predicted.device_dumps), verification
    if (base, name) not in MAKEDUMPFILE_SAYS_NOTHING:
        predicted = verification.makedumpfile
        count = kept(path, tmp_path / "output")
        assert (count is not None) == (predicted.reads and predicted.vmcoreinfo), verification
        assert count in {None, -1, predicted.device_dumps}, verification


def test_what_the_fault_is(bases: dict[str, Path], tmp_path: Path) -> None:
    path = copy(bases["ELF"], tmp_path / "vmcore")
    ELF["data altered"](path)
    verification = verified(path)
    assert verification.problems == ("device dump nic does not match the SHA-256 in its manifest",)
    ELF["second PT_NOTE"](path)
    assert verified(path).crash.problems == ["takes segment 3 for memory: its p_type is 4"]
    kdump = copy(bases["KDUMP"], tmp_path / "kdump")
    KDUMP["cut in the pages"](kdump)
    (problem,) = verified(kdump).problems
    assert re.fullmatch(
        r"\d+ of \d+ pages are not in the page data, which are from 0x[0-9a-f]+ to 0x[0-9a-f]+", problem
    )


@pytest.mark.parametrize(
    ("count", "manifest", "problem", "remark"),
    [
        (64, False, [], []),
        # What it drops is the manifest alone.
        (64, True, [], ["silently drops 1 of 65 device dumps"]),
        (65, False, ["silently drops 1 of 65 device dumps"], []),
        (65, True, ["silently drops 2 of 66 device dumps"], []),
    ],
)
def test_more_device_dumps_than_crash_lists(
    rig: Rig, source_vmcore: Path, count: int, manifest: bool, problem: list[str], remark: list[str]
) -> None:
    dumps = [rig.dump(f"dump{number}", b"x") for number in range(count)]
    dumps += [rig.dump(MANIFEST_NAME, Manifest("test", 1, ()).dump())] if manifest else []
    rig.convert(source_vmcore, *dumps)
    verification = verified(rig.vmcore)
    # It walks all of them, and keeps 64.
    assert crash(rig.vmcore) == (True, len(dumps))
    assert verification.crash.device_dumps == 64
    assert (verification.crash.problems, verification.crash.remarks) == (problem, remark)
    assert verification.good == (not problem)
    assert verification.makedumpfile.device_dumps == len(dumps)


def test_flattened(bases: dict[str, Path], tmp_path: Path) -> None:
    flat = makedumpfile_flat(bases["ELF"], tmp_path / "flat", "-l", "-d", "31", "--non-mmap")
    verification = verified(flat)
    assert verification.good
    assert verification.crash.device_dumps == 3
    assert "truncated" not in crash_log(flat)
    assert "only with -R" in verification.makedumpfile.remarks[0]
    assert kept(flat, tmp_path / "output") is None
    assert kept(makedumpfile_restore(flat, tmp_path / "restored"), tmp_path / "output") == 3
    with flat.open("r+b") as file:
        file.truncate(flat.stat().st_size - 100_000)
    verification = verified(flat)
    assert not verification.crash.reads
    assert not verification.makedumpfile.reads
    assert "truncated/incomplete" in crash_log(flat)


def test_loads_at_pages_that_are_filtered(rig: Rig, source_vmcore: Path) -> None:
    rig.convert(source_vmcore)
    (remark,) = verified(rig.vmcore).makedumpfile.remarks
    assert remark.endswith("makedumpfile needs --non-mmap")
    assert verified(source_vmcore).makedumpfile.remarks == []


def test_manifest_that_names_more_than_there_is(tmp_path: Path) -> None:
    text = Manifest("test", 1, (ManifestDump("nic", 1, 1, "", "", "complete", 1, 1),)).dump()
    path = Core(device_dump(MANIFEST_NAME.encode(), text)).write(tmp_path / "vmcore")
    assert "vmcoredd_manifest: names device dump nic, not in the file" in verified(path).problems


@pytest.mark.parametrize(
    ("content", "crash_says", "makedumpfile_says"),
    [
        (b"neither" * 20000, "is neither ELF nor kdump-compressed", "is neither ELF nor kdump-compressed"),
        (b"hello", "is neither ELF nor kdump-compressed", "is neither ELF nor kdump-compressed"),
        (b"\x7fELF", "the file ends inside the ELF header", "the file ends inside the ELF header"),
        (b"\x7fELF\x02\x01\x01" + bytes(40), *["the file ends inside the ELF header"] * 2),
        (b"\x7fELF\x09\x01\x01" + bytes(500), *["EI_CLASS is 9: an ELF file has 1 or 2"] * 2),
        (
            b"\x7fELF\x02\x01\x01" + bytes(100),
            "is too small: it has 107 bytes, an ELF header and two program headers have 176",
            "is too small: it has 107 bytes, at least 464 are needed",
        ),
        (b"\x7fELF\x02\x01\x00" + bytes(500), "EI_VERSION is 0: an ELF file has 1", "has no PT_LOAD"),
        (b"NELF\x02\x01\x01" + bytes(500), "is neither ELF nor kdump-compressed", "has no PT_LOAD"),
    ],
    ids=["large", "text", "magic alone", "header cut", "EI_CLASS", "too small", "EI_VERSION", "magic"],
)
def test_what_is_no_elf_file_and_what_is_none_that_can_be_read(
    tmp_path: Path, content: bytes, crash_says: str, makedumpfile_says: str
) -> None:
    path = tmp_path / "vmcore"
    path.write_bytes(content)
    verification = verified(path)
    assert verification.crash.problems == [crash_says]
    assert verification.makedumpfile.problems[-1] == makedumpfile_says
    assert crash(path) == (False, 0)
    assert kept(path, tmp_path / "output") is None


def test_device_dumps_that_are_not_whole(tmp_path: Path) -> None:
    entries = (
        ManifestDump("nic", 1, 1, "", "", "truncated", 1, 1),
        ManifestDump("disk", 1, 1, "", "", "truncated", 1, 1, "it was killed"),
        ManifestDump("gpu", 1, 1, "", "", "complete", 1, 1),
    )
    notes = [device_dump(entry.name.encode(), b"x") for entry in entries]
    notes.append(device_dump(MANIFEST_NAME.encode(), Manifest("test", 1, entries).dump()))
    path = Core(b"".join(notes)).write(tmp_path / "vmcore")
    assert verified(path).remarks == (
        "device dump nic is truncated",
        "device dump disk is truncated: it was killed",
    )


@pytest.mark.parametrize("utsname", [b"", b"\0\0\0"])
def test_machine_that_is_not_known(bases: dict[str, Path], tmp_path: Path, utsname: bytes) -> None:
    path = copy(bases["KDUMP"], tmp_path / "vmcore")
    header = bytearray(path.read_bytes()[:464])
    if utsname:
        header[12:402] = bytes(390)
    else:
        # Four bytes early, as libkdumpfile has seen it.
        header[12:402] = header[16:402] + bytes(4)
    with path.open("r+b") as file:
        file.write(header)
    verification = verified(path)
    for verdict in (verification.crash, verification.makedumpfile):
        assert (verdict.reads, verdict.device_dumps) == (True, None)
        (remark,) = verdict.remarks
        assert remark.startswith(f"not known for machine {'' if utsname else '64'!r}: ")
    # This one takes it for its own.
    assert crash(path) == (True, 3)
    assert verification.good


def test_program_headers_that_makedumpfile_does_not_find(tmp_path: Path) -> None:
    path = qemu_elf.ordinary(tmp_path / "vmcore")
    assert verified(path).makedumpfile.problems == [
        "looks for the program headers at 64, but e_phoff is 192, as in QEMU's files: attach puts them there"
    ]
    assert kept(path, tmp_path / "output") is None
    attach_data(path, nic=b"x")
    assert (verified(path).makedumpfile.reads, verified(path).makedumpfile.device_dumps) == (True, 2)


@pytest.mark.parametrize(
    ("sample", "count"), [("s390x-6.1-qemu.flattened", 0), ("armhf-6.1-qemu.flattened", None)]
)
def test_machines_whose_crash_reads_no_device_dumps(tmp_path: Path, sample: str, count: int | None) -> None:
    path = unpack_machine(sample, tmp_path / "vmcore")
    attach_data(path, nic=b"x")
    assert verified(path).crash.device_dumps == count


def test_kdump_compressed_file_of_arm(tmp_path: Path) -> None:
    own = Kdump(notes("little", device_dump(b"nic", b"x")), b"armv7l", 32, "little", "32")
    verdict = verified(own.write(tmp_path / "vmcore")).crash
    assert (verdict.reads, verdict.device_dumps) == (True, 0)
    assert verdict.problems == [
        "on armv7l it reads no device dumps from kdump-compressed files: use vmcoredd extract"
    ]
    assert verdict.remarks == ["needs a crash that is built for armv7l"]


def of_machine(
    path: Path, e_machine: int, info: str, page: int = 4096, elfclass: int = 64, byteorder: str = "little"
) -> Verification:
    """Return what verify says of an ELF file of a machine with one device dump and this VMCOREINFO."""
    info_note = note(0, f"OSRELEASE=6.12.0\nPAGESIZE={page}\n{info}".encode(), b"VMCOREINFO\0", byteorder)
    found = device_dump(b"nic", b"x", byteorder, page) + info_note
    loads = (Load(0x10000, b"m"),)
    return verified(Core(found, loads, elfclass, byteorder, e_machine=e_machine, page=page).write(path))


@pytest.mark.parametrize(
    ("page", "bits", "actual", "makedumpfile", "crash"),
    [
        (4096, 48, 16, True, ""),
        (4096, 52, 16, False, ""),
        (4096, 52, 12, False, "version 9.0.2 walks four levels of page tables, this kernel has five"),
        (16384, 48, 16, True, ""),
        (16384, 52, 12, False, "version 9.0.2 does not support VA_BITS 52 with pages of 16384 bytes"),
        (65536, 52, 12, True, ""),
    ],
)
def test_page_tables_of_arm64(
    tmp_path: Path, page: int, bits: int, actual: int, makedumpfile: bool, crash: str
) -> None:
    info = f"NUMBER(VA_BITS)={bits}\nNUMBER(TCR_EL1_T1SZ)={actual:#x}\n"
    said = of_machine(tmp_path / "vmcore", 183, info, page)
    assert said.makedumpfile.reads == makedumpfile
    if not makedumpfile:
        unsupported = f"no version up to 1.7.9 supports VA_BITS {bits} with pages of {page} bytes"
        assert said.makedumpfile.problems == [unsupported]
    of_crash = [*said.crash.problems, *said.crash.remarks]
    assert [text for text in of_crash if text.startswith("version")] == ([crash] if crash else [])
    assert said.crash.reads == (page != 16384 or bits != 52)


def test_what_makedumpfile_needs_on_riscv64(tmp_path: Path) -> None:
    names = ["VA_BITS", "PAGE_OFFSET", "VMALLOC_START", "VMALLOC_END", "VMEMMAP_START", "VMEMMAP_END"]
    names += ["MODULES_VADDR", "MODULES_END", "KERNEL_LINK_ADDR"]
    info = "".join(f"NUMBER({name})=1\n" for name in names)
    said = of_machine(tmp_path / "vmcore", 243, info).makedumpfile
    assert said.problems == ["finds no NUMBER(va_kernel_pa_offset) in VMCOREINFO"]
    said = of_machine(tmp_path / "vmcore", 243, f"{info}NUMBER(va_kernel_pa_offset)=1\n").makedumpfile
    assert (said.reads, said.device_dumps) == (True, 1)
    assert said.remarks[0].startswith("needs a makedumpfile 1.7.4 or later that is built for riscv64; this one")


def test_mips(tmp_path: Path) -> None:
    said = of_machine(tmp_path / "vmcore", 8, "", elfclass=32, byteorder="big")
    assert (said.crash.device_dumps, said.makedumpfile.problems) == (1, ["there is none for mips of 32 bits"])
    said = of_machine(tmp_path / "vmcore", 8, "", byteorder="big")
    assert (said.makedumpfile.reads, said.makedumpfile.device_dumps) == (True, 1)
    assert said.crash.remarks[0].startswith("needs a crash 7.3.0 or later that is built for mips64")


def test_dump_with_paging(tmp_path: Path) -> None:
    info = note(0, b"OSRELEASE=6.1.0\nPAGESIZE=4096\n", b"VMCOREINFO\0")
    loads = [Load(0x1000, b"m", vaddr=0xFFFF888000001000), Load(0x1000, b"m", vaddr=0xFFFFC90000000000)]
    path = Core(device_dump(b"nic", b"x") + info, tuple(loads)).write(tmp_path / "vmcore")
    assert verified(path).makedumpfile.device_dumps is None
    path = Core(device_dump(b"nic", b"x") + info, tuple(loads[:1])).write(tmp_path / "vmcore")
    assert verified(path).makedumpfile.device_dumps == 1


@pytest.mark.parametrize(
    "header", [b"\x7fELF\x02\x01\x01", b"\x7fELF\x01\x02\x01", b"KDUMP   ", b"makedumpfile\0\0\0\0"]
)
@given(data())
@settings(max_examples=200)
def test_nothing_but_a_verification_comes_of_any_file(header: bytes, drawn: DataObject) -> None:
    """Nothing that a file can hold is an error of ours."""
    content = header + drawn.draw(binary(max_size=600))
    content += bytes(drawn.draw(sampled_from([0, 4096, 10000]))) + drawn.draw(binary(max_size=200))
    image = Image(lambda size, offset: content[offset : offset + size], len(content), "FILE")
    verification = verify(image)
    assert not verification.good
