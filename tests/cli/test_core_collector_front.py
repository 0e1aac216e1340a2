# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmcoredd-core-collector, in each shell that an initramfs may have, with the real makedumpfile."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import vmcoredd_daemon
from tests.lib import external_tools as judges
from tests.lib.core_collector import NOWHERE, OPTIONS, makedumpfile, verified
from tests.lib.paths import ROOT
from tests.lib.resources import children
from tests.lib.shell_program import shell_program
from tests.lib.tools import require
from tests.lib.waiting import wait_until
from vmcoredd_daemon.manifest import MANIFEST_NAME

pytestmark = pytest.mark.usefixtures("tools")

FRONT = str(ROOT / "systemd/vmcoredd-core-collector")
SHELLS = {"dash": ["dash"], "busybox": ["busybox", "sh"], "bash": ["bash", "--posix"]}
ALONE = "vmcoredd: no device dumps: vmcoredd core-collector ended before makedumpfile began, with status "
SLOW = 'touch {0}/started; sleep 2; echo dump >"$2"; exit 0'
"""A makedumpfile that has written its dump after two seconds."""


class Front:
    """The script in one shell, and the programs that it finds."""

    def __init__(self, shell: Sequence[str], programs: Path, config: Path) -> None:
        self.shell = shell
        self.programs = programs
        self.environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
        self._own = [f"--vmcoredd-config={config}", f"--vmcoredd-bus-address={NOWHERE}"]
        self.install(f'exec {sys.executable} -W default -m vmcoredd_daemon.cli "$@"')

    def install(self, script: str) -> None:
        """Make the program vmcoredd of a shell's commands."""
        shell_program(self.programs / "vmcoredd", script)

    def command(self, *arguments: object) -> list[str]:
        """Return the command line."""
        return [*self.shell, FRONT, *self._own, *map(str, arguments)]

    def run(self, *arguments: object, **options: Any) -> subprocess.CompletedProcess[Any]:
        """Run it to its end."""
        given = {
            "capture_output": True,
            "text": True,
            "timeout": 60,
            "env": self.environment,
            "cwd": self.programs,
        } | options
        return subprocess.run(self.command(*arguments), check=False, **given)

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """Start it; a context manager."""
        return subprocess.Popen(
            self.command(*arguments), env=self.environment, cwd=self.programs, stderr=subprocess.PIPE, text=True
        )


def ours(process: subprocess.Popen[str]) -> int:
    """Return the number of vmcoredd, which the script has started."""
    (child,) = children(process.pid).split()
    return int(child)


@pytest.fixture(params=SHELLS)
def front(request: pytest.FixtureRequest, config: Path, tmp_path: Path) -> Front:
    require(SHELLS[request.param][0])
    if request.param == "busybox" and "v1.38.0 " in subprocess.check_output(["busybox"], text=True):
        pytest.skip("read never returns after a signal (vda-linux/busybox_mirror#16)")
    (tmp_path / "programs").mkdir()
    return Front(SHELLS[request.param], tmp_path / "programs", config)


@pytest.fixture(scope="module")
def flat(source_vmcore: Path) -> bytes:
    """What makedumpfile alone writes to standard output."""
    return bytes(makedumpfile("-F", *OPTIONS, source_vmcore, text=False).stdout)


def test_file(front: Front, source_vmcore: Path, tmp_path: Path) -> None:
    result = front.run("makedumpfile", *OPTIONS, source_vmcore, tmp_path / "vmcore")
    assert (result.returncode, result.stdout) == (0, "")
    assert result.stderr.splitlines()[1:] == [f"vmcoredd: 1 device dump attached to {tmp_path}/vmcore"]
    assert verified(tmp_path / "vmcore") == {"version": True, MANIFEST_NAME: None}


