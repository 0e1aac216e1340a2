# SPDX-License-Identifier: LGPL-2.1-or-later
"""How far something long is: bars, lines, and nothing without a terminal."""

import contextlib
import os
import queue
import re
import select
import shutil
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

import pytest

from tests.lib.elf_writer import Core, Load, device_dump, note
from tests.lib.external_tools import makedumpfile
from tests.lib.flattened_writer import flatten, makedumpfile_flat
from tests.lib.service import Service, mask_built_in
from tests.lib.vmcoredd import VMCOREDD
from vmcoredd_daemon.cli.core_collector import sources
from vmcoredd_daemon.cli.core_collector.gather import Request, gather
from vmcoredd_daemon.progress import Progress
from vmcoredd_daemon.terminal.progress_line import Line
from vmcoredd_daemon.vmcore.attach.attach import attach_files
from vmcoredd_daemon.vmcore.attach.dump_files import NamedFile

SIZE = 8 << 20
TIMEOUT = 60


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_line() -> None:
    clock, said = Clock(), list[str]()
    line = Line("nic", said.append, 1.0, clock)
    for quarter in range(16):
        clock.now += 0.25
        line.show((quarter + 1) * (32 << 20), 1 << 30)
    assert said == [
        "nic: 6%, 64.0M of 1.0G, 128.0M/s, 7s left",
        "nic: 18%, 192.0M of 1.0G, 128.0M/s, 6s left",
        "nic: 31%, 320.0M of 1.0G, 128.0M/s, 5s left",
        "nic: 43%, 448.0M of 1.0G, 128.0M/s, 4s left",
    ]


def test_line_of_what_has_no_end() -> None:
    clock, said = Clock(), list[str]()
    line = Line("pipe", said.append, 1.0, clock)
    clock.now += 2
    line.show(4096, 0)
    assert said == ["pipe: 4.0K, 2.0K/s"]
    clock.now += 3600
    line.show(8192, 1 << 30)
    assert said[1:] == ["pipe: 0%, 8.0K of 1.0G, 2B/s, 149129h 40min left"]


def test_line_says_nothing_twice() -> None:
    clock, said = Clock(), list[str]()
    line = Line("gathering", said.append, 1.0, clock)
    for done in (0, 0, 0, 4096, 4096):
        clock.now += 2
        line.show(done, 0)
    assert said == ["gathering: 0B, 0B/s", "gathering: 4.0K, 512B/s"]


def test_what_takes_a_moment_says_nothing() -> None:
    clock, said = Clock(), list[str]()
    line = Line("nic", said.append, 1.0, clock)
    clock.now += 0.4
    line.show(100, 100)
    assert said == []


@pytest.fixture
def vmcore(tmp_path: Path) -> Path:
    return Core(device_dump(b"nic", bytes(SIZE))).write(tmp_path / "vmcore")


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    controller, terminal = os.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    yield controller, terminal
    os.close(controller)
    os.close(terminal)


def seen(controller: int) -> str:
    """Return what is on the terminal, without waiting for more."""
    text = b""
    while select.select([controller], [], [], 0)[0]:
        text += os.read(controller, 65536)
    return text.decode()


