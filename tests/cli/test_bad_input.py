# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every command with every fault: one line that says what is wrong, the right exit status, nothing left behind."""

import fcntl
import os
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.lib.elf_writer import Core, device_dump
from tests.lib.service import Service, mask_built_in
from tests.lib.tools import require
from tests.lib.vmcore_dumps import DATA
from tests.lib.vmcoredd import VMCOREDD
from tests.lib.waiting import wait_until
from vmcoredd_daemon.manifest import MANIFEST_NAME, Manifest, ManifestDump

VMCORE = "VMCORE"
"""Stands for the vmcore, a fault for something else."""

ON_FILES = {
    "inspect": ["inspect", VMCORE],
    "inspect --json": ["inspect", "--json", VMCORE],
    "inspect --map": ["inspect", "--map", VMCORE],
    "verify": ["verify", VMCORE],
    "extract": ["extract", VMCORE, "nic"],
    "extract -o": ["extract", VMCORE, "nic", "-o", "output"],
    "extract --all": ["extract", VMCORE, "--all", "directory"],
    "extract -C": ["extract", VMCORE, "nic", "ker*", "-C", "directory"],
    "crashes": ["crashes", VMCORE],
    "diff": ["diff", VMCORE, VMCORE],
    "crashes --json": ["crashes", "--json", VMCORE],
    "attach": ["attach", VMCORE, "new=data"],
}
WITH_SERVICE = {
    "add": ["add", "nic", "data"],
    "list": ["list"],
    "status": ["status"],
    "write": ["write"],
    "remove": ["remove", "nic"],
    "run": ["run"],
}
ALONE = {
    "run --list": ["run", "--list", "--config", "vmcoredd.conf"],
    "run -o": ["run", "-o", "collected", "--config", "vmcoredd.conf"],
}
PRINTING = [
    *(name for name in ON_FILES if name not in {"extract -o", "extract --all", "extract -C", "attach"}),
    *ALONE,
]


@pytest.fixture(autouse=True)
def files(vmcore: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "data").write_bytes(DATA)
    (tmp_path / "vmcoredd.conf").touch()
    (tmp_path / "collectors.d").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DBUS_SYSTEM_BUS_ADDRESS", raising=False)
    return vmcore


def call(words: list[str], vmcore: str | bytes = "vmcore", **options: object) -> tuple[int, bytes, bytes]:
    command = [*VMCOREDD, *(vmcore if word == VMCORE else word for word in words)]
    given = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": 60}
    result = subprocess.run(command, check=False, **(given | options))  # type: ignore[call-overload]
    return result.returncode, result.stdout or b"", result.stderr or b""


