# SPDX-License-Identifier: LGPL-2.1-or-later
"""The sessions of README.md, as they stand there: what is typed behind a $ is run, and prints what follows."""

import shutil
import sysconfig
from pathlib import Path

import pytest

from tests.sessions import check_session, make_files, sessions
from tests.tools import require

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_sessions(source_vmcore: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require("makedumpfile")
    shutil.copy(source_vmcore, tmp_path / "vmcore")
    make_files(tmp_path)
    monkeypatch.setenv("PATH", f"{sysconfig.get_path('scripts')}:/usr/bin:/bin:/usr/sbin:/sbin")
    commands = list(sessions(README))
    assert [command.split()[1] for command, _ in commands] == ["attach", "inspect", "extract", "verify"]
    for command, output in commands:
        check_session(command, output, tmp_path)


def test_every_command_is_named() -> None:
    for command in ("add", "run", "list", "write", "inspect", "verify", "extract", "attach", "core-collector"):
        assert f"vmcoredd {command}" in README
