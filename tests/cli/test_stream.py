# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmcoredd attach --stream, in a pipe."""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.lib.elf_writer import Core, Load, note
from tests.lib.flattened_writer import flatten
from tests.lib.vmcoredd import run
from vmcoredd_daemon.manifest import MANIFEST_NAME

VMCOREINFO = note(0, b"OSRELEASE=6.1\n", b"VMCOREINFO\0")


@pytest.fixture
def flat(tmp_path: Path) -> bytes:
    core = Core(VMCOREINFO, (Load(0x1000, b"\1" * 5000),)).write(tmp_path / "core")
    return flatten([(0, core.read_bytes())])


def inspect(path: Path, data: bytes) -> dict[str, object]:
    path.write_bytes(data)
    result = run("inspect", "--json", path)
    assert (result.returncode, result.stderr) == (0, "")
    return json.loads(result.stdout)  # type: ignore[no-any-return]


def test_attach(flat: bytes, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"big" * 50_000)
    dumps = [f"nic={tmp_path}/big", "kernel=/proc/version"]
    result = run("attach", "--stream", *dumps, input=flat, text=False)
    assert (result.returncode, result.stderr) == (0, b"")
    found = inspect(tmp_path / "out", result.stdout)
    assert found["format"] == "flattened"
    listed = [(dump["name"], dump["size"], dump["verified"]) for dump in found["device_dumps"]]  # type: ignore[attr-defined]
    version = len(Path("/proc/version").read_bytes())
    assert listed[:2] == [("nic", 150_000, True), ("kernel", version, True)]
    assert listed[2][0] == MANIFEST_NAME
    extracted = run("extract", tmp_path / "out", "nic", text=False)
    assert extracted.stdout == b"big" * 50_000


def test_file_that_is_missing_costs_only_itself(flat: bytes, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    arguments = [f"a={tmp_path}/missing", f"b={tmp_path}/empty", f"c={tmp_path}", "e=/dev/zero", "d=/proc/version"]
    result = run("attach", "--stream", *arguments, input=flat, text=False)
    assert result.returncode == 1
    assert result.stderr.decode() == (
        f"vmcoredd: device dump a is not attached: {tmp_path}/missing: No such file or directory; "
        f"device dump b is not attached: {tmp_path}/empty: is empty; "
        f"device dump c is not attached: {tmp_path}: is a directory; "
        "device dump e is not attached: /dev/zero: has more than 268435456 bytes and does not give its size\n"
    )
    found = inspect(tmp_path / "out", result.stdout)
    assert [dump["name"] for dump in found["device_dumps"]] == ["d", MANIFEST_NAME]  # type: ignore[attr-defined]
    assert [failure["name"] for failure in found["failures"]] == ["a", "b", "c", "e"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["nic"], 2, "'nic' is not NAME=FILE"),
        (["nic="], 2, "'nic=' is not NAME=FILE"),
        (["=/proc/version"], 1, "the dump name is empty"),
        ([f"{MANIFEST_NAME}=/proc/version"], 1, f"dump name {MANIFEST_NAME} is reserved for the manifest"),
        (["a=/proc/version", "a=/proc/mounts"], 1, "dump name a is given twice"),
    ],
)
def test_memory_passes_whatever_is_asked_for(flat: bytes, arguments: list[str], status: int, message: str) -> None:
    result = run("attach", "--stream", *arguments, input=flat, text=False)
    assert (result.returncode, result.stdout) == (status, flat)
    assert result.stderr.decode() == f"vmcoredd: {message}\n"


@pytest.mark.parametrize("data", [b"", b"neither", flatten([(0, b"neither" * 9)]) + b"rest"])
def test_what_is_no_vmcore_passes(data: bytes) -> None:
    result = run("attach", "--stream", "nic=/proc/version", input=data, text=False)
    assert (result.returncode, result.stdout) == (1, data)
    assert result.stderr.startswith(b"vmcoredd: standard input: ")
    assert result.stderr.count(b"\n") == 1


def test_standard_output_that_is_full(flat: bytes) -> None:
    with open("/dev/full", "wb") as full:
        result = run("attach", "--stream", "nic=/proc/version", input=flat, text=False, stdout=full)
    assert (result.returncode, result.stderr) == (1, b"vmcoredd: standard output: No space left on device\n")


def test_standard_output_that_nobody_reads(flat: bytes) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        result = run("attach", "--stream", "nic=/proc/version", input=flat, text=False, stdout=writer)
    finally:
        os.close(writer)
    assert (result.returncode, result.stderr) == (-signal.SIGPIPE, b"")
