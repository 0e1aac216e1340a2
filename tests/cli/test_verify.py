# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmcoredd verify, as a process; tests/vmcore/inspect has what is predicted of every kind of fault."""

import json
import shutil
from pathlib import Path

import pytest

from tests.lib.attaching import attach_data
from tests.lib.corrupt_vmcores import ELF
from tests.lib.elf_writer import device_dump
from tests.lib.kdump_writer import Kdump, notes
from tests.lib.vmcoredd import run


@pytest.fixture
def real(source_vmcore: Path, tmp_path: Path) -> Path:
    path = Path(shutil.copy(source_vmcore, tmp_path / "vmcore"))
    attach_data(path, nic=b"registers")
    return path


def test_good_vmcore(real: Path) -> None:
    result = run("verify", real)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == (
        f"      Vmcore: {real} (88.4M)\n"
        "      Format: elf\n"
        "Device dumps: 1 and the manifest\n"
        "   Checksums: 1 ok\n"
        "   Structure: ok\n"
        "       crash: lists 2 device dumps\n"
        "makedumpfile: keeps 2 device dumps\n"
    )


def test_exact_size(real: Path) -> None:
    first = run("verify", "--bytes", real).stdout.splitlines()[0]
    assert first == f"      Vmcore: {real} ({real.stat().st_size} bytes)"


def test_truncated_device_dump(truncated: Path) -> None:
    result = run("verify", truncated)
    counted = "Device dumps: 1 and the manifest; 1 truncated\n"
    assert f"{counted}              device dump nic is truncated: late\n   Checksums: " in result.stdout
    remarks = json.loads(run("verify", "--json", truncated).stdout)["remarks"]
    assert remarks == ["device dump nic is truncated: late"]


def test_json_of_a_good_vmcore(real: Path) -> None:
    reader = {"reads": True, "vmcoreinfo": True, "device_dump_count": 2, "problems": [], "remarks": []}
    assert json.loads(run("verify", "--json", real).stdout) == {
        "path": str(real),
        "size": real.stat().st_size,
        "good": True,
        "format": "elf",
        "device_dump_count": 2,
        "checksums": {"ok": 1, "altered": 0, "none": 0},
        "problems": [],
        "remarks": [],
        "crash": reader,
        "makedumpfile": reader,
    }


def test_altered_data(real: Path) -> None:
    ELF["data altered"](real)
    result = run("verify", real)
    assert result.returncode == 1
    problem = "device dump nic does not match the SHA-256 in its manifest"
    assert result.stderr == f"vmcoredd: {real}: {problem}\n"
    assert f"   Structure: {problem}\n       crash: lists 2 device dumps\n" in result.stdout


def test_everything_is_wrong(real: Path) -> None:
    ELF["PT_NOTE is not the first"](real)
    ELF["data altered"](real)
    result = run("verify", real)
    assert result.returncode == 1
    assert result.stderr.startswith(f"vmcoredd: {real}: ")
    assert result.stderr.endswith(" more\n")
    assert result.stderr.count("\n") == 1
    lines = result.stdout.splitlines()
    assert "       crash: lists 0 device dumps" in lines
    assert "              finds no VMCOREINFO in the notes of the first segment" in lines


def test_what_is_no_vmcore(tmp_path: Path) -> None:
    path = tmp_path / "vmcore"
    path.write_text("hello")
    result = run("verify", path)
    assert result.returncode == 1
    assert result.stdout == (
        f"      Vmcore: {path} (5B)\n"
        "   Structure: is neither ELF, kdump-compressed nor flattened\n"
        "       crash: refuses it: is neither ELF nor kdump-compressed\n"
        "makedumpfile: refuses it: is neither ELF nor kdump-compressed\n"
    )


def test_what_is_not_known(tmp_path: Path) -> None:
    path = Kdump(notes("little", device_dump(b"nic", b"x")), b"64").write(tmp_path / "vmcore")
    result = run("verify", path)
    assert (result.returncode, result.stderr) == (0, "")
    assert (
        "       crash: how many device dumps it lists is not known\n"
        "              not known for machine '64': crash takes it for the one that it is built for\n"
    ) in result.stdout
    assert json.loads(run("verify", "--json", path).stdout)["crash"]["device_dump_count"] is None
