# SPDX-License-Identifier: LGPL-2.1-or-later
"""A session in a real terminal: tmux is typed into, and its screen is read."""

import os
import re
import shlex
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lib.service import Service
from tests.lib.tools import require
from tests.lib.waiting import wait_until

TIMEOUT = 20
ROWS, COLUMNS = 24, 80
PROMPT = "ready>"


class Terminal:
    """One tmux of its own, with one shell in it."""

    def __init__(self, directory: Path, environment: dict[str, str], columns: int) -> None:
        self._runs = 0
        self._tmux = ["tmux", "-S", str(directory / "tmux"), "-f", "/dev/null"]
        shell = ["env", *(f"{name}={value}" for name, value in environment.items()), "sh"]
        size = ["-x", str(columns), "-y", str(ROWS)]
        subprocess.run(
            [*self._tmux, "new-session", "-d", *size, "-c", str(directory), shlex.join(shell)], check=True
        )

    def close(self) -> None:
        """End the shell, and tmux with it."""
        subprocess.run([*self._tmux, "kill-server"], check=True)

    def screen(self, *, escapes: bool = False) -> str:
        """Return what is on the screen; with *escapes*, its colours, too."""
        command = [*self._tmux, "capture-pane", "-p", *(["-e"] if escapes else [])]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.rstrip("\n")

    def wait(self, pattern: str) -> str:
        """Wait until the screen has *pattern*; return the screen."""
        screen: str = wait_until(
            self.screen, lambda screen: re.search(pattern, screen, re.MULTILINE), timeout=TIMEOUT
        )
        return screen

    def type(self, *keys: str) -> None:
        """Press keys, as tmux calls them; other words are typed."""
        subprocess.run([*self._tmux, "send-keys", *keys], check=True)

    def run(self, command: str, *, escapes: bool = False) -> str:
        """Run a command on an empty screen; return what is on the screen when it has ended."""
        # Without a number, the screen of before could be taken for the empty one, which would come later.
        self._runs += 1
        self.type("-l", f"clear; echo run {self._runs}")
        self.type("Enter")
        self.wait(rf"\Arun {self._runs}\n{PROMPT}\Z")
        self.type("-l", f"{command}; echo status=$?")
        self.type("Enter")
        self.wait(r"^status=\d+$")
        self.wait(f"^{PROMPT}$")
        return self.screen(escapes=escapes)


@pytest.fixture
def columns() -> int:
    """How wide the terminal is."""
    return COLUMNS


@pytest.fixture
def terminal(daemon: Service, source_vmcore: Path, tmp_path: Path, columns: int) -> Iterator[Terminal]:
    require("tmux", "makedumpfile", "less")
    shutil.copy(source_vmcore, tmp_path / "vmcore")
    (tmp_path / "data").write_bytes(b"r" * 90_000)
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "PYTHONPATH") if name in os.environ}
    environment = {
        "PATH": f"{sysconfig.get_path('scripts')}:/usr/bin:/bin:/usr/sbin:/sbin",
        "DBUS_SYSTEM_BUS_ADDRESS": str(daemon.address),
        "PS1": f"{PROMPT} ",
        "LC_ALL": "C.UTF-8",
    }
    # Whatever the machine of the tests has set.
    unset = dict.fromkeys(("NO_COLOR", "COLUMNS", "LINES"), "")
    terminal = Terminal(tmp_path, kept | unset | environment, columns)
    try:
        terminal.wait(f"^{PROMPT}$")
        yield terminal
    finally:
        terminal.close()


