# SPDX-License-Identifier: LGPL-2.1-or-later
"""The names of the kernel that died, from files of each format."""

import errno
import subprocess
from pathlib import Path

import pytest

from tests.lib.elf_writer import PAGE, Core, Load, note
from tests.lib.tools import require
from vmcoredd_daemon.vmcore.formats import recognise
from vmcoredd_daemon.vmcore.image import Image, file_image
from vmcoredd_daemon.vmcore.utsname import Utsname, read_utsname

NAMES = ("Linux", "db7.example.org", "6.1.0-56-amd64", "#1 SMP", "x86_64", "(none)")
ADDRESS = 0xFFFFFFFF81000000


def names(path: Path) -> Utsname | None:
    with path.open("rb") as file:
        return read_utsname(recognise(file_image(file.fileno(), str(path))))


def utsname(*fields: str) -> bytes:
    return b"".join(field.encode("latin-1")[:64].ljust(65, b"\0") for field in fields)


def of_elf(tmp_path: Path, info: str, memory: bytes, vaddr: int = ADDRESS) -> Utsname | None:
    """Return the names in an ELF vmcore with this VMCOREINFO and memory."""
    notes = note(0, info.encode(), b"VMCOREINFO\0")
    return names(Core(notes, (Load(0x1000, memory.ljust(PAGE, b"\0"), vaddr=vaddr),)).write(tmp_path / "vmcore"))


INFO = f"SYMBOL(init_uts_ns)={ADDRESS + 8:x}\nOFFSET(uts_namespace.name)=4\n"


def test_real_vmcore(source_vmcore: Path) -> None:
    found = names(source_vmcore)
    assert found is not None
    # The machine of the sample was never given a name.
    assert (found.nodename, found.machine) == ("", "x86_64")
    assert found.release.startswith("6.1.0-")
    assert found.version.startswith("#1 SMP")


def test_filtered_vmcore_has_the_same_names(source_vmcore: Path, tmp_path: Path) -> None:
    require("makedumpfile")
    for options in (["-d31", "-z"], ["-d31", "-E"]):
        filtered = tmp_path / options[-1]
        subprocess.run(["makedumpfile", *options, source_vmcore, filtered], check=True, capture_output=True)
        assert names(filtered) == names(source_vmcore)


def test_elf_by_address_and_offset(tmp_path: Path) -> None:
    expected = Utsname("db7.example.org", "6.1.0-56-amd64", "#1 SMP", "x86_64")
    assert of_elf(tmp_path, INFO, bytes(12) + utsname(*NAMES)) == expected


def test_what_is_not_printable_stays_as_in_the_file(tmp_path: Path) -> None:
    found = of_elf(tmp_path, INFO, bytes(12) + utsname("Linux", "\x1b[31m\xe9", "6", "7", "8", "9"))
    assert found is not None
    assert found.nodename == "\x1b[31m\\xe9"


@pytest.mark.parametrize(
    ("info", "memory", "vaddr"),
    [
        ("", bytes(12) + utsname(*NAMES), ADDRESS),
        ("SYMBOL(init_uts_ns)=ffffffff81000008\n", bytes(12) + utsname(*NAMES), ADDRESS),
        ("SYMBOL(init_uts_ns)=elsewhere\nOFFSET(uts_namespace.name)=4\n", bytes(12) + utsname(*NAMES), ADDRESS),
        ("SYMBOL(init_uts_ns)=-8\nOFFSET(uts_namespace.name)=-4\n", utsname(*NAMES), ADDRESS),
        # The memory is not in the file, or was filtered out.
        (INFO, bytes(12) + utsname(*NAMES), 0xFFFF888000000000),
        (INFO, b"", ADDRESS),
        # They end beyond the segment.
        (INFO, bytes(PAGE - 100) + utsname(*NAMES), ADDRESS - PAGE + 100 + 12),
    ],
)
def test_names_that_are_not_there(tmp_path: Path, info: str, memory: bytes, vaddr: int) -> None:
    assert of_elf(tmp_path, info, memory[:PAGE], vaddr) is None


def test_names_that_cannot_be_read(tmp_path: Path) -> None:
    """The rest of the vmcore may be intact."""
    notes = note(0, INFO.encode(), b"VMCOREINFO\0")
    path = Core(notes, (Load(0x1000, bytes(PAGE), vaddr=ADDRESS),)).write(tmp_path / "vmcore")
    data = path.read_bytes()

    def pread(size: int, offset: int) -> bytes:
        if size == 6 * 65:
            raise OSError(errno.EIO, "Input/output error")
        return data[offset : offset + size]

    assert read_utsname(recognise(Image(pread, len(data), "FILE"))) is None
