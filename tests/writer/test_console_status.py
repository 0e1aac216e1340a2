# SPDX-License-Identifier: LGPL-2.1-or-later
"""The console of a capture kernel: a terminal that may be slow, stopped, or none."""

import os
import re
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lib.resources import open_fds
from tests.lib.service import Service
from vmcoredd_daemon.config.config import Configuration
from vmcoredd_daemon.writer import console_status as console_progress
from vmcoredd_daemon.writer.console_status import ConsoleStatus


@pytest.fixture(autouse=True)
def short_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_progress, "INTERVAL", 0.01)


@pytest.fixture
def terminal() -> Iterator[tuple[int, Path]]:
    """The end that the test watches, and the path of the other."""
    watched, other = os.openpty()
    yield watched, Path(os.ttyname(other))
    os.close(watched)
    os.close(other)


def seen(watched: int, end: bytes) -> str:
    """Return what is seen until *end* is."""
    text = b""
    while not text.endswith(end):
        text += os.read(watched, 4096)
    return text.decode()


def test_each_line_once(terminal: tuple[int, Path]) -> None:
    watched, path = terminal
    lines = ["", "Writing: 0%", "Writing: 1%\n\033[2J", "Writing: 1%\n\033[2J", "Written"]
    before = open_fds()
    console = ConsoleStatus(path, lambda: lines.pop(0) if len(lines) > 1 else lines[0])
    # The line break is the terminal's own; what would clear the screen is shown.
    expected = "vmcoredd: Writing: 0%\r\nvmcoredd: Writing: 1%\\n\\x1b[2J\r\nvmcoredd: Written\r\n"
    assert seen(watched, b"Written\r\n") == expected
    console.stop()
    assert open_fds() == before


def test_last_line_is_said_at_the_end(terminal: tuple[int, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    watched, path = terminal
    monkeypatch.setattr(console_progress, "INTERVAL", 3600)
    ConsoleStatus(path, lambda: "Written").stop()
    assert seen(watched, b"\n") == "vmcoredd: Written\r\n"


def test_terminal_that_is_stopped(terminal: tuple[int, Path]) -> None:
    watched, path = terminal
    other = os.open(path, os.O_RDWR | os.O_NOCTTY)
    termios.tcflow(other, termios.TCOOFF)
    said: list[int] = []

    def line() -> str:
        said.append(1)
        return f"line {len(said)}"

    console = ConsoleStatus(path, line)
    while len(said) < 3:
        os.sched_yield()
    # Nothing hangs: the next line is tried, and the end is reached.
    termios.tcflow(other, termios.TCOON)
    later = len(said) + 2
    while len(said) < later:
        os.sched_yield()
    console.stop()
    os.close(other)
    last = f"line {len(said)}\r\n"
    lines = seen(watched, last.encode()).splitlines()
    assert all(re.fullmatch(r"vmcoredd: line \d+", line) for line in lines)
    assert "vmcoredd: line 1" not in lines


def test_terminal_that_nobody_reads(terminal: tuple[int, Path]) -> None:
    watched, path = terminal
    said: list[int] = []

    def line() -> str:
        said.append(1)
        return f"{len(said)} " * 1000

    console = ConsoleStatus(path, line)
    while len(said) < 50:
        os.sched_yield()
    console.stop()
    assert os.read(watched, 1 << 20).startswith(b"vmcoredd: 1 1 1 ")


@pytest.mark.parametrize("kind", ["missing", "file", "directory", "fifo"])
def test_what_is_no_terminal(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "console"
    if kind == "file":
        path.write_text("precious")
    elif kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    before = open_fds()
    ConsoleStatus(path, lambda: "line").stop()
    assert open_fds() == before
    assert kind != "file" or path.read_text() == "precious"


def test_console_is_told_where_the_vmcore_is(
    terminal: tuple[int, Path], source_vmcore: Path, tmp_path: Path
) -> None:
    watched, path = terminal
    with Service(None, source_vmcore, tmp_path, f"Console={path}") as service:
        service.start()
        assert service.stop() == 0
        text = seen(watched, b"bytes\r\n")
        size = service.vmcore().stat().st_size
        assert text.endswith(f"vmcoredd: {service.vmcore()} written with 0 device dumps, {size} bytes\r\n")


def test_console_of_a_capture_kernel_only() -> None:
    assert Configuration().console_path == Path("/dev/console")
    assert Configuration(source=Path("/srv/vmcore")).console_path is None
    terminal = Path("/dev/ttyS1")
    assert Configuration(source=Path("/srv/vmcore"), console=terminal).console_path == terminal
