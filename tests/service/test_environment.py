# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the service finds around it: host names, file systems, targets, standard descriptors, signals."""

import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lib import external_tools
from tests.lib.resources import tmpfs
from tests.lib.service import Service
from tests.lib.tools import require, skip_or_fail
from tests.lib.vmcoredd import run
from tests.lib.waiting import wait_until

SMALL = 64 << 20
"""Bytes of the file systems of these tests."""


class Elsewhere(Service):
    """A daemon that is started by another command, which is given the daemon's command line."""

    before: Sequence[str] = ()

    def _command(self) -> Sequence[str]:
        return [*self.before, *super()._command()]


def add(bus_address: str) -> "subprocess.CompletedProcess[str]":
    return run("add", "--bus-address", bus_address, "--size", "1M", "nic0", input="data")


def listed(daemon: Service) -> list[str]:
    return [dump.name for dump in external_tools.crash(daemon.vmcore())]


@contextmanager
def started(daemon: Service) -> Iterator[Service]:
    with daemon:
        yield daemon.start()


@pytest.mark.parametrize("name", ["a/b", "/", "../escape", "..", ".", "-rf", ".hidden", "a\nb", "a\x1b[2Jb"])
def test_host_name_is_one_directory_of_the_target(source_vmcore: Path, tmp_path: Path, name: str) -> None:
    require("unshare")
    script = 'printf %s "$1" > /proc/sys/kernel/hostname && shift && exec "$@"'
    daemon = Elsewhere(None, source_vmcore, tmp_path)
    daemon.before = ["unshare", "--uts", "sh", "-c", script, "sh", name]
    with started(daemon):
        assert daemon.stop() == 0, daemon.log()
    (directory,) = [path for path in daemon.target.iterdir() if path.name != ".vmcoredd-spool"]
    assert (directory / "vmcore").exists()
    assert directory.name[0] not in "-."
    assert directory.name.isprintable()


@contextmanager
def few_bytes_of_memory() -> Iterator[str]:
    """Provide a /proc/meminfo of a machine that has little memory left."""
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(re.sub(r"MemAvailable: +\d+", "MemAvailable: 65536", Path("/proc/meminfo").read_text()))
        file.flush()
        yield file.name


@contextmanager
def mounted(kind: str, path: Path) -> Iterator[Path]:
    require("mount", "umount")
    path.mkdir(exist_ok=True)
    if subprocess.run(["mount", "-t", kind, kind, path], capture_output=True, check=False).returncode != 0:
        skip_or_fail([f"a {kind} (no right to mount)"])
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


def test_file_system_that_does_not_say_how_full_it_is(
    bus_address: str, source_vmcore: Path, tmp_path: Path
) -> None:
    """A ramfs reports no blocks at all: unknown, and not full."""
    with mounted("ramfs", tmp_path / "target"), started(Service(bus_address, source_vmcore, tmp_path)) as daemon:
        assert add(bus_address).returncode == 0
        assert daemon.stop() == 0, daemon.log()
        assert "nic0" in listed(daemon)


def test_file_system_in_memory_leaves_some_memory(bus_address: str, source_vmcore: Path, tmp_path: Path) -> None:
    """What lies in a tmpfs takes memory, of which as much is left as by device dumps in memfds."""
    limits = "MaxDumpSize=900G\nMaxTotalSize=2000M"
    with few_bytes_of_memory() as meminfo, tmpfs(tmp_path / "target", SMALL):
        daemon = Elsewhere(bus_address, source_vmcore, tmp_path, limits)
        daemon.before = [
            "unshare",
            "--mount",
            "sh",
            "-c",
            'mount --bind "$1" /proc/meminfo; shift; exec "$@"',
            "sh",
            meminfo,
        ]
        with started(daemon):
            result = add(bus_address)
            assert result.returncode == 1
            assert "No space left on device" in result.stderr


def test_target_that_is_not_there_is_made(bus_address: str, source_vmcore: Path, tmp_path: Path) -> None:
    daemon = Service(bus_address, source_vmcore, tmp_path)
    daemon.target = tmp_path / "some" / "where"
    with started(daemon):
        assert add(bus_address).returncode == 0
        assert daemon.stop() == 0, daemon.log()
    assert "nic0" in listed(daemon)


def test_target_that_cannot_be_made(bus_address: str, source_vmcore: Path, tmp_path: Path) -> None:
    """Nothing that is added would be kept: so nothing is said to be added."""
    (tmp_path / "file").write_text("")
    daemon = Service(bus_address, source_vmcore, tmp_path)
    daemon.target = tmp_path / "file" / "where"
    with started(daemon):
        assert f"{daemon.target}: cannot make the target" in daemon.log()
        result = add(bus_address)
        assert result.returncode == 1
        assert daemon.stop() == 1


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_standard_descriptors_that_are_closed(
    bus_address: str, source_vmcore: Path, tmp_path: Path, closed: str
) -> None:
    daemon = Elsewhere(bus_address, source_vmcore, tmp_path)
    daemon.before = ["sh", "-c", f'exec "$@" {closed}', "sh"]
    with daemon:
        daemon.start(wait="2>" not in closed)
        wait_until(lambda: add(bus_address).returncode == 0)
        assert daemon.stop() == 0
    assert "nic0" in listed(daemon)


@pytest.mark.parametrize("configured", ["", "Format=elf"])
def test_kdump_tools_writes_the_vmcore_unless_configured_otherwise(
    bus_address: str, source_vmcore: Path, tmp_path: Path, configured: str
) -> None:
    line = tmp_path / "cmdline"
    line.write_text("BOOT_IMAGE=/vmlinuz quiet systemd.unit=kdump-tools-dump.service irqpoll\n")
    require("unshare")
    daemon = Elsewhere(bus_address, source_vmcore, tmp_path, configured)
    script = f'mount --bind {line} /proc/cmdline && exec "$@"'
    daemon.before = ["unshare", "--mount", "sh", "-c", script, "sh"]
    with daemon:
        daemon.start()
        assert add(bus_address).returncode == 0
        assert daemon.stop() == 0
    assert bool(list(daemon.target.glob("*/vmcore"))) is bool(configured)
    assert bool(list(daemon.target.rglob("*.note"))) is not bool(configured)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPWR])
def test_signals_that_end_the_service_after_the_vmcore(source_vmcore: Path, tmp_path: Path, number: int) -> None:
    with started(Service(None, source_vmcore, tmp_path)) as daemon:
        daemon.process.send_signal(number)
        assert daemon.process.wait(30) == 0
    assert daemon.vmcore().exists()


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGXCPU])
def test_signals_that_mean_nothing_to_the_service(source_vmcore: Path, tmp_path: Path, number: int) -> None:
    with started(Service(None, source_vmcore, tmp_path)) as daemon:
        daemon.process.send_signal(number)
        assert daemon.stop() == 0
    assert daemon.vmcore().exists()


@pytest.mark.parametrize("command", [["list"], ["core-collector", "-F", "/proc/vmcore"]])
@pytest.mark.parametrize("module", ["pathlib", "vmcoredd_daemon.cli.main", "argparse", "vmcoredd_daemon.errors"])
def test_interrupt_while_modules_are_imported(module: str, command: list[str]) -> None:
    interrupted = [sys.executable, "-m", "tests.lib.signal_on_import", "SIGINT", "vmcoredd_daemon.cli", module]
    result = subprocess.run([*interrupted, *command], capture_output=True, text=True, check=False, timeout=30)
    assert "Traceback" not in result.stderr
    assert result.returncode == -signal.SIGINT or (module == "argparse" and "core-collector" in command)
