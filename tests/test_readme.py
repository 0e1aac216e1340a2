# SPDX-License-Identifier: LGPL-2.1-or-later
"""The sessions of README.md, as they stand there: after the demo, what is typed behind a $ prints what follows."""

import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.sessions import check_session, sessions
from tests.tools import require

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require("crash", "dbus-daemon", "makedumpfile")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    subprocess.run([sys.executable, "-m", "tests.demo"], cwd=tmp_path, check=True, stdout=subprocess.PIPE)
    (directory,) = re.findall(r"^    cd (build/.*)\n    cp proc-vmcore vmcore$", README, re.MULTILINE)
    demo = tmp_path / directory
    shutil.copy(demo / "proc-vmcore", demo / "vmcore")
    monkeypatch.setenv("PATH", f"{sysconfig.get_path('scripts')}:/usr/bin:/bin:/usr/sbin:/sbin")
    commands = list(sessions(README))
    assert [command.split()[1] for command, _ in commands] == ["attach", "inspect", "extract", "verify"]
    for command, output in commands:
        check_session(command, output, demo)


def test_every_key_is_in_the_table() -> None:
    columns = re.findall(r"^\| ([A-Za-z]+=.*?) \|", README, re.MULTILINE)
    keys = re.findall(r"^#(\w+=)", (ROOT / "systemd/vmcoredd.conf").read_text(), re.MULTILINE)
    assert sorted(", ".join(columns).split(", ")) == sorted(keys)


def test_every_command_is_named() -> None:
    for command in ("add", "run", "list", "write", "inspect", "verify", "extract", "attach", "core-collector"):
        assert f"vmcoredd {command}" in README
