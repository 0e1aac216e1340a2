# SPDX-License-Identifier: LGPL-2.1-or-later
"""Commands on a file with the headers of a /proc/vmcore of almost 2^64 bytes: notes are read, memory is not."""

import json
from pathlib import Path

import pytest

from tests.lib.core_collector import Collect
from tests.lib.external_tools import crash_names, loads, osrelease
from tests.lib.fuse import fuse_source
from tests.lib.tools import require
from tests.lib.unreachable import FILE_SIZE, MEMORY, READABLE, RELEASE, unreachable_source
from tests.lib.vmcoredd import run
from vmcoredd_daemon.manifest import MANIFEST_NAME

PROBLEM = "beyond what a file can hold: 3 of 3 PT_LOADs cannot be read"


@pytest.fixture
def beginning(tmp_path: Path) -> Path:
    """What cp writes of it before it fails."""
    return unreachable_source(tmp_path / "vmcore", readable=False)


def test_inspect_and_crashes(beginning: Path) -> None:
    done = run("inspect", "--json", beginning)
    assert (done.returncode, done.stderr) == (0, "")
    said = json.loads(done.stdout)
    assert (said["kernel_release"], said["incomplete"]) == (RELEASE, True)
    assert (said["memory"], said["memory_in_file"]) == (sum(size for _, size in MEMORY), 0)
    done = run("inspect", "--map", beginning)
    assert (done.returncode, done.stderr) == (0, "")
    done = run("crashes", beginning.parent)
    assert (done.returncode, done.stderr) == (0, "")
    assert RELEASE in done.stdout


def test_verify(beginning: Path) -> None:
    done = run("verify", "--json", beginning)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    said = json.loads(done.stdout)
    assert said["problems"] == ["the file ends before its memory"]
    assert not said["makedumpfile"]["reads"]


@pytest.mark.parametrize("readable", [False, True])
def test_attach_leaves_out_what_no_program_can_read(tmp_path: Path, readable: bool) -> None:
    require("crash")
    vmcore = unreachable_source(tmp_path / "vmcore", readable=readable)
    (tmp_path / "data").write_bytes(b"registers")
    for name in ("one", "two"):
        done = run("attach", vmcore, f"{name}={tmp_path / 'data'}")
        assert done.returncode == 0
        # The new file says of no memory that it were there.
        assert done.stderr.count("beyond what a file can hold") == (name == "one")
    assert crash_names(vmcore) == ["one", "two", MANIFEST_NAME]
    assert osrelease(vmcore) == RELEASE
    expected = [(0x1000, len(READABLE))] if readable else []
    expected += [(paddr, 0) for paddr, _ in MEMORY]
    assert [(paddr, size) for paddr, _, _, size in loads(vmcore)] == expected
    assert (READABLE in vmcore.read_bytes()) is readable
    assert run("extract", vmcore, "two").stdout == "registers"


def test_core_collector_says_what_makedumpfile_says(collect: Collect, tmp_path: Path) -> None:
    require("makedumpfile")
    original = unreachable_source(tmp_path / "original", readable=False)
    with fuse_source(original, tmp_path / "fuse") as source:
        source.size, source.end = FILE_SIZE, original.stat().st_size
        done = collect("-l", "-d", "31", source.path, tmp_path / "vmcore")
    assert done.returncode == 1
    assert "makedumpfile Failed" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
