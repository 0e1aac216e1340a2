# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmcoredd add, list, status, write and remove, with a real daemon on a real bus."""

import errno
import hashlib
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.lib.service import Service
from tests.lib.vmcoredd import VMCOREDD, run
from vmcoredd_daemon import __version__
from vmcoredd_daemon.progress import human_size

Vmcoredd = Callable[..., "subprocess.CompletedProcess[Any]"]


@pytest.fixture
def vmcoredd(daemon: Service) -> Vmcoredd:
    """Run the program with that daemon."""

    def run_there(command: str, *arguments: object, **options: Any) -> "subprocess.CompletedProcess[Any]":
        return run(command, "--bus-address", daemon.address, *arguments, **options)

    return run_there


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "registers"
    path.write_bytes(b"registers of the nic")
    return path


def ok(result: "subprocess.CompletedProcess[Any]") -> str:
    """Return what a successful run has printed."""
    assert (result.returncode, result.stderr) == (0, "")
    return str(result.stdout)


def failed(result: "subprocess.CompletedProcess[Any]", returncode: int = 1) -> str:
    """Return the one line that a failed run has said why."""
    assert (result.returncode, result.stdout) == (returncode, "")
    assert result.stderr.startswith("vmcoredd: ")
    assert result.stderr.count("\n") == 1
    return str(result.stderr).removeprefix("vmcoredd: ").rstrip("\n")


def listed(vmcoredd: Vmcoredd) -> list[dict[str, Any]]:
    dumps = json.loads(ok(vmcoredd("list", "--json")))
    assert isinstance(dumps, list)
    return dumps


def test_add_file_and_list_it(vmcoredd: Vmcoredd, data: Path) -> None:
    before = time.time_ns() // 1000
    assert ok(vmcoredd("add", "nic0", data)) == ""
    (dump,) = listed(vmcoredd)
    assert before <= dump.pop("started_usec") <= dump.pop("finished_usec") <= time.time_ns() // 1000
    assert re.match(r"python3[.0-9]*\[", dump.pop("collector"))
    assert dump == {
        "name": "nic0",
        "size": 20,
        "state": "complete",
        "object": "/org/vmcoredd1/dump/1",
        "sha256": hashlib.sha256(data.read_bytes()).hexdigest(),
        "limit": 20,
        "buffer_size": 4032,
        "error": None,
        "kind": None,
    }
    table = ok(vmcoredd("list")).splitlines()
    assert table[0].split() == ["NAME", "STATE", "SIZE", "COLLECTOR"]
    assert table[1].split()[:3] == ["nic0", "complete", "20B"]


def test_nothing_to_list(vmcoredd: Vmcoredd) -> None:
    assert listed(vmcoredd) == []
    assert ok(vmcoredd("list")).split() == ["NAME", "STATE", "SIZE", "COLLECTOR"]


@pytest.mark.parametrize("file", [[], ["-"]])
def test_add_standard_input_that_is_a_file(vmcoredd: Vmcoredd, data: Path, file: list[str]) -> None:
    with data.open("rb") as stdin:
        stdin.seek(10)
        # Only what is still to be read counts.
        os.lseek(stdin.fileno(), 10, os.SEEK_SET)
        assert ok(vmcoredd("add", "nic0", *file, stdin=stdin)) == ""
    assert [(dump["size"], dump["limit"]) for dump in listed(vmcoredd)] == [(10, 10)]


def test_add_from_a_pipe(vmcoredd: Vmcoredd) -> None:
    assert ok(vmcoredd("add", "nic0", "--size", "1K", input="from a pipe")) == ""
    assert [(dump["size"], dump["limit"], dump["state"]) for dump in listed(vmcoredd)] == [(11, 1024, "complete")]


@pytest.mark.parametrize("file", [[], ["-"]])
def test_add_from_a_pipe_needs_a_size(vmcoredd: Vmcoredd, file: list[str]) -> None:
    reason = failed(vmcoredd("add", "nic0", *file, input="from a pipe"), 2)
    assert reason == "standard input is not a regular file, so its size is unknown: use --size"
    assert listed(vmcoredd) == []


@pytest.mark.parametrize("file", [None, "/dev/null"])
def test_add_of_nothing_is_a_failure(vmcoredd: Vmcoredd, file: str | None) -> None:
    """So a pipe looks behind a program that has failed."""
    result = vmcoredd("add", "nic0", *([file] if file else []), "--size", "1M", input="")
    assert failed(result) == "device dump nic0: no data were received"
    assert [(dump["name"], dump["state"]) for dump in listed(vmcoredd)] == [("nic0", "failed")]
    # The next try has the name, and takes the place of what failed.
    ok(vmcoredd("add", "nic0", "--size", "1M", input="second"))
    assert [(dump["name"], dump["size"]) for dump in listed(vmcoredd)] == [("nic0", 6)]


def test_add_of_standard_input_that_is_closed(daemon: Service, vmcoredd: Vmcoredd) -> None:
    words = ["add", "nic0", "--size", "1M", "--bus-address", str(daemon.address)]
    closed = ["bash", "-c", 'exec "$@" <&-', "-", *VMCOREDD, *words]
    assert failed(subprocess.run(closed, capture_output=True, text=True, check=False)) == (
        "standard input is closed"
    )
    assert listed(vmcoredd) == []


