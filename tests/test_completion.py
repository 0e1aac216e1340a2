# SPDX-License-Identifier: LGPL-2.1-or-later
"""Completion in a real bash and a real zsh, each at a terminal of its own."""

import os
import pty
import select
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from docs import programs
from tests.lib.paths import ROOT
from tests.lib.service import Service
from tests.lib.tools import installed_program, require, skip_or_fail

BASH_COMPLETION = Path("/usr/share/bash-completion/bash_completion")
SCRIPTS = installed_program("vmcoredd").parent
TIMEOUT = 60.0

Complete = Callable[[str], list[str]]


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the scripts."""
    directory = tmp_path_factory.mktemp("completions")
    subprocess.run([sys.executable, "-m", "docs.completion", directory], cwd=ROOT, check=True)
    return directory


READY = 'echo "ready $((++prompts))."'
"""A command that a shell runs before each prompt."""


def at_terminal(command: list[str], directory: Path, lines: list[bytes]) -> None:
    """Type lines at the terminal of a shell, each when the shell is ready for it."""
    environment = {"HOME": str(directory), "ZDOTDIR": str(directory), "TERM": "dumb", "LC_ALL": "C.UTF-8"}
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(directory)
        os.execvpe(command[0], command, {**environment, "PATH": f"{SCRIPTS}:{os.environ['PATH']}"})
    shown = b""
    deadline = time.monotonic() + TIMEOUT
    try:
        for number, line in enumerate([*lines, b"exit\n"], 1):
            while f"ready {number}.".encode() not in shown:
                if not select.select([terminal], [], [], deadline - time.monotonic())[0]:
                    raise TimeoutError(shown.decode())
                shown += os.read(terminal, 65536)
            os.write(terminal, line)
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)


@pytest.fixture
def complete(scripts: Path, tmp_path: Path) -> Complete:
    """Return the words that bash makes of a line when it inserts all completions of its end."""
    require("bash")
    if not BASH_COMPLETION.exists():
        skip_or_fail([str(BASH_COMPLETION)])
    startup = tmp_path / ".bashrc"
    startup.write_text(f". {BASH_COMPLETION}\n. {scripts}/vmcoredd\nPROMPT_COMMAND={shlex.quote(READY)}\n")

    def complete(line: str) -> list[str]:
        out = tmp_path / "words"
        # M-* inserts all completions, C-a goes to the beginning of the line.
        typed = f"{line}\x1b*\x01printf '%s\\n' > {out} \n".encode()
        at_terminal(["bash", "--rcfile", str(startup)], tmp_path, [typed])
        return out.read_text().splitlines()

    return complete


def test_commands_and_options_in_bash(complete: Complete) -> None:
    assert complete("vmcoredd ") == ["vmcoredd", *sorted(programs.commands())]
    assert complete("vmcoredd ins") == ["vmcoredd", "inspect"]
    for name, parser in programs.commands().items():
        known = {option for action in programs.options(parser) for option in action.option_strings}
        assert set(complete(f"vmcoredd {name} -")[2:]) == known
    assert "--no-bus" in complete("vmcoredd-daemon --")


def test_files_and_directories_in_bash(complete: Complete, tmp_path: Path) -> None:
    (tmp_path / "a core").touch()
    (tmp_path / "a directory").mkdir()
    assert complete("vmcoredd inspect a\\ ")[2:] == ["a core", "a directory"]
    assert complete("vmcoredd run -o a")[3:] == ["a directory"]
    assert complete("vmcoredd attach a\\ c")[2:] == ["a core"]
    assert complete("vmcoredd attach vmcore nic_0000:00:01.0=a\\ c")[3:] == ["nic_0000:00:01.0=a core"]
    assert complete("vmcoredd-daemon --target=a")[1:] == ["--target=a directory"]
    assert complete("vmcoredd core-collector --vmcoredd-config=a\\ c")[2:] == ["--vmcoredd-config=a core"]
    # A new name, and no more arguments than there are.
    assert complete("vmcoredd add ")[2:] == []
    assert complete("vmcoredd add name a\\ c")[3:] == ["a core"]
    assert complete("vmcoredd inspect vmcore a\\ c")[3:] == ["a core"]
    assert complete("vmcoredd diff vmcore vmcore a")[4:] == ["a"]


def test_collectors_in_bash(complete: Complete) -> None:
    assert {"pci", "nvme"} <= set(complete("vmcoredd run ")[2:])
    assert complete("vmcoredd run pci nv")[2:] == ["pci", "nvme"]


def test_names_of_device_dumps_in_bash(complete: Complete, daemon: Service, tmp_path: Path) -> None:
    assert daemon.address is not None
    for name in ("nic_0000:02:00.4", "nic_0000:03:00.0", "it's one $(exit)"):
        command = [f"{SCRIPTS}/vmcoredd", "add", "--bus-address", daemon.address, name, __file__]
        subprocess.run(command, check=True, capture_output=True)
    given = f"vmcoredd remove --bus-address {shlex.quote(daemon.address)}"
    assert complete(f"{given} ")[4:] == ["it's one $(exit)", "nic_0000:02:00.4", "nic_0000:03:00.0"]
    # A colon ends a word of readline's, not one of bash's.
    assert complete(f"{given} nic_0000:03")[4:] == ["nic_0000:03:00.0"]
    daemon.stop()
    (tmp_path / "vm core").symlink_to(daemon.vmcore())
    assert complete("vmcoredd extract vm\\ core nic")[3:] == ["nic_0000:02:00.4", "nic_0000:03:00.0"]
    assert complete("vmcoredd extract vm\\ core x nic_0000:03")[4:] == ["nic_0000:03:00.0"]
    assert complete("vmcoredd extract nothing nic")[3:] == ["nic"]


def test_zsh(scripts: Path, tmp_path: Path) -> None:
    require("zsh")
    (tmp_path / "a-directory").mkdir()
    out = tmp_path / "words"
    startup = f"fpath=({scripts} $fpath)\nautoload -U compinit\ncompinit -u -D\nprecmd() {{ {READY} }}\n"
    (tmp_path / ".zshrc").write_text(startup)
    lines = ["vmcoredd insp\t", "vmcoredd run --outp\ta-d\t", "vmcoredd run pmt nvm\t", "vmcoredd-daemon --no-b\t"]
    typed = [f"{line}\x01printf '%s\\n' >> {out} \n".encode() for line in lines]
    at_terminal(["zsh", "-o", "no_global_rcs"], tmp_path, typed)
    assert out.read_text().splitlines() == [
        *("vmcoredd", "inspect"),
        *("vmcoredd", "run", "--output=a-directory"),
        *("vmcoredd", "run", "pmt", "nvme"),
        *("vmcoredd-daemon", "--no-bus"),
    ]
