# SPDX-License-Identifier: LGPL-2.1-or-later
"""docs/analysis.md, as it stands there: each session is run on a vmcore of a real panic."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path
from types import SimpleNamespace

import pytest

from docs.drgn_device_dumps import decoded, device_dumps
from tests.decoders.builtin import test_nvme
from tests.kdump import rig
from tests.lib.attaching import attach_data
from tests.lib.elf_writer import Core, device_dump
from tests.lib.kdump_writer import Kdump, notes
from tests.lib.paths import ROOT
from tests.lib.sessions import check_session, make_files, sessions
from tests.lib.tools import installed_program, require
from vmcoredd_daemon.manifest import MANIFEST_NAME

DOCS = ROOT / "docs"
ANALYSIS = (DOCS / "analysis.md").read_text()
SCRIPT = DOCS / "drgn_device_dumps.py"
NEED_SYMBOLS = ("vmlinux", "drgn")


def by_need(*, symbols: bool) -> list[tuple[str, str]]:
    """The commands up to those of crash and drgn, and with them."""
    found = []
    for command, output in sessions(ANALYSIS):
        needs = any(word in command for word in (*NEED_SYMBOLS, "hba.bin", "hba.txt", "saved"))
        if symbols or not needs:
            found.append((command, output))
    return found


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with what the sessions begin with, but the vmcore."""
    require("makedumpfile", "crash", "eu-readelf", "readelf")
    make_files(tmp_path)
    shutil.copy(SCRIPT, tmp_path)
    monkeypatch.setenv("PATH", f"{sysconfig.get_path('scripts')}:/usr/bin:/bin:/usr/sbin:/sbin")
    return tmp_path


def test_sessions_that_need_no_symbols(source_vmcore: Path, directory: Path) -> None:
    shutil.copy(source_vmcore, directory / "vmcore")
    commands = by_need(symbols=False)
    assert len(commands) == 22
    for command, output in commands:
        check_session(command, output, directory)


@pytest.mark.debuginfo
@pytest.mark.timeout(300)
def test_all_sessions(panic_result: rig.PanicResult, vmlinux: Path, directory: Path) -> None:
    shutil.copy(panic_result.vmcore, directory / "vmcore")
    (directory / "vmlinux").symlink_to(vmlinux)
    for command, output in by_need(symbols=True):
        check_session(command, output, directory)
    # What is typed into drgn.
    lines = [line.strip() for line in ANALYSIS.partition(">>> ")[2].partition("\n\n")[0].splitlines()]
    typed = [line.removeprefix(">>> ") for line in [f">>> {lines[0]}", *lines[1:]] if line.startswith(">>> ")]
    printed = [line for line in lines[1:] if not line.startswith(">>> ")]
    program = "\n".join([*typed[:2], *(f"print({line})" for line in typed[2:])])
    assert drgn(directory / "vmcore", "-e", program, directory=directory) == printed


@pytest.mark.parametrize("kind", ["elf", "kdump"])
def test_damaged_headers_have_one_error(tmp_path: Path, kind: str) -> None:
    """No drgn is needed to read notes: it says only where the vmcore is."""
    dump = device_dump(b"nic", b"n")
    core = (Core(dump) if kind == "elf" else Kdump(notes("little", dump))).write(tmp_path / "core")
    whole, chosen = core.read_bytes(), random.Random(1)
    assert list(device_dumps(SimpleNamespace(core_dump_path=str(core)))) == ["nic"]
    outcomes = set()
    for _ in range(1000):
        damaged = bytearray(whole)
        for _ in range(chosen.randrange(1, 6)):
            damaged[chosen.randrange(len(whole)) if chosen.random() < 0.2 else chosen.randrange(200)] ^= 0x80
        if chosen.random() < 0.3:
            del damaged[chosen.randrange(len(damaged)) :]
        core.write_bytes(damaged)
        try:
            device_dumps(SimpleNamespace(core_dump_path=str(core)))
        except ValueError as error:
            outcomes.add(str(error).partition(": ")[0])
        else:
            outcomes.add("read")
    assert outcomes == {str(core), "read"}


def test_decoded_device_dumps(tmp_path: Path) -> None:
    name, data = test_nvme.samples()[1]
    core = Core(device_dump(name.encode(), data)).write(tmp_path / "core")
    drive = decoded(SimpleNamespace(core_dump_path=str(core)))[name]
    assert any("media error" in finding for finding in drive.findings)


@pytest.mark.debuginfo
@pytest.mark.parametrize("kind", ["elf", "kdump"])
def test_drgn_reads_what_vmcoredd_reads(source_vmcore: Path, directory: Path, kind: str) -> None:
    vmcore = directory / "vmcore"
    if kind == "elf":
        shutil.copy(source_vmcore, vmcore)
    else:
        subprocess.run(
            ["makedumpfile", "--non-mmap", "-l", source_vmcore, vmcore], check=True, capture_output=True
        )
    dumps = {"nic_0000:02:00.4": bytes(range(256)) * 300, "disk": b"d", "page": bytes(4032)}
    attach_data(vmcore, **dumps)
    listed = drgn(vmcore, SCRIPT, "out", directory=directory)
    inspect = [str(installed_program("vmcoredd")), "inspect", "--json", str(vmcore)]
    found = json.loads(subprocess.run(inspect, capture_output=True, check=True).stdout)["device_dumps"]
    states = {True: "ok", False: "altered", None: "-"}
    assert [re.split(" +", line.strip(), maxsplit=4) for line in listed] == [
        [
            str(dump["index"]),
            f"{dump['offset']:#x}",
            str(dump["buffer_size"]),
            states[dump["verified"]],
            dump["name"],
        ]
        for dump in found
    ]
    saved = {file.name: file.read_bytes() for file in (directory / "out").iterdir()}
    assert json.loads(saved.pop(MANIFEST_NAME).rstrip(b"\0"))["version"] == 1
    assert saved == dumps


def drgn(vmcore: Path, *arguments: str | Path, directory: Path) -> list[str]:
    """Run drgn on *vmcore*, without symbols; return the lines that it prints."""
    command = [installed_program("drgn"), "--quiet", "--no-default-symbols", "-c", vmcore, *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=directory)
    assert (run.returncode, run.stderr) == (0, "")
    return run.stdout.splitlines()
