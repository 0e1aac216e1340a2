# SPDX-License-Identifier: LGPL-2.1-or-later
"""VMCOREINFO, by which two vmcores of one crash are known; makedumpfile copies it as the kernel wrote it."""

import subprocess
from pathlib import Path

import pytest

from tests.lib.elf_writer import Core, note
from tests.lib.paths import DATA_DIRECTORY
from tests.lib.sample import unpack_machine
from tests.lib.tools import require
from vmcoredd_daemon.vmcore.formats import recognise
from vmcoredd_daemon.vmcore.image import file_image
from vmcoredd_daemon.vmcore.vmcoreinfo import crash_time, of_panic, parsed


def read(path: Path) -> bytes | None:
    with path.open("rb") as file:
        vmcore = recognise(file_image(file.fileno(), str(path)))
        return of_panic(vmcore.image, vmcore.notes())


def test_bytes_that_the_kernel_wrote() -> None:
    text = read(DATA_DIRECTORY / "proc-vmcore-prefix.bin")
    assert text is not None
    assert text.startswith(b"OSRELEASE=6.1.192\n")
    assert (crash_time(parsed(text)), parsed(text)["PAGESIZE"]) == (1795458645, "4096")
    assert not text.endswith(b"\0")


@pytest.mark.parametrize("options", [["-l"], ["-c", "-F"], ["-E"]], ids=["kdump", "flattened", "elf"])
def test_makedumpfile_copies_it(source_vmcore: Path, tmp_path: Path, options: list[str]) -> None:
    require("makedumpfile")
    vmcore = tmp_path / "vmcore"
    operands = [source_vmcore] if "-F" in options else [source_vmcore, vmcore]
    with (tmp_path / ("vmcore" if "-F" in options else "output")).open("wb") as output:
        subprocess.run(["makedumpfile", *options, "-d", "31", *operands], stdout=output, check=True)
    assert read(vmcore) == read(source_vmcore) is not None


def test_two_formats_of_one_crash(tmp_path: Path) -> None:
    names = ("i386-6.1.kdump", "i386-6.1.flattened")
    kdump, flattened = (read(unpack_machine(name, tmp_path / name)) for name in names)
    assert kdump == flattened is not None


@pytest.mark.parametrize("text", [b"OSRELEASE=6.1.0\n", b"CRASHTIME=soon\n", b"CRASHTIME=\n", b""])
def test_no_time_of_a_panic(tmp_path: Path, text: bytes) -> None:
    assert read(Core(note(0, text, b"VMCOREINFO\0")).write(tmp_path / "vmcore")) is None


def test_no_note(tmp_path: Path) -> None:
    assert read(Core(note(1, b"registers")).write(tmp_path / "vmcore")) is None
