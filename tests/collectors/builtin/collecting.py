# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs a collector in a directory that looks like the root of a machine."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.lib.loops import run_coroutine
from vmcoredd_daemon.collectors.python import DeviceCollector, PythonCollector
from vmcoredd_daemon.dumps.spool import Spool
from vmcoredd_daemon.errors import CollectorFailed
from vmcoredd_daemon.note import VMCOREDD_HEADER_SIZE, system_byteorder, system_page_size

BROKEN = Path("/proc/self/mem")
"""A file that cannot be read at its start: input/output error."""


def tree(root: Path, files: Mapping[str, bytes]) -> None:
    """Make files by their path."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def collect(collector: DeviceCollector) -> dict[str, tuple[bytes, str]]:
    """Return what the service would have of each device dump, and why it is not whole."""
    return run_coroutine(_collect(collector))


async def _collect(collector: DeviceCollector) -> dict[str, tuple[bytes, str]]:
    spool = Spool.in_memory(system_page_size(), system_byteorder())
    made = {}
    for name, size in collector.device_dumps():
        buffer = await spool.create(name, size)
        try:
            collected = await PythonCollector("test", collector, 30).collect(name, buffer)
            error = str(collected.error or "")
            made[name] = os.pread(buffer.fd, collected.size, VMCOREDD_HEADER_SIZE), error
        except CollectorFailed as failed:
            made[name] = b"", str(failed)
        finally:
            buffer.close()
    spool.close()
    return made


def members(archive: bytes) -> dict[str, bytes]:
    """Return the members of a tar archive, as tar(1) extracts them."""
    names = subprocess.run(["tar", "t"], input=archive, capture_output=True, check=True).stdout.decode().split()
    return {
        name: subprocess.run(["tar", "xO", name], input=archive, capture_output=True, check=True).stdout
        for name in names
    }