def test_session(terminal: Terminal, daemon: Service) -> None:
    """Every command on a real vmcore, as a person would go through them."""
    screen = terminal.run("vmcoredd add nic_0000:02:00.4 data && vmcoredd list")
    assert re.search(r"^nic_0000:02:00\.4  complete  87\.8K  vmcoredd\[\d+\]$", screen, re.MULTILINE)
    assert "State: ready\n" in terminal.run("vmcoredd status")
    assert re.search(r"^pci ", terminal.run("vmcoredd run --list"), re.MULTILINE)
    assert "status=0" in terminal.run("vmcoredd write >path && cp $(cat path) written")
    screen = terminal.run("vmcoredd inspect written")
    assert "       Panic: Kernel panic - not syncing: sysrq triggered crash\n" in screen
    assert re.search(
        r"^    0  nic_0000:02:00\.4   87\.8K  ok        vmcoredd\[\d+\] +\d{4}-.* \d\d:\d\d:\d\d$",
        screen,
        re.MULTILINE,
    )
    assert re.search(r"vmcoredd\[\d+\] ", terminal.run("vmcoredd inspect --full written"))
    assert "1  vmcoredd_manifest" in terminal.run("vmcoredd inspect --bytes --no-legend written")
    assert '"good":true' in terminal.run("vmcoredd verify --json=short written")
    assert "crash: lists 2 device dumps\n" in terminal.run("vmcoredd verify written")
    screen = terminal.run("vmcoredd inspect --map written | head -n 12")
    assert re.search(r"^# memory  .*D device dump  .*\d+\.\dK a cell$", screen, re.MULTILINE)
    assert "status=0" in terminal.run("vmcoredd extract written --all out && cmp out/nic_0000:02:00.4 data")
    assert "status=0" in terminal.run("vmcoredd attach vmcore disk=data")
    assert "status=0" in terminal.run("vmcoredd extract vmcore disk | cmp - data")
    screen = terminal.run("vmcoredd extract vmcore disk")
    assert "a device dump is not for a terminal" in screen
    assert "status=2" in screen
    screen = terminal.run("vmcoredd core-collector --message-level 0 --non-mmap -l -d 31 vmcore dump")
    assert "vmcoredd: 1 device dump attached to dump\n" in screen
    assert "crash: lists 4 device dumps\n" in terminal.run("vmcoredd verify dump")
    assert "status=0" in terminal.run("vmcoredd remove nic_0000:02:00.4")
    assert "1 device dump" not in terminal.run("vmcoredd list --no-legend")
    assert "Add to a vmcore:\n" in terminal.run("vmcoredd --help")
    assert daemon.process.poll() is None


def test_pager(terminal: Terminal) -> None:
    terminal.type("clear", "Enter")
    terminal.type("-l", "vmcoredd inspect --map vmcore")
    terminal.type("Enter")
    first = terminal.wait(r"lines 1-23|^:$|\(END\)|^lines")
    assert first.startswith("0x0000000 |")
    terminal.type("G")
    terminal.wait(r"\(END\)")
    terminal.type("q")
    terminal.wait(rf"^{PROMPT}$")
    # Ctrl-C ends it, too, and so does a pager of one's own.
    assert "status=0" in terminal.run("PAGER='head -n 2' vmcoredd inspect --map vmcore")
    assert "status=0" in terminal.run("vmcoredd inspect --no-pager --map vmcore | head -n 1")
    # What fits needs none.
    assert "status=0" in terminal.run("PAGER=false vmcoredd inspect vmcore")


def test_colours(terminal: Terminal) -> None:
    underlined, good = "\x1b[4m", "\x1b[32m"
    terminal.run("vmcoredd attach vmcore disk=data")
    screen = terminal.run("vmcoredd inspect vmcore", escapes=True)
    assert underlined in screen
    assert f"{good}ok" in screen
    for command in (
        "NO_COLOR=1 vmcoredd inspect vmcore",
        "TERM=dumb vmcoredd inspect vmcore",
        "vmcoredd inspect vmcore | cat",
    ):
        assert "\x1b[3" not in terminal.run(command, escapes=True)


@pytest.mark.parametrize("columns", [40])
def test_narrow_terminal(terminal: Terminal, columns: int) -> None:
    """What would be too long for a line would be on two of them."""
    terminal.run("vmcoredd add nic_0000:02:00.4 data; vmcoredd attach vmcore disk=data")
    screen = terminal.run("vmcoredd list")
    assert "\nNAME              STATE      SIZE\nnic_0000:02:00.4  complete  87.8K\n" in screen
    screen = terminal.run("vmcoredd inspect vmcore | cat; vmcoredd inspect --no-pager vmcore")
    assert re.search(r"^INDEX  NAME +SIZE  CHECKSUM\n    0  disk +87\.8K  ok\n", screen, re.MULTILINE)
    screen = terminal.run("vmcoredd inspect --map --no-pager vmcore")
    assert re.search(r"^0x\w+ +note +VMCOREINFO, typ…\n0x\w+ +unused$", screen, re.MULTILINE)
    # Longer than the screen, but no pager can show it there.
    assert terminal.run("TERM=dumb vmcoredd inspect --map vmcore") == screen


def test_narrow_terminal_shows_whole_reasons(terminal: Terminal) -> None:
    terminal.run("vmcoredd add --size 10 --timeout 0.1 a_name_that_is_as_long_as_names_are_at_most - <&1")
    screen = terminal.run("vmcoredd list")
    (line, reason) = re.findall(r"^(a_name_.*)\n((?:  .*\n)+)", screen, re.MULTILINE)[0]
    assert len(line) <= COLUMNS
    assert " ".join(reason.split()) == "its data is a terminal, which is never read"