def test_add_more_than_fits_warns(vmcoredd: Vmcoredd, data: Path) -> None:
    result = vmcoredd("add", "nic0", data, "--size", "9")
    assert (result.returncode, result.stdout) == (0, "")
    assert result.stderr == f"vmcoredd: device dump nic0 is truncated to 9 bytes: {data} has more\n"
    assert [(dump["size"], dump["state"]) for dump in listed(vmcoredd)] == [(9, "truncated")]


@pytest.mark.parametrize(("size", "limit"), [("1", 1), ("4K", 4096), ("2M", 2 << 20)])
def test_sizes(vmcoredd: Vmcoredd, size: str, limit: int) -> None:
    assert ok(vmcoredd("add", "nic0", "--size", size, input="x")) == ""
    assert [dump["limit"] for dump in listed(vmcoredd)] == [limit]


@pytest.mark.parametrize("size", ["0", "-1", "1.5M", "4k", "4KB", "K", "", "99999999999999999"])
def test_bad_sizes(size: str) -> None:
    assert failed(run("add", "nic0", f"--size={size}"), 2).startswith(
        f"argument --size: {size!a} is not a size in bytes (with K, M or G)"
    )


@pytest.mark.parametrize("timeout", ["0", "-1", "nan", "inf", "1e9", "soon"])
def test_bad_timeouts(timeout: str) -> None:
    reason = failed(run("add", "nic0", f"--timeout={timeout}"), 2)
    assert reason.startswith(f"argument --timeout: {timeout!a} is not a time in seconds")


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("", [], "the dump name is empty"),
        ("x" * 44, [], f"dump name '{'x' * 44}' has 44 bytes, at most 43 are allowed"),
        ("a\x1bb", [], r"dump name 'a\x1bb' has characters other than printable ASCII"),
        (
            "nic",
            ["--size", "5G"],
            "device dump nic: 5368709120 bytes do not fit the 32-bit size of a note",
        ),
        ("nic", ["--size", "1G"], "device dump nic: 1073745920 bytes exceed MaxDumpSize=268435456"),
        ("vmcoredd_manifest", [], "device dump vmcoredd_manifest: the name is reserved for the manifest"),
    ],
)
def test_what_is_refused(vmcoredd: Vmcoredd, data: Path, name: str, options: list[str], reason: str) -> None:
    assert failed(vmcoredd("add", name, data, *options)) == reason
    assert listed(vmcoredd) == []


def test_name_in_use(vmcoredd: Vmcoredd, data: Path) -> None:
    ok(vmcoredd("add", "nic0", data))
    assert failed(vmcoredd("add", "nic0", data)) == "device dump nic0: the name is in use"


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("/nowhere", "/nowhere: No such file or directory"),
        ("/proc", "/proc: is a directory"),
        (
            "/proc/version",
            "/proc/version: is empty, or like files of /proc does not give its size: use --size",
        ),
    ],
)
def test_files_that_cannot_be_added(vmcoredd: Vmcoredd, file: str, reason: str) -> None:
    assert failed(vmcoredd("add", "nic0", file)) == reason


def test_file_of_proc_with_a_size(vmcoredd: Vmcoredd) -> None:
    ok(vmcoredd("add", "version", "/proc/version", "--size", "4K"))
    assert [dump["size"] for dump in listed(vmcoredd)] == [len(Path("/proc/version").read_bytes())]


def test_collecting_takes_no_longer_than_its_timeout(vmcoredd: Vmcoredd) -> None:
    reader, writer = os.pipe()
    try:
        result = vmcoredd("add", "nic0", "--size", "9", "--timeout", "0.2", stdin=reader)
    finally:
        os.close(reader)
        os.close(writer)
    reason = "device dump nic0: the collector did not finish within 0.2 s"
    assert failed(result) == reason
    assert [(dump["state"], dump["error"]) for dump in listed(vmcoredd)] == [("failed", reason)]
    table = ok(vmcoredd("list")).splitlines()
    assert table[0].split() == ["NAME", "STATE", "SIZE", "COLLECTOR"]
    assert table[2] == "  the collector did not finish within 0.2 s"


