# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmcoredd-daemon as a process, on a bus of its own."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.lib.paths import ROOT
from vmcoredd_daemon.collectors.builtin import BUILT_IN

READY_TIMEOUT = 20.0
STOP_TIMEOUT = 60.0
UNIT = ROOT / "systemd" / "vmcoredd.service"


def mask_built_in(directory: Path) -> None:
    """Switch off the collectors that would find the devices of this machine."""
    directory.mkdir(exist_ok=True)
    for name in BUILT_IN:
        (directory / f"{name}.conf").touch()


def unit_environment() -> dict[str, str]:
    """Return the environment variables that the unit sets: with them malloc keeps less memory."""
    (line,) = re.findall(r"^Environment=(.*)", UNIT.read_text(), re.MULTILINE)
    return dict(word.split("=", 1) for word in line.split())


class Service:
    """One daemon; a context manager that kills it if the test has not stopped it."""

    def __init__(
        self,
        address: str | None,
        source: Path,
        directory: Path,
        configuration: str = "",
        *,
        dev_mode: bool = True,
        module: Sequence[str] = ("vmcoredd_daemon",),
    ) -> None:
        self.address = address
        self.target = directory / "target"
        self.target.mkdir(exist_ok=True)
        self._log = directory / "daemon.log"
        self.configuration = directory / "vmcoredd.conf"
        self.configuration.write_text(f"[Vmcoredd]\n{configuration}\n")
        mask_built_in(directory / "collectors.d")
        self.source = source
        # Development mode shows what is not closed, and makes asyncio several times slower.
        self._python = [sys.executable, "-X", "dev"] if dev_mode else [sys.executable]
        self._module = module
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str, wait: bool = True) -> "Service":
        """Start the process, and wait until it takes or refuses device dumps."""
        bus = ["--no-bus"] if self.address is None else ["--bus-address", self.address]
        with self._log.open("ab") as log:
            started_at = log.tell()
            self._process = subprocess.Popen([*self._command(), *bus, *options], stderr=log)
        deadline = time.monotonic() + READY_TIMEOUT
        while wait and not re.search("(Taking|Refusing) device dumps", self.log()[started_at:]):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the daemon did not start:\n{self.log()}")
            time.sleep(0.02)
        return self

    def _command(self) -> Sequence[str]:
        files = ["--config", str(self.configuration), "--source", str(self.source), "--target", str(self.target)]
        return [*self._python, "-m", *self._module, *files]

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        """The running process."""
        assert self._process is not None
        return self._process

    def stop(self) -> int:
        """Ask it to stop; return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_TIMEOUT)

    def kill(self) -> None:
        """Kill it, as the out-of-memory killer would."""
        self.process.kill()
        self.process.wait()

    def log(self) -> str:
        """Return what it has logged so far."""
        return self._log.read_text()

    def vmcore(self, name: str = "vmcore") -> Path:
        """Return the vmcore that it has written."""
        (path,) = self.target.glob(f"*/{name}")
        return path

    def fd_count(self) -> int:
        """Return how many files it has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def __enter__(self) -> "Service":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()