def there() -> dict[str, bytes | None]:
    """Return all files below, and what is in them."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in Path().rglob("*")}


def check_refused(outcome: tuple[int, bytes, bytes], status: int) -> None:
    assert (outcome[0], outcome[1]) == (status, b""), outcome
    assert outcome[2].startswith(b"vmcoredd: "), outcome
    assert outcome[2].endswith(b"\n"), outcome
    assert outcome[2].count(b"\n") == 1, outcome
    assert b"internal error" not in outcome[2]
    assert b"Traceback" not in outcome[2]
    assert outcome[2].isascii() or outcome[2].decode().isprintable()


def huge() -> str:
    Path("huge").touch()
    os.truncate("huge", 1 << 43)
    return "huge"


def pipe() -> str:
    os.mkfifo("pipe")
    return "pipe"


def link() -> str:
    Path("link").symlink_to("link")
    return "link"


BAD_VMCORES: dict[str, Callable[[], str | bytes]] = {
    "missing": lambda: "nothing",
    "empty name": lambda: "",
    "no UTF-8": lambda: b"\xff\xfe\x1b[2J",
    "huge name": lambda: "x" * 100_000,
    "directory": lambda: "collectors.d",
    "device": lambda: "/dev/null",
    "endless device": lambda: "/dev/zero",
    "binary": lambda: "/bin/sh",
    "huge": huge,
    "file of /proc": lambda: "/proc/self/status",
    "memory of a process": lambda: "/proc/self/mem",
    "pipe": pipe,
    "link to itself": link,
}


@pytest.mark.parametrize("fault", BAD_VMCORES)
@pytest.mark.parametrize("name", ON_FILES)
def test_bad_vmcore(name: str, fault: str) -> None:
    path = BAD_VMCORES[fault]()
    before = there() if fault != "huge" else None
    outcome = call(ON_FILES[name], path)
    if name == "verify" and outcome[1]:
        # It says more of a file that it can read.
        outcome = (outcome[0], b"", outcome[2])
    check_refused(outcome, 1)
    if before is not None:
        assert there() == before


@pytest.mark.parametrize("name", ON_FILES)
def test_vmcore_without_permission(name: str, files: Path) -> None:
    files.chmod(0)
    # Root has to give up what lets it read any file.
    unprivileged = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    require(*unprivileged[:1])
    command = [*unprivileged, *VMCOREDD, *("vmcore" if word == VMCORE else word for word in ON_FILES[name])]
    result = subprocess.run(command, capture_output=True, check=False)
    check_refused((result.returncode, result.stdout, result.stderr), 1)
    assert result.stderr == f"vmcoredd: vmcore: {os.strerror(13)}\n".encode()


@pytest.mark.parametrize(
    "address", ["unix:path=/nothing", "nonsense", "", "x" * 100_000, b"unix:path=\xff\xfe\x1b"]
)
@pytest.mark.parametrize("name", WITH_SERVICE)
def test_no_bus(name: str, address: str | bytes) -> None:
    before = there()
    check_refused(call([*WITH_SERVICE[name], "--bus-address", VMCORE], address), 1)
    assert there() == before


@pytest.mark.parametrize("name", WITH_SERVICE)
def test_no_service(name: str, bus_address: str) -> None:
    outcome = call([*WITH_SERVICE[name], "--bus-address", bus_address])
    check_refused(outcome, 1)
    assert outcome[2] == b"vmcoredd: the service is not running on this bus\n"


@pytest.mark.parametrize("name", WITH_SERVICE)
def test_only_root_may_call(name: str, daemon: Service, tmp_path: Path) -> None:
    require("setpriv")
    if os.geteuid() != 0:
        pytest.skip("needs root, to be somebody else")
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    words = [*WITH_SERVICE[name], "--bus-address", str(daemon.address)]
    result = subprocess.run([*nobody, *VMCOREDD, *words], capture_output=True, check=False)
    if b"No module named" in result.stderr:
        pytest.skip("nobody may not read this Python")
    check_refused((result.returncode, result.stdout, result.stderr), 1)


BAD_USAGE = [
    ["--nonsense"],
    ["--json=nonsense"],
    ["a", "b", "c", "d"],
    [b"\xff\xfe\x1b\x07"],
    ["--timeout=\u202e"],
]


TAKING_VMCORES = {"inspect", "inspect --json", "verify", "crashes", "crashes --json"}
TAKING_NAMES = {*TAKING_VMCORES, "extract", "extract -o", "extract -C", "run", "run --list", "run -o"}


@pytest.mark.parametrize("words", BAD_USAGE)
@pytest.mark.parametrize("name", [*ON_FILES, *WITH_SERVICE, *ALONE])
def test_wrong_usage(name: str, words: list[str]) -> None:
    before = there()
    # Words that are no option are names: of collectors to run, of device dumps, of more vmcores.
    named = name in TAKING_NAMES and not str(words[0]).startswith("-")
    status, output, errors = call([*{**ON_FILES, **WITH_SERVICE, **ALONE}[name], *words])
    if named and name in TAKING_VMCORES:
        lines = errors.splitlines(keepends=True)
        # verify has something to say of the first one, too.
        assert len(lines) == len(words) + (name == "verify")
        for line in lines:
            check_refused((status, b"", line), 1)
        assert b"vmcore" in output
    else:
        check_refused((status, output, errors), 1 if named else 2)
    assert there() == before


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["extract", "vmcore", b"\xff\xfe\x1b"], 1),
        (["extract", "vmcore", "x" * 100_000], 1),
        (["extract", "vmcore", "9" * 5000], 1),
        (["extract", "vmcore", ""], 1),
        (["extract", "vmcore", "nic", "-o", "nowhere/output"], 1),
        (["extract", "vmcore", "nic", "-o", "collectors.d"], 1),
        (["extract", "vmcore", "nic", "-o", "x" * 5000], 1),
        (["extract", "vmcore", "nic", "-o", "/dev/full"], 1),
        (["extract", "vmcore", "nic", "-o", "vmcore"], 2),
        (["extract", "vmcore", "-o", "", "nic"], 2),
        (["extract", "vmcore", "--all", ""], 2),
        (["extract", "--all=", "vmcore"], 2),
        (["extract", "vmcore", "--all", "data"], 1),
        (["extract", "vmcore", "--all", "data/below"], 1),
        (["extract", "vmcore", "--all", "/proc/nowhere"], 1),
        (["attach", "vmcore", "new=nothing"], 1),
        (["attach", "vmcore", "new=collectors.d"], 1),
        (["attach", "vmcore", "new=vmcore"], 1),
        (["attach", "vmcore", "new=/proc/self/mem"], 1),
        (["attach", "vmcore", b"\xff=data"], 1),
        (["attach", "vmcore", f"{'x' * 100_000}=data"], 1),
        (["attach", "vmcore", "=data"], 1),
        (["attach", "vmcore", "kernel=data"], 1),
        (["attach", "/dev/full", "new=data"], 1),
        (["attach", "--stream", "new=data"], 1),
        (["add", "", "data"], 1),
        (["add", b"\xff", "data"], 1),
        (["add", "x" * 100_000, "data"], 1),
        (["add", "nic", "nothing"], 1),
        (["add", "nic", "collectors.d"], 1),
        (["add", "nic", "/dev/null"], 2),
        (["add", "nic", "--size", "1M", ""], 1),
        (["add", "nic", "--size", "1M", "data", "data"], 2),
        (["remove", ""], 1),
        (["remove", b"\xff\x1b"], 1),
        (["run", "-o", ""], 2),
        (["run", "pci", "-o", "data", "nvme"], 1),
        (["run", "--list", "pci", "--config", ""], 2),
        (["run", "--list", "nothing"], 1),
        (["run", "-o", "collected", b"\xff\n"], 1),
        (["run", "-o", "data"], 1),
        (["run", "-o", "/proc/nowhere"], 1),
        (["run", "-o", "collected", "--config", "nothing"], 1),
        (["run", "-o", "collected", "--config", "/bin/sh"], 1),
        (["run", "-o", "collected", "--config", "collectors.d"], 1),
        (["run", "--list", "--config", "/bin/sh"], 1),
        (["run", b"\xff"], 1),
    ],
)
def test_bad_arguments(words: list[str], status: int) -> None:
    before = there()
    check_refused(call(words), status)
    assert there() == before


BAD_NAMES: list[bytes | str] = ["", b"\xff\n", b"\xff\xfe\x1b", "\x1b[2J\n", "a/b", "x" * 100_000, "\u202e", "-"]


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("words", [["run"], ["add", "--size", "1K"], ["remove"]])
def test_bad_names_where_the_service_runs(daemon: Service, words: list[str], name: bytes | str) -> None:
    before = there()
    given = [*words, "--bus-address", str(daemon.address), name]
    outcome = call(given)  # type: ignore[arg-type]
    check_refused(outcome, 1)
    assert len(outcome[2]) < 600
    assert {**there(), "daemon.log": None} == {**before, "daemon.log": None}


CLOSED = {
    "add": ["add", "nic", "--size", "1K"],
    "attach": ["attach", VMCORE, "new=-"],
    "attach --stream": ["attach", "--stream", "new=data"],
}


@pytest.mark.parametrize("name", CLOSED)
def test_closed_input(name: str) -> None:
    words = ("vmcore" if word == VMCORE else word for word in CLOSED[name])
    before = there()
    command = ["bash", "-c", 'exec "$@" <&-', "-", *VMCOREDD, *words]
    result = subprocess.run(command, capture_output=True, check=False)
    assert (result.returncode, result.stderr) == (1, b"vmcoredd: standard input is closed\n")
    assert there() == before


def test_empty_input() -> None:
    before = there()
    outcome = call(["attach", "vmcore", "new=-"])
    assert outcome == (1, b"", b"vmcoredd: device dump new: standard input has no bytes\n")
    assert there() == before


@pytest.mark.parametrize("name", PRINTING)
def test_full_output(name: str) -> None:
    with open("/dev/full", "wb") as full:
        outcome = call({**ON_FILES, **ALONE}[name], stdout=full)
    assert outcome == (1, b"", b"vmcoredd: standard output: No space left on device\n")


@pytest.mark.parametrize("name", PRINTING)
def test_output_that_nobody_reads(name: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert call({**ON_FILES, **ALONE}[name], stdout=writer) == (-signal.SIGPIPE, b"", b"")
    finally:
        os.close(writer)


@pytest.mark.parametrize("name", PRINTING)
def test_closed_output(name: str) -> None:
    words = ("vmcore" if word == VMCORE else word for word in {**ON_FILES, **ALONE}[name])
    command = ["bash", "-c", 'exec "$@" >&-', "-", *VMCOREDD, *words]
    result = subprocess.run(command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, check=False)
    assert (result.returncode, result.stderr) == (1, b"vmcoredd: standard output is closed\n")


def reading(pid: int) -> bool:
    """Tell whether a process has read more (proc(5), rchar) than Python's modules have: it is past all imports."""
    rchar = Path(f"/proc/{pid}/io").read_text().split()[1]
    return int(rchar) > 64 << 20