def extract_slowly(
    vmcore: Path,
    terminal: tuple[int, int],
    until: str,
    environment: dict[str, str],
    program: Sequence[str] = VMCOREDD,
    reads: int = 4096,
) -> str:
    """Extract into a pipe that takes a little at a time, until the terminal shows *until*; return all of that."""
    fifo = vmcore.with_name("fifo")
    os.mkfifo(fifo)
    command = [*program, "extract", str(vmcore), "nic", "-o", str(fifo)]
    text, deadline = "", time.monotonic() + TIMEOUT
    with subprocess.Popen(command, stderr=terminal[1], env={**os.environ, **environment}) as process:
        with fifo.open("rb", buffering=0) as file:
            while not re.search(until, text) and time.monotonic() < deadline and file.read(SIZE // reads):
                time.sleep(0.002)
                text += seen(terminal[0])
            while file.read(1 << 20):
                pass
        assert process.wait(TIMEOUT) == 0
    return text + seen(terminal[0])


def test_bar_on_a_terminal(vmcore: Path, terminal: tuple[int, int]) -> None:
    pytest.importorskip("tqdm")
    text = extract_slowly(vmcore, terminal, r"\d%\|", {"TERM": "xterm"})
    assert re.search(r"nic: +\d+%\|.*\| [\d.]+[kMG]?/8\.39M|nic: +\d+%\|.*\| [\d.]+[kM]?/8\.00M", text)
    assert re.search(r"\[\d\d:\d\d<\d\d:\d\d, +[\d.]+[kM]?B/s\]", text)
    # Nothing of it is left.
    assert text.endswith("\r")


WITHOUT_TQDM = [
    sys.executable,
    "-c",
    "import sys; sys.modules['tqdm'] = None; from vmcoredd_daemon.cli.main import main; sys.exit(main())",
]


def test_line_that_renews_itself_without_tqdm(vmcore: Path, terminal: tuple[int, int]) -> None:
    line = r"\rnic: \d+%, [\d.]+[BKM] of 8\.0M, [\d.]+[BKM]/s(, \w+ left)?\x1b\[K"
    text = extract_slowly(vmcore, terminal, line, {"TERM": "xterm"}, WITHOUT_TQDM)
    assert re.search(line, text)
    assert text.endswith("\r\x1b[K")
    assert "\n" not in text


def test_lines_on_a_dumb_terminal(vmcore: Path, terminal: tuple[int, int]) -> None:
    line = r"^vmcoredd: nic: \d+%, [\d.]+[BKM] of 8\.0M, [\d.]+[BKM]/s(, \w+ left)?\r\n"
    text = extract_slowly(vmcore, terminal, line, {"TERM": "dumb"})
    assert re.search(line, text)
    assert "\x1b" not in text


def test_nothing_in_a_pipe(vmcore: Path) -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    try:
        assert extract_slowly(vmcore, (reader, writer), "never", {"TERM": "xterm"}, reads=512) == ""
    finally:
        os.close(reader)
        os.close(writer)


def test_write_follows_the_service(
    start_daemon: Callable[..., Service], tmp_path: Path, terminal: tuple[int, int]
) -> None:
    """A source of gigabytes takes a while to be read, holes or not."""
    memory = 2 << 30
    source = Core(note(1, b"r" * 336), (Load(0x1000), Load(0x2000, filesz=memory))).write(tmp_path / "source")
    with _service_manager(tmp_path / "notify") as told, pytest.MonkeyPatch.context() as patch:
        patch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        daemon = start_daemon(source=source, dev_mode=False)
        command = [*VMCOREDD, "write", "--bus-address", str(daemon.address)]
        environment = {**os.environ, "TERM": "dumb"}
        with subprocess.Popen(command, stderr=terminal[1], stdout=subprocess.PIPE, env=environment) as process:
            assert process.wait(TIMEOUT) == 0
            assert process.stdout is not None
            assert process.stdout.read().decode() == f"{daemon.vmcore()}\n"
        line = r"^vmcoredd: writing the vmcore: \d+%, .* of 2\.0G, .*\r$"
        assert re.search(line, seen(terminal[0]), re.MULTILINE)
        # The service tells it to systemd, and takes it back.
        lines = ["", ""]
        while lines[-1] != "STATUS=Taking device dumps" or len(lines) < 5:
            told_now = told.get(timeout=TIMEOUT).splitlines()
            lines.extend(line for line in told_now if not line.startswith("EXTEND_TIMEOUT_USEC="))
        assert lines[2:4] == ["READY=1", "STATUS=Taking device dumps"]
        far = r"0% of 2\.0G|\d+%, [\d.]+[MG] of 2\.0G, [\d.]+[MG]/s, \d+s left"
        assert lines[4:-1]
        assert all(re.fullmatch(rf"STATUS=Writing the vmcore(: ({far}))?", line) for line in lines[4:-1])


@contextlib.contextmanager
def _service_manager(path: Path) -> "Iterator[queue.Queue[str]]":
    """Read what a service tells its manager, which it waits for."""
    told: queue.Queue[str] = queue.Queue()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))

        def read() -> None:
            while data := manager.recv(4096):
                told.put(data.decode())

        reader = threading.Thread(target=read)
        reader.start()
        try:
            yield told
        finally:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
                last.sendto(b"", str(path))
            reader.join()


class Recorded(Progress):
    """Remembers each state: what, the total, and how much is done."""

    def __init__(self, reached: Callable[[int], None] = lambda count: None) -> None:
        super().__init__()
        self.seen: list[tuple[tuple[str, int], int]] = []
        self._reached = reached

    def reach(self, done: int, total: int) -> None:
        super().reach(done, total)
        self.seen.append(((self.what, total), done))
        self._reached(len(self.seen))


@pytest.mark.parametrize("kind", ["kdump", "elf", "flattened"])
def test_attach_says_what_it_does(source_vmcore: Path, tmp_path: Path, kind: str) -> None:
    vmcore, data = tmp_path / "vmcore", tmp_path / "data"
    if kind == "elf":
        shutil.copy(source_vmcore, vmcore)
    else:
        write = makedumpfile if kind == "kdump" else makedumpfile_flat
        write(source_vmcore, vmcore, "-l", "-d", "31", *(["--non-mmap"] if kind == "flattened" else []))
    data.write_bytes(bytes(1 << 20))
    progress = Recorded()
    before = vmcore.stat().st_size
    attach_files(str(vmcore), [NamedFile("nic", str(data))], "test", progress=progress)
    (read, written) = dict(progress.seen).items()
    assert read == (("reading nic", 1 << 20), 1 << 20)
    (what, total), size = written
    assert what == ("writing the notes" if kind == "kdump" else "writing a new file")
    assert size <= total
    if kind == "flattened":
        assert size == total == before
    elif kind == "kdump":
        assert size == total > 1 << 20
    else:
        assert size > 60 << 20


