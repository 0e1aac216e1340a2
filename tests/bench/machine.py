# SPDX-License-Identifier: LGPL-2.1-or-later
"""Says on what machine figures were taken."""

import os
import platform
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tests.bench.storage import file_system
from vmcoredd_daemon import __version__

VERSIONS = {
    "coreutils": ("cp", "--version"),
    "makedumpfile": ("makedumpfile", "-v"),
    "dbus-daemon": ("dbus-daemon", "--version"),
    "mkfs.ext4": ("mkfs.ext4", "-V"),
    "mkfs.xfs": ("mkfs.xfs", "-V"),
}


def describe(directory: Path, emptied: str) -> Mapping[str, str]:
    """Return what there is to say, by its name; *emptied* says how caches are."""
    return {
        "vmcoredd": " ".join(filter(None, [__version__, _commit()])),
        "processor": f"{os.cpu_count()} x {_field('/proc/cpuinfo', 'model name')}",
        "memory": f"{int(_field('/proc/meminfo', 'MemTotal').split()[0]) >> 10} MiB",
        "virtual machine": "yes" if "hypervisor" in _field("/proc/cpuinfo", "flags").split() else "not known",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "file systems": f"ext4 and xfs on loop devices in {file_system(directory)}, with direct I/O if possible",
        "cold cache": emptied,
        "durable": "ours when answered; commands are followed by sync -d; own files by fsync",
        "load before": " ".join(f"{value:.2f}" for value in os.getloadavg()),
        **{name: _version(*command) for name, command in VERSIONS.items()},
    }


def _commit() -> str:
    """Return the commit that is measured, empty where there is no repository."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude=*"]
    with suppress(FileNotFoundError):
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        return run.stdout.strip()
    return ""


def _field(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "0 (not known)"


def _version(*command: str) -> str:
    try:
        run = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except FileNotFoundError:
        return "not installed"
    return next((line.strip() for line in (run.stdout + run.stderr).splitlines() if line.strip()), "not known")