def test_fifo_without_a_writer(vmcoredd: Vmcoredd, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    result = vmcoredd("add", "nic0", tmp_path / "fifo", "--size", "9", "--timeout", "0.5", timeout=20)
    assert failed(result) == "device dump nic0: the collector did not finish within 0.5 s"


def test_fifo_that_gets_a_writer(vmcoredd: Vmcoredd, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    def write() -> None:
        time.sleep(1.5)
        with fifo.open("wb", buffering=0) as file:
            file.write(b"da")
            time.sleep(0.3)
            file.write(b"ta")

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    ok(vmcoredd("add", "nic0", fifo, "--size", "9", "--timeout", "20", timeout=40))
    writer.join()
    assert [(dump["state"], dump["size"]) for dump in listed(vmcoredd)] == [("complete", 4)]


def test_remove(vmcoredd: Vmcoredd, data: Path) -> None:
    ok(vmcoredd("add", "nic0", data))
    ok(vmcoredd("add", "nic1", data))
    assert ok(vmcoredd("remove", "nic0")) == ""
    assert [dump["name"] for dump in listed(vmcoredd)] == ["nic1"]
    assert failed(vmcoredd("remove", "nic0")) == "there is no device dump 'nic0'"


def test_status_and_write(vmcoredd: Vmcoredd, daemon: Service, data: Path, source_vmcore: Path) -> None:
    ok(vmcoredd("add", "nic0", data))
    before = json.loads(ok(vmcoredd("status", "--json")))
    assert before == {
        "version": __version__,
        "state": "ready",
        "source": str(source_vmcore),
        "path": None,
        "device_dump_count": 1,
        "device_dump_bytes": 4096,
        "bytes_total": 0,
        "bytes_done": 0,
    }
    path = ok(vmcoredd("write"))
    assert path == f"{daemon.vmcore()}\n"
    dumps = json.loads(ok(run("inspect", "--json", daemon.vmcore())))["device_dumps"]
    assert [(dump["name"], dump["verified"]) for dump in dumps] == [("nic0", True), ("vmcoredd_manifest", None)]
    after = json.loads(ok(vmcoredd("status", "--json")))
    assert after["path"] == str(daemon.vmcore())
    assert after["bytes_done"] == after["bytes_total"] > source_vmcore.stat().st_size // 2
    assert ok(vmcoredd("status")).splitlines() == [
        f"     Version: {__version__}",
        "       State: ready",
        f"      Source: {source_vmcore}",
        f"      Vmcore: {daemon.vmcore()}",
        "Device dumps: 1, 4.0K",
        f"    Progress: {human_size(after['bytes_done'])} of {human_size(after['bytes_total'])}",
    ]
    assert f"    Progress: {after['bytes_done']} bytes of" in ok(vmcoredd("status", "--bytes"))


def test_write_without_the_memory_is_a_failure(
    start_daemon: Callable[..., Service], data: Path, tmp_path: Path
) -> None:
    daemon = start_daemon(source=tmp_path / "nothing")
    ok(run("add", "--bus-address", daemon.address, "nic0", data))
    result = run("write", "--bus-address", daemon.address)
    assert result.returncode == 1
    assert result.stdout == f"{daemon.vmcore('vmcore-device-dumps')}\n"
    reason = f"{daemon.vmcore('vmcore-device-dumps')}: memory is missing, see the service's log"
    assert result.stderr == f"vmcoredd: {reason}\n"


def test_default_is_the_system_bus(daemon: Service) -> None:
    environment = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": str(daemon.address)}
    assert json.loads(ok(run("list", "--json", env=environment))) == []


COMMANDS = [["add", "nic0", __file__], ["list"], ["status"], ["write"], ["remove", "nic0"]]


@pytest.mark.parametrize("command", COMMANDS)
def test_bus_without_the_service(bus_address: str, command: list[str]) -> None:
    result = run(command[0], "--bus-address", bus_address, *command[1:])
    assert failed(result) == "the service is not running on this bus"


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("address", ["unix:path=/nowhere", "nonsense"])
def test_no_bus(address: str, command: list[str]) -> None:
    result = run(command[0], "--bus-address", address, *command[1:])
    reasons = {"nonsense": "address did not contain a transport", "unix:path=/nowhere": os.strerror(errno.ENOENT)}
    assert failed(result) == f"cannot connect to the message bus: {address}: {reasons[address]}"


@pytest.mark.parametrize("command", ["list", "status"])
def test_standard_output_that_is_full(vmcoredd: Vmcoredd, command: str) -> None:
    with open("/dev/full", "wb") as full:
        result = vmcoredd(command, "--json", stdout=full)
    assert (result.returncode, result.stderr) == (1, "vmcoredd: standard output: No space left on device\n")


def _adding_from_an_open_pipe(daemon: Service, vmcoredd: Vmcoredd) -> "subprocess.Popen[str]":
    command = [*VMCOREDD, "add", "--bus-address", str(daemon.address), "nic0", "--size", "9"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    deadline = time.monotonic() + 20
    while not listed(vmcoredd):
        assert time.monotonic() < deadline
    return process


def _end(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    with process:
        process.wait(20)
        assert process.stdout is not None
        assert process.stderr is not None
        return process.returncode, process.stdout.read(), process.stderr.read()


def test_interrupted(daemon: Service, vmcoredd: Vmcoredd) -> None:
    process = _adding_from_an_open_pipe(daemon, vmcoredd)
    process.send_signal(signal.SIGINT)
    assert _end(process) == (-signal.SIGINT, "", "")


def test_service_that_dies_meanwhile(daemon: Service, vmcoredd: Vmcoredd) -> None:
    process = _adding_from_an_open_pipe(daemon, vmcoredd)
    daemon.kill()
    assert _end(process) == (1, "", "vmcoredd: the service ended before it answered\n")