@pytest.fixture
def slow_collector(tmp_path: Path) -> Path:
    """A collector that waits until the test writes into the FIFO that is returned; nothing else is registered."""
    mask_built_in(tmp_path / "collectors.d")
    fifo = tmp_path / "device"
    os.mkfifo(fifo)
    (tmp_path / "collectors.d/slow.conf").write_text(f"[Collector]\nExec=cat {fifo}\nSize=1M\n")
    return fifo


def shown_until_released(command: Sequence[str], fifo: Path, terminal: tuple[int, int], until: str) -> str:
    """Run *command*, whose collector gets its data when the terminal shows *until*; return all of that."""
    text, deadline = "", time.monotonic() + TIMEOUT
    environment = {**os.environ, "TERM": "dumb"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=terminal[1], env=environment) as process:
        while not re.search(until, text, re.MULTILINE) and time.monotonic() < deadline:
            time.sleep(0.01)
            text += seen(terminal[0])
        fifo.write_bytes(b"registers")
        assert process.wait(TIMEOUT) == 0
    return text + seen(terminal[0])


RUNNING = r"^vmcoredd: running collectors: 0%, 0B of 1\.0M, 0B/s\r$"


def test_run_without_the_service(slow_collector: Path, tmp_path: Path, terminal: tuple[int, int]) -> None:
    (tmp_path / "vmcoredd.conf").touch()
    options = ["--config", str(tmp_path / "vmcoredd.conf"), "-o", str(tmp_path / "out")]
    text = shown_until_released([*VMCOREDD, "run", *options], slow_collector, terminal, RUNNING)
    assert re.search(RUNNING, text, re.MULTILINE)
    assert (tmp_path / "out/slow").read_bytes() == b"registers"


def test_run_in_the_service(
    start_daemon: Callable[..., Service], slow_collector: Path, tmp_path: Path, terminal: tuple[int, int]
) -> None:
    daemon = start_daemon("RunCollectors=no")
    (tmp_path / "earlier").write_bytes(b"not of this run")
    address = ["--bus-address", str(daemon.address)]
    subprocess.run([*VMCOREDD, "add", *address, "earlier", tmp_path / "earlier"], check=True)
    text = shown_until_released([*VMCOREDD, "run", *address], slow_collector, terminal, RUNNING)
    assert re.search(RUNNING, text, re.MULTILINE)


def test_gathering(slow_collector: Path, tmp_path: Path) -> None:
    (tmp_path / "vmcoredd.conf").write_text(f"[Vmcoredd]\nTarget={tmp_path}\n")
    writers: list[threading.Thread] = []

    def reached(count: int) -> None:
        # Nothing comes until it was said that it goes on.
        if count == 3:
            writers.append(threading.Thread(target=slow_collector.write_bytes, args=(b"registers",)))
            writers[0].start()

    request = Request("unix:path=/nonexistent", tmp_path / "vmcoredd.conf", TIMEOUT)
    progress = Recorded(reached)
    with contextlib.closing(gather(request, sources.run, progress)) as gathered:
        assert [record.name for record in gathered.records] == ["slow"]
    writers[0].join()
    assert set(progress.seen) == {(("gathering device dumps", 0), 0), (("gathering device dumps", 0), 9)}


@pytest.mark.parametrize("piped", [False, True])
def test_stream_shows_what_nobody_else_shows(tmp_path: Path, terminal: tuple[int, int], piped: bool) -> None:
    flat, size = tmp_path / "flat", 4 << 20
    core = Core(device_dump(b"kernel", b"k"), (Load(0x1000, filesz=size),)).write(tmp_path / "core")
    flat.write_bytes(flatten([(0, core.read_bytes())]))
    command = [*VMCOREDD, "attach", "--stream", "nic=/proc/version"]
    environment = {**os.environ, "TERM": "dumb"}
    text, deadline = "", time.monotonic() + TIMEOUT
    with flat.open("rb") as file, contextlib.ExitStack() as stack:
        source: IO[bytes] = file
        if piped:
            cat = stack.enter_context(subprocess.Popen(["cat"], stdin=file, stdout=subprocess.PIPE))
            assert cat.stdout is not None
            source = cat.stdout
        process = stack.enter_context(
            subprocess.Popen(command, stdin=source, stdout=subprocess.PIPE, stderr=terminal[1], env=environment)
        )
        assert process.stdout is not None
        while "attaching" not in text and time.monotonic() < deadline and process.stdout.read(4096):
            time.sleep(0.002)
            text += seen(terminal[0])
        process.stdout.read()
        assert process.wait(TIMEOUT) == 0
    shown = r"^vmcoredd: attaching: \d+%, [\d.]+[KM] of 4\.0M, [\d.]+[KM]/s(, \w+ left)?\r$"
    assert bool(re.search(shown, text, re.MULTILINE)) is not piped
    assert piped == (text == "")