INTERRUPTED = {
    # What it is doing, and what shows that it is in the middle of that.
    "attach": (["attach", "vmcore", "new=-"], lambda pid: True),
    "run -o": (
        ["run", "-o", "collected", "--config", "vmcoredd.conf", "hang"],
        lambda pid: Path("started").exists(),
    ),
    "inspect": (["inspect", "large"], reading),
    "verify": (["verify", "large"], reading),
    "extract": (["extract", "large", "0", "-o", "output"], reading),
}


@pytest.mark.parametrize("name", INTERRUPTED)
def test_interrupted(name: str) -> None:
    words, in_the_middle = INTERRUPTED[name]
    built_in_masked = Path("collectors.d")
    mask_built_in(built_in_masked)
    command = f"sh -c 'touch {Path().absolute()}/started; exec sleep 1000'"
    (built_in_masked / "hang.conf").write_text(f"[Collector]\nExec={command}\n")
    make_large(Path("large"))
    before = set(map(str, Path().rglob("*")))
    command = [*VMCOREDD, *words]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdin is not None
        if name == "attach":
            taken(process.stdin.fileno(), b"some")
        deadline = time.monotonic() + 60
        while not in_the_middle(process.pid):
            assert process.poll() is None
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == -signal.SIGINT
        assert process.stdout is not None
        assert process.stderr is not None
        assert (process.stdout.read(), process.stderr.read()) == (b"", b"")
    assert set(map(str, Path().rglob("*"))) - before <= {"started", "collected"}