def test_stream(front: Front, source_vmcore: Path, flat: bytes, tmp_path: Path) -> None:
    result = front.run("-F", *OPTIONS, source_vmcore, text=False)
    assert result.returncode == 0
    (tmp_path / "flat").write_bytes(result.stdout)
    with (tmp_path / "flat").open("rb") as file:
        judges.rearrange(file, tmp_path / "vmcore")
    assert verified(tmp_path / "vmcore") == {"version": True, MANIFEST_NAME: None}
    # Without device dumps it is that of makedumpfile, byte for byte.
    front.environment["PYTHONHOME"] = "/nonexistent"
    result = front.run("-F", *OPTIONS, source_vmcore, text=False)
    assert (result.returncode, result.stdout) == (0, flat)


def broken_package(directory: Path, name: str) -> Path:
    """Copy the package, and put a syntax error into one of its files."""
    copy = directory / "broken"
    package = Path(vmcoredd_daemon.__file__).parent
    shutil.copytree(package, copy / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    with (copy / package.name / name).open("a") as file:
        file.write("\ndef\n")
    return copy


BROKEN: dict[str, Callable[[Front, Path], None]] = {
    "PYTHONHOME": lambda front, directory: front.environment.update(PYTHONHOME="/nonexistent"),
    "no program": lambda front, directory: (front.programs / "vmcoredd").unlink(),
    "empty program": lambda front, directory: (front.programs / "vmcoredd").write_text(""),
    "no interpreter": lambda front, directory: (
        (front.programs / "vmcoredd").write_text("#!/nonexistent/python3\n") and None
    ),
    "syntax": lambda front, directory: front.environment.update(
        PYTHONPATH=str(broken_package(directory, "cli/core_collector/program.py"))
    ),
    "killed": lambda front, directory: front.install("kill -KILL $$"),
    "hung up": lambda front, directory: front.install("kill -HUP $$"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_what_is_wrong_with_us_costs_no_dump(
    front: Front, source_vmcore: Path, plain: Path, flat: bytes, tmp_path: Path, fault: str
) -> None:
    front.environment["PATH"] = f"{front.programs}:/usr/sbin:/usr/bin:/sbin:/bin"
    if Path("/usr/bin/vmcoredd").exists() and fault in {"no program", "no interpreter"}:
        pytest.skip("a shell finds the vmcoredd that is installed")
    BROKEN[fault](front, tmp_path)
    vmcore = tmp_path / "vmcore"
    result = front.run("makedumpfile", *OPTIONS, "--vmcoredd-timeout=9", source_vmcore, vmcore)
    assert (result.returncode, result.stdout) == (0, "")
    assert result.stderr.splitlines()[-1].startswith(ALONE)
    assert vmcore.read_bytes() == plain.read_bytes()
    result = front.run("-F", *OPTIONS, source_vmcore, text=False)
    assert (result.returncode, result.stdout) == (0, flat)


def test_bug_before_makedumpfile_starts(front: Front, source_vmcore: Path, plain: Path, tmp_path: Path) -> None:
    front.install(
        f"exec {sys.executable} -c 'import sys\n"
        "from vmcoredd_daemon.cli import main\n"
        "from vmcoredd_daemon.cli.core_collector import program\n"
        'program.parse = None\nsys.exit(main.main(sys.argv[1:]))\' "$@"'
    )
    result = front.run(*OPTIONS, source_vmcore, tmp_path / "vmcore")
    assert result.returncode == 0
    assert result.stderr.splitlines()[-1] == f"{ALONE}1"
    assert (tmp_path / "vmcore").read_bytes() == plain.read_bytes()


def test_makedumpfile_begins_once_if_it_fails(
    front: Front, program: Callable[[str], Path], tmp_path: Path
) -> None:
    counting = program(f"echo once >>{tmp_path}/count; exit 3")
    for options in ((counting, "a", "b"), (counting, "-F", "a")):
        assert front.run(*options, cwd=tmp_path).returncode == 3
    assert (tmp_path / "count").read_text() == "once\n" * 2


def test_no_makedumpfile(front: Front, tmp_path: Path) -> None:
    for arguments in (["-l", "a", "b"], ["-F", "a"], ["-R", "a"]):
        result = front.run("/nonexistent/makedumpfile", *arguments, cwd=tmp_path)
        assert result.returncode == 127
        assert "/nonexistent/makedumpfile" in result.stderr
        assert ALONE not in result.stderr


def test_signal_that_ends_makedumpfile(front: Front, program: Callable[[str], Path], tmp_path: Path) -> None:
    for options in (("-l", "a", "b"), ("-F", "a")):
        result = front.run(program("kill -SEGV $$"), *options, cwd=tmp_path)
        assert result.returncode == 128 + signal.SIGSEGV
        assert ALONE not in result.stderr


def test_killed_while_makedumpfile_writes(front: Front, program: Callable[[str], Path], tmp_path: Path) -> None:
    slow = program(SLOW.format(tmp_path))
    with front.start(slow, "a", tmp_path / "vmcore") as process:
        wait_until((tmp_path / "started").exists)
        os.kill(ours(process), signal.SIGKILL)
        # It is still being written.
        assert not (tmp_path / "vmcore").exists()
        assert process.wait(30) == 128 + signal.SIGKILL
        assert (tmp_path / "vmcore").read_text() == "dump\n"


def test_killed_while_the_real_makedumpfile_writes(
    front: Front, source_vmcore: Path, plain: Path, program: Callable[[str], Path], tmp_path: Path
) -> None:
    real = program(f'touch {tmp_path}/started; sleep 1; exec {shutil.which("makedumpfile")} "$@"')
    with front.start(real, *OPTIONS, source_vmcore, tmp_path / "vmcore") as process:
        wait_until((tmp_path / "started").exists)
        os.kill(ours(process), signal.SIGKILL)
        assert process.wait(30) != 0
        assert (tmp_path / "vmcore").read_bytes() == plain.read_bytes()


def test_killed_after_makedumpfile_has_written_a_file(
    config: Path, front: Front, source_vmcore: Path, plain: Path, tmp_path: Path
) -> None:
    """As the memory may run out while device dumps are gathered: the dump is whole, and kdump is told so."""
    collector = config.parent / "collectors.d/version.conf"
    collector.write_text(f"[Collector]\nExec=sh -c 'touch {tmp_path}/collecting; sleep 100'\n")
    with front.start(*OPTIONS, source_vmcore, tmp_path / "vmcore") as process:
        wait_until((tmp_path / "collecting").exists)
        (gathering,) = children(ours(process)).split()
        adjusted = [Path(f"/proc/{number}/oom_score_adj").read_text() for number in (ours(process), gathering)]
        os.kill(ours(process), signal.SIGKILL)
        assert process.wait(30) == 0
        os.kill(int(gathering), signal.SIGKILL)
    assert adjusted == ["1000\n"] * 2
    assert (tmp_path / "vmcore").read_bytes() == plain.read_bytes()


def test_killed_while_a_stream_is_written(front: Front, program: Callable[[str], Path], tmp_path: Path) -> None:
    endless = program(f"touch {tmp_path}/started; while echo x; do sleep 0.1; done; touch {tmp_path}/ended")
    with front.start(endless, "-F", "a") as process:
        wait_until((tmp_path / "started").exists)
        os.kill(ours(process), signal.SIGKILL)
        assert process.wait(30) == 128 + signal.SIGKILL
    # Of SIGPIPE, and the script has not begun again.
    assert not (tmp_path / "ended").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("options", [("a", "b"), ("-F", "a")])
def test_signals_reach_makedumpfile(
    front: Front, program: Callable[[str], Path], tmp_path: Path, options: tuple[str, ...], number: int
) -> None:
    waiting = program(f"echo $$ >{tmp_path}/number; mv {tmp_path}/number {tmp_path}/started; exec sleep 100")
    with front.start(waiting, *options) as process:
        wait_until((tmp_path / "started").exists)
        begun = time.monotonic()
        process.send_signal(number)
        # SIGINT reaches it as SIGTERM.
        assert process.wait(30) in {128 + number, 128 + signal.SIGTERM}
        assert time.monotonic() - begun < 10
    # A container may have no process that waits for orphans.
    status = Path(f"/proc/{(tmp_path / 'started').read_text().strip()}/status")
    assert not status.exists() or "State:\tZ" in status.read_text()


def test_signal_before_makedumpfile_starts_does_not_start_it(
    front: Front, program: Callable[[str], Path], tmp_path: Path
) -> None:
    front.install(f"touch {tmp_path}/sleeping; exec sleep 100")
    with front.start(program(f"touch {tmp_path}/started"), "a", "b") as process:
        # A shell that has not become sleep yet would take it later.
        wait_until((tmp_path / "sleeping").exists)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize(
    "line",
    [
        "--dump-dmesg a b",
        "-R b",
        "-g vmcoreinfo -x vmlinux",
        "--mem-usage a",
        "-h",
        "--help",
        "-v",
        "--split -l a b c",
        "--reassemble a b c",
    ],
)
def test_what_is_no_dump_needs_no_python(
    front: Front, program: Callable[[str], Path], tmp_path: Path, line: str
) -> None:
    front.install(f"touch {tmp_path}/ours")
    shown = program('printf "%s\\n" "$@"; cat')
    result = front.run(shown, *line.split(), "--vmcoredd-timeout=3", input="of standard input\n")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [*line.split(), "of standard input"]
    assert not (tmp_path / "ours").exists()


def test_what_only_we_know_to_be_no_dump(front: Front, program: Callable[[str], Path]) -> None:
    """An abbreviated option goes through Python, and the caller's descriptors, too."""
    result = front.run(program('printf "%s\\n" "$@"; cat'), "--dump a  b", "c", "d", input="of standard input\n")
    assert result.stdout.splitlines() == ["--dump a  b", "c", "d", "of standard input"]


@pytest.mark.parametrize("broken", [True, False])
@pytest.mark.parametrize("options", [("-F", "a"), ("a", "b")])
def test_makedumpfile_is_given_the_standard_descriptors_and_no_others(
    front: Front, program: Callable[[str], Path], tmp_path: Path, options: tuple[str, ...], broken: bool
) -> None:
    if broken:
        front.environment["PYTHONHOME"] = "/nonexistent"
    result = front.run(program("exec ls -l /proc/self/fd >&2"), *options, cwd=tmp_path)
    # The last one is the directory.
    assert re.findall(r" (\d+) -> (?!/proc/)", result.stderr) == ["0", "1", "2"], result.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_standard_descriptors_that_are_closed(
    front: Front, source_vmcore: Path, tmp_path: Path, closed: str
) -> None:
    vmcore = tmp_path / "vmcore"
    command = front.command(*OPTIONS, source_vmcore, vmcore)
    done = subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", *command], env=front.environment, check=False)
    assert done.returncode == 0
    assert verified(vmcore) == {"version": True, MANIFEST_NAME: None}


@pytest.mark.parametrize("value", ["soon", "1", "99", "99999", ""])
def test_handshake_that_is_no_descriptor(source_vmcore: Path, front: Front, tmp_path: Path, value: str) -> None:
    command = [str(front.programs / "vmcoredd"), "core-collector", f"--vmcoredd-handshake={value}"]
    command += [*front.command(*OPTIONS, source_vmcore, tmp_path / "vmcore")[len(front.shell) + 1 :]]
    done = subprocess.run(command, env=front.environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith(
        f"vmcoredd: {'' if value else chr(39)}--vmcoredd-handshake={value and repr(value)}"
    )
    assert "1 device dump attached" in done.stderr


def piped(
    front: Front, reader: str, *arguments: object, pipefail: bool = True
) -> subprocess.CompletedProcess[str]:
    """Pipe what it writes to *reader*, in bash, as dump_ssh() and dump_raw() of kdump-utils do."""
    require("bash")
    option = "-" if pipefail else "+"
    script = f'set {option}o pipefail; "$@" | {reader}'
    command = ["bash", "-c", script, "bash", *front.command(*arguments)]
    return subprocess.run(
        command, env=front.environment, cwd=front.programs, capture_output=True, text=True, timeout=60, check=False
    )


def rearranged(flat: Path, vmcore: Path) -> Path:
    with flat.open("rb") as file:
        judges.rearrange(file, vmcore)
    return vmcore


def test_as_dump_fs_calls_it(front: Front, source_vmcore: Path, tmp_path: Path) -> None:
    """The status decides whether kdump renames the file; its console takes both outputs."""
    incomplete = tmp_path / "vmcore-incomplete"
    script = '"$@" >console 2>&1 && sync -f "$0" && mv "$0" vmcore'
    command = front.command("makedumpfile", *OPTIONS, source_vmcore, incomplete)
    subprocess.run(["sh", "-c", script, incomplete, *command], env=front.environment, cwd=tmp_path, check=True)
    assert verified(tmp_path / "vmcore") == {"version": True, MANIFEST_NAME: None}
    assert (tmp_path / "console").read_text().endswith(f"1 device dump attached to {incomplete}\n")


def test_as_dump_ssh_calls_it(front: Front, source_vmcore: Path, tmp_path: Path) -> None:
    """kdump adds -F behind the options that it was given; dd of the other machine is the end of the pipe."""
    reader = f"sh -c 'umask 0077 && dd bs=512 of={tmp_path}/vmcore-incomplete'"
    result = piped(front, reader, "makedumpfile", *OPTIONS, "-F", source_vmcore)
    assert (result.returncode, result.stdout) == (0, "")
    vmcore = rearranged(tmp_path / "vmcore-incomplete", tmp_path / "vmcore")
    assert verified(vmcore) == {"version": True, MANIFEST_NAME: None}


def test_as_dump_raw_calls_it(front: Front, source_vmcore: Path, tmp_path: Path) -> None:
    """A partition has bytes behind those that are written to it: kdump reads it with makedumpfile -R."""
    partition = tmp_path / "partition"
    partition.write_bytes(b"\xa5" * (16 << 20))
    reader = f"dd of={partition} bs=512 conv=notrunc >>{tmp_path}/progress 2>&1"
    result = piped(front, reader, "makedumpfile", *OPTIONS, "-F", source_vmcore)
    assert (result.returncode, result.stdout) == (0, "")
    assert partition.stat().st_size == 16 << 20
    assert verified(rearranged(partition, tmp_path / "vmcore")) == {"version": True, MANIFEST_NAME: None}


@pytest.mark.parametrize("broken", [True, False])
def test_makedumpfile_that_fails_in_a_pipe(front: Front, tmp_path: Path, broken: bool) -> None:
    """With pipefail the status is makedumpfile's, so kdump does not call it a vmcore."""
    if broken:
        front.environment["PYTHONHOME"] = "/nonexistent"
    (tmp_path / "source").write_text("no vmcore")
    expected = makedumpfile(*OPTIONS, "-F", tmp_path / "source").returncode
    assert expected != 0
    arguments = ("makedumpfile", *OPTIONS, "-F", tmp_path / "source")
    assert piped(front, "dd of=/dev/null", *arguments).returncode == expected
    assert piped(front, "dd of=/dev/null", *arguments, pipefail=False).returncode == 0


@pytest.mark.parametrize("broken", [True, False])
@pytest.mark.parametrize(
    "reader", ["dd of=/dev/full bs=512", "false", "sh -c 'dd bs=512 count=9 of=/dev/null; exit 3'"]
)
def test_reader_that_ends_early(front: Front, source_vmcore: Path, reader: str, broken: bool) -> None:
    """A full disk, or a machine that is gone: kdump sees a status, and nothing hangs."""
    if broken:
        front.environment["PYTHONHOME"] = "/nonexistent"
    result = piped(front, reader, "makedumpfile", *OPTIONS, "-F", source_vmcore)
    assert result.returncode in {1, 3}
    # It is not begun again into a pipe that has the beginning of a dump.
    assert broken or ALONE not in result.stderr
