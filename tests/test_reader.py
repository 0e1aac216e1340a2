# SPDX-License-Identifier: LGPL-2.1-or-later
"""What `make reader` builds: one file that reads vmcores with Python alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.decoders.builtin import test_nvme
from tests.lib.elf_writer import Core, device_dump
from tests.lib.paths import ROOT
from tests.lib.tools import require


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require("git")
    if not (ROOT / ".git").exists() or not (ROOT / ".venv/bin/python").exists():
        pytest.skip("not a clone with its virtual environment")
    path = tmp_path_factory.mktemp("reader") / "vmcoredd"
    subprocess.run([ROOT / ".ci/build-reader", path], cwd=ROOT, check=True, capture_output=True)
    return path


@pytest.fixture(scope="module")
def vmcore(tmp_path_factory: pytest.TempPathFactory) -> Path:
    notes = b"".join(device_dump(name.encode(), data) for name, data in test_nvme.samples())
    return Core(notes).write(tmp_path_factory.mktemp("vmcore") / "vmcore")


def run(reader: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run it with a Python that has no package of ours, and none of others."""
    command = [os.path.realpath(sys.executable), "-I", "-S", str(reader), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_it_reads(reader: Path, vmcore: Path, tmp_path: Path) -> None:
    name = "nvme_0000:03:00.0"
    done = run(reader, "show", vmcore, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)[1]["findings"]
    for arguments in (["inspect", vmcore], ["crashes", vmcore], ["extract", vmcore, "1", "-o", tmp_path / "out"]):
        done = run(reader, *arguments)
        assert (done.returncode, done.stderr) == (0, ""), arguments
    done = run(reader, "report", vmcore, "-o", tmp_path / "page.html")
    assert (done.returncode, done.stderr) == (0, "")
    assert name in (tmp_path / "page.html").read_text()
    (tmp_path / "log").write_text("text")
    assert run(reader, "attach", vmcore, f"log={tmp_path}/log").returncode == 0
    assert run(reader, "verify", vmcore).returncode in {0, 1}


def test_it_says_what_it_lacks(reader: Path) -> None:
    done = run(reader, "list")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "vmcoredd: list needs the Python module dbus_next, which is missing\n"