def test_interrupted_while_it_prints_an_error() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    filled = 0
    with suppress(BlockingIOError):
        while True:
            filled += os.write(writer, bytes(1 << 12))
    os.set_blocking(writer, True)
    command = [*VMCOREDD, "inspect", "missing"]
    with subprocess.Popen(command, stderr=writer) as process:
        os.close(writer)
        waits = Path(f"/proc/{process.pid}/wchan")
        wait_until(lambda: waits.read_text().endswith("pipe_write"), timeout=60)
        process.send_signal(signal.SIGINT)
        os.read(reader, 1 << 12)
        printed = 1 << 12
        while data := os.read(reader, 1 << 16):
            printed += len(data)
        assert process.wait(60) == -signal.SIGINT
    os.close(reader)
    # No traceback.
    assert printed - filled < 100


def taken(writer: int, data: bytes) -> None:
    """Write to a pipe, and wait until a reader has read it."""
    os.write(writer, data)
    wait_until(lambda: fcntl.ioctl(writer, termios.FIONREAD, bytes(4)) == bytes(4), timeout=60)


def test_interrupted_in_a_loop_of_a_shell() -> None:
    """A shell ends its loop only where SIGINT has ended the program."""
    pipe()
    loop = 'for number in 1 2; do "$@" <pipe; echo next; done'
    command = ["bash", "-c", loop, "-", *VMCOREDD, "attach", "vmcore", "new=-"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as shell:
        writer = os.open("pipe", os.O_WRONLY)
        # While it imports, Python itself would warn of the file of a module that it has open.
        taken(writer, b"some")
        os.killpg(shell.pid, signal.SIGINT)
        try:
            # Another iteration would wait for another end of the pipe.
            assert shell.communicate(timeout=20) == (b"", b"")
        finally:
            os.close(writer)
            with suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
    assert shell.returncode == -signal.SIGINT


def make_large(path: Path) -> None:
    """Make a device dump of 3 GiB of holes, with a checksum."""
    size = 3 << 30
    entry = ManifestDump("large", size - 64, size, "0" * 64, "", "complete", 1, 1)
    manifest = device_dump(MANIFEST_NAME.encode(), Manifest("test", 1, (entry,)).dump())
    Core(device_dump(b"large", b"x")).write(path)
    with path.open("r+b") as file:
        os.pwrite(file.fileno(), struct.pack("<QQ", size + len(manifest), size + len(manifest)), 64 + 32)
        os.pwrite(file.fileno(), struct.pack("<I", size - 64 + 44), 4096 + 4)
        os.pwrite(file.fileno(), manifest, 4096 + size)
