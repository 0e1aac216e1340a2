# SPDX-License-Identifier: LGPL-2.1-or-later
"""docs/first-steps.md: after the demo, what is typed behind a $ prints what follows; every command runs."""

import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from docs import programs
from tests.lib import external_tools as judges
from tests.lib.paths import ROOT
from tests.lib.service import Service
from tests.lib.sessions import check_session, make_files, sessions
from tests.lib.shell_program import shell_program
from tests.lib.tools import require

TEXT = (ROOT / "docs/first-steps.md").read_text()


def test_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require("crash", "dbus-daemon", "makedumpfile")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    subprocess.run([sys.executable, "-m", "tests.demo"], cwd=tmp_path, check=True, stdout=subprocess.PIPE)
    (directory,) = re.findall(r"^    cd (build/.*)\n    cp proc-vmcore vmcore$", TEXT, re.MULTILINE)
    demo = tmp_path / directory
    shutil.copy(demo / "proc-vmcore", demo / "vmcore")
    monkeypatch.setenv("PATH", f"{sysconfig.get_path('scripts')}:/usr/bin:/bin:/usr/sbin:/sbin")
    commands = list(sessions(TEXT))
    assert [command.split()[1] for command, _ in commands] == ["attach", "inspect", "extract", "verify"]
    for command, output in commands:
        check_session(command, output, demo)


def commands_of(section: str) -> list[str]:
    """Return the lines of the first block in a section, without what is said of them."""
    block = TEXT.partition(f"## {section}\n\n")[2].partition("\n\n")[0]
    return [re.sub(r"\s{2,}#.*", "", line.removeprefix("    ")) for line in block.splitlines()]


def test_every_command_is_named() -> None:
    named = {line.split()[1] for line in commands_of("Every command") if line.startswith("vmcoredd ")}
    assert named == set(programs.commands())


def test_commands_are_as_they_stand_there(
    daemon: Service, bus_address: str, source_vmcore: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each succeeds, in this order. Only the names of places are others, and ssh(1) stays on this machine."""
    require("makedumpfile")
    make_files(tmp_path)
    (tmp_path / "collectors.d/my-driver.conf").write_text("[Collector]\nExec=echo registers\n")
    ssh = shell_program(tmp_path / "bin/ssh", 'exec sh -c "$2"')
    (boot,) = (daemon.target / ".vmcoredd-spool").iterdir()
    places = {"VMCORE": f"{daemon.target}/*/vmcore", "/var/crash/.vmcoredd-spool/BOOT": str(boot)}
    places |= {"/var/crash": str(daemon.target), "OTHER": places["VMCORE"]}
    # Not what crashes of this machine have left.
    (tmp_path / "resolve.conf").write_text(f"[Vmcoredd]\nTarget={daemon.target}\n")
    places |= {"vmcoredd resolve": f"vmcoredd resolve --config {tmp_path}/resolve.conf"}
    places |= {"/proc/vmcore": str(source_vmcore), "DIRECTORY": "all", "NAME=FILE": "log=firmware.log"}
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus_address)
    monkeypatch.setenv("PATH", f"{ssh.parent}:{sysconfig.get_path('scripts')}:/usr/bin:/bin:/usr/sbin:/sbin")
    first, *listed = commands_of("Every command")
    assert first == "vmcoredd-daemon --source /proc/vmcore --target /var/crash"
    for command in listed:
        line = re.sub("|".join(map(re.escape, places)), lambda found: places[found[0]], command)
        result = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)
        # This machine need not have a capture kernel.
        good = {0, 1} if command == "vmcoredd check" else {0}
        assert result.returncode in good, f"{command}: {result.stderr}"
    assert judges.crash(tmp_path / "vmcore")
    assert (tmp_path / "vmcore.flat").stat().st_size > 1 << 20
