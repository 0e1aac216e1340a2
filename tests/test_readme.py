# SPDX-License-Identifier: LGPL-2.1-or-later
"""The sessions of README.md, as they stand there: what is typed behind a $ is run, and prints what follows."""

import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools import require

README = (Path(__file__).parent.parent / "README.md").read_text()


def session() -> Iterator[tuple[str, str]]:
    """Yield each command, and what it is to print."""
    # A paragraph ends it, an empty line does not.
    for block in re.findall(r"(?:^    .*\n(?:\n(?=    ))?)+", README, re.MULTILINE):
        lines = [line.removeprefix("    ") for line in block.splitlines()]
        starts = [number for number, line in enumerate(lines) if line.startswith("$ ")]
        for start, end in zip(starts, [*starts[1:], len(lines)], strict=False):
            yield lines[start].removeprefix("$ "), "".join(f"{line}\n" for line in lines[start + 1 : end])


def without_times(text: str) -> str:
    """Of times, that of the crash stays: it is in the vmcore."""
    return re.sub(r"(?<!Crash time: )\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME", text)


def test_sessions(source_vmcore: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require("makedumpfile")
    shutil.copy(source_vmcore, tmp_path / "vmcore")
    (tmp_path / "registers.bin").write_bytes(bytes(range(256)) * 1024)
    log = (f"[{i:6}] firmware: queue {i % 8} stalled, retrying\n" for i in range(2000))
    (tmp_path / "firmware.log").write_text("".join(log))
    monkeypatch.setenv("PATH", f"{sysconfig.get_path('scripts')}:/usr/bin:/bin:/usr/sbin:/sbin")
    commands = list(session())
    assert [command.split()[1] for command, _ in commands] == ["attach", "inspect", "extract", "verify"]
    for command, output in commands:
        result = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (result.returncode, result.stderr) == (0, ""), command
        assert without_times(result.stdout) == without_times(output), command


def test_every_command_is_named() -> None:
    for command in ("add", "run", "list", "write", "inspect", "verify", "extract", "attach", "core-collector"):
        assert f"vmcoredd {command}" in README
