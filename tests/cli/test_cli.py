# SPDX-License-Identifier: LGPL-2.1-or-later
"""What all commands have in common: help, usage, and output that goes nowhere."""

import errno
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lib.elf_writer import Core, device_dump
from tests.lib.service import Service
from tests.lib.tools import require
from tests.lib.vmcore_dumps import DATA, GOLDEN, SHA256
from tests.lib.vmcoredd import VMCOREDD, run, run_in_terminal
from vmcoredd_daemon import __version__
from vmcoredd_daemon.manifest import MANIFEST_NAME

COMMANDS = [
    *("check", "add", "run", "list", "status", "write", "remove"),
    *("crashes", "inspect", "show", "report", "diff", "verify", "extract", "attach"),
    "resolve",
]


def test_hostile_names_never_reach_the_terminal(tmp_path: Path) -> None:
    path = Core(device_dump(b"\x1b]0;owned\x07\x9b\n", b"x")).write(tmp_path / "vm\ncore\x1b")
    table = run("inspect", path)
    assert r"0  \x1b]0;owned\x07\x9b\n  3.9K  -" in table.stdout
    assert "\x1b" not in table.stdout
    assert "\x1b" not in run("inspect", "--json", path).stdout
    missing = run("extract", path, "\x1b[2J")
    assert missing.stderr == f"vmcoredd: {tmp_path}/vm\\ncore\\x1b: has no device dump \\x1b[2J\n"


@pytest.mark.parametrize("command", [["inspect"], ["extract", "0"]])
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, os.strerror(errno.ENOENT)),
        (lambda path: path.touch(), "the file is empty"),
        (lambda path: path.mkdir(), "is a directory"),
        (os.mkfifo, "is neither a regular file nor a block device"),
        (lambda path: path.write_text("hello"), "is neither ELF, kdump-compressed nor flattened"),
        (lambda path: path.write_bytes(GOLDEN.read_bytes()[:100]), "the file ends at offset 0x64, inside the"),
        (lambda path: path.write_bytes(GOLDEN.read_bytes()[:0x2000]), "PT_NOTE ends at"),
        (lambda path: path.symlink_to(path), os.strerror(errno.ELOOP)),
    ],
)
def test_file_that_is_no_vmcore(
    tmp_path: Path, command: list[str], make: Callable[[Path], object], reason: str
) -> None:
    path = tmp_path / "vmcore"
    make(path)
    result = run(command[0], path, *command[1:])
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"vmcoredd: {path}: {reason}")
    assert result.stderr.count("\n") == 1


def test_no_permission(vmcore: Path) -> None:
    vmcore.chmod(0)
    # Root has to give up what lets it read any file.
    unprivileged = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    require(*unprivileged[:1])
    command = [*unprivileged, *VMCOREDD, "inspect", str(vmcore)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (1, f"vmcoredd: {vmcore}: {os.strerror(errno.EACCES)}\n")


@pytest.mark.parametrize("command", [["inspect", GOLDEN], ["extract", GOLDEN, "3"], ["--help"], ["--version"]])
def test_standard_output_that_is_full(command: list[object]) -> None:
    with open("/dev/full", "wb") as full:
        result = run(*command, stdout=full)
    assert (result.returncode, result.stderr) == (1, "vmcoredd: standard output: No space left on device\n")


@pytest.mark.parametrize("command", [["inspect", GOLDEN], ["extract", GOLDEN, "3"]])
def test_standard_output_that_nobody_reads(command: list[object]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        result = run(*command, stdout=writer)
    finally:
        os.close(writer)
    assert (result.returncode, result.stderr) == (-signal.SIGPIPE, "")


@pytest.mark.parametrize("command", ["inspect", "extract"])
def test_standard_output_that_is_closed(command: str) -> None:
    arguments = [*VMCOREDD, command, str(GOLDEN), *(["3"] if command == "extract" else [])]
    closed = ["bash", "-c", 'exec "$@" >&-', "-", *arguments]
    result = subprocess.run(closed, stderr=subprocess.PIPE, text=True, check=False)
    assert (result.returncode, result.stderr) == (1, "vmcoredd: standard output is closed\n")


def test_message_that_the_locale_has_no_characters_for(vmcore: Path) -> None:
    path = vmcore.rename(vmcore.with_name("vmcore-ä"))
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    result = run("extract", path, "x", env=environment)
    assert result.stderr == f"vmcoredd: {path.parent}/vmcore-\\xe4: has no device dump x\n"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "the following arguments are required: COMMAND (see vmcoredd --help)"),
        (["inspct"], "there is no command inspct, did you mean inspect? (see vmcoredd --help)"),
        (["xyzzy\x1b"], r"there is no command xyzzy\x1b (see vmcoredd --help)"),
        (["inspect"], "the following arguments are required: VMCORE (see vmcoredd inspect --help)"),
        (["inspect", "x", "--jso"], "unrecognized arguments: --jso (see vmcoredd inspect --help)"),
        (["list", "\x1b"], r"unrecognized arguments: \x1b (see vmcoredd list --help)"),
    ],
)
def test_wrong_usage(arguments: list[str], reason: str) -> None:
    result = run(*arguments)
    assert (result.returncode, result.stdout, result.stderr) == (2, "", f"vmcoredd: {reason}\n")


def test_help_and_version() -> None:
    first, second = run("--version").stdout.splitlines()
    assert first == f"vmcoredd {__version__}"
    assert re.fullmatch(r"Python 3\.[0-9.]+, dbus-next .*, pyelftools .*, systemd-python .*", second)
    for options in (["--version", "--json"], ["-j", "--version"]):
        assert json.loads(run(*options).stdout)["vmcoredd"] == __version__
    for arguments in ([], *([command] for command in COMMANDS)):
        result = run(*arguments, "--help")
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout.startswith(" ".join(["usage: vmcoredd" if arguments else "vmcoredd", *arguments]))
        assert run("help", *arguments).stdout == result.stdout
        lines = result.stdout.splitlines()
        assert len(lines) <= 30
        assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("columns", [40, 60, 200])
def test_help_fits_the_terminal(columns: int) -> None:
    for arguments in ([], ["add"], ["extract"]):
        # The usage before the first empty line is one line for each way to call it.
        _, *lines = "\n".join(run_in_terminal(columns, *arguments, "--help")).partition("\n\n")[2].splitlines()
        assert max(map(len, lines)) <= min(columns, 80)
    assert any("list the vmcores of crashes" in line for line in run_in_terminal(200, "--help"))


def test_help_names_every_command() -> None:
    listed = re.findall(r"^  ([a-z-]+)", run("--help").stdout, re.MULTILINE)
    assert sorted(listed) == sorted([*COMMANDS, "core-collector"])


def test_vmcore_of_the_daemon(daemon: Service, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_bytes(DATA)
    assert run("add", "--bus-address", daemon.address, "nic", data).returncode == 0
    assert daemon.stop() == 0
    nic, manifest = json.loads(run("inspect", "--json", daemon.vmcore()).stdout)["device_dumps"]
    assert (nic["name"], nic["size"], nic["sha256"], nic["verified"]) == ("nic", len(DATA), SHA256, True)
    assert (manifest["name"], manifest["verified"]) == (MANIFEST_NAME, None)
    assert run("extract", daemon.vmcore(), "nic", text=False).stdout == DATA
    text = run("extract", daemon.vmcore(), MANIFEST_NAME).stdout
    assert json.loads(text)["device_dumps"][0]["name"] == "nic"
    assert manifest["size"] == len(text)
